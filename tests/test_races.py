"""Two who act at the same moment, many times over: each reply is closed once, each package bought once, to the token.

Every round is a race of its own between real threads with connections of their own. They begin at a barrier, and then a
few random milliseconds let now one and now the other come first. `TEST_RACES=1000` runs a thousand rounds of each
(`tests.depth`); who won how often is in the report that `--junit-xml` writes.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial

import pytest
from django.db.models import Sum
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import NotFound
from billing import ledger, purchases
from billing.models import Purchase, Transfer
from chat import replies, sessions, turns
from chat.models import Message, Session
from chat.providers.base import Counts
from tests import people
from tests.crowd import at_once, failures, successes
from tests.depth import RACES
from tests.product import simulated_model
from tests.stories_of_chat import ask, assert_books_are_right, available, calls_of, ending_of, fresh, held

pytestmark = pytest.mark.usefixtures("committed", "simulator")

GIVEN = 1_000_000_000
TEXT = "Once upon a time there was a mouse deer. " * 5
COUNTS = Counts(fresh_input=30, visible_output=50, provider_input=30, provider_output=50)
COST = 8
JITTER_S = 0.004


@pytest.fixture
def alice() -> User:
    person = people.carol()
    people.give_tokens(person, GIVEN)
    return person


class Winners(Counter[str]):
    """How each round ended."""


@pytest.fixture
def winners(request: pytest.FixtureRequest) -> Iterator[Winners]:
    counted = Winners()
    yield counted
    request.node.user_properties.append(("winners", dict(counted)))


def race(*actions: Callable[[], object]) -> list[object | Exception]:
    return at_once([partial(_soon, action) for action in actions])


def _soon(action: Callable[[], object]) -> object:
    time.sleep(random.random() * JITTER_S)
    return action()


def claimed(turn: turns.Turn) -> Message:
    row = replies._claim(turn.reply.pk)
    assert row is not None
    return row


def complete(row: Message) -> bool:
    return replies._close(row, replies.Outcome("complete", text=TEXT, counts=COUNTS))


def claim_and_complete(turn: turns.Turn) -> bool:
    row = replies._claim(turn.reply.pk)
    return row is not None and complete(row)


def delete(person: User, session: Session) -> None:
    sessions.delete(sessions.get(person, session.pk))


def assert_closed_once(reply: Message, *, calls: int) -> Message:
    """The row of a reply that is over; its bill follows its outcome, in the row, in the books and in the log."""
    reply = fresh(reply)
    assert not reply.is_open
    (closing,) = Transfer.objects.filter(pending=reply.hold_id)
    was_charged = reply.state in ("complete", "stopped") and bool(reply.content)
    assert (closing.phase, closing.amount) == (
        ("post", reply.tokens_used) if was_charged else ("void", reply.held_tokens)
    )
    assert (reply.tokens_used > 0) == was_charged
    assert [call.transfer_id for call in calls_of(reply) if call.transfer_id] == (
        [closing.pk] if was_charged else []
    )
    assert len(calls_of(reply)) == calls
    return reply


def assert_sums_are_exact(person: User, *, open_holds: int = 0) -> None:
    taken = Transfer.objects.filter(debit__user=person, phase="post").aggregate(sum=Sum("amount"))["sum"] or 0
    assert (available(person), held(person)) == (GIVEN - taken - open_holds, open_holds)
    used = Session.objects.filter(user=person).aggregate(sum=Sum("total_tokens_used"))["sum"] or 0
    replies_cost = Message.objects.filter(user=person).aggregate(sum=Sum("tokens_used"))["sum"] or 0
    assert used == replies_cost


def test_stop_against_a_worker_that_claims_and_completes(alice: User, winners: Winners) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        stop = partial(turns.stop, user=alice, reply_id=turn.reply.pk)
        outcomes = race(stop, partial(claim_and_complete, turn))
        assert failures(outcomes) == []
        was_written = outcomes[1] is True
        reply = assert_closed_once(turn.reply, calls=1 if was_written else 0)
        assert (reply.state, reply.tokens_used) == (("complete", COST) if was_written else ("stopped", 0))
        winners[str(reply.state)] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_stop_against_a_reply_that_is_just_complete(alice: User, winners: Winners) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        stop = partial(turns.stop, user=alice, reply_id=turn.reply.pk)
        outcomes = race(stop, partial(complete, claimed(turn)))
        assert failures(outcomes) == []
        reply = assert_closed_once(turn.reply, calls=1)
        assert (reply.state, reply.tokens_used) == ("complete", COST)
        winners["asked in time" if reply.stop_requested_at else "too late"] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_a_sweep_against_a_worker_that_completes_late(alice: User, winners: Winners) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        row = claimed(turn)
        Message.objects.filter(pk=row.pk).update(
            content=TEXT, lease_until=timezone.now() - timedelta(seconds=1)
        )
        outcomes = race(replies.sweep, partial(complete, row), replies.sweep)
        assert failures(outcomes) == []
        reply = assert_closed_once(turn.reply, calls=1)
        assert (reply.state, reply.tokens_used) == (
            ("complete", COST) if outcomes[1] is True else ("interrupted", 0)
        )
        assert (reply.content, reply.epoch) == (TEXT, 2)
        winners[str(reply.state)] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_a_sweep_that_begins_again_against_a_worker_that_completes_late(
    alice: User, winners: Winners
) -> None:
    """Nothing was shown yet, so the sweep hands the reply to the next worker, who writes it or comes too late."""
    for _round in range(RACES):
        turn = ask(alice)
        row = claimed(turn)
        Message.objects.filter(pk=row.pk).update(lease_until=timezone.now() - timedelta(seconds=1))
        outcomes = race(replies.sweep, partial(complete, row))
        assert failures(outcomes) == []
        was_late = outcomes[1] is False
        if was_late:
            assert claim_and_complete(turn)
        reply = assert_closed_once(turn.reply, calls=2 if was_late else 1)
        assert (reply.state, reply.tokens_used) == ("complete", COST)
        winners["sweep" if was_late else "worker"] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_the_deletion_of_a_chat_against_a_worker_that_completes(alice: User, winners: Winners) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        row = claimed(turn)
        Message.objects.filter(pk=row.pk).update(content=TEXT)
        outcomes = race(partial(delete, alice, turn.session), partial(complete, row))
        assert failures(outcomes) == []
        assert not Message.objects.filter(session_id=turn.session.pk).exists()
        assert (ending_of(turn.reply), len(calls_of(turn.reply))) == ("post", 1)
        winners[calls_of(turn.reply)[0].status] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_a_stop_against_the_deletion_of_its_chat(alice: User, winners: Winners) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        stop = partial(turns.stop, user=alice, reply_id=turn.reply.pk)
        outcomes = race(stop, partial(delete, alice, turn.session))
        assert {type(error) for error in failures(outcomes)} <= {NotFound}
        assert not Message.objects.filter(session_id=turn.session.pk).exists()
        assert (ending_of(turn.reply), calls_of(turn.reply)) == ("void", [])
        winners["stop" if not failures(outcomes) else "deletion"] += 1
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_stop_from_two_devices(alice: User) -> None:
    for _round in range(RACES):
        turn = ask(alice)
        outcomes = race(*[partial(turns.stop, user=alice, reply_id=turn.reply.pk)] * 3)
        assert {reply.state for reply in successes(outcomes) if isinstance(reply, Message)} == {"stopped"}
        assert len(successes(outcomes)) == 3
        assert_closed_once(turn.reply, calls=0)
        assert_sums_are_exact(alice)
    assert_books_are_right()


def test_a_retry_clicked_twice_is_one_reply(alice: User) -> None:
    first = ask(alice)
    turns.stop(user=alice, reply_id=first.reply.pk)
    for _round in range(RACES):
        again = partial(turns.retry, user=alice, reply_id=first.reply.pk, turn=ids.new("trn"))
        outcomes = race(again, again)
        assert failures(outcomes) == []
        (admitted,) = {turn.reply.pk: turn for turn in outcomes if isinstance(turn, turns.Turn)}.values()
        assert Message.objects.filter(session=first.session, state__in=Message.OPEN).count() == 1
        assert_sums_are_exact(alice, open_holds=admitted.reply.held_tokens)
        turns.stop(user=alice, reply_id=admitted.reply.pk)
        assert_closed_once(admitted.reply, calls=0)
    assert Message.objects.filter(parent=first.message).count() == RACES + 1
    assert_books_are_right()


def test_retries_on_two_devices_are_one_reply_and_one_refusal(alice: User, winners: Winners) -> None:
    first = ask(alice)
    turns.stop(user=alice, reply_id=first.reply.pk)
    for _round in range(RACES):
        again = partial(turns.retry, user=alice, reply_id=first.reply.pk)
        outcomes = race(partial(again, turn=ids.new("trn")), partial(again, turn=ids.new("trn")))
        assert [type(error) for error in failures(outcomes)] == [turns.StillWriting]
        (admitted,) = successes(outcomes)
        assert isinstance(admitted, turns.Turn)
        assert_sums_are_exact(alice, open_holds=admitted.reply.held_tokens)
        winners["first" if outcomes[0] is admitted else "second"] += 1
        turns.stop(user=alice, reply_id=admitted.reply.pk)
        assert_closed_once(admitted.reply, calls=0)
    assert Message.objects.filter(parent=first.message).count() == RACES + 1
    assert_books_are_right()


def test_a_message_sent_twice_is_one_turn(alice: User) -> None:
    simulated_model("sim-words-5")
    for _round in range(RACES):
        turn = ids.new("trn")
        outcomes = race(*[partial(ask, alice, turn=turn)] * 2)
        assert failures(outcomes) == []
        (admitted,) = {turn.reply.pk: turn for turn in outcomes if isinstance(turn, turns.Turn)}.values()
        assert Message.objects.filter(user=alice, turn=turn).count() == 1
        assert_sums_are_exact(alice, open_holds=admitted.reply.held_tokens)
        turns.stop(user=alice, reply_id=admitted.reply.pk)
    assert Session.objects.filter(user=alice).count() == RACES
    assert Message.objects.filter(user=alice).count() == 2 * RACES
    assert_books_are_right()


@pytest.mark.parametrize("enough_for", [1, 2])
def test_a_purchase_clicked_twice_is_one_purchase(enough_for: int) -> None:
    """With money for one, whoever comes second must hear of the first purchase, and not that his wallet is empty."""
    alice = people.carol()
    spare = 1 + 50_000 * (enough_for - 1)
    people.give_rupiah(alice, spare)
    for number in range(1, RACES + 1):
        people.give_rupiah(alice, 50_000)
        click = partial(purchases.buy, user=alice, package_slug="starter", key=ids.new("key"))
        outcomes = race(click, click, click)
        assert failures(outcomes) == []
        (purchase,) = {one.pk: one for one in outcomes if isinstance(one, Purchase)}.values()
        assert len(purchases.transfers_of(purchase)) == 3
        balance = ledger.balance_of(alice)
        assert (balance.wallet_idr, balance.tokens) == (spare, number * 10_500)
        assert Purchase.objects.filter(user=alice).count() == number
    assert_books_are_right()
