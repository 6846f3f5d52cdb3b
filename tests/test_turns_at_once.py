"""Turns of many threads at the same moment: as many are admitted as the balance pays for, and each once."""

from collections.abc import Callable
from functools import partial

import pytest

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import NotFound
from billing import ledger
from chat import sessions, turns
from chat.models import Message, Session
from tests import people
from tests.crowd import at_once, failures, successes
from tests.product import simulated_model
from tests.stories_of_chat import ask, assert_books_are_right, available, ending_of, held

pytestmark = pytest.mark.usefixtures("committed", "simulator")


def test_of_fifty_sends_at_once_three_are_admitted_where_the_balance_pays_for_three() -> None:
    person = people.carol()
    slug = simulated_model("sim-echo", rate=150)
    quote = turns.quote(user=person, session=None, text="Halo", model_slug=slug)
    people.give_tokens(person, 3 * quote.at_most)
    outcomes = at_once(
        [lambda: turns.start(user=person, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))]
        * 50
    )
    assert len(successes(outcomes)) == 3
    assert {type(error) for error in failures(outcomes)} == {ledger.Insufficient}
    assert (available(person), held(person)) == (0, 3 * quote.at_most)
    assert Session.objects.filter(user=person).count() == 3
    assert Message.objects.filter(user=person).count() == 6
    assert_books_are_right()


def test_the_same_turn_in_twenty_threads_is_one_turn() -> None:
    alice = people.alice()
    simulated_model("sim-words-5")
    outcomes = at_once([lambda: ask(alice, turn="twenty times")] * 20)
    assert failures(outcomes) == []
    replies = {turn.reply.pk for turn in successes(outcomes)}
    assert len(replies) == 1
    assert Message.objects.filter(user=alice).count() == 2
    assert Session.objects.filter(user=alice).count() == 1
    assert held(alice) == successes(outcomes)[0].reply.held_tokens
    assert_books_are_right()


def test_of_ten_messages_at_once_in_one_chat_one_is_taken() -> None:
    alice = people.alice()
    session = sessions.create(user=alice)
    simulated_model("sim-words-5")
    outcomes = at_once([lambda: ask(alice, session=session)] * 10)
    assert len(successes(outcomes)) == 1
    assert {type(error) for error in failures(outcomes)} == {turns.StillWriting}
    assert held(alice) == successes(outcomes)[0].reply.held_tokens
    assert_books_are_right()


def test_a_chat_that_is_deleted_while_messages_come_in_leaves_no_hold() -> None:
    """A message and the deletion of its chat at the same moment: whoever comes first, nothing is left of either."""
    alice = people.alice()
    simulated_model("sim-words-5")
    for _again in range(12):
        session = sessions.create(user=alice)
        pk = session.pk
        send = partial(_send_to, alice, pk)
        acts: list[Callable[[], object]] = [send, partial(_delete, alice, pk), send, send]
        outcomes = at_once(acts)
        assert {type(error) for error in failures(outcomes)} <= {NotFound, turns.StillWriting}
        assert not Message.objects.filter(session_id=pk).exists()
        assert held(alice) == 0
    assert_books_are_right()


def test_a_stop_and_a_stop_at_once_give_the_hold_back_once() -> None:
    alice = people.alice()
    turn = ask(alice)
    outcomes = at_once([lambda: turns.stop(user=alice, reply_id=turn.reply.pk)] * 12)
    assert {reply.state for reply in successes(outcomes)} == {"stopped"}
    assert ending_of(turn.reply) == "void"
    assert (available(alice), held(alice)) == (10_500, 0)
    assert_books_are_right()


def _send_to(person: User, session_id: str) -> object:
    return ask(person, session=sessions.get(person, session_id))


def _delete(person: User, session_id: str) -> None:
    sessions.delete(sessions.get(person, session_id))
