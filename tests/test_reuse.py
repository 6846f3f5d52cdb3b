"""The same question at temperature 0 is answered from what the model said before, at no cost: to whoever asked for that, from
his own answers, and never otherwise."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone
from playwright.sync_api import expect

from aleph import ids, personal, reconcile
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch
from billing import ledger
from billing.models import Transfer
from chaos.invariants import INVARIANTS, Known, Look
from chaos.memory import Memory
from chat import receipts, reuse, sessions, turns
from chat.models import Attachment, ChatModel, Message, Session
from tests import people
from tests.browser import Browser
from tests.images import picture
from tests.product import simulated_model
from tests.simulator import Simulator
from tests.stories_of_chat import (
    answered,
    assert_books_are_right,
    available,
    bells_for,
    calls_of,
    fresh,
    held,
    special_model,
    statements,
)
from tests.stories_of_images import draft_of, seeing_model
from tests.test_chat_in_the_browser import choose
from usage.models import TokenUsage

pytestmark = pytest.mark.usefixtures("committed", "simulator")

QUESTION = "What is the capital of Indonesia?"
EXACT = Decimal(0)


def who_reuses(person: User) -> User:
    User.objects.filter(pk=person.pk).update(reuses_replies=True)
    person.refresh_from_db()
    return person


@pytest.fixture
def alice(committed: None) -> User:
    return who_reuses(people.alice())


def asked(person: User, text: str = QUESTION, *, rate: int = 100, **how: Any) -> turns.Turn:
    slug = how.pop("model_slug", None) or simulated_model(how.pop("script", "sim-words-5"), rate=rate)
    how = {"session": None, "turn": ids.new("trn"), "temperature": EXACT} | how
    return turns.start(user=person, text=text, model_slug=slug, **how)


def told(person: User, text: str = QUESTION, **how: Any) -> Message:
    """What `person` is told; a worker writes it where it was not told before."""
    turn = asked(person, text, **how)
    return answered(turn) if turn.reply.is_open else fresh(turn.reply)


def differences(*replies: Message) -> set[str]:
    """What `check_usage` finds of these replies and their calls."""
    subjects = {row.pk for reply in replies for row in (reply, *calls_of(reply))}
    found = reconcile.Reconciliation().differences()
    return {difference.rule for difference in found if difference.subject in subjects}


def broken(*replies: Message) -> set[str]:
    """What the invariants of `make chaos` find of these replies."""
    with connection.cursor() as cursor:

        def ask(sql: str) -> list[tuple[Any, ...]]:
            cursor.execute(sql)
            return cursor.fetchall()

        look = Look(ask, connection.vendor == "postgresql", Memory(), Known())
        ids = {reply.pk for reply in replies}
        return {
            rule
            for rule in ("I4", "I5", "I10", "I12")
            for row in INVARIANTS[rule](look) or ()
            if row[0] in ids
        }


@contextmanager
def rolled_back() -> Iterator[None]:
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


# What it is


def test_the_same_question_is_answered_from_before_and_costs_nothing(
    alice: User, simulator: Simulator
) -> None:
    first = told(alice)
    left, calls = available(alice), len(simulator.requests)
    again = asked(alice).reply
    assert (again.state, again.content, again.finish_reason) == ("complete", first.content, "stop")
    assert (again.reused_from, again.tokens_used, again.held_tokens, again.hold_id) == (first.pk, 0, 0, "")
    assert (again.answered_by, again.provider) == (first.answered_by, first.provider)
    assert first.tokens_used > 0
    assert (available(alice), held(alice)) == (left, 0)
    assert len(simulator.requests) == calls
    assert bells_for(again) == 0
    assert not Transfer.objects.filter(reference=again.pk).exists()


def test_its_usage_row_says_so_and_counts_nothing(alice: User) -> None:
    first = told(alice)
    (call,) = calls_of(told(alice))
    assert (call.source, call.status, call.metadata["reused_from"]) == ("reused", "complete", first.pk)
    assert (call.input_tokens, call.output_tokens, call.charged_tokens, call.transfer_id) == (0, 0, 0, "")
    assert not call.total_cost_usd
    assert not call.is_estimated


def test_the_books_the_log_and_the_invariants_agree(alice: User) -> None:
    replies = [told(alice), told(alice)]
    assert_books_are_right()
    assert differences(*replies) == broken(*replies) == set()


def test_who_has_no_tokens_left_is_answered_all_the_same() -> None:
    bob = who_reuses(people.bob())
    slug = special_model(ids.new("mod").lower(), input_rate=10, output_rate=10, max_output_tokens=64).slug
    first = told(bob, model_slug=slug)
    with transaction.atomic():
        ledger.hold(user=bob, amount=available(bob), minimum=1, reference="x", key=ids.new("key"))
    assert available(bob) == 0
    assert told(bob, model_slug=slug).reused_from == first.pk


def test_it_takes_its_place_in_the_chat_as_any_reply(alice: User) -> None:
    first = told(alice)
    turn = asked(alice)
    session = sessions.get(alice, turn.session.pk)
    assert (session.message_count, session.total_tokens_used, session.title) == (2, 0, QUESTION)
    assert [message.pk for message in sessions.thread(session).messages] == [turn.message.pk, turn.reply.pk]
    other = told(alice, "And of Malaysia?", session=session)
    assert (other.reused_from, other.parent and other.parent.parent_id) == ("", turn.reply.pk)
    # The same words before, the same words after: nobody minds which chat they stand in.
    beside = sessions.get(alice, first.session_id)
    assert told(alice, "And of Malaysia?", session=beside).reused_from == other.pk


def test_a_turn_is_one_turn_however_often_it_is_sent(alice: User) -> None:
    told(alice)
    once = asked(alice, turn="a-turn")
    assert asked(alice, turn="a-turn").reply.pk == once.reply.pk
    assert len(calls_of(once.reply)) == 1
    with pytest.raises(IdempotencyMismatch):
        asked(alice, "Something else", turn="a-turn")
    with pytest.raises(IdempotencyMismatch):
        asked(alice, turn="a-turn", temperature=Decimal(1))


def test_an_edit_to_words_that_were_asked_before_is_answered_from_before(alice: User) -> None:
    first = told(alice)
    other = told(alice, "What is the capital of Japan?")
    edited = turns.edit(
        user=alice,
        message_id=str(other.parent_id),
        text=QUESTION,
        turn=ids.new("trn"),
        temperature=EXACT,
    )
    assert edited.reply.reused_from == first.pk


# When it is not


@pytest.mark.parametrize(
    "otherwise",
    [
        {"text": "What is the capital of Indonesia"},
        {"temperature": Decimal("0.1")},
        {"temperature": None},
        {"script": "sim-words-4"},
        {"may_reuse": False},
    ],
    ids=str,
)
def test_what_differs_is_asked_for(alice: User, otherwise: dict[str, Any]) -> None:
    told(alice)
    assert asked(alice, **otherwise).reply.state == "queued"


def test_nobody_is_given_the_answer_of_somebody_else(alice: User) -> None:
    told(alice)
    carol = who_reuses(people.carol())
    assert asked(carol, rate=0).reply.state == "queued"
    assert told(alice, rate=0).reused_from == ""
    dewi = who_reuses(people.alice())
    assert asked(dewi).reply.state == "queued"


def test_nothing_is_reused_or_noted_for_who_did_not_ask_for_it() -> None:
    alice = people.alice()
    first = told(alice)
    assert first.request_hash is None
    assert asked(alice).reply.state == "queued"


def test_what_comes_before_belongs_to_the_question(alice: User) -> None:
    first = told(alice)
    session = sessions.get(alice, first.session_id)
    assert asked(alice, session=session).reply.state == "queued"


@pytest.mark.parametrize("script", ["sim-words-3-length", "sim-error-500"])
def test_only_whole_answers_are_used_again(alice: User, script: str) -> None:
    told(alice, script=script)
    assert asked(alice, script=script).reply.state == "queued"


def test_an_answer_that_was_stopped_or_is_still_written_is_not_used(alice: User) -> None:
    writing = asked(alice).reply
    assert asked(alice).reply.state == "queued"
    turns.stop(user=alice, reply_id=writing.pk)
    assert asked(alice).reply.state == "queued"


def test_a_deleted_answer_is_gone(alice: User) -> None:
    first = told(alice)
    sessions.delete(sessions.get(alice, first.session_id))
    assert asked(alice).reply.state == "queued"


def test_an_old_answer_is_asked_for_anew_and_reuse_keeps_nothing_young(alice: User) -> None:
    first = told(alice)
    Message.objects.filter(pk=first.pk).update(created_at=timezone.now() - reuse.KEPT + timedelta(minutes=5))
    assert told(alice).reused_from == first.pk
    Message.objects.filter(pk=first.pk).update(created_at=timezone.now() - reuse.KEPT)
    assert asked(alice).reply.state == "queued"


def test_asking_again_always_asks_and_the_new_answer_is_the_one_from_then_on(
    alice: User, simulator: Simulator
) -> None:
    told(alice)
    reused = told(alice)
    calls = len(simulator.requests)
    again = answered(turns.retry(user=alice, reply_id=reused.pk, turn=ids.new("trn")))
    assert (again.reused_from, again.temperature, len(simulator.requests)) == ("", EXACT, calls + 1)
    assert again.tokens_used > 0
    assert told(alice).reused_from == again.pk


def test_a_model_without_a_temperature_is_always_asked(alice: User) -> None:
    slug = special_model(ids.new("mod").lower(), takes_temperature=False).slug
    for _ in range(2):
        reply = asked(alice, model_slug=slug, keeps_temperature=True).reply
        assert (reply.state, reply.temperature, reply.request_hash) == ("queued", None, None)
        turns.stop(user=alice, reply_id=reply.pk)


def test_no_more_is_shown_than_agreed_to_where_the_answer_is_gone_by_then(alice: User) -> None:
    first = told(alice)
    slug = first.model.slug if first.model else ""
    quote = turns.quote(user=alice, session=None, text=QUESTION, model_slug=slug, temperature=EXACT)
    assert (quote.is_reused, quote.at_most, quote.is_enough) == (True, 0, True)
    assert asked(alice, terms=quote.terms).reply.reused_from == first.pk
    sessions.delete(sessions.get(alice, first.session_id))
    with pytest.raises(turns.CostsMore):
        asked(alice, terms=quote.terms)
    assert held(alice) == 0


# Images


def test_an_image_is_known_again_by_what_it_shows(alice: User) -> None:
    slug = seeing_model()
    first = told(alice, "What is this?", model_slug=slug, attachments=[draft_of(alice).pk])
    again = told(alice, "What is this?", model_slug=slug, attachments=[draft_of(alice).pk])
    assert again.reused_from == first.pk
    other = asked(
        alice, "What is this?", model_slug=slug, attachments=[draft_of(alice, picture(colour="blue")).pk]
    )
    assert other.reply.state == "queued"


# What is kept


def test_what_was_asked_cannot_be_told_from_what_is_kept(alice: User, settings: Any) -> None:
    kept = told(alice).request_hash
    model = ChatModel.objects.get(slug=simulated_model("sim-words-5"))
    draft = turns.quote(user=alice, session=None, text=QUESTION, model_slug=model.slug).draft
    assert kept == reuse.request_hash(alice, model, draft, EXACT)
    settings.SECRET_KEY = "another"
    assert kept != reuse.request_hash(alice, model, draft, EXACT)


def test_it_works_while_messages_are_sealed(alice: User, settings: Any) -> None:
    settings.ENCRYPT_MESSAGES = True
    first = told(alice)
    again = told(alice)
    assert (again.reused_from, again.content) == (first.pk, first.content)


def test_a_copy_of_what_is_kept_names_the_earlier_answer_and_no_hash(alice: User) -> None:
    told(alice)
    again = told(alice)
    (table,) = [kept for kept in personal.tables() if kept.model is Message]
    (row,) = [row for row in table.rows(alice) if row["id"] == again.pk]
    assert row["reused_from"] == again.reused_from
    assert "request_hash" not in row
    (images,) = [kept for kept in personal.tables() if kept.model is Attachment]
    assert "hash" not in {column.name for column in images.columns}


def test_a_reused_reply_cannot_be_charged_for(alice: User) -> None:
    told(alice)
    again = told(alice)
    for wrong in ({"tokens_used": 1, "held_tokens": 1}, {"hold_id": "x"}, {"state": "failed"}):
        with pytest.raises(IntegrityError), transaction.atomic():
            Message.objects.filter(pk=again.pk).update(**wrong)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"source": "estimated"}, "a reused reply says so in its usage row"),
        ({"charged_tokens": 3}, "a reused reply costs nothing"),
    ],
)
def test_check_usage_and_chaos_see_a_reuse_that_is_none(
    alice: User, changes: dict[str, Any], rule: str
) -> None:
    told(alice)
    again = told(alice)
    with rolled_back():
        TokenUsage.objects.filter(operation_id=again.pk).update(**changes)
        assert (differences(again), broken(again)) == ({rule}, {"I5"})


def test_a_paid_reply_whose_row_claims_a_reuse_is_seen(alice: User) -> None:
    reply = told(alice)
    with rolled_back():
        TokenUsage.objects.filter(operation_id=reply.pk).update(source="reused")
        assert "a reused reply says so in its usage row" in differences(reply)
        assert broken(reply) == {"I5"}


def test_at_another_temperature_nobody_pays_for_it_with_a_statement(alice: User) -> None:
    slug, other = simulated_model("sim-words-5"), people.alice()
    asked(other, model_slug=slug)
    with statements() as sent:
        asked(other, model_slug=slug, temperature=None)
    with statements() as sent_by_who_reuses:
        asked(alice, model_slug=slug, temperature=None)
    assert len(sent_by_who_reuses) == len(sent), "\n".join(sent_by_who_reuses)


# What people see


def page_of(person: User, place: str) -> str:
    client = Client(headers={"accept-language": "en"})
    client.force_login(person)
    return client.get(place).content.decode()


def test_the_page_says_reused_and_leads_to_the_earlier_answer_and_to_asking_again(alice: User) -> None:
    first = told(alice)
    again = told(alice)
    shown = page_of(alice, f"/chat/{again.session_id}")
    assert "reused, 0 tokens" in shown
    assert "Ask again" in shown
    receipt = page_of(alice, f"/chat/replies/{again.pk}/receipt")
    assert f"/chat/{first.session_id}?at={first.pk}#{first.pk}" in receipt
    assert "nothing, the answer was reused" in receipt
    sessions.delete(sessions.get(alice, first.session_id))
    assert "The earlier answer was deleted since." in page_of(alice, f"/chat/replies/{again.pk}/receipt")
    (call,) = calls_of(again)
    assert "It was not asked again" in page_of(alice, f"/usage/calls/{call.pk}")


def test_the_receipt_asks_only_where_something_was_reused(alice: User) -> None:
    first = told(alice)
    assert receipts.of_reply(alice, first.pk).earlier is None
    assert receipts.of_reply(alice, told(alice).pk).earlier == first


def test_what_is_sent_by_the_page_is_answered_at_once(alice: User) -> None:
    told(alice)
    client = Client(headers={"accept-language": "en", "HX-Request": "true"})
    client.force_login(alice)
    session = Session.objects.create(id=ids.new("cht"), user=alice, temperature=EXACT)
    what = {"text": QUESTION, "model": simulated_model("sim-words-5"), "turn": ids.new("trn")}
    told_before = client.post("/chat/estimates", what | {"session": session.pk}).content.decode()
    assert "reused, 0 tokens" in told_before
    answer = client.post(f"/chat/{session.pk}/turns", what).content.decode()
    assert "Reused, 0 tokens" in answer
    assert "sse-connect" not in answer
    assert "data-stop" not in answer


def test_it_is_turned_on_in_the_settings() -> None:
    alice = people.alice()
    assert not alice.reuses_replies
    client = Client(headers={"accept-language": "en"})
    client.force_login(alice)
    said = {"name": "Alice", "language": "en", "time_zone": "Asia/Jakarta", "reuses_replies": "on"}
    assert client.post("/settings", said).status_code == 302
    alice.refresh_from_db()
    assert alice.reuses_replies


def test_in_the_browser_it_is_there_at_once_and_ask_again_asks(browser: Browser) -> None:
    alice = who_reuses(people.alice())
    model = simulated_model("sim-words-5", rate=70)  # of its own: other stories change what theirs can do
    page = browser.page(user=alice)
    for _ in range(2):
        page.goto("/")
        choose(page, model)
        expect(page.locator("#picker")).to_be_hidden()
        page.locator(".composer__model").click()
        page.locator("[data-step=Exact]").click()
        page.keyboard.press("Escape")
        page.fill("#text", QUESTION)
        expect(page.locator("#composer-estimate")).not_to_be_empty()
        page.keyboard.press("Enter")
        expect(page.locator(".message--reply[data-state=complete]")).to_be_visible()
    expect(page.locator(".message--reply .message__cost")).to_contain_text("reused, 0 tokens")
    page.get_by_text("Ask again").click()
    page.locator(".regenerate .menu__item").first.click()
    expect(page.locator(".message--reply .message__cost")).to_contain_text("tokens")
    expect(page.locator(".message--reply .message__cost")).not_to_contain_text("reused")
