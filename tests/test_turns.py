"""A message is admitted with everything that belongs to it, or not at all."""

import pytest
from django.db import connection
from django.test import Client
from django.utils import translation

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound
from billing import ledger
from billing.models import Account, Transfer
from chat import prompts, sessions, turns
from chat.catalogue import UnknownModel
from chat.models import ChatModel, Message, Session
from tests import people
from tests.product import session_cookie, simulated_model
from tests.stories_of_chat import (
    ask,
    assert_books_are_right,
    at_most,
    available,
    fresh,
    held,
    special_model,
    statements,
)

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]


# What is written


def test_a_turn_writes_the_message_the_reply_its_hold_and_the_chat() -> None:
    alice = people.alice()
    turn = ask(alice, "Which islands\nshould I see?", rate=100)
    session = Session.objects.get(pk=turn.session.pk)
    assert (session.user, session.title, session.message_count) == (alice, "Which islands", 2)
    message, reply = Message.objects.filter(session=session).order_by("id")
    assert (message.role, message.content, message.state) == ("user", "Which islands\nshould I see?", None)
    assert (reply.role, reply.state, reply.parent, reply.turn) == (
        "assistant",
        "queued",
        message,
        turn.reply.turn,
    )
    assert (reply.input_rate, reply.output_rate, reply.max_output_tokens) == (100, 100, 2048)
    hold = Transfer.objects.get(pk=reply.hold_id)
    assert (hold.phase, hold.reference, hold.amount) == ("pending", reply.pk, reply.held_tokens)
    assert (available(alice), held(alice)) == (10_500 - reply.held_tokens, reply.held_tokens)


def test_a_hold_is_for_the_longest_reply_at_the_rates_of_the_model() -> None:
    alice = people.alice()
    cheap, dear = ask(alice, rate=20), ask(alice, rate=200)
    longest = cheap.reply.max_output_tokens
    assert cheap.reply.held_tokens == -(-20 * (longest + _reserved(cheap)) // 1000)
    assert dear.reply.held_tokens == -(-200 * (longest + _reserved(dear)) // 1000)


def _reserved(turn: turns.Turn) -> int:
    """The LLM tokens of input that a turn reserved for."""
    assert turn.reply.model is not None
    return prompts.draft(turn.reply.model, [prompts.Spoken("user", turn.message.content)]).at_most


def test_a_free_model_holds_nothing_and_asks_nobody_for_money() -> None:
    carol = people.carol()
    reply = ask(carol, rate=0).reply
    assert (reply.hold_id, reply.held_tokens, reply.state) == ("", 0, "queued")
    assert not Transfer.objects.filter(reference=reply.pk).exists()


def test_who_chooses_nothing_gets_the_free_tier() -> None:
    turn = turns.start(user=people.carol(), session=None, text="Halo", model_slug=None, turn=ids.new("trn"))
    assert turn.reply.model is not None
    assert turn.reply.model.slug == "llama-3.3-70b"
    assert turn.session.model is None


def test_a_chat_goes_on_with_its_model_until_another_one_is_chosen() -> None:
    alice = people.alice()
    first = ask(alice, script="sim-words-3")
    answered_first = Message.objects.filter(pk=first.reply.pk)
    answered_first.update(state="complete", content="Yes.")
    session = sessions.get(alice, first.session.pk)
    same = turns.start(user=alice, session=session, text="And then?", model_slug=None, turn=ids.new("trn"))
    assert same.reply.model == first.reply.model
    Message.objects.filter(pk=same.reply.pk).update(state="complete", content="Then no.")
    other = simulated_model("sim-words-4")
    turns.start(user=alice, session=session, text="Really?", model_slug=other, turn=ids.new("trn"))
    chosen = sessions.get(alice, session.pk).model
    assert chosen is not None
    assert chosen.slug == other


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Halo", "Halo"),
        ("  ## A heading\nand more", "A heading"),
        ("one " * 40, "one one one one one one one one one one one one one one one…"),
        ("ä" * 100, "ä" * 60 + "…"),
        ("###", "###"),
    ],
)
def test_a_chat_is_named_after_the_first_words(text: str, title: str) -> None:
    assert ask(people.carol(), text, rate=0).session.title == title


# What is refused, and that nothing is written then


