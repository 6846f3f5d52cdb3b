"""What calls cost by what is known now: what was recorded with them, and what corrections add (`usage.recosting`). Whoever
reads costs for a report reads them here. Reads only.

A correction is a row beside its call, and few calls have one: sums read those by themselves, in the same statement, so
that the sums of calls are what an index tells.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.db.models import DecimalField, OuterRef, Q, QuerySet, Subquery, Sum, Value
from django.db.models.functions import Coalesce

from usage.models import COST_PLACES, SUM_DIGITS, CostCorrection, TokenUsage

RECORDED, ADDED = "total_cost_usd", "corrections__total_cost_usd"


def sums(
    calls: QuerySet[TokenUsage], *by: str, costs: Mapping[str, Q | None], others: Mapping[str, Any]
) -> QuerySet[Any]:
    """Sums of some calls by the columns `by` (one at least), as dicts: `others`, and under each name of `costs` what those of
    the calls cost that it says (None: all). Where costs were corrected, a combination of `by` has a second row, to be
    added to the first: it is 0 but for the costs. One statement."""
    recorded = calls.order_by().values(*by).annotate(**others, **_sums(RECORDED, costs))
    added = corrected(calls).order_by().values(*by)
    return recorded.union(
        added.annotate(**{name: Value(0) for name in others}, **_sums(ADDED, costs)), all=True
    )


def total(calls: QuerySet[TokenUsage]) -> Decimal:
    """What some calls cost."""
    return sum(
        (
            rows.aggregate(sum=Sum(column, default=Decimal(0)))["sum"]
            for rows, column in ((calls, RECORDED), (corrected(calls), ADDED))
        ),
        Decimal(0),
    )


def corrected(calls: QuerySet[TokenUsage]) -> QuerySet[TokenUsage]:
    """Those of the calls whose cost was corrected, once for each time."""
    return calls.filter(corrections__isnull=False)


def told(calls: QuerySet[TokenUsage]) -> QuerySet[Any]:
    """The calls, each with what corrections add: for pages of calls, not for sums."""
    rows: QuerySet[Any] = calls
    return rows.annotate(corrected_usd=_added("total_cost_usd"), corrected_input_usd=_added("input_cost_usd"))


def _sums(column: str, costs: Mapping[str, Q | None]) -> dict[str, Sum]:
    return {name: Sum(column, filter=only, default=Decimal(0)) for name, only in costs.items()}


def _added(column: str) -> Coalesce:
    entries = CostCorrection.objects.filter(usage=OuterRef("pk")).order_by().values("usage")
    usd = DecimalField(max_digits=SUM_DIGITS, decimal_places=COST_PLACES)
    return Coalesce(Subquery(entries.annotate(sum=Sum(column)).values("sum"), output_field=usd), Decimal(0))
