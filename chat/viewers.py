"""Who watches: how many streams an account has open, and whether whoever opened one may still see it.

A stream lasts for minutes, and meanwhile its reader may sign out, change his password, be disabled, lose his API key or
delete the chat. All streams of a process are looked after together: every `RECHECK_S` a few queries for all of them,
and one message to Redis that renews their slots. Between these a stream costs nothing, and holds no connection.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Collection
from contextlib import aclosing
from functools import partial
from typing import cast
from weakref import WeakKeyDictionary

import structlog
from django.conf import settings
from django.contrib.sessions.models import Session as SignIn
from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest

from aleph import rates
from aleph.accounts.models import ApiKey, User
from aleph.api import Unauthenticated
from aleph.problems import Busy, NotFound, Problem
from aleph.threads import in_thread
from chat.models import Message

log = structlog.get_logger(__name__)

RECHECK_S = 30.0
"""Less than half of `rates.SLOT_S`, so that one failed round loses no slot."""
BATCH = 500


class Leaving(Busy):
    """This process is asked to go; another one goes on with the stream."""


class Seat:
    """One open stream of an account: the slot that it takes, and what gives its reader the right to it."""

    def __init__(self, request: HttpRequest, kind: str) -> None:
        user = cast(User, request.user)
        key = getattr(request, "auth", None)
        self.user_id = user.pk
        self.api_key_id = key.pk if isinstance(key, ApiKey) else None
        self.sign_in = request.session.session_key if self.api_key_id is None else None
        self.password = user.password
        self.reply_id: str | None = None
        most = settings.MAX_OPEN_STREAMS
        self.slot = rates.Slot(kind, user.pk, most) if most else None
        self.left: rates.Allowance | None = None
        self.comes_back = False
        self.problem: Problem | None = None
        self.waiting: asyncio.Task[object] | None = None
        self._is_closed = False

    def end(self, problem: Problem) -> None:
        """End the stream for this reason, wherever it is waiting. On its event loop."""
        self.problem = problem
        if self.waiting is not None:
            self.waiting.cancel()

    def is_over(self) -> bool:
        return self.problem is not None

    def close(self) -> None:
        """Give the slot back. In a thread; twice is once."""
        if not self._is_closed and self.slot is not None:
            rates.free(self.slot)
        self._is_closed = True


def admit(request: HttpRequest, *actions: str, kind: str = "stream") -> Seat:
    """A seat for one more stream of whoever asks, counted together with `actions`. In a thread. Raises `RateLimited`.
    Of each kind an account has so many seats.

    Who has it either gives it to a `Watched`, or closes it.
    """
    seat = Seat(request, kind)
    seat.left = rates.take(request, *actions, "stream", slot=seat.slot)
    return seat


class Watched:
    """The events of a reply, or of somebody's own (None), for as long as the seat's reader may see them; then, with the
    reason, a `farewell`. `comes_back`: who reads it opens another stream by himself where this one breaks off.

    A streaming response takes it as its content, and closes it when it is over, also where nobody came to read it.
    """

    def __init__(
        self,
        seat: Seat,
        reply_id: str | None,
        events: AsyncIterable[str],
        *,
        farewell: Callable[[Problem], str],
        comes_back: bool = False,
    ) -> None:
        seat.reply_id, seat.comes_back = reply_id, comes_back
        self.seat = seat
        self.events = cast(AsyncGenerator[str, None], events)
        self.farewell = farewell

    def __aiter__(self) -> AsyncIterator[str]:
        return self._all()

    def close(self) -> None:
        self.seat.close()

    async def _all(self) -> AsyncIterator[str]:
        seat, lookout = self.seat, _lookout()
        lookout.enter(seat)
        try:
            async with aclosing(self.events) as events:
                while not seat.is_over() and (event := await _next(seat, events)) is not None:
                    yield event
            if (problem := seat.problem) is not None:
                log.info("a stream was ended", user_id=seat.user_id, reason=problem.code)
                yield self.farewell(problem)
        finally:
            lookout.leave(seat)


async def _next(seat: Seat, events: AsyncGenerator[str, None]) -> str | None:
    """The next of `events`; None when they, or the seat, come to their end.

    Only here may the look-out interrupt: elsewhere it would cut off an event that is being sent. `asyncio.timeout` does
    the same, and costs more than the event.
    """
    seat.waiting = task = asyncio.current_task()
    try:
        return await anext(events, None)
    except asyncio.CancelledError:
        if task is not None and seat.is_over() and not task.uncancel():
            return None
        raise
    finally:
        seat.waiting = None


def count() -> int:
    """How many streams are watched on this event loop."""
    return len(_lookout().seats)


def count_all() -> int:
    """How many streams are watched in this process. From any thread."""
    return sum(len(lookout.seats) for lookout in list(_lookouts.values()))


def send_away() -> None:
    """Let everybody who comes back by himself do so, to another process: this one is asked to go. Whoever does not is
    served to the end, or until the server loses its patience. From any thread, and from the handler of a signal."""
    _is_leaving.set()
    for loop, lookout in list(_lookouts.items()):
        if not loop.is_closed():
            loop.call_soon_threadsafe(lookout.send_away)


class _Lookout:
    """Looks after all streams of an event loop, while there are any."""

    def __init__(self) -> None:
        self.seats: set[Seat] = set()
        self._task: asyncio.Task[None] | None = None

    def enter(self, seat: Seat) -> None:
        self.seats.add(seat)
        if _is_leaving.is_set():
            self.send_away()
        if self._task is None or self._task.done():
            # Not in the context of the request that happened to be the first.
            self._task = asyncio.create_task(self._look_round(), context=contextvars.Context())

    def leave(self, seat: Seat) -> None:
        self.seats.discard(seat)

    def send_away(self) -> None:
        for seat in self.seats:
            if seat.comes_back:
                seat.end(Leaving())

    async def _look_round(self) -> None:
        while self.seats:
            await asyncio.sleep(RECHECK_S)
            try:
                await self.look()
            except Exception:
                log.exception("open streams could not be looked after; again in a moment")

    async def look(self) -> None:
        here = list(self.seats)
        for start in range(0, len(here), BATCH):
            for seat, problem in await in_thread(partial(_look_after, here[start : start + BATCH])):
                seat.end(problem)


def _look_after(seats: Collection[Seat]) -> list[tuple[Seat, Problem]]:
    """Renew the seats' slots; those whose readers may not go on, and why."""
    passwords = dict(
        User.objects.filter(pk__in={seat.user_id for seat in seats}, is_active=True).values_list(
            "pk", "password"
        )
    )
    sign_ins = set(
        SignIn.objects.filter(
            session_key__in={seat.sign_in for seat in seats if seat.sign_in}, expire_date__gt=Now()
        ).values_list("session_key", flat=True)
    )
    keys = set(
        ApiKey.objects.filter(
            Q(expires_at=None) | Q(expires_at__gt=Now()),
            pk__in={seat.api_key_id for seat in seats if seat.api_key_id},
            revoked_at=None,
        ).values_list("pk", flat=True)
    )
    replies = set(
        Message.objects.filter(pk__in={seat.reply_id for seat in seats if seat.reply_id}).values_list(
            "pk", flat=True
        )
    )

    def problem_of(seat: Seat) -> Problem | None:
        if seat.user_id not in passwords:
            return Unauthenticated()
        if seat.api_key_id is not None and seat.api_key_id not in keys:
            return Unauthenticated()
        if seat.sign_in and (seat.sign_in not in sign_ins or passwords[seat.user_id] != seat.password):
            return Unauthenticated()
        return None if seat.reply_id is None or seat.reply_id in replies else NotFound()

    found = [(seat, problem_of(seat)) for seat in seats]
    rates.renew([seat.slot for seat, problem in found if problem is None and seat.slot is not None])
    return [(seat, problem) for seat, problem in found if problem is not None]


_is_leaving = threading.Event()
_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, _Lookout] = WeakKeyDictionary()


def _lookout() -> _Lookout:
    """The look-out of the running event loop."""
    return _lookouts.setdefault(asyncio.get_running_loop(), _Lookout())
