"""Packages that are bought by themselves when few tokens are left, within a limit for each month. A door of this app.

Off until somebody asks for it. It happens beside the replies, never in their way: whoever settles a reply sees by the
row that it has moved anyway that few tokens are left (`ledger.Moved.is_low`) and rings; a worker buys. A bell that is
lost is made good by the sweep.

The key of such a purchase is made of how many there were before, so any number of workers at once buy once, and what
counts against the limit of the month is what was bought. A refill that cannot be is paused, its owner told, and taken up
again by the sweep once it can be; what he has to decide himself (another price) waits for him.
"""

from datetime import datetime
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import Case, F, OuterRef, Q, Subquery, Sum, Value, When
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound
from billing import ledger, notices, purchases
from billing.models import Account, Purchase, Unit
from billing.models import Refill as Refill

log = structlog.get_logger(__name__)

Pause = Refill.Pause
WHY: dict[str, Any] = {
    Pause.WALLET: _("The wallet holds too little for your package. It goes on once there is enough."),
    Pause.LIMIT: _(
        "Your limit of this month is reached. It goes on with the next month, or with a higher limit."
    ),
    Pause.TERMS: _("Your package has changed or is not offered any more. Please set it up again."),
    Pause.FROZEN: _("Your account is frozen while we check it. It goes on after that."),
}
"""What a person is told whose refill is paused."""
SWEPT = 500
"""Refills that one sweep looks at; the others wait for the next."""


def of(user: User) -> Refill | None:
    """What the user has set, on or off."""
    return Refill.objects.select_related("package").filter(user=user).first()


def set_up(
    *, user: User, package_slug: str, below_tokens: int, monthly_limit_idr: int, terms: str | None
) -> Refill:
    """Buy this package whenever fewer than `below_tokens` are left, for at most `monthly_limit_idr` a month.

    `terms` are the `Package.terms` that the user was shown; at others nothing is ever bought. Raises `NotFound`,
    `purchases.TermsChanged`, `InvalidRequest`.
    """
    package = purchases.offered(package_slug)
    if terms != package.terms:
        raise purchases.TermsChanged
    if not 0 < below_tokens <= package.total_tokens:
        raise InvalidRequest(_("Choose a number of tokens that one package can make good."))
    if not package.price_idr <= monthly_limit_idr < 2**53:
        raise InvalidRequest(_("The limit of a month has to allow for at least one package."))
    with transaction.atomic():
        refill, _created = Refill.objects.update_or_create(
            user=user,
            defaults={
                "package": package,
                "terms": terms,
                "below_tokens": below_tokens,
                "monthly_limit_idr": monthly_limit_idr,
                "is_on": True,
                "paused_for": "",
                "changed_at": timezone.now(),
            },
        )
        ledger.refill_below(user=user, tokens=below_tokens)
    ring(user.pk)
    return refill


def turn_off(*, user: User) -> None:
    with transaction.atomic():
        Refill.objects.filter(user=user).update(is_on=False, paused_for="", changed_at=timezone.now())
        ledger.refill_below(user=user, tokens=None)


def spent_idr(user: User, *, since: datetime) -> int:
    """What refills have cost the user since a moment."""
    found = Purchase.objects.filter(user=user, is_automatic=True, created_at__gte=since)
    return found.aggregate(total=Sum("price_idr"))["total"] or 0


