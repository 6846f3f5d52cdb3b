"""Calls that other software reports: each event counts once, and what cannot be read is kept for people to look at.

`aleph.usage_events` reads what comes and calls this; staff see dead letters in the administration. An event whose id was
told before is the same event if it says the same; a dead letter may be told again, better.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from django.db import transaction
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from usage import meter
from usage.models import ReportedCall, TokenUsage

BATCH = 100
"""Events of one transaction: short enough that nobody waits for it."""
NAMES = frozenset(
    {
        "id",
        "operation",
        "operationId",
        "provider",
        "model",
        "modelVersion",
        "format",
        "status",
        "type",
        "object",
    }
)
"""Fields whose words name something; the words of all others are left out of what is kept of a dead letter."""
DEEPEST, WIDEST, LONGEST = 5, 40, 120

Status = Literal["recorded", "duplicate", "mismatch", "dead_lettered"]


@dataclass(frozen=True, slots=True)
class Call:
    """What `meter.record` needs of a reported call. `happened_at`: by whose prices it is priced."""

    operation: str
    operation_id: str
    provider: str
    model: str
    counts: meter.Counts
    source: str
    status: str
    happened_at: datetime | None = None
    first_token_ms: int | None = None
    latency_ms: int | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it came (`said`), and what it was read as: a call, or a reason why it could not be."""

    id: str
    said: Mapping[str, Any]
    call: Call | None = None
    reason: str = ""

    @property
    def digest(self) -> str:
        text = json.dumps(self.said, sort_keys=True, default=str)
        return hashlib.sha256(text.encode(errors="replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class Result:
    event_id: str
    status: Status
    usage_id: str = ""
    reason: str = ""


def record(*, user: User, events: Sequence[Event]) -> list[Result]:
    """Record events, in their order, one result for each. Repeating it is harmless, also after half of it."""
    results: list[Result] = []
    for at in range(0, len(events), BATCH):
        with transaction.atomic():
            results += _record(user, events[at : at + BATCH])
    return results


def _record(user: User, events: Sequence[Event]) -> list[Result]:
    fresh: dict[str, ReportedCall] = {}
    for event in events:
        fresh.setdefault(event.id, _row(user, event))
    ReportedCall.objects.bulk_create(fresh.values(), ignore_conflicts=True)
    known = {
        row.event_id: row
        for row in ReportedCall.objects.select_for_update().filter(user=user, event_id__in=fresh)
    }
    calls = dict(
        TokenUsage.objects.filter(operation_id__in=[row.pk for row in known.values()]).values_list(
            "operation_id", "id"
        )
    )
    results = []
    begun: set[str] = set()
    for event in events:
        row = known[event.id]
        is_first = row.pk == fresh[event.id].pk and event.id not in begun
        begun.add(event.id)
        results.append(_settle(user, event, row, calls, is_first=is_first))
    return results


def _settle(user: User, event: Event, row: ReportedCall, calls: dict[str, str], *, is_first: bool) -> Result:
    if not is_first and row.state == ReportedCall.State.RECORDED:
        same = row.digest == event.digest
        return Result(event.id, "duplicate" if same else "mismatch", calls.get(row.pk, "") if same else "")
    if event.call is None:
        if not is_first:
            _keep(row, event)
        return Result(event.id, "dead_lettered", reason=event.reason)
    if not is_first:
        _keep(row, event)
    calls[row.pk] = _meter(user, event.call, row).pk
    return Result(event.id, "recorded", calls[row.pk])


def _meter(user: User, call: Call, row: ReportedCall) -> TokenUsage:
    return meter.record(
        user_id=user.pk,
        operation=call.operation,
        operation_id=row.pk,
        attempt=1,
        provider=call.provider,
        model=call.model,
        requested_model=call.model,
        counts=call.counts,
        source=call.source,
        status=call.status,
        started_at=call.happened_at or timezone.now(),
        first_token_ms=call.first_token_ms,
        latency_ms=call.latency_ms,
        metadata={"given": dict(call.metadata), "operation_id": call.operation_id, "event_id": row.event_id},
    )


def _row(user: User, event: Event) -> ReportedCall:
    row = ReportedCall(id=ids.new("evt"), user=user, event_id=event.id)
    return _filled(row, event)


def _keep(row: ReportedCall, event: Event) -> None:
    """A dead letter told again."""
    _filled(row, event).save(update_fields=["digest", "state", "reason", "skeleton"])


def _filled(row: ReportedCall, event: Event) -> ReportedCall:
    is_dead = event.call is None
    row.digest = event.digest
    row.state = ReportedCall.State.DEAD if is_dead else ReportedCall.State.RECORDED
    row.reason = event.reason[:300] if is_dead else ""
    row.skeleton = skeleton(event.said) if is_dead else None
    return row


def skeleton(said: Any, *, name: str = "", depth: int = DEEPEST) -> Any:
    """The names and numbers of what came. Of its words only those of fields that name something."""
    if isinstance(said, Mapping) and depth:
        pairs = list(said.items())[:WIDEST]
        return {_plain(str(key)): skeleton(value, name=str(key), depth=depth - 1) for key, value in pairs}
    if isinstance(said, list | tuple) and depth:
        return [skeleton(value, depth=depth - 1) for value in said[:WIDEST]]
    if isinstance(said, bool) or said is None:
        return said
    if isinstance(said, int | float):
        return said if abs(said) < 1e15 else "(a number)"
    if isinstance(said, str):
        return _plain(said) if name in NAMES else f"({len(said)} characters)"
    return "(more)"


def _plain(text: str) -> str:
    return text.replace("\x00", "").encode(errors="replace").decode()[:LONGEST]
