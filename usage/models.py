"""What every call to a language model used and cost us. Calls are written by `usage.meter` only, read by `usage.reports`.

LLM tokens are what a provider counts; they are not the tokens that people buy (those live in `billing`). This app works
for calls that nobody was charged for, too.
"""

import re
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import ApiKey, Company

PRICE_DIGITS, PRICE_PLACES = 14, 6
"""USD for a million LLM tokens. Six places hold the finest published figure (0.003 USD)."""

COST_DIGITS, COST_PLACES = 20, 12
"""USD for a call. Twelve places hold one token at 0.000001 USD a million, exactly."""

SUM_DIGITS = 26
"""USD for all calls of an hour or a day."""

DEAREST_USD_PER_MILLION = Decimal(10_000)
"""Far above any published price. After a slip of the pen a call could cost more than a row can hold, and a row
that cannot be stored stops the charge that it belongs to."""

USD_UNIT = Decimal(1).scaleb(-COST_PLACES)
"""What budgets count dollars in."""

MOST_IN_BUDGET = 10**18
"""A million dollars in `USD_UNIT`. Eight of them fit into a column."""

PLAUSIBLE = [MinValueValidator(Decimal(0)), MaxValueValidator(DEAREST_USD_PER_MILLION)]

MIDNIGHT = time(0)
DAYS_OF_WEEK = (_("Mon"), _("Tue"), _("Wed"), _("Thu"), _("Fri"), _("Sat"), _("Sun"))

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


def usd_per_million(label: Any, *, known: bool = False) -> Any:
    """A column for a unit price; `known`: one that every price says."""
    return models.DecimalField(
        label,
        max_digits=PRICE_DIGITS,
        decimal_places=PRICE_PLACES,
        null=not known,
        blank=not known,
        validators=PLAUSIBLE,
    )


class UnitPrices(models.Model):
    """Unit prices of a provider for a model, and the calls that they are for: of any size and at any time, or those with
    a longer prompt, or those that begin in a window of the week. Where several fit a call, the narrowest holds, for the
    whole call (`usage.pricing.price_at`)."""

    provider = models.CharField(_("provider"), max_length=40)
    model = models.CharField(
        _("model"), max_length=120, help_text=_("The provider's own id, or * for his default.")
    )
    above_input_tokens = models.PositiveIntegerField(
        _("prompts above, in LLM tokens"),
        default=0,
        help_text=_(
            "The whole call costs this where its prompt is longer, cached parts included. 0: any prompt."
        ),
    )
    weekdays = models.CharField(
        _("days of the week (UTC)"),
        max_length=7,
        blank=True,
        validators=[RegexValidator(r"^1?2?3?4?5?6?7?$", _("Digits from 1, Monday, to 7, Sunday: 12345."))],
        help_text=_("12345: Monday to Friday. Empty: every day."),
    )
    from_utc = models.TimeField(_("from (UTC)"), default=MIDNIGHT)
    to_utc = models.TimeField(
        _("to (UTC)"), default=MIDNIGHT, help_text=_("00:00 is the end of the day. By when a call began.")
    )
    input_usd_per_million = usd_per_million(_("input, USD per million"), known=True)
    cached_input_usd_per_million = usd_per_million(_("cached input, USD per million"))
    cache_write_usd_per_million = usd_per_million(_("cache write, USD per million"))
    cache_write_1h_usd_per_million = usd_per_million(_("cache write for an hour, USD per million"))
    output_usd_per_million = usd_per_million(_("output, USD per million"), known=True)
    source = models.CharField(_("source"), max_length=200, blank=True)

    FIGURES: ClassVar[tuple[str, ...]] = (
        "input_usd_per_million",
        "cached_input_usd_per_million",
        "cache_write_usd_per_million",
        "cache_write_1h_usd_per_million",
        "output_usd_per_million",
    )
    LANE: ClassVar[tuple[str, ...]] = (
        "provider",
        "model",
        "above_input_tokens",
        "weekdays",
        "from_utc",
        "to_utc",
    )
    """What tells one timeline of prices from another."""

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.provider} {self.model}"

    @property
    def is_windowed(self) -> bool:
        return bool(self.weekdays) or self.from_utc != self.to_utc

    @property
    def hours(self) -> str:
        """The window for people: Mon Tue 01:00-04:00 UTC; "" for any time."""
        if not self.is_windowed:
            return ""
        if self.weekdays == "12345":
            days = f"{DAYS_OF_WEEK[0]}–{DAYS_OF_WEEK[4]}"
        else:
            days = " ".join(str(DAYS_OF_WEEK[int(day) - 1]) for day in self.weekdays if day in "1234567")
        hours = ""
        if self.from_utc != self.to_utc:
            ends = "24:00" if self.to_utc == MIDNIGHT else f"{self.to_utc:%H:%M}"
            hours = f"{self.from_utc:%H:%M}–{ends}"
        return " ".join(filter(None, (days, hours, "UTC")))

    def holds_at(self, moment: datetime) -> bool:
        """Whether a call that begins at this moment is in the window."""
        in_utc = moment.astimezone(UTC)
        if self.weekdays and str(in_utc.isoweekday()) not in self.weekdays:
            return False
        return self.from_utc <= in_utc.time() and (self.to_utc == MIDNIGHT or in_utc.time() < self.to_utc)

    @property
    def snapshot(self) -> dict[str, Any]:
        """What a call keeps of the prices that it was charged at; figures as texts, exact."""
        figures = {name.removesuffix("_usd_per_million"): getattr(self, name) for name in self.FIGURES}
        said: dict[str, Any] = {
            name: f"{usd.normalize():f}" for name, usd in figures.items() if usd is not None
        }
        if self.above_input_tokens:
            said["above_input_tokens"] = self.above_input_tokens
        if self.is_windowed:
            said["hours"] = f"{self.weekdays} {self.from_utc:%H:%M}-{self.to_utc:%H:%M} UTC".strip()
        return said


