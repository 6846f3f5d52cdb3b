"""The ledger: the only code that moves tokens and rupiah. A door of this app.

Every move is a `Transfer` between two accounts of one unit. A hold is a pending transfer; it is posted for at most its
amount or voided, exactly once. A user's account changes by one conditional UPDATE, which is the only lock there is and
works alike on PostgreSQL and SQLite (R49); on PostgreSQL it travels in the same statement as the new row, so that a
move needs no transaction of its own.

Bonus tokens are a part of the balance, moved in the same UPDATE: what comes as `BONUS` adds to both, and whatever leaves
takes bonus first. Each transfer keeps what was left of them, and its place among those of its account, so that the
audit can walk through them again in the order in which they were made, whatever clocks did.

Each move carries a key. The same key with the same inputs gives the first answer again; with other inputs it is an
error. Two moves with one key at the very same moment end in `Raced`: the caller runs his whole transaction again, and
then finds the first answer (R50). Callers inside a transaction must let `Raced` roll it back.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db import IntegrityError, connection, transaction
from django.db.models.functions import Now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop

from aleph import ids
from aleph.accounts.models import User
from aleph.prepared import Given, Rows
from aleph.problems import IdempotencyMismatch, NotFound, Problem
from billing.models import Account, Unit
from billing.models import Transfer as Transfer

Kind = Transfer.Kind
TOKENS, WALLET = Account.TOKENS, Account.WALLET

OF_USER = Rows(lambda: Account.objects.filter(user=Given("user")))
UNIT_OF = {TOKENS: Unit.TOKEN, WALLET: Unit.IDR}
HOUSE = {
    "bank": Unit.IDR,  # where top-ups come from
    "sales": Unit.IDR,  # what packages were sold for
    "receivable": Unit.IDR,  # what people owe after a payment that was spent went back to the payer
    "corrections_idr": Unit.IDR,
    "issued": Unit.TOKEN,  # tokens sold
    "bonus": Unit.TOKEN,  # tokens given away with a purchase
    "consumed": Unit.TOKEN,  # tokens that replies have cost
    "corrections_token": Unit.TOKEN,
}
"""The house's accounts and their units; migrations open them."""


class Insufficient(Problem):
    """The account cannot cover the amount. `data` has both figures."""

    code = "INSUFFICIENT_TOKENS"
    status = 402


class InsufficientWallet(Insufficient):
    code = "INSUFFICIENT_WALLET"


class Frozen(Problem):
    code = "ACCOUNT_FROZEN"
    status = 423
    text = _("This account is frozen while we check it. Please write to us; nothing is lost.")


class AlreadyResolved(Problem):
    """This hold was posted, voided or expired before."""

    code = "CONFLICT"
    status = 409


class Raced(Exception):
    """The same key was used at the same moment; run the transaction again to read the first answer."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A transfer as it stands in the books; `amount` in its unit; `balance`, `held` and what of the balance is `bonus`
    of the user's account after it.

    `is_low`: so few tokens are left that a refill is due.
    """

    id: str
    amount: int
    balance: int
    held: int
    value_idr_per_1k: int | None = None
    bonus: int = 0
    refill_below: int | None = None

    @property
    def is_low(self) -> bool:
        return self.refill_below is not None and self.balance < self.refill_below


@dataclass(frozen=True, slots=True)
class Balance:
    """What a user has: tokens and wallet rupiah, all whole numbers. `bonus` and `held` are parts of the tokens."""

    tokens: int
    held: int
    wallet_idr: int
    value_idr_per_1k: int | None
    frozen: bool
    bonus: int = 0

    @property
    def available(self) -> int:
        return self.tokens - self.held


def open_accounts(user: User) -> None:
    """Open the two accounts of a user, in the transaction that creates him (R18)."""
    Account.objects.bulk_create(Account(user=user, name=name, unit=unit) for name, unit in UNIT_OF.items())


