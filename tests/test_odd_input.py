"""Input that no page of ours sends. Whatever it is, it is the sender's error and never a fault of ours."""

import pytest
from django.test import Client

from chat import turns
from chat.models import Message
from tests import people
from tests.stories_of_chat import told

pytestmark = pytest.mark.usefixtures("committed", "simulator")

NUL, HALF, LONG, HUGE = "zero\x00byte", "half%ED%A0%80", "x" * 5_000, "9" * 400


@pytest.fixture
def reply() -> Message:
    return told(people.alice())


@pytest.fixture
def alice(reply: Message) -> Client:
    client = Client()
    client.force_login(reply.user)
    return client


@pytest.mark.parametrize(
    "path",
    [
        "/chat/{}",
        "/chat/{}?before=1",
        "/chat/{}/title",
        "/chat/{}/deletions",
        "/chat/{}?at=1",
        "/chat/replies/{}/receipt",
        "/chat/replies/{}/retries",
        "/chat/messages/{}/edits",
        "/chat/replies/{}/text",
        "/chat/replies/{}/stream",
        "/billing/packages/{}",
        "/billing/purchases/{}",
        "/settings/keys/{}/revocations",
        "/api/v1/chat/sessions/{}",
        "/{}",
    ],
)
def test_odd_addresses_do_not_exist(alice: Client, path: str) -> None:
    for odd in ("%00", "cht_%00", "msg_%00", HALF, LONG, HUGE, "..%2f..%2fetc", "%F0%9F%A6%86"):
        assert alice.get(path.format(odd)).status_code in (400, 404, 405), odd


@pytest.mark.parametrize(
    "path",
    [
        "/?text={}",
        "/chat/{{chat}}?before={}",
        "/chat/{{chat}}?at={}",
        "/chat/search?q={}",
        "/chat/search?q=a&page={}",
        "/billing?cursor={}",
        "/billing?unit={}",
        "/billing?before={}",
        "/usage?cursor={}",
        "/usage?before={}",
        "/usage?days={}",
        "/usage?from={}",
        "/accounts/login/?next={}",
        "/theme?next={}",
    ],
)
def test_odd_questions_break_nothing(alice: Client, reply: Message, path: str) -> None:
    for odd in ("%00", HALF, LONG, HUGE, "-1", "1e9", "%D9%A3", "NaN", "2026-99-99"):
        address = path.format(odd).replace("{chat}", reply.session_id)
        assert alice.get(address).status_code < 500, odd


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/chat/turns", "turn"),
        ("/chat/turns", "model"),
        ("/chat/turns", "terms"),
        ("/chat/{chat}/turns", "model"),
        ("/chat/estimates", "session"),
        ("/chat/estimates", "model"),
        ("/chat/purchases", "session"),
        ("/chat/purchases", "package"),
        ("/chat/purchases", "key"),
        ("/chat/purchases", "quantity"),
        ("/chat/purchases", "promo"),
        ("/chat/purchases", "needed"),
        ("/chat/checkouts", "package"),
        ("/chat/checkouts", "quantity"),
        ("/chat/checkouts", "promo"),
        ("/chat/checkouts", "needed"),
        ("/chat/replies/{reply}/retries", "turn"),
        ("/chat/replies/{reply}/retries", "model"),
        ("/chat/replies/{reply}/continuations", "turn"),
        ("/chat/messages/{message}/edits", "turn"),
        ("/chat/messages/{message}/edits", "model"),
        ("/chat/{chat}/turns", "parent"),
        ("/chat/{chat}/turns", "edited"),
        ("/chat/{chat}", "parent"),
        ("/chat/estimates", "parent"),
        ("/chat/estimates", "edited"),
        ("/chat/purchases", "parent"),
        ("/chat/purchases", "edited"),
        ("/chat/{chat}/title", "title"),
        ("/billing/purchases", "package"),
        ("/billing/purchases", "key"),
        ("/settings", "name"),
        ("/settings", "time_zone"),
        ("/settings/keys", "name"),
        ("/settings/language", "language"),
        ("/theme", "theme"),
        ("/theme", "next"),
    ],
)
def test_odd_fields_break_nothing(alice: Client, reply: Message, path: str, field: str) -> None:
    address = path.format(chat=reply.session_id, reply=reply.pk, message=reply.parent_id)
    for number, odd in enumerate((NUL, "\x00", LONG, HUGE, "-1", "🦆")):
        fields = {
            "text": "Halo",
            "turn": f"turn-{number}",
            "package": "starter",
            "key": f"key-{number}",
            field: odd,
        }
        assert alice.post(address, fields).status_code < 500, odd
        for open_reply in Message.objects.filter(user=reply.user, state="queued"):
            turns.stop(user=reply.user, reply_id=open_reply.pk)
