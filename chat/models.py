"""Models on offer, and what people say to them.

`chat.turns` starts a reply, `chat.replies` carries it on and closes it; nothing else changes a message's state.
"""

from typing import ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids

HIGHEST_RATE = 1_000_000
"""Tokens per 1K. Above this a rate is a slip of the hand."""


class ChatModel(models.Model):
    """A model as people see it: name, price in Aleph tokens, limits. Where it is answered from stands in its routes."""

    slug = models.CharField(
        _("id"),
        max_length=60,
        unique=True,
        validators=[RegexValidator(r"^[a-z0-9][a-z0-9._:-]*$", _("Small letters, digits and . _ : - only."))],
    )
    name = models.CharField(_("name"), max_length=80)
    maker = models.CharField(_("made by"), max_length=80)
    is_free = models.BooleanField(_("free"), default=False)
    input_rate = models.PositiveIntegerField(
        _("tokens per 1K of input"), default=0, validators=[MaxValueValidator(HIGHEST_RATE)]
    )
    output_rate = models.PositiveIntegerField(
        _("tokens per 1K of output"), default=0, validators=[MaxValueValidator(HIGHEST_RATE)]
    )
    context_tokens = models.PositiveIntegerField(
        _("context, in LLM tokens"), validators=[MinValueValidator(512)]
    )
    max_output_tokens = models.PositiveIntegerField(_("longest reply, in LLM tokens"), default=2048)
    takes_temperature = models.BooleanField(_("takes a temperature"), default=True)
    note = models.CharField(_("note for readers"), max_length=200, blank=True)
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    is_offered = models.BooleanField(_("offered"), default=True)

    class Meta:
        verbose_name = _("model")
        verbose_name_plural = _("models")
        constraints = [
            models.CheckConstraint(
                condition=Q(is_free=True, input_rate=0, output_rate=0)
                | Q(is_free=False, input_rate__gt=0, output_rate__gt=0),
                name="model_free_or_priced",
            ),
            models.CheckConstraint(condition=Q(max_output_tokens__gte=64), name="model_output_useful"),
            models.CheckConstraint(
                condition=Q(context_tokens__gt=models.F("max_output_tokens")),
                name="model_context_holds_a_reply",
                violation_error_message=_("The context must be larger than the longest reply."),
            ),
            models.CheckConstraint(
                condition=Q(input_rate__lte=HIGHEST_RATE, output_rate__lte=HIGHEST_RATE),
                name="model_rates_plausible",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def terms(self) -> str:
        """What a page that shows this model's price sends back, so that nobody pays another one unseen."""
        return f"{self.slug}:{self.input_rate}:{self.output_rate}"


class Route(models.Model):
    """One way to reach a model: a provider of ours and the id that he knows it by. The first that is connected answers."""

    model = models.ForeignKey(
        ChatModel, on_delete=models.CASCADE, related_name="routes", verbose_name=_("model")
    )
    provider = models.CharField(_("provider"), max_length=40)
    upstream_model = models.CharField(_("the provider's id"), max_length=120)
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    is_enabled = models.BooleanField(_("enabled"), default=True)

    class Meta:
        verbose_name = _("route")
        verbose_name_plural = _("routes")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "provider", "upstream_model"], name="route_once_per_model"
            )
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_model}"


