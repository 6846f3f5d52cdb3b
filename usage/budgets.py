"""Budgets: what may be spent in a day, a week or a month. A door of this app.

A reply reserves what it can cost at most in each budget that it falls under, in the transaction that admits it, and
settles what it did cost in the transaction that closes it, whatever its end. Each reservation is a row (`BudgetEntry`),
and the period's counters are the sums of those rows: what leaks can be seen, and counted again (R12). A reply belongs to
the period in which it began.

Whoever reserves or settles first locks the current periods that it concerns, in the order of their ids, and the counters
change by one conditional UPDATE; SQLite has one writer at a time anyway. Both come last in their transactions, after
whatever else is locked there, so that a budget of many people is held for a moment only.

Amounts are whole numbers of a budget's smallest unit: Aleph tokens as they are charged, or `USD_UNIT` of what a call
costs us, as it is logged.
"""

import zoneinfo
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from math import ceil
from typing import Any, ClassVar

from django.conf import settings
from django.db import connection
from django.db.models import BigIntegerField, BooleanField, Case, F, Q, Sum, Value, When
from django.db.models.expressions import RawSQL
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from aleph.problems import Problem, Response
from aleph.templatetags.aleph import usd
from usage import costs, pricing
from usage.models import (
    USD_UNIT,
    Budget,
    BudgetCrossing,
    BudgetEntry,
    BudgetPeriod,
    RollupMark,
    TokenUsage,
)

Scope, Unit, Every, Action = Budget.Scope, Budget.Unit, Budget.Every, Budget.Action

THROTTLED = 2
"""Replies that begin within `WINDOW` beyond the limit of a budget that slows down."""
WINDOW = timedelta(minutes=1)
BATCH = 1000
"""Entries that are compared at a time."""
MOVED = 100
"""Periods whose counters one statement moves."""
AHEAD = timedelta(hours=1)
"""A reply waits and is written within this time; what it may cost is reserved at the dearest price until then."""

_APPLYING = """
SELECT id FROM usage_budget WHERE scope = 'user' AND user_id = %s AND (ended_at IS NULL OR ended_at > %s)
UNION ALL
SELECT id FROM usage_budget WHERE scope = 'key' AND api_key_id = %s AND (ended_at IS NULL OR ended_at > %s)
UNION ALL
SELECT b.id FROM accounts_membership m JOIN usage_budget b ON b.company_id = m.company_id
WHERE m.user_id = %s AND (b.ended_at IS NULL OR b.ended_at > %s)
UNION ALL
SELECT id FROM usage_budget WHERE scope = 'everyone' AND (ended_at IS NULL OR ended_at > %s)
"""
"""The budgets that a reply falls under."""


class BudgetExceeded(Problem):
    """A reply does not fit into what a budget has left. `data` says which and, to those who may see it, how much is left."""

    code = "BUDGET_EXCEEDED"
    status = 429
    text = _("A budget is used up.")


@dataclass(frozen=True, slots=True)
class Call:
    """What a reply may come to: LLM tokens of input and output at most, the fewest of output that are of use, and the rates
    in Aleph tokens for 1,000, both 0 where it is free."""

    reference: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    least_output: int
    input_rate: int
    output_rate: int


@dataclass(frozen=True, slots=True)
class Left:
    """What a budget of the person's own has left, in its unit; seconds until its next period."""

    unit: str
    limit: Decimal
    remaining: Decimal
    renews_in_s: int


@dataclass(frozen=True, slots=True)
class Admission:
    """The LLM tokens of output that all budgets pay for, and what is left of the tightest."""

    output_tokens: int
    left: Left | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """What a call costs in a smallest unit: so much for what is sent, and for each token that is written."""

    fixed: Decimal
    each: Decimal

    NOTHING: ClassVar["Rate"]

    def of(self, output_tokens: int) -> int:
        """Rounds up."""
        return int((self.fixed + self.each * output_tokens).to_integral_value(ROUND_CEILING))

    def output_for(self, amount: int, *, most: int) -> int:
        """Tokens that `amount` pays for after what is sent, at most `most`; below 0 where not even that is paid for."""
        left = amount - self.fixed
        if left < 0:
            return -1
        return min(most, int((left / self.each).to_integral_value(ROUND_FLOOR))) if self.each else most


