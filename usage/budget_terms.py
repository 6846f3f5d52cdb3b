"""The terms of budgets: who makes them, changes them and ends them, and when that holds.

A limit is there for the moment in which one would rather not have it. So whatever tightens a budget holds at once, and
whatever loosens it (a higher limit, a softer action, its end) from the beginning of the next day in its time zone. Staff
are not bound by that.
"""

from collections.abc import Iterable
from datetime import datetime, time, timedelta
from decimal import Decimal

from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import ApiKey, Company, Membership, User
from aleph.problems import Conflict, InvalidRequest, NotFound
from usage import budgets, costs
from usage.budgets import Action, Scope, Unit, limit_at
from usage.models import MOST_IN_BUDGET, USD_UNIT, Budget, BudgetEntry, BudgetPeriod, TokenUsage

MOST = 20
"""Budgets that an owner may have at a time."""
USUAL_THRESHOLDS = (50, 80, 100)
MOST_THRESHOLDS, HIGHEST_THRESHOLD = 8, 200
SOFTNESS = {Action.BLOCK: 0, Action.THROTTLE: 1, Action.WARN: 2}


class TooManyBudgets(Conflict):
    text = _("There are too many budgets here already. End one first.")


class ImplausibleLimit(InvalidRequest):
    text = _("A limit is above 0, and not astronomical.")


class NotYours(InvalidRequest):
    code = "FORBIDDEN"
    status = 403
    text = _("This budget was set by others; only they can change it.")


def of(user: User, now: datetime) -> list[Budget]:
    """The budgets that a person manages or may see, running, each with its period: his own and those of his keys, then
    those of companies that he administers."""
    mine = Q(user=user) | Q(company__in=administered(user).values("pk"))
    running = Q(ended_at=None) | Q(ended_at__gt=now)
    found = Budget.objects.filter(mine, running).select_related("current", "user", "api_key", "company")
    order = {Scope.USER: 0, Scope.KEY: 1, Scope.COMPANY: 2}
    return sorted(found, key=lambda budget: (order[Scope(budget.scope)], budget.company_id or 0, budget.pk))


def administered(user: User) -> QuerySet[Company]:
    """The companies that a person administers."""
    admin = Membership.Role.ADMIN
    return Company.objects.filter(memberships__user=user, memberships__role=admin).order_by("name", "pk")


def get(user: User, budget_id: str) -> Budget:
    """One that he manages or may see, also when it is over. Raises `NotFound`."""
    if not ids.is_one(budget_id, "bud"):
        raise NotFound
    mine = Q(user=user) | Q(company__in=administered(user).values("pk"))
    budget = Budget.objects.filter(mine, pk=budget_id).select_related("current", "user", "api_key", "company")
    found = budget.first()
    if found is None:
        raise NotFound
    return found


def amount_of(unit: str, limit: Decimal) -> int:
    """A limit that somebody gave in tokens or dollars, in the smallest unit. Raises `InvalidRequest`."""
    amount = limit if unit == Unit.TOKEN else limit / USD_UNIT
    if not 0 < amount <= MOST_IN_BUDGET:
        raise ImplausibleLimit
    if amount != int(amount):
        raise InvalidRequest(_("Tokens are whole, and dollars have at most 12 decimal places."))
    return int(amount)


def key_of(user: User, key_id: int) -> ApiKey:
    """A usable key of his. Raises `NotFound`."""
    key = ApiKey.objects.filter(user=user, pk=key_id, revoked_at=None).first()
    if key is None:
        raise NotFound
    return key


def company_of(user: User, company_id: int) -> Company:
    """A company that he administers. Raises `NotFound`."""
    company = administered(user).filter(pk=company_id).first()
    if company is None:
        raise NotFound
    return company


def create(
    *,
    author: User,
    unit: str,
    every: str,
    limit: int,
    action: str,
    thresholds: Iterable[int] = USUAL_THRESHOLDS,
    api_key: ApiKey | None = None,
    company: Company | None = None,
) -> Budget:
    """A budget of the author's own, or of a key or company of his; it holds at once. Of a person's own the first period
    counts what he has spent in it before; others begin with nothing. Raises `InvalidRequest`, `TooManyBudgets`."""
    budget = Budget(
        scope=Scope.KEY if api_key else Scope.COMPANY if company else Scope.USER,
        user=None if company else author,
        api_key=api_key,
        company=company,
        unit=unit,
        every=every,
        limit=limit,
        action=action,
        thresholds=checked_thresholds(thresholds),
        time_zone=author.time_zone if company else "",
    )
    now = timezone.now()
    with transaction.atomic():
        # Two at once may make one too many; nothing depends on it.
        owned = Budget.objects.filter(Q(ended_at=None) | Q(ended_at__gt=now), company=company)
        if owned.filter(user=budget.user).count() >= MOST:
            raise TooManyBudgets
        begin(budget, now)
    return budget


def begin(budget: Budget, now: datetime) -> None:
    """Store a budget with its first period. Runs inside a transaction."""
    if not 0 < budget.limit <= MOST_IN_BUDGET:
        raise ImplausibleLimit
    budget.id = ids.new("bud")
    budget.save(force_insert=True)
    budget.current = budgets.open_period(budget, now)
    if budget.scope == Scope.USER:
        _count_before(budget, budget.current, now)


