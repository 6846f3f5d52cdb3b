"""How the web process runs Django: each request wholly in one thread, streams on the event loop.

Django's own handler changes between the loop and a fresh thread at every step that is not asynchronous: six times a
request, and half of what a request costs. Here middleware and view run in one go in a thread that is kept; what a view
returns as an asynchronous iterator is sent by the loop afterwards, without a thread and without a database connection.
"""

import time
from typing import Any

from django import db
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_finished, request_started
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from aleph import metrics
from aleph.threads import in_thread


class Handler(ASGIHandler):
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} connections are not served")
        await self.handle(scope, receive, send)

    def load_middleware(self, is_async: bool = False) -> None:
        super().load_middleware(is_async=False)

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        # The connection goes back here, because Django's signal of the end comes in another thread, which has another.
        began = time.perf_counter()
        response = await in_thread(lambda: self.get_response(request))
        metrics.note(request, response, time.perf_counter() - began)
        return response


def application() -> Handler:
    """The ASGI application of this process."""
    for signal in (request_started, request_finished):
        signal.disconnect(db.close_old_connections)
        signal.disconnect(db.reset_queries)
    return Handler()
