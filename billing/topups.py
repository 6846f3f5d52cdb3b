"""Top-ups: money that comes into wallets through gateways. The one writer of a `TopUp`'s state, and of gateway events.

What decides is always what the gateway answers when it is asked. A notice, a reader who wants to know, and the clock
only say when to ask; the browser's way back says nothing. States move by compare-and-set together with the transfer, so
each payment is credited once, whatever repeats, comes late or out of order. A gateway is never called inside a
transaction.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache

import structlog
from celery import current_app
from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound, Problem
from billing import freezing, gateways, ledger, notices
from billing.gateways.base import (
    AlreadyThere,
    Created,
    Event,
    Gateway,
    GatewayError,
    Payment,
    Status,
    Unauthorized,
    Unclear,
)
from billing.models import GatewayEvent, Notice, Transfer, Unit
from billing.models import TopUp as TopUp

log = structlog.get_logger(__name__)
State = TopUp.State

PREFIX = "top"
PAGE = 25
KEY_LENGTH = 128
RETRIES = 4
PAYABLE = timedelta(hours=1)
CALL = timedelta(seconds=40)
"""Longer than a call to a gateway with the look-up behind it: after this whoever called is not there any more."""
LOOKED_FOR = timedelta(minutes=15)
"""How long a payment page is looked for whose address never came."""
FOLLOWED = timedelta(days=7)
GRACE = timedelta(minutes=10)
PAUSE = timedelta(seconds=5)
"""How soon a person may ask the gateway again, and how long the sweep leaves a notice to its bell."""

# How long to wait until a gateway is asked again without a notice, by the age of the top-up.
OPEN_PAUSES = (
    (timedelta(minutes=15), timedelta(minutes=1)),
    (timedelta(hours=2), timedelta(minutes=5)),
    (timedelta(days=1), timedelta(hours=1)),
    (FOLLOWED, timedelta(hours=12)),
)
UNPAID_PAUSES = ((timedelta(days=1), timedelta(hours=3)), (FOLLOWED, timedelta(days=1)))
PAID_LOOKS = (timedelta(days=1), timedelta(days=7), timedelta(days=30), timedelta(days=90))
"""When a payment is looked at again, for a refund of which no notice came."""
EVENT_PAUSES_S = (10, 30, 60, 300, 900, 3600)
MOST_TRIES = 40

# Of the few threads that keep house at most these wait for gateways; what finds none free is taken up by the next sweep.
_lines = threading.BoundedSemaphore(2)


class WrongAmount(InvalidRequest):
    """Below the least or above the most. `data` has both."""


class NoSuchMethod(InvalidRequest):
    text = _("This way to pay is not offered.")


class GatewayDown(Problem):
    """The payment page could not be opened, and nothing was charged."""

    code = "GATEWAY_UNAVAILABLE"
    status = 503


@dataclass(frozen=True, slots=True)
class Page:
    """Top-ups, newest first; `older` is the cursor of the page after it, None on the last."""

    topups: list[TopUp]
    older: str | None


@dataclass(slots=True)
class Looked:
    """What a round of asking has done: how many were asked, of these changed, and how many gateways did not answer."""

    asked: int = 0
    changed: int = 0
    failed: int = 0


@cache
def connected() -> gateways.Connected:
    """The gateways that the environment connects. Read once per process."""
    has_sandbox = settings.DEVELOPMENT and settings.SANDBOX_GATEWAY
    return gateways.configure(
        settings.GATEWAY_ENV,
        sandbox_key=salted_hmac("billing.gateways", "sandbox").hexdigest() if has_sandbox else "",
        sandbox_url=settings.SANDBOX_GATEWAY_URL,
    )


def methods() -> list[Gateway]:
    """The ways to pay, in the order in which they are offered."""
    return list(connected().offered.values())


# Starting


def start(*, user: User, amount_idr: int, gateway: str, key: str, return_to: str = "") -> TopUp:
    """Open a payment of `amount_idr` at a gateway. The same user and key give the first top-up again.

    `return_to` is a path of ours to go on from once it is paid. It comes back `pending` with a `pay_url`; or `created`
    where the gateway's answer got lost, which is looked for meanwhile. Raises `InvalidRequest`, `WrongAmount`,
    `NoSuchMethod`, `ledger.Frozen`, `IdempotencyMismatch`, `GatewayDown`.
    """
    topup = _opened(user, amount_idr, gateway, key, return_to)
    if topup.state != State.CREATED or not _claim_call(topup, first=True):
        return get(user, topup.pk)
    return _create(topup)


def _opened(user: User, amount_idr: int, gateway: str, key: str, return_to: str) -> TopUp:
    if not 0 < len(key) <= KEY_LENGTH or "\x00" in key:
        raise InvalidRequest(_("A top-up needs a key of 1 to 128 characters."))
    if not settings.TOPUP_MIN_IDR <= amount_idr <= settings.TOPUP_MAX_IDR:
        limits = {"minimum": settings.TOPUP_MIN_IDR, "maximum": settings.TOPUP_MAX_IDR}
        words = _("The amount must be between Rp %(least)s and Rp %(most)s.")
        shown = {
            "least": _grouped(settings.TOPUP_MIN_IDR),
            "most": _grouped(settings.TOPUP_MAX_IDR),
        }
        raise WrongAmount(words % shown, data=limits)
    if gateway not in connected().offered:
        raise NoSuchMethod
    if (first := _first(user, amount_idr, gateway, key)) is not None:
        return first
    if ledger.balance_of(user).frozen:
        raise ledger.Frozen
    now = timezone.now()
    try:
        with transaction.atomic():
            return TopUp.objects.create(
                id=ids.new(PREFIX),
                user=user,
                gateway=gateway,
                amount_idr=amount_idr,
                key=key,
                return_to=return_to,
                created_at=now,
                changed_at=now,
                expires_at=now + PAYABLE,
                ask_at=now + CALL,
            )
    except IntegrityError:
        # A double click: the other one was a moment earlier.
        if (first := _first(user, amount_idr, gateway, key)) is None:
            raise
        return first


def _first(user: User, amount_idr: int, gateway: str, key: str) -> TopUp | None:
    first = TopUp.objects.filter(user=user, key=key).first()
    if first is not None and (first.amount_idr, first.gateway) != (amount_idr, gateway):
        raise IdempotencyMismatch
    return first


def _claim_call(topup: TopUp, *, first: bool) -> bool:
    """Whether this caller may talk to the gateway about opening it; nobody else does so for the time of a `CALL`."""
    now = timezone.now()
    free = Q(calling_until=None) if first else Q(calling_until__lt=now)
    changed = (
        TopUp.objects.filter(free, pk=topup.pk, state=State.CREATED)
        # PostgreSQL compares again what has changed meanwhile, so that of two only one matches.
        .update(calling_until=now + CALL)
    )
    return bool(changed)


def _create(topup: TopUp) -> TopUp:
    gateway, payment = _gateway(topup), _payment(topup)
    try:
        try:
            created: Created | None = gateway.create(payment)
        except Unclear as error:
            # It may be there now: it is looked for, and never opened a second time.
            log.warning(
                "an answer of a gateway got lost",
                topup=topup.pk,
                gateway=topup.gateway,
                detail=error.detail,
            )
            created = gateway.find(payment)
    except Unclear as error:
        return _keep_looking(topup, error)
    except AlreadyThere as error:
        return _not_opened(topup, error)
    except GatewayError as error:
        _not_opened(topup, error)
        raise GatewayDown(
            _(
                "%(gateway)s does not answer at the moment. Nothing was charged. Please try again, or pay another way."
            )
            % {"gateway": gateway.label}
        ) from error
    return _found(topup, created)


def look_for(topup: TopUp) -> TopUp:
    """Look for the payment page of one that was `created` and never heard of again. Raises `GatewayError`."""
    if topup.state != State.CREATED or not _claim_call(topup, first=topup.calling_until is None):
        return topup
    try:
        created = _gateway(topup).find(_payment(topup))
    except Unclear as error:
        return _keep_looking(topup, error)
    except GatewayError:
        TopUp.objects.filter(pk=topup.pk).update(calling_until=timezone.now())
        raise
    return _found(topup, created)


def _found(topup: TopUp, created: Created | None) -> TopUp:
    if created is None:
        return _not_opened(topup, AlreadyThere("its page was opened, but the address got lost"))
    if not created.pay_url.startswith(("https://", "http://", "/")) or len(created.pay_url) > 2000:
        return _not_opened(topup, GatewayError("its page has no address that a browser may go to"))
    now = timezone.now()
    TopUp.objects.filter(pk=topup.pk, state=State.CREATED).update(
        state=State.PENDING,
        gateway_id=created.gateway_id,
        pay_url=created.pay_url,
        calling_until=None,
        changed_at=now,
        ask_at=now + OPEN_PAUSES[0][1],
    )
    return _fresh(topup)


def _keep_looking(topup: TopUp, error: GatewayError) -> TopUp:
    now = timezone.now()
    if now - topup.created_at > LOOKED_FOR:
        return _not_opened(topup, error)
    TopUp.objects.filter(pk=topup.pk, state=State.CREATED).update(
        calling_until=now, ask_at=now + timedelta(seconds=20), problem=error.detail[:200]
    )
    return _fresh(topup)


def _not_opened(topup: TopUp, error: GatewayError) -> TopUp:
    """It ends here; should it be paid all the same, it is credited all the same."""
    how = log.error if isinstance(error, Unauthorized) else log.warning
    how("a payment could not be opened", topup=topup.pk, gateway=topup.gateway, detail=error.detail)
    now = timezone.now()
    TopUp.objects.filter(pk=topup.pk, state=State.CREATED).update(
        state=State.FAILED,
        problem=error.detail[:200],
        calling_until=None,
        changed_at=now,
        ask_at=now + UNPAID_PAUSES[0][1],
    )
    return _fresh(topup)


# Reading


def get(user: User, topup_id: str) -> TopUp:
    """A top-up of `user`. Raises `NotFound`, also for those of others."""
    found = TopUp.objects.filter(user=user, pk=topup_id).first() if ids.is_one(topup_id, PREFIX) else None
    if found is None:
        raise NotFound
    return found


def recent(user: User, *, limit: int = PAGE, before: str | None = None) -> Page:
    rows = TopUp.objects.filter(user=user).order_by("-pk")
    if before and ids.is_one(before, PREFIX):
        rows = rows.filter(pk__lt=before)
    found = list(rows[: limit + 1])
    page = found[:limit]
    return Page(page, page[-1].pk if len(found) > limit else None)


# Notices


def note(*, gateway: str, event: Event) -> GatewayEvent:
    """Keep a notice whose signature was right, and ring for it. The same one again is only counted."""
    topup = _meant(gateway, event)
    now = timezone.now()
    try:
        with transaction.atomic():
            kept = GatewayEvent.objects.create(
                id=ids.new("gev"),
                gateway=gateway,
                key=event.key[:200],
                kind=event.kind[:80],
                reference=event.reference,
                topup=topup,
                body=event.body,
                received_at=now,
                due_at=now + PAUSE,
                handled_at=None if topup else now,
                outcome="" if topup else "unknown reference",
            )
    except IntegrityError:
        kept = GatewayEvent.objects.get(gateway=gateway, key=event.key[:200])
        GatewayEvent.objects.filter(pk=kept.pk).update(deliveries=F("deliveries") + 1)
    if topup is None:
        log.warning("a gateway spoke of something unknown", gateway=gateway, kind=event.kind, notice=kept.pk)
    elif event.gateway_id and not topup.gateway_id:
        # The answer to `create` got lost; asking by this id shows whether it is about our reference.
        TopUp.objects.filter(pk=topup.pk, gateway_id="").update(gateway_id=event.gateway_id)
    if kept.handled_at is None:
        _ring(kept)
    return kept


def _ring(event: GatewayEvent) -> None:
    """Have it looked at now. Losing this is harmless: the sweep takes it up."""
    try:
        current_app.send_task("billing.tasks.handle_event", args=[event.pk], queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the sweep takes it up", notice=event.pk, error=str(error))


def _meant(gateway: str, event: Event) -> TopUp | None:
    """What a notice is about: by our reference, or by the gateway's ids where it does not name it."""
    mine = TopUp.objects.filter(gateway=gateway)
    if event.reference:
        return mine.filter(pk=event.reference).first()
    if event.gateway_id and (found := mine.filter(gateway_id=event.gateway_id).first()):
        return found
    return mine.filter(payment_id=event.payment_id).first() if event.payment_id else None