Rate.NOTHING = Rate(Decimal(0), Decimal(0))


def applying(user_id: int, key_id: int | None = None) -> RawSQL:
    """Whether a reply of this person, asked for with this API key, falls under any budget: an expression for a statement
    that is sent anyway, so that people without budgets pay nothing for those of others."""
    return RawSQL(f"EXISTS ({_APPLYING})", _of(user_id, key_id), output_field=BooleanField())  # noqa: S611


def reserved_for(reference: str) -> RawSQL:
    """Whether anything is reserved for a reply that is not closed: an expression, too."""
    return RawSQL(
        "EXISTS (SELECT 1 FROM usage_budgetentry WHERE reference = %s AND closed_at IS NULL)",
        (reference,),
        output_field=BooleanField(),
    )


def reserve(call: Call, *, user_id: int, key_id: int | None = None) -> Admission:
    """Reserve what a reply can cost in every budget that it falls under: all or nothing. Where a budget that stops has less
    left, the reply gets as much output as that pays for. Runs inside the transaction that admits the reply.

    Raises `BudgetExceeded`. Three statements, and one for prices where a budget counts dollars.
    """
    now = timezone.now()
    periods = _locked(user_id, key_id, now)
    rates: dict[str, Rate | None] = {Unit.TOKEN: _rate_in_tokens(call), Unit.USD: None}
    if any(period.budget.unit == Unit.USD for period in periods):
        rates[Unit.USD] = _rate_in_usd(call, now)
    output_tokens, refusals = call.output_tokens, []
    for period in periods:
        try:
            fitting = _fitting(period, rates[period.budget.unit], call, now)
        except BudgetExceeded as refusal:
            refusals.append(refusal)
        else:
            output_tokens = min(output_tokens, fitting)
    if refusals:
        # Whoever waits for the one that lasts longest gets through them all.
        raise max(refusals, key=lambda refusal: refusal.retry_after_s or 0)
    concerned = [p for p in periods if p.budget.unit == Unit.USD or rates[Unit.TOKEN] != Rate.NOTHING]
    amounts = {p.pk: (rates[p.budget.unit] or Rate.NOTHING).of(output_tokens) for p in concerned}
    if concerned:
        _move(concerned, reserved=amounts, now=now)
        BudgetEntry.objects.bulk_create(
            BudgetEntry(period=p, reference=call.reference, reserved=amounts[p.pk], created_at=now)
            for p in concerned
        )
    return Admission(output_tokens, _tightest(periods, amounts, now))


def settle(*, reference: str, charged_tokens: int) -> None:
    """Give back what was reserved for a reply that is over, and count what it cost: `charged_tokens` Aleph tokens, and the
    dollars of all its calls. Runs inside the transaction that closes it, after its calls are recorded; harmless when run
    twice. Notes which thresholds were passed. Three statements, and one where a budget counts dollars."""
    now = timezone.now()
    entries = list(
        BudgetEntry.objects.filter(reference=reference, closed_at=None)
        .select_related("period", "period__budget")
        .select_for_update(of=("self", "period"))
        .order_by("period_id")
    )
    if not entries:
        return
    costs: dict[str, int] = {Unit.TOKEN: charged_tokens}
    if any(entry.period.budget.unit == Unit.USD for entry in entries):
        costs[Unit.USD] = _logged(reference)
    spent = {entry.pk: costs[entry.period.budget.unit] for entry in entries}
    BudgetEntry.objects.filter(pk__in=spent).update(spent=_by_pk(spent), closed_at=now)
    _move(
        [entry.period for entry in entries],
        reserved={entry.period_id: -entry.reserved for entry in entries},
        spent={entry.period_id: spent[entry.pk] for entry in entries},
        now=now,
    )
    note_crossings(
        ((entry.period, entry.period.spent, entry.period.spent + spent[entry.pk]) for entry in entries), now
    )


