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
from billing import ledger
from billing.models import Package as Package
from billing.models import Purchase, Transfer

PREFIX = "buy"
KEY_LENGTH = 128
RETRIES = 4


class TermsChanged(Conflict):
    text = _("This package has changed meanwhile. Please look at it again.")


class TransferKeys(NamedTuple):
    """The keys of a purchase's transfers: what was paid, what was bought, and the bonus where there is one."""

    wallet: str
    tokens: str
    bonus: str


def packages() -> list[Package]:
    """What is offered, in the order of the shop."""
    return list(Package.objects.filter(is_offered=True).order_by("position", "price_idr"))


def offered(slug: str) -> Package:
    """One offered package. Raises `NotFound`."""
    found = None if "\x00" in slug else Package.objects.filter(slug=slug, is_offered=True).first()
    if found is None:
        raise NotFound(_("This package is not offered."))
    return found


def saving_percent(package: Package, *, against: Package) -> int:
    """How much less a token costs than in `against`, rounded half up; 0 where it does not."""
    whole = against.price_idr * package.total_tokens
    part = 100 * package.price_idr * against.total_tokens
    return max(0, 100 - (2 * part + whole) // (2 * whole))


def buy(*, user: User, package_slug: str, key: str, terms: str | None = None) -> Purchase:
    """Pay for a package from the wallet and receive its tokens, all or nothing.

    The same user, key and package give the first purchase again. `terms` are the `Package.terms` that the user was
    shown; None takes those of now. Raises `InvalidRequest` for an unusable key, `NotFound`, `TermsChanged`,
    `ledger.InsufficientWallet`, `ledger.Frozen`, and `IdempotencyMismatch` where the key has bought another package.
    """
    if not 0 < len(key) <= KEY_LENGTH or "\x00" in key:
        raise InvalidRequest(_("A purchase needs a key of 1 to 128 characters."))
    for last in (*[False] * RETRIES, True):
        try:
            with transaction.atomic():
                return _bought(user, package_slug, key) or _buy(user, package_slug, key, terms)
        except (ledger.Raced, IntegrityError):
            # The same key was a moment earlier elsewhere; the first purchase is there now (R50).
            if last:
                raise
        except ledger.InsufficientWallet:
            # The money may have gone into this very purchase: a double click.
            if (first := _bought(user, package_slug, key)) is not None:
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


def _bought(user: User, package_slug: str, key: str) -> Purchase | None:
    first = Purchase.objects.filter(user=user, key=key).select_related("package").first()
    if first is not None and first.package.slug != package_slug:
        raise IdempotencyMismatch
    return first


def _buy(user: User, package_slug: str, key: str, terms: str | None) -> Purchase:
    bought = offered(package_slug)
    if terms is not None and terms != bought.terms:
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
    return Purchase.objects.create(
        id=purchase_id,
        number=_number(now),
        user=user,
        package=bought,
        package_name=bought.name,
        tokens=bought.tokens,
        bonus_tokens=bought.bonus_tokens,
        price_idr=bought.price_idr,
        wallet_before_idr=paid.balance + bought.price_idr,
        tokens_before=received.balance - bought.tokens,
        key=key,
        created_at=now,
    )


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
