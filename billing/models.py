"""The books: accounts, transfers between them, packages of tokens and their purchases, top-ups of the wallet,
corrections by staff, and what people are told of it all.

Only `billing.ledger` writes accounts and transfers. Rows of `Transfer` are never changed or deleted: triggers refuse it
on both databases, and a correction is a transfer of its own. The vocabulary is TigerBeetle's.
"""

from typing import ClassVar
from urllib.parse import urlsplit

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now, Upper
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.sealed import SealedTextField
from billing import gateways

MAX_QUANTITY = 100
"""Of one package in one purchase."""
MAX_PERCENT = 90
"""Of any discount."""


class Unit(models.TextChoices):
    TOKEN = "TOKEN", _("tokens")
    IDR = "IDR", _("rupiah")


class Account(models.Model):
    """Where an amount of one unit stands. A user has `tokens` and a `wallet`; the others belong to the house.

    `balance` and `held` are cached for users, in whole tokens or whole rupiah; what can be spent is their difference.
    `bonus` is the part of the tokens that was given away: whatever leaves the account takes it first. House accounts
    cache nothing, so that no row is touched by every reply.
    """

    TOKENS: ClassVar[str] = "tokens"
    WALLET: ClassVar[str] = "wallet"

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    name = models.CharField(_("name"), max_length=20)
    unit = models.CharField(_("unit"), max_length=5, choices=Unit)
    balance = models.BigIntegerField(_("balance"), default=0)
    held = models.BigIntegerField(_("held"), default=0)
    bonus = models.BigIntegerField(_("of these bonus"), default=0)
    moves = models.BigIntegerField(
        _("transfers"), default=0, help_text=_("How many transfers there were since they are counted.")
    )
    refill_below = models.BigIntegerField(
        _("refill below"),
        null=True,
        blank=True,
        help_text=_("A package is bought by itself when fewer tokens are left. Set by `billing.refills`."),
    )
    value_idr_per_1k = models.PositiveIntegerField(
        _("value in rupiah per 1,000"),
        null=True,
        blank=True,
        help_text=_("What the owner last paid for 1,000 tokens, bonus included. For display only."),
    )
    frozen_at = models.DateTimeField(_("frozen"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("account")
        verbose_name_plural = _("accounts")
        constraints = [
            models.UniqueConstraint(fields=["user", "name"], name="account_of_user"),
            models.UniqueConstraint(fields=["name"], condition=Q(user=None), name="account_of_house"),
            models.CheckConstraint(condition=Q(held__gte=0), name="account_held_not_negative"),
            models.CheckConstraint(condition=Q(balance__gte=F("held")), name="account_holds_are_covered"),
            models.CheckConstraint(
                condition=Q(bonus__gte=0, bonus__lte=F("balance")), name="account_bonus_is_part_of_balance"
            ),
            models.CheckConstraint(condition=Q(unit=Unit.TOKEN) | Q(bonus=0), name="account_bonus_is_tokens"),
            models.CheckConstraint(
                condition=Q(user__isnull=False) | Q(balance=0, held=0), name="account_of_house_caches_nothing"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user_id or 'house'}:{self.name}"


class Transfer(models.Model):
    """`amount` moves from `debit` to `credit`: at once (`single`), or in two phases.

    A `pending` transfer only reserves. Exactly one later row resolves it (`pending_id` is unique): a `post` moves at
    most its amount, a `void` or `expire` gives all of it back.
    """

    class Phase(models.TextChoices):
        SINGLE = "single", _("single")
        PENDING = "pending", _("pending")
        POST = "post", _("posted")
        VOID = "void", _("voided")
        EXPIRE = "expire", _("expired")

    class Kind(models.TextChoices):
        TOPUP = "topup", _("top-up")
        PURCHASE = "purchase", _("purchase")
        BONUS = "bonus", _("bonus")
        REPLY = "reply", _("reply")
        REFUND = "refund", _("refund")
        ADJUSTMENT = "adjustment", _("adjustment")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    phase = models.CharField(_("phase"), max_length=7, choices=Phase)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    unit = models.CharField(_("unit"), max_length=5, choices=Unit)
    debit = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="debits", db_index=False, verbose_name=_("debit")
    )
    credit = models.ForeignKey(
        Account, on_delete=models.PROTECT, related_name="credits", db_index=False, verbose_name=_("credit")
    )
    amount = models.BigIntegerField(_("amount"))
    pending = models.OneToOneField(
        "self",
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="resolution",
        verbose_name=_("pending"),
    )
    reference = models.CharField(_("reference"), max_length=64)
    key = models.CharField(_("idempotency key"), max_length=128, unique=True)
    input_hash = models.CharField(max_length=64)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        verbose_name=_("author"),
    )
    reason = models.CharField(_("reason"), max_length=200, blank=True)
    balance_after = models.BigIntegerField(
        _("balance after"), null=True, help_text=_("The user's balance when this row was written.")
    )
    bonus_after = models.BigIntegerField(
        _("bonus after"), null=True, help_text=_("What was bonus of that balance. None of old rows.")
    )
    place = models.BigIntegerField(
        _("place"),
        null=True,
        help_text=_("Its place among the transfers of the user's account. None of old rows."),
    )
    expires_at = models.DateTimeField(_("expires"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), db_default=Now())

    class Meta:
        verbose_name = _("transfer")
        verbose_name_plural = _("transfers")
        indexes = [
            models.Index(fields=["debit", "id"], name="transfer_by_debit"),
            models.Index(fields=["credit", "id"], name="transfer_by_credit"),
            models.Index(
                fields=["expires_at"], condition=Q(expires_at__isnull=False), name="transfer_by_expiry"
            ),
        ]
        constraints = [
            models.CheckConstraint(condition=Q(amount__gt=0), name="transfer_amount_positive"),
            models.CheckConstraint(condition=~Q(debit=F("credit")), name="transfer_between_two"),
            models.CheckConstraint(
                condition=Q(phase__in=["single", "pending"], pending=None)
                | Q(phase__in=["post", "void", "expire"], pending__isnull=False),
                name="transfer_resolves_a_pending",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Package(models.Model):
    """Tokens for sale. An edit changes what is offered from now on; past purchases keep their own figures."""

    slug = models.SlugField(_("id"), max_length=40, unique=True)
    name = models.CharField(_("name"), max_length=80)
    tokens = models.PositiveBigIntegerField(_("tokens"))
    bonus_tokens = models.PositiveBigIntegerField(_("bonus tokens"), default=0)
    price_idr = models.PositiveBigIntegerField(_("price in rupiah"))
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    is_offered = models.BooleanField(_("offered"), default=True)
    is_recommended = models.BooleanField(_("marked as most bought"), default=False)

    class Meta:
        verbose_name = _("package")
        verbose_name_plural = _("packages")
        constraints = [
            models.CheckConstraint(condition=Q(tokens__gt=0), name="package_has_tokens"),
            models.CheckConstraint(condition=Q(price_idr__gt=0), name="package_has_price"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def total_tokens(self) -> int:
        return self.tokens + self.bonus_tokens

    @property
    def terms(self) -> str:
        """What it costs and what is in it, for a form to say what its reader was shown."""
        return f"{self.price_idr}-{self.tokens}-{self.bonus_tokens}"

    @property
    def idr_per_1k(self) -> int:
        """Rupiah for 1,000 tokens, bonus included, rounded half up."""
        return (self.price_idr * 1000 * 2 + self.total_tokens) // (2 * self.total_tokens)


class QuantityDiscount(models.Model):
    """What several of one package cost less, in whole per cent of their list price. The highest step that fits counts."""

    package = models.ForeignKey(
        Package, on_delete=models.CASCADE, related_name="quantity_discounts", verbose_name=_("package")
    )
    from_quantity = models.PositiveSmallIntegerField(_("from this many on"))
    percent = models.PositiveSmallIntegerField(_("per cent less"))

    class Meta:
        verbose_name = _("quantity discount")
        verbose_name_plural = _("quantity discounts")
        constraints = [
            models.UniqueConstraint(
                fields=["package", "from_quantity"],
                name="quantity_discount_once",
                violation_error_message=_("There is a discount from this quantity on."),
            ),
            models.CheckConstraint(
                condition=Q(from_quantity__gte=2, from_quantity__lte=MAX_QUANTITY),
                name="quantity_discount_for_several",
                violation_error_message=_("A quantity discount begins between 2 and 100."),
            ),
            models.CheckConstraint(
                condition=Q(percent__gte=1, percent__lte=MAX_PERCENT),
                name="quantity_discount_percent",
                violation_error_message=_("A discount is between 1 and 90 per cent."),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.from_quantity}: {self.percent}%"


class FirstPurchaseBonus(models.Model):
    """Tokens that somebody gets with his first purchase. Of those that hold, he gets the largest."""

    name = models.CharField(_("name"), max_length=80)
    bonus_tokens = models.PositiveBigIntegerField(_("bonus tokens"))
    minimum_idr = models.PositiveBigIntegerField(
        _("from this price on"), default=0, help_text=_("Rupiah, after the quantity discount.")
    )
    starts_at = models.DateTimeField(_("holds from"), null=True, blank=True)
    ends_at = models.DateTimeField(_("holds until"), null=True, blank=True)
    is_active = models.BooleanField(_("active"), default=True)

    class Meta:
        verbose_name = _("bonus of the first purchase")
        verbose_name_plural = _("bonuses of the first purchase")
        constraints = [
            models.CheckConstraint(condition=Q(bonus_tokens__gt=0), name="first_bonus_has_tokens"),
        ]

    def __str__(self) -> str:
        return self.name


class PromoCode(models.Model):
    """A word that makes a purchase cheaper or brings more. It is kept in capitals; people may write it as they like.

    How often it was used is counted from its redemptions, so that an edit here can never undo a use.
    """

    class Kind(models.TextChoices):
        PERCENT = "percent", _("per cent less")
        RUPIAH = "rupiah", _("rupiah less")
        TOKENS = "tokens", _("bonus tokens")

    code = models.CharField(_("code"), max_length=40, unique=True)
    kind = models.CharField(_("kind"), max_length=7, choices=Kind)
    amount = models.PositiveBigIntegerField(
        _("amount"), help_text=_("Per cent, rupiah or tokens, as the kind says.")
    )
    minimum_idr = models.PositiveBigIntegerField(
        _("from this price on"), default=0, help_text=_("Rupiah, after the quantity discount.")
    )
    packages = models.ManyToManyField(
        Package,
        blank=True,
        related_name="+",
        verbose_name=_("packages"),
        help_text=_("None means all of them."),
    )
    total_limit = models.PositiveIntegerField(
        _("uses in all"), null=True, blank=True, help_text=_("Empty: as many as there are people.")
    )
    user_limit = models.PositiveIntegerField(
        _("uses by one person"), null=True, blank=True, default=1, help_text=_("Empty: as often as he likes.")
    )
    starts_at = models.DateTimeField(_("holds from"), null=True, blank=True)
    ends_at = models.DateTimeField(_("holds until"), null=True, blank=True)
    is_active = models.BooleanField(_("active"), default=True)
    note = models.CharField(_("note"), max_length=200, blank=True, help_text=_("What it is for. Staff only."))

    class Meta:
        verbose_name = _("promo code")
        verbose_name_plural = _("promo codes")
        constraints = [
            models.CheckConstraint(
                condition=Q(amount__gt=0) & (~Q(kind="percent") | Q(amount__lte=MAX_PERCENT)),
                name="promo_amount_fits_its_kind",
                violation_error_message=_("An amount is at least 1, and at most 90 per cent."),
            ),
            models.CheckConstraint(
                condition=Q(code=Upper(F("code"))) & ~Q(code=""), name="promo_code_in_capitals"
            ),
        ]

    def __str__(self) -> str:
        return self.code


class Purchase(models.Model):
    """One or several of a package, with the figures they were bought at and what both accounts were before.

    `tokens`, `bonus_tokens` and `price_idr` are the sums that moved; the other figures say how they came about.
    """

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    number = models.CharField(_("receipt number"), max_length=24, unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", verbose_name=_("user")
    )
    package = models.ForeignKey(
        Package, on_delete=models.PROTECT, related_name="+", verbose_name=_("package")
    )
    package_name = models.CharField(_("package"), max_length=80)
    quantity = models.PositiveSmallIntegerField(_("quantity"), default=1)
    tokens = models.PositiveBigIntegerField(_("tokens"))
    bonus_tokens = models.PositiveBigIntegerField(_("bonus tokens"))
    first_bonus_tokens = models.PositiveBigIntegerField(_("of these for the first purchase"), default=0)
    promo_bonus_tokens = models.PositiveBigIntegerField(_("of these by the promo code"), default=0)
    price_idr = models.PositiveBigIntegerField(_("price in rupiah"))
    quantity_percent = models.PositiveSmallIntegerField(_("quantity discount in per cent"), default=0)
    quantity_discount_idr = models.PositiveBigIntegerField(_("quantity discount"), default=0)
    promo_code = models.CharField(_("promo code"), max_length=40, blank=True, default="")
    promo_discount_idr = models.PositiveBigIntegerField(_("promo discount"), default=0)
    wallet_before_idr = models.BigIntegerField(_("wallet before"))
    tokens_before = models.BigIntegerField(_("tokens before"))
    is_automatic = models.BooleanField(_("bought by itself"), default=False)
    key = models.CharField(max_length=128)
    created_at = models.DateTimeField(_("bought"), default=timezone.now)

    class Meta:
        verbose_name = _("purchase")
        verbose_name_plural = _("purchases")
        indexes = [models.Index(fields=["user", "-created_at"], name="purchase_by_user")]
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="purchase_once_per_key"),
            models.UniqueConstraint(
                fields=["user"], condition=Q(first_bonus_tokens__gt=0), name="purchase_is_first_once"
            ),
            models.CheckConstraint(
                condition=Q(
                    quantity__gte=1, bonus_tokens__gte=F("first_bonus_tokens") + F("promo_bonus_tokens")
                ),
                name="purchase_bonus_has_its_parts",
            ),
        ]

    def __str__(self) -> str:
        return self.number

    @property
    def list_price_idr(self) -> int:
        """What it would have cost without discounts."""
        return self.price_idr + self.quantity_discount_idr + self.promo_discount_idr

    @property
    def package_bonus_tokens(self) -> int:
        return self.bonus_tokens - self.first_bonus_tokens - self.promo_bonus_tokens

    @property
    def total_tokens(self) -> int:
        return self.tokens + self.bonus_tokens

    @property
    def tokens_after(self) -> int:
        return self.tokens_before + self.total_tokens

    @property
    def wallet_after_idr(self) -> int:
        return self.wallet_before_idr - self.price_idr


class Redemption(models.Model):
    """One use of a promo code. Its places are unique, so that no limit can be passed by two at once."""

    promo = models.ForeignKey(
        PromoCode, on_delete=models.PROTECT, related_name="redemptions", verbose_name=_("promo code")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", verbose_name=_("user")
    )
    purchase = models.OneToOneField(
        Purchase, on_delete=models.PROTECT, related_name="redemption", verbose_name=_("purchase")
    )
    place = models.PositiveIntegerField(_("use of the code"))
    user_place = models.PositiveIntegerField(_("use by this person"))
    created_at = models.DateTimeField(_("used"), db_default=Now())

    class Meta:
        verbose_name = _("use of a promo code")
        verbose_name_plural = _("uses of promo codes")
        constraints = [
            models.UniqueConstraint(fields=["promo", "place"], name="redemption_place"),
            models.UniqueConstraint(fields=["promo", "user", "user_place"], name="redemption_place_of_user"),
        ]

    def __str__(self) -> str:
        return f"{self.promo_id}/{self.place}"


class Refill(models.Model):
    """What somebody has asked to be bought by itself when few tokens are left, and within which limit.

    `terms` are those that he was shown; the package is not bought at any others. `paused_for` says why nothing is bought
    for the moment, "" where it goes on.
    """

    class Pause(models.TextChoices):
        WALLET = "wallet", _("not enough money in the wallet")
        LIMIT = "limit", _("the limit of this month is reached")
        TERMS = "terms", _("the package has changed")
        FROZEN = "frozen", _("the account is frozen")

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", verbose_name=_("user")
    )
    package = models.ForeignKey(
        Package, on_delete=models.PROTECT, related_name="+", verbose_name=_("package")
    )
    terms = models.CharField(max_length=80)
    below_tokens = models.PositiveBigIntegerField(_("below this many tokens"))
    monthly_limit_idr = models.PositiveBigIntegerField(_("at most in a month"))
    is_on = models.BooleanField(_("on"), default=True)
    paused_for = models.CharField(_("paused"), max_length=6, choices=Pause, blank=True, default="")
    changed_at = models.DateTimeField(_("changed"), default=timezone.now)

    class Meta:
        verbose_name = _("refill")
        verbose_name_plural = _("refills")
        constraints = [
            models.CheckConstraint(
                condition=Q(below_tokens__gt=0, monthly_limit_idr__gt=0), name="refill_has_limits"
            ),
        ]

    def __str__(self) -> str:
        return str(self.user_id)


class TopUp(models.Model):
    """One attempt to bring money into a wallet through a gateway; only `billing.topups` changes its state.

    Its id is the reference that the gateway gets, so a second attempt is a second row. `paid` stays `paid` with a
    `refunded_idr` below the amount, and becomes `refunded` with all of it. `owed_idr` is the part of what went back that
    the wallet could not give. `ask_at` is when the gateway is asked next without a notice, None for never again.
    """

    class State(models.TextChoices):
        CREATED = "created", _("being prepared")
        PENDING = "pending", _("waiting for payment")
        PAID = "paid", _("paid")
        EXPIRED = "expired", _("expired")
        FAILED = "failed", _("failed")
        REFUNDED = "refunded", _("refunded")

    OPEN: ClassVar[tuple[str, ...]] = (State.CREATED, State.PENDING)
    UNPAID: ClassVar[tuple[str, ...]] = (*OPEN, State.EXPIRED, State.FAILED)

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", verbose_name=_("user")
    )
    gateway = models.CharField(_("gateway"), max_length=20)
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.CREATED)
    amount_idr = models.PositiveBigIntegerField(_("amount in rupiah"))
    refunded_idr = models.PositiveBigIntegerField(_("given back in rupiah"), default=0)
    owed_idr = models.PositiveBigIntegerField(_("owed in rupiah"), default=0)
    key = models.CharField(max_length=128)
    gateway_id = models.CharField(_("id at the gateway"), max_length=128, blank=True)
    payment_id = models.CharField(_("payment at the gateway"), max_length=128, blank=True)
    pay_url = models.CharField(_("payment page"), max_length=2000, blank=True)
    return_to = models.CharField(max_length=200, blank=True)
    problem = models.CharField(_("problem"), max_length=200, blank=True)
    flag = models.CharField(
        _("to be looked at"), max_length=200, blank=True, help_text=_("Why staff have to look at it.")
    )
    was_late = models.BooleanField(_("paid late"), default=False)
    calling_until = models.DateTimeField(null=True, blank=True)
    ask_at = models.DateTimeField(_("asked again"), null=True, blank=True)
    asked_at = models.DateTimeField(_("last asked"), null=True, blank=True)
    expires_at = models.DateTimeField(_("payable until"))
    paid_at = models.DateTimeField(_("paid"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    changed_at = models.DateTimeField(_("changed"), default=timezone.now)

    class Meta:
        verbose_name = _("top-up")
        verbose_name_plural = _("top-ups")
        indexes = [
            models.Index(fields=["user", "-id"], name="topup_by_user"),
            models.Index(fields=["ask_at"], condition=Q(ask_at__isnull=False), name="topup_to_ask"),
            models.Index(fields=["payment_id"], condition=~Q(payment_id=""), name="topup_by_payment"),
            models.Index(fields=["id"], condition=~Q(flag=""), name="topup_flagged"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["user", "key"], name="topup_once_per_key"),
            models.UniqueConstraint(
                fields=["gateway", "gateway_id"],
                condition=~Q(gateway_id=""),
                name="topup_once_per_gateway_id",
            ),
            models.CheckConstraint(condition=Q(amount_idr__gt=0), name="topup_amount_positive"),
            models.CheckConstraint(
                condition=Q(refunded_idr__lte=F("amount_idr"), owed_idr__lte=F("refunded_idr")),
                name="topup_returns_what_came",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["paid", "refunded"], paid_at__isnull=False)
                | Q(state__in=["created", "pending", "expired", "failed"], paid_at=None, refunded_idr=0),
                name="topup_paid_has_moment",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def label(self) -> str:
        """The gateway's name as people know it."""
        return gateways.LABELS.get(self.gateway, self.gateway)


class GatewayEvent(models.Model):
    """A notice of a gateway as it came in, signature checked, secrets taken out. It moves nothing: it says when to ask.

    `key` is the gateway's own id of the event, or what makes it one, so that a repetition only counts `deliveries`. Open
    until `handled_at`; a sweep takes it up again at `due_at` where the bell was lost or the gateway did not answer.
    """

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    gateway = models.CharField(_("gateway"), max_length=20)
    key = models.CharField(_("event"), max_length=200)
    kind = models.CharField(_("kind"), max_length=80)
    reference = models.CharField(_("reference"), max_length=128, blank=True)
    topup = models.ForeignKey(
        TopUp,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="events",
        verbose_name=_("top-up"),
    )
    body = models.TextField(_("body"))
    deliveries = models.PositiveIntegerField(_("deliveries"), default=1)
    tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    outcome = models.CharField(_("outcome"), max_length=80, blank=True)
    due_at = models.DateTimeField(_("due"), default=timezone.now)
    received_at = models.DateTimeField(_("received"), default=timezone.now)
    handled_at = models.DateTimeField(_("handled"), null=True, blank=True)

    class Meta:
        verbose_name = _("gateway event")
        verbose_name_plural = _("gateway events")
        indexes = [
            models.Index(fields=["due_at"], condition=Q(handled_at=None), name="gateway_event_open"),
            models.Index(fields=["reference"], name="gateway_event_by_reference"),
        ]
        constraints = [models.UniqueConstraint(fields=["gateway", "key"], name="gateway_event_once")]

    def __str__(self) -> str:
        return self.id


class SandboxPayment(models.Model):
    """What the sandbox gateway knows of a payment that never was one. Development only; `billing.sandbox` writes it."""

    reference = models.CharField(primary_key=True, max_length=ids.LENGTH)
    amount_idr = models.PositiveBigIntegerField()
    paid_idr = models.PositiveBigIntegerField(default=0)
    refunded_idr = models.PositiveBigIntegerField(default=0)
    state = models.CharField(max_length=8, default="pending")
    notices = models.PositiveIntegerField(default=0)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = _("sandbox payment")
        verbose_name_plural = _("sandbox payments")

    def __str__(self) -> str:
        return self.reference


class Correction(models.Model):
    """What staff change in the books, with a reason: an adjustment of one account, the refund of a purchase, or tokens that go
    back to many people at once, which then has no `user`.

    Above a limit it waits as a proposal until somebody else among the staff has approved it. `amount` is what changes:
    rupiah of the wallet or tokens, signed; of a refund what goes back to the wallet, until it is applied at most that; of
    a return at most what all of them get together.
    Written by `billing.corrections` only.
    """

    class Kind(models.TextChoices):
        ADJUSTMENT = "adjustment", _("adjustment")
        REFUND = "refund", _("refund")
        RETURN = "return", _("tokens back to many")

    class State(models.TextChoices):
        PROPOSED = "proposed", _("waits for a second person")
        APPLIED = "applied", _("applied")
        DECLINED = "declined", _("declined")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    kind = models.CharField(_("kind"), max_length=10, choices=Kind)
    state = models.CharField(_("state"), max_length=8, choices=State)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        verbose_name=_("user"),
    )
    account = models.CharField(
        _("account"),
        max_length=20,
        choices=[(Account.TOKENS, _("tokens")), (Account.WALLET, _("wallet, in rupiah"))],
    )
    amount = models.BigIntegerField(_("amount"))
    purchase = models.ForeignKey(
        Purchase,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("purchase"),
    )
    tokens_taken = models.PositiveBigIntegerField(_("tokens taken back"), default=0)
    bonus_taken = models.PositiveBigIntegerField(_("bonus tokens taken back"), default=0)
    reason = models.CharField(_("reason"), max_length=200)
    needs_second = models.BooleanField(_("needs a second person"))
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        related_name="+",
        db_index=False,
        verbose_name=_("author"),
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        db_index=False,
        verbose_name=_("decided by"),
    )
    key = models.CharField(max_length=128)
    created_at = models.DateTimeField(_("proposed"), default=timezone.now)
    decided_at = models.DateTimeField(_("decided"), null=True, blank=True)

    class Meta:
        verbose_name = _("correction")
        verbose_name_plural = _("corrections")
        constraints = [
            models.UniqueConstraint(fields=["author", "key"], name="correction_once_per_key"),
            models.UniqueConstraint(
                fields=["purchase"],
                condition=Q(kind="refund", state__in=["proposed", "applied"]),
                name="correction_refunds_once",
            ),
            models.CheckConstraint(condition=~Q(amount=0), name="correction_changes_something"),
            models.CheckConstraint(condition=~Q(reason=""), name="correction_has_a_reason"),
            models.CheckConstraint(
                condition=Q(kind="refund", purchase__isnull=False, account="wallet", amount__gt=0)
                | Q(kind__in=["adjustment", "return"], purchase=None),
                name="correction_refunds_a_purchase",
            ),
            models.CheckConstraint(
                condition=Q(kind="return", user=None, account="tokens", amount__gt=0)
                | Q(~Q(kind="return"), user__isnull=False),
                name="correction_of_one_or_many",
            ),
            models.CheckConstraint(
                condition=Q(state="proposed", decided_by=None, decided_at=None, needs_second=True)
                | Q(state__in=["applied", "declined"], decided_by__isnull=False, decided_at__isnull=False),
                name="correction_is_decided_by_somebody",
            ),
            models.CheckConstraint(
                condition=~Q(state="applied", needs_second=True, decided_by=F("author")),
                name="correction_by_two_people",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Notice(models.Model):
    """Something about his money that a person is told, in the page and by mail. Once for each `key`.

    The figures are kept, the words are made when it is read, in the reader's language. `facts` are those that only some
    kinds have. One that its reader does not want in the page counts as read. Written by `billing.notices` only.
    Until `mail_until` whoever sends its mail answers for it.
    """

    class Kind(models.TextChoices):
        LOW_BALANCE = "low_balance", _("Tokens are running low")
        TOPUP = "topup", _("Top-up received")
        TOPUP_FAILED = "topup_failed", _("Top-up failed or expired")
        PURCHASE = "purchase", _("Tokens bought")
        REFUND = "refund", _("Refund")
        ADJUSTMENT = "adjustment", _("Adjustment by staff")
        REFILL = "refill", _("Automatic purchase paused")
        BUDGET = "budget", _("Budget used up in part or in full")
        UNUSUAL = "unusual", _("Unusual use")
        WEBHOOK = "webhook", _("Webhook turned off")

    OPTIONAL: ClassVar[tuple[str, ...]] = (Kind.LOW_BALANCE, Kind.BUDGET, Kind.UNUSUAL)
    """Kinds that somebody may keep out of his inbox; whatever has changed his money stands in it."""

    class Mail(models.TextChoices):
        UNWANTED = "unwanted", _("not wanted")
        DUE = "due", _("due")
        SENDING = "sending", _("being sent")
        SENT = "sent", _("sent")
        FAILED = "failed", _("failed")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        verbose_name=_("user"),
    )
    kind = models.CharField(_("kind"), max_length=12, choices=Kind)
    key = models.CharField(max_length=128)
    amount = models.BigIntegerField(_("amount"), null=True)
    unit = models.CharField(_("unit"), max_length=5, choices=Unit, blank=True)
    reference = models.CharField(_("reference"), max_length=64, blank=True)
    detail = models.CharField(_("detail"), max_length=200, blank=True)
    facts = models.JSONField(_("facts"), default=dict, blank=True)
    in_page = models.BooleanField(_("in the page"), default=True)
    mail = models.CharField(_("mail"), max_length=8, choices=Mail)
    mail_tries = models.PositiveSmallIntegerField(_("tries"), default=0)
    mail_until = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    read_at = models.DateTimeField(_("read"), null=True, blank=True)

    class Meta:
        verbose_name = _("notice")
        verbose_name_plural = _("notices")
        indexes = [
            models.Index(fields=["user", "id"], name="notice_by_user"),
            models.Index(fields=["user"], condition=Q(read_at=None), name="notice_unread"),
            models.Index(fields=["id"], condition=Q(mail__in=["due", "sending"]), name="notice_mail_to_send"),
        ]
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="notice_once_per_key")]

    def __str__(self) -> str:
        return self.id


class NoticeWishes(models.Model):
    """What a person wants to be told. Without a row it is the defaults.

    Below `low_below` tokens (null: never) he is told once; `is_armed` says that the balance has been above it since.
    """

    LOW_BELOW: ClassVar[int] = 1_000

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        primary_key=True,
        related_name="notice_wishes",
        verbose_name=_("user"),
    )
    low_below = models.PositiveBigIntegerField(_("low below"), null=True, blank=True, default=LOW_BELOW)
    is_armed = models.BooleanField(_("armed"), default=False)
    without_mail = models.JSONField(_("kinds without mail"), default=list, blank=True)
    without_page = models.JSONField(_("kinds that are not in the page"), default=list, blank=True)

    class Meta:
        verbose_name = _("wishes for notices")
        verbose_name_plural = _("wishes for notices")

    def __str__(self) -> str:
        return str(self.pk)