def plausible_figures() -> Q:
    condition = Q()
    for name in UnitPrices.FIGURES:
        condition &= plausible(name)
    return condition


class ModelPrice(UnitPrices):
    """What a provider charges for a model from `valid_from` on, until `valid_to` (exclusive). `*` is his default. One that
    ends where it begins never holds: it was wrong from its first moment on, and another stands for it
    (`PriceCorrection`)."""

    valid_from = models.DateTimeField(_("valid from"))
    valid_to = models.DateTimeField(_("valid to"), null=True, blank=True)

    class Meta:
        verbose_name = _("price")
        verbose_name_plural = _("prices")
        constraints = [
            models.UniqueConstraint(
                fields=[*UnitPrices.LANE, "valid_from"],
                condition=Q(valid_to=None) | Q(valid_to__gt=models.F("valid_from")),
                name="price_once_per_start",
            ),
            models.CheckConstraint(condition=plausible_figures(), name="price_plausible"),
            models.CheckConstraint(
                condition=Q(valid_to=None) | Q(valid_to__gte=models.F("valid_from")),
                name="price_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(to_utc=MIDNIGHT) | Q(to_utc__gt=models.F("from_utc")),
                name="price_window_ends_after_start",
                violation_error_message=_("A window ends after it has begun; make two of one over midnight."),
            ),
        ]

    @property
    def is_replaced(self) -> bool:
        """Whether another stands for it from its first moment on."""
        return self.valid_to == self.valid_from


class PriceProposal(UnitPrices):
    """A published price that differs from ours, for staff to accept or refuse. Written by `usage.proposals` only."""

    class State(models.TextChoices):
        OPEN = "open", _("open")
        ACCEPTED = "accepted", _("accepted")
        REFUSED = "refused", _("refused")

    current = models.ForeignKey(
        ModelPrice,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("price compared with"),
    )
    state = models.CharField(_("state"), max_length=8, choices=State, default=State.OPEN)
    found_at = models.DateTimeField(_("found"), default=timezone.now)
    decided_at = models.DateTimeField(_("decided"), null=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("decided by"),
    )
    price = models.ForeignKey(
        ModelPrice, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("price made of it")
    )

    class Meta:
        verbose_name = _("price proposal")
        verbose_name_plural = _("price proposals")
        constraints = [
            models.UniqueConstraint(
                fields=[*UnitPrices.LANE], condition=Q(state="open"), name="proposal_open_once"
            ),
            models.CheckConstraint(condition=plausible_figures(), name="proposal_plausible"),
            models.CheckConstraint(
                condition=Q(state="open", decided_at=None) | Q(~Q(state="open"), decided_at__isnull=False),
                name="proposal_decided_at_a_time",
            ),
        ]


