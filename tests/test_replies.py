"""What becomes of a reply: written and paid for, stopped, failed, or left behind by a worker that died."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from math import ceil

import pytest
from celery.signals import worker_ready
from django.conf import settings
from django.db import OperationalError, connection
from django.utils import timezone

from aleph import ids
from billing import ledger
from billing.models import Transfer
from chat import keeper, prompts, replies, sessions, stream, tasks, turns
from chat.models import Message, Route, Session
from chat.providers.base import Counts
from tests import people
from tests.clock import in_time
from tests.crowd import at_once, failures, successes
from tests.simulator import Simulator
from tests.stories_of_chat import (
    answered,
    ask,
    assert_books_are_right,
    at_most,
    available,
    bells_for,
    calls_of,
    ending_of,
    fresh,
    held,
    special_model,
    statements,
    told,
    until,
    worker,
)

pytestmark = pytest.mark.usefixtures("committed", "simulator")

SLOW = "sim-slow-100x50ms"


# Whole replies


def test_a_whole_reply_is_charged_by_what_the_provider_counted(simulator: Simulator) -> None:
    alice = people.alice()
    special_model("two-rates", input_rate=1000, output_rate=3000)
    turn = turns.start(user=alice, session=None, text="One two", model_slug="two-rates", turn=ids.new("trn"))
    reply = answered(turn)
    words_in = sum(len(said["content"].split()) for said in simulator.requests[-1].body["messages"])
    assert (reply.state, reply.content) == ("complete", "word1 word2 word3 word4 word5 ")
    assert reply.tokens_used == words_in + 5 * 3
    assert (reply.finish_reason, reply.answered_by) == ("stop", "sim-words-5-2026-09-01")
    assert (available(alice), held(alice)) == (10_500 - reply.tokens_used, 0)
    post = Transfer.objects.get(pending=reply.hold_id)
    assert (post.phase, post.amount, post.reference) == ("post", reply.tokens_used, reply.pk)
    assert Session.objects.get(pk=turn.session.pk).total_tokens_used == reply.tokens_used
    assert_books_are_right()


def test_every_class_of_tokens_is_kept_apart_and_paid_for() -> None:
    reply = told(people.alice(), script="sim-words-5-cached")
    (call,) = calls_of(reply)
    assert (call.fresh_input_tokens, call.cache_read_tokens, call.cache_write_tokens) == (40, 64, 16)
    assert (call.visible_output_tokens, call.reasoning_tokens) == (19, 41)
    assert (call.input_tokens, call.output_tokens, call.total_tokens) == (120, 60, 180)
    assert reply.tokens_used == 18


def test_a_reply_can_be_followed_to_its_call_and_to_what_paid_for_it() -> None:
    alice = people.alice()
    reply = told(alice)
    (call,) = calls_of(reply)
    assert (call.user, call.operation, call.attempt) == (alice, "chat_message", 1)
    assert (call.provider, call.requested_model, call.model) == (
        "openai",
        "sim-words-5",
        "sim-words-5-2026-09-01",
    )
    assert (call.status, call.source, call.flagged) == ("complete", "reported", False)
    assert call.transfer_id == Transfer.objects.get(pending=reply.hold_id).pk
    assert call.latency_ms is not None
    assert call.first_token_ms is not None
    assert 0 <= call.first_token_ms <= call.latency_ms < 10_000
    assert reply.content not in str(call.metadata)


def test_a_charge_is_never_above_what_was_held() -> None:
    person = people.carol()
    people.give_tokens(person, 170)
    special_model(
        "small-and-dear", script="sim-words-5-cached", input_rate=1000, output_rate=1000, max_output_tokens=64
    )
    turn = turns.start(user=person, session=None, text="Hi", model_slug="small-and-dear", turn=ids.new("trn"))
    reply = answered(turn)
    assert (reply.state, calls_of(reply)[0].total_tokens) == ("complete", 180)
    assert reply.tokens_used == reply.held_tokens < 180
    assert (available(person), held(person)) == (170 - reply.held_tokens, 0)
    assert_books_are_right()


def test_a_reply_without_a_count_is_estimated_and_says_so() -> None:
    reply = told(people.alice(), script="sim-words-20-nousage")
    (call,) = calls_of(reply)
    assert (reply.state, call.source) == ("complete", "estimated")
    assert call.input_tokens == reply.estimated_input_tokens
    assert 20 <= call.output_tokens <= 100
    assert reply.tokens_used == ceil((call.input_tokens + call.output_tokens) * 100 / 1000)


def test_a_count_of_zero_is_a_count_and_a_paid_reply_costs_at_least_one_token() -> None:
    reply = told(people.alice(), script="sim-words-5-zero-usage")
    (call,) = calls_of(reply)
    assert (call.source, call.total_tokens, reply.tokens_used) == ("reported", 0, 1)


def test_a_free_reply_costs_nothing_and_is_recorded_all_the_same() -> None:
    carol = people.carol()
    reply = told(carol, rate=0)
    (call,) = calls_of(reply)
    assert (reply.state, reply.tokens_used, call.transfer_id) == ("complete", 0, "")
    assert call.total_tokens > 5
    assert not Transfer.objects.filter(reference=reply.pk).exists()


def test_what_a_model_thinks_is_no_part_of_its_reply() -> None:
    assert told(people.alice(), script="sim-words-3-thinking").content == "word1 word2 word3 "


def test_a_reply_is_cut_where_the_balance_ends_and_charged_within_it() -> None:
    bob = people.bob()
    reply = told(bob, "Halo", script="sim-words-900")
    assert (reply.state, reply.finish_reason, reply.is_limited_by_balance) == ("complete", "length", True)
    assert len(reply.content.split()) == reply.max_output_tokens
    assert 0 < reply.tokens_used <= 50
    assert available(bob) == 50 - reply.tokens_used


def test_an_endless_reply_is_cut_and_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "MAX_TEXT", 200)
    reply = told(people.alice(), script="sim-slow-1000x2ms")
    assert (reply.state, reply.finish_reason) == ("complete", "length")
    assert 200 < len(reply.content) < 1_000
    assert (calls_of(reply)[0].source, ending_of(reply)) == ("estimated", "post")


def test_the_provider_is_sent_the_whole_branch_and_no_name(simulator: Simulator) -> None:
    alice = people.alice()
    first = ask(alice, "My name is Ayu.", script="sim-echo")
    answered(first)
    session = sessions.get(alice, first.session.pk)
    reply = answered(ask(alice, "What is my name?", script="sim-echo", session=session))
    body = simulator.requests[-1].body
    assert [(said["role"], said["content"]) for said in body["messages"]] == [
        ("system", prompts.SYSTEM),
        ("user", "My name is Ayu."),
        ("assistant", "My name is Ayu."),
        ("user", "What is my name?"),
    ]
    assert (body["temperature"], body["top_p"], body["max_completion_tokens"]) == (
        0.7,
        0.9,
        reply.max_output_tokens,
    )
    assert len(body["safety_identifier"]) == 32
    assert alice.email not in str(body)


def test_a_model_that_is_retired_after_a_turn_was_admitted_still_answers_it() -> None:
    alice = people.alice()
    model = special_model(ids.new("retired").lower())
    turn = turns.start(user=alice, session=None, text="Halo", model_slug=model.slug, turn=ids.new("trn"))
    model.is_offered = False
    model.save()
    reply = answered(turn)
    assert (reply.state, ending_of(reply)) == ("complete", "post")
    assert available(alice) == 10_500 - reply.tokens_used


# Failures of the provider

WORDS = "word1 word2 word3 word4 word5 "
ASKED_TWICE = ("server", "overloaded")
"""What may be gone in a moment. The busy one (429) asks for more time than anybody is kept waiting."""


@pytest.mark.parametrize(
    ("script", "kind", "text", "was_used"),
    [
        ("error-429", "rate_limit", "", False),
        ("quota", "credit", "", False),
        ("error-500", "server", "", True),
        ("error-401", "auth", "", False),
        ("error-404", "not_found", "", False),
        ("context", "context_too_long", "", False),
        ("html", "bad_response", "", True),
        ("html-502", "overloaded", "", False),
        ("empty", "empty", "", True),
        ("cut-5", "broken_stream", WORDS, True),
        ("cut-clean-5", "broken_stream", WORDS, True),
        ("garbage", "bad_response", WORDS, True),
        ("midstream-error", "overloaded", WORDS, True),
        ("timeout", "timeout", "", True),
        ("stall-5", "timeout", WORDS, True),
    ],
)
def test_a_failure_costs_nothing_and_keeps_what_was_written(
    script: str, kind: str, text: str, was_used: bool
) -> None:
    alice = people.alice()
    turn = ask(alice, script=f"sim-{script}")
    Route.objects.filter(model=turn.reply.model).update(connect_s=1, first_byte_s=1, idle_s=1, total_s=10)
    reply = answered(turn)
    assert (reply.state, reply.error_kind, reply.content) == ("failed", kind, text)
    assert (reply.tokens_used, ending_of(reply)) == (0, "void")
    assert (available(alice), held(alice)) == (10_500, 0)
    calls = calls_of(reply)
    assert [call.attempt for call in calls] == ([1, 2] if kind in ASKED_TWICE and not text else [1])
    for call in calls:
        assert (call.status, call.transfer_id, call.metadata["error"]) == ("failed", "", kind)
        assert (call.input_tokens > 0) == was_used
    assert fresh(turn.reply).parent == turn.message
    assert_books_are_right()


def test_nobody_listening_at_the_providers_is_a_failure_too(settings: object) -> None:
    from chat import catalogue

    turn = ask(people.alice())
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, "OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}  # type: ignore[attr-defined]
    catalogue.connected.cache_clear()
    reply = answered(turn)
    assert (reply.state, reply.error_kind, ending_of(reply)) == ("failed", "unreachable", "void")


def test_after_a_failure_the_same_message_can_be_tried_again() -> None:
    alice = people.alice()
    failed = told(alice, script="sim-error-500")
    again = turns.retry(
        user=alice,
        reply_id=failed.pk,
        turn=ids.new("trn"),
        model_slug=special_model(ids.new("ok").lower()).slug,
    )
    assert answered(again).state == "complete"
    assert fresh(failed).state == "failed"


# Stop


def test_stop_hangs_up_within_a_second_and_charges_what_was_written(simulator: Simulator) -> None:
    alice = people.alice()
    turn = ask(alice, script=SLOW)
    before = simulator.aborted
    with worker(turn):
        until(lambda: stream.text(turn.reply.pk, 1).count(" ") > 5)
        stopped_at = time.monotonic()
        turns.stop(user=alice, reply_id=turn.reply.pk)
        assert simulator.wait_for_aborted(before + 1)
        in_time(time.monotonic() - stopped_at, 1.0)
    reply = fresh(turn.reply)
    (call,) = calls_of(reply)
    assert (reply.state, call.status, call.source) == ("stopped", "stopped", "estimated")
    words = reply.content.split()
    assert 5 < len(words) < 60
    assert words == [f"word{number}" for number in range(1, len(words) + 1)]
    assert call.output_tokens == prompts.estimated_output(reply.model, reply.content)  # type: ignore[arg-type]
    assert reply.tokens_used == ceil((call.input_tokens + call.output_tokens) * 100 / 1000)
    assert (available(alice), held(alice)) == (10_500 - reply.tokens_used, 0)
    assert_books_are_right()


def test_stop_before_the_first_word_costs_nothing(simulator: Simulator) -> None:
    alice = people.alice()
    turn = ask(alice, script="sim-words-5-delay-9000")
    asked = len(simulator.requests)
    with worker(turn):
        until(lambda: len(simulator.requests) > asked)
        turns.stop(user=alice, reply_id=turn.reply.pk)
    reply = fresh(turn.reply)
    assert (reply.state, reply.content, reply.tokens_used) == ("stopped", "", 0)
    assert (ending_of(reply), available(alice)) == ("void", 10_500)


def test_stop_of_a_waiting_reply_ends_it_at_once() -> None:
    alice = people.alice()
    turn = ask(alice)
    stopped = turns.stop(user=alice, reply_id=turn.reply.pk)
    assert (stopped.state, ending_of(stopped), calls_of(stopped)) == ("stopped", "void", [])
    replies.generate(turn.reply.pk)
    assert fresh(turn.reply).state == "stopped"
    assert available(alice) == 10_500


def test_stop_after_the_end_changes_nothing() -> None:
    alice = people.alice()
    reply = told(alice)
    assert turns.stop(user=alice, reply_id=reply.pk).state == "complete"
    assert fresh(reply).stop_requested_at is None


# Deleting a chat


def test_deleting_a_chat_ends_its_reply_as_stop_would(simulator: Simulator) -> None:
    alice = people.alice()
    turn = ask(alice, script=SLOW)
    before = simulator.aborted
    with worker(turn):
        until(lambda: stream.text(turn.reply.pk, 1).count(" ") > 5)
        sessions.delete(sessions.get(alice, turn.session.pk))
        assert simulator.wait_for_aborted(before + 1, timeout_s=1.5)
    assert not Message.objects.filter(pk=turn.reply.pk).exists()
    (call,) = calls_of(turn.reply)
    post = Transfer.objects.get(pending=turn.reply.hold_id)
    assert (call.status, call.source, call.transfer_id) == ("stopped", "estimated", post.pk)
    assert post.phase == "post"
    assert post.amount == ceil((call.input_tokens + call.output_tokens) * 100 / 1000)
    assert (available(alice), held(alice)) == (10_500 - post.amount, 0)
    assert_books_are_right()


# The keeper


def test_what_is_written_is_saved_while_it_is_written() -> None:
    turn = ask(people.alice(), script=SLOW)
    with worker(turn):
        until(lambda: fresh(turn.reply).content)
        first = fresh(turn.reply).content
        until(lambda: len(fresh(turn.reply).content) > len(first))
        growing = fresh(turn.reply)
        assert growing.state == "streaming"
        assert growing.content.startswith(first)
        turns.stop(user=growing.user, reply_id=growing.pk)


def test_the_lease_is_renewed_while_the_reply_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "HEARTBEAT_S", 0.2)
    turn = ask(people.alice(), script=SLOW)
    with worker(turn):
        until(lambda: fresh(turn.reply).lease_until)
        first = fresh(turn.reply).lease_until
        assert first is not None
        until(lambda: (fresh(turn.reply).lease_until or first) > first)
        turns.stop(user=turn.reply.user, reply_id=turn.reply.pk)
    assert fresh(turn.reply).lease_until is None


def test_a_worker_that_cannot_renew_gives_up_before_others_may_take_over(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "renew", lambda *_nothing: None)
    monkeypatch.setattr(keeper, "LEASE", timedelta(seconds=6))
    turn = ask(people.alice(), script=SLOW)
    before = simulator.aborted
    with worker(turn):
        assert simulator.wait_for_aborted(before + 1, timeout_s=3)
    reply = fresh(turn.reply)
    assert (reply.state, reply.epoch) == ("streaming", 1)
    _forget_worker(reply)
    replies.sweep()
    assert fresh(turn.reply).state == "interrupted"


def _forget_worker(reply: Message) -> None:
    """As if the worker's lease had run out a while ago."""
    Message.objects.filter(pk=reply.pk).update(lease_until=timezone.now() - timedelta(seconds=1))


