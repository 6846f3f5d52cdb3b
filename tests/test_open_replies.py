"""How many replies somebody may have in progress. The database counts, so that it holds without Redis, too."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client
from django.utils import translation

from aleph.accounts.models import ApiKey, User
from aleph.problems import NotFound
from chat import sessions, turns
from chat.models import Message, Session
from chat.sessions import TooManyOpen
from tests import people
from tests.crowd import at_once, failures, successes
from tests.forms import filled
from tests.product import simulated_model
from tests.stories_of_chat import answered, ask, assert_books_are_right, available, held

pytestmark = pytest.mark.usefixtures("committed", "simulator")


@pytest.fixture(autouse=True)
def twelve(settings: Any) -> Iterator[None]:
    settings.MAX_OPEN_REPLIES = 12
    with translation.override("en"):
        yield


def rich() -> User:
    person = people.alice()
    people.give_tokens(person, 1_000_000)
    return person


def open_replies(person: User) -> int:
    return Message.objects.filter(user=person, state__in=Message.OPEN).count()


@pytest.mark.parametrize("rate", [100, 0])
def test_the_thirteenth_reply_waits_until_one_is_over(rate: int) -> None:
    alice = rich()
    first, *_others = [ask(alice, rate=rate) for _each in range(12)]
    had = available(alice), held(alice), Session.objects.filter(user=alice).count()
    with pytest.raises(TooManyOpen) as refusal:
        ask(alice, rate=rate)
    assert (refusal.value.status, refusal.value.code) == (429, "RATE_LIMITED")
    assert refusal.value.retry_after_s == sessions.FULL_WAIT_S
    assert (available(alice), held(alice), Session.objects.filter(user=alice).count()) == had
    ask(people.alice(), rate=rate)
    turns.stop(user=alice, reply_id=first.reply.pk)
    ask(alice, rate=rate)
    assert open_replies(alice) == 12
    assert_books_are_right()


def test_another_try_counts_like_a_message() -> None:
    alice = rich()
    failed = answered(ask(alice, script="sim-error-503"))
    for _each in range(12):
        ask(alice)
    with pytest.raises(TooManyOpen):
        turns.retry(user=alice, reply_id=failed.pk, turn="again", model_slug=simulated_model("sim-words-5"))
    assert open_replies(alice) == 12


def test_a_turn_that_was_admitted_is_given_again_though_there_is_no_room() -> None:
    alice = rich()
    first, *_others = [ask(alice, turn=f"turn-{number}") for number in range(12)]
    assert ask(alice, turn="turn-0").reply == first.reply


def test_of_many_at_once_twelve_are_admitted() -> None:
    alice = rich()
    simulated_model("sim-words-5")
    done = at_once([lambda: ask(alice)] * 40)
    assert len(successes(done)) == open_replies(alice) == 12
    assert {type(error) for error in failures(done)} == {TooManyOpen}
    assert_books_are_right()


def test_a_deleted_chat_is_still_not_found() -> None:
    alice = rich()
    session = sessions.create(user=alice)
    Session.objects.filter(pk=session.pk).delete()
    with pytest.raises(NotFound):
        sessions.touch(session, messages=1)


def test_the_page_and_the_program_are_told_and_nothing_is_lost() -> None:
    alice = rich()
    for _each in range(12):
        ask(alice)
    client = Client(headers={"accept-language": "en"})
    client.force_login(alice)
    form = {
        **filled(client.get("/"), id="composer"),
        "text": "One more",
        "model": simulated_model("sim-words-5"),
    }
    page = client.post("/chat/turns", form)
    assert (page.status_code, page.headers["Retry-After"]) == (429, str(sessions.FULL_WAIT_S))
    assert "You have many replies in progress." in page.content.decode()
    assert filled(page, id="composer")["text"].strip() == "One more"
    notice = client.post("/chat/turns", form, headers={"HX-Request": "true"})
    assert (notice.status_code, notice.headers["HX-Retarget"]) == (429, "#composer-notice")
    key = ApiKey.issue(user=alice, name="test")
    session = sessions.create(user=alice)
    for accept in ("application/json", "text/event-stream"):
        answer = client.post(
            f"/api/v1/chat/sessions/{session.pk}/messages",
            {"content": "One more"},
            "application/json",
            headers={"Authorization": f"Bearer {key}", "Accept": accept},
        )
        assert (answer.status_code, answer.json()["code"]) == (429, "RATE_LIMITED")
        assert answer.json()["data"] == {"limit": "open_replies"}


def test_no_limit_is_no_limit(settings: Any) -> None:
    settings.MAX_OPEN_REPLIES = 0
    alice = rich()
    for _each in range(14):
        ask(alice)
    assert open_replies(alice) == 14
