"""The books: accounts, transfers between them, packages of tokens and their purchases.

Only `billing.ledger` writes accounts and transfers. Rows of `Transfer` are never changed or deleted: triggers refuse it
on both databases, and a correction is a transfer of its own. The vocabulary is TigerBeetle's.
"""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids


class Unit(models.TextChoices):
    TOKEN = "TOKEN", _("tokens")
    IDR = "IDR", _("rupiah")


class Account(models.Model):
    """Where an amount of one unit stands. A user has `tokens` and a `wallet`; the others belong to the house.

    `balance` and `held` are cached for users, in whole tokens or whole rupiah; what can be spent is their difference.
    House accounts cache nothing, so that no row is touched by every reply.
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


class Purchase(models.Model):
    """One bought package, with the figures it was bought at and what both accounts were before."""

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    number = models.CharField(_("receipt number"), max_length=24, unique=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", verbose_name=_("user")
    )
    package = models.ForeignKey(
        Package, on_delete=models.PROTECT, related_name="+", verbose_name=_("package")
    )
    package_name = models.CharField(_("package"), max_length=80)
    tokens = models.PositiveBigIntegerField(_("tokens"))
    bonus_tokens = models.PositiveBigIntegerField(_("bonus tokens"))
    price_idr = models.PositiveBigIntegerField(_("price in rupiah"))
    wallet_before_idr = models.BigIntegerField(_("wallet before"))
    tokens_before = models.BigIntegerField(_("tokens before"))
    key = models.CharField(max_length=128)
    created_at = models.DateTimeField(_("bought"), default=timezone.now)

    class Meta:
        verbose_name = _("purchase")
        verbose_name_plural = _("purchases")
        indexes = [models.Index(fields=["user", "-created_at"], name="purchase_by_user")]
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="purchase_once_per_key")]

    def __str__(self) -> str:
        return self.number

    @property
    def total_tokens(self) -> int:
        return self.tokens + self.bonus_tokens

    @property
    def tokens_after(self) -> int:
        return self.tokens_before + self.total_tokens

    @property
    def wallet_after_idr(self) -> int:
        return self.wallet_before_idr - self.price_idr


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
