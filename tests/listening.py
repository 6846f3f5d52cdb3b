"""Asking an adapter and keeping all that came back: text, counts, the end or the problem, and the time."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from chat.providers.base import (
    Call,
    Cancelled,
    Clocks,
    Counts,
    Event,
    Finish,
    Prompt,
    Provider,
    ProviderError,
    Text,
    Thinking,
    Usage,
)

QUESTION = "Halo, apa kabar? 👋🏽 Rp 10.000 — naïve “kutipan” 日本語 \U0001f9d1\u200d\U0001f680 selesai."
QUICK = Clocks(connect_s=2, first_byte_s=2, idle_s=2, total_s=10)


@dataclass
class Heard:
    """What a caller got out of one stream."""

    events: list[Event] = field(default_factory=list)
    problem: ProviderError | None = None
    cancelled: bool = False
    took_s: float = 0.0

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Text))

    @property
    def thoughts(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, Thinking))

    @property
    def counts(self) -> Counts | None:
        return next((event.counts for event in reversed(self.events) if isinstance(event, Usage)), None)

    @property
    def finish(self) -> Finish:
        assert isinstance(self.events[-1], Finish), self
        return self.events[-1]

    @property
    def kind(self) -> str | None:
        return self.problem.kind if self.problem else None


def prompt(model: str, question: str = QUESTION, **more: Any) -> Prompt:
    messages = (("system", "Be kind."), ("user", question))
    return Prompt(**{"upstream_model": model, "messages": messages, "max_output_tokens": 1000, **more})


def ask(provider: Provider, asked: Prompt, *, call: Call | None = None, clocks: Clocks = QUICK) -> Heard:
    heard, started_at = Heard(), time.monotonic()
    try:
        for event in provider.stream(asked, call=call or Call(), clocks=clocks):
            heard.events.append(event)
    except ProviderError as problem:
        heard.problem = problem
    except Cancelled:
        heard.cancelled = True
    heard.took_s = time.monotonic() - started_at
    return heard


def ask_and_cancel(provider: Provider, asked: Prompt, *, after_s: float) -> tuple[Heard, float]:
    """(what was heard, seconds from `cancel` to the end)."""
    call = Call()
    cancelled_at = []

    def stop() -> None:
        cancelled_at.append(time.monotonic())
        call.cancel()

    timer = threading.Timer(after_s, stop)
    timer.start()
    heard = ask(
        provider, asked, call=call, clocks=Clocks(connect_s=20, first_byte_s=20, idle_s=20, total_s=20)
    )
    ended_at = time.monotonic()
    timer.join()
    return heard, ended_at - cancelled_at[0]
