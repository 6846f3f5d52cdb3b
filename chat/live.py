"""What somebody who watches a reply is sent: as fragments for the page, as text for programs.

A watcher first gets everything so far and then follows, so a reload, a second tab and a reconnect are the same thing.
Watching holds no database connection: the row is read at the beginning, at the end, and now and then when nothing
comes (the relay may be gone, or the end may have been lost; R41, R43).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.template.loader import render_to_string
from django.utils import timezone, translation

from aleph.prepared import Given, Rows
from aleph.threads import in_thread
from chat import entries, replies, stream
from chat.models import Message
from chat.render import LiveRenderer

READ_ATTEMPTS = 10
FIRST_LOOK_S = 0.3
"""The same at the beginning: a short reply may have ended between the reading of its row and the first listening."""
REREAD_S = 3.0
"""Silence after which the row is read again."""
COMMENT_S = 15.0
"""Silence after which a comment keeps proxies awake."""
CONNECTION_S = 600.0
"""A connection ends after this, with an event that lets the browser come back."""
DRAW_S = 0.08
DRAW_SHARE = 0.4
"""Part of the event loop that drawing may take, over all viewers of this process: the more there are, the rarer."""
DRAW_REST = 10.0
"""One viewer rests this many times as long as his last drawing took."""
SLOW_S = 0.03

HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

REPLY = Rows(lambda: Message.objects.select_related("model", "session", "parent").filter(pk=Given("id")))


def event(name: str, data: str) -> str:
    """One server-sent event; lines of `data` as the protocol wants them."""
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"event: {name}\n{lines}\n"


class EventStream(StreamingHttpResponse):
    """Server-sent events as they come. Only one generator stands between them and the server: what Django puts there is paid
    again for every piece of every reply."""

    def __init__(self, events: AsyncIterable[str]) -> None:
        super().__init__(events, headers=HEADERS)
        self.events = events

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async with aclosing(cast(AsyncGenerator[str, None], aiter(self.events))) as events:
            async for event in events:
                yield event.encode()


def refusal(request: HttpRequest) -> HttpResponse | None:
    """The answer to whoever does not open a stream of events from a page of ours; None to all others."""
    if request.method != "GET":
        return HttpResponse(status=405, headers={"Allow": "GET"})
    if request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return HttpResponse(status=403)
    return None


@dataclass(frozen=True, slots=True)
class Moment:
    """Something new about a reply: all its text so far, and whether that is the end."""

    text: str
    is_over: bool
    row: Message | None = field(default=None, compare=False)
    """Of the end: the reply as it stands in the database, None where it was deleted."""


async def watch(reply: Message, *, patience: float = COMMENT_S) -> AsyncGenerator[Moment | None, None]:
    """The text of a reply as it grows, and last its end. None after `patience` seconds without anything new.

    The texts of one watch only ever grow, except when a dead worker's reply begins anew with no text shown.
    """
    if not reply.is_open:
        yield Moment(reply.content, True, reply)
        return
    async with stream.hub().follow(reply.pk, reply.epoch) as tail:
        tail.replace(reply.epoch, reply.content)
        yield Moment(tail.text, False)
        seen, quiet_since, spoke_at = tail.text, time.monotonic(), time.monotonic()
        look_after_s = FIRST_LOOK_S
        while True:
            if not tail.ended and tail.text == seen:
                await tail.changed()
            if tail.gap:
                await stream.hub().refill(tail)
            now = time.monotonic()
            if tail.text != seen and not tail.ended:
                seen, quiet_since, spoke_at = tail.text, now, now
                yield Moment(seen, False)
            elif tail.ended or now - quiet_since >= look_after_s:
                quiet_since, look_after_s = now, REREAD_S
                tail.ended = False  # before the look: an end that comes during it must be heard
                row = await _read(reply.pk)
                if row is None or not row.is_open:
                    yield Moment(row.content if row else seen, True, row)
                    return
                tail.replace(row.epoch, row.content)
                await stream.hub().refill(tail)
            if now - spoke_at >= patience:
                spoke_at = now
                yield None


async def page_events(
    reply: Message, *, request: HttpRequest, goes_on_from: Sequence[Message] = ()
) -> AsyncIterator[str]:
    """The events of the chat page: `snapshot`, then `block`, `tail` (the open block) and `count`, at last
    `done`. No event may be called `open`: browsers fire one of their own by that name. The text of a reply is drawn
    together with that of the replies that it goes on from."""
    page = _Page(reply, request, goes_on_from)
    began = time.monotonic()
    _drawing.viewers += 1
    try:
        yield f"retry: {1000 + hash(reply.pk) % 4000}\n\n"
        async with aclosing(watch(reply)) as moments:
            async for moment in moments:
                if moment is None:
                    yield ": still here\n\n"
                    continue
                if moment.is_over:
                    done = await in_thread(partial(page.done, moment.row))
                    yield event("done", done)
                    return
                yield await page.draw(moment.text)
                if time.monotonic() - began > CONNECTION_S:
                    yield event("reconnect", "")
                    return
                await asyncio.sleep(max(_drawing.pause(), DRAW_REST * page.took_s))
    finally:
        _drawing.viewers -= 1


class _Page:
    """One viewer's page: what he has been sent already."""

    def __init__(self, reply: Message, request: HttpRequest, goes_on_from: Sequence[Message]) -> None:
        self.reply = reply
        self.goes_on_from = goes_on_from
        self.request = request
        self.language = translation.get_language()
        self.time_zone = timezone.get_current_timezone()
        self.renderer: LiveRenderer | None = None
        self.text = ""
        self.took_s = 0.0

    async def draw(self, text: str) -> str:
        """The events that bring this viewer to `text`. A huge open block is drawn beside the event loop."""
        began = time.perf_counter()
        events = await in_thread(lambda: self._events(text)) if self.took_s > SLOW_S else self._events(text)
        self.took_s = time.perf_counter() - began
        _drawing.took(self.took_s)
        return events

    def _events(self, text: str) -> str:
        with translation.override(self.language):
            if self.renderer is None or not text.startswith(self.text):
                events = self._snapshot(text)
            else:
                update = self.renderer.feed(text[len(self.text) :])
                events = event("block", update.blocks) if update.blocks else ""
                events += event("tail", update.open)
            self.text = text
            return events + event("count", self._count(text))

    def _snapshot(self, text: str) -> str:
        self.renderer = LiveRenderer()
        self.renderer.feed("".join(part.content for part in self.goes_on_from) + text)
        return event(
            "snapshot",
            render_to_string("chat/_snapshot.html", {"reply": self.reply, "drawn": self.renderer.snapshot()}),
        )

    def _count(self, text: str) -> str:
        if not text:
            return render_to_string("chat/_count.html", {"reply": self.reply, "state": "thinking"})
        so_far = replies.charge_so_far(self.reply, text)
        llm_tokens = replies.written_so_far(self.reply, text)
        return render_to_string(
            "chat/_count.html",
            {"reply": self.reply, "state": "writing", "so_far": so_far, "llm_tokens": llm_tokens},
        )

    def done(self, reply: Message | None) -> str:
        """The finished message with the balance, the toast and the composer's button, out of band."""
        if reply is None:
            return gone(self.reply.session_id, self.language)
        with translation.override(self.language), timezone.override(self.time_zone):
            return render_to_string(
                "chat/_done.html",
                {"reply": reply, "entry": entries.of_reply(reply, goes_on_from=self.goes_on_from)},
                request=self.request,
            )


def gone(session_id: str, language: str) -> str:
    """What takes the place of a reply that was deleted with its chat."""
    with translation.override(language):
        return render_to_string("chat/_vanished.html", {"session_id": session_id})


class _Drawing:
    """How long drawing takes here, so that many viewers share the event loop fairly."""

    def __init__(self) -> None:
        self.viewers = 0
        self.seconds = 0.001

    def took(self, seconds: float) -> None:
        self.seconds += 0.05 * (seconds - self.seconds)

    def pause(self) -> float:
        return min(2.0, max(DRAW_S, self.viewers * self.seconds / DRAW_SHARE))


_drawing = _Drawing()


async def _read(reply_id: str) -> Message | None:
    """The row of a reply. A database that is away for a moment ends nobody's watching."""

    read = partial(REPLY.first, id=reply_id)
    for _attempt in range(READ_ATTEMPTS - 1):
        try:
            return await in_thread(read)
        except (OperationalError, InterfaceError):
            await asyncio.sleep(REREAD_S)
    return await in_thread(read)