def test_bob_is_refused_in_the_words_that_were_promised() -> None:
    bob = people.bob()
    with pytest.raises(ledger.Insufficient) as refused:
        _ask_for_200_tokens(bob)
    assert (refused.value.code, refused.value.status) == ("INSUFFICIENT_TOKENS", 402)
    assert refused.value.data == {"currentBalance": 50, "estimatedCost": 200}
    with translation.override("id"):
        with pytest.raises(ledger.Insufficient) as refused:
            _ask_for_200_tokens(bob)
        assert str(refused.value.message) == "Token tidak mencukupi. Saldo: 50, Dibutuhkan: ~200"
    with translation.override("en"):
        with pytest.raises(ledger.Insufficient) as refused:
            _ask_for_200_tokens(bob)
        assert str(refused.value.message) == "Not enough tokens. Balance: 50, needed: ~200"
    _assert_nothing_was_written(bob, tokens=50)


def _ask_for_200_tokens(person: User) -> None:
    """A model that takes 64 tokens of output for so much that the message costs exactly 200 Aleph tokens."""
    slug = "costs-200"
    if not ChatModel.objects.filter(slug=slug).exists():
        model = special_model(slug, input_rate=1000, max_output_tokens=64)
        reserved = prompts.draft(model, [prompts.Spoken("user", "Halo")]).at_most
        ChatModel.objects.filter(slug=slug).update(output_rate=(200 - reserved) * 1000 // 64)
    turns.start(user=person, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))


def _assert_nothing_was_written(person: User, *, tokens: int) -> None:
    assert not Session.objects.filter(user=person).exists()
    assert not Message.objects.filter(user=person).exists()
    account = Account.objects.get(user=person, name=ledger.TOKENS)
    assert (account.balance, account.held) == (tokens, 0)
    assert not Transfer.objects.filter(debit=account).exists()


@pytest.mark.parametrize("text", ["", "   \n\t ", "\x00", " \x00 "])
def test_nothing_said_is_nothing_sent(text: str) -> None:
    alice = people.alice()
    with pytest.raises(turns.EmptyText):
        ask(alice, text)
    _assert_nothing_was_written(alice, tokens=10_500)


def test_a_zero_byte_does_not_get_into_a_message() -> None:
    assert ask(people.carol(), "ha\x00lo\x00", rate=0).message.content == "halo"


def test_a_text_that_is_too_long_for_anything_is_refused() -> None:
    alice = people.alice()
    with pytest.raises(turns.TextTooLong):
        ask(alice, "a" * (turns.MAX_TEXT + 1))
    _assert_nothing_was_written(alice, tokens=10_500)


def test_a_text_that_is_too_long_for_the_model_is_refused() -> None:
    alice = people.alice()
    with pytest.raises(turns.TextTooLong):
        ask(alice, "some words " * 4_000)
    _assert_nothing_was_written(alice, tokens=10_500)


@pytest.mark.parametrize("slug", ["nobody-knows-it", "with\x00zero", "x" * 5_000, "🦆"])
def test_an_unknown_model_is_refused(slug: str) -> None:
    alice = people.alice()
    with pytest.raises(UnknownModel):
        turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
    _assert_nothing_was_written(alice, tokens=10_500)


def test_a_retired_model_is_not_offered_any_more() -> None:
    special_model("retired", is_offered=False)
    with pytest.raises(UnknownModel):
        turns.start(user=people.alice(), session=None, text="Hi", model_slug="retired", turn=ids.new("trn"))


def test_a_model_without_a_key_is_refused_in_the_words_that_were_promised() -> None:
    alice = people.alice()
    with pytest.raises(turns.ModelUnavailable) as refused:
        turns.start(user=alice, session=None, text="Halo", model_slug="deepseek-chat", turn=ids.new("trn"))
    assert (refused.value.code, refused.value.status) == ("AI_SERVICE_UNAVAILABLE", 503)
    assert "DEEPSEEK_API_KEY" in refused.value.data["reason"]
    with translation.override("id"):
        assert str(refused.value.message) == "Layanan AI sedang tidak tersedia. Coba lagi nanti."
    _assert_nothing_was_written(alice, tokens=10_500)


@pytest.mark.parametrize("turn", ["", "x" * 65, "with\x00zero"])
def test_a_turn_without_a_usable_id_is_refused(turn: str) -> None:
    with pytest.raises(InvalidRequest):
        turns.start(
            user=people.alice(), session=None, text="Halo", model_slug=simulated_model("sim-echo"), turn=turn
        )


def test_a_frozen_account_pays_for_nothing() -> None:
    alice = people.alice()
    Account.objects.filter(user=alice, name=ledger.TOKENS).update(frozen_at="2026-11-22T00:00Z")
    with pytest.raises(ledger.Frozen):
        ask(alice)
    assert not Message.objects.filter(user=alice).exists()