class PriceCorrection(models.Model):
    """That calls were priced at a price which was wrong, from `since` to before `until` (None: until now), and which is
    right. What it adds to what each of them cost is a `CostCorrection`; the calls up to `upto` have theirs, and from
    `ended_at` on all have. Written by `usage.recosting` only."""

    wrong = models.ForeignKey(
        ModelPrice, on_delete=models.PROTECT, related_name="corrections", verbose_name=_("wrong price")
    )
    right = models.OneToOneField(
        ModelPrice, on_delete=models.PROTECT, related_name="corrects", verbose_name=_("right price")
    )
    since = models.DateTimeField(_("wrong since"))
    until = models.DateTimeField(_("wrong until"), null=True)
    reason = models.CharField(_("reason"), max_length=200)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("author"),
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    upto = models.CharField(max_length=ids.LENGTH, blank=True)
    calls = models.PositiveBigIntegerField(_("calls corrected"), default=0)
    difference_usd = models.DecimalField(
        _("difference in USD"), max_digits=SUM_DIGITS, decimal_places=COST_PLACES, default=Decimal(0)
    )
    ended_at = models.DateTimeField(_("all calls corrected"), null=True)

    class Meta:
        verbose_name = _("price correction")
        verbose_name_plural = _("price corrections")
        constraints = [
            models.CheckConstraint(condition=~Q(reason=""), name="price_correction_has_a_reason"),
            models.CheckConstraint(
                condition=~Q(wrong=models.F("right")), name="price_correction_names_another"
            ),
            models.CheckConstraint(
                condition=Q(until=None) | Q(until__gt=models.F("since")), name="price_correction_of_some_time"
            ),
        ]

    def __str__(self) -> str:
        return str(self.right)


class TimeIndex(models.Index):
    """An index on the time of rows that are stored in the order of their time: by ranges of blocks on PostgreSQL, 48 kB for
    ten million rows."""

    def create_sql(self, model: Any, schema_editor: Any, using: str = "", **kwargs: Any) -> Any:
        if schema_editor.connection.vendor == "postgresql":
            using = " USING brin"
        return super().create_sql(model, schema_editor, using=using, **kwargs)


