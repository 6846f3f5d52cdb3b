"""Replies by way of an n8n workflow: how what it says is counted and priced, and what cannot go that way."""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.utils import timezone

from aleph import ids
from chat import catalogue
from chat.models import ChatModel, Route
from tests import people
from tests.simulator import Simulator
from tests.simulator_n8n import TOKEN, N8nSimulator
from tests.stories_of_chat import answered, assert_books_are_right, calls_of, special_model
from tests.stories_of_images import draft_of, show
from tests.stories_of_usage import price_of

pytestmark = pytest.mark.usefixtures("committed", "redis_server", "simulator")


@pytest.fixture
def n8n(simulator: Simulator, settings: Any) -> Iterator[N8nSimulator]:
    """A workflow that is connected beside the simulated OpenAI."""
    with N8nSimulator() as running:
        told = {"N8N_WEBHOOK_URL": running.webhook, "N8N_WEBHOOK_TOKEN": TOKEN}
        settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, **told}
        catalogue.connected.cache_clear()
        yield running
    catalogue.connected.cache_clear()


def model_by_workflow(script: str, **fields: object) -> ChatModel:
    """A model that the workflow answers first, and OpenAI after it."""
    model = special_model(ids.new("led").lower(), script=script, **fields)
    model.routes.update(position=2)
    Route.objects.create(model=model, provider="n8n", upstream_model=script, position=1)
    return model


def test_a_total_alone_is_divided_by_the_estimate_and_marked(n8n: N8nSimulator) -> None:
    turn = show(people.alice(), model=model_by_workflow("sim-words-40-nousage-json").slug)
    reply = answered(turn)

    (call,) = calls_of(reply)
    said = n8n.requests[-1]
    assert said.body["messages"][-1]["content"] == "What is this?"
    assert (reply.provider, call.source, call.flagged) == ("n8n", "partial", False)
    words_in = sum(len(message["content"].split()) for message in said.body["messages"])
    assert call.input_tokens + call.output_tokens == call.total_tokens == words_in + 40
    assert call.input_tokens > 0 < call.output_tokens
    assert_books_are_right()


def test_a_call_is_priced_as_the_provider_that_the_workflow_asked(n8n: N8nSimulator) -> None:
    script = "sim-words-6-json"
    yesterday = timezone.now() - timedelta(days=1)
    price = price_of("openai", script, "2000 - - 2000", valid_from=yesterday)

    (call,) = calls_of(answered(show(people.alice(), model=model_by_workflow(script).slug)))

    assert (call.provider, call.price, call.metadata["route"]) == ("openai", price, "n8n")
    assert call.total_cost_usd == call.total_tokens * Decimal("0.002")


def test_images_go_past_a_workflow_that_cannot_carry_them(n8n: N8nSimulator, simulator: Simulator) -> None:
    alice, model = people.alice(), model_by_workflow("sim-words-3", takes_images=True)
    assert answered(show(alice, model=model.slug)).provider == "n8n"
    asked = len(n8n.requests)

    reply = answered(show(alice, draft_of(alice), model=model.slug))

    assert (reply.state, reply.provider, len(n8n.requests)) == ("complete", "openai", asked)
    assert [part["type"] for part in simulator.requests[-1].body["messages"][-1]["content"]] == [
        "image_url",
        "text",
    ]
