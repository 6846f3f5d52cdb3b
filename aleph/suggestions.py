"""What somebody could do to spend less, read from his own last 30 days: other models for the same calls, chats that carry a
long past with every message, and messages that were sent again and again. It says what would have been, never what will be.

Joins usage, chats and balances, so it stands in the roof. What he does not want to read goes away for a month.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from django.db.models import Count, F, Max, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_POST, require_safe

from aleph.accounts.models import Dismissal, User
from aleph.pages import page as guarded
from aleph.prepared import planned_anew
from chat import catalogue
from chat.models import ChatModel, Message
from usage.models import TokenUsage

DAYS = 30
FEWEST_CALLS = 5
LEAST_SAVING_PERCENT = 20
LEAST_TOKENS = 200
"""Aleph tokens in the period below which nothing is worth a word."""
MODELS = 3
LONG_INPUT = 6000
"""LLM tokens that one message sends; from here on its chat is called long."""
FEWEST_MESSAGES = 6
"""Below, what is long is a message and not the chat."""
LATELY = timedelta(days=7)
CALLS_READ = 300
MESSAGES_READ = 1000
REPEATED = 3
LEAST_CHARACTERS = 20
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Other:
    """A model that would have done the same calls for `tokens`; `idr` by what this person's tokens are worth."""

    model: ChatModel
    tokens: int
    idr: int
    percent: int


@dataclass(frozen=True, slots=True)
class Cheaper:
    key: str
    name: str
    calls: int
    tokens: int
    idr: int
    others: list[Other]


@dataclass(frozen=True, slots=True)
class LongChat:
    """`input_tokens` are what its last message sent, which cost about `tokens` before a word was answered."""

    key: str
    session_id: str
    title: str
    input_tokens: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Repeated:
    """A message sent `times` times; `tokens` are what all of its replies have cost."""

    key: str
    session_id: str
    message_id: str
    text: str
    times: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Suggestions:
    cheaper: Cheaper | None
    long_chats: list[LongChat]
    repeated: list[Repeated]

    def __bool__(self) -> bool:
        return bool(self.cheaper or self.long_chats or self.repeated)


@planned_anew()
def of(user: User) -> Suggestions:
    now = timezone.now()
    since = now - timedelta(days=DAYS)
    unwanted = set(Dismissal.objects.filter(user=user, at__gt=since).values_list("key", flat=True))
    cheaper = _cheaper(user, since)
    return Suggestions(
        cheaper if cheaper and cheaper.key not in unwanted else None,
        [chat for chat in _long_chats(user, now - LATELY) if chat.key not in unwanted][:SHOWN],
        [said for said in _repeated(user, since) if said.key not in unwanted][:SHOWN],
    )


def dismiss(user: User, key: str) -> None:
    Dismissal.objects.update_or_create(
        user=user, key=key[: Dismissal.KEY_LENGTH], defaults={"at": timezone.now()}
    )