def test_a_chat_of_somebody_else_is_as_good_as_none() -> None:
    turn = ask(people.alice())
    carol = people.carol()
    with pytest.raises(NotFound):
        sessions.get(carol, turn.session.pk)
    with pytest.raises(NotFound):
        sessions.reply(carol, turn.reply.pk)
    for act in (turns.stop, lambda **given: turns.retry(turn=ids.new("trn"), **given)):
        with pytest.raises(NotFound):
            act(user=carol, reply_id=turn.reply.pk)
    assert fresh(turn.reply).stop_requested_at is None


@pytest.mark.parametrize(
    "wrong", ["", "cht_", "cht_\x00", "msg_01K2H8M3ZZZZZZZZZZZZZZZZZZ", "cht_" + "0" * 5_000]
)
def test_an_id_that_is_none_finds_nothing(wrong: str) -> None:
    carol = people.carol()
    with pytest.raises(NotFound):
        sessions.get(carol, wrong)
    with pytest.raises(NotFound):
        sessions.reply(carol, wrong)


def test_a_chat_that_was_deleted_meanwhile_takes_no_message() -> None:
    alice = people.alice()
    turn = ask(alice)
    stale = sessions.get(alice, turn.session.pk)
    sessions.delete(sessions.get(alice, turn.session.pk))
    before = available(alice)
    with pytest.raises(NotFound):
        ask(alice, session=stale)
    assert (available(alice), held(alice)) == (before, 0)
    with pytest.raises(NotFound):
        sessions.rename(stale, "Too late")


# What the balance can pay for


def test_a_balance_below_the_worst_case_shortens_the_reply_instead_of_refusing_it() -> None:
    bob = people.bob()
    turn = ask(bob, "Halo", script="sim-words-900", rate=100)
    reply = turn.reply
    assert reply.is_limited_by_balance
    assert reply.held_tokens == 50
    assert turns.USEFUL_OUTPUT <= reply.max_output_tokens < 500
    worst = prompts.cost(reply, input_tokens=_reserved(turn), output_tokens=reply.max_output_tokens)
    assert worst <= 50