def count_again(references: Collection[str]) -> None:
    """The dollars of these replies' calls have changed since they were settled: a price was found for what had none, or was
    put right. Runs inside the transaction that has written them."""
    entries = list(
        BudgetEntry.objects.filter(
            reference__in=references, closed_at__isnull=False, period__budget__unit=Unit.USD
        )
        .select_related("period", "period__budget")
        .select_for_update(of=("self", "period"))
        .order_by("period_id")
    )
    if not entries:
        return
    used = _used_by({entry.reference for entry in entries})
    spent = {entry.pk: used[entry.reference, Unit.USD] for entry in entries}
    more: Counter[int] = Counter()
    for entry in entries:
        more[entry.period_id] += spent[entry.pk] - (entry.spent or 0)
    BudgetEntry.objects.filter(pk__in=spent).update(spent=_by_pk(spent))
    periods = list({entry.period_id: entry.period for entry in entries}.values())
    for at in range(0, len(periods), MOVED):
        some = periods[at : at + MOVED]
        _move(some, reserved={}, spent={period.pk: more[period.pk] for period in some}, now=timezone.now())


def note_crossings(moved: Iterable[tuple[BudgetPeriod, int, int]], now: datetime) -> None:
    """Write down which thresholds each period's spending passed from one amount to another; each once."""
    crossings = []
    for period, before, after in moved:
        limit = limit_at(period.budget, now)
        crossings += [
            BudgetCrossing(period=period, percent=percent, limit=limit, spent=after, crossed_at=now)
            for percent in period.budget.thresholds
            if before * 100 < percent * limit <= after * 100
        ]
    if crossings:
        BudgetCrossing.objects.bulk_create(crossings, ignore_conflicts=True)


def noted(response: Response, left: Left | None) -> Response:
    """`response` with what a budget has left in its headers."""
    if left is not None:
        response["Budget-Unit"] = left.unit
        response["Budget-Limit"] = f"{left.limit.normalize():f}"
        response["Budget-Remaining"] = f"{left.remaining.normalize():f}"
        response["Budget-Reset"] = str(left.renews_in_s)
    return response


def differences() -> Iterator[str]:
    """What is wrong: counters of periods that are not the sums of their entries, and entries that are not what the calls of
    their replies say. A line for each. Calls that are not kept any more cannot be asked."""
    is_open = Q(entries__closed_at=None)
    periods = BudgetPeriod.objects.annotate(
        open=Sum("entries__reserved", filter=is_open, default=0), paid=Sum("entries__spent", default=0)
    )
    for period in periods.exclude(reserved=F("open"), spent=F("paid")).order_by("pk"):
        yield f"{period}: reserved {period.reserved}, spent {period.spent}; its entries make {period.open}, {period.paid}"
    rows_from = RollupMark.objects.values_list("rows_from", flat=True).first()
    settled = BudgetEntry.objects.filter(closed_at__isnull=False).exclude(reference=F("period__budget_id"))
    if rows_from is not None:
        settled = settled.filter(created_at__gte=rows_from)
    after = 0
    while batch := list(settled.filter(pk__gt=after).select_related("period__budget").order_by("pk")[:BATCH]):
        after = batch[-1].pk
        used = _used_by(entry.reference for entry in batch)
        for entry in batch:
            right = used[entry.reference, entry.period.budget.unit]
            if entry.spent != right:
                yield f"{entry}: spent {entry.spent}, and its calls make {right}"


def open_references() -> set[str]:
    """The replies that something is reserved for."""
    return set(BudgetEntry.objects.filter(closed_at=None).values_list("reference", flat=True))


# Terms, as they hold at a moment


