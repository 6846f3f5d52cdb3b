"""What people see when a page cannot be shown.

Programs, that is every path below /api/, get the error envelope of the API instead of a page.
"""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.template.loader import render_to_string
from django.templatetags.static import static
from django.utils.translation import gettext_lazy as _

from aleph import rates
from aleph.api import Forbidden, body_of
from aleph.problems import Busy, InvalidRequest, NotFound, Problem, RateLimited, noting_delay

WAIT_S = 60


class Fault(Problem):
    code = "INTERNAL_ERROR"
    status = 500
    text = _("Something went wrong on our side.")


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return bare_page(request, InvalidRequest())


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """An old tab of somebody who signed in again. A fragment's sender reloads: the draft survives that."""
    if "HX-Request" in request.headers:
        return HttpResponse(status=403, headers={"HX-Refresh": "true"})
    return page(request, Forbidden(), template="errors/403_csrf.html")


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return page(request, Forbidden())


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:
    return page(request, NotFound())


def too_many(request: HttpRequest) -> HttpResponse:
    """What allauth answers when its limits are reached."""
    rates.note_refusal(request, request.resolver_match.view_name if request.resolver_match else "allauth")
    return page(request, RateLimited(retry_after_s=WAIT_S))


def fault(request: HttpRequest) -> HttpResponse:
    """Our fault, or for the moment nobody's: a database that does not answer is worth another try, and so are limits
    that nobody can count, without which nobody signs in."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError | rates.CannotCount):
        return bare_page(request, Busy(retry_after_s=WAIT_S))
    return bare_page(request, Fault())


def page(request: HttpRequest, problem: Problem, *, template: str = "") -> HttpResponse:
    template = template or f"errors/{problem.status}.html"
    if is_program(request):
        return noting_delay(envelope(problem), problem)
    context = {"request_id": request_id(request)}
    return noting_delay(render(request, template, context, status=problem.status), problem)


def bare_page(request: HttpRequest, problem: Problem) -> HttpResponse:
    """Needs no session, no database and no context processor: any of them may be what failed."""
    if is_program(request):
        return noting_delay(envelope(problem), problem)
    files = {"stylesheet": address_of("css/aleph.css"), "favicon": address_of("favicon.svg")}
    context = {"request_id": request_id(request), **files}
    text = render_to_string(f"errors/{problem.status}.html", context)
    return noting_delay(HttpResponse(text, status=problem.status), problem)


def envelope(problem: Problem) -> HttpResponse:
    return JsonResponse(body_of(problem), status=problem.status)


def is_program(request: HttpRequest) -> bool:
    return request.path.startswith("/api/")


def request_id(request: HttpRequest) -> str:
    return str(getattr(request, "id", ""))


def address_of(file: str) -> str:
    """The address of a static file, or nothing where none were collected: a page without colours is better than none."""
    try:
        return static(file)
    except ValueError:
        return ""
