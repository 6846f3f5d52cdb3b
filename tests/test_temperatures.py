"""The temperature is chosen where one asks, kept by the chat, and pinned on each reply."""

from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from playwright.sync_api import expect

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch
from chat import sessions, temperatures, turns
from chat.models import Message, Session
from tests import people
from tests.browser import Browser
from tests.product import simulated_model
from tests.simulator import Simulator
from tests.stories_of_chat import answered, special_model
from tests.test_chat_in_the_browser import choose, sent

pytestmark = pytest.mark.usefixtures("committed", "simulator")


@pytest.fixture
def alice(committed: None) -> User:
    return people.alice()


def asked(person: User, temperature: str | None = None, **how: Any) -> turns.Turn:
    how = {"session": None, "turn": ids.new("trn"), "model_slug": simulated_model("sim-words-3")} | how
    wanted = None if temperature is None else Decimal(temperature)
    return turns.start(user=person, text="Tell me", temperature=wanted, **how)


def over(turn: turns.Turn) -> turns.Turn:
    answered(turn)
    return turn


def of(session: Session) -> Decimal | None:
    return Session.objects.get(pk=session.pk).temperature


def without_temperature() -> str:
    slug = ids.new("mod").lower()
    return special_model(slug, name=slug, takes_temperature=False).slug


def test_who_chooses_none_is_answered_at_the_usual_one(alice: User, simulator: Simulator) -> None:
    turn = over(asked(alice))
    assert turn.reply.temperature == temperatures.USUAL
    assert of(turn.session) is None
    assert simulator.requests[-1].body["temperature"] == 0.7


def test_the_one_that_was_pinned_is_sent(alice: User, simulator: Simulator) -> None:
    turn = over(asked(alice, "1.25"))
    assert Message.objects.get(pk=turn.reply.pk).temperature == Decimal("1.25")
    assert simulator.requests[-1].body["temperature"] == 1.25


def test_a_chat_keeps_what_its_page_chose_and_nothing_that_was_said_for_one_reply(alice: User) -> None:
    first = over(asked(alice, "0", keeps_temperature=True))
    session = sessions.get(alice, first.session.pk)
    assert session.temperature == 0
    assert over(asked(alice, session=session)).reply.temperature == 0
    assert over(asked(alice, "1", session=session)).reply.temperature == 1
    assert of(session) == 0
    over(asked(alice, "0.7", session=session, keeps_temperature=True))
    assert of(session) is None


def test_another_reply_is_had_at_the_temperature_of_the_first_or_at_ones_own(alice: User) -> None:
    reply = over(asked(alice, "0")).reply
    again = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"))
    assert over(again).reply.temperature == 0
    freely = turns.retry(user=alice, reply_id=reply.pk, turn=ids.new("trn"), temperature=Decimal(2))
    assert over(freely).reply.temperature == 2


def test_the_rest_of_a_reply_too(alice: User) -> None:
    cut = over(asked(alice, "0", model_slug=simulated_model("sim-words-3-length"))).reply
    rest = turns.go_on(user=alice, reply_id=cut.pk, turn=ids.new("trn"))
    assert rest.reply.temperature == 0


def test_a_turn_has_one_temperature(alice: User) -> None:
    asked(alice, "0", turn="a-turn-of-one")
    with pytest.raises(IdempotencyMismatch):
        asked(alice, "1", turn="a-turn-of-one")


def test_a_model_that_takes_none_says_so_and_is_sent_none(alice: User, simulator: Simulator) -> None:
    slug = without_temperature()
    with pytest.raises(turns.TemperatureNotTaken):
        asked(alice, "0", model_slug=slug)
    kept = over(asked(alice, "0", model_slug=slug, keeps_temperature=True))
    assert kept.reply.temperature is None
    assert of(kept.session) == 0
    assert not {"temperature", "top_p"} & simulator.requests[-1].body.keys()
    # Its neighbour is asked as the chat is.
    session = sessions.get(alice, kept.session.pk)
    assert over(asked(alice, session=session)).reply.temperature == 0


@pytest.mark.parametrize("impossible", ["-0.01", "2.01"])
def test_the_database_knows_what_is_possible(alice: User, impossible: str) -> None:
    turn = over(asked(alice))
    for rows in (Message.objects.filter(pk=turn.reply.pk), Session.objects.filter(pk=turn.session.pk)):
        with pytest.raises(IntegrityError), transaction.atomic():
            rows.update(temperature=Decimal(impossible))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0.70", "0.7"),
        ("2", 2),
        ("", None),
        ("warm", None),
        ("NaN", None),
        ("2.1", None),
        ("-1", None),
    ],
)
def test_a_form_says_a_temperature_or_none(text: str, value: Any) -> None:
    assert temperatures.read(text) == (None if value is None else Decimal(value))


def test_a_page_shows_the_one_of_its_chat_also_where_it_has_no_name(alice: User) -> None:
    session = sessions.create(user=alice, temperature=Decimal("0.3"))
    client = Client(headers={"accept-language": "id"})
    client.force_login(alice)
    shown = client.get(f"/chat/{session.pk}").content.decode()
    assert '<input type="radio" name="temperature" form="composer" value="0.30" checked>' in shown
    assert '<span class="quiet">0,3</span>' in shown


def test_what_was_chosen_waits_with_the_message_for_tokens(simulator: Simulator) -> None:
    bob = people.bob()
    client = Client(headers={"accept-language": "en", "HX-Request": "true"})
    client.force_login(bob)
    what = {"text": "Tell me", "model": simulated_model("sim-words-3", rate=1000), "turn": ids.new("trn")}
    dialog = client.post("/chat/turns", what | {"temperature": "0"}).content.decode()
    assert '<input type="hidden" name="temperature" value="0.00">' in dialog


def test_it_is_chosen_in_the_menu_of_models_and_stays(browser: Browser) -> None:
    alice, slug, untempered = people.alice(), simulated_model("sim-words-3"), without_temperature()
    page = browser.page(user=alice)
    page.goto("/")
    choose(page, slug)
    page.locator(".composer__model").click()
    page.get_by_text("Exact").click()
    expect(page.locator("[data-chosen-step]")).to_have_text("Exact")
    page.keyboard.press("Escape")
    choose(page, untempered)
    expect(page.locator("[data-chosen-step]")).to_be_hidden()
    page.locator(".composer__model").click()
    expect(page.get_by_text("This model takes no temperature.")).to_be_visible()
    page.keyboard.press("Escape")
    choose(page, slug)
    sent(page, "Tell me")
    expect(page.locator("[data-chosen-step]")).to_have_text("Exact")
    reply = Message.objects.get(user=alice, role="assistant")
    assert (reply.temperature, reply.session.temperature) == (0, 0)