def limit_at(budget: Budget, now: datetime) -> int:
    is_later = budget.later_limit is not None and budget.later_at is not None and budget.later_at <= now
    return budget.later_limit if is_later and budget.later_limit is not None else budget.limit


def action_at(budget: Budget, now: datetime) -> str:
    is_later = budget.later_action and budget.later_at is not None and budget.later_at <= now
    return budget.later_action if is_later else budget.action


def zone_of(budget: Budget) -> zoneinfo.ZoneInfo:
    """That of its owner; where it has none, what is written at the budget, else that of the house."""
    own = budget.user.time_zone if budget.user is not None else ""
    return zoneinfo.ZoneInfo(own or budget.time_zone or settings.TIME_ZONE)


def bounds(budget: Budget, now: datetime) -> tuple[datetime, datetime]:
    """The day, week (from Monday) or month of the budget's time zone that a moment is in."""
    zone = zone_of(budget)
    first = now.astimezone(zone).date()
    if budget.every == Every.DAY:
        following = first + timedelta(days=1)
    elif budget.every == Every.WEEK:
        first -= timedelta(days=first.weekday())
        following = first + timedelta(days=7)
    else:
        first = first.replace(day=1)
        following = (first + timedelta(days=31)).replace(day=1)
    return datetime.combine(first, time.min, tzinfo=zone), datetime.combine(following, time.min, tzinfo=zone)


def in_unit(budget: Budget, amount: int) -> Decimal:
    """An amount in whole Aleph tokens, or in dollars."""
    return Decimal(amount) if budget.unit == Unit.TOKEN else amount * USD_UNIT


def spoken(budget: Budget, amount: int) -> str:
    """An amount for people."""
    if budget.unit == Unit.USD:
        return usd(in_unit(budget, amount))
    tokens = number_format(amount, force_grouping=True)
    return ngettext("%(tokens)s token", "%(tokens)s tokens", amount) % {"tokens": tokens}


# Periods


def open_period(budget: Budget, now: datetime, *, after: datetime | None = None) -> BudgetPeriod:
    """The period of this moment; it never begins before the last one has ended, whatever became of the time zone. To be
    called with the last one locked; where somebody else was quicker, that is the one."""
    starts_at, ends_at = bounds(budget, now)
    starts_at = max(starts_at, after) if after is not None else starts_at
    BudgetPeriod.objects.bulk_create(
        [BudgetPeriod(budget=budget, starts_at=starts_at, ends_at=ends_at, limit=limit_at(budget, now))],
        ignore_conflicts=True,
    )
    period = BudgetPeriod.objects.get(budget=budget, starts_at=starts_at)
    Budget.objects.filter(pk=budget.pk).update(current=period)
    return period


def current(budget_ids: Any, now: datetime) -> list[BudgetPeriod]:
    """The periods of this moment, locked, each with its budget and that one's user; where the last is over, the next one
    begins."""
    newest = (
        BudgetPeriod.objects.filter(budget__in=budget_ids, pk=F("budget__current"))
        .select_related("budget", "budget__user")
        .select_for_update(of=("self",))
        .order_by("pk")
    )
    periods = list(newest)
    over = [period for period in periods if period.ends_at <= now]
    for period in over:
        open_period(period.budget, now, after=period.ends_at)
    return list(newest.all()) if over else periods


def _locked(user_id: int, key_id: int | None, now: datetime) -> list[BudgetPeriod]:
    return current(RawSQL(_APPLYING, _of(user_id, key_id, now)), now)  # noqa: S611


def _of(user_id: int, key_id: int | None, now: datetime | None = None) -> tuple[Any, ...]:
    at = connection.ops.adapt_datetimefield_value(now or timezone.now())
    return user_id, at, key_id, at, user_id, at, at


