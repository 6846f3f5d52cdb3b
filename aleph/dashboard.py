"""The dashboard of the administration: `aleph.insights` as a page and as CSV."""

import zoneinfo
from collections.abc import Iterator
from typing import cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import charts, insights, sheets
from aleph.accounts.models import User
from usage import rollups

RANGES = (7, 30, 90, 365)
USUAL = 30
NAMED = 5
HEAD = (
    "day",
    "provider",
    "model",
    "calls",
    "failed",
    "inputTokens",
    "outputTokens",
    "chargedTokens",
    "chargedIdr",
    "costUsd",
)


@require_safe
def dashboard(request: HttpRequest) -> HttpResponse:
    """For staff who may see calls. What the address does not say in a way that makes sense is taken as usual."""
    user = cast(User, request.user)
    if not user.has_perm("usage.view_tokenusage"):
        raise PermissionDenied
    wish = request.GET.get("days", "")
    days = next((days for days in RANGES if str(days) == wish), USUAL)
    period = insights.Period(days, zoneinfo.ZoneInfo(user.time_zone))
    if request.GET.get("format") == "csv":
        return sheets.whole(f"aleph-usage-{period.first}-{period.last}.csv", rows(period))
    day_by_day = insights.by_day(period, named=NAMED)
    return render(
        request,
        "admin/dashboard.html",
        {
            **admin.site.each_context(request),
            "title": _("Dashboard"),
            "days": days,
            "ranges": RANGES,
            "books": insights.books(),
            "totals": insights.totals(period.since, period.until),
            "before": insights.totals(*period.before),
            "chart": tokens_by_day(day_by_day),
            "is_blank": not day_by_day.models,
            "models": insights.by_model(period),
            "providers": insights.by_provider(timezone.now()),
            "people": insights.people(period),
            "cohorts": insights.retention(period.last),
            "weeks": range(1, insights.WEEKS),
            "conversations": insights.conversations(period),
        },
    )


def tokens_by_day(by_day: insights.ByDay) -> charts.Bars:
    calls = reverse("admin:usage_tokenusage_changelist")
    return charts.stacked_bars(
        element_id="by-day",
        title=_("Tokens by day, by model"),
        description=_("Stacked bars for %(first)s to %(last)s. The table below holds the same numbers.")
        % {"first": date_format(by_day.days[0], "j F"), "last": date_format(by_day.days[-1], "j F Y")},
        columns=[charts.Column(date_format(day, "j M"), calls) for day in by_day.days],
        series=[
            charts.Series(name or _("Others"), slot if name else charts.SLOTS, tokens)
            for slot, (name, tokens) in enumerate(by_day.models, 1)
        ],
    )


def rows(period: insights.Period) -> Iterator[sheets.Row]:
    """Each day, provider and model, newest day first."""
    yield HEAD
    found = rollups.totals(
        since=period.since,
        until=period.until,
        by=("day", "provider", "model"),
        zone=period.zone,
    )
    for row in sorted(found, key=lambda row: (-row["day"].toordinal(), row["provider"], row["model"])):
        yield (
            row["day"],
            row["provider"],
            row["model"],
            row["calls"],
            row["failed"],
            row["input_tokens"],
            row["output_tokens"],
            row["charged_tokens"],
            row["charged_idr_thousandths"] // 1000,
            row["total_cost_usd"],
        )