class TokenUsage(models.Model):
    """One call to a provider. The classes of tokens are disjoint; null means that nobody said, never 0.

    What was answered without a call, from an earlier answer, is here as well: `source` says so, and it counts 0."""

    class Status(models.TextChoices):
        COMPLETE = "complete", _("complete")
        STOPPED = "stopped", _("stopped")
        FAILED = "failed", _("failed")
        INTERRUPTED = "interrupted", _("interrupted")

    class Source(models.TextChoices):
        REPORTED = "reported", _("reported")
        PARTIAL = "partial", _("partly estimated")
        ESTIMATED = "estimated", _("estimated")
        REUSED = "reused", _("reused")

    UNSURE: ClassVar[tuple[str, ...]] = ("partial", "estimated")

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
        Company,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
        verbose_name=_("company"),
    )
    operation = models.CharField(_("operation"), max_length=40)
    operation_id = models.CharField(_("operation id"), max_length=64)
    attempt = models.PositiveSmallIntegerField(_("attempt"), default=1)
    session = models.CharField(_("session"), max_length=ids.LENGTH, blank=True)

    provider = models.CharField(_("provider"), max_length=40)
    model = models.CharField(
        _("model"), max_length=120, help_text=_("The id that the provider answered with.")
    )
    requested_model = models.CharField(_("requested model"), max_length=120)
    label = models.CharField(_("model for people"), max_length=80, blank=True)

    fresh_input_tokens = models.PositiveBigIntegerField(_("fresh input"), null=True)
    cache_read_tokens = models.PositiveBigIntegerField(_("cached input"), null=True)
    cache_write_tokens = models.PositiveBigIntegerField(_("cache write"), null=True)
    cache_write_1h_tokens = models.PositiveBigIntegerField(_("cache write for an hour"), null=True)
    visible_output_tokens = models.PositiveBigIntegerField(_("visible output"), null=True)
    reasoning_tokens = models.PositiveBigIntegerField(_("reasoning"), null=True)
    input_tokens = models.PositiveBigIntegerField(_("input"))
    output_tokens = models.PositiveBigIntegerField(_("output"))
    total_tokens = models.PositiveBigIntegerField(_("total"))

    price = models.ForeignKey(
        ModelPrice, on_delete=models.PROTECT, null=True, related_name="+", verbose_name=_("price")
    )
    unit_prices = models.JSONField(_("unit prices, USD per million"), null=True)
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
    charged_tokens = models.PositiveBigIntegerField(
        _("charged"), default=0, help_text=_("Aleph tokens that were taken for it.")
    )
    charged_idr_thousandths = models.PositiveBigIntegerField(
        _("charged, thousandths of a rupiah"),
        default=0,
        help_text=_("What their owner had last paid for so many tokens, bonus included."),
    )
    metadata = models.JSONField(_("metadata"), default=dict)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("call")
        verbose_name_plural = _("calls")
        indexes = [
            # With all that a person's pages add up, so that they need not fetch rows that lie far apart: ten times as fast
            # for who calls often, for a gigabyte to ten million calls. Totals are input and output, calls are rows: neither
            # needs a column of its own. Databases without such indexes have the two columns.
            models.Index(
                fields=["user", "-created_at"],
                include=[
                    "operation",
                    "provider",
                    "model",
                    "label",
                    "requested_model",
                    "session",
                    "input_tokens",
                    "output_tokens",
                    "cache_read_tokens",
                    "reasoning_tokens",
                    "total_cost_usd",
                    "charged_tokens",
                ],
                name="usage_by_user",
            ),
            TimeIndex(fields=["created_at"], name="usage_by_time"),
            models.Index(
                fields=["company", "-created_at"], condition=Q(company__isnull=False), name="usage_by_company"
            ),
            # What staff look for is rare, and a call that is as it should be stands in none of these.
            models.Index(fields=["-id"], condition=Q(flagged=True), name="usage_flagged"),
            models.Index(
                fields=["status", "-id"], condition=~Q(status="complete"), name="usage_not_complete"
            ),
            models.Index(
                fields=["source", "-id"], condition=~Q(source="reported"), name="usage_not_reported"
            ),
        ]
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

    corrected_input_usd: Decimal
    corrected_usd: Decimal
    """What corrections add to its cost; there where `usage.costs` was asked for it."""

    def __str__(self) -> str:
        return self.id

    @property
    def is_estimated(self) -> bool:
        return self.source in self.UNSURE

    @property
    def cost_usd(self) -> Decimal | None:
        """What it cost by what is known now, corrections included; None where nobody knows the price."""
        return None if self.total_cost_usd is None else self.total_cost_usd + self.corrected_usd

    @property
    def input_usd(self) -> Decimal | None:
        return None if self.input_cost_usd is None else self.input_cost_usd + self.corrected_input_usd

    @property
    def output_usd(self) -> Decimal | None:
        if self.output_cost_usd is None:
            return None
        return self.output_cost_usd + self.corrected_usd - self.corrected_input_usd

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