def balance_of(user: User) -> Balance:
    accounts = {account.name: account for account in OF_USER.all(user=user.pk)}
    tokens, wallet = accounts[TOKENS], accounts[WALLET]
    return Balance(
        tokens=tokens.balance,
        held=tokens.held,
        wallet_idr=wallet.balance,
        value_idr_per_1k=tokens.value_idr_per_1k,
        frozen=bool(tokens.frozen_at or wallet.frozen_at),
        bonus=tokens.bonus,
    )


def hold(
    *,
    user: User,
    amount: int,
    minimum: int | None = None,
    to: str = "consumed",
    kind: str = Kind.REPLY,
    reference: str,
    key: str,
    expires_at: datetime | None = None,
) -> Moved:
    """Reserve `amount` tokens of `user`; if he has less, all he has, down to `minimum` (default: `amount`).

    Raises `Insufficient`, `Frozen`, `IdempotencyMismatch`, `Raced`.
    """
    minimum = amount if minimum is None else minimum
    _positive(amount, minimum)
    inputs = _hash(user.pk, amount, minimum, to, kind, reference)
    wanted = amount
    while True:
        moved = _debit_user(
            user,
            TOKENS,
            wanted,
            "held = held + %(amount)s",
            phase=Transfer.Phase.PENDING,
            kind=kind,
            credit=house(to),
            reference=reference,
            key=key,
            input_hash=inputs,
            expires_at=expires_at,
        )
        if moved is not None:
            return moved
        if (first := _answered(key, inputs)) is not None:
            return first
        available = _available_or_raise(user, TOKENS)
        if available < minimum:
            raise insufficient_tokens(available, minimum)
        wanted = min(amount, available)


def post(*, hold_id: str, amount: int, key: str) -> Moved:
    """Take `amount` of a hold and give the rest back. Raises `AlreadyResolved`, `NotFound`, `ValueError`, `Raced`."""
    _positive(amount)
    return _resolve(hold_id, amount, Transfer.Phase.POST, key, reason="")


def void(*, hold_id: str, key: str, reason: str) -> Moved:
    """Give all of a hold back. Raises `AlreadyResolved`, `NotFound`, `Raced`."""
    return _resolve(hold_id, None, Transfer.Phase.VOID, key, reason=reason)


def expire_due() -> int:
    """Give back the holds whose time is over; the number of them. Harmless when run twice."""
    due = Transfer.objects.filter(
        phase=Transfer.Phase.PENDING, expires_at__lt=Now(), resolution__isnull=True
    ).values_list("pk", flat=True)[:500]
    done = 0
    for hold_id in due:
        try:
            with transaction.atomic():
                _resolve(
                    hold_id,
                    None,
                    Transfer.Phase.EXPIRE,
                    f"expire:{hold_id}",
                    reason=gettext_noop("time was over"),
                )
            done += 1
        except (AlreadyResolved, Raced):
            continue
    return done


def receive(
    *,
    user: User,
    account: str,
    amount: int,
    source: str,
    kind: str,
    reference: str,
    key: str,
    author: User | None = None,
    reason: str = "",
    value_idr_per_1k: int | None = None,
) -> Moved:
    """Move `amount` from the house's account `source` to the user's `account` (`TOKENS` or `WALLET`)."""
    _positive(amount)
    inputs = _hash(user.pk, account, amount, source, kind, reference)
    setting = "balance = balance + %(amount)s"
    if account == TOKENS and kind == Kind.BONUS:
        setting += ", bonus = bonus + %(amount)s"
    if value_idr_per_1k is not None:
        setting += ", value_idr_per_1k = %(value)s"
    moved = _move(
        setting,
        "user_id = %(user)s AND name = %(account)s",
        {"user": user.pk, "account": account, "amount": amount, "value": value_idr_per_1k},
        user_side="credit_id",
        house_side=("debit_id", house(source)),
        phase=Transfer.Phase.SINGLE,
        kind=kind,
        unit=UNIT_OF[account],
        reference=reference,
        key=key,
        input_hash=inputs,
        author=author,
        reason=reason,
    )
    if moved is None and (moved := _answered(key, inputs)) is None:
        raise NotFound
    return moved


