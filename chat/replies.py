"""The life of a reply after its turn was admitted: claimed by a worker, written, closed; swept up when a worker died.

    queued → streaming → complete | stopped | failed | interrupted

A worker claims by a conditional update that raises the `epoch`, and answers for the reply while its lease lasts. `_close`
is the one way in which a reply ends, for the worker, Stop, failures and the sweep alike: compare-and-set on (id,
epoch, state), and in the same transaction the hold is posted or voided, the usage row written, the session counted.
Every closing raises the epoch, so a worker that wakes up late can write nothing.

A reply that is answered from an earlier one (`chat.reuse`) is complete when its turn is admitted: no worker has it, nothing is
held, nobody pays.

Who pays: a reply that is complete, or stopped by its reader, costs what was used, and never more than was held. A
reply that failed or was interrupted costs nothing, with or without text.

A call that fails before its first text, for a reason that lies with the route or may be gone by the next call, is followed
by a second one: on the model's next route, or, where there is no other and waiting may help, on the same. Both are one
reply of one model, with one hold at one price; each has a usage row. More than `MAX_ATTEMPTS` calls there never are, those
of dead workers included.
"""

import hashlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from celery import current_app
from django.db import DatabaseError, connection, transaction
from django.db.models import BooleanField, F, Q
from django.db.models.expressions import RawSQL
from django.db.models.functions import Coalesce, Now
from django.db.models.lookups import Exact
from django.utils import timezone

from aleph.failpoints import reach
from aleph.prepared import Given, Update
from aleph.problems import IdempotencyMismatch
from aleph.sealed import stored
from billing import ledger, refills
from chat import attachments, breakers, catalogue, prompts, providers, refusals, stream, temperatures
from chat.keeper import LEASE, Live, keeper
from chat.models import Message, Route, Session
from chat.providers.base import (
    Cancelled,
    Counts,
    Finish,
    Image,
    Kind,
    Prompt,
    ProviderError,
    Text,
    Usage,
)
from usage import budgets, calibration, estimate, meter

log = structlog.get_logger(__name__)
State = Message.State