class CostCorrection(models.Model):
    """What a price correction adds to what a call cost, in USD; less than 0 where it cost less. Stands beside the call, which
    stays as it is. Rows are added, and go only with their call (`usage.retention`). Written by `usage.recosting` only."""

    # No constraint of the database: a month of calls could not be dropped.
    usage = models.ForeignKey(
        TokenUsage,
        on_delete=models.DO_NOTHING,
        related_name="corrections",
        db_constraint=False,
        db_index=False,
        verbose_name=_("call"),
    )
    correction = models.ForeignKey(
        PriceCorrection,
        on_delete=models.PROTECT,
        related_name="entries",
        db_index=False,
        verbose_name=_("price correction"),
    )
    input_cost_usd = models.DecimalField(_("input cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES)
    output_cost_usd = models.DecimalField(
        _("output cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES
    )
    total_cost_usd = models.DecimalField(_("total cost"), max_digits=COST_DIGITS, decimal_places=COST_PLACES)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["usage", "correction"], name="cost_corrected_once"),
        ]

    def __str__(self) -> str:
        return self.usage_id


class Calibration(models.Model):
    """How many LLM tokens a model's vocabulary makes of one of our units, by kind of text, as its provider's counts have
    taught. Written by `usage.calibration` only; every process keeps the few rows in memory.

    Factors and reserves are thousandths, so are `ratios` and `errors`, of the newest observations, newest last.
    """

    model = models.CharField(_("model"), max_length=120)
    kind = models.CharField(_("kind of text"), max_length=12)
    factor = models.PositiveIntegerField(_("factor, thousandths"))
    reserve = models.PositiveIntegerField(_("reserve, thousandths"))
    observations = models.PositiveBigIntegerField(_("observations"), default=0)
    exceeded = models.PositiveBigIntegerField(_("above the reserve"), default=0)
    ratios = models.JSONField(_("ratios"), default=list)
    errors = models.JSONField(_("errors"), default=list)
    updated_at = models.DateTimeField(_("updated"), default=timezone.now)

    class Meta:
        verbose_name = _("estimate of a kind of text")
        verbose_name_plural = _("estimates by kind of text")
        constraints = [
            models.UniqueConstraint(fields=["model", "kind"], name="calibration_once"),
            models.CheckConstraint(
                condition=Q(factor__gte=100, factor__lte=10_000, reserve__gte=1000, reserve__lte=10_000),
                name="calibration_bounded",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model} {self.kind}"


class CalibrationMark(models.Model):
    """The last call that was learnt from. One row."""

    upto = models.CharField(max_length=ids.LENGTH, blank=True)

    def __str__(self) -> str:
        return self.upto


class ExchangeRate(models.Model):
    """What a US dollar is worth in rupiah from a day on, until the next row. For display: nothing is charged by it."""

    valid_on = models.DateField(_("from day"), unique=True)
    idr_per_usd = models.DecimalField(
        _("rupiah for a US dollar"),
        max_digits=10,
        decimal_places=2,
        validators=[MinValueValidator(Decimal(1000)), MaxValueValidator(Decimal(1_000_000))],
    )
    source = models.CharField(_("source"), max_length=200, blank=True)

    class Meta:
        verbose_name = _("exchange rate")
        verbose_name_plural = _("exchange rates")
        constraints = [
            models.CheckConstraint(
                condition=Q(idr_per_usd__gte=1000, idr_per_usd__lte=1_000_000), name="rate_plausible"
            )
        ]

    def __str__(self) -> str:
        return f"{self.valid_on}: {self.idr_per_usd}"


class Sums(models.Model):
    """What a rollup adds up of the calls of one period. Classes that nobody reported count as 0 here."""

    calls = models.PositiveBigIntegerField()
    failed = models.PositiveBigIntegerField()
    interrupted = models.PositiveBigIntegerField()
    estimated = models.PositiveBigIntegerField()
    flagged = models.PositiveBigIntegerField()
    unpriced = models.PositiveBigIntegerField()
    cache_read_tokens = models.PositiveBigIntegerField()
    reasoning_tokens = models.PositiveBigIntegerField()
    input_tokens = models.PositiveBigIntegerField()
    output_tokens = models.PositiveBigIntegerField()
    total_tokens = models.PositiveBigIntegerField()
    charged_tokens = models.PositiveBigIntegerField(default=0)
    charged_idr_thousandths = models.PositiveBigIntegerField(default=0)
    total_cost_usd = models.DecimalField(max_digits=SUM_DIGITS, decimal_places=COST_PLACES)

    class Meta:
        abstract = True


class UsageHour(Sums):
    """The calls of one hour, by company, operation, provider and model. Written by `usage.rollups` only."""

    hour = models.DateTimeField()
    company = models.ForeignKey(
        Company,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
    )
    operation = models.CharField(max_length=40)
    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=120)
    label = models.CharField(max_length=80, blank=True)
    first_token_ms = models.PositiveBigIntegerField()
    first_token_calls = models.PositiveBigIntegerField()
    latency_ms = models.PositiveBigIntegerField()
    latency_calls = models.PositiveBigIntegerField()

    class Meta:
        indexes = [
            models.Index(fields=["hour"], name="usagehour_by_hour"),
            models.Index(
                fields=["company", "hour"],
                condition=Q(company__isnull=False),
                name="usagehour_by_company",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00} {self.provider} {self.model}"


class UsageDay(Sums):
    """The calls of one person in one day of UTC. Written by `usage.rollups` only."""

    day = models.DateField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
    )

    class Meta:
        indexes = [
            models.Index(fields=["day"], name="usageday_by_day"),
            models.Index(fields=["user", "day"], name="usageday_by_user"),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id}"


class UsageMonth(Sums):
    """The calls of one person in one month of UTC, by company, operation, provider and model: what is left of them when
    they are not kept any more. Written by `usage.rollups` only."""

    month = models.DateField()
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
    )
    company = models.ForeignKey(
        Company, on_delete=models.SET_NULL, null=True, related_name="+", db_index=False
    )
    operation = models.CharField(max_length=40)
    provider = models.CharField(max_length=40)
    model = models.CharField(max_length=120)

    class Meta:
        indexes = [
            models.Index(fields=["user", "month"], name="usagemonth_by_user"),
            models.Index(fields=["month"], name="usagemonth_by_month"),
            models.Index(
                fields=["company", "month"], condition=Q(company__isnull=False), name="usagemonth_by_company"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.month:%Y-%m} {self.user_id} {self.provider} {self.model}"


class RollupMark(models.Model):
    """How far the rollups have come: all calls recorded before these moments are added up. One row,
    opened by a migration.

    Calls from before `rows_from`, the beginning of a month of UTC, are not kept any more; only their sums are.
    """

    hours_to = models.DateTimeField()
    days_to = models.DateTimeField()
    months_to = models.DateTimeField(default=datetime(2020, 1, 1, tzinfo=UTC))
    rows_from = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(pk=1), name="rollup_mark_is_one")]

    def __str__(self) -> str:
        return f"{self.hours_to:%Y-%m-%d %H:00}"


