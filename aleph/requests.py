"""Every request has an id: in the response, in each log line, and in front of whoever reports a fault.
No response is kept by a cache unless its view says so."""

import re
from collections.abc import Callable
from typing import Any

import structlog
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware, sync_only_middleware
from django.utils.deprecation import MiddlewareMixin

from aleph import ids

ACCEPTABLE = re.compile(r"[A-Za-z0-9_.\-]{8,64}")


class RequestIdMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        given = request.headers.get("X-Request-Id", "")
        request.id = given if ACCEPTABLE.fullmatch(given) else ids.new("req")  # type: ignore[attr-defined]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.id)  # type: ignore[attr-defined]

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["X-Request-Id"] = getattr(request, "id", "")
        return response


@sync_and_async_middleware
def private_by_default(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """A page is somebody's unless it says otherwise, so the default is that nobody keeps it.

    A plain function, because a `MiddlewareMixin` costs every request of the ASGI server a change of thread.
    """
    if iscoroutinefunction(get_response):

        async def awaited(request: HttpRequest) -> HttpResponseBase:
            return private(await get_response(request))

        return awaited

    def answered(request: HttpRequest) -> HttpResponseBase:
        return private(get_response(request))

    return answered


def private(response: HttpResponseBase) -> HttpResponseBase:
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response


@sync_only_middleware
def in_one_thread(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """The innermost middleware, and one that is not asynchronous on purpose.

    Most middleware of Django's changes to a thread and back at every request of an ASGI server, twice each. Once one of
    the chain is synchronous, all outside it run together in one thread. Streams are not held by it: their bodies are
    sent by the event loop afterwards.
    """

    def answered(request: HttpRequest) -> HttpResponseBase:
        return get_response(request)

    return answered
