"""The usage page: what a person's own calls used and cost."""

from typing import cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import charts
from aleph.accounts.models import User
from usage import currency, reports

RANGES = (7, 30, 90)
USUAL = 30


@login_required
@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """What the address does not say in a way that makes sense, the page takes as it usually is."""
    user = cast(User, request.user)
    wish = request.GET.get("days", "")
    days = next((days for days in RANGES if str(days) == wish), USUAL)
    before = request.GET.get("before", "")
    try:
        calls = reports.recent(user, before=before)
    except reports.InvalidCursor:
        before, calls = "", reports.recent(user)
    if not calls.calls and not before:
        return render(request, "usage/empty.html")
    by_day = reports.by_day(user, days)
    figures = reports.figures(user)
    rate = currency.rate_on(figures.today)
    return render(
        request,
        "usage/home.html",
        {
            "figures": figures,
            "rate": rate,
            "cost_month_idr": currency.in_idr(figures.cost_month_usd, rate),
            "chart": tokens_by_day(by_day, days),
            "is_blank": not by_day.models,
            "calls": calls,
            "before": before,
            "days": days,
            "ranges": RANGES,
        },
    )


def tokens_by_day(by_day: reports.ByDay, days: int) -> charts.Bars:
    """The stacks of the report; each leads to the calls of its day."""
    first, last = by_day.days[0].on, by_day.days[-1].on
    return charts.stacked_bars(
        element_id="by-day",
        title=_("Tokens by day, by model"),
        description=_("Stacked bars for %(first)s to %(last)s. The table below holds the same numbers.")
        % {"first": date_format(first, "j F"), "last": date_format(last, "j F Y")},
        columns=[
            charts.Column(date_format(day.on, "j M"), f"?days={days}&before={day.cursor}#calls")
            for day in by_day.days
        ],
        series=[
            charts.Series(model.name, charts.SLOTS if model.is_rest else slot, model.tokens)
            for slot, model in enumerate(by_day.models, 1)
        ],
    )
