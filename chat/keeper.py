"""The thread that keeps the replies of one worker process alive: leases, checkpoints and requests to stop.

A reply's own thread sits in a read of the provider, so this one does the rest for all of them: it saves what was
written (R39), renews the leases on the database's clock (R10), and ends the call of a reply that somebody stopped (R40),
that was taken over, or whose lease could not be renewed in time (R42).
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from typing import Literal

import structlog
from django.db import Error as DatabaseError
from django.db import connection, transaction
from django.db.models.functions import Now

from chat.models import Message
from chat.providers.base import Call

log = structlog.get_logger(__name__)

LEASE = timedelta(seconds=30)
TICK_S = 0.25
"""How soon a Stop of any tab is heard: its reader is to see the end within a second."""
CHECKPOINT_S = 1.0
HEARTBEAT_S = 5.0
CONTENT = Message._meta.get_field("content")
SAFETY_S = 5.0
"""A worker that could not renew gives up this long before others may take its replies over."""

Ending = Literal["", "stopped", "lost", "shutdown", "too_long"]


@dataclass(eq=False, slots=True)
class Live:
    """A reply that this process is writing. `ended_by` says why its call was cancelled, if it was."""

    reply_id: str
    epoch: int
    call: Call = field(default_factory=Call)
    text: str = ""
    saved: int = 0
    renewed_at: float = field(default_factory=time.monotonic)
    ended_by: Ending = ""
    called: bool = False
    """Whether the provider was asked, so that there is a call to log."""

    def end(self, why: Ending) -> None:
        if not self.ended_by:
            self.ended_by = why
            self.call.cancel()


class Keeper:
    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._arrived = threading.Condition()
        self._checkpointed_at = 0.0
        self._drained_at: float | None = None
        threading.Thread(target=self._run, name="keeper", daemon=True).start()

    def keep(self, live: Live) -> None:
        with self._arrived:
            self._live[live.reply_id] = live
            self._arrived.notify()

    def release(self, live: Live) -> None:
        with self._arrived:
            self._live.pop(live.reply_id, None)

    def drain(self, grace_s: float) -> None:
        """The process is asked to go: replies may go on for `grace_s` seconds, then they are handed back."""
        self._drained_at = time.monotonic() + grace_s

    def _run(self) -> None:
        while True:
            with self._arrived:
                while not self._live:
                    self._arrived.wait()
                replies = list(self._live.values())
            try:
                self._tend(replies)
            except DatabaseError as error:
                log.warning("leases cannot be renewed", error=str(error))
            except Exception:
                log.exception("the keeper stumbled")
            finally:
                connection.close()
            self._give_up(replies)
            time.sleep(TICK_S)

    def _tend(self, replies: list[Live]) -> None:
        now = time.monotonic()
        due = [live for live in replies if now - live.renewed_at >= HEARTBEAT_S]
        if due:
            renew(due, now)
        if now - self._checkpointed_at >= CHECKPOINT_S:
            self._checkpointed_at = now
            checkpoint(replies)
        states = Message.objects.filter(pk__in=[live.reply_id for live in replies]).values_list(
            "id", "epoch", "state", "stop_requested_at"
        )
        found = {reply_id: (epoch, state, stopped) for reply_id, epoch, state, stopped in states}
        for live in replies:
            epoch, state, stopped = found.get(live.reply_id, (None, None, None))
            if epoch != live.epoch or state != Message.State.STREAMING:
                live.end("lost")
            elif stopped is not None:
                live.end("stopped")

    def _give_up(self, replies: list[Live]) -> None:
        now = time.monotonic()
        for live in replies:
            if now - live.renewed_at > LEASE.total_seconds() - SAFETY_S:
                live.end("lost")
            elif self._drained_at is not None and now > self._drained_at:
                live.end("shutdown")


def checkpoint(replies: Sequence[Live]) -> None:
    """Save the texts that have grown, all in one go, each only while its reply is still this worker's."""
    texts = [(live, live.text) for live in replies]
    grown = [(live, text) for live, text in texts if len(text) > live.saved]
    if not grown:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE chat_message SET content = %s WHERE id = %s AND epoch = %s AND state = 'streaming'",
            [(CONTENT.get_prep_value(text), live.reply_id, live.epoch) for live, text in grown],
        )
    for live, text in grown:
        live.saved = len(text)


def renew(replies: Sequence[Live], now: float) -> None:
    """Extend the leases. Replies of one epoch go together; nearly all are in their first."""
    for epoch in {live.epoch for live in replies}:
        same = [live for live in replies if live.epoch == epoch]
        Message.objects.filter(
            pk__in=[live.reply_id for live in same], epoch=epoch, state=Message.State.STREAMING
        ).update(lease_until=Now() + LEASE)
        for live in same:
            live.renewed_at = now


@cache
def keeper() -> Keeper:
    """The keeper of this process."""
    return Keeper()