def handle(event_id: str) -> None:
    """Ask the gateway because of a notice. Harmless when run twice; what cannot be asked is taken up by a later sweep."""
    event = GatewayEvent.objects.filter(pk=event_id, handled_at=None).select_related("topup").first()
    if event is None or event.topup is None:
        return
    with _line() as is_free:
        if is_free:
            _handle(event, event.topup)


def _handle(event: GatewayEvent, topup: TopUp) -> None:
    # All that has come so far about this payment is answered by one question.
    waiting = list(GatewayEvent.objects.filter(topup=topup, handled_at=None).values_list("pk", flat=True))
    pause_s = EVENT_PAUSES_S[min(event.tries, len(EVENT_PAUSES_S) - 1)]
    GatewayEvent.objects.filter(pk__in=waiting).update(
        tries=F("tries") + 1, due_at=timezone.now() + timedelta(seconds=pause_s)
    )
    try:
        outcome = ask(topup)
    except GatewayError as error:
        log.warning("a gateway does not answer", gateway=topup.gateway, topup=topup.pk, detail=error.detail)
        if event.tries < MOST_TRIES:
            return
        outcome = "given up; asked by the clock"
    GatewayEvent.objects.filter(pk__in=waiting, handled_at=None).update(
        handled_at=timezone.now(), outcome=outcome[:80]
    )


