"""How the pages of the chat answer: who may ask, what is sent beside the answer, and what an expected error looks like.

For `chat.views` only. A page without JavaScript and a fragment for htmx come from the same view.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, cast

from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import render
from django.utils.cache import patch_vary_headers
from django.views.decorators.gzip import gzip_page
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget
from django_htmx.middleware import HtmxDetails

from aleph.accounts.entrance import to_sign_in
from aleph.accounts.models import User
from aleph.problems import Problem, noting_delay


class Request(HttpRequest):
    """A request as the views see it: by a person who is signed in, and maybe by htmx."""

    user: User
    htmx: HtmxDetails


View = Callable[..., HttpResponse]


def page(*methods: str) -> Callable[[View], View]:
    """A view for people who are signed in. Expected errors become a toast or a page; browsers and proxies keep no copy.

    Pages are compressed here and not by a middleware, which would take every stream, too. The CSRF token is masked
    anew for each page and Django pads what it compresses, so the length tells nothing of it.
    """
    allowed = [*methods, "HEAD"] if "GET" in methods else [*methods]

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if request.method not in allowed:
                return HttpResponseNotAllowed(allowed)
            asked = cast(Request, request)
            if not request.user.is_authenticated:
                return to_sign_in(asked)
            try:
                response = view(asked, *args, **kwargs)
            except Problem as problem:
                response = refused(asked, problem)
            response["Cache-Control"] = "no-store"
            patch_vary_headers(response, ["HX-Request", "Cookie"])
            return response

        return gzip_page(guarded)

    return decorate


def refused(request: Request, problem: Problem) -> HttpResponse:
    """What somebody sees of an expected error that his view does not care for especially."""
    if request.htmx:
        fragment = render(
            request, "shell/_toast.html", {"text": problem.message, "bad": True}, status=problem.status
        )
        return noting_delay(reswap(retarget(fragment, "#toasts"), "beforeend"), problem)
    whole = render(request, "shell/problem.html", {"problem": problem}, status=problem.status)
    return noting_delay(whole, problem)


def fragment(
    request: Request, template: str, context: dict[str, Any], *, into: str, status: int = 200
) -> HttpResponse:
    """A fragment for the element `into`, wherever the request wanted its answer."""
    return reswap(retarget(render(request, template, context, status=status), into), "innerHTML")


def moved(request: Request, url: str) -> HttpResponse:
    """Go to `url` after a POST: by htmx as a whole page, else by 303, so that a reload sends nothing again."""
    if request.htmx:
        return HttpResponseClientRedirect(url)
    return HttpResponse(status=303, headers={"Location": url})
