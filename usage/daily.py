"""A person's calls by day, model and operation: one pass over them for all that a page adds up."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Count, Expression, F, IntegerField, Q, Sum
from django.db.models.sql.compiler import SQLCompiler
from django.utils import timezone

from aleph.accounts.models import User
from aleph.prepared import planned_anew
from usage import costs
from usage.models import TokenUsage, name_for_people

DAY = timedelta(days=1)


class Row(NamedTuple):
    """The calls of one model and operation on one day, or on a part of one that a cut divides; `begins` says which. Or what
    corrections add to their cost."""

    begins: datetime
    day: date
    name: str
    operation: str
    calls: int
    input_tokens: int
    output_tokens: int
    charged_tokens: int
    cost_usd: Decimal
    unpriced: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Daily:
    """Calls from the `first` day to the last; what a clock that runs ahead has stored stands on the day after."""

    first: date
    cuts: Sequence[datetime]
    rows: Sequence[Row]


@planned_anew()
def read(
    user: User, *, first: date, last: date, narrowing: Q | None = None, cuts: Sequence[datetime] = ()
) -> Daily:
    """From `first` on, days of the user's time zone; up to `last` unless that is today. Days are divided at `cuts`.

    On PostgreSQL the index on a person's calls holds all of it. It is read alone as long as nothing else is asked for, of
    which a count of ids would be one."""
    zone = ZoneInfo(user.time_zone)
    days = [first + nth * DAY for nth in range((last - first).days + 2)]
    begins = sorted({*(datetime.combine(day, time.min, tzinfo=zone) for day in days), *cuts})
    calls = TokenUsage.objects.filter(narrowing or Q(), user=user, created_at__gte=begins[0])
    if last < timezone.localdate(timezone=zone):
        calls = calls.filter(created_at__lt=datetime.combine(last + DAY, time.min, tzinfo=zone))
    day_of = [moment.astimezone(zone).date() for moment in begins]
    rows = costs.sums(
        calls.annotate(part=Place(begins)),
        *("part", "label", "requested_model", "operation"),
        costs={"cost": None},
        others={
            "number": Count("*"),
            "tokens_in": Sum("input_tokens"),
            "tokens_out": Sum("output_tokens"),
            "charged": Sum("charged_tokens"),
            "priced": Count("total_cost_usd"),
        },
    )
    return Daily(
        first,
        cuts,
        [
            Row(
                begins[row["part"] - 1],
                day_of[row["part"] - 1],
                name_for_people(row["label"], row["requested_model"]),
                row["operation"],
                row["number"],
                row["tokens_in"],
                row["tokens_out"],
                row["charged"],
                row["cost"],
                unpriced=row["number"] - row["priced"],
            )
            for row in rows
        ],
    )


class Place(Expression):
    """How many of some moments a call was recorded at or after. To ask for its day, which looks up the time zone for each
    call, would take longer than to add it up."""

    output_field = IntegerField()

    def __init__(self, moments: Sequence[datetime]) -> None:
        super().__init__()
        self.moments = tuple(moments)
        self.moment: Any = F("created_at")

    def get_source_expressions(self) -> list[Any]:
        return [self.moment]

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        (self.moment,) = exprs

    def as_postgresql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> tuple[str, tuple[Any, ...]]:
        column, _none = compiler.compile(self.moment)
        return f"width_bucket({column}, %s::timestamptz[])", (list(self.moments),)

    def as_sql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **_: Any
    ) -> tuple[str, tuple[Any, ...]]:
        """By halves."""
        column, _none = compiler.compile(self.moment)
        params: list[Any] = []

        def between(low: int, high: int) -> str:
            if low == high:
                return str(low)
            middle = (low + high) // 2
            params.append(connection.ops.adapt_datetimefield_value(self.moments[middle]))
            return f"CASE WHEN {column} < %s THEN {between(low, middle)} ELSE {between(middle + 1, high)} END"

        return between(0, len(self.moments)), tuple(params)
