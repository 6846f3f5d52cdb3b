"""What was said otherwise, answered again or gone on with: nothing is lost, and everybody is told what belongs to his branch."""

from functools import partial

import pytest

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, NotFound
from billing import ledger
from chat import branches, catalogue, entries, picker, prompts, replies, sessions, turns
from chat.models import ChatModel, Message, Session
from chat.turns import Turn
from tests import people
from tests.crowd import at_once, failures, successes
from tests.product import simulated_model
from tests.simulator import Simulator
from tests.stories_of_chat import (
    answered,
    ask,
    assert_books_are_right,
    at_most,
    available,
    calls_of,
    ending_of,
    fresh,
    held,
    special_model,
    statements,
    told,
)

pytestmark = [pytest.mark.usefixtures("committed", "simulator")]

LENGTH = "sim-words-5-length"
"""A model that is cut off after five words."""


def again(person: User, reply: Message) -> Message:
    return answered(turns.retry(user=person, reply_id=reply.pk, turn=ids.new("trn")))


def edited(person: User, message: Message | str, text: str) -> Turn:
    pk = message if isinstance(message, str) else message.pk
    return turns.edit(user=person, message_id=pk, text=text, turn=ids.new("trn"))


def said_to(person: User, reply: Message, text: str) -> Turn:
    slug = reply.model.slug if reply.model else None
    return turns.start(
        user=person,
        session=sessions.get(person, reply.session_id),
        text=text,
        model_slug=slug,
        turn=ids.new("trn"),
        parent=reply.pk,
    )


def gone_on(person: User, reply: Message) -> Turn:
    return turns.go_on(user=person, reply_id=reply.pk, turn=ids.new("trn"))


def shown(session: Session, *, at: str | None = None) -> list[str]:
    return [message.pk for message in sessions.thread(session, at=at).messages]


def sent(simulator: Simulator) -> list[tuple[str, str]]:
    """What the model was sent last, without the system's words."""
    messages = simulator.requests[-1].body["messages"]
    return [(message["role"], message["content"]) for message in messages if message["role"] != "system"]


# Which branch


def test_a_message_to_an_earlier_reply_begins_a_branch_and_its_model_is_told_no_other(
    simulator: Simulator,
) -> None:
    alice = people.alice()
    first = told(alice, "The beginning", script="sim-echo")
    answered(said_to(alice, first, "To the left"))
    right = answered(said_to(alice, first, "To the right"))
    assert right.content == "To the right"
    assert sent(simulator) == [
        ("user", "The beginning"),
        ("assistant", "The beginning"),
        ("user", "To the right"),
    ]


def test_without_a_parent_a_message_goes_on_from_the_newest_reply() -> None:
    alice = people.alice()
    first = told(alice)
    newest = answered(said_to(alice, first, "To the left"))
    turn = ask(alice, "And then?", session=sessions.get(alice, first.session_id))
    assert turn.message.parent_id == newest.pk


def test_a_branch_that_was_left_for_long_is_remembered_as_a_whole(simulator: Simulator) -> None:
    """However much was said on another branch meanwhile."""
    alice = people.alice()
    first = told(alice, "The beginning", script="sim-echo")
    _much_is_said_to(first, prompts.HISTORY + 20)
    late = answered(said_to(alice, first, "Back again"))
    assert [content for _role, content in sent(simulator)] == ["The beginning", "The beginning", "Back again"]
    answered(said_to(alice, late, "And on"))
    assert [content for role, content in sent(simulator) if role == "user"] == [
        "The beginning",
        "Back again",
        "And on",
    ]


def _much_is_said_to(reply: Message, number: int) -> None:
    parent, rows = reply.pk, []
    for place, pk in enumerate(sorted(ids.new("msg") for _ in range(number))):
        row = Message(id=pk, session=reply.session, user=reply.user, parent_id=parent, role="user")
        if place % 2:
            row.role, row.state, row.turn, row.model = "assistant", "complete", ids.new("trn"), reply.model
        row.content, parent = f"message {place}", pk
        rows.append(row)
    Message.objects.bulk_create(rows)


