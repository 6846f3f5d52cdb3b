"""The contract between a reply and whoever writes its text.

An adapter implements `Provider`; `chat.replies` is the only caller. Nothing here knows HTTP or Django, so a
reply can be driven by any adapter, and an adapter by any script.
"""

import threading
from base64 import b64encode
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "content_filter", "other"]
Kind = Literal[
    "auth",  # our key is refused
    "credit",  # our account with the provider is empty
    "rate_limit",
    "overloaded",
    "context_too_long",
    "bad_request",
    "policy",  # the provider refuses to answer this prompt
    "timeout",  # one of the four clocks ran out after the request was sent
    "unreachable",  # no connection, or it was lost before any answer: nothing was generated as far as we know
    "broken_stream",  # the answer broke off before a finish reason
    "bad_response",  # the answer is not what the protocol promises
    "not_found",  # no such model, or no such address
    "server",
]
WORTH_RETRYING: frozenset[Kind] = frozenset(
    {"rate_limit", "overloaded", "timeout", "unreachable", "broken_stream", "server"}
)


@dataclass(frozen=True, slots=True)
class Image:
    """A PNG or JPEG that goes with a message."""

    media_type: str
    data: bytes

    @property
    def base64(self) -> str:
        return b64encode(self.data).decode("ascii")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent: (role, content) pairs, roles system, user and assistant; `images` by the place of their message among
    these, for models that take any; `temperature` and `top_p` None where the model does not take them; `user_ref` a hashed
    user id, "" for none. `is_continuation`: the last two are an answer that was cut off and the request to go on with it."""

    upstream_model: str
    messages: tuple[tuple[str, str], ...]
    max_output_tokens: int
    temperature: Decimal | None = None
    top_p: Decimal | None = None
    user_ref: str = ""
    is_continuation: bool = False
    images: Mapping[int, tuple[Image, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Clocks:
    """How long to wait, in seconds. `first_byte_s` runs until the first event (keep-alive comments do not
    count), `idle_s` afterwards between any two reads, `total_s` over the whole call."""

    connect_s: float = 10
    first_byte_s: float = 120
    idle_s: float = 60
    total_s: float = 600


CLOCKS = Clocks()


@dataclass(slots=True)
class Counts:
    """LLM tokens in disjoint classes. None: the provider did not say, which is not 0.

    `cache_write_1h` is what was written to be kept for an hour, beside `cache_write`, what was for the usual time.
    Where a provider splits nothing off, all input is `fresh_input` and all output `visible_output`.
    `provider_*` are its own totals after a range check; bills are made from these, the classes tell how
    they divide. Where it told no more than `provider_total`, all else is None. `flagged`: the classes had to be clamped, or the totals contradict each other.
    """

    fresh_input: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    visible_output: int | None = None
    reasoning: int | None = None
    provider_input: int | None = None
    provider_output: int | None = None
    provider_total: int | None = None
    flagged: bool = False
    cache_write_1h: int | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer; pieces that arrived together may be joined."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of the model's reasoning. Never part of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Usage:
    """The provider's count so far. It may come more than once: the last one holds. `facts`: what else the usage row
    should tell of this call, such as `load_ms` or what a router charged us, `cost_usd` (exact, as a text)."""

    counts: Counts
    raw: dict[str, Any]
    facts: Mapping[str, int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finish:
    """The last event of a whole answer. `model` is what really answered, `served_by` a router's choice of
    provider, `service_tier` the tier really used: all three can change the price. "" where not said."""

    reason: FinishReason
    raw_reason: str
    model: str
    request_id: str
    served_by: str = ""
    service_tier: str = ""


Event = Text | Thinking | Usage | Finish


class ProviderError(Exception):
    """The provider failed, before the first text or after some.

    `retryable`: the same request may succeed later. It says nothing about text that was already shown: a
    caller never sends again by itself once a `Text` came. `detail` is for logs, without keys and without
    words of the prompt; it is not for users.
    """

    def __init__(
        self,
        kind: Kind,
        *,
        retryable: bool | None = None,
        status: int | None = None,
        retry_after_s: int | None = None,
        request_id: str = "",
        detail: str = "",
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind: Kind = kind
        self.retryable = kind in WORTH_RETRYING if retryable is None else retryable
        self.status = status
        self.retry_after_s = retry_after_s
        self.request_id = request_id
        self.detail = detail


class Cancelled(Exception):
    """`Call.cancel()` ended the stream."""


class Call:
    """One provider call, held by the thread that reads it and by the thread that may end it.

    `request_id` is the provider's id of this call, set as soon as it is known, so that a call that ends
    badly can still be looked up.
    """

    __slots__ = ("_hang_up", "cancelled", "request_id")

    def __init__(self) -> None:
        self.cancelled = False
        self.request_id = ""
        self._hang_up: Callable[[], None] | None = None

    def cancel(self) -> None:
        """End the call from any thread, at any time, as often as you like; a blocked read returns at once."""
        self.cancelled = True
        hang_up = self._hang_up
        if hang_up is not None:
            hang_up()

    def pause(self, seconds: float) -> None:
        """For the caller, between two tries: sleep. Raises `Cancelled` as soon as the call is cancelled."""
        woken = threading.Event()
        self.when_cancelled(woken.set)
        try:
            self.check()
            woken.wait(seconds)
            self.check()
        finally:
            self.when_cancelled(None)

    def when_cancelled(self, hang_up: Callable[[], None] | None) -> None:
        """For adapters: what wakes their blocked read. They look at `cancelled` themselves after setting
        it."""
        self._hang_up = hang_up

    def check(self) -> None:
        """Raise `Cancelled` once the call is cancelled."""
        if self.cancelled:
            raise Cancelled


class Provider(Protocol):
    """Whoever streams answers. `stream` yields `Text`, `Thinking` and `Usage` in any number and, as the
    last event of a whole answer, one `Finish`; it raises `ProviderError` or `Cancelled` at any point
    instead."""

    name: str

    def stream(
        self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS
    ) -> Generator[Event, None, None]: ...