class RollupDue(models.Model):
    """An hour whose calls have changed since they were added up. There may be several rows for one hour, each by whoever
    changed something: a row that is taken away says only that what was changed before it was read is added up."""

    hour = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H:00}"


class ReportedCall(models.Model):
    """A call that other software told of, so that the same event counts once. Written by `usage.events` only.

    What nobody here could read is kept as a dead letter, with a `reason` and the `skeleton` of what came: its names and
    numbers, never its words. The call itself is a `TokenUsage` whose operation id is this row's.
    """

    class State(models.TextChoices):
        RECORDED = "recorded", _("recorded")
        DEAD = "dead", _("dead letter")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        db_index=False,
        verbose_name=_("user"),
    )
    event_id = models.CharField(_("id of the event"), max_length=128)
    digest = models.CharField(_("digest"), max_length=64)
    state = models.CharField(_("state"), max_length=8, choices=State)
    reason = models.CharField(_("reason"), max_length=300, blank=True)
    skeleton = models.JSONField(_("what came, without its words"), null=True)
    received_at = models.DateTimeField(_("received"), default=timezone.now)

    class Meta:
        verbose_name = _("reported call")
        verbose_name_plural = _("reported calls")
        constraints = [
            models.UniqueConstraint(fields=["user", "event_id"], name="reported_once_by_a_user"),
            models.CheckConstraint(
                condition=Q(state="recorded", reason="") | (Q(state="dead") & ~Q(reason="")),
                name="reported_dead_for_a_reason",
            ),
        ]

    def __str__(self) -> str:
        return self.event_id