def test_what_is_said_can_only_be_said_to_a_reply_of_the_same_chat() -> None:
    alice = people.alice()
    own, other, foreign = told(alice), told(alice), told(people.alice())
    session = sessions.get(alice, own.session_id)
    for parent in (other.pk, foreign.pk, own.parent_id, ids.new("msg"), "msg_\x00", "nonsense", "x" * 5_000):
        start = partial(turns.start, user=alice, session=session, text="Halo", model_slug=None, parent=parent)
        with pytest.raises(NotFound):
            start(turn=ids.new("trn"))
        with pytest.raises(NotFound):
            turns.quote(user=alice, session=session, text="Halo", model_slug=None, parent=parent)
    with pytest.raises(NotFound):
        turns.start(
            user=alice, session=None, text="Halo", model_slug=None, turn=ids.new("trn"), parent=own.pk
        )
    assert Message.objects.filter(session=session).count() == 2


def test_while_a_reply_is_written_on_one_branch_nothing_begins_on_another() -> None:
    alice = people.alice()
    first = told(alice, script=LENGTH)
    second = again(alice, first)
    turn = said_to(alice, second, "Go on here")
    for act in (
        lambda: said_to(alice, first, "Go on there"),
        lambda: edited(alice, turn.message, "Something else"),
        lambda: edited(alice, first.parent_id or "", "Something else"),
        lambda: again(alice, first),
        lambda: gone_on(alice, first),
        lambda: gone_on(alice, turn.reply),
    ):
        with pytest.raises(turns.StillWriting):
            act()
    assert held(alice) == turn.reply.held_tokens


def test_the_same_turn_said_to_another_reply_is_another_turn() -> None:
    alice = people.alice()
    first = told(alice)
    second = again(alice, first)
    session = sessions.get(alice, first.session_id)
    start = partial(turns.start, user=alice, session=session, text="Once", model_slug=None, turn="once")
    turn = start(parent=first.pk)
    assert start(parent=first.pk).reply == turn.reply
    with pytest.raises(IdempotencyMismatch):
        start(parent=second.pk)


def test_a_quote_is_for_the_branch_that_a_message_goes_on_from() -> None:
    alice = people.alice()
    first = told(alice, "Short", script="sim-words-5")
    answered(said_to(alice, first, "A very long question " * 100))
    session = sessions.get(alice, first.session_id)
    quote = partial(
        turns.quote, user=alice, session=session, text="Halo", model_slug=simulated_model("sim-words-5")
    )
    assert quote(parent=first.pk).at_most < quote().at_most
    assert said_to(alice, first, "Halo").reply.held_tokens == quote(parent=first.pk).at_most


# What is shown


def test_the_newest_branch_is_shown_and_any_other_on_demand() -> None:
    alice = people.alice()
    first = told(alice)
    second = again(alice, first)
    on_first = answered(said_to(alice, first, "To the first"))
    session = sessions.get(alice, first.session_id)
    question = first.parent_id or ""
    end = [question, first.pk, on_first.parent_id, on_first.pk]
    assert shown(session) == end
    assert shown(session, at=first.pk) == shown(session, at=on_first.pk) == shown(session, at=question) == end
    assert shown(session, at=second.pk) == [question, second.pk]
    for at in (told(people.alice()).pk, ids.new("msg"), "msg_\x00", "nonsense"):
        with pytest.raises(NotFound):
            sessions.thread(session, at=at)


def test_a_long_branch_is_read_from_its_end_page_by_page() -> None:
    alice = people.alice()
    first = told(alice)
    second = again(alice, first)
    _much_is_said_to(first, 20)
    session = sessions.get(alice, first.session_id)
    assert shown(session, at=second.pk) == [first.parent_id, second.pk]
    read: list[str] = []
    thread = sessions.thread(session, at=first.pk, limit=6)
    while True:
        read = [message.pk for message in thread.messages] + read
        if thread.earlier is None:
            break
        thread = sessions.thread(session, at=first.pk, before=thread.earlier, limit=6)
    assert read == shown(session, at=first.pk)
    assert len(read) == 22
    assert sessions.end_of(session, at=second.pk) == second.pk
    assert sessions.end_of(session) == sessions.end_of(session, at=first.pk) == read[-1]


def test_pagers_count_what_stands_in_the_same_place() -> None:
    alice = people.alice()
    first = told(alice)
    second, third = again(alice, first), again(alice, first)
    other = edited(alice, first.parent_id or "", "Said otherwise")
    found = branches.pagers([first, second, third, other.message, other.reply])
    assert found[second.pk] == branches.Pager(2, 3, first.pk, third.pk)
    assert found[first.pk] == branches.Pager(1, 3, None, second.pk)
    assert found[other.message.pk] == branches.Pager(2, 2, first.parent_id, None)
    assert other.reply.pk not in found


