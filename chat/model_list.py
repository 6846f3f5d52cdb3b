"""The models a shop opens with (S0), and where each is answered from. For `manage.py seed`; from then on they are the
staff's.

Prices are S0's, in Aleph tokens per 1K LLM tokens. Six of S0's models have been retired by their makers; their names
are kept and lead to the successor that the maker names, and `note` says so to readers. Context sizes are those of the
model that answers. Source of both: the makers' model lists, November 2026.
"""

from dataclasses import dataclass

from django.db import transaction
from django.utils.translation import gettext_noop

from chat.models import ChatModel, Route

LONGEST_REPLY = 2048


@dataclass(frozen=True, slots=True)
class Listing:
    """One model of the list. `rate` is both the input and the output rate; 0 is a free model."""

    slug: str
    name: str
    maker: str
    rate: int
    context_tokens: int
    provider: str
    upstream_model: str
    note: str = ""
    takes_temperature: bool = True
    fallback: tuple[str, str] | None = None
    """A second provider and its id for the model, for where the first is not connected."""


OPENING = (
    Listing(
        "llama-3.3-70b",
        "Llama 3.3 70B Instruct",
        "Meta",
        0,
        131_072,
        "huggingface",
        "meta-llama/Llama-3.3-70B-Instruct",
        fallback=("ollama", "llama3.3"),
    ),
    Listing(
        *("aleph-demo", "Aleph Demo", "Aleph", 0, 8_192, "demo", "demo"),
        note=gettext_noop(
            "Works without a key and without a network, and does not think. It shows how Aleph works."
        ),
    ),
    Listing("gpt-4o", "GPT-4o", "OpenAI", 150, 128_000, "openai", "gpt-4o"),
    Listing("gpt-4o-mini", "GPT-4o Mini", "OpenAI", 30, 128_000, "openai", "gpt-4o-mini"),
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
        note=gettext_noop("Anthropic retired this model; Claude Sonnet 5.5 answers in its place."),
        takes_temperature=False,
    ),
    Listing(
        *("claude-3-haiku", "Claude 3 Haiku", "Anthropic", 40, 1_000_000, "anthropic", "claude-haiku-5-5"),
        note=gettext_noop("Anthropic retired this model; Claude Haiku 5.5 answers in its place."),
        takes_temperature=False,
    ),
    Listing(
        *("gemini-pro", "Gemini Pro", "Google", 100, 1_000_000, "gemini", "gemini-3.8-flash"),
        note=gettext_noop("Google retired this model; Gemini 3.8 Flash answers in its place."),
        takes_temperature=False,
    ),
    Listing(
        *("gemini-flash", "Gemini Flash", "Google", 25, 1_000_000, "gemini", "gemini-3.5-flash-lite"),
        note=gettext_noop("Google retired this model; Gemini 3.5 Flash-Lite answers in its place."),
        takes_temperature=False,
    ),
    Listing(
        *("deepseek-chat", "DeepSeek Chat", "DeepSeek", 20, 1_000_000, "deepseek", "deepseek-flash"),
        note=gettext_noop("DeepSeek retired this model; DeepSeek V4.1 Flash answers in its place."),
    ),
    Listing(
        *("deepseek-coder", "DeepSeek Coder", "DeepSeek", 25, 1_000_000, "deepseek", "deepseek-flash"),
        note=gettext_noop("DeepSeek retired this model; DeepSeek V4.1 Flash answers in its place."),
    ),
)


def seed() -> int:
    """Add the models that are missing, by slug, each with its routes; the number of them. What is there stays as the
    staff left it, routes included."""
    present = set(ChatModel.objects.values_list("slug", flat=True))
    missing = [
        (position, listing) for position, listing in enumerate(OPENING, 1) if listing.slug not in present
    ]
    for position, listing in missing:
        with transaction.atomic():
            model, is_fresh = ChatModel.objects.get_or_create(
                slug=listing.slug,
                defaults={
                    "name": listing.name,
                    "maker": listing.maker,
                    "is_free": listing.rate == 0,
                    "input_rate": listing.rate,
                    "output_rate": listing.rate,
                    "context_tokens": listing.context_tokens,
                    "max_output_tokens": LONGEST_REPLY,
                    "takes_temperature": listing.takes_temperature,
                    "note": listing.note,
                    "position": position,
                },
            )
            if is_fresh:
                ways = [(listing.provider, listing.upstream_model), listing.fallback]
                Route.objects.bulk_create(
                    Route(model=model, provider=way[0], upstream_model=way[1], position=position)
                    for position, way in enumerate(ways, 1)
                    if way is not None
                )
    return len(missing)