def change(
    budget: Budget,
    *,
    limit: int | None = None,
    action: str | None = None,
    thresholds: Iterable[int] | None = None,
    by_staff: bool = False,
) -> Budget:
    """From now on, or for what loosens from the next day on, these terms hold; None: as it was wanted last. Raises
    `InvalidRequest`, `NotYours`, and `NotFound` where it has ended."""
    if limit is not None and not 0 < limit <= MOST_IN_BUDGET:
        raise ImplausibleLimit
    told_at = None if thresholds is None else checked_thresholds(thresholds)
    now = timezone.now()
    with transaction.atomic():
        period, stored = _changeable(budget, now, by_staff=by_staff)
        wanted_limit = limit or stored.later_limit or stored.limit
        wanted_action = Action(action or stored.later_action or stored.action)
        before = stored.limit = limit_at(stored, now)
        stored.action = budgets.action_at(stored, now)
        stored.later_limit, stored.later_action, stored.later_at = None, "", None
        if by_staff or wanted_limit <= before:
            stored.limit = wanted_limit
        else:
            stored.later_limit = wanted_limit
        if by_staff or SOFTNESS[wanted_action] <= SOFTNESS[Action(stored.action)]:
            stored.action = wanted_action
        else:
            stored.later_action = wanted_action
        if stored.later_limit or stored.later_action:
            stored.later_at = next_day(stored, now)
        stored.thresholds = stored.thresholds if told_at is None else told_at
        stored.save()
        BudgetPeriod.objects.filter(pk=period.pk).update(limit=stored.limit)
        # Of a lower limit the same amount is more percent.
        budgets.note_crossings([(period, period.spent * stored.limit // before, period.spent)], now)
    return stored


def end(budget: Budget, *, by_staff: bool = False) -> Budget:
    """It ends with this day; for staff, now. Harmless when it ends anyway. Raises `NotYours`."""
    now = timezone.now()
    with transaction.atomic():
        _period, stored = _changeable(budget, now, by_staff=by_staff)
        if by_staff or stored.ended_at is None:
            stored.ended_at = now if by_staff else next_day(stored, now)
            stored.save(update_fields=["ended_at"])
    return stored


def keep(budget: Budget) -> Budget:
    """It does not end after all. Raises `NotYours`, and `NotFound` where it has."""
    now = timezone.now()
    with transaction.atomic():
        _period, stored = _changeable(budget, now, by_staff=False)
        stored.ended_at = None
        stored.save(update_fields=["ended_at"])
    return stored


def standing_of(budget: Budget, now: datetime) -> BudgetPeriod:
    """The current period; where that is over and no reply has begun since, one like that which the next reply begins."""
    if budget.current is not None and budget.current.ends_at > now:
        return budget.current
    starts_at, ends_at = budgets.bounds(budget, now)
    if budget.current is not None:
        starts_at = max(starts_at, budget.current.ends_at)
    return BudgetPeriod(budget=budget, starts_at=starts_at, ends_at=ends_at, limit=limit_at(budget, now))


def next_day(budget: Budget, now: datetime) -> datetime:
    zone = budgets.zone_of(budget)
    return datetime.combine(now.astimezone(zone).date() + timedelta(days=1), time.min, tzinfo=zone)


def checked_thresholds(percents: Iterable[int]) -> list[int]:
    """Sorted, each once. Raises `InvalidRequest`."""
    found = sorted(set(percents))
    if len(found) > MOST_THRESHOLDS or any(not 0 < percent <= HIGHEST_THRESHOLD for percent in found):
        raise InvalidRequest(
            _("Give at most %(count)d percentages from 1 to %(most)d.")
            % {"count": MOST_THRESHOLDS, "most": HIGHEST_THRESHOLD}
        )
    return found


def _changeable(budget: Budget, now: datetime, *, by_staff: bool) -> tuple[BudgetPeriod, Budget]:
    """The budget as it is stored, with its period, which is locked."""
    periods = budgets.current([budget.pk], now)
    if not periods:
        raise NotFound
    stored = Budget.objects.select_related("user", "api_key", "company").get(pk=budget.pk)
    if stored.ended_at is not None and stored.ended_at <= now:
        raise NotFound
    if stored.is_by_staff and not by_staff:
        raise NotYours
    # So that whoever looks at the period's budget sees what is changed here.
    periods[0].budget, stored.current = stored, periods[0]
    return periods[0], stored


def _count_before(budget: Budget, period: BudgetPeriod, now: datetime) -> None:
    """What its owner has spent in this period before there was a budget, as an entry of its own."""
    calls = TokenUsage.objects.filter(user=budget.user, created_at__gte=period.starts_at)
    if budget.unit == Unit.TOKEN:
        spent = int(calls.aggregate(tokens=Sum("charged_tokens", default=0))["tokens"])
    else:
        spent = int(costs.total(calls) / USD_UNIT)
    if spent:
        BudgetEntry.objects.create(
            period=period, reference=budget.pk, reserved=0, spent=spent, created_at=now, closed_at=now
        )
        BudgetPeriod.objects.filter(pk=period.pk).update(spent=spent)
        period.spent = spent
