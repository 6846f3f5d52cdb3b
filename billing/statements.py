"""What a person reads about his own accounts: the history of his balances, and what was used. A door of this app.

Holds and what gives them back are no spending, so the history lists only transfers that moved something; holds that are
open stand apart.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, tzinfo
from operator import attrgetter
from typing import NamedTuple
from urllib.parse import urlencode

from django.conf import settings
from django.db import connection
from django.db.models import F, Q, QuerySet, Sum
from django.db.models.expressions import RawSQL
from django.utils.dateparse import parse_date
from django.utils.module_loading import import_string

from aleph import ids
from aleph.accounts.models import User
from billing import purchases
from billing.models import Account, Correction, Purchase, Transfer, Unit

PAGE = 25
MOVED = (Transfer.Phase.SINGLE, Transfer.Phase.POST)
HOLDS = 10
IN, OUT = "in", "out"
CORRECTION, BONUS, KEPT = "cor_", ":bonus", ":kept"
"""How the references of corrections begin, and how the keys of transfers end by which a refund takes out all bonus and puts
back that of other purchases; see `billing.corrections`."""
SKEW = timedelta(hours=1)
"""How far the moment in an id may be from the database's clock: it is made before its account is locked, on another
machine. Periods are cut by the database's clock, and found by ids."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which entries: of one unit or "" for both, of one kind, `IN` or `OUT`, from a day to another one, both included.

    Days are days of `zone`, the reader's.
    """

    zone: tzinfo
    unit: str = ""
    kind: str = ""
    direction: str = ""
    since: date | None = None
    until: date | None = None

    @classmethod
    def read(cls, said: Mapping[str, str], zone: tzinfo) -> "Filter":
        """The filter that an address names. What makes no sense there filters nothing."""
        unit, kind = said.get("unit", "").upper(), said.get("kind", "")
        direction = said.get("direction", "")
        return cls(
            zone=zone,
            unit=unit if unit in Unit.values else "",
            kind=kind if kind in Transfer.Kind.values else "",
            direction=direction if direction in (IN, OUT) else "",
            since=day_in(said.get("from", "")),
            until=day_in(said.get("to", "")),
        )

    @property
    def query(self) -> str:
        """What of an address says the same."""
        said = {
            "unit": self.unit.lower(),
            "kind": self.kind,
            "direction": self.direction,
            "from": self.since.isoformat() if self.since else "",
            "to": self.until.isoformat() if self.until else "",
        }
        return urlencode({name: value for name, value in said.items() if value})

    @property
    def is_narrow(self) -> bool:
        return replace(self, unit="") != Filter(self.zone)


class Subject(NamedTuple):
    """What a reply belongs to, for people: its chat, and the model that wrote it."""

    session_id: str
    title: str
    model: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One line: `amount` is signed, in `unit`; `reference` is what it was for, such as a reply's id.

    A purchase is one line in each unit, bonus included, and so is its refund. `subject` is None where the chat was deleted. `receipt_id` is the
    purchase that a refund gave back, "" for everything else.
    """

    id: str
    at: datetime
    unit: str
    kind: str
    amount: int
    balance_after: int
    reference: str
    reason: str
    purchase: Purchase | None = None
    subject: Subject | None = None
    receipt_id: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """A page of entries, newest first; `older` is the cursor of the page after it, None on the last."""

    entries: list[Entry]
    older: str | None


class Refunded(NamedTuple):
    """What a refund gave back: a purchase, for tokens with their bonus; `kept` is the bonus of other purchases, which the
    books take out and put back."""

    purchase_id: str
    tokens: int
    kept: int


class Hold(NamedTuple):
    """Tokens that are set aside for a reply in progress."""

    at: datetime
    amount: int
    reference: str


def history(user: User, *, wanted: Filter, cursor: str | None = None, limit: int = PAGE) -> History:
    """The changes of the user's balances, from `cursor` on, or all where it is none. As many queries for a long history
    as for a short one."""
    accounts = _accounts_of(user, wanted)
    rows, older = _page(accounts, wanted, cursor, limit, is_folded=True)
    bought = _purchases_of(user, rows)
    refunded = _refunded_of(user, rows)
    subjects = _subjects_of(user, rows)
    entries = [
        _folded(
            _entry(row, accounts, subjects.get(row.reference)),
            bought.get(row.reference),
            refunded.get(row.reference),
        )
        for row in rows
    ]
    return History(entries, older)


def transactions(user: User, *, wanted: Filter, cursor: str | None = None, limit: int = PAGE) -> History:
    """The same, transfer by transfer as the books have them: a bonus is an entry of its own."""
    accounts = _accounts_of(user, wanted)
    rows, older = _page(accounts, wanted, cursor, limit, is_folded=False)
    return History([_entry(row, accounts, None) for row in rows], older)


def open_holds(user: User) -> list[Hold]:
    """What is held at the moment, newest first."""
    account = Account.objects.get(user=user, name=Account.TOKENS)
    if not account.held:
        return []
    pending = Transfer.objects.filter(debit=account, phase=Transfer.Phase.PENDING, resolution=None)
    return [Hold(row.created_at, row.amount, row.reference) for row in pending.order_by("-pk")[:HOLDS]]


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


def between(rows: QuerySet[Transfer], start: datetime | None, end: datetime | None) -> QuerySet[Transfer]:
    """Those of `rows` that were written from `start` on and before `end`, by the database's clock."""
    if start is not None:
        rows = rows.filter(created_at__gte=start, pk__gte=ids.first("trf", start - SKEW))
    if end is not None:
        rows = rows.filter(created_at__lt=end, pk__lt=ids.first("trf", end + SKEW))
    return rows


