"""What staff read about the business: what was sold and used in a stretch of time, and what the house owes now.

A handful of statements over whole tables, whatever the number of people. Revenue is what packages were sold for;
refunds stand beside it, in the month in which they were made.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta, tzinfo
from typing import NamedTuple

from django.db import connection
from django.db.models import Case, Count, Q, Sum, Value, When

from billing.models import Account, Correction, Purchase, TopUp, Transfer, Unit
from billing.statements import between, midnight, moved


class Sold(NamedTuple):
    """One package: how many purchases, what they brought, and what was refunded of such purchases meanwhile."""

    package: str
    purchases: int
    tokens: int
    bonus_tokens: int
    revenue_idr: int
    refunded_idr: int


class Moved(NamedTuple):
    """Tokens of one kind that people got or gave."""

    kind: str
    is_in: bool
    number: int
    tokens: int


class Paid(NamedTuple):
    """Top-ups through one gateway that stand in one state."""

    gateway: str
    state: str
    number: int
    amount_idr: int
    refunded_idr: int

    @property
    def state_name(self) -> str:
        return str(TopUp.State(self.state).label)


class Owed(NamedTuple):
    """What people have now: `value_idr` is what their tokens are worth, `wallets_idr` what is in their wallets."""

    tokens: int
    bonus: int
    held: int
    value_idr: int
    wallets_idr: int


@dataclass(frozen=True, slots=True)
class Figures:
    since: date
    until: date
    sold: list[Sold]
    moved: list[Moved]
    paid: list[Paid]
    owed: Owed

    @property
    def revenue_idr(self) -> int:
        return sum(line.revenue_idr for line in self.sold)

    @property
    def refunded_idr(self) -> int:
        return sum(line.refunded_idr for line in self.sold)

    @property
    def sold_tokens(self) -> int:
        return sum(line.tokens for line in self.sold)

    @property
    def used_tokens(self) -> int:
        return sum(line.tokens for line in self.moved if line.kind == Transfer.Kind.REPLY and not line.is_in)


def of(*, since: date, until: date, zone: tzinfo) -> Figures:
    """The figures from a day to another one, both included, and what is owed at the moment. Seven queries."""
    start, end = midnight(since, zone), midnight(until + timedelta(days=1), zone)
    bought = Purchase.objects.filter(created_at__gte=start, created_at__lt=end).values_list("package_name")
    refunds = Correction.objects.filter(
        kind=Correction.Kind.REFUND,
        state=Correction.State.APPLIED,
        decided_at__gte=start,
        decided_at__lt=end,
    )
    refunded = dict(refunds.values_list("purchase__package_name").annotate(Sum("amount")))
    sold = {
        name: Sold(name, number, tokens, bonus, revenue, refunded.pop(name, 0))
        for name, number, tokens, bonus, revenue in bought.annotate(
            Count("pk"), Sum("tokens"), Sum("bonus_tokens"), Sum("price_idr")
        )
    }
    sold |= {name: Sold(name, 0, 0, 0, 0, amount) for name, amount in refunded.items()}
    return Figures(
        since=since,
        until=until,
        sold=sorted(sold.values(), key=lambda line: (-line.revenue_idr, line.package)),
        moved=_moved(start, end),
        paid=[
            Paid(*row)
            for row in TopUp.objects.filter(created_at__gte=start, created_at__lt=end)
            .values_list("gateway", "state")
            .annotate(Count("pk"), Sum("amount_idr"), Sum("refunded_idr"))
            .order_by("gateway", "state")
        ],
        owed=_owed(),
    )


def _moved(start: datetime, end: datetime) -> list[Moved]:
    rows = between(moved(), start, end).order_by().filter(unit=Unit.TOKEN)
    is_in = Case(When(debit__user=None, then=Value(1)), default=Value(0))
    sums = rows.annotate(is_in=is_in).values_list("kind", "is_in").annotate(Count("pk"), Sum("amount"))
    return [Moved(kind, bool(came), *more) for kind, came, *more in sums.order_by("kind", "-is_in")]


def _owed() -> Owed:
    people = Account.objects.filter(user__isnull=False)
    tokens, wallets = Q(unit=Unit.TOKEN), Q(unit=Unit.IDR)
    sums = people.aggregate(
        tokens=Sum("balance", filter=tokens, default=0),
        bonus=Sum("bonus", filter=tokens, default=0),
        held=Sum("held", filter=tokens, default=0),
        wallets_idr=Sum("balance", filter=wallets, default=0),
    )
    with connection.cursor() as cursor:
        cursor.execute(VALUE)
        (value_idr,) = cursor.fetchone()
    return Owed(value_idr=int(value_idr), **sums)


# What `billing.lots.standing` computes for one account, for all at once: what is left of each lot is what the newer ones
# leave over of the balance.
VALUE = """
WITH lot AS (
    SELECT a.balance - a.bonus AS paid, t.amount AS size, COALESCE(p.price_idr, 0) AS price,
        SUM(t.amount) OVER (PARTITION BY a.id ORDER BY COALESCE(t.place, 0) DESC, t.created_at DESC, t.id DESC) - t.amount
            AS newer
    FROM billing_transfer t JOIN billing_account a ON a.id = t.credit_id AND a.user_id IS NOT NULL AND a.unit = 'TOKEN'
    LEFT JOIN billing_purchase p ON t.kind = 'purchase' AND p.id = t.reference
    LEFT JOIN billing_correction c ON c.purchase_id = p.id AND c.kind = 'refund' AND c.state = 'applied'
    WHERE t.phase IN ('single', 'post') AND t.kind <> 'bonus' AND c.id IS NULL
), rest AS (
    SELECT size, price, CASE WHEN newer >= paid THEN 0 WHEN paid - newer > size THEN size ELSE paid - newer END AS still
    FROM lot WHERE price > 0
)
SELECT COALESCE(SUM(price - price * (size - still) / size), 0) FROM rest
"""
