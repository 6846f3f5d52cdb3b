"""Adjustments and refunds by staff: the only way in which a person changes what another one has. A door of this app.

An adjustment adds to or takes from one account. A refund takes back what is left of a purchase and gives the wallet
what that was worth (`billing.lots`): the tokens that were paid for and not used, and the bonus that came with them and
was not used, which is worth nothing. A return gives tokens back to many people at once: what it is for is the matter of
whoever proposes it, and so are the transfers, once it is applied.

Within the limits a correction is applied at once. Above them it is a proposal, and somebody else among the staff applies
or declines it; that is one compare-and-set, so it happens once whoever presses at the same moment. The limit counts what
one author has applied alone within a day, so that it is not walked around in small steps. Everything is kept with its
reason, which its owner reads in his history.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import structlog
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Abs
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Conflict, IdempotencyMismatch, InvalidRequest, NotFound
from billing import ledger, monthly, notices
from billing.models import Account, Correction, Purchase, Transfer, Unit

log = structlog.get_logger(__name__)

PREFIX = "cor"
KEY_LENGTH = 128
RETRIES = 4
MOST = 10**12
WINDOW = timedelta(days=1)
State, Kind = Correction.State, Correction.Kind
HOUSE_OF = {Account.TOKENS: "corrections_token", Account.WALLET: "corrections_idr"}

T = TypeVar("T")


class NothingLeft(Conflict):
    text = _("Nothing of this purchase is left to refund.")


class RefundedBefore(Conflict):
    text = _("This purchase was refunded, or its refund waits for a second person.")


class RepliesInProgress(Conflict):
    text = _("Tokens are held for a reply in progress. Try again when it is done.")


class DecidedBefore(Conflict):
    text = _("Somebody has decided about this correction before.")


class OwnProposal(Conflict):
    text = _("Somebody else has to approve what you have proposed.")


class Refund(NamedTuple):
    """What a refund would do: rupiah to the wallet, and the tokens that are taken back, of which some are bonus."""

    amount_idr: int
    tokens: int
    bonus: int


def adjust(*, author: User, user: User, account: str, amount: int, reason: str, key: str) -> Correction:
    """Add `amount` (or take, where it is negative) to an account, or propose it where it is above the limit.

    The same author and key give the first correction again. Raises `InvalidRequest`, `IdempotencyMismatch`, and what
    `ledger.spend` raises.
    """
    if account not in HOUSE_OF or not 0 < abs(amount) <= MOST:
        raise InvalidRequest(_("An adjustment changes an account by a whole number that is not 0."))
    wanted = Correction(
        kind=Kind.ADJUSTMENT, user=user, account=account, amount=amount, reason=reason, author=author, key=key
    )
    return _made(wanted)


def refund(*, author: User, purchase: Purchase, reason: str, key: str) -> Correction:
    """Refund what is left of a purchase, or propose it where it is above the limit.

    Raises `NothingLeft`, `RefundedBefore`, `RepliesInProgress`, `InvalidRequest`, `IdempotencyMismatch`.
    """
    wanted = Correction(
        kind=Kind.REFUND,
        user=purchase.user,
        account=Account.WALLET,
        purchase=purchase,
        reason=reason,
        author=author,
        key=key,
    )
    return _made(wanted)


def return_tokens(*, author: User, amount: int, reason: str, key: str) -> Correction:
    """Let `amount` tokens in all go back to many people, or propose it where it is above the limit. Moves nothing: once it
    is applied, its caller does.

    Raises `InvalidRequest`, `IdempotencyMismatch`.
    """
    if not 0 < amount <= MOST:
        raise InvalidRequest(_("There is nothing to give back."))
    wanted = Correction(
        kind=Kind.RETURN, account=Account.TOKENS, amount=amount, reason=reason, author=author, key=key
    )
    return _made(wanted)


def approve(*, correction_id: str, by: User) -> Correction:
    """Apply a proposal. Of a refund, what is left of the purchase by now, at most what was proposed.

    Raises `OwnProposal`, `DecidedBefore`, `NotFound`, and what applying raises; then it is still a proposal.
    """

    def decide() -> Correction:
        found = _decided(correction_id, by, State.APPLIED)
        _apply(found)
        return found

    return _again(decide)


def decline(*, correction_id: str, by: User) -> Correction:
    """End a proposal without applying it; its author may, too. Raises `DecidedBefore`, `NotFound`."""
    with transaction.atomic():
        return _decided(correction_id, by, State.DECLINED)


def refundable(purchase: Purchase) -> Refund:
    """What a refund would do at the moment. Raises as `refund` does."""
    account = Account.objects.get(user=purchase.user, name=Account.TOKENS)
    return _refundable(purchase, account)


def of(purchase: Purchase) -> QuerySet[Correction]:
    """The refund of a purchase, applied or proposed."""
    return Correction.objects.filter(
        purchase=purchase, kind=Kind.REFUND, state__in=(State.PROPOSED, State.APPLIED)
    )


def applied_refund(purchase: Purchase) -> Correction | None:
    return of(purchase).filter(state=State.APPLIED).first()


def transfers_of(correction: Correction) -> list[Transfer]:
    """What a refund has moved, in the order in which it was written."""
    keys = [f"{correction.pk}:{part}" for part in ("bonus", "tokens", "kept", "wallet")]
    return list(Transfer.objects.filter(key__in=keys).order_by("place", "pk"))


def get(correction_id: str) -> Correction:
    found = (
        Correction.objects.filter(pk=correction_id).select_related("user", "author", "purchase").first()
        if ids.is_one(correction_id, PREFIX)
        else None
    )
    if found is None:
        raise NotFound
    return found


def _made(wanted: Correction) -> Correction:
    wanted.reason = wanted.reason.strip()
    if not 0 < len(wanted.key) <= KEY_LENGTH or "\x00" in wanted.key:
        raise InvalidRequest(_("A correction needs a key of 1 to 128 characters."))
    if not 0 < len(wanted.reason) <= 200 or "\x00" in wanted.reason:
        raise InvalidRequest(_("A correction needs a reason of at most 200 characters."))

    def make() -> Correction:
        return _first(wanted) or _make(wanted)

    return _again(make)


def _first(wanted: Correction) -> Correction | None:
    """The correction that this author's key has made before."""
    first = Correction.objects.filter(author=wanted.author, key=wanted.key).first()
    if first is None:
        return None
    said = (first.kind, first.user_id, first.account, first.purchase_id, first.reason)
    if said != (wanted.kind, wanted.user_id, wanted.account, wanted.purchase_id, wanted.reason) or (
        first.kind != Kind.REFUND and first.amount != wanted.amount
    ):
        raise IdempotencyMismatch
    return first