# Workers that die, and workers that come too late


def test_a_reply_whose_worker_died_after_some_text_is_interrupted_and_free() -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn, text="Once upon a time")
    replies.sweep()
    reply = fresh(turn.reply)
    assert (reply.state, reply.content, reply.error_kind) == (
        "interrupted",
        "Once upon a time",
        "worker_died",
    )
    assert (reply.tokens_used, ending_of(reply)) == (0, "void")
    assert (available(alice), held(alice)) == (10_500, 0)
    (call,) = calls_of(reply)
    assert (call.status, call.source, call.transfer_id) == ("interrupted", "estimated", "")
    assert call.output_tokens > 0
    assert_books_are_right()


def test_a_worker_that_starts_looks_at_once_for_what_a_dead_one_left() -> None:
    turn = ask(people.alice())
    _die_over(turn, text="Once upon a time")
    worker_ready.send(sender=tasks)
    until(lambda: fresh(turn.reply).state == "interrupted")


def _die_over(turn: turns.Turn, *, text: str = "", attempts: int = 1, published: str = "") -> None:
    """The reply as a killed worker leaves it: claimed, maybe with some text, and with nobody who renews the lease."""
    Message.objects.filter(pk=turn.reply.pk).update(
        state="streaming",
        epoch=1,
        attempts=attempts,
        content=text,
        started_at=timezone.now() - timedelta(seconds=40),
        lease_until=timezone.now() - timedelta(seconds=1),
    )
    if published:
        stream.publisher().append(
            reply_id=turn.reply.pk,
            user_id=turn.reply.user_id,
            epoch=1,
            offset=0,
            byte_offset=0,
            text=published,
        )
        stream.publisher().flush()


