"""Packages and their purchase from the wallet. A door of this app, for pages and the API."""

from datetime import datetime
from typing import NamedTuple

from django.db import IntegrityError, connection, transaction
from django.db.models import Max
from django.db.models.expressions import RawSQL
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Conflict, IdempotencyMismatch, InvalidRequest, NotFound
from billing import ledger, notices, offers
from billing.models import MAX_QUANTITY as MAX_QUANTITY
from billing.models import Package as Package
from billing.models import Purchase as Purchase
from billing.models import Transfer, Unit
from billing.offers import PromoRefused as PromoRefused
from billing.offers import Quote as Quote
from billing.offers import first_bonus as first_bonus
from billing.offers import first_bonuses as first_bonuses
from billing.offers import offered as offered
from billing.offers import quote as quote
from billing.offers import steps as steps

PREFIX = "buy"
OWN_KEYS = "refill:"
"""What keys of purchases begin with that nobody asked for himself."""
KEY_LENGTH = 128
RETRIES = 4


class TermsChanged(Conflict):
    text = _("This package has changed meanwhile. Please look at it again.")


class TransferKeys(NamedTuple):
    """The keys of a purchase's transfers: what was paid, what was bought, and the bonus where there is one."""

    wallet: str
    tokens: str
    bonus: str


class Wanted(NamedTuple):
    """What somebody wants to buy; see `buy`."""

    package_slug: str
    quantity: int
    promo_code: str
    terms: str | None
    most_idr: int | None
    is_automatic: bool


def packages() -> list[Package]:
    """What is offered, in the order of the shop."""
    return list(Package.objects.filter(is_offered=True).order_by("position", "price_idr"))


def quotes(user: User, *, quantity: int = 1, promo_code: str = "") -> list[Quote]:
    """What so many of each package on offer would be for `user`. Raises as `offers.quotes` does."""
    return offers.quotes(user, packages(), quantity=quantity, promo_code=promo_code)