def _move(
    periods: Sequence[BudgetPeriod],
    *,
    reserved: dict[int, int],
    spent: dict[int, int] | None = None,
    now: datetime,
) -> None:
    """Add to the counters of periods that this transaction has locked, in one statement, as long as they are what was read."""
    unchanged = Q(pk__in=[])
    for period in periods:
        unchanged |= Q(pk=period.pk, reserved=period.reserved, spent=period.spent)
    changed = BudgetPeriod.objects.filter(unchanged).update(
        reserved=F("reserved") + _by_pk(reserved),
        spent=F("spent") + _by_pk(spent or {}),
        limit=_by_pk({period.pk: limit_at(period.budget, now) for period in periods}),
    )
    if changed != len(periods):
        raise RuntimeError(f"{len(periods)} periods of budgets are locked, and {changed} are what was read")


def _by_pk(values: dict[int, int]) -> Case | Value:
    """An amount for each row. Of numbers without a declared size PostgreSQL's driver keeps four bytes."""
    amounts = {pk: Value(value, output_field=BigIntegerField()) for pk, value in values.items()}
    nothing = Value(0, output_field=BigIntegerField())
    cases = [When(pk=pk, then=amount) for pk, amount in amounts.items()]
    return Case(*cases, default=nothing) if cases else nothing


# What fits


def _fitting(period: BudgetPeriod, rate: Rate | None, call: Call, now: datetime) -> int:
    """The tokens of output that this budget lets a reply have. Raises `BudgetExceeded`."""
    action = action_at(period.budget, now)
    if action == Action.WARN or rate == Rate.NOTHING:
        return call.output_tokens
    left = limit_at(period.budget, now) - period.spent - period.reserved
    if rate is None:
        # Nobody knows what it will cost: the last one that begins before the limit is the error of estimate.
        affordable = call.output_tokens if left > 0 else -1
        needed = None
    else:
        affordable = rate.output_for(left, most=call.output_tokens)
        needed = rate.of(call.least_output)
    if action == Action.BLOCK:
        if affordable < call.least_output:
            raise _exceeded(period, left, needed, now)
        return affordable
    if affordable < call.output_tokens:
        _wait_for_turn(period, now)
    return call.output_tokens


def _wait_for_turn(period: BudgetPeriod, now: datetime) -> None:
    """Beyond the limit of a budget that slows down, as many begin as `THROTTLED` says; the period is locked, so that the
    count is exact."""
    began = period.entries.filter(created_at__gt=now - WINDOW).order_by("-created_at")
    recent = list(began.values_list("created_at", flat=True)[:THROTTLED])
    if len(recent) == THROTTLED:
        wait_s = max(1, ceil((recent[-1] + WINDOW - now).total_seconds()))
        text = (
            _("Your %(budget)s is used up, so replies begin slowly. Please try again in %(seconds)d seconds.")
            if period.budget.user_id
            else _(
                "The %(budget)s is used up, so replies begin slowly. Please try again in %(seconds)d seconds."
            )
        )
        raise BudgetExceeded(
            text % {"budget": described(period.budget, now), "seconds": wait_s},
            data=_told(period, now) | {"action": Action.THROTTLE.value},
            retry_after_s=wait_s,
        )


def _exceeded(period: BudgetPeriod, left: int, needed: int | None, now: datetime) -> BudgetExceeded:
    budget = period.budget
    renews = date_format(period.ends_at.astimezone(zone_of(budget)), "j F, H:i")
    words = {"budget": described(budget, now), "renews": renews}
    if budget.user_id is None:
        text = _("The %(budget)s is used up. It starts again on %(renews)s.") % words
    elif left <= 0 or needed is None:
        text = _("Your %(budget)s is used up. It starts again on %(renews)s.") % words
    else:
        words |= {"left": spoken(budget, left), "needed": spoken(budget, needed)}
        text = (
            _(
                "Your %(budget)s has %(left)s left, and a useful reply needs %(needed)s. It starts again on %(renews)s."
            )
            % words
        )
    return BudgetExceeded(
        text,
        data=_told(period, now) | {"action": Action.BLOCK.value},
        retry_after_s=max(1, ceil((period.ends_at - now).total_seconds())),
    )