def test_text_that_only_redis_has_seen_is_kept_as_well() -> None:
    turn = ask(people.alice())
    _die_over(turn, text="Once", published="Once upon a time")
    replies.sweep()
    assert fresh(turn.reply).content == "Once upon a time"


def test_a_reply_whose_worker_died_before_any_text_is_written_again() -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn)
    rung = bells_for(turn.reply)
    replies.sweep()
    waiting = fresh(turn.reply)
    assert (waiting.state, waiting.epoch, ending_of(waiting)) == ("queued", 2, "open")
    assert bells_for(turn.reply) == rung + 1
    reply = answered(turn)
    assert (reply.state, reply.attempts) == ("complete", 2)
    assert [(call.attempt, call.status) for call in calls_of(reply)] == [(1, "interrupted"), (2, "complete")]
    assert (available(alice), held(alice)) == (10_500 - reply.tokens_used, 0)
    assert_books_are_right()


def test_a_reply_that_thought_for_long_before_its_worker_died_is_not_taken_for_one_that_nobody_took() -> None:
    turn = ask(people.alice())
    Message.objects.filter(pk=turn.reply.pk).update(created_at=timezone.now() - timedelta(seconds=100))
    _die_over(turn)
    replies.sweep()
    replies.sweep()
    assert fresh(turn.reply).state == "queued"
    assert answered(turn).state == "complete"


