"""Sums of calls by hour and by day, so that reports on everybody need not read every call. A door of this app.

What calls cost is summed with what corrections add (`usage.costs`).

`UsageHour` tells hours by company, operation, provider and model; `UsageDay` tells days of UTC by person; `UsageMonth`
tells months of UTC by person and by all the rest. Only this module writes them. An hour is added up once it has been over for `LAG`; whatever came since stands in the rows, and a
report adds both (`hours_since`). Each step replaces one period and notes how far the rollups have come, in one
transaction: to run it twice, or two at once, changes nothing. Calls from before `RollupMark.rows_from` are gone, or will
be (`usage.retention`): their sums stay as they are for ever.

Whoever writes a call of an earlier time, or changes one, says so with `due`.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import connection, transaction
from django.db.models import Count, Min, Q, QuerySet, Sum
from django.db.models.functions import TruncDate, TruncHour
from django.utils import timezone

from usage import costs
from usage.models import RollupDue, RollupMark, TokenUsage, UsageDay, UsageHour, UsageMonth

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAG = timedelta(minutes=5)
"""How long a transaction that records a call may take, and clocks may differ, before `check_usage` finds something."""
BUDGET_S = 20.0
SLICE = 7 * DAY
"""What `differences` compares at a time."""
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)

COUNTED = (
    "cache_read_tokens",
    "reasoning_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "charged_tokens",
    "charged_idr_thousandths",
)
TIMED = ("first_token_ms", "latency_ms")
COUNTERS = ("calls", "failed", "interrupted", "estimated", "flagged", "unpriced")
TIMED_CALLS = ("first_token_calls", "latency_calls")
BY_HOUR = ("company_id", "operation", "provider", "model", "label")
BY_MONTH = ("user_id", "company_id", "operation", "provider", "model")
SUMS: dict[str, Any] = {
    "calls": Count("id"),
    "failed": Count("id", filter=Q(status=TokenUsage.Status.FAILED)),
    "interrupted": Count("id", filter=Q(status=TokenUsage.Status.INTERRUPTED)),
    "estimated": Count("id", filter=Q(source__in=TokenUsage.UNSURE)),
    "flagged": Count("id", filter=Q(flagged=True)),
    "unpriced": Count("id", filter=Q(price=None)),
    **{f"sum_{name}": Sum(name, default=0) for name in COUNTED},
}
COST = "sum_total_cost_usd"
TIMES: dict[str, Any] = {
    **{f"sum_{name}": Sum(name, default=0) for name in TIMED},
    **{f"{name.removesuffix('_ms')}_calls": Count(name) for name in TIMED},
}


def run(*, budget_s: float = BUDGET_S) -> int:
    """Add up what is over and what is due, for about `budget_s` seconds; the number of steps that were done."""
    until = time.monotonic() + budget_s
    done = 0
    while (began := time.monotonic()) < until and _step():
        done += 1
        # SQLite has one writer at a time, and people want to be it, too.
        time.sleep(min(time.monotonic() - began, 0.2))
    return done


def due(moments: Iterable[datetime]) -> None:
    """The calls of these moments were changed, or recorded later: their hours are added up again. Called in the
    transaction that does so."""
    hours = sorted({hour_of(moment) for moment in moments})
    RollupDue.objects.bulk_create([RollupDue(hour=hour) for hour in hours])


class RowsGone(Exception):
    """The calls of this time are not kept any more, so nothing can be added up again. Holds where they begin."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A time in parts: months that are added up, from `first` to before `end` (None: no month), and what lies beside
    them, which is to be read from the calls."""

    months: tuple[date, date] | None
    calls: Sequence[tuple[datetime, datetime | None]]


def rebuild(*, since: datetime | None, until: datetime) -> int:
    """Add up every hour of this time anew; the number of hours with anything in them. None: from where calls are kept.
    Raises `RowsGone` for a time before that, whose sums would be lost."""
    kept_from = mark().rows_from or BEGINNING
    if since is not None and since < kept_from:
        raise RowsGone(kept_from)
    first = hour_of(since or kept_from)
    rows = TokenUsage.objects.filter(created_at__gte=first, created_at__lt=until)
    found = set(rows.annotate(at=TruncHour("created_at", tzinfo=UTC)).values_list("at", flat=True).distinct())
    found |= set(added_up(first, until).values_list("hour", flat=True).distinct())
    due(found)
    while _step():
        pass
    return len(found)


def parts(since: datetime | None, until: datetime | None) -> Parts:
    """How to sum up the calls of a time (None: open) with few rows to read. Where calls are gone, a month that the time
    begins in counts as a whole."""
    reached = mark()
    rows_from = reached.rows_from or BEGINNING
    since = max(since or BEGINNING, BEGINNING)
    first = month_of(since)
    if first < since and since >= rows_from:
        first = month_after(first)
    end = reached.months_to if until is None else min(reached.months_to, month_of(until))
    since = max(since, rows_from)
    if first >= end:
        return Parts(None, [(since, until)])
    before = [(since, first)] if since < first else []
    return Parts((first.date(), end.date()), [*before, (max(end, rows_from), until)])


def added_up(since: datetime, until: datetime) -> QuerySet[UsageHour]:
    """The hours of this time, as far as they are added up; what is not stands in the calls from `mark().hours_to` on."""
    return UsageHour.objects.filter(hour__gte=since, hour__lt=until)


def totals(
    *,
    since: datetime,
    until: datetime,
    by: Sequence[str],
    zone: tzinfo | None = None,
    only: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Sums of everybody's calls, one row for each combination of `by`: names of `UsageHour`, and ``day`` where there is
    a `zone` for days to be of; of the sums `only` those named, all by default: each costs as much as a column more to read.
    Both ends count as whole hours of UTC. Two statements: what is added up, and the calls
    since."""
    reached = mark().hours_to
    since, until = hour_of(since), hour_of(until + HOUR - timedelta(microseconds=1))
    past: QuerySet[Any] = added_up(since, min(until, reached))
    fresh: QuerySet[Any] = _calls(max(since, reached), until)
    if zone is not None:
        past = past.annotate(day=TruncDate("hour", tzinfo=zone))
        fresh = fresh.annotate(day=TruncDate("created_at", tzinfo=zone))
    again = {f"sum_{name}": Sum(name, default=0) for name in (*COUNTERS, *COUNTED, *TIMED, *TIMED_CALLS)}
    again[COST] = Sum("total_cost_usd", default=Decimal(0))
    first = SUMS | TIMES
    if only:
        again = {name: each for name, each in again.items() if name.removeprefix("sum_") in only}
        first = {name: each for name, each in first.items() if name.removeprefix("sum_") in only}
    costs_too = not only or "total_cost_usd" in only
    return _merged([*_grouped(past, by, again), *_of_calls(fresh, by, first, costs_too=costs_too)], by)