def described(budget: Budget, now: datetime) -> str:
    """What a budget is called within a sentence; those who are not its owner are told no amount."""
    every = {
        Every.DAY: _("daily budget"),
        Every.WEEK: _("weekly budget"),
        Every.MONTH: _("monthly budget"),
    }
    name = every[Every(budget.every)]
    if budget.scope == Scope.COMPANY:
        return _("%(budget)s of your company") % {"budget": name}
    if budget.scope == Scope.EVERYONE:
        return _("%(budget)s of this service") % {"budget": name}
    words = {"budget": name, "limit": spoken(budget, limit_at(budget, now))}
    if budget.scope == Scope.KEY:
        return _("%(budget)s of %(limit)s for this API key") % words
    return _("%(budget)s of %(limit)s") % words


def _told(period: BudgetPeriod, now: datetime) -> dict[str, Any]:
    """What `data` of a refusal says."""
    budget = period.budget
    told: dict[str, Any] = {
        "scope": budget.scope,
        "period": budget.every,
        "unit": budget.unit,
        "renewsAt": period.ends_at,
    }
    if budget.user_id is not None:
        limit = limit_at(budget, now)
        told |= {
            "budgetId": budget.pk,
            "limit": plain(budget, limit),
            "spent": plain(budget, period.spent),
            "reserved": plain(budget, period.reserved),
            "remaining": plain(budget, max(0, limit - period.spent - period.reserved)),
        }
    return told


def plain(budget: Budget, amount: int) -> str:
    """An amount for programs: an exact decimal."""
    return f"{in_unit(budget, amount).normalize():f}"


def _tightest(periods: Iterable[BudgetPeriod], amounts: dict[int, int], now: datetime) -> Left | None:
    own = [
        (max(0, limit - period.spent - period.reserved - amounts.get(period.pk, 0)), limit, period)
        for period in periods
        if period.budget.user_id is not None and (limit := limit_at(period.budget, now))
    ]
    if not own:
        return None
    left, limit, period = min(own, key=lambda each: (each[0] * 10_000 // each[1], each[2].ends_at))
    wait_s = max(1, ceil((period.ends_at - now).total_seconds()))
    return Left(period.budget.unit, in_unit(period.budget, limit), in_unit(period.budget, left), wait_s)


# What a reply costs


def _rate_in_tokens(call: Call) -> Rate:
    return Rate(Decimal(call.input_tokens * call.input_rate) / 1000, Decimal(call.output_rate) / 1000)


def _rate_in_usd(call: Call, now: datetime) -> Rate | None:
    """At the dearest price that may hold while the reply is written; None where nobody knows one."""
    dearest = pricing.dearest_between(
        call.provider, call.model, now, now + AHEAD, input_tokens=call.input_tokens
    )
    if dearest is None:
        return None
    for_input, for_output = (usd_per_million / 1_000_000 / USD_UNIT for usd_per_million in dearest)
    return Rate(call.input_tokens * for_input, for_output)


def _logged(reference: str) -> int:
    """What all calls of a reply cost us, in `USD_UNIT`."""
    return _used_by([reference])[reference, Unit.USD]


def _used_by(references: Iterable[str]) -> Counter[tuple[str, str]]:
    """What all calls of replies were charged and cost us, by reply and unit."""
    calls = TokenUsage.objects.filter(operation_id__in=list(references))
    used: Counter[tuple[str, str]] = Counter()
    rows = calls.values_list("operation_id", "charged_tokens", costs.RECORDED).union(
        costs.corrected(calls).values_list("operation_id", Value(0), costs.ADDED), all=True
    )
    for reference, tokens, cost in rows:
        used[reference, Unit.TOKEN] += tokens
        used[reference, Unit.USD] += int((cost or Decimal(0)) / USD_UNIT)
    return used