def spend(
    *,
    user: User,
    account: str,
    amount: int,
    to: str,
    kind: str,
    reference: str,
    key: str,
    author: User | None = None,
    reason: str = "",
) -> Moved:
    """Move `amount` from the user's `account` to the house's account `to`. Raises as `hold` does."""
    _positive(amount)
    inputs = _hash(user.pk, account, amount, to, kind, reference)
    moved = _debit_user(
        user,
        account,
        amount,
        f"balance = balance - %(taken)s, {BURN}",
        phase=Transfer.Phase.SINGLE,
        kind=kind,
        credit=house(to),
        reference=reference,
        key=key,
        input_hash=inputs,
        author=author,
        reason=reason,
    )
    if moved is None and (moved := _answered(key, inputs)) is None:
        available = _available_or_raise(user, account)
        raise (
            insufficient_tokens(available, amount)
            if account == TOKENS
            else insufficient_wallet(available, amount)
        )
    return moved


def book(
    *, debit: str, credit: str, amount: int, kind: str, reference: str, key: str, reason: str = ""
) -> None:
    """Move `amount` between two accounts of the house, given by name. Raises `IdempotencyMismatch`, `Raced`."""
    _positive(amount)
    inputs = _hash(debit, credit, amount, kind, reference)
    first = Transfer.objects.filter(key=key).first()
    if first is not None:
        if first.input_hash != inputs:
            raise IdempotencyMismatch
        return
    try:
        Transfer.objects.create(
            id=ids.new("trf"),
            phase=Transfer.Phase.SINGLE,
            kind=kind,
            unit=HOUSE[debit],
            debit_id=house(debit),
            credit_id=house(credit),
            amount=amount,
            reference=reference,
            key=key,
            input_hash=inputs,
            reason=reason,
        )
    except IntegrityError as error:
        if _is_race(error):
            raise Raced from error
        raise


def refill_below(*, user: User, tokens: int | None) -> None:
    """From now on say of each move that leaves fewer than `tokens` of the user that it is low; None for never."""
    Account.objects.filter(user=user, name=TOKENS).update(refill_below=tokens)


def resolution_of(hold_id: str) -> Transfer | None:
    """The transfer that posted, voided or expired a hold; None while it is open, and for no hold."""
    return Transfer.objects.filter(pending=hold_id).first() if hold_id else None


def insufficient_tokens(available: int, needed: int) -> Insufficient:
    return Insufficient(
        _("Not enough tokens. Balance: %(balance)d, needed: ~%(needed)d")
        % {"balance": available, "needed": needed},
        data={"currentBalance": available, "estimatedCost": needed},
    )


def insufficient_wallet(available_idr: int, needed_idr: int) -> InsufficientWallet:
    return InsufficientWallet(
        _("Not enough money in the wallet. It holds Rp %(balance)s, and Rp %(needed)s are needed.")
        % {"balance": f"{available_idr:,}".replace(",", "."), "needed": f"{needed_idr:,}".replace(",", ".")},
        data={"walletBalance": available_idr, "price": needed_idr},
    )


@lru_cache(maxsize=len(HOUSE))
def house(name: str) -> int:
    """The id of a house account. Migrations open them once, so the ids never change."""
    return Account.objects.values_list("pk", flat=True).get(user=None, name=name)


# How a move is written. `_move` is the one place that changes an account.

COLUMNS = (
    "id, phase, kind, unit, debit_id, credit_id, amount, pending_id, reference, key, input_hash, author_id, reason,"
    " balance_after, bonus_after, place, expires_at, created_at"
)
RETURNING = "id, balance, held, value_idr_per_1k, bonus, refill_below, moves"
MOVED = {"id": 0, "balance": 1, "bonus": 4, "moves": 6}
"""Where what a transfer keeps of its account stands in `RETURNING`."""
BURN = "bonus = CASE WHEN bonus > %(taken)s THEN bonus - %(taken)s ELSE 0 END"


