"""`/estimate-tokens` and `/token-info`: the examples of source S1 word for word, and every other model of the catalogue."""

from http import HTTPStatus
from typing import Any

import pytest
from django.test import Client

from aleph.accounts.models import ApiKey, User
from chat.models import ChatModel
from tests import people
from tests.product import simulated_model
from tests.stories_of_chat import special_model
from tests.stories_of_usage import price_of

pytestmark = pytest.mark.django_db

EXAMPLE = {
    "prompt": "Test case untuk login functionality",
    "context": "Web application dengan authentication",
    "useRAG": True,
    "ragSimilarityThreshold": 0.7,
    "maxRAGReferences": 3,
}
PLACES = ("/estimate-tokens", "/api/v1/estimate-tokens")


def program(person: User | None = None) -> Client:
    key = ApiKey.issue(user=person or people.alice(), name="a program")
    return Client(headers={"Authorization": f"Bearer {key}"})


def estimated(body: dict[str, Any], place: str = PLACES[0], client: Client | None = None) -> Any:
    return (client or program()).post(place, body, content_type="application/json")


@pytest.mark.parametrize("place", PLACES)
def test_the_example_of_an_estimate_is_answered_word_for_word(place: str) -> None:
    answer = estimated(EXAMPLE, place)
    assert answer.status_code == HTTPStatus.OK
    assert answer.json() == {
        "estimated_input_tokens": 425,
        "estimated_cost_usd": 0.000064,
        "model_name": "gemini-1.5-flash",
        "note": "Estimation based on ~4 characters per token. Actual usage may vary.",
    }
    assert b'"estimated_cost_usd":0.000064' in answer.content


@pytest.mark.parametrize("place", ["/token-info", "/api/v1/token-info", "/token-info?model=gemini-1.5-flash"])
def test_the_example_of_the_information_is_answered_word_for_word(place: str) -> None:
    assert program().get(place).json() == {
        "model": "gemini-1.5-flash",
        "pricing": {
            "input_tokens_per_1k": "$0.00015",
            "output_tokens_per_1k": "$0.0006",
            "currency": "USD",
        },
        "limits": {"max_input_tokens": 1048576, "max_output_tokens": 8192},
        "estimation_method": "~4 characters per token",
        "note": "Pricing dan limits bersifat approximate",
    }


def test_a_prompt_alone_is_enough_and_costs_less_than_with_references() -> None:
    alone = estimated({"prompt": "Test complex user workflow"}).json()
    with_references = estimated({"prompt": "Test complex user workflow", "useRAG": True}).json()
    assert with_references["estimated_input_tokens"] - alone["estimated_input_tokens"] == 3 * 125


@pytest.mark.usefixtures("simulator")
def test_every_model_of_the_catalogue_has_an_estimate_by_its_own_price() -> None:
    model = special_model("swift", script="sim-words-5")
    route = model.routes.get()
    price_of(route.provider, route.upstream_model, "2 - - 8.5")
    answer = estimated({"prompt": "Jelaskan apa itu JWT", "model": "swift"}).json()
    assert answer["model_name"] == "swift"
    assert answer["estimated_cost_usd"] == pytest.approx(answer["estimated_input_tokens"] * 2 / 10**6)
    assert "kind of text" in answer["note"]
    info = program().get("/token-info", {"model": "swift"}).json()
    assert info["pricing"] == {
        "input_tokens_per_1k": "$0.002",
        "output_tokens_per_1k": "$0.0085",
        "currency": "USD",
    }
    assert info["limits"] == {
        "max_input_tokens": model.context_tokens - model.max_output_tokens,
        "max_output_tokens": model.max_output_tokens,
    }


@pytest.mark.usefixtures("simulator")
def test_a_long_prompt_costs_what_long_prompts_cost() -> None:
    route = special_model("swift", script="sim-words-5").routes.get()
    price_of(route.provider, route.upstream_model, "2 - - 8")
    price_of(route.provider, route.upstream_model, "4 - - 12", above_input_tokens=1000)
    short = estimated({"prompt": "word " * 100, "model": "swift"}).json()
    long = estimated({"prompt": "word " * 2000, "model": "swift"}).json()
    assert short["estimated_cost_usd"] == pytest.approx(short["estimated_input_tokens"] * 2 / 10**6)
    assert long["estimated_cost_usd"] == pytest.approx(long["estimated_input_tokens"] * 4 / 10**6)


@pytest.mark.usefixtures("simulator")
def test_a_model_without_a_price_says_that_nobody_knows() -> None:
    slug = simulated_model("sim-words-5")
    assert estimated({"prompt": "Halo", "model": slug}).json()["estimated_cost_usd"] is None
    assert program().get("/token-info", {"model": slug}).json()["pricing"]["input_tokens_per_1k"] is None


@pytest.mark.parametrize("is_connected", [True, False])
def test_a_route_without_a_price_of_its_own_lets_the_next_one_say(
    request: pytest.FixtureRequest, is_connected: bool
) -> None:
    """A workflow asks others, and they have the prices; and a price is known before anybody is connected."""
    model = special_model("swift", script="sim-words-5")
    route = model.routes.get()
    price_of(route.provider, route.upstream_model, "2 - - 8.5")
    model.routes.update(position=1)
    model.routes.create(provider="n8n", upstream_model="swift", position=0)
    if is_connected:
        request.getfixturevalue("simulator")
    info = program().get("/token-info", {"model": "swift"}).json()
    assert info["pricing"]["input_tokens_per_1k"] == "$0.002"


def test_a_free_model_costs_nothing() -> None:
    assert ChatModel.objects.filter(slug="aleph-demo").exists()
    assert (
        estimated({"prompt": "Halo", "model": "aleph-demo"}).content.count(b'"estimated_cost_usd":0.000000')
        == 1
    )
    assert (
        program().get("/token-info", {"model": "aleph-demo"}).json()["pricing"]["input_tokens_per_1k"] == "$0"
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": 0}, "prompt"),
        ({"prompt": "x", "useRAG": "yes"}, "useRAG"),
        ({"prompt": "x", "maxRAGReferences": "3"}, "maxRAGReferences"),
        ({"prompt": "x", "maxRAGReferences": -1}, "maxRAGReferences"),
        ({"prompt": "x", "ragSimilarityThreshold": 1.5}, "ragSimilarityThreshold"),
        ({"prompt": "x" * 100_001}, "prompt"),
    ],
)
def test_what_is_wrong_is_said_in_the_envelope(body: dict[str, Any], field: str) -> None:
    answer = estimated(body)
    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json()["code"] == "INVALID_REQUEST"
    assert field in answer.json()["data"]["fields"]


@pytest.mark.parametrize("place", ["/token-info", "/estimate-tokens"])
def test_an_unknown_model_and_a_stranger_are_refused(place: str) -> None:
    known = program()
    call = (
        (lambda client: client.get(place, {"model": "no-such"}))
        if place == "/token-info"
        else (lambda client: estimated({"prompt": "x", "model": "no-such"}, client=client))
    )
    assert (call(known).status_code, call(known).json()["code"]) == (400, "INVALID_REQUEST")
    assert (call(Client()).status_code, call(Client()).json()["code"]) == (401, "UNAUTHENTICATED")


def test_they_are_described_once() -> None:
    document = Client().get("/api/schema/").json()
    assert {path for path in document["paths"] if path.endswith(("estimate-tokens", "token-info"))} == {
        "/api/v1/estimate-tokens",
        "/api/v1/token-info",
    }