# Asking, and what the answer does


def ask(topup: TopUp) -> str:
    """Ask the gateway about a payment and do what follows; what that was, for the log. Raises `GatewayError`."""
    if topup.state == State.CREATED and not topup.gateway_id:
        topup = look_for(topup)
    status = _gateway(topup).fetch_status(_payment(topup))
    return apply(topup, status)


def ask_for(user: User, topup_id: str) -> TopUp:
    """Ask because its owner wants to know; not more often than every few seconds. Raises `NotFound`, `GatewayDown`."""
    topup = get(user, topup_id)
    now = timezone.now()
    rested = Q(asked_at=None) | Q(asked_at__lt=now - PAUSE)
    if TopUp.objects.filter(rested, pk=topup.pk).update(asked_at=now):
        try:
            ask(topup)
        except GatewayError as error:
            raise GatewayDown(
                _("%(gateway)s does not answer at the moment. We keep asking.") % {"gateway": topup.label}
            ) from error
    return _fresh(topup)


def apply(topup: TopUp, status: Status) -> str:
    """Bring a top-up to what its gateway says; what that was. Harmless when run twice, or twice at once."""
    for last in (*[False] * RETRIES, True):
        try:
            with transaction.atomic():
                return _apply(_fresh(topup), status)
        except ledger.Raced:
            if last:
                raise
    raise AssertionError("unreachable")


