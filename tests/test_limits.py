"""Bodies that nobody should have to store."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest

from aleph.limits import limited

LIMIT = 100


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body to its end, as Django does, and says how long it was."""
    size = 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return
        size += len(event["body"])
        if not event.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def answer(chunks: list[bytes], announced: int | None = None) -> tuple[int, bytes]:
    start, body = events_of(chunks, announced)
    return start["status"], body["body"]


UPLOADS = ((r"/images", 300),)


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/images", b"multipart/form-data; boundary=x", 200),
        ("/images", b"application/json", 413),
        ("/images/more", b"multipart/form-data; boundary=x", 413),
        ("/other", b"multipart/form-data; boundary=x", 413),
    ],
)
@pytest.mark.parametrize("announced", [None, 200])
def test_forms_with_files_may_weigh_more_where_files_are_taken(
    path: str, kind: bytes, status: int, announced: int | None
) -> None:
    headers = [(b"content-type", kind)]
    found = events_of([b"x" * 200], announced, path=path, more=headers, uploads=UPLOADS)
    assert found[0]["status"] == status
    assert events_of([b"x" * 301], None, path=path, more=headers, uploads=UPLOADS)[0]["status"] == 413


def events_of(
    chunks: list[bytes],
    announced: int | None = None,
    request_id: bytes = b"",
    *,
    path: str = "/",
    more: Sequence[tuple[bytes, bytes]] = (),
    uploads: Sequence[tuple[str, int]] = (),
) -> list[Any]:
    events = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    events.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[Any] = []
    headers = [] if announced is None else [(b"content-length", str(announced).encode())]
    headers += [(b"x-request-id", request_id)] if request_id else []
    headers += more
    scope = {"type": "http", "headers": headers, "path": path}

    async def run() -> None:
        waiting = iter(events)

        async def receive() -> Any:
            return next(waiting)

        async def send(event: Any) -> None:
            sent.append(event)

        await limited(echo, max_bytes=LIMIT, uploads=uploads)(scope, receive, send)

    asyncio.run(run())
    assert [event["type"] for event in sent] == ["http.response.start", "http.response.body"]
    return sent


def test_a_body_within_the_limit_arrives_whole() -> None:
    assert answer([b"x" * 60, b"y" * 40]) == (200, b"100")


def test_a_body_that_is_announced_too_large_is_refused_unread() -> None:
    assert answer([], announced=LIMIT + 1)[0] == 413


@pytest.mark.parametrize("chunks", [[], [b"x" * 150]])
def test_a_refusal_carries_an_id_as_every_answer_does(chunks: list[bytes]) -> None:
    announced = None if chunks else LIMIT + 1
    given, odd = (
        dict(events_of(chunks, announced, request_id)[0]["headers"])[b"x-request-id"]
        for request_id in (b"req-of-a-proxy-1", b"\xff odd\r\n")
    )
    assert given == b"req-of-a-proxy-1"
    assert re.fullmatch(rb"req_\w{26}", odd)


def test_a_body_that_grows_too_large_is_refused_once() -> None:
    assert answer([b"x" * 60, b"y" * 60, b"z" * 60])[0] == 413
