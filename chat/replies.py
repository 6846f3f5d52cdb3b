"""The life of a reply after its turn was admitted: claimed by a worker, written, closed; swept up when a worker died.

    queued → streaming → complete | stopped | failed | interrupted

A worker claims by a conditional update that raises the `epoch`, and answers for the reply while its lease lasts. `_close`
is the one way in which a reply ends, for the worker, Stop, failures and the sweep alike: compare-and-set on (id,
epoch, state), and in the same transaction the hold is posted or voided, the usage row written, the session counted.
Every closing raises the epoch, so a worker that wakes up late can write nothing.

Who pays: a reply that is complete, or stopped by its reader, costs what was used, and never more than was held. A
reply that failed or was interrupted costs nothing, with or without text.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
from celery import current_app
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from aleph.failpoints import reach
from aleph.problems import IdempotencyMismatch
from aleph.returning import update_returning
from billing import ledger
from chat import catalogue, prompts, stream
from chat.keeper import LEASE, Live, keeper
from chat.models import Message, Session
from chat.providers.base import CLOCKS, Cancelled, Counts, Finish, Prompt, ProviderError, Text, Usage
from usage import meter

log = structlog.get_logger(__name__)
State = Message.State

OPERATION = "chat_message"
TEMPERATURE, TOP_P = Decimal("0.7"), Decimal("0.9")
MAX_ATTEMPTS = 2
MAX_TEXT = 256_000
RING_AGAIN = timedelta(seconds=6)
"""With a sweep every three seconds a lost bell is rung again within 15 s, also where a sweep or two die."""
QUEUE_LIMIT = timedelta(seconds=60)
BATCH = 200
PAUSES_S = (0.2, 0.4)
"""Between the attempts to close a reply while the database does not answer."""
WORKER_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""A worker has something to lose, and nobody waits for it: about as long as its lease lasts."""
NOTHING_WAS_USED = frozenset(
    {
        "auth",
        "credit",
        "rate_limit",
        "overloaded",
        "context_too_long",
        "bad_request",
        "not_found",
        "unreachable",
    }
)
"""Failures by which the provider says, or it is plain, that it never worked on the prompt."""


@dataclass(slots=True)
class Outcome:
    """How a reply ended, and what is known about it. Durations in milliseconds, monotonic."""

    state: str
    text: str = ""
    counts: Counts | None = None
    finish_reason: str = ""
    answered_by: str = ""
    error_kind: str = ""
    first_token_ms: int | None = None
    latency_ms: int | None = None
    called: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def is_charged(self) -> bool:
        return self.state in (State.COMPLETE, State.STOPPED) and bool(self.text)


