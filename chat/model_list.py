"""The models a shop opens with, and where each is answered from. For `manage.py seed`; from then on they are the staff's.

First S0's ten names at S0's prices, in Aleph tokens per 1K LLM tokens. Six of them have been retired by their makers;
the names are kept and lead to the successor that the maker names, and `note` says so to readers. Then what the makers
offer today, at rates set from cost (`chat.rates_from_cost`) with `MARGIN_PERCENT`. Days of retirement are the makers';
from that day on the named successor answers. Contexts end where a maker's price for long prompts begins. Sources: the
makers' model lists, November 2026.
"""

from dataclasses import dataclass
from datetime import date

import structlog
from django.db import transaction
from django.utils.translation import gettext_noop

from chat import local_models, rates_from_cost
from chat.models import ChatModel, Route

log = structlog.get_logger(__name__)

LONGEST_REPLY = 2048
LONGEST_REPLY_TODAY = 4096
MARGIN_PERCENT = 50
"""What models whose rates are set from cost earn at least. Staff may state another for each."""
GPT_4_ENDS = date(2027, 1, 14)


@dataclass(frozen=True, slots=True)
class Listing:
    """One model of the list. `rate` is both the input and the output rate; 0 is a free model, None one whose rates are set
    from cost. `fallbacks` are further providers and their ids for the model, in order; `gateway` one that comes first."""

    slug: str
    name: str
    maker: str
    rate: int | None
    context_tokens: int
    provider: str
    upstream_model: str
    note: str = ""
    takes_temperature: bool = True
    takes_images: bool = False
    thinks: bool = False
    max_output_tokens: int = LONGEST_REPLY
    gateway: str = ""
    fallbacks: tuple[tuple[str, str], ...] = ()
    retires_on: date | None = None
    successor: str = ""

    @property
    def ways(self) -> list[tuple[str, str]]:
        direct = (self.provider, self.upstream_model)
        return [*([(self.gateway, self.upstream_model)] if self.gateway else []), direct, *self.fallbacks]


OF_S0 = (
    Listing(
        "llama-3.3-70b",
        "Llama 3.3 70B Instruct",
        "Meta",
        0,
        131_072,
        "huggingface",
        "meta-llama/Llama-3.3-70B-Instruct",
        fallbacks=(("ollama", "llama3.3"),),
    ),
    Listing(
        *("aleph-demo", "Aleph Demo", "Aleph", 0, 8_192, "demo", "demo"),
        takes_images=True,
        note=gettext_noop(
            "Works without a key and without a network, and does not think. It shows how Aleph works."
        ),
    ),
    Listing(
        *("gpt-4o", "GPT-4o", "OpenAI", 150, 128_000, "openai", "gpt-4o"),
        takes_images=True,
        gateway="n8n",
        retires_on=GPT_4_ENDS,
        successor="gpt-6-luna",
    ),
    Listing(
        *("gpt-4o-mini", "GPT-4o Mini", "OpenAI", 30, 128_000, "openai", "gpt-4o-mini"),
        takes_images=True,
        gateway="n8n",
        retires_on=GPT_4_ENDS,
        successor="gpt-6-luna",
    ),
    Listing(
        *(
            "claude-3.5-sonnet",
            "Claude 3.5 Sonnet",
            "Anthropic",
            200,
            1_000_000,
            "anthropic",
            "claude-sonnet-5-5",
        ),
        takes_images=True,
        gateway="n8n",
        successor="claude-sonnet-5.5",
        note=gettext_noop("Anthropic retired this model; Claude Sonnet 5.5 answers in its place."),
        takes_temperature=False,
    ),
    Listing(
        *("claude-3-haiku", "Claude 3 Haiku", "Anthropic", 40, 1_000_000, "anthropic", "claude-haiku-5-5"),
        note=gettext_noop("Anthropic retired this model; Claude Haiku 5.5 answers in its place."),
        takes_temperature=False,
        takes_images=True,
        gateway="n8n",
        successor="claude-haiku-5.5",
    ),
    Listing(
        *("gemini-pro", "Gemini Pro", "Google", 100, 1_000_000, "gemini", "gemini-3.8-flash"),
        note=gettext_noop("Google retired this model; Gemini 3.8 Flash answers in its place."),
        takes_temperature=False,
        thinks=True,
        takes_images=True,
        gateway="n8n",
        successor="gemini-3.8-flash",
    ),
    Listing(
        *("gemini-flash", "Gemini Flash", "Google", 25, 1_000_000, "gemini", "gemini-3.5-flash-lite"),
        note=gettext_noop("Google retired this model; Gemini 3.5 Flash-Lite answers in its place."),
        takes_temperature=False,
        thinks=True,
        takes_images=True,
        gateway="n8n",
        successor="gemini-3.5-flash-lite",
    ),
    Listing(
        *("deepseek-chat", "DeepSeek Chat", "DeepSeek", 20, 1_000_000, "deepseek", "deepseek-flash"),
        note=gettext_noop("DeepSeek retired this model; DeepSeek V4.1 Flash answers in its place."),
        gateway="n8n",
        successor="deepseek-v4.1-flash",
    ),
    Listing(
        *("deepseek-coder", "DeepSeek Coder", "DeepSeek", 25, 1_000_000, "deepseek", "deepseek-flash"),
        note=gettext_noop("DeepSeek retired this model; DeepSeek V4.1 Flash answers in its place."),
        gateway="n8n",
        successor="deepseek-v4.1-flash",
    ),
)