def _apply(topup: TopUp, status: Status) -> str:
    if status.state == "paid":
        return _apply_paid(topup, status)
    if status.doubt:
        _flag(topup, status.doubt)
    if status.state in ("expired", "failed"):
        return _close(topup, State.EXPIRED if status.state == "expired" else State.FAILED, status.said)
    if topup.state in TopUp.OPEN and _is_over(topup, status):
        return _close(topup, State.EXPIRED, status.said)
    return f"{status.state}: nothing to do"


def _is_over(topup: TopUp, status: Status) -> bool:
    """A gateway that knows nothing of it, or never closes it, does not keep it open for ever."""
    now = timezone.now()
    is_unknown = status.state == "missing" and topup.state == State.PENDING
    return (is_unknown and now > topup.expires_at + GRACE) or now > topup.created_at + FOLLOWED


def _apply_paid(topup: TopUp, status: Status) -> str:
    if difference := _difference(topup, status):
        _flag(topup, difference)
        return f"flagged: {difference}"
    if status.doubt:
        _flag(topup, status.doubt)
    outcome = "nothing new"
    if topup.state in TopUp.UNPAID and _credit(topup, status):
        outcome = "credited"
        topup = _fresh(topup)
    if status.refunded_idr > topup.refunded_idr and _give_back(topup, status.refunded_idr):
        outcome = "given back" if outcome == "nothing new" else "credited and given back"
    return outcome


def _difference(topup: TopUp, status: Status) -> str:
    """How what was paid is not what was asked for; "" where it is. Nothing that differs is credited."""
    merchant = _gateway(topup).merchant
    if status.reference != topup.pk:
        return f"another reference: {status.reference}"
    if status.currency != "IDR":
        return f"another currency: {status.currency or 'none'}"
    if status.amount_idr != topup.amount_idr:
        return f"another amount: {status.amount_idr}"
    # Not every gateway says who was paid; where it does, it must be who was configured.
    if merchant and status.merchant and status.merchant != merchant:
        return f"another merchant: {status.merchant}"
    return ""


def _credit(topup: TopUp, status: Status) -> bool:
    now = timezone.now()
    was_late = topup.state in (State.EXPIRED, State.FAILED)
    changed = TopUp.objects.filter(pk=topup.pk, state=topup.state).update(
        state=State.PAID,
        paid_at=now,
        changed_at=now,
        was_late=was_late,
        payment_id=status.payment_id or topup.payment_id,
        calling_until=None,
        ask_at=_next_look(State.PAID, topup.created_at, now),
    )
    if not changed:
        return False
    ledger.receive(
        user=topup.user,
        account=ledger.WALLET,
        amount=topup.amount_idr,
        source="bank",
        kind=Transfer.Kind.TOPUP,
        reference=topup.pk,
        key=f"{topup.pk}:credit",
        reason=topup.label,
    )
    _tell(topup, Notice.Kind.TOPUP, topup.amount_idr, "paid")
    log.info("a top-up was credited", topup=topup.pk, user_id=topup.user_id, late=was_late)
    return True