class OfPerson(NamedTuple):
    """What a person used."""

    user_id: int
    calls: int
    total_tokens: int
    charged_tokens: int
    total_cost_usd: Decimal


def people(since: date, until: date) -> list[OfPerson]:
    """What each person used from `since` to `until`, both days of UTC included. For days that are added up; the calls of
    today are not in it."""
    summed = ("calls", "total_tokens", "charged_tokens", "total_cost_usd")
    days = UsageDay.objects.filter(day__gte=since, day__lte=until, user__isnull=False)
    rows = days.values("user_id").annotate(**{f"sum_{name}": Sum(name) for name in summed})
    return [OfPerson(*row) for row in rows.values_list("user_id", *(f"sum_{name}" for name in summed))]


def charged_before(moment: datetime) -> int:
    """The tokens that were charged for calls of the months before a moment, as they are added up."""
    months = UsageMonth.objects.filter(month__lt=moment.date())
    return int(months.aggregate(sum=Sum("charged_tokens", default=0))["sum"])


def mark() -> RollupMark:
    """How far the rollups have come."""
    return RollupMark.objects.get(pk=1)


def differences() -> Iterator[str]:
    """Where the rollups say otherwise than the calls, a line each. The caller sees to it that both are of one moment
    (`billing.audit.one_moment`). Hours that are still to be added up again are passed over."""
    reached = mark()
    waiting = set(RollupDue.objects.values_list("hour", flat=True))
    first = max(_first_day(), reached.rows_from or BEGINNING)
    for start in _slices(first, reached.hours_to):
        end = min(start + SLICE, reached.hours_to)
        yield from _compared(
            _sums_by_hour(start, end),
            UsageHour.objects.filter(hour__gte=start, hour__lt=end),
            ("hour", *BY_HOUR),
            lambda key: key[0] in waiting,
        )
    changed_days = {hour.date() for hour in waiting}
    month, changed_months = month_of(first), {month_of(hour).date() for hour in waiting}
    while month < reached.months_to:
        yield from _compared(
            _of_calls(_calls(month, month_after(month)), BY_MONTH),
            UsageMonth.objects.filter(month=month.date()),
            BY_MONTH,
            lambda _key, month=month: month.date() in changed_months,  # type: ignore[misc]
        )
        month = month_after(month)
    for start in _slices(first, reached.days_to):
        end = min(start + SLICE, reached.days_to)
        by_day = _calls(start, end).annotate(day=TruncDate("created_at", tzinfo=UTC))
        yield from _compared(
            _of_calls(by_day, ("day", "user_id")),
            UsageDay.objects.filter(day__gte=start.date(), day__lt=end.date()),
            ("day", "user_id"),
            lambda key: key[0] in changed_days,
        )


def hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def day_of(moment: datetime) -> datetime:
    return hour_of(moment).replace(hour=0)


def month_of(moment: datetime) -> datetime:
    return day_of(moment).replace(day=1)


def month_after(month: datetime) -> datetime:
    return (month + 31 * DAY).replace(day=1)


def _step() -> bool:
    """Write the hours of a day at most, or a day or month of people, or pass over a time without calls. False if there is
    nothing to do."""
    over = timezone.now() - LAG
    with transaction.atomic():
        reached = RollupMark.objects.select_for_update().get(pk=1)
        if reached.rows_from:
            # What happened to calls that are gone, or going, is not added up.
            RollupDue.objects.filter(hour__lt=reached.rows_from).delete()
        changed = RollupDue.objects.filter(hour__lt=reached.hours_to).order_by("hour").first()
        if changed is not None:
            day = day_of(changed.hour)
            until = min(day + DAY, reached.hours_to)
            # Named before the calls are read: whoever changes them from here on leaves a row that stays.
            waiting = RollupDue.objects.filter(hour__gte=changed.hour, hour__lt=until).order_by("hour")
            seen = dict(waiting.values_list("pk", "hour"))
            _write_hours(changed.hour, max(seen.values()) + HOUR)
            if changed.hour < reached.days_to:
                _write_day(day)
            RollupDue.objects.filter(pk__in=seen).delete()
            month = month_of(day)
            more = RollupDue.objects.filter(hour__gte=month, hour__lt=month_after(month))
            if month < reached.months_to and not more.exists():
                _write_month(month)
        elif reached.hours_to < hour_of(over):
            first = _first_call(reached.hours_to, hour_of(over))
            reached.hours_to = hour_of(over)
            if first is not None:
                reached.hours_to = min(hour_of(first) + DAY, hour_of(over))
                _write_hours(hour_of(first), reached.hours_to)
            reached.save(update_fields=["hours_to"])
        elif reached.days_to < day_of(over):
            first = _first_call(reached.days_to, day_of(over))
            reached.days_to = day_of(over)
            if first is not None:
                reached.days_to = day_of(first) + DAY
                _write_day(day_of(first))
            reached.save(update_fields=["days_to"])
        elif reached.months_to < month_of(reached.days_to):
            first = _first_call(reached.months_to, month_of(reached.days_to))
            reached.months_to = month_of(reached.days_to)
            if first is not None:
                reached.months_to = month_after(month_of(first))
                _write_month(month_of(first))
            reached.save(update_fields=["months_to"])
        else:
            return False
    return True


def _first_call(start: datetime, end: datetime) -> datetime | None:
    """When the first call of this time was recorded. Looks ahead in growing steps: an index by block ranges finds a time,
    but no order."""
    for step in (HOUR, DAY, 30 * DAY, end - start):
        found: datetime | None = _calls(start, min(start + step, end)).aggregate(at=Min("created_at"))["at"]
        if found is not None:
            return found
    return None


def _write_hours(since: datetime, until: datetime) -> None:
    UsageHour.objects.filter(hour__gte=since, hour__lt=until).delete()
    UsageHour.objects.bulk_create([UsageHour(**row) for row in _sums_by_hour(since, until)], batch_size=1000)


def _write_day(start: datetime) -> None:
    UsageDay.objects.filter(day=start.date()).delete()
    rows = _of_calls(_calls(start, start + DAY), ("user_id",))
    UsageDay.objects.bulk_create([UsageDay(day=start.date(), **row) for row in rows], batch_size=1000)


