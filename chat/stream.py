"""Text on its way from a worker to whoever watches, through Redis. The only module of the chat that talks to Redis.

Redis is a relay; the truth is in the database, and everything here may be lost at any moment (R32, R39). Three keys:

``text:<reply>:<epoch>``  all text so far, written by byte offset (so that a repeated write changes nothing), for
    those who come in the middle;
``live``                  one stream of all replies' deltas, capped, which every web process reads once for all its
    viewers. An entry carries all that a worker wrote in one go (``d``), or the end of a reply (``x``), and whose each
    reply is. Each delta says at which character of the reply it begins, so a reader notices whatever it missed and reads
    the first key again: nothing can be doubled, nothing can stay missing;
``swept``  when a sweep last ran to its end.

A worker process has one `Publisher`, a web process one `Hub`.
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import redis
import redis.asyncio
import structlog
from django.conf import settings
from redis.commands.core import Script

log = structlog.get_logger(__name__)

LIVE = f"{settings.REDIS_PREFIX}live"
SWEPT = f"{settings.REDIS_PREFIX}swept"
LIVE_LENGTH = 4_000
TEXT_SECONDS = 3600
ENDED_SECONDS = 60
FLUSH_SECONDS = 0.025
"""One pipeline carries everything that all replies of a process wrote within this time."""
LONGEST_FLUSH_SECONDS = 0.06
FLUSH_SHARE = 0.25
"""Part of its time that a process may spend on sending. The more it writes, the rarer it sends, up to the longest: two
pieces of a reply in one cost hardly more than one, here and in every process that reads them."""

QUIET_S = 0.3
"""How long somebody waits for news before he is given the chance to look around."""

FAULTS = (redis.RedisError, OSError)


Delta = tuple[str, int, int, str, int]
"""A piece of a reply: its id, its epoch, the character at which the piece begins, the piece, the id of its user."""


def _key(reply_id: str, epoch: int) -> str:
    return f"{settings.REDIS_PREFIX}text:{reply_id}:{epoch}"


@cache
def client() -> redis.Redis:
    """The connection pool of this process, for threads."""
    return redis.Redis.from_url(
        settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=1, health_check_interval=30
    )


@cache
def script(source: str) -> Script:
    """A script of another module of the chat's, to be run on the connections of this process. Raises one of `FAULTS`."""
    return client().register_script(source)


def ping() -> bool:
    """Whether Redis answers within a second."""
    try:
        return bool(
            redis.Redis.from_url(settings.REDIS_URL, socket_timeout=1, socket_connect_timeout=1).ping()
        )
    except FAULTS:
        return False


def note_sweep() -> None:
    """Tell all processes that a sweep has just run to its end."""
    try:
        client().set(SWEPT, str(time.time()))
    except FAULTS as error:
        log.warning("redis does not take the time of a sweep", error=str(error))


def last_sweep() -> float | None:
    """When that was, in seconds since 1970; None where Redis does not know or does not answer."""
    try:
        noted = client().get(SWEPT)
    except FAULTS:
        return None
    return float(noted) if isinstance(noted, bytes) else None


def text(reply_id: str, epoch: int) -> str:
    """What was published of a reply; nothing where Redis does not know or does not answer."""
    try:
        raw = client().get(_key(reply_id, epoch))
    except FAULTS:
        return ""
    return _whole(raw) if isinstance(raw, bytes) else ""


def _whole(raw: bytes) -> str:
    """The text up to the first hole: where a write was lost, Redis pads with zero bytes."""
    return raw.split(b"\x00", 1)[0].decode(errors="ignore")


# Writing


@dataclass(slots=True)
class _Pending:
    user_id: int
    offset: int
    byte_offset: int
    parts: list[str] = field(default_factory=list)


