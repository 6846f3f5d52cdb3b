"""A person's own calls for programs: sums, pages of the log, sums by day. Reads only; each function asks once.

Everything starts from the user. Days are days of his time zone; tokens are LLM tokens, money is USD, what the calls cost
us. A call whose price is not known counts in tokens and not in money; `unpriced` says how many these are.
"""

import zoneinfo
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum
from django.db.models.functions import TruncDate
from django.utils import timezone

from aleph.accounts.models import Membership, User
from aleph.prepared import planned_anew
from usage import costs, reports, retention, rollups
from usage.models import TokenUsage, UsageDay, UsageMonth
from usage.reports import Page

LOGGED = {"TRAINING": "training", "AUTO_RESPONSE": "auto_response"}
"""What a company's log calls the operations that it is about."""
LOG_PAGE = 50
BY = ("operation", "provider", "model")


SUMMED = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cached": "cache_read_tokens",
    "reasoning": "reasoning_tokens",
}
SUMS_OF_ALL: dict[str, Any] = {f"sum_{name}": Sum(column, default=0) for name, column in SUMMED.items()}
SUMS_OF_CALLS = SUMS_OF_ALL | {
    "sum_calls": Count("*"),
    "sum_unpriced": Count("*") - Count("total_cost_usd"),
}
SUMS_OF_MONTHS = SUMS_OF_ALL | {
    "sum_calls": Sum("calls"),
    "sum_unpriced": Sum("unpriced"),
    "sum_cost": Sum("total_cost_usd", default=Decimal(0)),
}
"""The same of what is added up, by days or by months."""


@dataclass(slots=True)
class Tally:
    """Sums of some calls."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def add(self, other: "Tally") -> None:
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.cached_tokens += other.cached_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.cost_usd += other.cost_usd
        self.unpriced += other.unpriced


@dataclass(frozen=True, slots=True)
class Tallies:
    """The sums of all calls, and of those of each operation, and of each (provider, model): most tokens first."""

    whole: Tally
    by_operation: Sequence[tuple[str, Tally]]
    by_model: Sequence[tuple[tuple[str, str], Tally]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which calls: "" and None are no wish. `model` is the id that answered or the one that was asked for; the days
    from `first` to `last`, both included, are the user's."""

    operation: str = ""
    model: str = ""
    provider: str = ""
    session: str = ""
    status: str = ""
    first: date | None = None
    last: date | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Log:
    """A page of a company's log, and the sums of the whole: `tokens` by the names of `LOGGED`."""

    page: Page
    tokens: dict[str, int] = field(default_factory=dict)


@planned_anew()
def tallies(user: User, first: date | None = None, last: date | None = None) -> Tallies:
    """The sums of days of the user, both included; without them, of all there are. Whole months are read as they are added
    up; of months whose calls are gone there are only whole ones."""
    parts = rollups.parts(
        _midnight(user, first) if first else None,
        _midnight(user, last + timedelta(days=1)) if last else None,
    )
    rows = [row for since, until in parts.calls for row in _sums_of_calls(_between(user, since, until))]
    if parts.months:
        start, end = parts.months
        months = UsageMonth.objects.filter(user=user, month__gte=start, month__lt=end)
        rows += list(months.values(*BY).annotate(**SUMS_OF_MONTHS))
    whole = Tally()
    by_operation: dict[str, Tally] = defaultdict(Tally)
    by_model: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for row in rows:
        tally = Tally(
            calls=row["sum_calls"],
            input_tokens=row["sum_input"],
            output_tokens=row["sum_output"],
            cached_tokens=row["sum_cached"],
            reasoning_tokens=row["sum_reasoning"],
            cost_usd=row["sum_cost"],
            unpriced=row["sum_unpriced"],
        )
        for sums in (whole, by_operation[row["operation"]], by_model[row["provider"], row["model"]]):
            sums.add(tally)
    return Tallies(
        whole,
        sorted(by_operation.items(), key=lambda item: (-item[1].total_tokens, item[0])),
        sorted(by_model.items(), key=lambda item: (-item[1].total_tokens, item[0])),
    )


@planned_anew()
def page(user: User, wanted: Wanted, *, limit: int, before: str = "") -> Page:
    """Calls, newest first, from what the cursor `before` says on. Raises `reports.InvalidCursor`."""
    return reports.page(_calls(user, wanted), limit=limit, before=before)


