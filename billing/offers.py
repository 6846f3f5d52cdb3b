"""What a purchase would cost, and why: quantity discount, promo code and bonuses, in that order. For `billing.purchases`.

All figures are whole rupiah and whole tokens. Discounts are rounded up, in favour of who buys:

1. list price: price of the package × quantity;
2. quantity discount: per cent of the list price, the highest step that the quantity reaches;
3. promo code: per cent of what is left after 2, or rupiah off it, or tokens on top;
4. at least `LEAST_IDR` stays to be paid, or the list price where that is lower: a purchase is never free, because the
   ledger moves no zero. Tokens for nothing are given by an adjustment.

Bonus tokens (of the package × quantity, of the first purchase, of a code) change no price.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Max, Q, QuerySet
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User
from aleph.problems import InvalidRequest, NotFound, Problem
from billing.models import (
    MAX_QUANTITY,
    FirstPurchaseBonus,
    Package,
    PromoCode,
    Purchase,
    QuantityDiscount,
    Redemption,
)

LEAST_IDR = 1_000
CODE_LENGTH = 40
_CODE = re.compile(r"[0-9A-Z][0-9A-Z_-]*")


class PromoRefused(Problem):
    """A promo code that does not hold for this purchase. `data["reason"]` says why, for programs."""

    code = "PROMO_REFUSED"
    status = 400

    def __init__(self, reason: str, message: str | Promise, **data: Any) -> None:
        super().__init__(message, data={"reason": reason, **data})


@dataclass(frozen=True, slots=True)
class Quote:
    """A purchase as it would be at this moment; all sums for the whole quantity."""

    package: Package
    quantity: int = 1
    quantity_percent: int = 0
    quantity_discount_idr: int = 0
    promo: PromoCode | None = None
    promo_discount_idr: int = 0
    promo_bonus_tokens: int = 0
    first_bonus_tokens: int = 0

    @property
    def list_price_idr(self) -> int:
        return self.package.price_idr * self.quantity

    @property
    def price_idr(self) -> int:
        return self.list_price_idr - self.quantity_discount_idr - self.promo_discount_idr

    @property
    def saved_idr(self) -> int:
        return self.quantity_discount_idr + self.promo_discount_idr

    @property
    def tokens(self) -> int:
        return self.package.tokens * self.quantity

    @property
    def package_bonus_tokens(self) -> int:
        return self.package.bonus_tokens * self.quantity

    @property
    def bonus_tokens(self) -> int:
        return self.package_bonus_tokens + self.first_bonus_tokens + self.promo_bonus_tokens

    @property
    def total_tokens(self) -> int:
        return self.tokens + self.bonus_tokens

    @property
    def promo_code(self) -> str:
        return self.promo.code if self.promo else ""

    @property
    def package_name(self) -> str:
        return self.package.name

    @property
    def idr_per_1k(self) -> int:
        """Rupiah for 1,000 tokens, bonus included, rounded half up."""
        return (self.price_idr * 1000 * 2 + self.total_tokens) // (2 * self.total_tokens)

    @property
    def terms(self) -> str:
        """What it costs and what it brings, for a form to say what its reader was shown."""
        return f"{self.price_idr}-{self.tokens}-{self.bonus_tokens}"


def normalised(code: str) -> str:
    """A promo code as it is kept, however it was typed."""
    return "".join(code.split()).upper()


def is_possible(code: str) -> bool:
    """Whether a normalised code can be one."""
    return len(code) <= CODE_LENGTH and _CODE.fullmatch(code) is not None


def quote(
    *, user: User, package_slug: str, quantity: int = 1, promo_code: str = "", lock: bool = False
) -> Quote:
    """What this purchase would be for `user`. With `lock`, in a transaction, nobody else uses the code meanwhile.

    Raises `NotFound`, `InvalidRequest` for the quantity, `PromoRefused`.
    """
    package = offered(package_slug)
    _check_quantity(quantity)
    now = timezone.now()
    step = (
        QuantityDiscount.objects.filter(package=package, from_quantity__lte=quantity)
        .order_by("-from_quantity")
        .first()
        if quantity > 1
        else None
    )
    promo = _promo(promo_code, now, lock=lock) if promo_code else None
    reduced = priced(package, quantity=quantity, quantity_percent=step.percent if step else 0)
    if promo is not None:
        _check_purchase(promo, _packages_of(promo), reduced)
        _check_uses(promo, user)
    return _with(reduced, promo, first_bonuses(user))


def quotes(user: User, packages: list[Package], *, quantity: int = 1, promo_code: str = "") -> list[Quote]:
    """What so many of each package would be for `user`, in as many queries for many packages as for one. A code counts for
    those that it holds for.

    Raises `InvalidRequest` for the quantity, and `PromoRefused` where the code holds for none.
    """
    _check_quantity(quantity)
    promo = _promo(promo_code, timezone.now(), lock=False) if promo_code else None
    if promo is not None:
        _check_uses(promo, user)
    only_for = _packages_of(promo) if promo is not None else set()
    bonuses, discounts = first_bonuses(user), steps(packages)
    found: list[Quote] = []
    refused: PromoRefused | None = None
    for package in packages:
        reached = [step.percent for step in discounts.get(package.pk, []) if step.from_quantity <= quantity]
        reduced = priced(package, quantity=quantity, quantity_percent=reached[-1] if reached else 0)
        holds = promo
        if promo is not None:
            try:
                _check_purchase(promo, only_for, reduced)
            except PromoRefused as problem:
                holds, refused = None, problem
        found.append(_with(reduced, holds, bonuses))
    if refused is not None and not any(quote.promo for quote in found):
        raise refused
    return found


def priced(
    package: Package,
    *,
    quantity: int = 1,
    quantity_percent: int = 0,
    promo: PromoCode | None = None,
    first_bonus_tokens: int = 0,
) -> Quote:
    """The arithmetic of a quote, in the order that this module states."""
    list_price_idr = package.price_idr * quantity
    most_off_idr = list_price_idr - min(list_price_idr, LEAST_IDR)
    quantity_discount_idr = min(_percent_of(list_price_idr, quantity_percent), most_off_idr)
    promo_discount_idr = 0
    if promo is not None and promo.kind != PromoCode.Kind.TOKENS:
        is_percent = promo.kind == PromoCode.Kind.PERCENT
        left_idr = list_price_idr - quantity_discount_idr
        wanted_idr = _percent_of(left_idr, promo.amount) if is_percent else promo.amount
        promo_discount_idr = min(wanted_idr, most_off_idr - quantity_discount_idr)
    return Quote(
        package=package,
        quantity=quantity,
        quantity_percent=quantity_percent if quantity_discount_idr else 0,
        quantity_discount_idr=quantity_discount_idr,
        promo=promo,
        promo_discount_idr=promo_discount_idr,
        promo_bonus_tokens=promo.amount if promo is not None and promo.kind == PromoCode.Kind.TOKENS else 0,
        first_bonus_tokens=first_bonus_tokens,
    )


def offered(slug: str) -> Package:
    """One offered package. Raises `NotFound`."""
    found = None if "\x00" in slug else Package.objects.filter(slug=slug, is_offered=True).first()
    if found is None:
        raise NotFound(_("This package is not offered."))
    return found


def first_bonuses(user: User) -> list[FirstPurchaseBonus]:
    """The bonuses that the user's first purchase may bring, largest first; none where he has bought something."""
    now = timezone.now()
    holds = Q(starts_at=None) | Q(starts_at__lte=now)
    holds &= Q(ends_at=None) | Q(ends_at__gt=now)
    found = list(FirstPurchaseBonus.objects.filter(holds, is_active=True).order_by("-bonus_tokens"))
    return found if found and not Purchase.objects.filter(user=user).exists() else []