class Budget(models.Model):
    """What somebody wants spent at most in a day, a week or a month: a person, one of his API keys, the members of a
    company together, or everyone. Written by `usage.budgets` only.

    Amounts are whole numbers of the smallest unit: Aleph tokens, or `USD_UNIT` of a dollar, so that both databases add
    them up exactly. Each period has a row of its own with what is spent and what is reserved; `current` is the newest.
    What loosens waits until `later_at`.
    """

    class Scope(models.TextChoices):
        USER = "user", _("a person")
        KEY = "key", _("an API key")
        COMPANY = "company", _("a company")
        EVERYONE = "everyone", _("everyone together")

    class Unit(models.TextChoices):
        TOKEN = "token", _("tokens")
        USD = "usd", _("US dollars")

    class Every(models.TextChoices):
        DAY = "day", _("day")
        WEEK = "week", _("week")
        MONTH = "month", _("month")

    class Action(models.TextChoices):
        WARN = "warn", _("only warn")
        THROTTLE = "throttle", _("slow down")
        BLOCK = "block", _("stop")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    scope = models.CharField(_("for"), max_length=8, choices=Scope)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("user"),
    )
    api_key = models.ForeignKey(
        ApiKey,
        on_delete=models.CASCADE,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("API key"),
    )
    company = models.ForeignKey(
        Company, on_delete=models.CASCADE, null=True, blank=True, related_name="+", verbose_name=_("company")
    )
    is_by_staff = models.BooleanField(
        _("set by staff"), default=False, help_text=_("Only staff can change or end it.")
    )
    unit = models.CharField(_("counted in"), max_length=5, choices=Unit)
    every = models.CharField(_("every"), max_length=5, choices=Every)
    limit = models.PositiveBigIntegerField(_("limit"))
    action = models.CharField(_("at the limit"), max_length=8, choices=Action)
    thresholds = models.JSONField(_("tell at, percent"), default=list)
    later_limit = models.PositiveBigIntegerField(_("limit from then on"), null=True)
    later_action = models.CharField(_("at the limit from then on"), max_length=8, choices=Action, blank=True)
    later_at = models.DateTimeField(_("changes"), null=True)
    time_zone = models.CharField(
        _("time zone"), max_length=64, blank=True, help_text=_("Empty: that of its owner.")
    )
    current = models.ForeignKey(
        "BudgetPeriod", on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("period")
    )
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    ended_at = models.DateTimeField(_("ends"), null=True)

    class Meta:
        verbose_name = _("budget")
        verbose_name_plural = _("budgets")
        indexes = [
            models.Index(fields=["scope"], condition=Q(scope="everyone"), name="budget_for_everyone"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(scope="user", user__isnull=False, api_key=None, company=None)
                | Q(scope="key", user__isnull=False, api_key__isnull=False, company=None)
                | Q(scope="company", user=None, api_key=None, company__isnull=False)
                | Q(scope="everyone", user=None, api_key=None, company=None),
                name="budget_has_its_owner",
            ),
            models.CheckConstraint(
                condition=Q(limit__gt=0, limit__lte=MOST_IN_BUDGET)
                & (Q(later_limit=None) | Q(later_limit__gt=0, later_limit__lte=MOST_IN_BUDGET)),
                name="budget_limit_plausible",
            ),
            models.CheckConstraint(
                condition=Q(later_limit=None, later_action="") | Q(later_at__isnull=False),
                name="budget_loosens_at_a_time",
            ),
        ]

    def __str__(self) -> str:
        return self.id