def test_after_two_workers_died_a_reply_ends() -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn, attempts=2)
    replies.sweep()
    reply = fresh(turn.reply)
    assert (reply.state, reply.content, ending_of(reply)) == ("interrupted", "", "void")
    assert available(alice) == 10_500


def test_a_reply_that_was_stopped_while_its_worker_lay_dead_is_not_asked_for_again() -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn)
    turns.stop(user=alice, reply_id=turn.reply.pk)
    replies.sweep()
    reply = fresh(turn.reply)
    assert (reply.state, ending_of(reply), available(alice)) == ("stopped", "void", 10_500)


def test_a_living_worker_is_left_alone() -> None:
    turn = ask(people.alice(), script=SLOW)
    with worker(turn):
        until(lambda: fresh(turn.reply).state == "streaming")
        replies.sweep()
        assert fresh(turn.reply).state == "streaming"
        turns.stop(user=turn.reply.user, reply_id=turn.reply.pk)


def test_a_worker_that_comes_too_late_writes_nothing(simulator: Simulator) -> None:
    alice = people.alice()
    turn = ask(alice, script=SLOW)
    before = simulator.aborted
    with worker(turn):
        until(lambda: stream.text(turn.reply.pk, 1).count(" ") > 3)
        _forget_worker(turn.reply)
        replies.sweep()
        swept = fresh(turn.reply)
        assert simulator.wait_for_aborted(before + 1, timeout_s=2)
    late = fresh(turn.reply)
    assert (late.state, late.content, late.epoch) == ("interrupted", swept.content, 2)
    assert 3 < len(late.content.split()) < 60
    assert len(calls_of(late)) == 1
    assert (ending_of(late), available(alice)) == ("void", 10_500)
    assert_books_are_right()