@planned_anew()
def by_day(user: User, first: date, last: date) -> list[tuple[date, Tally]]:
    """The sums of each day, those without calls included, oldest first."""
    days = {first + timedelta(days=nth): Tally() for nth in range((last - first).days + 1)}
    since, until = _midnight(user, first), _midnight(user, last + timedelta(days=1))
    rows_from = retention.kept_from()
    if rows_from and since < rows_from:
        gone = UsageDay.objects.filter(user=user, day__gte=first, day__lte=last, day__lt=rows_from.date())
        _add_days(days, gone.values("day").annotate(**_of_days(SUMS_OF_MONTHS)))
        since = rows_from
    zone = TruncDate("created_at", tzinfo=_zone(user))
    kept = _between(user, since, until).annotate(day=zone)
    _add_days(days, costs.sums(kept, "day", costs={"sum_cost": None}, others=_of_days(SUMS_OF_CALLS)))
    return list(days.items())


def _of_days(sums: dict[str, Any]) -> dict[str, Any]:
    """Those that days tell; on PostgreSQL the index on a person's calls holds them."""
    return {name: sum_ for name, sum_ in sums.items() if name not in ("sum_cached", "sum_reasoning")}


def _add_days(days: dict[date, Tally], rows: QuerySet[Any, Any]) -> None:
    for row in rows:
        # The first calls that are kept may have been made on the day before, in the user's time zone.
        days.get(row["day"], Tally()).add(
            Tally(
                calls=row["sum_calls"],
                input_tokens=row["sum_input"],
                output_tokens=row["sum_output"],
                cost_usd=row["sum_cost"],
                unpriced=row["sum_unpriced"],
            )
        )


def summed(days: Iterable[tuple[date, Tally]], *, by: str) -> list[tuple[date, Tally]]:
    """Days as they are, or summed up by week or month; each by its first day, a week begins on Monday."""
    sums: dict[date, Tally] = defaultdict(Tally)
    for day, tally in days:
        if by == "week":
            day -= timedelta(days=day.weekday())
        elif by == "month":
            day = day.replace(day=1)
        sums[day].add(tally)
    return list(sums.items())


def today(user: User) -> date:
    return timezone.localdate(timezone=_zone(user))


@planned_anew()
def log(user: User, *, kind: str = "", before: str = "") -> Log:
    """The log of training and answering: of the companies whose administrator the user is all of it, else his own part.
    `kind` is one of `LOGGED`, "" for both. Raises `reports.InvalidCursor`."""
    companies = Membership.objects.filter(user=user, role=Membership.Role.ADMIN).values_list(
        "company", flat=True
    )
    whose = Q(company__in=list(companies)) | Q(user=user)
    logged = TokenUsage.objects.filter(whose, operation__in=LOGGED.values())
    parts = rollups.parts(None, None)
    sums: Counter[str] = Counter()
    for since, _open in parts.calls:
        sums.update(_tokens_by_operation(logged.filter(created_at__gte=since)))
    if parts.months:
        start, end = parts.months
        months = UsageMonth.objects.filter(whose, operation__in=LOGGED.values())
        sums.update(_tokens_by_operation(months.filter(month__gte=start, month__lt=end)))
    wanted = logged.filter(operation=LOGGED[kind]) if kind else logged
    return Log(
        reports.page(wanted, limit=LOG_PAGE, before=before),
        {name: sums[operation] for name, operation in LOGGED.items()},
    )


def _tokens_by_operation(rows: QuerySet[Any]) -> dict[str, int]:
    return dict(rows.values_list("operation").annotate(tokens=Sum("total_tokens")))


def _sums_of_calls(calls: QuerySet[TokenUsage]) -> QuerySet[Any]:
    return costs.sums(calls, *BY, costs={"sum_cost": None}, others=SUMS_OF_CALLS)


def _between(user: User, since: datetime, until: datetime | None) -> QuerySet[TokenUsage]:
    calls = TokenUsage.objects.filter(user=user, created_at__gte=since)
    return calls if until is None else calls.filter(created_at__lt=until)


def _calls(user: User, wanted: Wanted) -> QuerySet[TokenUsage]:
    calls = TokenUsage.objects.filter(user=user)
    if wanted.operation:
        calls = calls.filter(operation=wanted.operation)
    if wanted.provider:
        calls = calls.filter(provider=wanted.provider)
    if wanted.model:
        calls = calls.filter(Q(model=wanted.model) | Q(requested_model=wanted.model))
    if wanted.session:
        calls = calls.filter(session=wanted.session)
    if wanted.status:
        calls = calls.filter(status=wanted.status)
    if wanted.first:
        calls = calls.filter(created_at__gte=_midnight(user, wanted.first))
    if wanted.last:
        calls = calls.filter(created_at__lt=_midnight(user, wanted.last + timedelta(days=1)))
    return calls


def _zone(user: User) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(user.time_zone)


def _midnight(user: User, day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=_zone(user))