def _cheaper(user: User, since: datetime) -> Cheaper | None:
    """Other models for what the dearest one did. What a model of another maker counts for the same words differs a
    little, and each call rounds up, so the figure errs on the dear side."""
    spent = (
        TokenUsage.objects.filter(
            user=user, created_at__gte=since, operation="chat_message", charged_tokens__gt=0
        )
        .values("label")
        .annotate(
            calls=Count("id"),
            tokens=Sum("charged_tokens"),
            thousandths=Sum("charged_idr_thousandths"),
            read=Sum("input_tokens"),
            written=Sum("output_tokens"),
            longest=Max(F("input_tokens") + F("output_tokens")),
        )
        .order_by("-tokens", "label")
        .first()
    )
    if spent is None or spent["calls"] < FEWEST_CALLS or spent["tokens"] < LEAST_TOKENS:
        return None
    shown_images = Message.objects.filter(user=user, created_at__gte=since, image_count__gt=0).exists()
    others = []
    for offer in catalogue.offers():
        model = offer.model
        if not offer.is_available or model.name == spent["label"] or model.context_tokens < spent["longest"]:
            continue
        if shown_images and not model.takes_images:
            continue
        tokens = 0
        if not model.is_free:
            thousandths = spent["read"] * model.input_rate + spent["written"] * model.output_rate
            tokens = -(-thousandths // 1000) + spent["calls"]
        percent = 100 * (spent["tokens"] - tokens) // spent["tokens"]
        if percent >= LEAST_SAVING_PERCENT:
            idr = spent["thousandths"] * tokens // spent["tokens"] // 1000
            others.append(Other(model, tokens, idr, percent))
    # The dearest of those that save: the nearer in price, the nearer in what it can do, as a rule.
    others.sort(key=lambda other: (-other.tokens, other.model.position))
    if not others:
        return None
    return Cheaper(
        f"cheaper:{spent['label']}",
        spent["label"],
        spent["calls"],
        spent["tokens"],
        spent["thousandths"] // 1000,
        _spread(others),
    )


def _spread(others: list[Other]) -> list[Other]:
    """The first, the last and one from the middle."""
    if len(others) <= MODELS:
        return others
    return [others[0], others[len(others) // 2], others[-1]]


def _long_chats(user: User, since: datetime) -> list[LongChat]:
    calls = (
        TokenUsage.objects.filter(
            user=user, created_at__gte=since, operation="chat_message", charged_tokens__gt=0
        )
        .order_by("-created_at")
        .values_list("session", "operation_id", "input_tokens")[:CALLS_READ]
    )
    newest: dict[str, tuple[str, int]] = {}
    for chat, reply_id, input_tokens in calls:
        newest.setdefault(chat, (reply_id, input_tokens))
    long = {reply_id: size for reply_id, size in newest.values() if size >= LONG_INPUT}
    replies = Message.objects.filter(
        user=user, pk__in=long, session__message_count__gte=FEWEST_MESSAGES
    ).select_related("session")
    found = [
        LongChat(
            f"long:{reply.session_id}",
            reply.session_id,
            reply.session.title,
            long[reply.pk],
            -(-long[reply.pk] * reply.input_rate // 1000),
        )
        for reply in replies
    ]
    return sorted(found, key=lambda chat: -chat.tokens)


def _repeated(user: User, since: datetime) -> list[Repeated]:
    """Compared here, because the database may not be able to read what was said (`aleph.sealed`)."""
    said = (
        Message.objects.filter(session__user=user, role=Message.Role.USER, created_at__gte=since)
        .order_by("-pk")
        .values_list("pk", "session_id", "content")[:MESSAGES_READ]
    )
    alike: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for pk, session_id, content in said:
        words = " ".join(content.split()).casefold()
        if len(words) >= LEAST_CHARACTERS:
            alike[words].append((pk, session_id, content))
    groups = [group for group in alike.values() if len(group) >= REPEATED]
    costs = _costs(pk for group in groups for pk, *_rest in group)
    found = [
        Repeated(
            f"again:{hashlib.sha256(content.casefold().encode('utf-8', 'surrogatepass')).hexdigest()[:32]}",
            session_id,
            pk,
            content,
            len(group),
            sum(costs.get(each, 0) for each, *_rest in group),
        )
        for group in groups
        for pk, session_id, content in group[:1]
    ]
    return sorted((each for each in found if each.tokens), key=lambda each: -each.tokens)


def _costs(message_ids: Iterable[str]) -> dict[str, int]:
    answers = Message.objects.filter(parent__in=list(message_ids), role=Message.Role.ASSISTANT)
    summed = answers.values("parent").annotate(tokens=Sum("tokens_used"))
    return {str(row["parent"]): row["tokens"] for row in summed}


@require_safe
@guarded
def page(request: HttpRequest) -> HttpResponse:
    """A part of the usage page, or a page of its own."""
    return _shown(request)


@require_POST
@guarded
def unwanted(request: HttpRequest) -> HttpResponse:
    dismiss(cast(User, request.user), request.POST.get("key", "").replace("\x00", ""))
    return _shown(request) if "HX-Request" in request.headers else redirect("suggestions")


def _shown(request: HttpRequest) -> HttpResponse:
    template = "usage/_suggestions.html" if "HX-Request" in request.headers else "usage/suggestions.html"
    response = render(request, template, {"found": of(cast(User, request.user)), "days": DAYS})
    patch_vary_headers(response, ["HX-Request"])
    return response