class Publisher:
    """Collects deltas of all replies of this process and sends them together, from one thread.

    The first text of a reply leaves at once; after that a quiet Redis costs at most one round trip per `FLUSH_SECONDS`,
    however many replies are being written. Faults of Redis are survived: the text is in the database, too.
    """

    def __init__(self) -> None:
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._wake = threading.Condition()
        self._sending = threading.Lock()
        self._urgent = False
        self._failed_at = 0.0
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    def append(
        self, *, reply_id: str, user_id: int, epoch: int, offset: int, byte_offset: int, text: str
    ) -> None:
        """Publish `text`, which begins at character `offset` (`byte_offset` in UTF-8) of the user's reply."""
        with self._wake:
            pending = self._pending.get((reply_id, epoch))
            if pending is None:
                self._pending[reply_id, epoch] = pending = _Pending(user_id, offset, byte_offset)
                if offset == 0:
                    self._urgent = True
                if self._urgent or len(self._pending) == 1:
                    self._wake.notify()
            pending.parts.append(text)

    def flush(self) -> None:
        """Send what is collected now, from the calling thread, and after whatever is being sent."""
        with self._sending:
            with self._wake:
                batch, self._pending, self._urgent = self._pending, {}, False
            if batch:
                self._send(batch)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._pending:
                    self._wake.wait()
            began = time.monotonic()
            self.flush()
            took_s = time.monotonic() - began
            rest_s = min(LONGEST_FLUSH_SECONDS, max(FLUSH_SECONDS, took_s / FLUSH_SHARE))
            with self._wake:
                self._wake.wait_for(lambda: self._urgent, timeout=rest_s)

    def _send(self, batch: dict[tuple[str, int], _Pending]) -> None:
        pipeline = client().pipeline(transaction=False)
        deltas: list[Delta] = []
        for (reply_id, epoch), pending in batch.items():
            delta = "".join(pending.parts)
            key = _key(reply_id, epoch)
            pipeline.setrange(key, pending.byte_offset, delta.encode())
            if pending.offset == 0:
                pipeline.expire(key, TEXT_SECONDS)
            deltas.append((reply_id, epoch, pending.offset, delta, pending.user_id))
        # Last, so that whoever hears of a text finds it under its key.
        pipeline.xadd(LIVE, {"d": json.dumps(deltas)}, maxlen=LIVE_LENGTH, approximate=True)
        try:
            pipeline.execute()
        except FAULTS as error:
            if time.monotonic() - self._failed_at > 10:
                self._failed_at = time.monotonic()
                log.warning("redis does not take text; readers follow the database", error=str(error))


@cache
def publisher() -> Publisher:
    return Publisher()


def end(reply_id: str, epoch: int, *, user_id: int) -> None:
    """Tell all viewers that a reply is over and stands in the database (R41). Whoever closes a reply calls this."""
    pipeline = client().pipeline(transaction=False)
    pipeline.xadd(LIVE, {"x": json.dumps([reply_id, user_id])}, maxlen=LIVE_LENGTH, approximate=True)
    # Where the first write was lost, nothing has said yet that the text may go.
    pipeline.expire(_key(reply_id, epoch), ENDED_SECONDS)
    try:
        pipeline.execute()
    except FAULTS as error:
        log.warning("redis does not take the end of a reply", reply_id=reply_id, error=str(error))


# Reading


class Tail:
    """What a web process knows of one open reply, shared by all who watch it here."""

    __slots__ = ("_alarm", "_changed", "_woken_at", "ended", "epoch", "gap", "reply_id", "text", "viewers")

    def __init__(self, reply_id: str) -> None:
        self.reply_id = reply_id
        self.epoch = 0
        self.text = ""
        self.ended = False
        self.gap = False
        self.viewers = 0
        self._changed = asyncio.Event()
        self._woken_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None

    def take(self, epoch: int, offset: int, delta: str) -> None:
        """Add an entry of the live stream, whatever came before it or did not."""
        if epoch < self.epoch:
            return
        if epoch > self.epoch:
            self.epoch, self.text = epoch, ""
        have = len(self.text)
        if offset > have:
            self.gap = True
        elif offset + len(delta) > have:
            self.text += delta[have - offset :]
        self.wake()

    def replace(self, epoch: int, text: str) -> None:
        """Adopt a text read as a whole, if it is further than what is known."""
        if epoch > self.epoch or (epoch == self.epoch and len(text) > len(self.text)):
            self.epoch, self.text = epoch, text
            self.wake()

    def end(self) -> None:
        self.ended = True
        self.wake()

    def wake(self) -> None:
        self._woken_at = time.monotonic()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changed(self) -> None:
        """Wait until something is known that was not, or for about `QUIET_S`."""
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(QUIET_S, self._ring)
        await self._changed.wait()

    def _ring(self) -> None:
        """One alarm for all who watch, set again while text comes: a timeout at each wait would cost more than the text."""
        left = self._woken_at + QUIET_S - time.monotonic()
        is_early = left > 0 and self.viewers
        self._alarm = asyncio.get_running_loop().call_later(left, self._ring) if is_early else None
        if left <= 0:
            self.wake()


class _Strays:
    """News of replies that nobody follows here yet: a quick reply may be over before its first viewer listens. They
    are kept for one to two `SECONDS`, and never more than `MOST`."""

    SECONDS = 1.0
    MOST = 4000

    def __init__(self) -> None:
        self._older: dict[str, list[Delta | None]] = {}
        self._newer: dict[str, list[Delta | None]] = {}
        self._kept = 0
        self._turned_at = 0.0

    def keep(self, reply_id: str, delta: Delta | None) -> None:
        """None: its end."""
        now = time.monotonic()
        if now - self._turned_at > self.SECONDS or self._kept >= self.MOST // 2:
            self._older = self._newer if now - self._turned_at < 2 * self.SECONDS else {}
            self._newer, self._kept, self._turned_at = {}, 0, now
        self._newer.setdefault(reply_id, []).append(delta)
        self._kept += 1

    def of(self, reply_id: str) -> list[Delta | None]:
        """What is kept of a reply, oldest first; nothing afterwards."""
        return self._older.pop(reply_id, []) + self._newer.pop(reply_id, [])


