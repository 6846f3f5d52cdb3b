"""The usage pages: what a person's own calls used and cost, and why."""

from decimal import Decimal
from typing import cast

from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import charts, rates, sheets
from aleph.accounts.models import User
from aleph.pages import page
from aleph.templatetags.aleph import signed
from usage import (
    budget_pages,
    calls_sheet,
    currency,
    daily,
    explained,
    figures,
    neighbours,
    overview,
    reports,
)
from usage.models import TokenUsage
from usage.wishes import COST, DAY, DEAREST, GRAINS, MONTH, PRESETS, Wish

MOST_DAYS_BEFORE = 31
KEPT = ("by", "show", "session", "sort")
"""What of an address the form of the filters says again without showing it."""


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    """What the address does not say in a way that makes sense, the page takes as it usually is."""
    user = cast(User, request.user)
    wish = Wish.read(user, request.GET)
    before = request.GET.get("before", "")
    try:
        calls = overview.calls(user, wish, before=before)
    except reports.InvalidCursor:
        before, calls = "", overview.calls(user, wish)
    newest = _newest(user, wish, calls, before)
    if not newest:
        return render(request, "usage/empty.html")
    known = currency.rates_until(wish.today)
    past = _past(user, wish)
    found = overview.of(user, wish, known, past)
    chats = overview.chats(user, wish)
    titles = neighbours.ask().titles(user, {chat.session_id for chat in chats} | ({wish.session} - {""}))
    return render(
        request,
        "usage/home.html",
        {
            **_figures(user, newest, known, past),
            "wish": wish,
            "found": found,
            "is_blank": not found.whole.calls,
            "chart": over_time(found, wish),
            "change": _change(found, wish),
            "arcs": charts.ring([line.sums.tokens for line in found.by_operation]),
            "ring_value": charts.rounded(found.whole.tokens),
            "operations": [(line, wish.query(operation=line.key)) for line in found.by_operation],
            "by_model": _by_cost(found, wish),
            "calls": calls,
            "before": before,
            "sheets": budget_pages.sheets_of(user),
            "chats": [
                (chat, titles.get(chat.session_id), wish.query(session=chat.session_id)) for chat in chats
            ],
            "session_title": titles.get(wish.session),
            "statuses": TokenUsage.Status.choices,
            "kept": [(name, wish.places[name]) for name in KEPT if name in wish.places],
            "presets": [(days, wish.query(days=days)) for days in PRESETS],
            "grains": [(grain, wish.query(by=grain)) for grain in GRAINS],
            "tokens_query": wish.query(show=""),
            "cost_query": wish.query(show=COST),
            "newest_query": wish.query(sort=""),
            "dearest_query": wish.query(sort=DEAREST),
            "older_query": wish.query(before=calls.older),
            "without_session": wish.query(session=""),
            "csv_query": wish.query(),
        },
    )


@require_safe
@page
def as_csv(request: HttpRequest) -> HttpResponseBase:
    """The calls that the page shows, all of them."""
    rates.take(request, "export")
    user = cast(User, request.user)
    wish = Wish.read(user, request.GET)
    return sheets.streamed(
        f"aleph-usage-{wish.first}-{wish.last}.csv",
        calls_sheet.HEAD,
        lambda cursor: calls_sheet.rows(user, wish, cursor),
    )


@require_safe
@page
def call(request: HttpRequest, call_id: str) -> HttpResponse:
    return render(request, "usage/call.html", {"explained": explained.of(cast(User, request.user), call_id)})


def _newest(user: User, wish: Wish, calls: reports.Page, before: str) -> str:
    """The id of the newest call, which the first page of the list shows where it is not narrowed down."""
    is_newest_first = not (before or wish.is_narrow or wish.sort) and wish.last == wish.today
    return calls.calls[0].id if is_newest_first and calls.calls else figures.newest(user)


def _past(user: User, wish: Wish) -> daily.Daily | None:
    """The calls that both the overview and the figures add up, where these look at the same ones; with those of the days
    before, unless these are so many that it is quicker to ask for their sum."""
    if wish.last != wish.today or wish.status or wish.session:
        return None
    return figures.read(user, since=wish.first_before if wish.length <= MOST_DAYS_BEFORE else wish.first)


def _figures(user: User, newest: str, known: currency.Rates, past: daily.Daily | None) -> dict[str, object]:
    balance = neighbours.ask().balance_of(user)
    found = figures.of(user, newest=newest, available_tokens=balance.available, rates=known, calls=past)
    return {"balance": balance, "figures": found}


def over_time(found: overview.Overview, wish: Wish) -> charts.Bars:
    """Tokens or cost by day, week or month; each column leads to its own days."""
    is_cost = wish.show == COST
    first, last = wish.first, wish.last
    return charts.stacked_bars(
        element_id="over-time",
        title=_("Cost over time, by model") if is_cost else _("Tokens over time, by model"),
        description=_("Stacked bars for %(first)s to %(last)s. The table below holds the same numbers.")
        % {"first": date_format(first, "j F Y"), "last": date_format(last, "j F Y")},
        columns=[
            charts.Column(
                label_of(column, wish),
                wish.query(**{"from": column.first, "to": column.last, "by": ""}) + "#calls",
                date_format(column.first, "M" if wish.grain == MONTH else "j M"),
            )
            for column in found.columns
        ],
        series=[
            charts.Series(
                _("Others") if series.is_rest else series.name,
                charts.SLOTS if series.is_rest else slot,
                series.cost_micro_usd if is_cost else series.tokens,
            )
            for slot, series in enumerate(found.series, 1)
        ],
        measure=charts.MICRO_USD if is_cost else charts.COUNT,
    )


def _change(found: overview.Overview, wish: Wish) -> str:
    """By how much it is more or less than in the days before: ``+12%``; "" where there was nothing."""
    now, then = found.whole.tokens, found.before.tokens
    if wish.show == COST:
        now, then = (int(sums.cost_usd * 1_000_000) for sums in (found.whole, found.before))
    if not then:
        return ""
    percent = (200 * (now - then) + then) // (2 * then)
    return f"{signed(percent)}%"


def _by_cost(found: overview.Overview, wish: Wish) -> list[tuple[overview.Line, str, str]]:
    """The models, dearest first, each with the address that picks it and the length of its bar."""
    lines = sorted(found.by_model, key=lambda line: -line.sums.cost_usd)
    dearest = max((line.sums.cost_usd for line in lines), default=Decimal(0)) or Decimal(1)
    return [
        (line, wish.query(model=line.key), f"{100 * line.sums.cost_usd / dearest:.1f}%") for line in lines
    ]


def label_of(column: overview.Column, wish: Wish) -> str:
    """A day by itself, a whole month by its name, anything between by its first and last day."""
    if wish.grain == DAY:
        return date_format(column.first, "j M")
    if wish.grain == MONTH and column.first.day == 1 and column.last != wish.last:
        return date_format(column.first, "M Y")
    if column.first == column.last:
        return date_format(column.first, "j M")
    if column.first.month == column.last.month:
        return f"{column.first.day}–{date_format(column.last, 'j M')}"
    return f"{date_format(column.first, 'j M')} – {date_format(column.last, 'j M')}"