def test_a_conversation_is_read_in_one_query_however_often_it_branches() -> None:
    alice = people.alice()
    reply = told(alice, rate=0)
    counts = []
    for _round in range(3):
        session = sessions.get(alice, reply.session_id)
        with statements() as sent:
            thread = sessions.thread(session, at=reply.pk)
            entries.of(thread.messages)
        counts.append(len(sent))
        for _other in range(4):
            _much_is_said_to(again(alice, reply), 60)
        reply = answered(said_to(alice, reply, "Further"))
    assert counts == [2, 2, 2]


def test_a_reply_that_is_written_on_another_branch_is_known() -> None:
    alice = people.alice()
    first = told(alice)
    turn = turns.retry(user=alice, reply_id=first.pk, turn=ids.new("trn"))
    session = sessions.get(alice, first.session_id)
    assert sessions.thread(session, at=first.pk).writing_elsewhere == turn.reply
    assert sessions.thread(session).writing_elsewhere is None
    assert sessions.thread(session).open_reply == turn.reply


# Said otherwise


def test_an_edited_message_stands_beside_the_old_one(simulator: Simulator) -> None:
    alice = people.alice()
    first = told(alice, "The beginning", script="sim-echo")
    old = answered(said_to(alice, first, "A question"))
    turn = edited(alice, old.parent_id or "", "A better question")
    assert turn.message.parent_id == first.pk
    assert answered(turn).content == "A better question"
    assert [content for _role, content in sent(simulator)] == [
        "The beginning",
        "The beginning",
        "A better question",
    ]
    assert fresh(old).parent is not None
    assert Message.objects.get(pk=old.parent_id).content == "A question"
    assert Session.objects.get(pk=first.session_id).message_count == 6


def test_the_first_message_can_be_said_otherwise_too(simulator: Simulator) -> None:
    alice = people.alice()
    first = told(alice, "The beginning", script="sim-echo")
    turn = edited(alice, first.parent_id or "", "Another beginning")
    assert turn.message.parent_id is None
    answered(turn)
    assert sent(simulator) == [("user", "Another beginning")]
    session = sessions.get(alice, first.session_id)
    assert shown(session) == [turn.message.pk, turn.reply.pk]
    assert session.title == "The beginning"


def test_only_ones_own_words_can_be_said_otherwise() -> None:
    alice = people.alice()
    reply = told(alice)
    for person, message in ((people.carol(), reply.parent_id), (alice, reply.pk), (alice, "nonsense")):
        with pytest.raises(NotFound):
            edited(person, message or "", "Something else")
    with pytest.raises(turns.EmptyText):
        edited(alice, reply.parent_id or "", "  ")


def test_the_same_edit_twice_is_one_message() -> None:
    alice = people.alice()
    reply = told(alice)
    edit = partial(turns.edit, user=alice, message_id=reply.parent_id or "", turn="once")
    turn = edit(text="Something else")
    assert edit(text="Something else").reply == turn.reply
    with pytest.raises(IdempotencyMismatch):
        edit(text="Something else again")
    assert Message.objects.filter(session=reply.session).count() == 4


def test_an_edit_costs_at_most_what_was_said_before() -> None:
    alice = people.alice()
    reply = told(alice)
    quote = turns.quote_of_edit(
        user=alice, message_id=reply.parent_id or "", text="Something else", model_slug=None
    )
    assert edited(alice, reply.parent_id or "", "Something else").reply.held_tokens == quote.at_most


# Answered again


def test_another_reply_by_any_model_costs_at_most_what_was_said_before() -> None:
    alice = people.alice()
    other = simulated_model("sim-words-7", rate=20)
    first = told(alice, script="sim-words-5", rate=100)
    answered(said_to(alice, first, "Much more is said after it " * 50))
    quotes = picker.others(first, catalogue.offers(), available=10_500)
    assert quotes[0].offer.model == first.model
    by = {quote.offer.model.slug: quote for quote in quotes}
    turn = turns.retry(user=alice, reply_id=first.pk, turn=ids.new("trn"), model_slug=other)
    assert turn.reply.held_tokens == by[other].at_most
    assert turn.reply.held_tokens < by[first.model.slug if first.model else ""].at_most


# Gone on with