def _write_month(start: datetime) -> None:
    """One statement, within the database: a month has as many rows as people use models."""
    UsageMonth.objects.filter(month=start.date()).delete()
    sums = costs.sums(_calls(start, month_after(start)), *BY_MONTH, costs={COST: None}, others=SUMS)
    quoted = connection.ops.quote_name
    told = (*SUMS, COST)
    columns = ", ".join(quoted(name) for name in ("month", *BY_MONTH, *_named(dict.fromkeys(told))))
    by, added = ", ".join(map(quoted, BY_MONTH)), ", ".join(f"SUM({quoted(name)})" for name in told)
    sql, params = sums.query.sql_with_params()
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quoted(UsageMonth._meta.db_table)} ({columns})"  # noqa: S608
            f" SELECT %s, {by}, {added} FROM ({sql}) AS sums GROUP BY {by}",
            [connection.ops.adapt_datefield_value(start.date()), *params],
        )


def _calls(since: datetime, until: datetime) -> QuerySet[TokenUsage]:
    return TokenUsage.objects.filter(created_at__gte=since, created_at__lt=until)


def _sums_by_hour(since: datetime, until: datetime) -> list[dict[str, Any]]:
    by_hour = _calls(since, until).annotate(hour=TruncHour("created_at", tzinfo=UTC))
    return _of_calls(by_hour, ("hour", *BY_HOUR), SUMS | TIMES)


def _of_calls(
    calls: QuerySet[TokenUsage],
    by: Sequence[str],
    sums: dict[str, Any] = SUMS,
    *,
    costs_too: bool = True,
) -> list[dict[str, Any]]:
    """Calls as they are added up: `sums`, and what they cost."""
    wanted: dict[str, Any] = {COST: None} if costs_too else {}
    return _merged(costs.sums(calls, *(by or ("provider",)), costs=wanted, others=sums), by)


def _merged(rows: Iterable[Mapping[str, Any]], by: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each combination of `by`, its sums under the names of what they sum."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(row[name] for name in by)
        so_far = found.setdefault(place, dict(zip(by, place, strict=True)))
        for name, value in _named(row).items():
            if name not in ("provider", *by):
                so_far[name] = so_far.get(name, 0) + value
    return list(found.values())


def _grouped(rows: QuerySet[Any], by: Sequence[str], sums: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return rows.values(*by).annotate(**sums) if by else [rows.aggregate(**sums)]


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """Sums under the names of what they sum; an aggregate cannot be named as a column of its own table."""
    return {name.removeprefix("sum_"): value for name, value in row.items()}


def _first_day() -> datetime:
    """The day of the oldest call or sum there is; now where there are none."""
    # By the id, which has an index that is in order; ids and moments tell the same day but for seconds.
    row = TokenUsage.objects.order_by("pk").values_list("created_at", flat=True).first()
    oldest = [
        row and row - DAY,
        UsageHour.objects.aggregate(at=Min("hour"))["at"],
    ]
    return day_of(min((moment for moment in oldest if moment is not None), default=timezone.now()))


def _slices(first: datetime, end: datetime) -> Iterator[datetime]:
    while first < end:
        yield first
        first += SLICE


def _compared(
    calls: Iterable[Any],
    stored: QuerySet[Any],
    key: tuple[str, ...],
    is_passed_over: Callable[[tuple[Any, ...]], bool],
) -> Iterator[str]:
    """`calls` summed now against what is `stored`, by `key`."""
    right = {tuple(row[name] for name in key): row for row in calls}
    told: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in stored.values():
        place = tuple(row[name] for name in key)
        if place in told:
            yield f"{_spoken(place)}: added up twice"
        told[place] = row
    for place in sorted(right.keys() | told.keys(), key=str):
        if is_passed_over(place):
            continue
        if place not in told:
            yield f"{_spoken(place)}: not added up"
        elif place not in right:
            yield f"{_spoken(place)}: added up, and there is no call"
        else:
            yield from (
                f"{_spoken(place)}: {name} is {told[place][name]}, and the calls make {value}"
                for name, value in right[place].items()
                if not _same(told[place][name], value)
            )


def _spoken(place: tuple[Any, ...]) -> str:
    return " ".join(str(part) for part in place)


def _same(stored: Any, summed: Any) -> bool:
    if connection.vendor == "sqlite" and isinstance(summed, Decimal):
        # SQLite has no decimals and keeps fifteen digits.
        return bool(abs(stored - summed) <= max(abs(summed), Decimal(1)) * Decimal("1E-12"))
    return bool(stored == summed)