def test_a_worker_that_comes_too_late_does_not_disturb_the_one_that_took_over(simulator: Simulator) -> None:
    alice = people.alice()
    turn = ask(alice, script="sim-words-5-delay-1000")
    asked = len(simulator.requests)
    with worker(turn):
        until(lambda: len(simulator.requests) > asked)
        _forget_worker(turn.reply)
        replies.sweep()
        reply = answered(turn)
        assert (reply.state, reply.content, reply.epoch) == ("complete", WORDS, 4)
    assert fresh(turn.reply).finished_at == reply.finished_at
    assert [(call.attempt, call.status) for call in calls_of(reply)] == [(1, "interrupted"), (2, "complete")]
    assert available(alice) == 10_500 - reply.tokens_used
    assert_books_are_right()


def test_a_worker_that_is_asked_to_go_hands_back_what_nobody_saw_and_ends_the_rest(
    simulator: Simulator,
) -> None:
    alice = people.alice()
    unseen, seen = ask(alice, script="sim-words-5-delay-9000"), ask(alice, script=SLOW)
    asked = len(simulator.requests)
    try:
        with worker(unseen), worker(seen):
            until(lambda: len(simulator.requests) == asked + 2 and stream.text(seen.reply.pk, 1))
            keeper.keeper().drain(0.1)
    finally:
        keeper.keeper.cache_clear()
    assert (fresh(unseen.reply).state, fresh(seen.reply).state) == ("queued", "interrupted")
    assert (ending_of(unseen.reply), ending_of(seen.reply)) == ("open", "void")
    turns.stop(user=alice, reply_id=unseen.reply.pk)
    assert available(alice) == 10_500