def test_the_rest_of_a_reply_is_a_reply_of_its_own_that_is_charged_for_itself(simulator: Simulator) -> None:
    alice = people.alice()
    first = told(alice, "Count", script=LENGTH)
    assert (first.finish_reason, first.is_cut_off) == ("length", True)
    before = available(alice)
    turn = gone_on(alice, first)
    assert turn.reply.parent_id == first.pk
    assert turn.reply.held_tokens == held(alice) > 0
    rest = answered(turn)

    assert sent(simulator) == [("user", "Count"), ("assistant", first.content), prompts.GO_ON[:2]]
    assert fresh(first).tokens_used == first.tokens_used, "the first part costs what it cost"
    assert available(alice) == before - rest.tokens_used
    (call,) = calls_of(rest)
    assert (call.output_tokens, ending_of(rest)) == (5, "post")
    assert call.input_tokens > calls_of(first)[0].input_tokens, "it reads the text so far"
    assert rest.tokens_used == prompts.cost(
        rest, input_tokens=call.input_tokens, output_tokens=call.output_tokens
    )
    assert_books_are_right()


def test_models_are_told_what_goes_on_as_one_reply(simulator: Simulator) -> None:
    alice = people.alice()
    first = told(alice, "Count", script=LENGTH)
    second = answered(gone_on(alice, first))
    third = answered(gone_on(alice, second))
    whole = first.content + second.content + third.content
    assert sent(simulator)[:2] == [("user", "Count"), ("assistant", first.content + second.content)]
    answered(said_to(alice, third, "Thank you"))
    assert sent(simulator) == [("user", "Count"), ("assistant", whole), ("user", "Thank you")]
    thread = sessions.thread(sessions.get(alice, first.session_id), at=first.pk)
    _asked, entry, *_further = entries.of(thread.messages)
    assert (entry.text, entry.message) == (whole, third)
    assert [part.message for part in entry.earlier] == [first, second]
    assert branches.before_in_text(fresh(third)) == [first, second]


def test_the_rest_can_be_had_again() -> None:
    alice = people.alice()
    first = told(alice, script=LENGTH)
    rest = answered(gone_on(alice, first))
    other = again(alice, rest)
    assert other.parent_id == first.pk
    assert branches.pagers([rest])[rest.pk] == branches.Pager(1, 2, None, other.pk)


@pytest.mark.parametrize(
    ("script", "state", "is_cut_off"),
    [
        (LENGTH, "complete", True),
        ("sim-words-5", "complete", False),
        ("sim-cut-3", "failed", True),
        ("sim-error-503", "failed", False),
    ],
)
def test_only_a_text_without_its_end_is_gone_on_with(script: str, state: str, is_cut_off: bool) -> None:
    alice = people.alice()
    reply = told(alice, script=script)
    assert (reply.state, reply.is_cut_off) == (state, is_cut_off)
    offered = picker.tries(reply, catalogue.offers(), available=10_500).go_on
    assert (offered is not None) is is_cut_off
    if offered is not None:
        assert gone_on(alice, reply).reply.held_tokens == offered.at_most
    else:
        with pytest.raises(turns.NothingToGoOn):
            gone_on(alice, reply)


def test_a_stopped_or_interrupted_reply_with_text_is_gone_on_with() -> None:
    alice = people.alice()
    reply = told(alice)
    for state in ("stopped", "interrupted"):
        Message.objects.filter(pk=reply.pk).update(state=state, tokens_used=0)
        assert fresh(reply).is_cut_off
        Message.objects.filter(pk=reply.pk).update(error_kind="policy")
        assert not fresh(reply).is_cut_off, "its maker does not want it told"
        Message.objects.filter(pk=reply.pk).update(error_kind="")
    turn = gone_on(alice, reply)
    turns.stop(user=alice, reply_id=turn.reply.pk)
    assert not fresh(turn.reply).is_cut_off, "nothing was written"


def test_the_rest_of_a_reply_is_its_owners() -> None:
    reply = told(people.alice(), script=LENGTH)
    with pytest.raises(NotFound):
        gone_on(people.carol(), reply)


def test_a_reply_that_fills_its_context_is_not_gone_on_with_from_nothing() -> None:
    """A model that is asked to go on must have read what it goes on with."""
    alice = people.alice()
    small = special_model("small-context", script=LENGTH, context_tokens=700, max_output_tokens=512)
    turn = turns.start(user=alice, session=None, text="Count", model_slug=small.slug, turn=ids.new("trn"))
    Message.objects.filter(pk=turn.reply.pk).update(
        state="complete", content="word " * 400, finish_reason="length"
    )
    reply = fresh(turn.reply)
    assert picker.tries(reply, catalogue.offers(), available=10_500).go_on is None
    with pytest.raises(turns.TextTooLong):
        gone_on(alice, reply)