class News:
    """Whether anything has come of the replies of one user, for one who waits for it."""

    def __init__(self) -> None:
        self._has_come = asyncio.Event()

    def tell(self) -> None:
        self._has_come.set()

    async def wait(self, timeout_s: float) -> None:
        """Until something has come since the last time, or for `timeout_s`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_come.wait(), timeout_s)
        self._has_come.clear()


class Hub:
    """The one reader of the live stream in a web process. It resumes by id, so a reconnect loses nothing."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}
        self._listeners: dict[int, set[News]] = {}
        # A connection of its own: however many viewers come at once, their texts must not hold up the live stream. Commands
        # go over it as they are: what the client puts around each of them costs more than all the rest of reading.
        self._live: Any = redis.asyncio.ConnectionPool.from_url(
            settings.REDIS_URL, socket_timeout=15, socket_connect_timeout=1, protocol=2
        ).make_connection()
        self._texts: Any = redis.asyncio.Redis.from_pool(
            redis.asyncio.BlockingConnectionPool.from_url(
                settings.REDIS_URL, socket_timeout=5, socket_connect_timeout=1, max_connections=16, timeout=5
            )
        )
        self._reader: asyncio.Task[None] | None = None
        self._strays = _Strays()

    @contextlib.asynccontextmanager
    async def follow(self, reply_id: str, epoch: int) -> AsyncIterator[Tail]:
        """The tail of a reply, filled with what was published so far."""
        await self._start()
        tail = self._tails.get(reply_id)
        if tail is None:
            tail = self._tails[reply_id] = Tail(reply_id)
            for delta in self._strays.of(reply_id):
                self._tell(reply_id, delta)
        tail.viewers += 1
        tail.replace(epoch, "")
        try:
            await self.refill(tail)
            yield tail
        finally:
            tail.viewers -= 1
            if not tail.viewers and self._tails.get(reply_id) is tail:
                del self._tails[reply_id]

    @contextlib.asynccontextmanager
    async def listen(self, user_id: int) -> AsyncIterator[News]:
        """News of all replies of a user: that text came, or an end."""
        await self._start()
        news = News()
        listeners = self._listeners.setdefault(user_id, set())
        listeners.add(news)
        try:
            yield news
        finally:
            listeners.discard(news)
            if not listeners and self._listeners.get(user_id) is listeners:
                del self._listeners[user_id]

    async def _start(self) -> None:
        """Have the live stream read from now on, if it is not already."""
        if self._reader is None or self._reader.done():
            started = asyncio.Event()
            self._reader = asyncio.create_task(self._read(started))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(started.wait(), 1.5)

    async def refill(self, tail: Tail) -> None:
        """Read the whole text: at the beginning, and wherever an entry was missed."""
        tail.gap = False
        if tail.epoch == 0:
            return
        with contextlib.suppress(*FAULTS):
            raw = await self._texts.get(_key(tail.reply_id, tail.epoch))
            if raw:
                tail.replace(tail.epoch, _whole(raw))

    async def _read(self, started: asyncio.Event) -> None:
        last: bytes | str = ""
        task = asyncio.current_task()
        # The client loses a cancellation that comes together with data, and whoever ends the loop would wait for ever.
        while task is None or not task.cancelling():
            try:
                if not last:
                    newest = await self._ask("XREVRANGE", LIVE, "+", "-", "COUNT", 1)
                    last = newest[0][0] if newest else "0-0"
                    started.set()
                answer = await self._ask("XREAD", "COUNT", 2000, "BLOCK", 5000, "STREAMS", LIVE, last)
                for _, entries in answer or ():
                    for entry_id, (name, value) in entries:
                        last = entry_id
                        self._dispatch(name, value)
            except FAULTS as error:
                log.warning("the live stream cannot be read", error=str(error))
                with contextlib.suppress(*FAULTS):
                    await self._live.disconnect()
                await asyncio.sleep(0.3)

    async def _ask(self, *command: str | bytes | int) -> Any:
        await self._live.connect()
        await self._live.send_command(*command)
        return await self._live.read_response()

    def _dispatch(self, name: bytes, value: bytes) -> None:
        if name == b"x":
            reply_id, user_id = json.loads(value)
            self._tell(reply_id, None)
            self._spread(user_id)
        else:
            for delta in json.loads(value):
                self._tell(delta[0], delta)
                if self._listeners:
                    self._spread(delta[4])

    def _spread(self, user_id: int) -> None:
        for news in self._listeners.get(user_id, ()):
            news.tell()

    def _tell(self, reply_id: str, delta: Delta | None) -> None:
        tail = self._tails.get(reply_id)
        if tail is None:
            self._strays.keep(reply_id, delta)
        elif delta is None:
            tail.end()
        else:
            _reply_id, epoch, offset, text, _user_id = delta
            tail.take(epoch, offset, text)


_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()


def hub() -> Hub:
    """The hub of the running event loop."""
    loop = asyncio.get_running_loop()
    if loop not in _hubs:
        _hubs[loop] = Hub()
    return _hubs[loop]