def month_began() -> datetime:
    """When this month began, by the clocks where Aleph is sold."""
    now = timezone.localtime(timezone=timezone.get_default_timezone())
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def ring(user_id: int) -> None:
    """Tell a worker that somebody has few tokens left. Losing this is harmless: the sweep looks, too."""
    try:
        current_app.send_task("billing.tasks.refill", args=[user_id], queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the sweep will look", user_id=user_id, error=str(error))


def run(user_id: int) -> Purchase | None:
    """Buy for one person if he wants it and it can be. Harmless when run twice, also at once."""
    refill = (
        Refill.objects.select_related("user", "package")
        .filter(user_id=user_id, is_on=True)
        .exclude(paused_for=Pause.TERMS)
        .first()
    )
    if refill is None:
        return None
    # Counted before the balance is read: who counts a purchase sees its tokens, and who does not has its key.
    bought_before = Purchase.objects.filter(user=refill.user, is_automatic=True).count()
    balance = ledger.balance_of(refill.user)
    is_low = balance.tokens < refill.below_tokens
    obstacle = _obstacle(refill, balance)
    if obstacle and is_low:
        _pause(refill, obstacle, balance)
        return None
    if refill.paused_for and not obstacle:
        _resume(refill)
    if obstacle or not is_low:
        return None
    try:
        purchase = purchases.buy(
            user=refill.user,
            package_slug=refill.package.slug,
            key=f"{purchases.OWN_KEYS}{bought_before}",
            most_idr=refill.package.price_idr,
            is_automatic=True,
        )
    except ledger.InsufficientWallet:
        _pause(refill, Pause.WALLET, balance)
        return None
    except ledger.Frozen:
        _pause(refill, Pause.FROZEN, balance)
        return None
    except (NotFound, purchases.TermsChanged):
        _pause(refill, Pause.TERMS, balance)
        return None
    except IdempotencyMismatch:
        return (
            None  # Another package was bought with this key a moment ago, so the balance is another one, too.
        )
    log.info("tokens were bought by themselves", user_id=user_id, purchase=purchase.pk)
    return purchase


def sweep() -> None:
    """Look after those whose bell was lost, and after those who are paused."""
    tokens = Account.objects.filter(user=OuterRef("user"), unit=Unit.TOKEN)
    waiting = (
        Refill.objects.filter(is_on=True)
        .exclude(paused_for=Pause.TERMS)
        .annotate(left=Subquery(tokens.values("balance")[:1]))
        .filter(~Q(paused_for="") | Q(left__lt=F("below_tokens")))
        # Who can be helped comes first, and of those who wait nobody always last.
        .order_by(Case(When(paused_for="", then=Value(0)), default=Value(1)), "?")
        .values_list("user", flat=True)[:SWEPT]
    )
    for user_id in waiting:
        run(user_id)


def _obstacle(refill: Refill, balance: ledger.Balance) -> str:
    """Why nothing can be bought now, "" for nothing."""
    if not refill.package.is_offered or refill.package.terms != refill.terms:
        return Pause.TERMS
    if balance.frozen:
        return Pause.FROZEN
    spent = spent_idr(refill.user, since=month_began())
    if spent + refill.package.price_idr > refill.monthly_limit_idr:
        return Pause.LIMIT
    if balance.wallet_idr < refill.package.price_idr:
        return Pause.WALLET
    return ""


def _pause(refill: Refill, why: str, balance: ledger.Balance) -> None:
    """Once for each reason; whoever is told that again has learnt nothing."""
    with transaction.atomic():
        if _changed(refill, paused_for=why):
            # Paused, its settled replies need not ring.
            ledger.refill_below(user=refill.user, tokens=None)
            notices.tell(
                user=refill.user,
                kind=notices.Kind.REFILL,
                key=f"refill:{refill.pk}:{why}:{refill.changed_at:%Y%m%d%H%M%S}:{timezone.now():%Y%m%d}",
                amount=balance.tokens,
                unit=Unit.TOKEN,
                reference=refill.package.slug,
                detail=why,
            )


def _resume(refill: Refill) -> None:
    with transaction.atomic():
        if _changed(refill, paused_for=""):
            ledger.refill_below(user=refill.user, tokens=refill.below_tokens)


def _changed(refill: Refill, **figures: Any) -> bool:
    """Change a refill as it was read; False where its owner or another worker was quicker."""
    was = Refill.objects.filter(
        pk=refill.pk, is_on=True, changed_at=refill.changed_at, paused_for=refill.paused_for
    )
    return figures["paused_for"] != refill.paused_for and bool(was.update(**figures))