def test_below_a_useful_reply_a_message_is_refused_and_at_it_admitted() -> None:
    slug = simulated_model("sim-echo", rate=150)
    quote = turns.quote(user=people.carol(), session=None, text="Halo", model_slug=slug)
    assert (quote.available, quote.is_enough, quote.is_free) == (0, False, False)
    poor, just = people.carol(), people.carol()
    people.give_tokens(poor, quote.minimum - 1)
    people.give_tokens(just, quote.minimum)
    with pytest.raises(ledger.Insufficient):
        turns.start(user=poor, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
    reply = turns.start(user=just, session=None, text="Halo", model_slug=slug, turn=ids.new("trn")).reply
    assert (reply.held_tokens, available(just)) == (quote.minimum, 0)
    assert reply.max_output_tokens >= turns.USEFUL_OUTPUT


def test_a_quote_is_what_the_hold_will_be() -> None:
    alice = people.alice()
    slug = simulated_model("sim-echo", rate=150)
    quote = turns.quote(user=alice, session=None, text="How much?", model_slug=slug)
    turn = turns.start(user=alice, session=None, text="How much?", model_slug=slug, turn=ids.new("trn"))
    assert (quote.is_enough, quote.at_most) == (True, turn.reply.held_tokens)


# Once


def test_the_same_turn_twice_is_one_turn() -> None:
    alice = people.alice()
    turn = ids.new("trn")
    first = ask(alice, turn=turn)
    again = ask(alice, turn=turn)
    assert (again.reply.pk, again.message.pk, again.session.pk) == (
        first.reply.pk,
        first.message.pk,
        first.session.pk,
    )
    assert held(alice) == first.reply.held_tokens
    assert Message.objects.filter(user=alice).count() == 2


def test_the_same_turn_after_its_reply_was_closed_is_still_one_turn() -> None:
    alice = people.alice()
    first = ask(alice, turn="once", rate=100)
    turns.stop(user=alice, reply_id=first.reply.pk)
    again = ask(alice, turn="once", session=sessions.get(alice, first.session.pk))
    assert (again.reply.pk, again.reply.state) == (first.reply.pk, "stopped")
    assert Session.objects.filter(user=alice).count() == 1
    assert (available(alice), held(alice)) == (10_500, 0)


def test_a_turn_that_could_not_be_paid_for_again_is_given_again() -> None:
    bob = people.bob()
    first = ask(bob, "Halo", turn="all-i-have")
    assert available(bob) == 0
    assert ask(bob, "Halo", turn="all-i-have").reply.pk == first.reply.pk


def test_the_same_turn_with_other_words_is_a_mismatch() -> None:
    alice = people.alice()
    first = ask(alice, "Halo", turn="once")
    with pytest.raises(IdempotencyMismatch):
        ask(alice, "Something else", turn="once")
    other = sessions.create(user=alice)
    with pytest.raises(IdempotencyMismatch):
        ask(alice, "Halo", turn="once", session=other)
    assert Message.objects.filter(user=alice).count() == 2
    assert held(alice) == first.reply.held_tokens


def test_two_people_may_have_the_same_turn_id() -> None:
    first, second = ask(people.alice(), turn="once"), ask(people.alice(), turn="once")
    assert first.reply.pk != second.reply.pk


def test_while_a_reply_is_open_nothing_more_is_taken() -> None:
    alice = people.alice()
    turn = ask(alice)
    with pytest.raises(turns.StillWriting) as refused:
        ask(alice, "And?", session=sessions.get(alice, turn.session.pk))
    assert (refused.value.code, refused.value.status) == ("CONFLICT", 409)
    with pytest.raises(turns.StillWriting):
        turns.retry(user=alice, reply_id=turn.reply.pk, turn=ids.new("trn"))
    assert held(alice) == turn.reply.held_tokens


# Retry


def test_a_retry_is_another_branch_and_keeps_the_first() -> None:
    alice = people.alice()
    first = ask(alice, rate=100)
    Message.objects.filter(pk=first.reply.pk).update(state="complete", content="An old answer.")
    again = turns.retry(user=alice, reply_id=first.reply.pk, turn=ids.new("trn"))
    assert again.reply.parent_id == first.message.pk
    assert fresh(first.reply).content == "An old answer."
    thread = sessions.thread(sessions.get(alice, first.session.pk))
    assert [message.pk for message in thread.messages] == [first.message.pk, again.reply.pk]
    assert thread.open_reply == again.reply


def test_a_retry_may_choose_another_model() -> None:
    alice = people.alice()
    first = ask(alice, rate=100)
    turns.stop(user=alice, reply_id=first.reply.pk)
    other = simulated_model("sim-words-7", rate=20)
    again = turns.retry(user=alice, reply_id=first.reply.pk, turn=ids.new("trn"), model_slug=other)
    assert (again.reply.output_rate, again.reply.model and again.reply.model.slug) == (20, other)


def test_the_same_retry_twice_is_one_reply() -> None:
    alice = people.alice()
    first = ask(alice)
    turns.stop(user=alice, reply_id=first.reply.pk)
    one = turns.retry(user=alice, reply_id=first.reply.pk, turn="again")
    two = turns.retry(user=alice, reply_id=first.reply.pk, turn="again")
    assert one.reply.pk == two.reply.pk


def test_another_reply_to_an_old_message_is_told_what_was_said_then() -> None:
    alice = people.alice()
    session = sessions.create(user=alice, model=ChatModel.objects.get(slug=simulated_model("sim-echo")))
    first = ask(alice, "The very first question", script="sim-echo", session=session)
    Message.objects.filter(pk=first.reply.pk).update(state="complete", content="The first answer.")
    _many_more_messages(first, prompts.HISTORY + 10)
    again = turns.retry(user=alice, reply_id=first.reply.pk, turn=ids.new("trn"))
    said = prompts.Conversation(session.pk, tip=again.reply.parent_id).asking(again.reply.parent_id)
    assert said == [prompts.Spoken("user", "The very first question")]
    assert again.reply.estimated_input_tokens == first.reply.estimated_input_tokens


def _many_more_messages(turn: turns.Turn, number: int) -> None:
    parent = turn.reply.pk
    rows = []
    for place in range(number):
        row = Message(
            id=ids.new("msg"), session=turn.session, user=turn.reply.user, parent_id=parent, role="user"
        )
        if place % 2:
            row.role, row.state, row.turn, row.model = (
                "assistant",
                "complete",
                ids.new("trn"),
                turn.reply.model,
            )
        row.content, parent = f"message {place}", row.pk
        rows.append(row)
    ordered = sorted(row.pk for row in rows)
    for row, pk, before in zip(rows, ordered, [turn.reply.pk, *ordered], strict=False):
        row.pk, row.parent_id = pk, before
    Message.objects.bulk_create(rows)


# Reading a chat


def test_a_long_chat_is_read_from_its_end_page_by_page() -> None:
    alice = people.alice()
    first = ask(alice)
    Message.objects.filter(pk=first.reply.pk).update(state="complete", content="The first answer.")
    _many_more_messages(first, 20)
    session = sessions.get(alice, first.session.pk)
    read: list[str] = []
    thread = sessions.thread(session, limit=6)
    while True:
        read = [message.pk for message in thread.messages] + read
        if thread.earlier is None:
            break
        thread = sessions.thread(session, before=thread.earlier, limit=6)
    assert read == list(Message.objects.filter(session=session).order_by("id").values_list("pk", flat=True))


def test_many_retries_do_not_hide_what_was_said_before_them() -> None:
    alice = people.alice()
    turn = ask(alice, rate=0)
    for _again in range(7):
        Message.objects.filter(pk=turn.reply.pk).update(state="complete", content="No.")
        turn = turns.retry(user=alice, reply_id=turn.reply.pk, turn=ids.new("trn"))
    session = sessions.get(alice, turn.session.pk)
    last = sessions.thread(session, limit=1)
    assert [message.pk for message in last.messages] == [turn.reply.pk]
    assert last.earlier is not None
    earlier = sessions.thread(session, before=last.earlier, limit=1)
    assert [message.pk for message in earlier.messages] == [turn.message.pk]
    assert earlier.earlier is None


def test_the_page_of_a_thread_before_a_foreign_message_does_not_exist() -> None:
    alice = people.alice()
    own, foreign = ask(alice), ask(people.alice())
    for before in (foreign.message.pk, ids.new("msg"), "msg_\x00", "nonsense"):
        with pytest.raises(NotFound):
            sessions.thread(own.session, before=before)


# Deleting


def test_deleting_a_chat_with_a_waiting_reply_leaves_no_hold() -> None:
    alice = people.alice()
    turn = ask(alice)
    sessions.delete(sessions.get(alice, turn.session.pk))
    assert not Message.objects.filter(session_id=turn.session.pk).exists()
    assert (available(alice), held(alice)) == (10_500, 0)
    assert_books_are_right()


def test_a_stop_finds_nothing_any_more_where_its_chat_is_deleted_at_that_moment() -> None:
    alice = people.alice()
    turn = ask(alice)

    def delete_first(execute, sql, params, many, context):  # type: ignore[no-untyped-def]
        if sql.startswith("UPDATE") and "stop_requested_at" in sql and fresh_or_none(turn):
            sessions.delete(sessions.get(alice, turn.session.pk))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(delete_first), pytest.raises(NotFound):
        turns.stop(user=alice, reply_id=turn.reply.pk)
    assert (available(alice), held(alice)) == (10_500, 0)


def fresh_or_none(turn: turns.Turn) -> Message | None:
    return Message.objects.filter(pk=turn.reply.pk, stop_requested_at=None, state="queued").first()


# What it costs the database


def test_a_turn_takes_at_most_ten_statements_sign_in_included(client: Client) -> None:
    alice = people.alice()
    client.cookies["sessionid"] = session_cookie(alice)
    slug = simulated_model("sim-echo")
    with statements() as sent:
        response = client.post("/chat/turns", {"text": "Halo", "model": slug, "turn": ids.new("trn")})
    assert response.status_code == 303
    assert Message.objects.filter(user=alice).count() == 2
    assert len(sent) <= at_most(10), "\n".join(sent)


def test_a_further_turn_takes_at_most_ten_statements_sign_in_included(client: Client) -> None:
    alice = people.alice()
    first = ask(alice)
    turns.stop(user=alice, reply_id=first.reply.pk)
    client.cookies["sessionid"] = session_cookie(alice)
    with statements() as sent:
        response = client.post(
            f"/chat/{first.session.pk}/turns", {"text": "And then?", "turn": ids.new("trn")}
        )
    assert response.status_code == 303
    assert Message.objects.filter(user=alice).count() == 4
    assert len(sent) <= at_most(10), "\n".join(sent)


def test_a_price_that_changed_since_it_was_shown_sends_nothing() -> None:
    alice = people.alice()
    model = ChatModel.objects.get(slug=simulated_model("sim-echo", rate=100))
    shown = model.terms
    ChatModel.objects.filter(pk=model.pk).update(input_rate=900, output_rate=900)

    with pytest.raises(turns.PriceChanged):
        turns.start(user=alice, session=None, text="Hello", model_slug=model.slug, turn="t", terms=shown)

    assert ledger.balance_of(alice).held == 0
    assert not Message.objects.filter(user=alice).exists()


def test_a_retry_with_a_used_turn_for_another_reply_is_refused() -> None:
    alice = people.alice()
    first, second = (
        turns.start(user=alice, session=None, text=text, model_slug="aleph-demo", turn=text).reply
        for text in ("One", "Two")
    )
    for reply in (first, second):
        turns.stop(user=alice, reply_id=reply.pk)
    turns.retry(user=alice, reply_id=first.pk, turn="again")

    with pytest.raises(IdempotencyMismatch):
        turns.retry(user=alice, reply_id=second.pk, turn="again")