def moved() -> QuerySet[Transfer]:
    """Transfers that moved something, as `written` has them."""
    return written().filter(phase__in=MOVED)


def written() -> QuerySet[Transfer]:
    """Transfers, each with `written`, by which even the old ones without a `place` stand in the order they were made.

    Ids are made before the account is locked, so neighbours may stand the other way round. PostgreSQL's clock is read
    under the lock, to the microsecond. SQLite's counts milliseconds, but its one writer numbers the rows.
    """
    order = F("created_at") if connection.vendor == "postgresql" else RawSQL("billing_transfer.rowid", ())
    return Transfer.objects.annotate(written=order)


def is_bonus_of_refund(row: Transfer) -> bool:
    """Whether a transfer is only a part of what a refund took back."""
    return row.reference.startswith(CORRECTION) and row.key.endswith((BONUS, KEPT))


def midnight(day: date, zone: tzinfo) -> datetime:
    return datetime.combine(day, time.min, tzinfo=zone)


def day_in(text: str) -> date | None:
    """The day that a text names; None for none, and for years that no id and no time zone can name."""
    try:
        day = parse_date(text)
    except ValueError:
        return None
    return day if day is not None and 2000 <= day.year < 2200 else None


def _accounts_of(user: User, wanted: Filter) -> dict[int, Account]:
    found = Account.objects.filter(user=user, **({"unit": wanted.unit} if wanted.unit else {}))
    return {account.pk: account for account in found}


def _page(
    accounts: dict[int, Account], wanted: Filter, cursor: str | None, limit: int, *, is_folded: bool
) -> tuple[list[Transfer], str | None]:
    shown = between(
        moved(),
        midnight(wanted.since, wanted.zone) if wanted.since else None,
        midnight(wanted.until + timedelta(days=1), wanted.zone) if wanted.until else None,
    )
    if wanted.kind:
        shown = shown.filter(kind=wanted.kind)
    elif is_folded:
        shown = shown.exclude(kind=Transfer.Kind.BONUS, reference__startswith=f"{purchases.PREFIX}_")
    if is_folded:
        bonus = Q(key__endswith=BONUS) | Q(key__endswith=KEPT)
        shown = shown.exclude(bonus, reference__startswith=CORRECTION)
    if cursor and ids.is_one(cursor, "trf"):
        shown = shown.filter(pk__lt=cursor)
    # Each side has an index that ends at the page's size; one query for both would read the whole history.
    sides = [
        *(shown.filter(credit=account) for account in accounts if wanted.direction != OUT),
        *(shown.filter(debit=account) for account in accounts if wanted.direction != IN),
    ]
    found = sorted(
        (row for side in sides for row in _newest(side, limit)), key=lambda row: row.pk, reverse=True
    )
    rows = found[:limit]
    return (
        sorted(rows, key=attrgetter("written"), reverse=True),
        rows[-1].pk if len(found) > limit else None,
    )


def _newest(rows: QuerySet[Transfer], limit: int) -> Iterator[Transfer]:
    yield from rows.order_by("-pk")[: limit + 1]


def _purchases_of(user: User, rows: list[Transfer]) -> dict[str, Purchase]:
    return Purchase.objects.filter(user=user).in_bulk(
        [row.reference for row in rows if row.kind == Transfer.Kind.PURCHASE]
    )


def _refunded_of(user: User, rows: list[Transfer]) -> dict[str, Refunded]:
    """What refunds of purchases gave back, by what their transfers refer to."""
    references = [row.reference for row in rows if row.kind == Transfer.Kind.REFUND]
    if not references:
        return {}
    found = Correction.objects.filter(user=user, pk__in=references, purchase__isnull=False)
    kept = dict(
        Transfer.objects.filter(key__in=[f"{reference}{KEPT}" for reference in references]).values_list(
            "reference", "amount"
        )
    )
    return {
        reference: Refunded(purchase_id, tokens, kept.get(reference, 0))
        for reference, purchase_id, tokens in found.values_list("pk", "purchase", "tokens_taken")
    }


def _subjects_of(user: User, rows: list[Transfer]) -> dict[str, Subject]:
    replies = [row.reference for row in rows if row.kind == Transfer.Kind.REPLY]
    subjects: dict[str, Subject] = import_string(settings.REPLY_SUBJECTS)(user, replies) if replies else {}
    return subjects


def _entry(row: Transfer, accounts: dict[int, Account], subject: Subject | None) -> Entry:
    is_in = row.credit_id in accounts
    return Entry(
        id=row.pk,
        at=row.created_at,
        unit=row.unit,
        kind=row.kind,
        amount=row.amount if is_in else -row.amount,
        balance_after=row.balance_after or 0,
        reference=row.reference,
        reason=row.reason,
        subject=subject,
    )


def _folded(entry: Entry, purchase: Purchase | None, refunded: Refunded | None) -> Entry:
    if refunded is not None:
        entry = replace(entry, receipt_id=refunded.purchase_id)
        if entry.unit == Unit.IDR:
            return entry
        return replace(entry, amount=-refunded.tokens, balance_after=entry.balance_after + refunded.kept)
    if purchase is None:
        return entry
    if entry.unit == Unit.IDR:
        return replace(entry, purchase=purchase)
    return replace(
        entry, purchase=purchase, amount=purchase.total_tokens, balance_after=purchase.tokens_after
    )
