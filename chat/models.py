"""Models on offer, and what people say to them.

`chat.turns` starts a reply, `chat.replies` carries it on and closes it; nothing else changes a message's state.
"""

from datetime import timedelta
from math import ceil
from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.sealed import SealedTextField
from chat.providers.base import Clocks

HIGHEST_RATE = 1_000_000
"""Tokens per 1K. Above this a rate is a slip of the hand."""
HIGHEST_MARGIN = 10_000
"""Per cent. Some names are sold for a thousand times what their makers ask today."""
LONGEST_WAIT_S = 600
"""Seconds. Longer than this nobody waits for a reply, and no call may keep its worker."""
WAITS = [MinValueValidator(1), MaxValueValidator(LONGEST_WAIT_S)]
HIGHEST_TEMPERATURE = 2


def temperature_column() -> "models.DecimalField[Any, Any]":
    """A column for what `chat.temperatures` tells of."""
    return models.DecimalField(_("temperature"), max_digits=3, decimal_places=2, null=True, blank=True)


def temperature_is_plausible() -> Q:
    return Q(temperature=None) | Q(temperature__gte=0, temperature__lte=HIGHEST_TEMPERATURE)


class ChatModel(models.Model):
    """A model as people see it: name, price in Aleph tokens, limits. Where it is answered from stands in its routes.

    From the day `retires_on` it is not offered any more, and chats with it go on with its `successor`. `margin_percent` says
    that its rates were set from cost (`chat.rates_from_cost`); None that somebody chose them.
    """

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
    takes_images = models.BooleanField(_("takes images"), default=False)
    thinks = models.BooleanField(_("thinks before it answers"), default=False)
    margin_percent = models.PositiveIntegerField(
        _("margin over cost, in per cent"),
        null=True,
        blank=True,
        validators=[MaxValueValidator(HIGHEST_MARGIN)],
    )
    retires_on = models.DateField(_("retires on"), null=True, blank=True)
    successor = models.ForeignKey(
        "self",
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        related_name="predecessors",
        verbose_name=_("successor"),
    )
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
            models.CheckConstraint(
                condition=Q(margin_percent=None) | Q(is_free=False), name="model_free_without_margin"
            ),
            models.CheckConstraint(
                condition=Q(successor=None) | ~Q(successor=models.F("id")),
                name="model_not_its_own_successor",
                violation_error_message=_("A model cannot succeed itself."),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def terms(self) -> str:
        """What a page that shows this model's price sends back, so that nobody pays another one unseen."""
        return f"{self.slug}:{self.input_rate}:{self.output_rate}"

    @property
    def is_retired(self) -> bool:
        """Whether its last day is over, by the clock of the house."""
        return self.retires_on is not None and self.retires_on <= timezone.localdate(
            timezone=timezone.get_default_timezone()
        )


class Route(models.Model):
    """One way to reach a model: a provider of ours, the id that he knows it by, and for how long to wait for him (the four
    clocks of `chat.providers.base.Clocks`). The first that is connected and healthy answers."""

    model = models.ForeignKey(
        ChatModel, on_delete=models.CASCADE, related_name="routes", verbose_name=_("model")
    )
    provider = models.CharField(_("provider"), max_length=40)
    upstream_model = models.CharField(_("the provider's id"), max_length=120)
    position = models.PositiveSmallIntegerField(_("position"), default=0)
    is_enabled = models.BooleanField(_("enabled"), default=True)
    is_absent = models.BooleanField(_("looked for and not there"), default=False, editable=False)
    """Written by `chat.local_models` alone, which looks for some providers."""
    connect_s = models.PositiveSmallIntegerField(_("connect, s"), default=10, validators=WAITS)
    first_byte_s = models.PositiveSmallIntegerField(_("first sign, s"), default=120, validators=WAITS)
    idle_s = models.PositiveSmallIntegerField(_("silence, s"), default=60, validators=WAITS)
    total_s = models.PositiveSmallIntegerField(_("in all, s"), default=600, validators=WAITS)

    class Meta:
        verbose_name = _("route")
        verbose_name_plural = _("routes")
        constraints = [
            models.UniqueConstraint(
                fields=["model", "provider", "upstream_model"], name="route_once_per_model"
            ),
            models.CheckConstraint(
                condition=Q(connect_s__gte=1, first_byte_s__gte=1, idle_s__gte=1, total_s__gte=1)
                & Q(
                    connect_s__lte=LONGEST_WAIT_S,
                    first_byte_s__lte=LONGEST_WAIT_S,
                    idle_s__lte=LONGEST_WAIT_S,
                    total_s__lte=LONGEST_WAIT_S,
                ),
                name="route_waits_plausible",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.upstream_model}"

    @property
    def clocks(self) -> Clocks:
        return Clocks(self.connect_s, self.first_byte_s, self.idle_s, self.total_s)


class RateCorrection(models.Model):
    """Rates that replies of a model should have been charged at, from `since` to before `until`. What they were charged too
    much goes back once `correction`, which holds the sum, the reason and who says so, is applied; `given_back` of it has
    gone, and from `ended_at` on all of it. Written by `aleph.recharging` only."""

    correction = models.OneToOneField(
        "billing.Correction", on_delete=models.PROTECT, related_name="rates", verbose_name=_("correction")
    )
    model = models.ForeignKey(ChatModel, on_delete=models.PROTECT, related_name="+", verbose_name=_("model"))
    since = models.DateTimeField(_("from"))
    until = models.DateTimeField(_("to"))
    input_rate = models.PositiveIntegerField(_("right tokens per 1K of input"))
    output_rate = models.PositiveIntegerField(_("right tokens per 1K of output"))
    people = models.PositiveIntegerField(_("people"))
    replies = models.PositiveIntegerField(_("replies"))
    given_back = models.PositiveBigIntegerField(_("tokens given back so far"), default=0)
    ended_at = models.DateTimeField(_("all given back"), null=True)

    class Meta:
        verbose_name = _("correction of rates")
        verbose_name_plural = _("corrections of rates")
        constraints = [
            models.CheckConstraint(
                condition=Q(until__gt=models.F("since")), name="rate_correction_of_some_time"
            ),
            models.CheckConstraint(
                condition=Q(input_rate__lte=HIGHEST_RATE, output_rate__lte=HIGHEST_RATE),
                name="rate_correction_plausible",
            ),
        ]

    def __str__(self) -> str:
        return str(self.model)


class Session(models.Model):
    """A conversation of one person. `model` is null where he took the free tier as it comes, `temperature` where he took
    the usual one."""

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.CASCADE,
        related_name="sessions",
        db_index=False,
        verbose_name=_("user"),
    )
    title = SealedTextField(_("title"), max_length=120, blank=True, when="ENCRYPT_MESSAGES")
    model = models.ForeignKey(
        ChatModel, on_delete=models.PROTECT, null=True, blank=True, related_name="+", verbose_name=_("model")
    )
    temperature = temperature_column()
    message_count = models.PositiveIntegerField(_("messages"), default=0)
    total_tokens_used = models.PositiveBigIntegerField(_("tokens used"), default=0)
    last_message_at = models.DateTimeField(_("last message"), null=True, blank=True)
    created_at = models.DateTimeField(_("created"), default=timezone.now)

    class Meta:
        verbose_name = _("session")
        verbose_name_plural = _("sessions")
        indexes = [models.Index(fields=["user", "-last_message_at", "-id"], name="session_by_user")]
        constraints = [
            models.CheckConstraint(condition=temperature_is_plausible(), name="session_temperature_plausible")
        ]

    def __str__(self) -> str:
        return self.id


class Message(models.Model):
    """What a person said, or a reply. The columns from `state` on belong to replies; their life is told in
    `chat.replies`. `parent` is what it answers, or, where that is a reply itself, goes on with; branches of a
    conversation share their beginning (`chat.branches`).

    `temperature` is null where the model took none. `request_hash` stands for all that was sent, where the answer may be
    used again; a reply that is such an answer names the earlier one as `reused_from`, which may be deleted by now, and its
    one attempt asked nobody (`chat.reuse`)."""

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
    content = SealedTextField(_("content"), blank=True, when="ENCRYPT_MESSAGES")
    image_count = models.PositiveSmallIntegerField(_("images"), default=0)
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
    temperature = temperature_column()
    answered_by = models.CharField(_("model that answered"), max_length=120, blank=True)
    served_by = models.CharField(_("provider behind the router"), max_length=80, blank=True)
    input_rate = models.PositiveIntegerField(_("input rate"), default=0)
    output_rate = models.PositiveIntegerField(_("output rate"), default=0)
    value_idr_per_1k = models.PositiveIntegerField(_("value in rupiah per 1,000"), null=True)
    estimated_input_tokens = models.PositiveIntegerField(_("estimated input"), default=0)
    max_output_tokens = models.PositiveIntegerField(_("output limit"), default=0)
    is_limited_by_balance = models.BooleanField(_("limited by the balance"), default=False)
    is_limited_by_budget = models.BooleanField(_("limited by a budget"), default=False)
    held_tokens = models.PositiveBigIntegerField(_("tokens held"), default=0)
    hold_id = models.CharField(_("hold"), max_length=ids.LENGTH, blank=True)
    finish_reason = models.CharField(_("finish reason"), max_length=20, blank=True)
    error_kind = models.CharField(_("error"), max_length=20, blank=True)
    retry_after_s = models.PositiveIntegerField(_("try again after, s"), null=True)
    request_hash = models.CharField(max_length=64, null=True)
    reused_from = models.CharField(
        _("reused from"),
        max_length=ids.LENGTH,
        blank=True,
        default="",
        db_default="",  # while one process after the other is replaced, the old ones know no such column
    )

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
            models.Index(
                fields=["user", "request_hash"],
                condition=Q(request_hash__isnull=False),
                name="message_by_request",
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
            models.CheckConstraint(condition=temperature_is_plausible(), name="temperature_plausible"),
            models.CheckConstraint(
                condition=Q(reused_from="") | Q(state="complete", tokens_used=0, held_tokens=0, hold_id=""),
                name="reuse_costs_nothing",
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
    def retry_in_s(self) -> int:
        """Seconds until a provider that was too busy wants to be tried again; 0 from then on, and where none said so."""
        if self.retry_after_s is None or self.finished_at is None:
            return 0
        left = self.finished_at + timedelta(seconds=self.retry_after_s) - timezone.now()
        return max(0, ceil(left.total_seconds()))

    @property
    def is_cut_off(self) -> bool:
        """Whether it ended before its end, with a text that can be gone on with."""
        if not self.content or not self.is_reply or self.is_open or self.error_kind == "policy":
            return False
        return self.finish_reason == "length" or self.state != self.State.COMPLETE

    @property
    def is_too_long(self) -> bool:
        """Whether its provider refused it because more was said than the model takes: the same would be refused again."""
        return self.state == self.State.FAILED and self.error_kind == "context_too_long"


class Attachment(models.Model):
    """An image that somebody attached: a draft until it is sent, then part of a chat. The file is ours, written anew from
    what came (`chat.pictures`), under a random name in the storage "attachments".

    What `expires_at` has passed for is seen by nobody and soon gone: drafts that were never sent, and what a deleted chat
    left. The file goes first and the row last (`chat.attachments.sweep`), so that no file is forgotten.
    """

    class MediaType(models.TextChoices):
        PNG = "image/png", "PNG"
        JPEG = "image/jpeg", "JPEG"

    id = models.CharField(primary_key=True, max_length=ids.LENGTH)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.SET_NULL,
        null=True,
        related_name="+",
        verbose_name=_("user"),
    )
    session = models.ForeignKey(
        Session, on_delete=models.SET_NULL, null=True, related_name="+", verbose_name=_("session")
    )
    path = models.CharField(_("place in the storage"), max_length=80, unique=True)
    name = models.CharField(_("name"), max_length=80, blank=True)
    media_type = models.CharField(_("kind"), max_length=20, choices=MediaType)
    width = models.PositiveIntegerField(_("width"))
    height = models.PositiveIntegerField(_("height"))
    size_bytes = models.PositiveIntegerField(_("size in bytes"))
    hash = models.CharField(max_length=64, blank=True, default="", db_default="")
    """Keyed, of what the file holds, to know it again (`chat.reuse`); "" of those that were attached before there was one."""
    created_at = models.DateTimeField(_("created"), default=timezone.now)
    expires_at = models.DateTimeField(_("expires"), null=True)

    class Meta:
        verbose_name = _("attachment")
        verbose_name_plural = _("attachments")
        indexes = [
            models.Index(
                fields=["expires_at"], condition=Q(expires_at__isnull=False), name="attachment_expiring"
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(width__gt=0, height__gt=0, size_bytes__gt=0), name="attachment_has_a_size"
            ),
        ]

    def __str__(self) -> str:
        return self.id


class Attached(models.Model):
    """An attachment as part of a message. What a message was edited to may show the same one."""

    message = models.ForeignKey(
        Message, on_delete=models.CASCADE, related_name="+", verbose_name=_("message")
    )
    attachment = models.ForeignKey(
        Attachment, on_delete=models.CASCADE, related_name="+", verbose_name=_("attachment")
    )
    position = models.PositiveSmallIntegerField(_("position"))

    class Meta:
        verbose_name = _("attached image")
        verbose_name_plural = _("attached images")
        constraints = [
            models.UniqueConstraint(fields=["message", "attachment"], name="attached_once_to_a_message")
        ]

    def __str__(self) -> str:
        return f"{self.message_id}/{self.attachment_id}"
