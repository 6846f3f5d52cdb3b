"""The dashboard of the administration: `aleph.insights` as a page and as CSV."""

import zoneinfo
from collections.abc import Iterator
from typing import TypedDict, cast

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import charts, insights, sheets
from aleph.accounts.models import User
from aleph.templatetags.aleph import signed
from billing.statements import day_in
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
    picked, period = period_of(request.GET, zoneinfo.ZoneInfo(user.time_zone))
    if request.GET.get("format") == "csv":
        name = f"{period.first}-{period.last}.csv"
        if request.GET.get("of") == "sales":
            return sheets.whole(f"aleph-sales-{name}", sales_rows(period))
        return sheets.whole(f"aleph-usage-{name}", rows(period))
    calls = insights.read(period)
    over_time = insights.over_time(period, calls, named=NAMED)
    sales = insights.sales(period)
    totals, before = insights.totals(period.since, period.until, calls), insights.totals(*period.before)
    revenue_before = insights.revenue_idr(*period.before)
    return render(
        request,
        "admin/dashboard.html",
        {
            **admin.site.each_context(request),
            "title": _("Dashboard"),
            "days": period.days,
            "picked": picked,
            "period": period,
            "ranges": RANGES,
            "query": f"from={period.first}&to={period.last}",
            "books": insights.books(),
            "totals": totals,
            "before": before,
            "sales": sales,
            "revenue_change": change(sales.revenue_idr, revenue_before),
            "tokens_chart": tokens_over_time(over_time, period),
            "revenue_chart": revenue_over_time(sales, period),
            "sold_chart": sold_and_used(sales, over_time, period),
            "margin_chart": charged_and_cost(over_time, period),
            "models": insights.by_model(period, calls),
            "providers": insights.by_provider(period, calls),
            "people": insights.people(period),
            "cohorts": insights.retention(period.last),
            "weeks": range(1, insights.WEEKS),
            "conversations": insights.conversations(period),
            "accuracies": insights.accuracies(),
        },
    )


def period_of(said: QueryDict, zone: zoneinfo.ZoneInfo) -> tuple[int, insights.Period]:
    """The days that an address names, and which of `RANGES` they are; 0 where it says from when to when, of which a year
    is shown at most."""
    today = timezone.localdate(timezone=zone)
    ends = sorted(filter(None, (day_in(said.get("from", "")), day_in(said.get("to", "")))))
    if ends:
        last = min(today, ends[-1] if len(ends) == 2 else today)
        days = min(RANGES[-1], (last - min(ends[0], last)).days + 1)
        return 0, insights.Period(days, zone, last)
    picked = next((days for days in RANGES if str(days) == said.get("days")), USUAL)
    return picked, insights.Period(picked, zone)


def change(now: int, before: int) -> str:
    """By how much it is more or less: ``+12%``; "" where there was nothing."""
    return f"{signed((200 * (now - before) + before) // (2 * before))}%" if before else ""


def tokens_over_time(found: insights.OverTime, period: insights.Period) -> charts.Bars:
    series = [
        charts.Series(name or _("Others"), slot if name else charts.SLOTS, tokens)
        for slot, (name, tokens) in enumerate(found.models, 1)
    ]
    return charts.stacked_bars(
        element_id="tokens", title=_("LLM tokens by model"), series=series, **axis(period)
    )


def revenue_over_time(sales: insights.Sales, period: insights.Period) -> charts.Bars:
    series = [
        charts.Series(line.name, min(slot, charts.SLOTS), revenue)
        for slot, (line, revenue) in enumerate(zip(sales.packages, sales.revenue_over_time, strict=True), 1)
    ]
    return charts.stacked_bars(
        element_id="revenue",
        title=_("Revenue by package"),
        series=series,
        measure=charts.IDR,
        **axis(period),
    )


def sold_and_used(sales: insights.Sales, found: insights.OverTime, period: insights.Period) -> charts.Bars:
    series = [
        charts.Series(_("Sold, with bonus"), 1, sales.tokens_over_time),
        charts.Series(_("Used"), 2, found.charged_tokens),
    ]
    return charts.lines(element_id="sold", title=_("Tokens sold and used"), series=series, **axis(period))


def charged_and_cost(found: insights.OverTime, period: insights.Period) -> charts.Bars:
    series = [charts.Series(_("Charged"), 1, found.charged_idr)]
    if found.cost_idr is not None:
        margin = [
            max(0, charged - cost) for charged, cost in zip(found.charged_idr, found.cost_idr, strict=True)
        ]
        series += [
            charts.Series(_("Providers’ cost"), 2, found.cost_idr),
            charts.Series(_("Margin"), 4, margin),
        ]
    return charts.lines(
        element_id="margin",
        title=_("Charge, cost and margin"),
        series=series,
        measure=charts.IDR,
        **axis(period),
    )


class Axis(TypedDict):
    columns: list[charts.Column]
    description: str


def axis(period: insights.Period) -> Axis:
    """What all charts of a period have in common; each column leads to its own days."""
    return {
        "columns": [
            charts.Column(
                date_format(column.first, "j M")
                if column.first == column.last
                else f"{date_format(column.first, 'j M')} – {date_format(column.last, 'j M')}",
                f"?from={column.first}&to={column.last}",
                date_format(column.first, "j M"),
            )
            for column in period.columns
        ],
        "description": _("From %(first)s to %(last)s. The table below holds the same numbers.")
        % {"first": date_format(period.first, "j F"), "last": date_format(period.last, "j F Y")},
    }


def sales_rows(period: insights.Period) -> Iterator[sheets.Row]:
    """Each package over time, oldest days first."""
    found = insights.sales(period)
    yield "from", "to", "package", "revenueIdr"
    for place, column in enumerate(period.columns):
        for line, revenue in zip(found.packages, found.revenue_over_time, strict=True):
            yield column.first, column.last, line.name, revenue[place]


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
