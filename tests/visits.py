"""What visitors without scripts do in stories about the product's processes: send a message, and watch its reply."""

from collections.abc import Iterator

import requests

from chat.models import Message
from tests.product import Visitor, simulated_model
from tests.screen import Screen


def send(visitor: Visitor, text: str, script: str, *, rate: int = 100, turn: str) -> Message:
    """Post the composer's form of a new chat; the reply that its page waits for."""
    answer = visitor.post(
        "/chat/turns",
        data={"text": text, "model": simulated_model(script, rate=rate), "turn": turn},
        allow_redirects=False,
    )
    assert answer.status_code == 303, answer.text
    return Message.objects.get(turn=turn, user_id=_owner(visitor))


def _owner(visitor: Visitor) -> int:
    found: int = visitor.get("/api/v1/chat/sessions?limit=1").json()["data"]["sessions"][0]["userId"]
    return found


def watched(visitor: Visitor, reply: Message) -> requests.Response:
    return visitor.get(f"/chat/replies/{reply.pk}/stream", stream=True)


def lines_of(answer: requests.Response) -> Iterator[str]:
    lines: Iterator[str] = answer.iter_lines(chunk_size=1, decode_unicode=True)
    return lines


def drawn(lines: Iterator[str]) -> Screen:
    """The screen after all events of a stream."""
    screen, event = Screen(), ""
    for line in lines:
        event += line + "\n"
        if not line:
            screen.take(event)
            event = ""
    return screen
