"""The month of somebody's balances: opening, what came, what went, closing; in tokens and in rupiah. A door of this app.

A month is cut by the database's clock at midnight of a time zone. Every move of the ledger is in exactly one line, so
opening and lines add up to the closing, and that is the next month's opening. What tokens are worth says
`billing.lots`; what a reply was for, only those above know, so each use is handed up with its transfer's id.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, tzinfo
from itertools import chain
from operator import attrgetter
from typing import NamedTuple

from django.db.models import Count, QuerySet, Sum

from aleph.accounts.models import User
from billing.lots import Inflow, Pool, standing
from billing.models import Account, Correction, Purchase, Transfer
from billing.statements import between, is_bonus_of_refund, midnight, moved, written

NEAR = 100
"""How many of the newest ids the last written row is surely among."""


class Standing(NamedTuple):
    """What there is at a moment: tokens, which of them are bonus, and what they are worth."""

    tokens: int
    bonus: int
    value_idr: int


class Line(NamedTuple):
    """Moves of one kind and one direction; `tokens` and `value_idr` are signed. In a wallet `tokens` is 0."""

    kind: str
    is_in: bool
    number: int
    tokens: int
    value_idr: int


class Use(NamedTuple):
    """What one reply took; `value_idr` is what its tokens were worth, bonus nothing."""

    transfer_id: str
    tokens: int
    value_idr: int


@dataclass(frozen=True, slots=True)
class Month:
    """From `start` on and before `end`. `lines` are those of the tokens but for uses, `wallet_lines` of the wallet."""

    first: date
    start: datetime
    end: datetime
    opening: Standing
    lines: list[Line]
    uses: list[Use]
    closing: Standing
    wallet_opening_idr: int
    wallet_lines: list[Line]

    @property
    def wallet_closing_idr(self) -> int:
        return self.wallet_opening_idr + sum(line.value_idr for line in self.wallet_lines)


def month(user: User, *, first: date, zone: tzinfo) -> Month:
    """The month that begins on the day `first` in `zone`. The same number of queries for any month."""
    start, end = midnight(first, zone), midnight(following(first), zone)
    tokens, wallet = _accounts(user)
    sums = _sums_before(start, tokens, wallet)
    pool = _pool_before(tokens, start, balance=sums[tokens.pk])
    opening = Standing(pool.tokens, pool.bonus, pool.value_idr)
    lines, uses = _replay(pool, tokens, start, end)
    return Month(
        first=first,
        start=start,
        end=end,
        opening=opening,
        lines=lines,
        uses=uses,
        closing=Standing(pool.tokens, pool.bonus, pool.value_idr),
        wallet_opening_idr=sums[wallet.pk],
        wallet_lines=_wallet_lines(wallet, start, end),
    )


def following(first: date) -> date:
    """The first day of the month after."""
    return date(first.year + first.month // 12, first.month % 12 + 1, 1)


def pool_now(account: Account) -> Pool:
    """The tokens of an account as they stand. Whoever acts upon it has locked the account before."""
    return standing(_inflows(account, None), bonus=account.bonus, paid=account.balance - account.bonus)


def _accounts(user: User) -> tuple[Account, Account]:
    found = {account.name: account for account in Account.objects.filter(user=user)}
    return found[Account.TOKENS], found[Account.WALLET]


def _sums_before(moment: datetime, *accounts: Account) -> dict[int, int]:
    """What each account had: all that came, less all that went."""
    rows = between(moved(), None, moment).order_by()
    sums = dict.fromkeys((account.pk for account in accounts), 0)
    for account, total in rows.filter(credit__in=accounts).values_list("credit").annotate(Sum("amount")):
        sums[account] += total
    for account, total in rows.filter(debit__in=accounts).values_list("debit").annotate(Sum("amount")):
        sums[account] -= total
    return sums


def _pool_before(account: Account, moment: datetime, *, balance: int) -> Pool:
    bonus = _bonus_before(account, moment)
    return standing(_inflows(account, moment), bonus=bonus, paid=balance - bonus)


def _bonus_before(account: Account, moment: datetime) -> int:
    """What of the balance was bonus: the last row before the moment says it; where that is an old one, all rows do."""
    rows = between(written(), None, moment).order_by("-pk")
    near = [*rows.filter(credit=account)[:NEAR], *rows.filter(debit=account)[:NEAR]]
    if not near:
        return 0
    last = max(near, key=_order)
    if last.bonus_after is not None:
        return last.bonus_after
    bonus = 0
    for row in _in_order(between(moved(), None, moment), account):
        if row.credit_id != account.pk:
            bonus = max(0, bonus - row.amount)
        elif row.kind == Transfer.Kind.BONUS:
            bonus += row.amount
    return bonus


def _inflows(account: Account, before: datetime | None) -> list[Inflow]:
    """What came in before a moment and was no bonus, oldest first; None for all of it."""
    rows = between(moved(), None, before)
    came = sorted(rows.filter(credit=account).exclude(kind=Transfer.Kind.BONUS), key=_order)
    bought = _prices(row.reference for row in came if row.kind == Transfer.Kind.PURCHASE)
    refunded = _refunded(rows.filter(debit=account, kind=Transfer.Kind.REFUND))
    return [
        Inflow(
            row.amount,
            bought.get(row.reference, 0),
            row.reference if row.reference in bought else "",
            is_gone=row.reference in refunded.values(),
        )
        for row in came
    ]


def _replay(pool: Pool, account: Account, start: datetime, end: datetime) -> tuple[list[Line], list[Use]]:
    """Move the pool from `start` to `end`, and write down what moved it."""
    rows = list(_in_order(between(moved(), start, end), account))
    bought = _prices(row.reference for row in rows if row.kind == Transfer.Kind.PURCHASE)
    refunded = _refunded(row for row in rows if row.kind == Transfer.Kind.REFUND)
    counts: dict[tuple[str, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
    uses: list[Use] = []
    for row in rows:
        is_in = row.credit_id == account.pk
        if not is_in:
            purchase = refunded.get(row.reference)
            taken = pool.take_back(row.amount, purchase) if purchase else pool.take(row.amount)
            value_idr = -taken.value_idr
            if row.kind == Transfer.Kind.REPLY:
                uses.append(Use(row.pk, row.amount, taken.value_idr))
                continue
        elif row.kind == Transfer.Kind.BONUS:
            pool.give(row.amount)
            value_idr = 0
        else:
            value_idr = bought.get(row.reference, 0)
            pool.add(row.amount, price_idr=value_idr, purchase_id=row.reference if value_idr else "")
        # A refund takes out all bonus and puts back that of other purchases; for its owner that is one thing.
        is_part = is_bonus_of_refund(row)
        line = counts[(Transfer.Kind.REFUND, False) if is_part else (row.kind, is_in)]
        number = 0 if is_part else 1
        for nth, more in enumerate((number, row.amount if is_in else -row.amount, value_idr)):
            line[nth] += more
    return _lines(counts), uses


def _wallet_lines(wallet: Account, start: datetime, end: datetime) -> list[Line]:
    rows = between(moved(), start, end).order_by()
    counts: dict[tuple[str, bool], list[int]] = {}
    for is_in, side in ((True, rows.filter(credit=wallet)), (False, rows.filter(debit=wallet))):
        for kind, count, total in side.values_list("kind").annotate(Count("pk"), Sum("amount")):
            counts[kind, is_in] = [count, 0, total if is_in else -total]
    return _lines(counts)


def _lines(counts: dict[tuple[str, bool], list[int]]) -> list[Line]:
    """In the order of `Transfer.Kind`, what came before what went."""
    return [
        Line(kind, is_in, *counts[kind, is_in])
        for kind in Transfer.Kind.values
        for is_in in (True, False)
        if (kind, is_in) in counts
    ]


def _prices(references: Iterable[str]) -> dict[str, int]:
    return dict(Purchase.objects.filter(pk__in=set(references)).values_list("pk", "price_idr"))


def _refunded(rows: Iterable[Transfer]) -> dict[str, str]:
    """The purchase that each of these refunds took back, by the reference of its transfers."""
    wanted = {row.reference for row in rows}
    found = Correction.objects.filter(pk__in=wanted, purchase__isnull=False) if wanted else ()
    return {correction.pk: correction.purchase_id or "" for correction in found}


def _in_order(rows: QuerySet[Transfer], account: Account) -> Iterator[Transfer]:
    both = chain(rows.filter(credit=account).iterator(), rows.filter(debit=account).iterator())
    return iter(sorted(both, key=_order))


def _order(row: Transfer) -> tuple[int, object]:
    """Old rows have no place among those of their account; they come first, in the order in which they were written."""
    return row.place or 0, attrgetter("written")(row)
