"""A web process that is asked to go (SIGTERM) first sends all its answers, and a stream may last for minutes. So whoever
comes back by himself is told to, before the server begins to wait."""

import signal
import threading
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]


def parting(application: Application, *, farewell: Callable[[], None]) -> Application:
    """The ASGI application, with a `farewell` that is said from the signal's handler.

    It is put before the server's own handler at the first request: servers set theirs after they have loaded the
    application. Where a server has none, it does not wait, and nothing is said.
    """
    is_ready = False

    async def served(scope: Any, receive: Any, send: Any) -> None:
        nonlocal is_ready
        if not is_ready:
            is_ready = True
            _precede(farewell)
        await application(scope, receive, send)

    return served


def _precede(farewell: Callable[[], None]) -> None:
    servers = signal.getsignal(signal.SIGTERM)
    if not callable(servers) or threading.current_thread() is not threading.main_thread():
        return

    def go(number: int, frame: FrameType | None) -> None:
        farewell()
        servers(number, frame)

    signal.signal(signal.SIGTERM, go)