def _give_back(topup: TopUp, total_idr: int) -> bool:
    """Take from the wallet what went back to the payer. What it does not hold is owed: it stands on the house's account
    for that, and nothing is spent until staff have settled it."""
    now = timezone.now()
    back = min(total_idr, topup.amount_idr)
    state = State.REFUNDED if back == topup.amount_idr else State.PAID
    changed = TopUp.objects.filter(pk=topup.pk, state=State.PAID, refunded_idr=topup.refunded_idr).update(
        state=state,
        refunded_idr=back,
        changed_at=now,
        ask_at=_next_look(state, topup.created_at, now),
    )
    if not changed:
        return False
    missing = back - topup.refunded_idr
    missing -= _take(topup, missing, key=f"{topup.pk}:back:{back}")
    if missing:
        ledger.book(
            debit="receivable",
            credit="bank",
            amount=missing,
            kind=Transfer.Kind.REFUND,
            reference=topup.pk,
            key=f"{topup.pk}:owed:{back}",
            reason=topup.label,
        )
        TopUp.objects.filter(pk=topup.pk).update(owed_idr=F("owed_idr") + missing)
        _flag(topup, f"went back and was spent: {missing} is owed")
        freezing.freeze_debtor(topup.user)
    _tell(topup, Notice.Kind.REFUND, back - topup.refunded_idr, f"back:{back}")
    log.warning("a top-up went back", topup=topup.pk, user_id=topup.user_id, total=back, owed=missing)
    return True


def _take(topup: TopUp, wanted: int, *, key: str) -> int:
    """Take up to `wanted` from the wallet; how much it was."""
    while wanted:
        try:
            ledger.spend(
                user=topup.user,
                account=ledger.WALLET,
                amount=wanted,
                to="bank",
                kind=Transfer.Kind.REFUND,
                reference=topup.pk,
                key=key,
                reason=topup.label,
            )
        except ledger.InsufficientWallet as problem:
            wanted = min(wanted, problem.data["walletBalance"])
        except ledger.Frozen:
            return 0
        else:
            return wanted
    return 0


def collect(*, topup: TopUp, author: User) -> int:
    """Take what is owed from a wallet that can pay it by now, on behalf of staff; the rupiah that were taken.

    Raises `ledger.InsufficientWallet` unless it can pay all of it, and `ledger.Frozen`.
    """
    with transaction.atomic():
        topup = _fresh(topup)
        owed = topup.owed_idr
        if not owed or not TopUp.objects.filter(pk=topup.pk, owed_idr=owed).update(
            owed_idr=0, flag="", changed_at=timezone.now()
        ):
            return 0
        ledger.spend(
            user=topup.user,
            account=ledger.WALLET,
            amount=owed,
            to="receivable",
            kind=Transfer.Kind.ADJUSTMENT,
            reference=topup.pk,
            key=f"{topup.pk}:settled:{topup.refunded_idr}",
            author=author,
            reason=topup.label,
        )
    return owed


def clear_flag(topup: TopUp) -> bool:
    """Staff have looked at it, and it is asked about no more. What is owed stays marked."""
    looked_at = TopUp.objects.filter(pk=topup.pk, owed_idr=0).exclude(flag="")
    return bool(looked_at.update(flag="", ask_at=None))


def _close(topup: TopUp, state: str, said: str) -> str:
    """Expired or failed, unless money has come: that is never unsaid by a notice that comes late."""
    now = timezone.now()
    changed = TopUp.objects.filter(pk=topup.pk, state__in=TopUp.OPEN).update(
        state=state,
        problem=said[:200] if state == State.FAILED else "",
        calling_until=None,
        changed_at=now,
        ask_at=_next_look(state, topup.created_at, now),
    )
    if changed:
        _tell(topup, Notice.Kind.TOPUP_FAILED, topup.amount_idr, state, detail=state)
        return str(state)
    if topup.state in (State.PAID, State.REFUNDED):
        log.warning("a paid top-up was called over", topup=topup.pk, said=said)
        return f"{said} after {topup.state}: not applied"
    return "nothing new"