OPERATION = "chat_message"
MAX_ATTEMPTS = 2
MAX_TEXT = 256_000
RING_AGAIN = timedelta(seconds=6)
"""With a sweep every three seconds a lost bell is rung again within 15 s, also where a sweep or two die."""
QUEUE_LIMIT = timedelta(seconds=60)
BATCH = 200
IS_OPEN = RawSQL("chat_message.state IN ('queued', 'streaming')", (), output_field=BooleanField())
"""Its words stand in the statement, because SQLite finds a partial index only for what it reads there."""
PAUSES_S = (0.2, 0.4)
"""Between the attempts to close a reply while the database does not answer."""
WORKER_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
"""A worker has something to lose, and nobody waits for it: about as long as its lease lasts."""
NOTHING_WAS_USED: frozenset[Kind] = frozenset(
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
FAULTS_OF_THE_QUESTION: frozenset[Kind] = frozenset({"context_too_long", "bad_request", "policy"})
"""Failures that say nothing about the route: the next question may do well there."""
FAULTS_OF_THE_ROUTE = NOTHING_WAS_USED - FAULTS_OF_THE_QUESTION
"""Failures after which another route may well answer, and that cost nothing so far, whether or not they are worth a second
call by the same one."""
WORTH_ASKING_AGAIN: frozenset[Kind] = frozenset({"overloaded", "unreachable", "server", "rate_limit"})
"""Failures that come at once and may be gone in a moment, so that the same route may be asked a second time. Who has
waited for a clock to run out does not wait for it twice."""
PAUSE_S, LONGEST_PAUSE_S = 0.5, 2
"""Before the same route is asked again; and what a provider may ask for, if anybody is to wait for it."""
BUSY_S, LONGEST_BUSY_S = 15, 3600
"""When to try again where a busy provider does not say, and what of his word is passed on at most."""
USEFUL_S = 5
"""With less than this left of the time for the whole reply, no second call begins."""


CLAIMED = Update(
    lambda: Message.objects.filter(pk=Given("id"), state=State.QUEUED),
    state=State.STREAMING,
    epoch=F("epoch") + 1,
    attempts=F("attempts") + 1,
    lease_until=Now() + LEASE,
    started_at=Now(),
)
CLOSED = Update(
    lambda: Message.objects.filter(pk=Given("id"), epoch=Given("epoch"), state=Given("was")),
    epoch=F("epoch") + 1,
    lease_until=None,
    finished_at=Now(),
    **{
        name: Given(name)
        for name in (
            "state",
            "content",
            "tokens_used",
            "provider",
            "answered_by",
            "served_by",
            "finish_reason",
            "error_kind",
            "retry_after_s",
        )
    },
)
CHARGED = Update(
    lambda: Session.objects.filter(pk=Given("id")), total_tokens_used=F("total_tokens_used") + Given("cost")
)


@dataclass(slots=True)
class Outcome:
    """How a reply ended, and what is known about the call that ended it. Durations in milliseconds, monotonic.

    `call_failed` is the error of the call where the reply itself ended otherwise: stopped before it was asked again.
    `served_by`: the provider behind a router. `retry_after_s`: when a busy one asks to be tried again.
    """

    state: str
    text: str = ""
    counts: Counts | None = None
    finish_reason: str = ""
    answered_by: str = ""
    served_by: str = ""
    error_kind: str = ""
    call_failed: str = ""
    retry_after_s: int | None = None
    first_token_ms: int | None = None
    latency_ms: int | None = None
    called: bool = True
    metadata: dict[str, Any] = field(default_factory=dict)
    lesson: calibration.Lesson | None = None

    @property
    def is_charged(self) -> bool:
        return self.state in (State.COMPLETE, State.STOPPED) and bool(self.text)


def ring(reply_id: str) -> None:
    """Tell some worker that a reply waits. Losing this is harmless: the sweep rings again."""
    try:
        current_app.send_task("chat.tasks.generate", args=[reply_id], queue="replies", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the sweep will ring again", reply_id=reply_id, error=str(error))


def take_over(reply: Message, earlier: Message) -> None:
    """End a reply that is not stored yet, with the text of an `earlier` one. Nobody is asked and nothing is charged, and its
    usage row says so. Runs in the transaction that admits it."""
    reply.state, reply.content = State.COMPLETE, earlier.content
    reply.finish_reason = earlier.finish_reason
    reply.provider, reply.answered_by, reply.served_by = (
        earlier.provider,
        earlier.answered_by,
        earlier.served_by,
    )
    reply.reused_from = earlier.pk
    reply.attempts = 1
    reply.rung_at = None
    reply.started_at = reply.finished_at = timezone.now()
    outcome = Outcome(reply.state, metadata={"reused_from": earlier.pk})
    nothing = meter.Counts(fresh_input=0, visible_output=0)
    _record(reply, outcome, nothing, meter.Source.REUSED, "")


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
        _hand_back(reply, Q(), call_failed=outcome.call_failed)
    elif live.ended_by != "lost":
        _close(reply, outcome, pauses_s=WORKER_PAUSES_S)
    reach("K10")
    connection.close()


def close_queued(reply_id: str, state: str, *, error_kind: str = "", is_told: bool = True) -> bool:
    """End a reply that no worker has begun. False if one has, or it is over."""
    reply = Message.objects.filter(pk=reply_id, state=State.QUEUED).select_related("model").first()
    outcome = Outcome(state, error_kind=error_kind, called=False)
    return reply is not None and _close(reply, outcome, is_told=is_told)


def close_for_owner(reply: Message) -> bool:
    """End an open reply as its reader's Stop would, without waiting for its worker: the chat is being deleted. False if
    it is over, or went on since it was read. Who watches it is told by `tell_end`, once the chat is gone: else he would be
    shown a stopped reply, with a way to go on that leads nowhere."""
    if not reply.is_open:
        return False
    if reply.state == State.QUEUED:
        return close_queued(reply.pk, State.STOPPED, is_told=False)
    return _close(reply, Outcome(State.STOPPED, text=_known_text(reply)), is_told=False)


def tell_end(reply: Message) -> None:
    """Have all who watch a reply look at what became of it."""
    stream.end(reply.pk, reply.epoch, user_id=reply.user_id)


def sweep() -> None:
    """What has to be done for replies that nobody answers for. Any number of sweeps may run at once."""
    dead = Message.objects.filter(IS_OPEN, state=State.STREAMING, lease_until__lt=Now())
    for reply in dead.select_related("model").annotate(stored=stored("content"))[:BATCH]:
        with _alone(reply.pk):
            _recover(reply, reply.stored)
    queued = Message.objects.filter(IS_OPEN, state=State.QUEUED)
    waiting = queued.annotate(since=Coalesce("lease_until", "created_at"))
    for reply_id in list(waiting.filter(since__lt=Now() - QUEUE_LIMIT).values_list("pk", flat=True)[:BATCH]):
        with _alone(reply_id):
            close_queued(reply_id, State.FAILED, error_kind="queue")
    silent = queued.filter(rung_at__lt=Now() - RING_AGAIN)
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
    return next(iter(CLAIMED.returning(id=reply_id)), None)


def _write(reply: Message, live: Live) -> Outcome:
    """Have a provider write the reply; text goes to the stream as it comes. No transaction is open meanwhile."""
    conversation = prompts.Conversation(reply.session_id, tip=reply.pk, with_models=True)
    reply.model = conversation.messages[-1].model
    assert reply.model is not None
    draft = prompts.draft(reply.model, conversation.asking(reply.parent_id))
    routes = catalogue.ways_to(reply.model, with_images=bool(draft.images))
    connection.close()
    temperature = temperatures.of(reply.model, reply.temperature)
    prompt = Prompt(
        upstream_model=reply.answered_by,
        messages=draft.texts,
        images={
            at: tuple(Image(image.media_type, attachments.read(image)) for image in images)
            for at, images in draft.images.items()
        },
        is_continuation=prompts.is_continuation(draft.messages),
        max_output_tokens=reply.max_output_tokens,
        temperature=temperature,
        top_p=None if temperature is None else temperatures.TOP_P,
        user_ref=hashlib.sha256(f"aleph:{reply.user_id}".encode()).hexdigest()[:32],
    )
    outcome = _ask_in_turn(reply, live, routes, prompt)
    outcome.lesson = replace(draft.lesson, reply=estimate.sizes(outcome.text))
    return outcome


def _ask_in_turn(reply: Message, live: Live, routes: list[Route], prompt: Prompt) -> Outcome:
    """Ask the first route that may be asked, and after a failure that nobody saw anything of one more."""
    if not routes:
        return Outcome(State.FAILED, error_kind="unreachable", called=False)
    admission = breakers.admit([str(route) for route in routes])
    if admission.at is None:
        return Outcome(State.FAILED, error_kind="resting", retry_after_s=admission.wait_s, called=False)
    route = routes[admission.at]
    left_s = float(route.total_s)
    if (reply.provider, reply.answered_by) != (route.provider, route.upstream_model):
        _take_route(reply, live, route)
    while True:
        began = time.monotonic()
        outcome, problem = _ask(reply, live, route, prompt, left_s)
        left_s -= time.monotonic() - began
        others = [other for other in routes if other != route]
        if problem is None:
            if live.text:
                breakers.worked(str(route), failures=admission.failures)
            return outcome
        _note(route, problem, has_others=bool(others))
        if live.text or reply.attempts >= MAX_ATTEMPTS:
            return outcome
        if not problem.retryable and problem.kind not in FAULTS_OF_THE_ROUTE:
            return outcome
        pause_s = PAUSE_S if problem.retry_after_s is None else problem.retry_after_s
        may_pass = problem.retryable and problem.kind in WORTH_ASKING_AGAIN
        is_same_worth_it = may_pass and pause_s <= LONGEST_PAUSE_S
        candidates = [*others, route] if is_same_worth_it else others
        if not candidates or left_s < USEFUL_S:
            return outcome
        admission = breakers.admit([str(candidate) for candidate in candidates])
        if admission.at is None:
            return outcome
        failed, route = route, candidates[admission.at]
        try:
            if route == failed:
                live.call.pause(pause_s)
            live.call.check()
            _try_next(reply, live, outcome, route)
        except Cancelled:
            is_logged = not live.called
            ended = Outcome(State.FAILED, called=False) if is_logged else outcome
            ended.call_failed, ended.error_kind, ended.retry_after_s = ended.error_kind, "", None
            _cancelled(live, ended)
            return ended
        except DatabaseError:
            log.warning("a reply cannot be asked for again", reply_id=reply.pk, exc_info=True)
            connection.close()
            return outcome


def _ask(
    reply: Message, live: Live, route: Route, prompt: Prompt, left_s: float
) -> tuple[Outcome, ProviderError | None]:
    """One call, and why it failed if it did. `left_s`: seconds that the reply may still take."""
    provider = catalogue.connected()[route.provider]
    clocks = replace(route.clocks, total_s=min(route.total_s, left_s))
    outcome, problem = Outcome(State.COMPLETE), None
    began = time.monotonic()
    try:
        live.called = True
        events = provider.stream(
            replace(prompt, upstream_model=route.upstream_model), call=live.call, clocks=clocks
        )
        _listen(events, reply, live, outcome, began)
        if not live.text.strip():
            outcome.state, outcome.error_kind = State.FAILED, "empty"
    except Cancelled:
        _cancelled(live, outcome)
    except ProviderError as error:
        problem = error
        outcome.state, outcome.error_kind = State.FAILED, error.kind
        outcome.metadata |= {"status": error.status, "request_id": error.request_id}
        if error.retryable and error.kind in ("rate_limit", "overloaded"):
            wait_s = BUSY_S if error.retry_after_s is None else error.retry_after_s
            outcome.retry_after_s = min(max(1, wait_s), LONGEST_BUSY_S)
        log.warning("the provider failed", provider=route.provider, kind=error.kind, detail=error.detail)
    outcome.text = live.text
    outcome.latency_ms = _ms_since(began)
    return outcome, problem


def _note(route: Route, problem: ProviderError, *, has_others: bool) -> None:
    """A call failed: count it against its route, and tell the staff of what only they can mend. Such a route fails the next
    time, too, so it is left alone from the first failure on, if there is another one: the only one might yet have erred."""
    needs_staff = problem.kind in refusals.NEEDS_STAFF
    if problem.kind not in FAULTS_OF_THE_QUESTION:
        breakers.failed(str(route), kind=problem.kind, at_once=needs_staff and has_others)
    if needs_staff:
        refusals.ring(str(route), problem.kind)


def _take_route(reply: Message, live: Live, route: Route) -> None:
    """Another route than the turn was admitted with is asked; whoever cleans up after this worker has to know it."""
    changed = Message.objects.filter(pk=reply.pk, epoch=reply.epoch, state=State.STREAMING).update(
        provider=route.provider, answered_by=route.upstream_model
    )
    connection.close()
    if not changed:
        live.end("lost")
    reply.provider, reply.answered_by = route.provider, route.upstream_model


def _try_next(reply: Message, live: Live, failed: Outcome, route: Route) -> None:
    """Log a call that failed and count the next one, by `route`: both or none. Raises `Cancelled` where the reply was
    stopped meanwhile, or is not this worker's any more."""
    if _count_next(reply, failed, route):
        live.called = False
    else:
        own = Message.objects.filter(pk=reply.pk, epoch=reply.epoch, state=State.STREAMING)
        live.end("stopped" if own.filter(stop_requested_at__isnull=False).exists() else "lost")
    connection.close()
    live.call.check()
    live.call.request_id = ""
    reach("K12")


def _count_next(reply: Message, failed: Outcome, route: Route) -> bool:
    """False if the reply is not as `reply` says (epoch, attempts), or somebody wants it stopped."""
    counts, source = _counted(reply, failed)
    with transaction.atomic():
        counted = Message.objects.filter(
            pk=reply.pk,
            epoch=reply.epoch,
            attempts=reply.attempts,
            state=State.STREAMING,
            stop_requested_at=None,
        ).update(
            attempts=F("attempts") + 1,
            provider=route.provider,
            answered_by=route.upstream_model,
            started_at=Now(),
        )
        if counted:
            _record(reply, failed, counts, source, "")
    if counted:
        reply.attempts += 1
        reply.provider, reply.answered_by = route.provider, route.upstream_model
        reply.started_at = timezone.now()
        log.info("a reply is asked for again", reply_id=reply.pk, route=str(route))
    return bool(counted)


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
                reply_id=reply.pk,
                user_id=reply.user_id,
                epoch=reply.epoch,
                offset=offset,
                byte_offset=byte_offset,
                text=text,
            )
            offset += len(text)
            byte_offset += len(text.encode())
            if offset > MAX_TEXT:
                live.end("too_long")
        elif isinstance(event, Usage):
            outcome.counts = event.counts
            outcome.metadata |= event.facts
        elif isinstance(event, Finish):
            outcome.finish_reason = event.reason
            outcome.answered_by = event.model or outcome.answered_by
            outcome.served_by = event.served_by
            outcome.metadata |= {"request_id": event.request_id, "raw_finish_reason": event.raw_reason}


def _cancelled(live: Live, outcome: Outcome) -> None:
    if live.ended_by == "stopped":
        outcome.state = State.STOPPED
    elif live.ended_by == "too_long":
        outcome.state, outcome.finish_reason = State.COMPLETE, "length"
    else:
        outcome.state, outcome.error_kind = State.INTERRUPTED, live.ended_by


def _close(
    reply: Message,
    outcome: Outcome,
    *,
    only_if: Q | None = None,
    pauses_s: tuple[float, ...] = PAUSES_S,
    is_told: bool = True,
) -> bool:
    """Close a reply that is as `reply` says (state and epoch). False if it is not any more. Publish the end if it is over,
    unless that is left to the caller (`is_told` false).

    Harmless to repeat: after a lost connection the same closing either finds the reply open, or finds it closed.
    """
    if not reply.is_open:
        return False
    for pause_s in (*pauses_s, None):
        try:
            closed = _close_once(reply, outcome, only_if)
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
        if is_told:
            tell_end(reply)
    return closed


def _close_once(reply: Message, outcome: Outcome, only_if: Q | None) -> bool:
    counts, source = _counted(reply, outcome)
    used = _used(reply, outcome, counts)
    charge = min(used, reply.held_tokens) if outcome.is_charged else 0
    with transaction.atomic():
        if only_if is not None:
            found = Message.objects.select_for_update().filter(only_if, pk=reply.pk)
            if found.first() is None:
                return False
        closed = CLOSED.asking(
            budgets.reserved_for(reply.pk),
            id=reply.pk,
            epoch=reply.epoch,
            was=reply.state,
            state=outcome.state,
            content=outcome.text,
            tokens_used=charge,
            provider=reply.provider,
            answered_by=outcome.answered_by or reply.answered_by,
            served_by=outcome.served_by,
            finish_reason=outcome.finish_reason,
            error_kind=outcome.error_kind,
            retry_after_s=outcome.retry_after_s,
        )
        if not closed:
            return False
        cost, paid = _settle(reply, outcome, charge)
        if cost != charge:
            Message.objects.filter(pk=reply.pk).update(tokens_used=cost)
        if outcome.called:
            _record(reply, outcome, counts, source, paid, charged=cost, absorbed=max(0, used - cost))
        if cost:
            CHARGED(id=reply.session_id, cost=cost)
        if any(closed):
            budgets.settle(reference=reply.pk, charged_tokens=cost)
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
            posted = ledger.post(hold_id=reply.hold_id, amount=charge, key=key)
            if posted.is_low:
                transaction.on_commit(partial(refills.ring, reply.user_id), robust=True)
            return charge, posted.id
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
    why = outcome.call_failed or outcome.error_kind
    was_used = outcome.called and (outcome.text or why not in NOTHING_WAS_USED)
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
        if said is not None and said.provider_total is not None:
            return _split(said.provider_total, estimated), "partial"
        return estimated, "estimated"
    if said.provider_input is not None:
        half = _disjoint(said)
        half.visible_output, half.reasoning = estimated.visible_output, None
        return half, "partial"
    half = _disjoint(said)
    half.fresh_input, half.cache_read = estimated.fresh_input, None
    half.cache_write = half.cache_write_1h = None
    return half, "partial"


def _split(total: int, estimated: meter.Counts) -> meter.Counts:
    """A total of which nobody said how it divides, in the proportion of the estimate."""
    whole = estimated.input_tokens + estimated.output_tokens
    output = total * estimated.output_tokens // whole if whole else 0
    return meter.Counts(fresh_input=total - output, visible_output=output)


def _disjoint(said: Counts) -> meter.Counts:
    return meter.Counts(
        fresh_input=said.fresh_input,
        cache_read=said.cache_read,
        cache_write=said.cache_write,
        cache_write_1h=said.cache_write_1h,
        visible_output=said.visible_output,
        reasoning=said.reasoning,
        flagged=said.flagged,
    )


def _record(
    reply: Message,
    outcome: Outcome,
    counts: meter.Counts,
    source: str,
    paid: str,
    *,
    charged: int = 0,
    absorbed: int = 0,
) -> None:
    meter.record(
        user_id=reply.user_id,
        operation=OPERATION,
        operation_id=reply.pk,
        attempt=max(1, reply.attempts),
        provider=_billed_by(reply, outcome),
        model=outcome.answered_by or reply.answered_by,
        requested_model=reply.answered_by,
        label=reply.model.name if reply.model else "",
        counts=counts,
        source=source,
        status=State.FAILED if outcome.call_failed else outcome.state,
        started_at=reply.started_at or timezone.now(),
        first_token_ms=outcome.first_token_ms,
        latency_ms=outcome.latency_ms,
        transfer_id=paid,
        charged_tokens=charged,
        value_idr_per_1k=reply.value_idr_per_1k,
        lesson=outcome.lesson,
        session=reply.session_id,
        metadata={name: value for name, value in outcome.metadata.items() if value}
        | ({"served_by": outcome.served_by, "route": reply.provider} if outcome.served_by else {})
        | ({"error": why} if (why := outcome.call_failed or outcome.error_kind) else {})
        | ({"absorbed_tokens": absorbed} if absorbed else {}),
    )


def _billed_by(reply: Message, outcome: Outcome) -> str:
    """The provider whose prices hold for a call: the route's own, or the one that a gateway says it has asked."""
    served_by = outcome.served_by.lower()
    if reply.provider in catalogue.GATEWAYS:
        for name, label in providers.LABELS.items():
            if served_by in (name, label.lower()):
                return name
    return reply.provider


def _recover(reply: Message, saved: str) -> None:
    """A worker died over this reply. Nothing shown and tries left: it runs again; else it ends, and costs nothing."""
    # A worker that was taken for dead may have saved more meanwhile than what was `saved` when the reply was read: then
    # the next sweep looks at it again.
    dead = Q(lease_until__lt=Now()) & Q(Exact(stored("content"), saved))
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


def _hand_back(reply: Message, only_if: Q, *, call_failed: str = "") -> bool:
    """Put a reply of which nobody saw anything back into the queue, with a usage row for the call that was lost.

    Its lease ends at this moment, and it waits from then on: the time of the lost call does not count as waiting.
    """
    outcome = Outcome(State.INTERRUPTED, error_kind="worker_died", call_failed=call_failed)
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
