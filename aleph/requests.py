"""Every request has an id: in the response, in each log line, and in front of whoever reports a fault.
No response is kept by a cache unless its view says so."""

import re
from collections.abc import Callable

import structlog
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from aleph import ids

ACCEPTABLE = re.compile(r"[A-Za-z0-9_.\-]{8,64}")


def id_for(given: str) -> str:
    """The id of a request: the one that its sender gave, where that looks like one, else a fresh one."""
    return given if ACCEPTABLE.fullmatch(given) else ids.new("req")


class RequestIdMiddleware(MiddlewareMixin):
    def process_request(self, request: HttpRequest) -> None:
        request.id = id_for(request.headers.get("X-Request-Id", ""))  # type: ignore[attr-defined]
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request.id)  # type: ignore[attr-defined]

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        response["X-Request-Id"] = getattr(request, "id", "")
        return response


def private_by_default(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """A page is somebody's unless it says otherwise, so the default is that nobody keeps it."""

    def answered(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    return answered