class Session(models.Model):
    """A conversation of one person. `model` is null where he took the free tier as it comes."""

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="sessions",
        db_index=False,
        verbose_name=_("user"),
    )
    title = models.CharField(_("title"), max_length=120, blank=True)
    model = models.ForeignKey(
        ChatModel, on_delete=models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("model")
    )
    message_count = models.PositiveIntegerField(_("messages"), default=0)
    total_tokens_used = models.PositiveBigIntegerField(_("tokens used"), default=0)
    last_message_at = models.DateTimeField(_("last message"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        indexes = [models.Index(fields=["user", "-last_message_at", "-id"], name="session_by_user")]

    def __str__(self) -> str:
        return self.id


class Message(models.Model):
    """What a person said, or a reply. The columns from `state` on belong to replies; their life is told in
    `chat.replies`. `parent` is what it answers, or, where that is a reply itself, goes on with; branches of a
    conversation share their beginning (`chat.branches`)."""

    class Role(models.TextChoices):
        USER = "user", _("user")
        ASSISTANT = "assistant", _("assistant")

    class State(models.TextChoices):
        QUEUED = "queued", _("queued")
        STREAMING = "streaming", _("streaming")
        COMPLETE = "complete", _("complete")
        STOPPED = "stopped", _("stopped")
        FAILED = "failed", _("failed")
        INTERRUPTED = "interrupted", _("interrupted")

    OPEN: ClassVar[tuple[str, ...]] = ("queued", "streaming")

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    session = models.ForeignKey(
        Session, on_delete=models.CASCADE, related_name="messages", db_index=False, verbose_name=_("session")
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="+",
        db_index=False,
        verbose_name=_("user"),
    )
    parent = models.ForeignKey(
        "self", on_delete=models.CASCADE, null=True, related_name="answers", verbose_name=_("parent")
    )
    role = models.CharField(_("role"), max_length=9, choices=Role)
    content = models.TextField(_("content"), blank=True)
    tokens_used = models.PositiveBigIntegerField(_("tokens charged"), default=0)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    turn = models.CharField(max_length=64, null=True)
    state = models.CharField(_("state"), max_length=11, choices=State, null=True)
    epoch = models.PositiveIntegerField(_("fencing number"), default=0)
    attempts = models.PositiveSmallIntegerField(_("attempts"), default=0)
    rung_at = models.DateTimeField(_("last rung"), null=True)
    lease_until = models.DateTimeField(_("leased until"), null=True)
    stop_requested_at = models.DateTimeField(_("stop requested"), null=True)
    started_at = models.DateTimeField(_("started"), null=True)
    finished_at = models.DateTimeField(_("finished"), null=True)

    model = models.ForeignKey(
        ChatModel,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        db_index=False,
        verbose_name=_("model"),
    )
    provider = models.CharField(_("provider"), max_length=40, blank=True)
    answered_by = models.CharField(_("model that answered"), max_length=120, blank=True)
    input_rate = models.PositiveIntegerField(_("input rate"), default=0)
    output_rate = models.PositiveIntegerField(_("output rate"), default=0)
    value_idr_per_1k = models.PositiveIntegerField(_("value in rupiah per 1,000"), null=True)
    estimated_input_tokens = models.PositiveIntegerField(_("estimated input"), default=0)
    max_output_tokens = models.PositiveIntegerField(_("output limit"), default=0)
    is_limited_by_balance = models.BooleanField(_("limited by the balance"), default=False)
    held_tokens = models.PositiveBigIntegerField(_("tokens held"), default=0)
    hold_id = models.CharField(_("hold"), max_length=ids.LENGTH, blank=True)
    finish_reason = models.CharField(_("finish reason"), max_length=20, blank=True)
    error_kind = models.CharField(_("error"), max_length=20, blank=True)

    class Meta:
        verbose_name = _("message")
        verbose_name_plural = _("messages")
        indexes = [
            models.Index(fields=["session", "id"], name="message_by_session"),
            models.Index(
                fields=["state", "lease_until"],
                condition=Q(state__in=["queued", "streaming"]),
                name="message_open",
            ),
            models.Index(
                fields=["user"],
                condition=Q(state__in=["queued", "streaming"]),
                name="message_open_by_user",
            ),
        ]
        constraints = [
            models.UniqueConstraint(fields=["user", "turn"], name="one_reply_per_turn"),
            models.UniqueConstraint(
                fields=["session"],
                condition=Q(state__in=["queued", "streaming"]),
                name="one_open_reply_per_session",
            ),
            models.CheckConstraint(
                condition=Q(role="user", state=None, turn=None, tokens_used=0)
                | Q(role="assistant", state__isnull=False, turn__isnull=False),
                name="replies_have_a_state",
            ),
            models.CheckConstraint(
                condition=Q(tokens_used__lte=models.F("held_tokens")), name="charge_within_hold"
            ),
            models.CheckConstraint(
                condition=~Q(state__in=["failed", "interrupted"]) | Q(tokens_used=0),
                name="failures_cost_nothing",
            ),
        ]

    def __str__(self) -> str:
        return self.id

    @property
    def is_reply(self) -> bool:
        return self.role == self.Role.ASSISTANT

    @property
    def is_open(self) -> bool:
        return self.state in self.OPEN

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended before its end, with a text that can be gone on with."""
        if not self.content or not self.is_reply or self.is_open or self.error_kind == "policy":
            return False
        return self.finish_reason == "length" or self.state != self.State.COMPLETE