# The queue


def test_a_bell_that_nobody_heard_is_rung_again_after_ten_seconds_and_not_before() -> None:
    turn = ask(people.alice())
    first = bells_for(turn.reply)
    replies.sweep()
    assert bells_for(turn.reply) == first
    Message.objects.filter(pk=turn.reply.pk).update(rung_at=timezone.now() - timedelta(seconds=11))
    at_once([replies.sweep] * 4)
    assert bells_for(turn.reply) == first + 1


def test_a_turn_rings_for_a_worker() -> None:
    assert bells_for(ask(people.alice()).reply) == 1


def test_two_bells_are_one_reply(simulator: Simulator) -> None:
    turn = ask(people.alice())
    asked = len(simulator.requests)
    outcomes = at_once([lambda: replies.generate(turn.reply.pk)] * 4)
    assert failures(outcomes) == []
    assert len(simulator.requests) == asked + 1
    assert len(calls_of(turn.reply)) == 1


def test_a_reply_that_nobody_took_for_a_minute_ends_and_costs_nothing() -> None:
    alice = people.alice()
    turn = ask(alice)
    Message.objects.filter(pk=turn.reply.pk).update(created_at=timezone.now() - timedelta(seconds=61))
    replies.sweep()
    reply = fresh(turn.reply)
    assert (reply.state, reply.error_kind, calls_of(reply)) == ("failed", "queue", [])
    assert (ending_of(reply), available(alice)) == ("void", 10_500)


def test_one_reply_that_cannot_be_ended_does_not_keep_the_sweep_from_the_others() -> None:
    stuck, other = ask(people.alice()), ask(people.alice())
    for turn in (stuck, other):
        _die_over(turn, text="Once")
    # A hold that is in no book can be neither posted nor voided.
    Message.objects.filter(pk=stuck.reply.pk).update(hold_id=ids.new("trf"))
    replies.sweep()
    assert fresh(other.reply).state == "interrupted"
    assert fresh(stuck.reply).state == "streaming"
    # The other tests' sweeps need not stumble over it, too.
    Message.objects.filter(pk=stuck.reply.pk).update(state="interrupted")


# Closing once


