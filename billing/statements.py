"""What a person reads about his own accounts: the history of a balance, and what was used. A door of this app.

Holds and what gives them back are no spending, so only transfers that moved something are shown.
"""

from dataclasses import dataclass
from datetime import datetime

from django.db.models import QuerySet, Sum

from aleph import ids
from aleph.accounts.models import User
from billing import purchases
from billing.models import Account, Purchase, Transfer, Unit

PAGE = 25
MOVED = (Transfer.Phase.SINGLE, Transfer.Phase.POST)


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: `amount` is signed, in the unit of the history; `reference` is what it was for, such as a reply's id.

    A purchase is one line, bonus included.
    """

    at: datetime
    kind: str
    amount: int
    balance_after: int
    reference: str
    reason: str
    purchase: Purchase | None


@dataclass(frozen=True, slots=True)
class History:
    """A page of entries, newest first; `older` is the cursor of the page after it, None on the last."""

    unit: Unit
    entries: list[Entry]
    older: str | None


def history(user: User, *, unit: Unit, cursor: str | None = None) -> History:
    """The changes of the user's account in `unit`, from `cursor` on, or all where it is none. Four queries, however
    long it is."""
    account = Account.objects.get(user=user, unit=unit)
    shown = Transfer.objects.filter(phase__in=MOVED).exclude(
        kind=Transfer.Kind.BONUS, reference__startswith=f"{purchases.PREFIX}_"
    )
    if cursor and ids.is_one(cursor, "trf"):
        shown = shown.filter(pk__lt=cursor)
    # Each side has an index that ends at the page's size; one query for both would read the whole history.
    sides = [shown.filter(debit=account), shown.filter(credit=account)]
    found = sorted((row for side in sides for row in _newest(side)), key=lambda row: row.pk, reverse=True)
    rows = found[:PAGE]
    bought = _purchases_of(user, rows)
    return History(
        unit=unit,
        # Ids are made before the account is locked, so neighbours may stand the other way round. The database's clock
        # is read under the lock.
        entries=[
            _entry(row, account, bought.get(row.reference))
            for row in sorted(rows, key=lambda row: row.created_at, reverse=True)
        ],
        older=rows[-1].pk if len(found) > PAGE else None,
    )


def used_tokens(user: User, *, since: datetime) -> int:
    """Tokens that replies have cost the user since a moment."""
    replies = Transfer.objects.filter(
        debit__user=user,
        debit__unit=Unit.TOKEN,
        kind=Transfer.Kind.REPLY,
        phase__in=MOVED,
        pk__gte=ids.first("trf", since),
    )
    return replies.aggregate(total=Sum("amount"))["total"] or 0


def _newest(rows: QuerySet[Transfer]) -> QuerySet[Transfer]:
    return rows.order_by("-pk")[: PAGE + 1]


def _purchases_of(user: User, rows: list[Transfer]) -> dict[str, Purchase]:
    return Purchase.objects.filter(user=user).in_bulk(
        [row.reference for row in rows if row.kind == Transfer.Kind.PURCHASE]
    )


def _entry(row: Transfer, account: Account, purchase: Purchase | None) -> Entry:
    amount = row.amount if row.credit_id == account.pk else -row.amount
    balance_after = row.balance_after or 0
    if purchase is not None and account.unit == Unit.TOKEN:
        amount, balance_after = purchase.total_tokens, purchase.tokens_after
    return Entry(row.created_at, row.kind, amount, balance_after, row.reference, row.reason, purchase)
