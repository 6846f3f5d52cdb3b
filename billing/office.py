"""Two pages of the administration about money: the search over everything, and the figures with their CSV.

For staff who may see purchases and transfers; others are refused by Django's own permissions.
"""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

from django.contrib import admin
from django.contrib.auth.decorators import permission_required
from django.db.models import Model, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import sheets
from aleph.accounts.models import User
from aleph.templatetags.aleph import count, rupiah
from billing import figures, history, ledger
from billing.models import Account, Correction, Purchase, TopUp, Transfer, Unit
from billing.statements import day_in

MOST = 20
"""Rows of a kind that a search shows; the lists of the administration have all."""

LONGEST = timedelta(days=3660)
"""Of a stretch of time that figures are asked for."""

View = Callable[..., HttpResponse]


class Found(NamedTuple):
    """Rows of one kind that a search has found, each with its address and what it says."""

    name: str
    rows: list[tuple[str, str]]


def for_staff(view: View) -> View:
    """A page of the administration for whoever may see the books."""
    allowed = permission_required(["billing.view_transfer", "billing.view_purchase"], raise_exception=True)
    return admin.site.admin_view(require_safe(allowed(view)))


def context(request: HttpRequest, title: str) -> dict[str, Any]:
    return {**admin.site.each_context(request), "title": title}


@for_staff
def search(request: HttpRequest) -> HttpResponse:
    """By a person's address, a receipt's number, or any id: ours, or the gateway's."""
    term = request.GET.get("q", "").strip().replace("\x00", "")[:200]
    said = context(request, _("Search in billing")) | {
        "term": term,
        "found": list(found(term)) if term else [],
    }
    return render(request, "admin/billing/search.html", said)


def found(term: str) -> Iterator[Found]:
    """Every kind of row that the term names. A term with an @ is a person's whole address."""
    if "@" in term:
        people = list(User.objects.filter(email__iexact=term)[:MOST])
        yield from _rows_of(people)
        mine = Q(user__in=people)
        accounts, bought, topups, corrected = mine, mine, mine, mine
    else:
        accounts = Q(pk__in=[])
        bought = Q(pk=term) | Q(number=term.upper())
        topups = Q(pk=term) | Q(gateway_id=term) | Q(payment_id=term)
        corrected = Q(pk=term) | Q(purchase=term)
    yield from _rows_of(Account.objects.filter(accounts).select_related("user").order_by("pk")[:MOST])
    yield from _rows_of(Purchase.objects.filter(bought).select_related("user").order_by("-pk")[:MOST])
    yield from _rows_of(TopUp.objects.filter(topups).select_related("user").order_by("-pk")[:MOST])
    yield from _rows_of(Correction.objects.filter(corrected).select_related("user").order_by("-pk")[:MOST])
    if "@" not in term:
        yield from _rows_of(Transfer.objects.filter(Q(pk=term) | Q(key=term)).order_by("-pk")[:MOST])


def _rows_of(rows: Iterable[Model]) -> Iterator[Found]:
    listed = [(_address_of(row), said(row), str(capfirst(row._meta.verbose_name_plural))) for row in rows]
    if listed:
        yield Found(listed[0][2], [(address, text) for address, text, _name in listed])


def _address_of(row: Model) -> str:
    """Where the administration shows a row, "" where it does not."""
    if not admin.site.is_registered(type(row)):
        return ""
    return reverse(f"admin:{row._meta.app_label}_{row._meta.model_name}_change", args=[row.pk])


def said(row: Model) -> str:
    """What tells a row from its neighbours."""
    match row:
        case Purchase():
            return f"{row.number} · {row.user} · {row.package_name} · {rupiah(row.price_idr)}"
        case TopUp():
            return (
                f"{row.pk} · {row.user} · {row.label} · {rupiah(row.amount_idr)} · {row.get_state_display()}"
            )
        case Correction():
            moved = amount(row.amount, ledger.UNIT_OF[row.account])
            parts = (row.pk, row.user, row.get_kind_display(), moved, row.get_state_display())
            return " · ".join(str(part) for part in parts if part)
        case Transfer():
            moved = amount(row.amount, row.unit)
            return f"{row.pk} · {row.get_kind_display()} · {row.get_phase_display()} · {moved}"
        case Account():
            return f"{row.user} · {amount(row.balance, row.unit)}"
        case _:
            return str(row)


def amount(number: int, unit: str) -> str:
    return rupiah(number) if unit == Unit.IDR else _("%(tokens)s tokens") % {"tokens": count(number)}


@for_staff
def overview(request: HttpRequest) -> HttpResponse:
    shown = _figures(request)
    if request.GET.get("as") == "csv":
        return sheets.whole(f"aleph-figures-{shown.since}-{shown.until}.csv", csv_rows(shown))
    return render(
        request,
        "admin/billing/figures.html",
        context(request, _("Figures of billing")) | {"figures": shown, "kinds": history.kinds()},
    )


def _figures(request: HttpRequest) -> figures.Figures:
    """Of the days that the address names, by default of this month."""
    today = timezone.localdate()
    since = day_in(request.GET.get("from", "")) or today.replace(day=1)
    until = day_in(request.GET.get("to", "")) or max(today, since)
    first, last = sorted((since, until))
    return figures.of(since=max(first, last - LONGEST), until=last, zone=timezone.get_current_timezone())


def csv_rows(shown: figures.Figures) -> Iterator[sheets.Row]:
    names = history.kinds()
    yield _("Figure"), _("What"), _("Number"), _("Tokens"), _("Rupiah")
    for line in shown.sold:
        yield _("Revenue"), line.package, line.purchases, line.tokens, line.revenue_idr
        yield _("Bonus"), line.package, line.purchases, line.bonus_tokens, None
        yield _("Refunded"), line.package, None, None, line.refunded_idr
    for moved in shown.moved:
        tokens = moved.tokens if moved.is_in else -moved.tokens
        yield _("Tokens"), names.get(moved.kind, moved.kind), moved.number, tokens, None
    for paid in shown.paid:
        yield (
            _("Top-ups"),
            f"{paid.gateway} {paid.state_name}",
            paid.number,
            None,
            paid.amount_idr,
        )
    owed = shown.owed
    yield _("Owed now"), _("Tokens"), None, owed.tokens, owed.value_idr
    yield _("Owed now"), _("Of these bonus"), None, owed.bonus, 0
    yield _("Owed now"), _("Of these held"), None, owed.held, None
    yield _("Owed now"), _("Wallets"), None, None, owed.wallets_idr
