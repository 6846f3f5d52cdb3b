"""The API keeps what its OpenAPI document says, whatever is sent: no fault, and no answer that is not in the document."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from aleph.accounts.models import User
from aleph.docs import schema
from chat import sessions
from chat.models import ChatModel
from tests import people
from tests.product import Product
from tests.simulator import Simulator
from tests.stories_of_chat import ask, fresh, until

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    negative_data_rejection,
    ignored_auth,
]


document = schemathesis.openapi.from_dict(schema()).include(path_regex="^/api/(v1|tokens|usage)")


@pytest.fixture
def alice(product: Product) -> User:
    return people.alice()


@pytest.fixture
def own_sessions(alice: User) -> list[str]:
    demo = ChatModel.objects.get(slug="aleph-demo")
    return [sessions.create(user=alice, model=demo).pk for _each in range(3)]


@pytest.fixture
def own_messages(alice: User, simulator: Simulator) -> list[str]:
    """A session, and a question and its reply in it, which was cut off."""
    turn = ask(alice, script="sim-words-3-length")
    until(lambda: not fresh(turn.reply).is_open)
    return [turn.session.pk, turn.message.pk, turn.reply.pk]


@pytest.fixture
def headers(product: Product, alice: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {product.api_key(alice)}"}


@document.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_one_that_the_document_promises(
    case: Case, product: Product, headers: dict[str, str], own_sessions: list[str], own_messages: list[str]
) -> None:
    given = case.path_parameters or {}
    made_up = given.get("session_id")
    if isinstance(made_up, str) and len(made_up) % 2:
        given["session_id"] = own_sessions[len(made_up) % 3]
        if "message_id" in given:
            given["session_id"], given["message_id"] = (
                own_messages[0],
                own_messages[1 + len(made_up) // 2 % 2],
            )
    # Reported events are answered one by one: what is wrong with them is said in the answer, and kept.
    is_answered_by_item = case.path == "/api/v1/usage/events"
    checks = [each for each in CHECKS if each is not negative_data_rejection or not is_answered_by_item]
    case.call_and_validate(base_url=product.url, headers=headers, checks=checks, timeout=30)