class BudgetPeriod(models.Model):
    """One period of a budget: what replies have cost that began in it (`spent`), and what those in progress may cost
    (`reserved`). `limit` is what held when it was last looked at."""

    budget = models.ForeignKey(
        Budget, on_delete=models.CASCADE, related_name="periods", db_index=False, verbose_name=_("budget")
    )
    starts_at = models.DateTimeField(_("from"))
    ends_at = models.DateTimeField(_("until"))
    limit = models.PositiveBigIntegerField(_("limit"))
    spent = models.PositiveBigIntegerField(_("spent"), default=0)
    reserved = models.PositiveBigIntegerField(_("reserved"), default=0)

    class Meta:
        verbose_name = _("period of a budget")
        verbose_name_plural = _("periods of budgets")
        constraints = [
            models.UniqueConstraint(fields=["budget", "starts_at"], name="budget_period_once"),
            models.CheckConstraint(
                condition=Q(ends_at__gt=models.F("starts_at")), name="budget_period_ends_after_start"
            ),
            models.CheckConstraint(
                condition=Q(spent__gte=0, reserved__gte=0), name="budget_period_not_negative"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.budget_id} {self.starts_at:%Y-%m-%d}"


class BudgetEntry(models.Model):
    """What one reply (`reference`) reserved of a period, and, once it is over, what it `spent`. The counters of a period
    are the sums of its entries. What was spent before a budget was made is an entry that has the budget's id."""

    period = models.ForeignKey(
        BudgetPeriod,
        on_delete=models.CASCADE,
        related_name="entries",
        db_index=False,
        verbose_name=_("period"),
    )
    reference = models.CharField(_("reply"), max_length=64)
    reserved = models.PositiveBigIntegerField(_("reserved"))
    spent = models.PositiveBigIntegerField(_("spent"), null=True)
    created_at = models.DateTimeField(_("reserved at"), default=timezone.now)
    closed_at = models.DateTimeField(_("closed"), null=True)

    class Meta:
        verbose_name = _("entry of a budget")
        verbose_name_plural = _("entries of budgets")
        indexes = [models.Index(fields=["period", "created_at"], name="budget_entry_by_period")]
        constraints = [
            models.UniqueConstraint(fields=["reference", "period"], name="budget_entry_once"),
            models.CheckConstraint(
                condition=Q(closed_at=None, spent=None) | Q(closed_at__isnull=False, spent__isnull=False),
                name="budget_entry_closed_with_its_cost",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reference} {self.period_id}"


class BudgetCrossing(models.Model):
    """A period's spending passed so many percent of the limit: once per period and percent, written with the reply that
    passed it. Whoever tells people of it notes so in `told_at`."""

    period = models.ForeignKey(
        BudgetPeriod,
        on_delete=models.CASCADE,
        related_name="crossings",
        db_index=False,
        verbose_name=_("period"),
    )
    percent = models.PositiveSmallIntegerField(_("percent"))
    limit = models.PositiveBigIntegerField(_("limit"))
    spent = models.PositiveBigIntegerField(_("spent"))
    crossed_at = models.DateTimeField(_("crossed"), default=timezone.now)
    told_at = models.DateTimeField(_("told"), null=True)

    class Meta:
        verbose_name = _("crossing of a budget")
        verbose_name_plural = _("crossings of budgets")
        indexes = [
            models.Index(fields=["id"], condition=Q(told_at=None), name="budget_crossing_untold"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["period", "percent"], name="budget_crossed_once"),
            models.CheckConstraint(condition=Q(percent__gt=0), name="budget_crossing_plausible"),
        ]

    def __str__(self) -> str:
        return f"{self.period_id} {self.percent}%"


class UnusualUse(models.Model):
    """A day of UTC on which somebody used far more than he does. Written by `usage.unusual` only; whoever tells him notes so
    in `told_at`.

    `since` is when he had used as much as on a whole usual day; `model` wrote most of it, `model_percent` of all.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+", db_index=False
    )
    day = models.DateField()
    tokens = models.PositiveBigIntegerField()
    usual_tokens = models.PositiveBigIntegerField()
    since = models.DateTimeField()
    model = models.CharField(max_length=120)
    model_percent = models.PositiveSmallIntegerField()
    found_at = models.DateTimeField(default=timezone.now)
    told_at = models.DateTimeField(null=True)

    class Meta:
        indexes = [models.Index(fields=["id"], condition=Q(told_at=None), name="unusual_untold")]
        constraints = [models.UniqueConstraint(fields=["user", "day"], name="unusual_once_a_day")]

    def __str__(self) -> str:
        return f"{self.user_id} {self.day}"