def ring(reply_id: str) -> None:
    """Tell some worker that a reply waits. Losing this is harmless: the sweep rings again."""
    try:
        current_app.send_task("chat.tasks.generate", args=[reply_id], queue="replies", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the sweep will ring again", reply_id=reply_id, error=str(error))


def generate(reply_id: str) -> None:
    """Claim a queued reply, have it written, close it. Does nothing when the reply is not waiting any more."""
    reach("K2")
    reply = _claim(reply_id)
    if reply is None:
        return
    reach("K3")
    structlog.contextvars.bind_contextvars(reply_id=reply.pk, epoch=reply.epoch, user_id=reply.user_id)
    live = Live(reply.pk, reply.epoch)
    keeper().keep(live)
    try:
        outcome = _write(reply, live)
    except Exception:
        log.exception("a reply failed by a fault of ours")
        outcome = Outcome(State.INTERRUPTED, text=live.text, error_kind="internal", called=live.called)
    finally:
        keeper().release(live)
    stream.publisher().flush()
    reach("K6")
    if live.ended_by == "shutdown" and not live.text:
        _hand_back(reply, Q())
    elif live.ended_by != "lost":
        _close(reply, outcome, pauses_s=WORKER_PAUSES_S)
    reach("K10")
    connection.close()


def close_queued(reply_id: str, state: str, *, error_kind: str = "") -> bool:
    """End a reply that no worker has begun. False if one has, or it is over."""
    reply = Message.objects.filter(pk=reply_id, state=State.QUEUED).select_related("model").first()
    return reply is not None and _close(reply, Outcome(state, error_kind=error_kind, called=False))


def close_for_owner(reply: Message) -> bool:
    """End an open reply as its reader's Stop would, without waiting for its worker: the chat is being deleted. False if
    it is over, or went on since it was read."""
    if not reply.is_open:
        return False
    if reply.state == State.QUEUED:
        return close_queued(reply.pk, State.STOPPED)
    return _close(reply, Outcome(State.STOPPED, text=_known_text(reply)))


def sweep() -> None:
    """What has to be done for replies that nobody answers for. Any number of sweeps may run at once."""
    for reply in Message.objects.filter(state=State.STREAMING, lease_until__lt=Now()).select_related("model")[
        :BATCH
    ]:
        with _alone(reply.pk):
            _recover(reply)
    waiting = Message.objects.filter(state=State.QUEUED).annotate(since=Coalesce("lease_until", "created_at"))
    for reply_id in list(waiting.filter(since__lt=Now() - QUEUE_LIMIT).values_list("pk", flat=True)[:BATCH]):
        with _alone(reply_id):
            close_queued(reply_id, State.FAILED, error_kind="queue")
    silent = Message.objects.filter(state=State.QUEUED, rung_at__lt=Now() - RING_AGAIN)
    for reply_id in list(silent.values_list("pk", flat=True)[:BATCH]):
        if silent.filter(pk=reply_id).update(rung_at=Now()):
            ring(reply_id)
    ledger.expire_due()


@contextmanager
def _alone(reply_id: str) -> Iterator[None]:
    """What is wrong with one reply must not keep the sweep from the others."""
    try:
        yield
    except Exception:
        log.exception("a reply could not be swept up", reply_id=reply_id)


def charge_so_far(reply: Message, text: str) -> int:
    """Aleph tokens that an open reply has cost up to now, by estimate; 0 for a free model."""
    if reply.model is None or reply.model.is_free:
        return 0
    used = prompts.cost(
        reply, input_tokens=reply.estimated_input_tokens, output_tokens=written_so_far(reply, text)
    )
    return min(reply.held_tokens, used)


def written_so_far(reply: Message, text: str) -> int:
    """LLM tokens that the text of a reply is estimated at."""
    return prompts.estimated_output(reply.model, text) if reply.model else 0


def _claim(reply_id: str) -> Message | None:
    claimed = update_returning(
        Message.objects.filter(pk=reply_id, state=State.QUEUED),
        state=State.STREAMING,
        epoch=F("epoch") + 1,
        attempts=F("attempts") + 1,
        lease_until=Now() + LEASE,
        started_at=Now(),
    )
    return claimed[0] if claimed else None


def _write(reply: Message, live: Live) -> Outcome:
    """Have the provider write the reply; text goes to the stream as it comes. No transaction is open meanwhile."""
    conversation = prompts.Conversation(reply.session_id, tip=reply.pk, with_models=True)
    reply.model = conversation.messages[-1].model
    assert reply.model is not None
    draft = prompts.draft(reply.model, conversation.asking(reply.parent_id))
    connection.close()
    provider = catalogue.connected().get(reply.provider)
    if provider is None:
        return Outcome(State.FAILED, error_kind="unreachable", called=False)
    takes = reply.model.takes_temperature
    prompt = Prompt(
        upstream_model=reply.answered_by,
        messages=draft.messages,
        is_continuation=prompts.is_continuation(draft.messages),
        max_output_tokens=reply.max_output_tokens,
        temperature=TEMPERATURE if takes else None,
        top_p=TOP_P if takes else None,
        user_ref=hashlib.sha256(f"aleph:{reply.user_id}".encode()).hexdigest()[:32],
    )
    outcome = Outcome(State.COMPLETE)
    began = time.monotonic()
    try:
        live.called = True
        _listen(provider.stream(prompt, call=live.call, clocks=CLOCKS), reply, live, outcome, began)
        if not live.text.strip():
            outcome.state, outcome.error_kind = State.FAILED, "empty"
    except Cancelled:
        _cancelled(live, outcome)
    except ProviderError as error:
        outcome.state, outcome.error_kind = State.FAILED, error.kind
        outcome.metadata |= {"status": error.status, "request_id": error.request_id}
        log.warning("the provider failed", provider=reply.provider, kind=error.kind, detail=error.detail)
    outcome.text = live.text
    outcome.latency_ms = _ms_since(began)
    return outcome


def _listen(events: Any, reply: Message, live: Live, outcome: Outcome, began: float) -> None:
    publisher = stream.publisher()
    offset = byte_offset = 0
    for event in events:
        if isinstance(event, Text):
            text = event.text.replace("\x00", "")
            if not text:
                continue
            if outcome.first_token_ms is None:
                outcome.first_token_ms = _ms_since(began)
            if offset:
                reach("K5")
            live.text += text
            publisher.append(
                reply_id=reply.pk, epoch=reply.epoch, offset=offset, byte_offset=byte_offset, text=text
            )
            offset += len(text)
            byte_offset += len(text.encode())
            if offset > MAX_TEXT:
                live.end("too_long")
        elif isinstance(event, Usage):
            outcome.counts = event.counts
        elif isinstance(event, Finish):
            outcome.finish_reason = event.reason
            outcome.answered_by = event.model or outcome.answered_by
            outcome.metadata |= {"request_id": event.request_id, "raw_finish_reason": event.raw_reason}


def _cancelled(live: Live, outcome: Outcome) -> None:
    if live.ended_by == "stopped":
        outcome.state = State.STOPPED
    elif live.ended_by == "too_long":
        outcome.state, outcome.finish_reason = State.COMPLETE, "length"
    else:
        outcome.state, outcome.error_kind = State.INTERRUPTED, live.ended_by


def _close(
    reply: Message, outcome: Outcome, *, only_if: Q | None = None, pauses_s: tuple[float, ...] = PAUSES_S
) -> bool:
    """Close a reply that is as `reply` says (state and epoch). False if it is not any more. Publish the end if it is over.

    Harmless to repeat: after a lost connection the same closing either finds the reply open, or finds it closed.
    """
    if not reply.is_open:
        return False
    for pause_s in (*pauses_s, None):
        try:
            closed = _close_once(reply, outcome, only_if or Q())
            # Another worker's reply goes on; one that is over may have been ended by us, with the answer lost.
            is_over = closed or not Message.objects.filter(pk=reply.pk, state__in=Message.OPEN).exists()
            break
        except (DatabaseError, ledger.Raced):
            log.warning("a reply could not be closed", reply_id=reply.pk, again_in_s=pause_s, exc_info=True)
            connection.close()
            if pause_s is None:
                return False
            time.sleep(pause_s)
    if is_over:
        reach("K9")
        stream.end(reply.pk, reply.epoch)
    return closed


def _close_once(reply: Message, outcome: Outcome, only_if: Q) -> bool:
    counts, source = _counted(reply, outcome)
    used = _used(reply, outcome, counts)
    charge = min(used, reply.held_tokens) if outcome.is_charged else 0
    with transaction.atomic():
        closed = Message.objects.filter(only_if, pk=reply.pk, epoch=reply.epoch, state=reply.state).update(
            state=outcome.state,
            epoch=F("epoch") + 1,
            content=outcome.text,
            tokens_used=charge,
            provider=reply.provider,
            answered_by=outcome.answered_by or reply.answered_by,
            finish_reason=outcome.finish_reason,
            error_kind=outcome.error_kind,
            lease_until=None,
            finished_at=Now(),
        )
        if not closed:
            return False
        cost, paid = _settle(reply, outcome, charge)
        if cost != charge:
            Message.objects.filter(pk=reply.pk).update(tokens_used=cost)
        if outcome.called:
            _record(reply, outcome, counts, source, paid, absorbed=max(0, used - cost))
        if cost:
            Session.objects.filter(pk=reply.session_id).update(
                total_tokens_used=F("total_tokens_used") + cost
            )
        reach("K7")
    reach("K8")
    return True


def _settle(reply: Message, outcome: Outcome, charge: int) -> tuple[int, str]:
    """Post or void the hold. What the reply costs then, and the transfer that took it, "" for none.

    A hold that was resolved past this module stays as it is, for nobody here knows why: no money moves a second time,
    the reply ends with what the books took (R13), and an alarm asks for a person, who corrects by a transfer of its own.
    """
    key = f"close:{reply.pk}"
    try:
        if charge:
            return charge, ledger.post(hold_id=reply.hold_id, amount=charge, key=key).id
        if reply.hold_id:
            ledger.void(hold_id=reply.hold_id, key=key, reason=outcome.error_kind or outcome.state)
        return 0, ""
    except (ledger.AlreadyResolved, IdempotencyMismatch):
        resolution = ledger.resolution_of(reply.hold_id)
        if resolution is None:
            raise
    is_post = resolution.phase == ledger.Transfer.Phase.POST
    taken, paid = (resolution.amount, resolution.pk) if is_post else (0, "")
    alarm = partial(log.error, "a hold was resolved otherwise", reply_id=reply.pk, resolution=resolution.pk)
    transaction.on_commit(partial(alarm, state=outcome.state, charge=charge, taken=taken), robust=True)
    return taken if outcome.is_charged else 0, paid


def _used(reply: Message, outcome: Outcome, counts: meter.Counts) -> int:
    """Aleph tokens that a reply costs by its counts; 0 for a free one, and for one that failed or was interrupted.

    What is above the hold, and what was used before a Stop without any text, is the house's loss (`absorbed_tokens`).
    """
    if not reply.hold_id or outcome.state not in (State.COMPLETE, State.STOPPED):
        return 0
    used = prompts.cost(reply, input_tokens=counts.input_tokens, output_tokens=counts.output_tokens)
    if used > reply.held_tokens:
        log.info("a reply cost more than was held", reply_id=reply.pk, used=used, held=reply.held_tokens)
    return used


def _counted(reply: Message, outcome: Outcome) -> tuple[meter.Counts, str]:
    """The LLM tokens of this call, and who counted them. What the provider did not say is estimated."""
    said = outcome.counts
    was_used = outcome.called and (outcome.text or outcome.error_kind not in NOTHING_WAS_USED)
    if said is None and not was_used:
        return meter.Counts(fresh_input=0, visible_output=0), "estimated"
    assert reply.model is not None
    if said is not None and said.provider_input is not None and said.provider_output is not None:
        return _disjoint(said), "reported"
    estimated = meter.Counts(
        fresh_input=reply.estimated_input_tokens,
        visible_output=prompts.estimated_output(reply.model, outcome.text),
    )
    if said is None or (said.provider_input is None and said.provider_output is None):
        return estimated, "estimated"
    if said.provider_input is not None:
        half = _disjoint(said)
        half.visible_output, half.reasoning = estimated.visible_output, None
        return half, "partial"
    half = _disjoint(said)
    half.fresh_input, half.cache_read, half.cache_write = estimated.fresh_input, None, None
    return half, "partial"


def _disjoint(said: Counts) -> meter.Counts:
    return meter.Counts(
        fresh_input=said.fresh_input,
        cache_read=said.cache_read,
        cache_write=said.cache_write,
        visible_output=said.visible_output,
        reasoning=said.reasoning,
        flagged=said.flagged,
    )


def _record(
    reply: Message, outcome: Outcome, counts: meter.Counts, source: str, paid: str, *, absorbed: int = 0
) -> None:
    meter.record(
        user_id=reply.user_id,
        operation=OPERATION,
        operation_id=reply.pk,
        attempt=max(1, reply.attempts),
        provider=reply.provider,
        model=outcome.answered_by or reply.answered_by,
        requested_model=reply.answered_by,
        label=reply.model.name if reply.model else "",
        counts=counts,
        source=source,
        status=outcome.state,
        started_at=reply.started_at or timezone.now(),
        first_token_ms=outcome.first_token_ms,
        latency_ms=outcome.latency_ms,
        transfer_id=paid,
        metadata={"session": reply.session_id}
        | {name: value for name, value in outcome.metadata.items() if value}
        | ({"error": outcome.error_kind} if outcome.error_kind else {})
        | ({"absorbed_tokens": absorbed} if absorbed else {}),
    )


def _recover(reply: Message) -> None:
    """A worker died over this reply. Nothing shown and tries left: it runs again; else it ends, and costs nothing."""
    # A worker that was taken for dead may have saved more meanwhile: then the next sweep looks at it again.
    dead = Q(lease_until__lt=Now(), content=reply.content)
    text = _known_text(reply)
    was_stopped = reply.stop_requested_at is not None
    if text or was_stopped or reply.attempts >= MAX_ATTEMPTS:
        state = State.STOPPED if was_stopped and not text else State.INTERRUPTED
        latency_ms = _ms_between(reply.started_at, reply.lease_until)
        outcome = Outcome(state, text=text, error_kind="worker_died", latency_ms=latency_ms)
        if _close(reply, outcome, only_if=dead):
            log.warning("a reply was interrupted", reply_id=reply.pk, characters=len(text))
    elif _hand_back(reply, dead):
        log.warning("a reply is written again", reply_id=reply.pk)


def _hand_back(reply: Message, only_if: Q) -> bool:
    """Put a reply of which nobody saw anything back into the queue, with a usage row for the call that was lost.

    Its lease ends at this moment, and it waits from then on: the time of the lost call does not count as waiting.
    """
    outcome = Outcome(State.INTERRUPTED, error_kind="worker_died")
    counts, source = _counted(reply, outcome)
    with transaction.atomic():
        handed = Message.objects.filter(
            only_if, pk=reply.pk, epoch=reply.epoch, state=State.STREAMING
        ).update(state=State.QUEUED, epoch=F("epoch") + 1, lease_until=Now(), rung_at=Now())
        if handed:
            _record(reply, outcome, counts, source, "")
            reach("K11")
            transaction.on_commit(lambda: ring(reply.pk), robust=True)
    return bool(handed)


def _known_text(reply: Message) -> str:
    """The longest text of an open reply that anybody may have seen."""
    return max(reply.content, stream.text(reply.pk, reply.epoch), key=len)


def _ms_since(moment: float) -> int:
    return int((time.monotonic() - moment) * 1000)


def _ms_between(start: datetime | None, end: datetime | None) -> int | None:
    return max(0, int((end - start).total_seconds() * 1000)) if start and end else None