def _debit_user(
    user: User, account: str, amount: int, setting: str, *, credit: int, **row: Any
) -> Moved | None:
    return _move(
        setting,
        "user_id = %(user)s AND name = %(account)s AND frozen_at IS NULL AND balance - held >= %(amount)s",
        {"user": user.pk, "account": account, "amount": amount, "taken": amount},
        user_side="debit_id",
        house_side=("credit_id", credit),
        unit=UNIT_OF[account],
        **row,
    )


def _move(
    setting: str,
    where: str,
    params: dict[str, Any],
    *,
    user_side: str,
    house_side: tuple[str, int],
    phase: str,
    kind: str,
    unit: str,
    reference: str,
    key: str,
    input_hash: str,
    author: User | None = None,
    reason: str = "",
    expires_at: datetime | None = None,
) -> Moved | None:
    """Change one user account by `setting` where `where` holds, and write the transfer. None if nothing matched."""
    update = (
        f"UPDATE billing_account SET {setting}, moves = moves + 1 WHERE {where}"
        f" AND NOT EXISTS (SELECT 1 FROM billing_transfer WHERE key = %(key)s) RETURNING {RETURNING}"
    )
    values = {user_side: "{moved.id}", house_side[0]: "%(house)s"}
    params |= {
        "id": ids.new("trf"),
        "phase": phase,
        "kind": kind,
        "unit": unit,
        "house": house_side[1],
        "reference": reference,
        "key": key,
        "input_hash": input_hash,
        "author": author.pk if author else None,
        "reason": reason,
        "expires_at": connection.ops.adapt_datetimefield_value(expires_at),
    }
    insert = (
        "%(id)s, %(phase)s, %(kind)s, %(unit)s, "
        f"{values['debit_id']}, {values['credit_id']}, %(amount)s, {_null('varchar')}, %(reference)s, %(key)s,"
        f" %(input_hash)s, {_cast('author', 'bigint')}, %(reason)s, {{moved.balance}}, {{moved.bonus}}, {{moved.moves}},"
        f" {_cast('expires_at', 'timestamptz')}, {_now()}"
    )
    moved = _run(update, insert, "", params)
    if moved is None:
        return None
    return Moved(params["id"], params["amount"], *moved[1:-1])


def _resolve(hold_id: str, amount: int | None, phase: str, key: str, *, reason: str) -> Moved:
    inputs = _hash(hold_id, amount, phase)
    update = (
        f"UPDATE billing_account SET held = held - p.amount, balance = balance - %(taken)s, {BURN}, moves = moves + 1"
        " FROM billing_transfer p"
        " WHERE p.id = %(hold)s AND p.phase = 'pending' AND p.amount >= %(taken)s AND billing_account.id = p.debit_id"
        # PostgreSQL looks again at the newest account, but not at the subquery: who comes second finds less held here.
        " AND held >= p.amount"
        " AND NOT EXISTS (SELECT 1 FROM billing_transfer r WHERE r.pending_id = p.id)"
        " AND NOT EXISTS (SELECT 1 FROM billing_transfer k WHERE k.key = %(key)s)"
        f" RETURNING {', '.join(f'billing_account.{column}' for column in RETURNING.split(', '))}"
    )
    insert = (
        "%(id)s, %(phase)s, p.kind, p.unit, p.debit_id, p.credit_id, COALESCE(%(amount)s, p.amount), p.id,"
        " p.reference, %(key)s, %(input_hash)s, p.author_id, %(reason)s, {moved.balance}, {moved.bonus}, {moved.moves},"
        f" {_null('timestamptz')}, {_now()}"
    ).replace("%(amount)s", _cast("amount", "bigint"))
    params: dict[str, Any] = {
        "id": ids.new("trf"),
        "hold": hold_id,
        "taken": amount or 0,
        "amount": amount,
        "phase": phase,
        "key": key,
        "input_hash": inputs,
        "reason": reason,
    }
    moved = _run(update, insert, "billing_transfer p WHERE p.id = %(hold)s", params)
    if moved is not None:
        return Moved(params["id"], amount or 0, *moved[1:-1])
    if (first := _answered(key, inputs)) is not None:
        return first
    pending = Transfer.objects.filter(pk=hold_id, phase=Transfer.Phase.PENDING).first()
    if pending is None:
        raise NotFound
    if amount is not None and amount > pending.amount:
        raise ValueError(f"{amount} is more than the {pending.amount} that {hold_id} holds")
    if not Transfer.objects.filter(pending=pending).exists():
        raise RuntimeError(f"{hold_id} is open, yet its account holds less: see check_ledger")
    raise AlreadyResolved