def saving_percent(package: Package, *, against: Package) -> int:
    """How much less a token costs than in `against`, rounded half up; 0 where it does not."""
    whole = against.price_idr * package.total_tokens
    part = 100 * package.price_idr * against.total_tokens
    return max(0, 100 - (2 * part + whole) // (2 * whole))


def buy(
    *,
    user: User,
    package_slug: str,
    key: str,
    quantity: int = 1,
    promo_code: str = "",
    terms: str | None = None,
    most_idr: int | None = None,
    is_automatic: bool = False,
) -> Purchase:
    """Pay for a package, or several of it, from the wallet and receive the tokens, all or nothing.

    The same user, key, package, quantity and code give the first purchase again. `terms` are the `Quote.terms` that the
    user was shown, `most_idr` is what he is ready to pay; None takes what holds now. Raises `InvalidRequest` for an
    unusable key or quantity, `NotFound`, `PromoRefused`, `TermsChanged`, `ledger.InsufficientWallet`, `ledger.Frozen`,
    and `IdempotencyMismatch` where the key has bought something else.
    """
    if not 0 < len(key) <= KEY_LENGTH or "\x00" in key or key.startswith(OWN_KEYS) != is_automatic:
        raise InvalidRequest(_("A purchase needs a key of 1 to 128 characters."))
    wanted = Wanted(package_slug, quantity, promo_code, terms, most_idr, is_automatic)
    for last in (*[False] * RETRIES, True):
        try:
            with transaction.atomic():
                return _bought(user, wanted, key) or _buy(user, wanted, key)
        except (ledger.Raced, IntegrityError):
            # The same key was a moment earlier elsewhere, and the first purchase is there now (R50); or another purchase
            # was, and it was the first one.
            if last:
                raise
        except (ledger.InsufficientWallet, PromoRefused, TermsChanged):
            # The money, the code or the bonus may have gone into this very purchase: a double click.
            if (first := _bought(user, wanted, key)) is not None:
                return first
            raise
    raise AssertionError("unreachable")


def receipt(user: User, purchase_id: str) -> Purchase:
    """A purchase of `user`. Raises `NotFound`, also for the purchases of others."""
    if not ids.is_one(purchase_id, PREFIX):
        raise NotFound
    found = Purchase.objects.filter(user=user, pk=purchase_id).select_related("package").first()
    if found is None:
        raise NotFound
    return found


def transfers_of(purchase: Purchase) -> list[str]:
    """The ids of its transfers in the ledger: wallet, tokens, bonus."""
    return list(
        Transfer.objects.filter(key__in=transfer_keys(purchase.pk))
        .order_by("-key")
        .values_list("pk", flat=True)
    )


def transfer_keys(purchase_id: str) -> TransferKeys:
    return TransferKeys(f"{purchase_id}:wallet", f"{purchase_id}:tokens", f"{purchase_id}:bonus")


def _bought(user: User, wanted: Wanted, key: str) -> Purchase | None:
    first = Purchase.objects.filter(user=user, key=key).select_related("package").first()
    if first is not None and (first.package.slug, first.quantity, first.promo_code) != (
        wanted.package_slug,
        wanted.quantity,
        offers.normalised(wanted.promo_code),
    ):
        raise IdempotencyMismatch
    return first


def _buy(user: User, wanted: Wanted, key: str) -> Purchase:
    bought = quote(
        user=user,
        package_slug=wanted.package_slug,
        quantity=wanted.quantity,
        promo_code=wanted.promo_code,
        lock=True,
    )
    if wanted.terms not in (None, bought.terms) or (
        wanted.most_idr is not None and bought.price_idr > wanted.most_idr
    ):
        raise TermsChanged
    purchase_id = ids.new(PREFIX)
    keys = transfer_keys(purchase_id)
    paid = ledger.spend(
        user=user,
        account=ledger.WALLET,
        amount=bought.price_idr,
        to="sales",
        kind=Transfer.Kind.PURCHASE,
        reference=purchase_id,
        key=keys.wallet,
    )
    received = ledger.receive(
        user=user,
        account=ledger.TOKENS,
        amount=bought.tokens,
        source="issued",
        kind=Transfer.Kind.PURCHASE,
        reference=purchase_id,
        key=keys.tokens,
        value_idr_per_1k=bought.idr_per_1k,
    )
    if bought.bonus_tokens:
        ledger.receive(
            user=user,
            account=ledger.TOKENS,
            amount=bought.bonus_tokens,
            source="bonus",
            kind=Transfer.Kind.BONUS,
            reference=purchase_id,
            key=keys.bonus,
        )
    now = timezone.now()
    purchase = Purchase.objects.create(
        id=purchase_id,
        number=_number(now),
        user=user,
        package=bought.package,
        package_name=bought.package.name,
        quantity=bought.quantity,
        tokens=bought.tokens,
        bonus_tokens=bought.bonus_tokens,
        first_bonus_tokens=bought.first_bonus_tokens,
        promo_bonus_tokens=bought.promo_bonus_tokens,
        price_idr=bought.price_idr,
        quantity_percent=bought.quantity_percent,
        quantity_discount_idr=bought.quantity_discount_idr,
        promo_code=bought.promo_code,
        promo_discount_idr=bought.promo_discount_idr,
        is_automatic=wanted.is_automatic,
        wallet_before_idr=paid.balance + bought.price_idr,
        tokens_before=received.balance - bought.tokens,
        key=key,
        created_at=now,
    )
    if bought.promo is not None:
        offers.redeem(bought.promo, purchase)
    notices.tell(
        user=user,
        kind=notices.Kind.PURCHASE,
        key=purchase_id,
        amount=purchase.total_tokens,
        unit=Unit.TOKEN,
        reference=purchase_id,
        detail=bought.package.name,
    )
    return purchase


def _number(now: datetime) -> str:
    """A receipt number such as ``ALP-2026-004182``, counted on over the years. A purchase that fails leaves a gap.

    PostgreSQL has a sequence, which no two purchases wait for. SQLite has one writer, and its rows are never deleted.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT nextval('billing_receipt_number')")
            (count,) = cursor.fetchone()
    else:
        count = (Purchase.objects.aggregate(last=Max(RawSQL("rowid", ())))["last"] or 0) + 1
    return f"ALP-{timezone.localtime(now, timezone.get_default_timezone()).year}-{count:06d}"
