"""A process dies at each of the points that matter, on purpose, and what is promised there holds (reliability, K0-K11)."""

import os
import signal
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from aleph.run import child_environment
from chat import replies, sessions
from chat.models import Message
from tests import people
from tests.product import database_url, simulated_model
from tests.simulator import Simulator
from tests.stories_of_chat import (
    answered,
    ask,
    assert_books_are_right,
    available,
    calls_of,
    ending_of,
    fresh,
    held,
)

pytestmark = pytest.mark.usefixtures("committed", "redis_server")

WORDS = "sim-words-5"
SEND = """
from aleph.accounts.models import User
from chat import turns
turns.start(user=User.objects.get(pk=int(sys.argv[1])), session=None, text="Tell me a story", model_slug=sys.argv[2], turn=sys.argv[3])
"""
WRITE = "from chat import replies; replies.generate(sys.argv[1])"
SWEEP = "from chat import replies; replies.sweep()"


class Dying:
    """Starts processes that do one thing of the product's, and die at a point of it."""

    def __init__(self, provider: Simulator) -> None:
        self.provider = provider

    def start(self, code: str, *arguments: object, at: str = "") -> subprocess.Popen[bytes]:
        env = child_environment() | {
            "DJANGO_SETTINGS_MODULE": "aleph.settings",
            "DATABASE_URL": database_url(),
            "OPENAI_API_KEY": "sk-simulated",
            "OPENAI_BASE_URL": self.provider.base_url,
            "ALEPH_FAILPOINT": at,
        }
        program = f"import sys, django; django.setup()\n{code}"
        return subprocess.Popen(
            [sys.executable, "-c", program, *map(str, arguments)], env=env, cwd=settings.BASE_DIR
        )

    def at(self, point: str, code: str, *arguments: object) -> None:
        assert self.start(code, *arguments, at=point).wait(60) == -signal.SIGKILL, f"{point} was not reached"


@pytest.fixture
def dying(simulator: Simulator) -> Dying:
    return Dying(simulator)


def long_ago(reply: Message) -> None:
    """As if the bell and the lease of a reply were a while back."""
    moment = timezone.now() - timedelta(seconds=15)
    Message.objects.filter(pk=reply.pk).update(rung_at=moment)
    Message.objects.filter(pk=reply.pk, state="streaming").update(lease_until=moment)


def swept(reply: Message) -> Message:
    long_ago(reply)
    replies.sweep()
    return fresh(reply)


def reply_of(person: User) -> Message | None:
    return Message.objects.filter(user=person, role="assistant").first()


def test_k0_a_turn_that_was_not_committed_never_was(dying: Dying) -> None:
    alice = people.alice()
    dying.at("K0", SEND, alice.pk, simulated_model(WORDS), ids.new("trn"))
    assert sessions.recent(alice) == []
    assert not Message.objects.filter(user=alice).exists()
    assert (available(alice), held(alice)) == (10_500, 0)


def test_k1_a_turn_that_nobody_was_rung_for_is_rung_again(dying: Dying) -> None:
    alice = people.alice()
    dying.at("K1", SEND, alice.pk, simulated_model(WORDS), ids.new("trn"))
    reply = reply_of(alice)
    assert reply is not None
    assert (reply.state, ending_of(reply)) == ("queued", "open")
    long_ago(reply)
    rung_at = fresh(reply).rung_at
    replies.sweep()
    assert rung_at is not None
    assert (fresh(reply).rung_at or rung_at) > rung_at
    replies.generate(reply.pk)
    assert_is_answered_once(alice, reply, calls=["complete"])


@pytest.mark.parametrize(("point", "calls"), [("K2", ["complete"]), ("K3", ["interrupted", "complete"])])
def test_k2_and_k3_a_reply_that_nobody_saw_anything_of_is_written_by_the_next_worker(
    dying: Dying, point: str, calls: list[str]
) -> None:
    alice = people.alice()
    turn = ask(alice)
    dying.at(point, WRITE, turn.reply.pk)
    assert swept(turn.reply).state == "queued"
    replies.generate(turn.reply.pk)
    assert_is_answered_once(alice, turn.reply, calls=calls)