TODAY = (
    Listing(
        *("gpt-6-luna", "GPT-6 Luna", "OpenAI", None, 272_000, "openai", "gpt-6-luna"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *("gpt-6.1-terra", "GPT-6.1 Terra", "OpenAI", None, 272_000, "openai", "gpt-6.1-terra"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *("gpt-6.1-sol", "GPT-6.1 Sol", "OpenAI", None, 272_000, "openai", "gpt-6.1-sol"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *("gpt-6-astra", "GPT-6 Astra", "OpenAI", None, 272_000, "openai", "gpt-6-astra"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *("gpt-4.1", "GPT-4.1", "OpenAI", None, 1_000_000, "openai", "gpt-4.1"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_images=True,
        retires_on=GPT_4_ENDS,
        successor="gpt-6.1-terra",
    ),
    Listing(
        *(
            "claude-haiku-5.5",
            "Claude Haiku 5.5",
            "Anthropic",
            None,
            100_000,
            "anthropic",
            "claude-haiku-5-5",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
    ),
    Listing(
        *(
            "claude-sonnet-5.5",
            "Claude Sonnet 5.5",
            "Anthropic",
            None,
            1_000_000,
            "anthropic",
            "claude-sonnet-5-5",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
    ),
    Listing(
        *("claude-opus-5.5", "Claude Opus 5.5", "Anthropic", None, 1_000_000, "anthropic", "claude-opus-5-5"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
    ),
    Listing(
        *(
            "claude-fable-5.2",
            "Claude Fable 5.2",
            "Anthropic",
            None,
            1_000_000,
            "anthropic",
            "claude-fable-5-2",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
    ),
    Listing(
        *("gemini-4-argon", "Gemini 4 Argon", "Google", None, 1_000_000, "gemini", "gemini-4-argon"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *("gemini-3.8-flash", "Gemini 3.8 Flash", "Google", None, 1_000_000, "gemini", "gemini-3.8-flash"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *(
            "gemini-3.5-flash-lite",
            "Gemini 3.5 Flash-Lite",
            "Google",
            None,
            1_000_000,
            "gemini",
            "gemini-3.5-flash-lite",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
    ),
    Listing(
        *(
            "gemini-3.1-flash-lite",
            "Gemini 3.1 Flash-Lite",
            "Google",
            None,
            1_000_000,
            "gemini",
            "gemini-3.1-flash-lite",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
        thinks=True,
        retires_on=date(2027, 5, 7),
        successor="gemini-3.5-flash-lite",
    ),
    Listing(
        *(
            "gemini-2.5-flash-lite",
            "Gemini 2.5 Flash-Lite",
            "Google",
            None,
            1_000_000,
            "gemini",
            "gemini-2.5-flash-lite",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
        takes_temperature=False,
        takes_images=True,
    ),
    Listing(
        *(
            "deepseek-v4.1-flash",
            "DeepSeek V4.1 Flash",
            "DeepSeek",
            None,
            1_000_000,
            "deepseek",
            "deepseek-flash",
        ),
        max_output_tokens=LONGEST_REPLY_TODAY,
    ),
    Listing(
        *("deepseek-v4-pro", "DeepSeek V4 Pro", "DeepSeek", None, 1_000_000, "deepseek", "deepseek-v4-pro"),
        max_output_tokens=LONGEST_REPLY_TODAY,
    ),
    Listing(
        *("gpt-oss-120b", "GPT-OSS 120B", "OpenAI", None, 131_072, "cerebras", "gpt-oss-120b"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        thinks=True,
    ),
    Listing(
        *("qwen-3.8-27b", "Qwen 3.8 27B", "Alibaba", None, 65_536, "cerebras", "qwen-3.8-27b"),
        max_output_tokens=LONGEST_REPLY_TODAY,
        thinks=True,
    ),
)

OPENING = OF_S0 + TODAY


def seed() -> int:
    """Add the models that are missing, by slug, each with its routes; the number of them. What is there stays as the
    staff left it, routes included. A model whose rates cannot be set, because a price is missing, is left out."""
    present = set(ChatModel.objects.values_list("slug", flat=True))
    added = [
        listing
        for position, listing in enumerate(OPENING, 1)
        if listing.slug not in present and _add(listing, position)
    ]
    for listing in added:
        if listing.successor:
            successor = ChatModel.objects.filter(slug=listing.successor).first()
            ChatModel.objects.filter(slug=listing.slug, successor=None).update(successor=successor)
    return len(added)


def _add(listing: Listing, position: int) -> bool:
    """False if it is there already, or cannot be priced."""
    rates = _rates(listing)
    if rates is None:
        return False
    with transaction.atomic():
        model, is_fresh = ChatModel.objects.get_or_create(
            slug=listing.slug,
            defaults={
                "name": listing.name,
                "maker": listing.maker,
                "is_free": listing.rate == 0,
                "input_rate": rates.input,
                "output_rate": rates.output,
                "margin_percent": MARGIN_PERCENT if listing.rate is None else None,
                "context_tokens": listing.context_tokens,
                "max_output_tokens": listing.max_output_tokens,
                "takes_temperature": listing.takes_temperature,
                "takes_images": listing.takes_images,
                "thinks": listing.thinks,
                "retires_on": listing.retires_on,
                "note": listing.note,
                "position": position,
            },
        )
        if is_fresh:
            Route.objects.bulk_create(
                Route(
                    model=model,
                    provider=provider,
                    upstream_model=upstream_model,
                    position=position,
                    is_absent=provider == local_models.PROVIDER,  # until it is found
                )
                for position, (provider, upstream_model) in enumerate(listing.ways, 1)
            )
    return is_fresh


def _rates(listing: Listing) -> rates_from_cost.Rates | None:
    if listing.rate is not None:
        return rates_from_cost.Rates(listing.rate, listing.rate)
    try:
        return rates_from_cost.of(
            listing.ways, context_tokens=listing.context_tokens, margin_percent=MARGIN_PERCENT
        )
    except rates_from_cost.NoPrice as missing:
        log.warning("a model cannot be priced and is left out", model=listing.slug, price=missing.what)
        return None