def _make(wanted: Correction) -> Correction:
    # One correction of an author after the other, or two at once would both be below the limit.
    User.objects.select_for_update(no_key=True).get(pk=wanted.author_id)
    made = Correction(
        id=ids.new(PREFIX),
        kind=wanted.kind,
        user=wanted.user,
        account=wanted.account,
        amount=wanted.amount,
        purchase=wanted.purchase,
        reason=wanted.reason,
        author=wanted.author,
        key=wanted.key,
    )
    if made.purchase is not None:
        left = _refundable(made.purchase, _locked(made.purchase.user))
        made.amount, made.tokens_taken, made.bonus_taken = left
    made.needs_second = _is_above_the_limit(made)
    made.state = State.PROPOSED if made.needs_second else State.APPLIED
    if not made.needs_second:
        made.decided_by, made.decided_at = made.author, timezone.now()
    made.save(force_insert=True)
    if not made.needs_second:
        _apply(made)
    log.info("a correction was made", correction=made.pk, state=made.state, author_id=made.author_id)
    return made


def _is_above_the_limit(made: Correction) -> bool:
    limit = settings.CORRECTION_LIMITS[made.account]
    alone = Correction.objects.filter(
        author=made.author,
        account=made.account,
        state=State.APPLIED,
        needs_second=False,
        created_at__gt=timezone.now() - WINDOW,
    ).aggregate(total=Sum(Abs("amount")))
    return abs(made.amount) + (alone["total"] or 0) > limit


def _decided(correction_id: str, by: User, state: str) -> Correction:
    found = get(correction_id)
    changed = Correction.objects.filter(pk=found.pk, state=State.PROPOSED)
    if state == State.APPLIED:
        if found.author_id == by.pk:
            raise OwnProposal
        changed = changed.exclude(author=by)
    if not changed.update(state=state, decided_by=by, decided_at=timezone.now()):
        raise DecidedBefore
    found.refresh_from_db()
    log.info("a correction was decided", correction=found.pk, state=state, by=by.pk)
    return found


def _apply(correction: Correction) -> None:
    """Move the money of a correction that has just become `APPLIED`, in the same transaction."""
    if correction.purchase is not None:
        _apply_refund(correction, correction.purchase)
    elif correction.user is not None:
        _apply_adjustment(correction, correction.user)