def test_of_many_who_close_a_reply_at_once_one_does() -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn, text="Once upon a time")
    acts = [lambda: replies.close_for_owner(fresh(turn.reply))] * 5
    sweeps = [lambda: bool(replies.sweep())] * 5  # type: ignore[func-returns-value]
    outcomes = at_once([act for pair in zip(acts, sweeps, strict=True) for act in pair])
    assert failures(outcomes) == []
    assert successes(outcomes).count(True) <= 1
    reply = fresh(turn.reply)
    assert reply.state in ("stopped", "interrupted")
    assert Transfer.objects.filter(pending=reply.hold_id).count() == 1
    assert len(calls_of(reply)) == 1
    assert available(alice) == 10_500 - reply.tokens_used
    assert held(alice) == 0
    assert_books_are_right()


def test_a_stop_at_the_moment_of_the_claim_ends_the_reply_one_way_or_the_other() -> None:
    alice = people.alice()
    for _again in range(4):
        turn = ask(alice, script="sim-slow-40x50ms")
        acts: list[Callable[[], object]] = [
            partial(replies.generate, turn.reply.pk),
            partial(turns.stop, user=alice, reply_id=turn.reply.pk),
        ]
        outcomes = at_once(acts)
        assert failures(outcomes) == []
        reply = fresh(turn.reply)
        assert reply.state == "stopped"
        assert ending_of(reply) == ("post" if reply.tokens_used else "void")
    assert held(alice) == 0
    assert_books_are_right()


