"""What usage has noticed, told by billing's notices: crossings of budgets, and unusual use.

It stands in the roof because it wires two rooms that do not know each other. Usage writes rows that nobody was told of;
here each becomes notices and is marked, in one transaction. A notice has a key, so that none comes twice.
"""

import zoneinfo
from datetime import UTC, datetime, time
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from aleph.accounts.models import ApiKey, Membership, User
from billing import notices
from usage import budgets
from usage.models import Budget, BudgetCrossing, UnusualUse

BATCH = 200


def run() -> int:
    """Tell what is untold; how many rows that were."""
    return _tell_crossings() + _tell_unusual()


def _tell_crossings() -> int:
    """Where one reply has passed several percentages of a period, the highest says it all."""
    untold = list(
        BudgetCrossing.objects.filter(told_at=None)
        .select_related("period__budget__user", "period__budget__company", "period__budget__api_key")
        .order_by("pk")[:BATCH]
    )
    highest: dict[int, BudgetCrossing] = {}
    for crossing in untold:
        known = highest.get(crossing.period_id)
        if known is None or known.percent < crossing.percent:
            highest[crossing.period_id] = crossing
    for crossing in untold:
        with transaction.atomic():
            is_mine = BudgetCrossing.objects.filter(pk=crossing.pk, told_at=None).update(
                told_at=timezone.now()
            )
            if is_mine and crossing is highest[crossing.period_id]:
                _tell_crossing(crossing)
    return len(untold)


def _tell_crossing(crossing: BudgetCrossing) -> None:
    budget = crossing.period.budget
    facts = {
        "budget": budget.pk,
        "scope": budget.scope,
        "name": _name_of(budget),
        "unit": budget.unit,
        "every": budget.every,
        "action": budget.action,
        "percent": crossing.percent,
        "limit": budgets.plain(budget, crossing.limit),
        "spent": budgets.plain(budget, crossing.spent),
        "ends": crossing.period.ends_at.astimezone(budgets.zone_of(budget)).isoformat(),
    }
    for person in _concerned(budget):
        notices.tell(
            user=person,
            kind=notices.Kind.BUDGET,
            key=f"budget:{crossing.pk}",
            reference=budget.pk,
            detail=_name_of(budget),
            facts=facts,
        )


def _concerned(budget: Budget) -> QuerySet[User] | list[User]:
    """Who is told of a budget: its person, the administrators of its company, of everyone's the staff."""
    if budget.user is not None:
        return [budget.user]
    people = User.objects.filter(is_active=True)
    if budget.company_id is None:
        return people.filter(is_staff=True)
    admin = Membership.Role.ADMIN
    return people.filter(memberships__company=budget.company_id, memberships__role=admin)


def _name_of(budget: Budget) -> str:
    """Of the key or company that it is for; a person's own has none."""
    named = budget.api_key or budget.company
    return named.name if named is not None else ""


def _tell_unusual() -> int:
    untold = list(UnusualUse.objects.filter(told_at=None).select_related("user").order_by("pk")[:BATCH])
    for use in untold:
        with transaction.atomic():
            if UnusualUse.objects.filter(pk=use.pk, told_at=None).update(told_at=timezone.now()):
                notices.tell(
                    user=use.user,
                    kind=notices.Kind.UNUSUAL,
                    key=f"unusual:{use.day}",
                    facts=_facts_of(use),
                )
    return len(untold)


def _facts_of(use: UnusualUse) -> dict[str, Any]:
    zone = zoneinfo.ZoneInfo(use.user.time_zone)
    begins = datetime.combine(use.day, time.min, tzinfo=UTC)
    return {
        "day": f"{use.day}",
        "from": begins.astimezone(zone).isoformat(),
        "since": use.since.astimezone(zone).isoformat(),
        "tokens": use.tokens,
        "usual_tokens": use.usual_tokens,
        "model": use.model,
        "model_percent": use.model_percent,
        "keys": [key.name or key.hint for key in _keys_used(use, begins)],
    }


def _keys_used(use: UnusualUse, since: datetime) -> QuerySet[ApiKey]:
    """The keys that came in on that day; calls do not say which of them they came with."""
    return ApiKey.objects.filter(user=use.user, last_used_at__gte=since).order_by("-last_used_at")[:3]