def test_a_continuation_that_wrote_nothing_can_be_tried_again(simulator: Simulator) -> None:
    alice = people.alice()
    first = told(alice, "Count", script=LENGTH)
    broken = simulated_model("sim-error-503")
    turn = turns.go_on(user=alice, reply_id=first.pk, turn=ids.new("trn"), model_slug=broken)
    failed = answered(turn)
    assert (failed.state, failed.tokens_used) == ("failed", 0)
    retried = turns.retry(
        user=alice, reply_id=failed.pk, turn=ids.new("trn"), model_slug=simulated_model("sim-words-5")
    )
    assert answered(retried).state == "complete"
    assert sent(simulator)[-1] == prompts.GO_ON[:2]
    answered(said_to(alice, failed, "Never mind"))
    assert sent(simulator) == [("user", "Count"), ("assistant", first.content), ("user", "Never mind")]


# At once


def test_two_clicks_are_one_reply_whatever_they_ask_for() -> None:
    alice = people.alice()
    reply = told(alice, script=LENGTH)
    question = reply.parent_id or ""
    for number, act in enumerate(
        (
            lambda turn: turns.retry(user=alice, reply_id=reply.pk, turn=turn),
            lambda turn: turns.go_on(user=alice, reply_id=reply.pk, turn=turn),
            lambda turn: turns.edit(user=alice, message_id=question, text="Otherwise", turn=turn),
        )
    ):
        before = Message.objects.filter(user=alice, role="assistant").count()
        turn = f"{ids.new('trn')[:-1]}{number}"
        outcomes = at_once([partial(act, turn)] * 8)
        assert failures(outcomes) == []
        assert len({made.reply.pk for made in successes(outcomes)}) == 1
        assert Message.objects.filter(user=alice, role="assistant").count() == before + 1
        replies.generate(successes(outcomes)[0].reply.pk)
    assert_books_are_right()


def test_of_all_that_is_asked_for_at_once_in_one_chat_one_is_begun() -> None:
    alice = people.alice()
    reply = told(alice, script=LENGTH)
    acts = [
        lambda: turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn")),
        lambda: turns.go_on(user=alice, reply_id=reply.pk, turn=ids.new("trn")),
        lambda: edited(alice, reply.parent_id or "", "Otherwise"),
        lambda: said_to(alice, reply, "Further"),
    ]
    outcomes = at_once(acts * 3)
    assert len(successes(outcomes)) == 1
    assert {type(error) for error in failures(outcomes)} == {turns.StillWriting}
    assert held(alice) == successes(outcomes)[0].reply.held_tokens
    assert_books_are_right()


# What it costs the database


def test_what_begins_a_branch_takes_no_more_statements_than_what_goes_on() -> None:
    alice = people.alice()
    first = told(alice, script=LENGTH)
    for act in (
        lambda: said_to(alice, first, "Further"),
        lambda: edited(alice, first.parent_id or "", "Otherwise"),
        lambda: turns.retry(user=alice, reply_id=first.pk, turn=ids.new("trn")),
        lambda: turns.go_on(user=alice, reply_id=first.pk, turn=ids.new("trn")),
    ):
        with statements() as sent:
            turn = act()
        assert len(sent) <= at_most(10), "\n".join(sent)
        turns.stop(user=alice, reply_id=turn.reply.pk)


def test_a_price_that_changed_since_it_was_shown_begins_no_branch() -> None:
    alice = people.alice()
    model = special_model(ids.new("dear").lower(), script=LENGTH)
    turn = turns.start(user=alice, session=None, text="Hi", model_slug=model.slug, turn=ids.new("trn"))
    reply, shown = answered(turn), model.terms
    ChatModel.objects.filter(pk=model.pk).update(input_rate=900, output_rate=900)
    for act in (turns.retry, turns.go_on):
        with pytest.raises(turns.PriceChanged):
            act(user=alice, reply_id=reply.pk, turn=ids.new("trn"), terms=shown)
    with pytest.raises(turns.PriceChanged):
        turns.edit(user=alice, message_id=turn.message.pk, text="Otherwise", turn=ids.new("trn"), terms=shown)
    assert ledger.balance_of(alice).held == 0