def _tell(topup: TopUp, kind: str, amount_idr: int, what: str, *, detail: str = "") -> None:
    """Its owner is told in the transaction in which it changes."""
    notices.tell(
        user=topup.user,
        kind=kind,
        key=f"{topup.pk}:{what}",
        amount=amount_idr,
        unit=Unit.IDR,
        reference=topup.pk,
        detail=detail,
    )


def _flag(topup: TopUp, why: str) -> None:
    if TopUp.objects.filter(pk=topup.pk).exclude(flag=why[:200]).update(flag=why[:200]):
        log.error("a top-up needs a person", topup=topup.pk, user_id=topup.user_id, why=why)
        transaction.on_commit(lambda: freezing.tell_of_payment(topup, why), robust=True)


# The clock


def sweep(*, budget_s: float = 20.0) -> Looked:
    """Notices whose bell was lost or whose gateway did not answer, then payments that are due to be asked about."""
    until = time.monotonic() + budget_s
    due = GatewayEvent.objects.filter(handled_at=None, due_at__lte=timezone.now()).order_by("due_at")
    for event_id in list(due.values_list("pk", flat=True)[:100]):
        if time.monotonic() >= until:
            break
        handle(event_id)
    return reconcile(budget_s=max(0.0, until - time.monotonic()))


def reconcile(*, limit: int = 100, budget_s: float = 20.0, everything: bool = False) -> Looked:
    """Ask about the payments whose time has come, or `everything` that is open, whatever notices came.

    Each row is claimed, so two at once share the work. A gateway that does not answer is left alone for this time.
    """
    until = time.monotonic() + budget_s
    looked = Looked()
    silent: set[str] = set()
    for topup in _due(everything)[:limit]:
        if time.monotonic() >= until:
            break
        if topup.gateway in silent or not _claim_look(topup):
            continue
        with _line() as is_free:
            if not is_free:
                break
            looked.asked += 1
            try:
                before = (topup.state, topup.refunded_idr)
                ask(topup)
            except GatewayError as error:
                looked.failed += 1
                silent.add(topup.gateway)
                log.warning(
                    "a gateway does not answer", gateway=topup.gateway, topup=topup.pk, detail=error.detail
                )
            else:
                now = _fresh(topup)
                looked.changed += (now.state, now.refunded_idr) != before
    return looked


def _due(everything: bool) -> QuerySet[TopUp]:
    if everything:
        return TopUp.objects.filter(state__in=TopUp.OPEN).select_related("user").order_by("pk")
    now = timezone.now()
    return TopUp.objects.filter(ask_at__lte=now).select_related("user").order_by("ask_at")


def _claim_look(topup: TopUp) -> bool:
    now = timezone.now()
    following = _next_look(topup.state, topup.created_at, now)
    mine = TopUp.objects.filter(pk=topup.pk, ask_at=topup.ask_at)
    return bool(mine.update(ask_at=following, asked_at=now))


def _next_look(state: str, since: datetime, now: datetime) -> datetime | None:
    age = now - since
    if state == State.PAID:
        return next((since + look for look in PAID_LOOKS if look > age), None)
    if state == State.REFUNDED:
        return None
    pauses = OPEN_PAUSES if state in TopUp.OPEN else UNPAID_PAUSES
    pause = next((pause for until, pause in pauses if age < until), None)
    if pause is None:
        # An open one is asked once more, which closes it.
        return now + pauses[-1][1] if state in TopUp.OPEN else None
    return now + pause


@contextmanager
def _line() -> Iterator[bool]:
    is_free = _lines.acquire(blocking=False)
    try:
        yield is_free
    finally:
        if is_free:
            _lines.release()


def _gateway(topup: TopUp) -> Gateway:
    found = connected().all.get(topup.gateway)
    if found is None:
        raise GatewayError(f"{topup.gateway} is not connected any more")
    return found


def _payment(topup: TopUp) -> Payment:
    return Payment(
        reference=topup.pk,
        amount_idr=topup.amount_idr,
        email=topup.user.email,
        name=topup.user.name,
        return_url=f"{settings.PUBLIC_URL}/billing/topups/{topup.pk}",
        created_at=topup.created_at,
        expires_at=topup.expires_at,
        gateway_id=topup.gateway_id,
    )


def _fresh(topup: TopUp) -> TopUp:
    return TopUp.objects.select_related("user").get(pk=topup.pk)


def _grouped(amount_idr: int) -> str:
    return f"{amount_idr:,}".replace(",", ".")
