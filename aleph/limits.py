"""What a request may weigh. Django's ASGI handler spools a body to disk before it asks anybody, so the limit is in front."""

import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import structlog

from aleph.requests import id_for

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

TOO_LARGE = b'{"success": false, "error": "The request is too large.", "code": "INVALID_REQUEST", "data": {}}'


def limited(
    application: Application, *, max_bytes: int, uploads: Iterable[tuple[str, int]] = ()
) -> Application:
    """`application`, with bodies of more than `max_bytes` answered by 413, announced or not. `uploads`: what forms with files
    may weigh where the whole path matches the pattern."""
    larger = [(re.compile(pattern), most) for pattern, most in uploads]

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        most = max_bytes
        if _header(scope, b"content-type").startswith(b"multipart/form-data"):
            most = next((m for pattern, m in larger if pattern.fullmatch(scope["path"])), max_bytes)
        if _announced(scope) > most:
            await _refuse(scope, send)
            return
        seen = 0
        refused = False

        async def counted() -> Event:
            nonlocal seen, refused
            event = await receive()
            seen += len(event.get("body", b""))
            if seen > most and not refused:
                refused = True
                await _refuse(scope, send)
            return {"type": "http.disconnect"} if refused else event

        async def unless_refused(event: Event) -> None:
            if not refused:
                await send(event)

        await application(scope, counted, unless_refused)

    return guarded


def _announced(scope: Scope) -> int:
    value = _header(scope, b"content-length")
    return int(value) if value.isdigit() else 0


def _header(scope: Scope, wanted: bytes) -> bytes:
    return next((value for name, value in scope.get("headers", ()) if name == wanted), b"")


async def _refuse(scope: Scope, send: Send) -> None:
    request_id = id_for(_header(scope, b"x-request-id").decode("latin-1"))
    log.warning("a body was too large", request_id=request_id, path=scope.get("path", ""))
    headers = [
        (b"content-type", b"application/json"),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": TOO_LARGE})