def _run(update: str, insert: str, source: str, params: dict[str, Any]) -> Sequence[Any] | None:
    """Run the UPDATE and, if it matched, the INSERT. The account's row after it, or None."""
    try:
        if connection.vendor == "postgresql":
            return _in_one_statement(update, insert, source, params)
        return _in_two_statements(update, insert, source, params)
    except IntegrityError as error:
        if _is_race(error):
            raise Raced from error
        raise


def _in_one_statement(update: str, insert: str, source: str, params: dict[str, Any]) -> Sequence[Any] | None:
    values = insert
    for column in MOVED:
        values = values.replace(f"{{moved.{column}}}", f"moved.{column}")
    tables = f"moved, {source}" if source else "moved"
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH moved AS ({update}), written AS (INSERT INTO billing_transfer ({COLUMNS})"
            f" SELECT {values} FROM {tables}) SELECT {RETURNING} FROM moved",
            params,
        )
        return cursor.fetchone()


def _in_two_statements(update: str, insert: str, source: str, params: dict[str, Any]) -> Sequence[Any] | None:
    """SQLite knows no INSERT behind an UPDATE in one statement; in a transaction its one writer makes two as good."""
    with transaction.atomic(savepoint=False), connection.cursor() as cursor:
        cursor.execute(update, params)
        moved = cursor.fetchone()
        if moved is None:
            return None
        values = insert
        for column in MOVED:
            values = values.replace(f"{{moved.{column}}}", f"%(moved_{column})s")
        cursor.execute(
            f"INSERT INTO billing_transfer ({COLUMNS}) SELECT {values}"
            + (f" FROM {source}" if source else ""),
            params | {f"moved_{column}": moved[position] for column, position in MOVED.items()},
        )
        return moved


def _is_race(error: IntegrityError) -> bool:
    """Whether somebody else wrote the same key, or resolved the same hold, since this statement began.

    Only PostgreSQL can run into it; what its other constraints refuse is a fault.
    """
    return getattr(error.__cause__, "sqlstate", None) == "23505"


def _null(kind: str) -> str:
    return f"CAST(NULL AS {kind})" if connection.vendor == "postgresql" else "NULL"


def _cast(name: str, kind: str) -> str:
    return f"CAST(%({name})s AS {kind})" if connection.vendor == "postgresql" else f"%({name})s"


def _now() -> str:
    """The database's clock, in the form in which Django stores moments there."""
    return (
        "clock_timestamp()"
        if connection.vendor == "postgresql"
        else "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', 'now')"
    )


def _answered(key: str, inputs: str) -> Moved | None:
    """The first answer to this key, as the books have it."""
    first = Transfer.objects.filter(key=key).select_related("debit", "credit").first()
    if first is None:
        return None
    if first.input_hash != inputs:
        raise IdempotencyMismatch
    account = first.debit if first.debit.user_id else first.credit
    amount = 0 if first.phase in (Transfer.Phase.VOID, Transfer.Phase.EXPIRE) else first.amount
    return Moved(
        first.pk,
        amount,
        first.balance_after or 0,
        account.held,
        account.value_idr_per_1k,
        first.bonus_after or 0,
    )


def _available_or_raise(user: User, account: str) -> int:
    found = Account.objects.filter(user=user, name=account).first()
    if found is None:
        raise NotFound
    if found.frozen_at:
        raise Frozen
    return found.balance - found.held


def _positive(*amounts: int) -> None:
    for amount in amounts:
        if not isinstance(amount, int) or isinstance(amount, bool) or not 0 < amount < 2**53:
            raise ValueError(f"an amount is a positive whole number, not {amount!r}")


def _hash(*inputs: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, inputs)).encode()).hexdigest()
