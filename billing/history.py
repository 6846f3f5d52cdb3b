"""The history of somebody's balances: the page with its filters, and the same as CSV."""

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import rates, sheets
from aleph.accounts.models import User
from aleph.pages import page as guarded
from billing import statements
from billing.models import Transfer, Unit

BATCH = 500
"""Entries that a CSV reads at a time."""


@require_safe
@guarded
def page(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    wanted = statements.Filter.read(request.GET, timezone.get_current_timezone())
    cursor = request.GET.get("before", "")
    return render(
        request,
        "billing/history.html",
        {
            "wanted": wanted,
            "history": statements.history(user, wanted=wanted, cursor=cursor),
            "holds": statements.open_holds(user) if not cursor and not wanted.is_narrow else [],
            "is_first_page": not cursor,
            "kinds": kinds(),
            "units": Unit,
        },
    )


@require_safe
@guarded
def as_csv(request: HttpRequest) -> HttpResponseBase:
    """Every transfer of the filter, newest first. Its figures are whole tokens and whole rupiah."""
    rates.take(request, "export")
    user = cast(User, request.user)
    zone = timezone.get_current_timezone()
    wanted = statements.Filter.read(request.GET, zone)
    names = kinds()

    def following(cursor: str | None) -> tuple[list[sheets.Row], str | None]:
        found = statements.transactions(user, wanted=wanted, cursor=cursor, limit=BATCH)
        rows: list[sheets.Row] = [
            (
                timezone.localtime(entry.at, zone),
                entry.id,
                names.get(entry.kind, entry.kind),
                entry.unit,
                entry.amount,
                entry.balance_after,
                entry.reference,
                entry.reason,
            )
            for entry in found.entries
        ]
        return rows, found.older

    head = (
        _("Date"),
        _("Transfer"),
        _("Kind"),
        _("Unit"),
        _("Amount"),
        _("Balance after"),
        _("Reference"),
        _("Reason"),
    )
    return sheets.streamed("aleph-history.csv", head, following)


def kinds() -> dict[str, str]:
    """The kinds of entries, named in the reader's language."""
    return {
        Transfer.Kind.REPLY.value: _("Reply"),
        Transfer.Kind.PURCHASE.value: _("Purchase"),
        Transfer.Kind.BONUS.value: _("Bonus"),
        Transfer.Kind.TOPUP.value: _("Top-up"),
        Transfer.Kind.REFUND.value: _("Refund"),
        Transfer.Kind.ADJUSTMENT.value: _("Adjustment"),
    }