def _apply_adjustment(correction: Correction, user: User) -> None:
    what: dict[str, Any] = {
        "user": user,
        "account": correction.account,
        "amount": abs(correction.amount),
        "kind": Transfer.Kind.ADJUSTMENT,
        "reference": correction.pk,
        "key": f"{correction.pk}:{correction.account}",
        "author": correction.author,
        "reason": correction.reason,
    }
    house = HOUSE_OF[correction.account]
    if correction.amount > 0:
        ledger.receive(source=house, **what)
    else:
        ledger.spend(to=house, **what)
    notices.tell(
        user=user,
        kind=notices.Kind.ADJUSTMENT,
        key=correction.pk,
        amount=correction.amount,
        unit=ledger.UNIT_OF[correction.account],
        reference=correction.pk,
        detail=correction.reason,
    )


def _apply_refund(correction: Correction, purchase: Purchase) -> None:
    account = _locked(purchase.user)
    left = _left_of(purchase, account)
    if left.amount_idr > correction.amount:
        raise Conflict(
            _("More of this purchase is left than was proposed. Decline it, and propose it again.")
        )
    said: dict[str, Any] = {
        "user": purchase.user,
        "kind": Transfer.Kind.REFUND,
        "reference": correction.pk,
        "author": correction.author,
        "reason": correction.reason,
    }
    # Whatever leaves takes bonus first, so all bonus goes, and what came with other purchases comes back.
    bonus = account.bonus
    if bonus:
        ledger.spend(account=ledger.TOKENS, amount=bonus, to="bonus", key=f"{correction.pk}:bonus", **said)
    ledger.spend(
        account=ledger.TOKENS,
        amount=left.tokens - left.bonus,
        to="issued",
        key=f"{correction.pk}:tokens",
        **said,
    )
    if bonus > left.bonus:
        ledger.receive(
            account=ledger.TOKENS,
            amount=bonus - left.bonus,
            source="bonus",
            key=f"{correction.pk}:kept",
            **said | {"kind": Transfer.Kind.BONUS},
        )
    ledger.receive(
        account=ledger.WALLET,
        amount=left.amount_idr,
        source="sales",
        key=f"{correction.pk}:wallet",
        **said,
    )
    correction.amount, correction.tokens_taken, correction.bonus_taken = left
    correction.save(update_fields=["amount", "tokens_taken", "bonus_taken"])
    notices.tell(
        user=purchase.user,
        kind=notices.Kind.REFUND,
        key=correction.pk,
        amount=left.amount_idr,
        unit=Unit.IDR,
        reference=purchase.pk,
        detail=correction.reason,
    )


def _refundable(purchase: Purchase, account: Account) -> Refund:
    if of(purchase).exists():
        raise RefundedBefore
    return _left_of(purchase, account)


def _locked(user: User) -> Account:
    """The user's tokens, which nobody else moves until this transaction ends. SQLite has one writer anyway."""
    return Account.objects.select_for_update(no_key=True).get(user=user, name=Account.TOKENS)


def _left_of(purchase: Purchase, account: Account) -> Refund:
    """What of a purchase was not used, by an account that was read just now."""
    if account.frozen_at:
        raise ledger.Frozen
    if account.held:
        raise RepliesInProgress
    lot = monthly.pool_now(account).lot_of(purchase.pk)
    if lot is None or not lot.left_idr:
        raise NothingLeft
    bonus = min(purchase.bonus_tokens, max(0, account.bonus - _bonus_since(purchase)))
    return Refund(lot.left_idr, lot.left + bonus, bonus)


def _bonus_since(purchase: Purchase) -> int:
    """Bonus that came with purchases after this one and is not refunded: the oldest bonus leaves first, too."""
    later = Purchase.objects.filter(
        Q(created_at__gt=purchase.created_at) | Q(created_at=purchase.created_at, pk__gt=purchase.pk),
        user=purchase.user,
    )
    refunded = Correction.objects.filter(kind=Kind.REFUND, state=State.APPLIED, user=purchase.user)
    kept = later.exclude(pk__in=refunded.values("purchase"))
    return kept.aggregate(total=Sum("bonus_tokens"))["total"] or 0


def _again(act: Callable[[], T]) -> T:
    """Run a transaction; once more where the same was done a moment earlier elsewhere, to find the first answer (R50)."""
    for last in (*[False] * RETRIES, True):
        try:
            with transaction.atomic():
                return act()
        except ledger.Raced:
            if last:
                raise
        except IntegrityError as error:
            if "correction_refunds_once" in str(error) or "billing_correction.purchase_id" in str(error):
                raise RefundedBefore from error
            if last:
                raise
    raise AssertionError("unreachable")
