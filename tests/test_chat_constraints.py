"""What the database itself refuses about models, turns and replies, whoever asks."""

from collections.abc import Callable
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from aleph import ids
from chat.models import ChatModel, Message, Route
from tests import people
from tests.product import simulated_model
from tests.stories_of_chat import ask, special_model

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]


def assert_refused(constraint: str, act: Callable[[], object]) -> None:
    with pytest.raises(IntegrityError) as refused, transaction.atomic():
        act()
    said = str(refused.value)
    assert constraint in said, said


@pytest.fixture
def reply() -> Message:
    return ask(people.alice(), rate=100).reply


def another(reply: Message, **fields: object) -> Message:
    """Another message like `reply`, not yet stored."""
    row = Message.objects.get(pk=reply.pk)
    row.pk = ids.new("msg")
    row.turn, row.state = ids.new("trn"), "stopped"
    for name, value in fields.items():
        setattr(row, name, value)
    return row


def test_a_turn_has_one_reply(reply: Message) -> None:
    twin = another(reply, turn=reply.turn)
    assert_refused("turn", lambda: twin.save(force_insert=True))


@pytest.mark.parametrize("state", ["queued", "streaming"])
def test_a_chat_has_one_open_reply(reply: Message, state: str) -> None:
    assert_refused("session", lambda: another(reply, state=state).save(force_insert=True))
    another(reply).save(force_insert=True)


@pytest.mark.parametrize(
    "fields",
    [
        {"state": None},
        {"turn": None},
        {"role": "user"},
        {"role": "user", "state": None},
        {"role": "user", "turn": None},
        {"role": "user", "turn": None, "state": None, "tokens_used": 1},
        {"role": "system"},
    ],
)
def test_replies_have_a_state_and_a_turn_and_what_people_say_has_neither(
    reply: Message, fields: dict[str, object]
) -> None:
    assert_refused("replies_have_a_state", lambda: another(reply, **fields).save(force_insert=True))


def test_a_charge_is_within_its_hold(reply: Message) -> None:
    too_much = reply.held_tokens + 1
    found = Message.objects.filter(pk=reply.pk)
    assert_refused("charge_within_hold", lambda: found.update(state="complete", tokens_used=too_much))


@pytest.mark.parametrize("state", ["failed", "interrupted"])
def test_a_failure_costs_nothing(reply: Message, state: str) -> None:
    found = Message.objects.filter(pk=reply.pk)
    assert_refused("failures_cost_nothing", lambda: found.update(state=state, tokens_used=1))


@pytest.mark.parametrize(
    ("constraint", "fields"),
    [
        ("model_free_or_priced", {"is_free": True}),
        ("model_free_or_priced", {"input_rate": 0}),
        ("model_free_or_priced", {"output_rate": 0}),
        ("model_output_useful", {"max_output_tokens": 63}),
        ("model_context_holds_a_reply", {"context_tokens": 2048}),
        ("model_rates_plausible", {"output_rate": 1_000_001}),
    ],
)
def test_a_model_has_a_price_or_is_free_and_room_for_a_reply(constraint: str, fields: dict[str, Any]) -> None:
    assert_refused(constraint, lambda: special_model("odd", **fields))


def test_a_model_has_a_route_once() -> None:
    route = Route.objects.get(model=ChatModel.objects.get(slug=simulated_model("sim-echo")))
    route.pk = None
    assert_refused("rout", lambda: route.save(force_insert=True))
