"""Turns against a model: workers that die, come late or hand over, readers who stop, retry, edit, continue and delete, sweeps in
between.

The functions are the product's own; only the provider is left out, whose part is an `Outcome`. After every step the
tables must say that a bill follows its outcome (I5), that no more is held than there was (I6), that every call has one
usage row and every charge one call (I10), that what is over never changes (I13), and that each hold was closed once.

`TEST_DEPTH=50` searches fifty times as long (`tests.depth`). What it finds is a short program to paste into a test.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.conf import settings
from django.db.models import Q
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from aleph import ids
from aleph.problems import IdempotencyMismatch, NotFound
from billing import audit, ledger
from billing.models import Account, Transfer
from chat import keeper, prompts, replies, sessions, stream, turns
from chat.models import Message, Route, Session
from chat.providers.base import Counts
from tests import people
from tests.depth import search
from tests.product import simulated_model
from usage import budget_terms, budgets
from usage.models import BudgetEntry, BudgetPeriod, TokenUsage

pytestmark = pytest.mark.usefixtures("committed", "simulator")

State = Message.State
CHATS = 3
ENOUGH = 2_500
"""Tokens that pay for any reply here, whatever its model costs."""
FAR = timedelta(hours=1)
"""Leases run out and replies are forgotten when a rule says so, and never because a machine is slow."""


@dataclass(eq=False, repr=False)
class Chat:
    session: Session
    tries: list["Try"] = field(default_factory=list)

    @property
    def open_try(self) -> "Try | None":
        return next((one for one in self.tries if one.is_open), None)


@dataclass(eq=False, repr=False)
class Try:
    """One reply, as it must be."""

    chat: Chat
    id: str
    turn: str
    text: str
    message_id: str
    question_id: str
    goes_on: bool
    """Whether it is the rest of a reply, whose id is `message_id` then."""
    rate: int
    held: int
    state: str = State.QUEUED
    epoch: int = 0
    attempts: int = 0
    saved: str = ""
    published: str = ""
    is_dead: bool = False
    is_stop_asked: bool = False
    cost: int = 0
    calls: list[tuple[int, str]] = field(default_factory=list)
    last: dict[str, Any] | None = None

    @property
    def is_open(self) -> bool:
        return self.state in Message.OPEN

    @property
    def is_cut_off(self) -> bool:
        return bool(self.saved) and not self.is_open and self.state != State.COMPLETE

    @property
    def known(self) -> str:
        return max(self.saved, self.published, key=len)


@dataclass(eq=False, repr=False)
class Worker:
    """Who once claimed a reply, and does not know whether it is still his."""

    task: Try
    row: Message
    live: keeper.Live
    published: int = 0

    @property
    def is_current(self) -> bool:
        return self.task.state == State.STREAMING and self.task.epoch == self.row.epoch


def one_of(these: Callable[["Turns"], list[Any]]) -> st.SearchStrategy[Any]:
    return st.runner().flatmap(lambda machine: st.sampled_from(these(machine)))


TRY = one_of(lambda machine: [*machine.open_tries * 2, *machine.tries])
QUEUED = one_of(lambda machine: [*machine.queued * 4, *machine.tries])
WORKER = one_of(lambda machine: [*machine.current_workers * 3, *machine.workers[-2:]])
RIVAL = one_of(lambda machine: machine.rivals)
CURRENT = one_of(lambda machine: machine.current_workers)
BEGUN = st.sampled_from(["waiting", "claimed twice", "claimed twice", "saved", "published"])
"""How far a reply has come before anything else happens."""
ENDINGS = st.sampled_from(
    [
        (State.COMPLETE, ""),
        (State.COMPLETE, ""),
        (State.COMPLETE, ""),
        (State.COMPLETE, ""),
        (State.STOPPED, ""),
        (State.INTERRUPTED, "internal"),
        (State.FAILED, "server"),
        (State.FAILED, "overloaded"),
    ]
)
RATES = st.sampled_from([0, 100, 100, 900])
WORDS = st.sampled_from(["word ", "Satu dua tiga. ", "é🦆\n", "x" * 300])
COUNTS = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 200), st.integers(0, 200) | st.just(900_000)).map(
        lambda both: Counts(
            fresh_input=both[0], visible_output=both[1], provider_input=both[0], provider_output=both[1]
        )
    ),
    st.integers(0, 200).map(lambda count: Counts(fresh_input=count, provider_input=count)),
)


WISHES = st.one_of(
    st.just(("stop",)),
    st.tuples(st.sampled_from(["retry", "edit", "go_on"]), RATES, BEGUN),
    st.sampled_from([("send_it_again",), ("delete_its_chat",)]),
)
DEEDS = st.one_of(
    st.tuples(st.just("write"), WORDS, st.booleans(), st.booleans()),
    st.tuples(st.just("end"), COUNTS, ENDINGS),
    st.sampled_from([("renew",), ("hand_back",), ("ask_again",)]),
)
MISHAPS = st.one_of(
    st.sampled_from([("die",), ("be_taken_over",)]),
    st.tuples(st.just("sweep_slowly"), st.sets(st.sampled_from(["write", "renew", "stop", "end"]))),
)


class Turns(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.chats: list[Chat] = []
        self.deleted: list[Try] = []
        self.workers: list[Worker] = []

    @property
    def tries(self) -> list[Try]:
        return [one for chat in self.chats for one in chat.tries]

    @property
    def open_tries(self) -> list[Try]:
        return [one for one in self.tries if one.is_open]

    @property
    def queued(self) -> list[Try]:
        return [one for one in self.tries if one.state == State.QUEUED]

    @property
    def current_workers(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_current]

    @property
    def rivals(self) -> list[Worker]:
        """Who comes late to a reply that somebody else writes by now."""
        return [w for w in self.workers if w.task.state == State.STREAMING and not w.is_current]

    @property
    def available(self) -> int:
        everything = [*self.tries, *self.deleted]
        return (
            self.given
            - sum(one.cost for one in everything)
            - sum(one.held for one in everything if one.is_open)
        )

    @initialize(
        tokens=st.sampled_from([10_500, 10_500, 700, 60]),
        first=st.lists(st.tuples(RATES, BEGUN), min_size=1, max_size=2),
    )
    def alice_comes(self, tokens: int, first: list[tuple[int, str]]) -> None:
        self.alice, self.given = people.carol(), tokens
        people.give_tokens(self.alice, tokens)
        terms: dict[str, Any] = {"every": "month", "limit": 10**9, "action": "block"}
        self.in_tokens = budget_terms.create(author=self.alice, unit="token", **terms)
        self.in_dollars = budget_terms.create(author=self.alice, unit="usd", **terms)
        for place, (rate, begun) in enumerate(first):
            self.send(place, rate, "Halo", begun)

    # What people do

    @precondition(lambda self: self.tries)
    @rule(one=TRY, deed=WISHES)
    def ask_for(self, one: Try, deed: tuple[Any, ...]) -> None:
        getattr(self, deed[0])(one, *deed[1:])

    @rule(
        place=st.integers(0, CHATS - 1),
        rate=RATES,
        text=st.sampled_from(["Halo", "Tell me a story"]),
        begun=BEGUN,
    )
    def send(self, place: int, rate: int, text: str, begun: str) -> None:
        chat = self.chats[place] if place < len(self.chats) else None
        session = chat.session if chat else None
        slug, turn = simulated_model("sim-words-5", rate=rate), ids.new("trn")
        quote = turns.quote(user=self.alice, session=session, text=text, model_slug=slug)
        assert rate == 0 or quote.available == self.available

        def say() -> turns.Turn:
            return turns.start(user=self.alice, session=session, text=text, model_slug=slug, turn=turn)

        if chat is not None and chat.open_try is not None:
            with pytest.raises(turns.StillWriting):
                say()
        elif rate and self.available < quote.minimum:
            with pytest.raises(ledger.Insufficient):
                say()
        else:
            held = min(quote.at_most, self.available) if rate else 0
            admitted = say()
            assert admitted.reply.held_tokens == held
            if chat is None:
                self.chats.append(chat := Chat(admitted.session))
            self._admit(chat, admitted, text, rate, begun)

    def send_it_again(self, one: Try) -> None:
        """A second click, or a request whose answer was lost; whatever has become of the reply."""
        if one.goes_on:
            rest = turns.go_on(user=self.alice, reply_id=one.message_id, turn=one.turn)
            assert (rest.reply.pk, rest.message.pk) == (one.id, one.message_id)
            with pytest.raises(IdempotencyMismatch):
                turns.retry(user=self.alice, reply_id=one.message_id, turn=one.turn)
            return
        same = partial(turns.start, user=self.alice, session=one.chat.session, turn=one.turn)
        again = same(text=one.text, model_slug=None)
        assert (again.reply.pk, again.message.pk) == (one.id, one.message_id)
        with pytest.raises(IdempotencyMismatch):
            same(text="Something else", model_slug=None)

    def retry(self, one: Try, rate: int, begun: str) -> None:
        slug, turn, available = simulated_model("sim-words-5", rate=rate), ids.new("trn"), self.available
        try:
            admitted = turns.retry(user=self.alice, reply_id=one.id, turn=turn, model_slug=slug)
        except turns.StillWriting:
            assert one.chat.open_try is not None
        except ledger.Insufficient:
            assert rate
            assert available < ENOUGH
        else:
            assert one.chat.open_try is None
            assert admitted.message.pk == one.message_id
            assert admitted.reply.held_tokens <= available
            again = turns.retry(user=self.alice, reply_id=one.id, turn=turn, model_slug=slug)
            assert again.reply.pk == admitted.reply.pk
            self._admit(one.chat, admitted, one.text, rate, begun, question_id=one.question_id)

    def edit(self, one: Try, rate: int, begun: str) -> None:
        """What led to a reply is said otherwise; the first message of a chat, too."""
        slug, turn, available = simulated_model("sim-words-5", rate=rate), ids.new("trn"), self.available
        text = f"{one.text}, rather"

        def say() -> turns.Turn:
            return turns.edit(
                user=self.alice, message_id=one.question_id, text=text, turn=turn, model_slug=slug
            )

        try:
            admitted = say()
        except turns.StillWriting:
            assert one.chat.open_try is not None
        except ledger.Insufficient:
            assert rate
            assert available < ENOUGH
        else:
            assert one.chat.open_try is None
            assert admitted.message.pk not in {other.question_id for other in self.tries}
            assert admitted.reply.held_tokens <= available
            assert say().reply.pk == admitted.reply.pk
            self._admit(one.chat, admitted, text, rate, begun)

    def go_on(self, one: Try, rate: int, begun: str) -> None:
        slug, turn, available = simulated_model("sim-words-5", rate=rate), ids.new("trn"), self.available

        def ask() -> turns.Turn:
            return turns.go_on(user=self.alice, reply_id=one.id, turn=turn, model_slug=slug)

        try:
            admitted = ask()
        except turns.StillWriting:
            assert one.chat.open_try is not None
        except turns.NothingToGoOn:
            assert not one.is_cut_off
        except ledger.Insufficient:
            assert rate
            assert available < ENOUGH
        else:
            assert one.is_cut_off
            assert one.chat.open_try is None
            assert admitted.message.pk == one.id
            assert admitted.reply.held_tokens <= available
            assert ask().reply.pk == admitted.reply.pk
            self._admit(one.chat, admitted, one.saved, rate, begun, question_id=one.question_id)

    def _admit(
        self, chat: Chat, admitted: turns.Turn, text: str, rate: int, begun: str, *, question_id: str = ""
    ) -> None:
        reply = admitted.reply
        assert reply.turn is not None
        one = Try(
            chat,
            reply.pk,
            reply.turn,
            text,
            admitted.message.pk,
            question_id or admitted.message.pk,
            admitted.message.is_reply,
            rate,
            reply.held_tokens,
        )
        chat.tries.append(one)
        self._put_off(one)
        if begun != "waiting":
            self.claim(one)
        if begun == "claimed twice":
            self.hand_back(self.workers[-1])
            self.claim(one)
        if begun in ("saved", "published"):
            self.write(self.workers[-1], "Once upon a time, " * 20, begun == "saved", begun == "published")

    def stop(self, one: Try) -> None:
        if one.is_open:
            one.is_stop_asked = True
        if one.state == State.QUEUED:
            self._over(one, State.STOPPED)
        assert turns.stop(user=self.alice, reply_id=one.id).state == one.state

    def delete_its_chat(self, one: Try) -> None:
        chat, still = one.chat, one.chat.open_try
        if still is not None and still.state == State.STREAMING:
            self._over(still, State.STOPPED, text=still.known, was_called=True)
        elif still is not None:
            self._over(still, State.STOPPED)
        sessions.delete(sessions.get(self.alice, chat.session.pk))
        self.chats.remove(chat)
        self.deleted += chat.tries
        with pytest.raises(NotFound):
            turns.stop(user=self.alice, reply_id=one.id)

    # What workers do

    @precondition(lambda self: self.workers)
    @rule(worker=WORKER, deed=DEEDS)
    def work(self, worker: Worker, deed: tuple[Any, ...]) -> None:
        getattr(self, deed[0])(worker, *deed[1:])

    @precondition(lambda self: self.rivals)
    @rule(worker=RIVAL, deed=DEEDS)
    def come_late(self, worker: Worker, deed: tuple[Any, ...]) -> None:
        getattr(self, deed[0])(worker, *deed[1:])

    @precondition(lambda self: self.queued)
    @rule(one=QUEUED)
    def claim(self, one: Try) -> None:
        row = replies._claim(one.id)
        assert (row is not None) == (one.state == State.QUEUED)
        if row is not None:
            one.state, one.epoch, one.attempts = State.STREAMING, one.epoch + 1, one.attempts + 1
            one.is_dead, one.published = False, ""
            self.workers.append(Worker(one, row, keeper.Live(row.pk, row.epoch)))
            self._put_off(one)

    def write(self, worker: Worker, words: str, is_saved: bool, is_published: bool) -> None:
        live, task = worker.live, worker.task
        live.text += words
        if is_saved:
            keeper.checkpoint([live])
        if is_published:
            publisher, before = stream.publisher(), live.text[: worker.published]
            publisher.append(
                reply_id=live.reply_id,
                user_id=1,
                epoch=live.epoch,
                offset=len(before),
                byte_offset=len(before.encode()),
                text=live.text[worker.published :],
            )
            publisher.flush()
            worker.published = len(live.text)
        if worker.is_current:
            task.saved = live.text if is_saved else task.saved
            task.published = live.text if is_published else task.published

    def renew(self, worker: Worker) -> None:
        lease = Message.objects.filter(pk=worker.task.id).values_list("lease_until", flat=True)
        before = lease.first()
        keeper.renew([worker.live], now=0)
        assert (lease.first() != before) == worker.is_current
        if worker.is_current:
            worker.task.is_dead = False
            self._put_off(worker.task)

    def end(self, worker: Worker, counts: Counts | None, ending: tuple[str, str]) -> None:
        outcome = replies.Outcome(ending[0], text=worker.live.text, counts=counts, error_kind=ending[1])
        if outcome.state == State.COMPLETE and not outcome.text:
            outcome.state, outcome.error_kind = State.FAILED, "empty"
        is_his = worker.is_current
        if is_his:
            self._over(worker.task, outcome.state, text=outcome.text, was_called=True, counts=outcome.counts)
        assert replies._close(worker.row, outcome) == is_his

    def hand_back(self, worker: Worker) -> None:
        """As a worker does that is asked to go and has written nothing that anybody saw."""
        if worker.task.known and worker.is_current:
            return
        is_his = worker.is_current
        assert replies._hand_back(worker.row, Q()) == is_his
        if is_his:
            self._wait_again(worker.task)

    def ask_again(self, worker: Worker) -> None:
        """The provider failed before anybody saw anything, and another one is about to be asked."""
        task, row = worker.task, worker.row
        if worker.live.text or row.attempts >= replies.MAX_ATTEMPTS:
            return
        failed = replies.Outcome(State.FAILED, error_kind="overloaded")
        is_his = worker.is_current and not task.is_stop_asked
        route = Route(provider="huggingface", upstream_model="sim-words-5")
        assert replies._count_next(row, failed, route) == is_his
        if is_his:
            task.calls.append((task.attempts, State.FAILED))
            task.attempts += 1

    # What befalls them

    @precondition(lambda self: self.current_workers)
    @rule(worker=CURRENT, deed=MISHAPS)
    def befall(self, worker: Worker, deed: tuple[Any, ...]) -> None:
        getattr(self, deed[0])(worker, *deed[1:])

    def die(self, worker: Worker) -> None:
        """Nobody renews the lease any more; whether the worker really is dead is another matter."""
        worker.task.is_dead = True
        Message.objects.filter(pk=worker.task.id).update(lease_until=timezone.now() - timedelta(seconds=1))

    @precondition(lambda self: self.open_tries)
    @rule(before=st.sampled_from(["", "all die", "all are stopped and die", "all are forgotten"]))
    def sweep(self, before: str) -> None:
        if before == "all are stopped and die":
            for one in self.open_tries:
                self.stop(one)
        for one in self.open_tries:
            if before == "all are forgotten" and one.state == State.QUEUED:
                Message.objects.filter(pk=one.id).update(lease_until=timezone.now() - timedelta(seconds=61))
                self._over(one, State.FAILED)
        for worker in self.current_workers:
            if "die" in before:
                self.die(worker)
        replies.sweep()
        for one in self.open_tries:
            if one.is_dead:
                self._recovered(one, was_stopped=one.is_stop_asked)

    def be_taken_over(self, worker: Worker) -> None:
        self.die(worker)
        self.sweep("")
        self.claim(worker.task)

    def sweep_slowly(self, worker: Worker, between: set[str]) -> None:
        """A sweep finds the lease run out, and much happens before it acts on that."""
        one = worker.task
        self.die(worker)
        row = Message.objects.select_related("model").get(pk=one.id)
        if "write" in between:
            self.write(worker, "more ", True, False)
        if "renew" in between:
            self.renew(worker)
        if "stop" in between:
            self.stop(one)
        if "end" in between:
            self.end(worker, None, (State.COMPLETE, ""))
        replies._recover(row, row.content)
        if one.is_dead and (one.state, one.saved) == (State.STREAMING, row.content):
            self._recovered(one, was_stopped=row.stop_requested_at is not None)

    def _recovered(self, one: Try, *, was_stopped: bool) -> None:
        if one.known or was_stopped or one.attempts >= replies.MAX_ATTEMPTS:
            state = State.STOPPED if was_stopped and not one.known else State.INTERRUPTED
            self._over(one, state, text=one.known, was_called=True)
        else:
            self._wait_again(one)

    # The model

    def _over(
        self, one: Try, state: str, *, text: str = "", was_called: bool = False, counts: Counts | None = None
    ) -> None:
        """To be said before it happens: the price is told by the row as it is then."""
        if text and state in (State.COMPLETE, State.STOPPED) and one.rate:
            one.cost = self._price(one, text, counts or Counts())
        if was_called:
            one.calls.append((one.attempts, state))
        one.state, one.saved, one.epoch = state, text, one.epoch + 1

    def _price(self, one: Try, text: str, counts: Counts) -> int:
        row = Message.objects.select_related("model").get(pk=one.id)
        assert row.model is not None
        used_in, used_out = counts.provider_input, counts.provider_output
        used_in = row.estimated_input_tokens if used_in is None else used_in
        used_out = prompts.estimated_output(row.model, text) if used_out is None else used_out
        return min(one.held, max(1, -(-(used_in + used_out) * one.rate // 1000)))

    def _wait_again(self, one: Try) -> None:
        one.calls.append((one.attempts, State.INTERRUPTED))
        one.state, one.epoch, one.is_dead = State.QUEUED, one.epoch + 1, False
        self._put_off(one)

    def _put_off(self, one: Try) -> None:
        Message.objects.filter(pk=one.id).update(lease_until=timezone.now() + FAR)

    # What the tables say

    @invariant()
    def the_tables_agree(self) -> None:
        everything = [*self.tries, *self.deleted]
        rows: dict[str, Any] = {row["id"]: row for row in Message.objects.filter(user=self.alice).values()}
        names = [one.id for one in everything]
        holds, closings = _transfers_of(names)
        calls = _calls_of(names)
        for one in everything:
            _assert_closed_once(one, holds, closings)
            assert sorted((call["attempt"], call["status"]) for call in calls.get(one.id, [])) == one.calls
            paid = [call["transfer_id"] for call in calls.get(one.id, []) if call["transfer_id"]]
            assert paid == [row["id"] for row in closings.get(one.id, []) if row["phase"] == "post"]
        for one in self.tries:
            self._assert_row_is_as_imagined(one, rows)
        assert len(rows) == len(self.tries) + len({one.question_id for one in self.tries})
        account = Account.objects.get(user=self.alice, name=ledger.TOKENS)
        assert account.balance == self.given - sum(one.cost for one in everything)
        assert account.held == sum(one.held for one in self.open_tries)
        assert account.balance >= account.held
        self._assert_chats_are_counted()
        self._assert_budgets_count_the_same()

    def _assert_budgets_count_the_same(self) -> None:
        period = BudgetPeriod.objects.get(budget=self.in_tokens)
        assert period.spent == sum(one.cost for one in [*self.tries, *self.deleted])
        # Where the balance decides how long a reply may be, a little of the hold pays for no whole token.
        assert period.reserved <= sum(one.held for one in self.open_tries)
        entries = BudgetEntry.objects.filter(period__budget__in=[self.in_tokens, self.in_dollars])
        reserved = set(entries.filter(closed_at=None).values_list("reference", "period__budget__unit"))
        assert reserved == {(one.id, "usd") for one in self.open_tries} | {
            (one.id, "token") for one in self.open_tries if one.held
        }
        names = (self.in_tokens.pk, self.in_dollars.pk)
        assert [line for line in budgets.differences() if line.startswith(names)] == []

    def _assert_row_is_as_imagined(self, one: Try, rows: dict[str, Any]) -> None:
        row = rows[one.id]
        assert (row["state"], row["epoch"], row["attempts"]) == (one.state, one.epoch, one.attempts)
        assert (row["content"], row["tokens_used"]) == (one.saved, one.cost)
        assert (row["stop_requested_at"] is not None) == one.is_stop_asked
        said_to = rows[one.message_id]
        assert (said_to["role"] == "assistant", said_to["content"]) == (one.goes_on, one.text)
        if not one.is_open:
            assert row["lease_until"] is None
            assert row["finished_at"] is not None
            one.last = one.last or row
            assert row == one.last
        elif one.published:
            assert stream.text(one.id, one.epoch) == one.published
            left = stream.client().ttl(f"{settings.REDIS_PREFIX}text:{one.id}:{one.epoch}")
            assert not 0 <= left <= stream.ENDED_SECONDS

    def _assert_chats_are_counted(self) -> None:
        found = Session.objects.filter(user=self.alice).values_list(
            "id", "total_tokens_used", "message_count"
        )
        assert {name: (used, count) for name, used, count in found} == {
            chat.session.pk: (
                sum(one.cost for one in chat.tries),
                len(chat.tries) + len({one.question_id for one in chat.tries}),
            )
            for chat in self.chats
        }

    def teardown(self) -> None:
        for chat in [*self.chats]:
            self.delete_its_chat(chat.tries[-1])
        if hasattr(self, "alice"):
            self.the_tables_agree()
        assert audit.check() == []


Rows = dict[str, list[dict[str, Any]]]


def _transfers_of(names: list[str]) -> tuple[Rows, Rows]:
    """The holds and their resolutions, by reply."""
    holds: Rows = {}
    closings: Rows = {}
    for row in Transfer.objects.filter(reference__in=names).values("id", "phase", "amount", "reference"):
        (holds if row["phase"] == "pending" else closings).setdefault(row["reference"], []).append(dict(row))
    return holds, closings


def _calls_of(names: list[str]) -> Rows:
    calls: Rows = {}
    for row in TokenUsage.objects.filter(operation_id__in=names).values(
        "operation_id", "attempt", "status", "transfer_id"
    ):
        calls.setdefault(row["operation_id"], []).append(dict(row))
    return calls


def _assert_closed_once(one: Try, holds: Rows, closings: Rows) -> None:
    held = [row["amount"] for row in holds.get(one.id, [])]
    closed = Counter((row["phase"], row["amount"]) for row in closings.get(one.id, []))
    assert held == ([one.held] if one.rate else [])
    if one.is_open or not one.rate:
        assert not closed
    elif one.cost:
        assert closed == {("post", one.cost): 1}
        assert one.cost <= one.held
    else:
        assert closed == {("void", one.held): 1}


def test_whatever_befalls_a_turn_it_ends_once_and_is_paid_as_it_ended() -> None:
    run_state_machine_as_test(Turns, settings=search(40, steps=30))
