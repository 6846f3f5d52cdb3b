"""The figures over somebody's usage page as they change, while it is looked at: at once when a reply of his is written or ends,
and now and then for what nobody rings for (other programs' calls, a purchase)."""

import asyncio
from collections.abc import AsyncIterator
from typing import cast

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string
from django.utils import timezone, translation

from aleph.accounts.models import User
from aleph.problems import Problem, RateLimited
from aleph.threads import in_thread
from chat import live, viewers
from chat import stream as relay
from usage import currency, figures, neighbours
from usage.daily import Daily
from usage.wishes import Wish

REST_S = 1.0
"""Figures do not change more often than they can be read."""
LOOK_S = 10.0
"""Silence after which the figures are looked at again; a comment then keeps proxies awake."""


def stream(request: HttpRequest) -> HttpResponseBase:
    """The events of the usage page: `figures`, where they are others than those it has `seen`; `calls`, when the list of
    calls has changed; `leave`, for whoever is not signed in (any more)."""
    if (refusal := live.refusal(request)) is not None:
        return refusal
    if not request.user.is_authenticated:
        return HttpResponse(live.event("leave", ""), headers=live.HEADERS)
    try:
        seat = viewers.admit(request, kind="figures")
    except RateLimited as problem:
        return HttpResponse(status=problem.status)
    page = _Page(request, request.GET.get("seen", ""))
    events = viewers.Watched(seat, None, _events(page), farewell=_farewell, comes_back=True)
    return live.EventStream(events)


def _farewell(problem: Problem) -> str:
    """Another process goes on where this one is asked to go: the browser connects again."""
    return ": to another\n\n" if isinstance(problem, viewers.Leaving) else live.event("leave", "")


async def _events(page: "_Page") -> AsyncIterator[str]:
    clock = asyncio.get_running_loop()
    began = clock.time()
    yield f"retry: {1000 + hash(page) % 4000}\n\n"
    async with relay.hub().listen(page.user.pk) as news:
        while clock.time() - began < live.CONNECTION_S:
            try:
                events = await in_thread(page.draw)
            except (OperationalError, InterfaceError):
                events = ""  # A database that is away for a moment ends nobody's watching.
            yield events or ": still here\n\n"
            await asyncio.sleep(REST_S)
            await news.wait(LOOK_S)


class _Page:
    """What one page shows, and what it was drawn from."""

    def __init__(self, request: HttpRequest, seen: str) -> None:
        self.user = cast(User, request.user)
        self.language = translation.get_language()
        self.time_zone = timezone.get_current_timezone()
        self.seen = seen
        self.newest = seen.partition(".")[0]
        self._past: Daily | None = None
        self._past_until: tuple[object, ...] = ()

    def draw(self) -> str:
        """The events that bring the page up to date; "" where it is. In a thread."""
        user = self.user
        newest = figures.newest(user)
        balance = neighbours.ask().balance_of(user)
        writing = neighbours.ask().being_written(user)
        today = Wish.read(user, {}).today
        seen = figures.seen(newest, today, balance.available, is_writing=bool(writing))
        if seen == self.seen and not writing:
            return ""
        with translation.override(self.language), timezone.override(self.time_zone):
            # All calls of some weeks: read again only when there are others.
            if self._past_until != (newest, today):
                self._past, self._past_until = figures.read(user), (newest, today)
            found = figures.of(
                user,
                newest=newest,
                available_tokens=balance.available,
                rates=currency.rates_until(today),
                calls=self._past,
                writing=writing,
            )
            events = live.event("figures", render_to_string("usage/_figures.html", {"figures": found}))
        if newest != self.newest:
            events += live.event("calls", "")
        self.seen, self.newest = seen, newest
        return events