class WebhookEndpoint(models.Model):
    """An address of somebody's that is told of his notices, of the `kinds` that he has chosen. Written by
    `billing.hooks` only.

    The secret that went before goes on signing until `previous_until`. `failing_since` is when the first of the failures
    was that no success has followed.
    """

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    url = models.CharField(max_length=500)
    kinds = models.JSONField(default=list)
    secret = SealedTextField()
    previous_secret = SealedTextField(blank=True)
    previous_until = models.DateTimeField(null=True)
    is_on = models.BooleanField(default=True)
    failing_since = models.DateTimeField(null=True)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.id

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc


class WebhookDelivery(models.Model):
    """A message to an endpoint, and the row that is its queue. Written by `billing.hooks` only.

    While it is due, whoever moves `due_at` on has it for that long; `attempts` fences off one who comes back late.
    """

    class State(models.TextChoices):
        DUE = "due", _("due")
        DONE = "done", _("delivered")
        FAILED = "failed", _("failed")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    endpoint = models.ForeignKey(
        WebhookEndpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    message_id = models.CharField(max_length=ids.LENGTH)
    kind = models.CharField(max_length=40)
    body = models.TextField()
    state = models.CharField(max_length=6, choices=State, default=State.DUE)
    due_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    retries_left = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        indexes = [
            models.Index(fields=["endpoint", "id"], name="delivery_by_endpoint"),
            models.Index(fields=["due_at"], condition=Q(state="due"), name="delivery_due"),
            models.Index(fields=["created_at"], name="delivery_by_age"),
        ]
        constraints = [models.UniqueConstraint(fields=["endpoint", "message_id"], name="delivery_once")]

    def __str__(self) -> str:
        return self.id


class WebhookAttempt(models.Model):
    """One request of a delivery. `problem` is a code of `aleph.outbound` where no answer came; with neither a status nor a
    problem it is under way, or whoever sent it died."""

    delivery = models.ForeignKey(WebhookDelivery, on_delete=models.CASCADE, related_name="log")
    number = models.PositiveSmallIntegerField()
    started_at = models.DateTimeField(default=timezone.now)
    took_ms = models.PositiveIntegerField(null=True)
    status = models.PositiveSmallIntegerField(null=True)
    problem = models.CharField(max_length=10, blank=True)
    excerpt = models.CharField(max_length=500, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["delivery", "number"], name="attempt_once")]

    def __str__(self) -> str:
        return f"{self.delivery_id} {self.number}"


class AuditRound(models.Model):
    """One pass of `billing.rounds` over the accounts of all people, and what it has found so far.

    `done_to` is the last account that was looked at, where the next slice goes on. `open_holds` and `held_tokens` are
    those of the accounts up to there, `oldest_hold` the id of the oldest of them, "" for none.
    """

    began_at = models.DateTimeField(_("began"), db_default=Now())
    ended_at = models.DateTimeField(_("ended"), null=True)
    done_to = models.BigIntegerField(_("done up to account"), default=0)
    accounts = models.PositiveBigIntegerField(_("accounts"), default=0)
    drifted = models.PositiveBigIntegerField(_("accounts that disagree"), default=0)
    open_holds = models.PositiveBigIntegerField(_("open holds"), default=0)
    held_tokens = models.PositiveBigIntegerField(_("tokens held"), default=0)
    oldest_hold = models.CharField(_("oldest hold"), max_length=ids.LENGTH, blank=True)

    class Meta:
        verbose_name = _("audit round")
        verbose_name_plural = _("audit rounds")

    def __str__(self) -> str:
        return str(self.pk)