@pytest.mark.parametrize("ending", ["void", "post"])
def test_a_reply_whose_hold_was_resolved_past_it_ends_and_moves_no_money_again(
    ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    alice = people.alice()
    turn = ask(alice)
    _die_over(turn, text="Once upon a time")
    _resolve_past_it(turn, ending)
    left = available(alice)
    replies.sweep()
    reply = fresh(turn.reply)
    assert (reply.state, reply.content, reply.tokens_used) == ("interrupted", "Once upon a time", 0)
    replies.sweep()
    assert (available(alice), held(alice), len(calls_of(reply))) == (left, 0, 1)
    assert [record.levelname for record in caplog.records if reply.pk in str(record.msg)] == [
        "ERROR",
        "WARNING",
    ]
    assert_books_are_right()


@pytest.mark.parametrize(("ending", "cost"), [("void", 0), ("post", 7), ("same key", 0)])
def test_a_reply_costs_what_the_books_took_though_it_was_not_its_closing_that_took_it(
    ending: str, cost: int
) -> None:
    alice = people.alice()
    turn = ask(alice)
    _resolve_past_it(turn, ending)
    reply = answered(turn)
    assert (reply.state, reply.tokens_used, reply.session.total_tokens_used) == ("complete", cost, cost)
    (call,) = calls_of(reply)
    paid = Transfer.objects.get(pending=reply.hold_id)
    assert call.transfer_id == (paid.pk if cost else "")
    assert (available(alice), held(alice)) == (10_500 - cost, 0)
    assert_books_are_right()


def _resolve_past_it(turn: turns.Turn, ending: str) -> None:
    """As somebody at the console might, while the reply is open."""
    if ending == "post":
        ledger.post(hold_id=turn.reply.hold_id, amount=7, key=ids.new("post"))
    else:
        key = f"close:{turn.reply.pk}" if ending == "same key" else ids.new("void")
        ledger.void(hold_id=turn.reply.hold_id, key=key, reason="test")


def test_a_sweep_that_comes_between_two_renewals_leaves_the_live_text_alone() -> None:
    turn = ask(people.alice())
    _die_over(turn, text="Once", published="Once upon a time")
    as_the_sweep_saw_it = fresh(turn.reply)
    keeper.renew([keeper.Live(turn.reply.pk, 1)], now=0)
    replies._recover(as_the_sweep_saw_it, as_the_sweep_saw_it.content)
    assert fresh(turn.reply).state == "streaming"
    assert _seconds_left_of_live_text(turn) > stream.ENDED_SECONDS
    _forget_worker(turn.reply)
    replies.sweep()
    assert _seconds_left_of_live_text(turn) <= stream.ENDED_SECONDS


def test_what_a_slow_worker_saved_while_a_sweep_was_about_to_act_is_not_lost() -> None:
    turn = ask(people.alice())
    _die_over(turn)
    as_the_sweep_saw_it = fresh(turn.reply)
    live = keeper.Live(turn.reply.pk, 1)
    live.text = "Once upon a time"
    keeper.checkpoint([live])
    replies._recover(as_the_sweep_saw_it, as_the_sweep_saw_it.content)
    assert (fresh(turn.reply).state, fresh(turn.reply).content) == ("streaming", "Once upon a time")
    replies.sweep()
    assert (fresh(turn.reply).state, fresh(turn.reply).content) == ("interrupted", "Once upon a time")


def test_whoever_finds_a_reply_over_says_so_once_more() -> None:
    """The connection may be lost after the closing was committed, and before its end was published."""
    turn = ask(people.alice(), rate=0)
    _die_over(turn, text="Once", published="Once upon a time")
    before = fresh(turn.reply)
    Message.objects.filter(pk=turn.reply.pk).update(state="interrupted", epoch=2, lease_until=None)
    replies._recover(before, before.content)
    assert _seconds_left_of_live_text(turn) <= stream.ENDED_SECONDS


def _seconds_left_of_live_text(turn: turns.Turn) -> int:
    (key,) = stream.client().scan_iter(f"{settings.REDIS_PREFIX}text:{turn.reply.pk}:*", count=1000)
    return stream.client().ttl(key)


def test_a_worker_that_slept_through_its_lease_after_claiming_does_not_pass_for_the_next() -> None:
    turn = ask(people.alice())
    sleeper = replies._claim(turn.reply.pk)
    _forget_worker(turn.reply)
    replies.sweep()
    rival = replies._claim(turn.reply.pk)
    assert sleeper is not None
    assert rival is not None
    assert (sleeper.epoch, rival.epoch, rival.attempts) == (1, 3, 2)
    replies._close(rival, replies.Outcome("complete", text="Once"))


@pytest.mark.parametrize(
    ("counts", "counted", "source"),
    [
        (None, (0, 0), "estimated"),
        (Counts(fresh_input=12, visible_output=0, provider_input=12, provider_output=0), (12, 0), "reported"),
        (Counts(fresh_input=12, provider_input=12), (12, 0), "partial"),
    ],
)
def test_a_refused_call_used_nothing_unless_the_provider_says_otherwise(
    counts: Counts | None, counted: tuple[int, int], source: str
) -> None:
    turn = ask(people.alice())
    reply = replies._claim(turn.reply.pk)
    assert reply is not None
    replies._close(reply, replies.Outcome("failed", error_kind="overloaded", counts=counts))
    (call,) = calls_of(reply)
    assert ((call.input_tokens, call.output_tokens), call.source) == (counted, source)
    assert ending_of(reply) == "void"


def test_a_reply_is_closed_even_if_the_database_stumbles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "WORKER_PAUSES_S", (0.01,) * 5)
    alice = people.alice()
    turn = ask(alice)
    stumbles = 4

    def stumble(execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        nonlocal stumbles
        if "total_tokens_used" in sql and sql.startswith("UPDATE") and stumbles:
            stumbles -= 1
            raise OperationalError("the server closed the connection unexpectedly")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(stumble):
        reply = answered(turn)
    assert stumbles == 0
    assert reply.state == "complete"
    assert len(calls_of(reply)) == 1
    assert available(alice) == 10_500 - reply.tokens_used
    assert_books_are_right()


def test_closing_takes_at_most_eight_statements() -> None:
    turn = ask(people.alice())
    with statements() as sent:
        replies.generate(turn.reply.pk)
    assert fresh(turn.reply).state == "complete"
    last_read = max(place for place, sql in enumerate(sent) if 'FROM "chat_' in sql)
    assert len(sent[last_read + 1 :]) <= at_most(8), "\n".join(sent)
