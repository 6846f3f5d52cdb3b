"""A page of somebody's own, for the apps beside the chat, which has fragments and rules of its own (`chat.pages`)."""

from collections.abc import Callable
from functools import wraps

from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.cache import never_cache

from aleph.accounts.entrance import signed_in
from aleph.problems import Problem, noting_delay

View = Callable[..., HttpResponseBase]


def page(view: View) -> View:
    """A page of the person who is signed in, of which nobody keeps a copy. Expected errors become a page of their own."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except Problem as problem:
            whole = render(request, "shell/problem.html", {"problem": problem}, status=problem.status)
            return noting_delay(whole, problem)

    return never_cache(signed_in(guarded))