def first_bonus(bonuses: list[FirstPurchaseBonus], price_idr: int) -> int:
    """The tokens of the largest bonus that holds from this price on."""
    return next((bonus.bonus_tokens for bonus in bonuses if bonus.minimum_idr <= price_idr), 0)


def redeem(promo: PromoCode, purchase: Purchase) -> None:
    """Note that a purchase has used a code, which `quote` has locked in this transaction."""
    Redemption.objects.create(
        promo=promo,
        user=purchase.user,
        purchase=purchase,
        place=_last(promo.redemptions.all(), "place") + 1,
        user_place=_last(promo.redemptions.filter(user=purchase.user), "user_place") + 1,
    )


def steps(packages: list[Package]) -> dict[int, list[QuantityDiscount]]:
    """The quantity discounts of packages, by package, smallest first."""
    found: dict[int, list[QuantityDiscount]] = {}
    for step in QuantityDiscount.objects.filter(package__in=packages).order_by("from_quantity"):
        found.setdefault(step.package_id, []).append(step)
    return found


def _percent_of(amount_idr: int, percent: int) -> int:
    """Rounded up."""
    return -(-amount_idr * percent // 100)


def _promo(code: str, now: datetime, *, lock: bool) -> PromoCode:
    wanted = normalised(code)
    # The lock makes its uses one after the other. SQLite has one writer, and ignores it.
    codes = PromoCode.objects.select_for_update() if lock else PromoCode.objects.all()
    promo = codes.filter(code=wanted).first() if is_possible(wanted) else None
    if promo is None:
        raise PromoRefused("unknown", _("There is no such promo code. Look for a typing error."))
    if promo.starts_at and now < promo.starts_at:
        raise PromoRefused("not yet", _("This promo code does not hold yet."))
    if not promo.is_active or (promo.ends_at and promo.ends_at <= now):
        raise PromoRefused("expired", _("This promo code does not hold any more."))
    return promo


def _with(reduced: Quote, promo: PromoCode | None, bonuses: list[FirstPurchaseBonus]) -> Quote:
    """A quote with a code and the bonus of a first purchase, which hold by what is left after the quantity discount."""
    return priced(
        reduced.package,
        quantity=reduced.quantity,
        quantity_percent=reduced.quantity_percent,
        promo=promo,
        first_bonus_tokens=first_bonus(bonuses, reduced.price_idr),
    )


def _check_quantity(quantity: int) -> None:
    if not 1 <= quantity <= MAX_QUANTITY:
        raise InvalidRequest(_("Between 1 and %(most)d can be bought at once.") % {"most": MAX_QUANTITY})


def _packages_of(promo: PromoCode) -> set[int]:
    """Which packages a code is for; none means all of them."""
    return set(promo.packages.values_list("pk", flat=True))


def _check_purchase(promo: PromoCode, only_for: set[int], reduced: Quote) -> None:
    """Whether a code holds for what is left after the quantity discount."""
    if only_for and reduced.package.pk not in only_for:
        raise PromoRefused("package", _("This promo code is not for this package."))
    if reduced.price_idr < promo.minimum_idr:
        least = f"{promo.minimum_idr:,}".replace(",", ".")
        raise PromoRefused(
            "minimum",
            _("This promo code holds for purchases from Rp %(least)s on.") % {"least": least},
            minimum=promo.minimum_idr,
        )
    if promo.kind != PromoCode.Kind.TOKENS and reduced.price_idr <= LEAST_IDR:
        raise PromoRefused("minimum", _("This promo code makes nothing cheaper here."), minimum=LEAST_IDR)


def _check_uses(promo: PromoCode, user: User) -> None:
    """Whether a code may be used once more, in all and by this person."""
    if (
        promo.user_limit is not None
        and _last(promo.redemptions.filter(user=user), "user_place") >= promo.user_limit
    ):
        raise PromoRefused("used", _("You have used this promo code already."))
    if promo.total_limit is not None and _last(promo.redemptions.all(), "place") >= promo.total_limit:
        raise PromoRefused("used up", _("This promo code is used up."))


def _last(redemptions: "QuerySet[Redemption]", place: str) -> int:
    return redemptions.aggregate(last=Max(place))["last"] or 0