def test_k4_neither_is_one_whose_provider_was_asked_and_had_said_nothing(
    dying: Dying, simulator: Simulator
) -> None:
    alice = people.alice()
    turn = ask(alice, script="sim-words-5-delay-2000")
    asked = len(simulator.requests)
    worker = dying.start(WRITE, turn.reply.pk)
    deadline = time.monotonic() + 60
    while len(simulator.requests) == asked:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait(10)
    assert swept(turn.reply).state == "queued"
    assert_is_answered_once(alice, answered(turn), calls=["interrupted", "complete"])


def test_k12_a_call_that_failed_is_logged_and_no_third_one_is_made(
    dying: Dying, simulator: Simulator
) -> None:
    alice = people.alice()
    turn = ask(alice, script="sim-error-500")
    asked = len(simulator.requests)
    dying.at("K12", WRITE, turn.reply.pk)
    reply = swept(turn.reply)
    assert (reply.state, reply.error_kind, ending_of(reply)) == ("interrupted", "worker_died", "void")
    assert [(call.attempt, call.status) for call in calls_of(reply)] == [(1, "failed"), (2, "interrupted")]
    assert len(simulator.requests) - asked == 1
    assert (available(alice), held(alice)) == (10_500, 0)
    assert_books_are_right()


@pytest.mark.parametrize("point", ["K5", "K6", "K7"])
def test_k5_to_k7_what_was_shown_stays_and_costs_nothing(dying: Dying, point: str) -> None:
    alice = people.alice()
    # Slow enough that the first text has been published before the second one comes.
    turn = ask(alice, script="sim-slow-5x60ms")
    dying.at(point, WRITE, turn.reply.pk)
    reply = swept(turn.reply)
    assert (reply.state, reply.error_kind, ending_of(reply)) == ("interrupted", "worker_died", "void")
    assert reply.content == ("word1 " if point == "K5" else "word1 word2 word3 word4 word5 ")
    assert (available(alice), held(alice)) == (10_500, 0)
    assert [call.status for call in calls_of(reply)] == ["interrupted"]
    assert_books_are_right()


@pytest.mark.parametrize("point", ["K8", "K9", "K10"])
def test_k8_to_k10_what_was_committed_is_paid_once_and_nothing_follows(dying: Dying, point: str) -> None:
    alice = people.alice()
    turn = ask(alice)
    dying.at(point, WRITE, turn.reply.pk)
    before = fresh(turn.reply)
    after = swept(turn.reply)
    assert (after.state, after.epoch, after.content) == (before.state, before.epoch, before.content)
    assert_is_answered_once(alice, after, calls=["complete"])


def test_k11_what_a_sweep_left_half_done_the_next_one_does(dying: Dying) -> None:
    alice = people.alice()
    turn = ask(alice)
    dying.at("K3", WRITE, turn.reply.pk)
    long_ago(turn.reply)
    dying.at("K11", SWEEP)
    assert (fresh(turn.reply).state, calls_of(turn.reply)) == ("streaming", [])
    assert swept(turn.reply).state == "queued"
    replies.generate(turn.reply.pk)
    assert_is_answered_once(alice, turn.reply, calls=["interrupted", "complete"])


def assert_is_answered_once(person: User, reply: Message, *, calls: list[str]) -> None:
    reply = fresh(reply)
    assert (reply.state, ending_of(reply)) == ("complete", "post")
    assert reply.content == "word1 word2 word3 word4 word5 "
    assert [call.status for call in calls_of(reply)] == calls
    assert (available(person), held(person)) == (10_500 - reply.tokens_used, 0)
    assert_books_are_right()
