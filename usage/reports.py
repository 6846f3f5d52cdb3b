"""What was used and what it cost, for people about themselves. A door of this app; reads only.

Everything starts from the user, and days are days of his own time zone. Tokens are LLM tokens, as providers count
them; money is USD, what the calls cost us.
"""

import re
import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from aleph.accounts.models import User
from aleph.problems import InvalidRequest
from usage.models import TokenUsage, name_for_people

Call = TokenUsage
"""One recorded call, for reading."""

SKEW = timedelta(hours=1)
"""How far the moment of a call may be from that of the transfer which paid for it: another clock wrote it."""

NAMED = 5
"""Models that a report by day tells apart; the rest is one sum."""

CURSOR = re.compile(r"(\d{1,16})-(\w{0,40})", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InvalidCursor(InvalidRequest):
    text = gettext_lazy("This page of the list does not exist.")


@dataclass(frozen=True, slots=True)
class Figures:
    """Today and this month. `unpriced_month`: calls whose cost nobody knows yet, and which the sum lacks.
    `top_model` is "" where nothing was used this month; `top_share_percent` is its share of the month's tokens."""

    today: date
    tokens_today: int
    calls_today: int
    cost_month_usd: Decimal
    calls_month: int
    unpriced_month: int
    top_model: str
    top_share_percent: int


@dataclass(frozen=True, slots=True)
class Day:
    """`cursor` begins `recent` with the last call of this day."""

    on: date
    cursor: str


@dataclass(frozen=True, slots=True)
class ModelTokens:
    """The tokens of one model, one number for each day; `is_rest` where it is all the models that have no own."""

    name: str
    tokens: Sequence[int]
    is_rest: bool = False

    @property
    def total(self) -> int:
        return sum(self.tokens)


@dataclass(frozen=True, slots=True)
class ByDay:
    """Tokens of the last days, oldest first, today included; models by their tokens, the rest last."""

    days: Sequence[Day]
    models: Sequence[ModelTokens]


@dataclass(frozen=True, slots=True)
class Page:
    """Calls, newest first. `older` is the cursor of the next page, "" on the last one."""

    calls: Sequence[Call]
    older: str


def figures(user: User) -> Figures:
    today = _today(user)
    is_today = Q(created_at__gte=_midnight(user, today))
    models = list(
        _calls_since(user, today.replace(day=1))
        .values("label", "requested_model")
        .annotate(
            tokens=Sum("total_tokens"),
            cost_usd=Sum("total_cost_usd"),
            calls=Count("id"),
            unpriced=Count("id", filter=Q(price=None)),
            tokens_today=Sum("total_tokens", filter=is_today, default=0),
            calls_today=Count("id", filter=is_today),
        )
    )
    used: Counter[str] = Counter()
    for model in models:
        used[name_for_people(model["label"], model["requested_model"])] += model["tokens"]
    tokens = used.total()
    top = min(used, key=lambda name: (-used[name], name)) if tokens else ""
    return Figures(
        today=today,
        tokens_today=sum(model["tokens_today"] for model in models),
        calls_today=sum(model["calls_today"] for model in models),
        cost_month_usd=sum((model["cost_usd"] or Decimal(0) for model in models), Decimal(0)),
        calls_month=sum(model["calls"] for model in models),
        unpriced_month=sum(model["unpriced"] for model in models),
        top_model=top,
        top_share_percent=(200 * used[top] + tokens) // (2 * tokens) if tokens else 0,
    )


def by_day(user: User, days: int = 30) -> ByDay:
    """Tokens by day and model. One query."""
    last = _today(user)
    dates = [last - timedelta(days=back) for back in range(days - 1, -1, -1)]
    place = {day: nth for nth, day in enumerate(dates)}
    rows = (
        _calls_since(user, dates[0])
        .annotate(day=TruncDate("created_at", tzinfo=_zone(user)))
        .values("day", "label", "requested_model")
        .annotate(tokens=Sum("total_tokens"))
        .values_list("day", "label", "requested_model", "tokens")
    )
    tokens: dict[str, list[int]] = defaultdict(lambda: [0] * days)
    for day, label, model, sum_of_day in rows:
        # A clock that runs ahead of this one may have stored a call of tomorrow.
        tokens[name_for_people(label, model)][place.get(day, days - 1)] += sum_of_day
    return ByDay(
        [Day(day, cursor_of(_midnight(user, day + timedelta(days=1)), "")) for day in dates],
        _ranked({model: numbers for model, numbers in tokens.items() if any(numbers)}),
    )


def recent(user: User, *, before: str = "", limit: int = 25) -> Page:
    """A page of the user's calls, from the newest or from what the cursor `before` says. Raises `InvalidCursor`."""
    calls = _calls_of(user)
    if before:
        moment, call_id = read_cursor(before)
        calls = calls.filter(Q(created_at__lt=moment) | Q(created_at=moment, id__lt=call_id))
        # Says the same once more, in words that an index on (user, created_at) understands.
        calls = calls.filter(created_at__lte=moment)
    found = list(calls.order_by("-created_at", "-id").defer("metadata")[: limit + 1])
    shown = found[:limit]
    return Page(shown, cursor_of(shown[-1].created_at, shown[-1].id) if len(found) > limit else "")


def call_of(user: User, operation_id: str) -> Call | None:
    """The user's last call for this operation, with the price it was made at; None where there was none."""
    calls = _calls_of(user).filter(operation_id=operation_id).select_related("price")
    return calls.order_by("-attempt").first()


def models_by_transfer(user: User, *, since: datetime, until: datetime) -> dict[str, str]:
    """Which model, as people know it, wrote what each transfer paid for; for those of the user's calls that were paid
    between two moments. One query."""
    calls = _calls_of(user).filter(created_at__gte=since - SKEW, created_at__lt=until + SKEW)
    paid = calls.exclude(transfer_id="").values_list("transfer_id", "label", "requested_model")
    return {transfer: name_for_people(label, model) for transfer, label, model in paid}


def _calls_of(user: User) -> QuerySet[Call]:
    return Call.objects.filter(user=user)


def _calls_since(user: User, day: date) -> QuerySet[Call]:
    return _calls_of(user).filter(created_at__gte=_midnight(user, day))


def _zone(user: User) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(user.time_zone)


def _today(user: User) -> date:
    return timezone.localdate(timezone=_zone(user))


def _midnight(user: User, day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=_zone(user))


def _ranked(tokens: dict[str, list[int]]) -> list[ModelTokens]:
    """The most used models, and the others as one; unless the others are one anyway."""
    order = sorted(tokens, key=lambda model: (-sum(tokens[model]), model))
    if len(order) <= NAMED + 1:
        return [ModelTokens(model, tokens[model]) for model in order]
    named = [ModelTokens(model, tokens[model]) for model in order[:NAMED]]
    rest = [sum(numbers) for numbers in zip(*(tokens[model] for model in order[NAMED:]), strict=True)]
    return [*named, ModelTokens(_("Others"), rest, is_rest=True)]


def cursor_of(moment: datetime, call_id: str) -> str:
    return f"{(moment - EPOCH) // timedelta(microseconds=1)}-{call_id}"


def read_cursor(cursor: str) -> tuple[datetime, str]:
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidCursor
    return EPOCH + timedelta(microseconds=int(match[1])), match[2]
