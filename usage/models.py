"""What every call to a language model used and cost us. Written by `usage.meter` only, read by `usage.reports`.

LLM tokens are what a provider counts; they are not the tokens that people buy (those live in `billing`). This app works
for calls that nobody was charged for, too.
"""

import re
from decimal import Decimal

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import Company

PRICE_DIGITS, PRICE_PLACES = 14, 6
"""USD for a million LLM tokens. Six places hold the finest published figure (0.003 USD)."""

COST_DIGITS, COST_PLACES = 20, 12
"""USD for a call. Twelve places hold one token at 0.000001 USD a million, exactly."""

DEAREST_USD_PER_MILLION = Decimal(10_000)
"""Far above any published price. After a slip of the pen a call could cost more than a row can hold, and a row
that cannot be stored stops the charge that it belongs to."""

PLAUSIBLE = [MinValueValidator(Decimal(0)), MaxValueValidator(DEAREST_USD_PER_MILLION)]

OPERATIONS = {
    "chat_message": _("Chat"),
    "title": _("Title"),
    "presentation_outline": _("Outline"),
    "presentation_generate": _("Presentation"),
    "deep_research_section": _("Research"),
    "editor_assist": _("Writing help"),
    "test_case_generate": _("Test cases"),
}
"""Names of the operations of our own. Others are shown by their code."""


NOT_IN_IDS = re.compile(r"[^a-z0-9]+")


def name_for_people(label: str, model: str) -> str:
    """What people know a model by; where nobody said it, its id without the organisation that owns it."""
    return label or short_name(model)


def short_name(model: str) -> str:
    """A model's id without the organisation that owns it: Llama-3.3-70B-Instruct."""
    return model.rpartition("/")[2]


def spelled(name: str) -> str:
    """A name as ids are spelled, to compare them: llama-3-3-70b-instruct."""
    return NOT_IN_IDS.sub("-", short_name(name).lower()).strip("-")


def plausible(field: str) -> Q:
    return Q(**{field: None}) | Q(**{f"{field}__gte": 0, f"{field}__lte": DEAREST_USD_PER_MILLION})


class ModelPrice(models.Model):
    """What a provider charges for a model from `valid_from` on, until `valid_to` (exclusive). `*` is his default."""

    provider = models.CharField(_("provider"), max_length=40)
    model = models.CharField(
        _("model"), max_length=120, help_text=_("The provider's own id, or * for his default.")
    )
    input_usd_per_million = models.DecimalField(
        _("input, USD per million"),
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_PLACES,
        validators=PLAUSIBLE,
    )
    cached_input_usd_per_million = models.DecimalField(
        _("cached input, USD per million"),
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_PLACES,
        null=True,
        blank=True,
        validators=PLAUSIBLE,
    )
    cache_write_usd_per_million = models.DecimalField(
        _("cache write, USD per million"),
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_PLACES,
        null=True,
        blank=True,
        validators=PLAUSIBLE,
    )
    output_usd_per_million = models.DecimalField(
        _("output, USD per million"),
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_PLACES,
        validators=PLAUSIBLE,
    )
    valid_from = models.DateTimeField(_("valid from"))
    valid_to = models.DateTimeField(_("valid to"), null=True, blank=True)
    source = models.CharField(_("source"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints = [
            models.UniqueConstraint(fields=["provider", "model", "valid_from"], name="price_once_per_start"),
            models.CheckConstraint(
                condition=plausible("input_usd_per_million")
                & plausible("cached_input_usd_per_million")
                & plausible("cache_write_usd_per_million")
                & plausible("output_usd_per_million"),
                name="price_plausible",
            ),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gt=models.F("valid_from")),
                name="price_ends_after_start",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"


class TokenUsage(models.Model):
    """One call to a provider. The classes of tokens are disjoint; null means that nobody said, never 0."""

    class Status(models.TextChoices):
        COMPLETE = "complete", _("complete")
        STOPPED = "stopped", _("stopped")
        FAILED = "failed", _("failed")
        INTERRUPTED = "interrupted", _("interrupted")

    class Source(models.TextChoices):
        REPORTED = "reported", _("reported")
        PARTIAL = "partial", _("partly estimated")
        ESTIMATED = "estimated", _("estimated")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
        verbose_name=_("user"),
    )
    company = models.ForeignKey(
        Company, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("company")
    )
    operation = models.CharField(_("operation"), max_length=40)
    operation_id = models.CharField(_("operation id"), max_length=64)
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)

    provider = models.CharField(_("provider"), max_length=40)
    model = models.CharField(
        _("model"), max_length=120, help_text=_("The id that the provider answered with.")
    )
    requested_model = models.CharField(_("requested model"), max_length=120)
    label = models.CharField(_("model for people"), max_length=80, blank=True)

    fresh_input_tokens = models.PositiveBigIntegerField(_("fresh input"), null=True)
    cache_read_tokens = models.PositiveBigIntegerField(_("cached input"), null=True)
    cache_write_tokens = models.PositiveBigIntegerField(_("cache write"), null=True)
    visible_output_tokens = models.PositiveBigIntegerField(_("visible output"), null=True)
    reasoning_tokens = models.PositiveBigIntegerField(_("reasoning"), null=True)
    input_tokens = models.PositiveBigIntegerField(_("input"))
    output_tokens = models.PositiveBigIntegerField(_("output"))
    total_tokens = models.PositiveBigIntegerField(_("total"))

    price = models.ForeignKey(
        ModelPrice, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("price")
    )
    input_cost_usd = models.DecimalField(
        _("input cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES, null=True
    )
    output_cost_usd = models.DecimalField(
        _("output cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES, null=True
    )
    total_cost_usd = models.DecimalField(
        _("total cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES, null=True
    )

    status = models.CharField(_("status"), max_length=12, choices=Status)
    source = models.CharField(_("counted by"), max_length=10, choices=Source)
    flagged = models.BooleanField(_("counts disagree"), default=False)
    first_token_ms = models.PositiveIntegerField(_("time to first token, ms"), null=True)
    latency_ms = models.PositiveIntegerField(_("latency, ms"), null=True)
    transfer_id = models.CharField(_("paid by transfer"), max_length=ids.LENGTH, blank=True)
    metadata = models.JSONField(_("metadata"), default=dict)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("call")
        verbose_name_plural = _("calls")
        indexes = [models.Index(fields=["user", "-created_at"], name="usage_by_user")]
        constraints = [
            models.UniqueConstraint(fields=["operation_id", "attempt"], name="usage_once_per_attempt"),
            models.CheckConstraint(
                condition=Q(total_tokens=models.F("input_tokens") + models.F("output_tokens")),
                name="usage_total_adds_up",
            ),
            models.CheckConstraint(
                condition=Q(total_cost_usd=None) | Q(total_cost_usd__gte=0), name="usage_cost_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_estimated(self) -> bool:
        return self.source != self.Source.REPORTED

    @property
    def model_name(self) -> str:
        """The model for people: the one that was asked for."""
        return name_for_people(self.label, self.requested_model)

    @property
    def is_answered_by_another(self) -> bool:
        """Whether the model that answered is not the one that people know it by, nor a version of it."""
        asked, answered = spelled(self.model_name), spelled(self.model)
        return (
            answered != asked and not answered.startswith(f"{asked}-") and not asked.endswith(f"-{answered}")
        )

    @property
    def operation_name(self) -> str:
        return str(OPERATIONS.get(self.operation) or self.operation.replace("_", " ").capitalize())
