"""The billing pages: balances and packages, the confirm step, the receipt of a purchase.

They work without JavaScript, and every query starts from the person who is signed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import cast

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from aleph import rates
from aleph.accounts.models import User
from aleph.problems import Problem, noting_delay
from billing import ledger, statements
from billing import purchases as shop
from billing.models import Package, Unit

View = Callable[..., HttpResponse]


@dataclass(frozen=True, slots=True)
class Card:
    """A package on the page; `saving_percent` is against the first one."""

    package: Package
    saving_percent: int


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens that replies have cost since this month began, and the days that what is left lasts so; None if unknown."""

    used: int
    days_left: int | None


def page(view: View) -> View:
    """A page of the person who is signed in, of which nobody keeps a copy. Expected errors become a page of their own."""

    @wraps(view)
    def guarded(request: HttpRequest, *args: str, **kwargs: str) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except Problem as problem:
            whole = render(request, "shell/problem.html", {"problem": problem}, status=problem.status)
            return noting_delay(whole, problem)

    return never_cache(login_required(guarded))


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    unit = Unit.IDR if request.GET.get("unit") == "idr" else Unit.TOKEN
    balance = ledger.balance_of(user)
    packages = shop.packages()
    return render(
        request,
        "billing/home.html",
        {
            "balance": balance,
            "pace": pace_of(user, balance),
            "cards": [
                Card(package, shop.saving_percent(package, against=packages[0])) for package in packages
            ],
            "history": statements.history(user, unit=unit, cursor=request.GET.get("before")),
            "is_first_page": "before" not in request.GET,
        },
    )


@require_safe
@page
def confirm(request: HttpRequest, slug: str) -> HttpResponse:
    return _confirm(request, shop.offered(slug))


@require_POST
@page
def purchases(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    rates.take(request, "purchase")
    slug, key = request.POST.get("package", ""), request.POST.get("key", "")
    try:
        purchase = shop.buy(user=user, package_slug=slug, key=key, terms=request.POST.get("terms"))
    except (ledger.InsufficientWallet, shop.TermsChanged) as problem:
        return _confirm(request, shop.offered(slug), problem)
    return HttpResponse(status=303, headers={"Location": reverse("billing:receipt", args=[purchase.pk])})


@require_safe
@page
def receipt(request: HttpRequest, purchase_id: str) -> HttpResponse:
    purchase = shop.receipt(cast(User, request.user), purchase_id)
    return render(
        request,
        "billing/receipt.html",
        {"purchase": purchase, "transfers": shop.transfers_of(purchase)},
    )


def pace_of(user: User, balance: ledger.Balance) -> Pace:
    now = timezone.localtime()
    used = statements.used_tokens(user, since=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    return Pace(used, balance.available * now.day // used if used else None)


def _confirm(request: HttpRequest, package: Package, problem: Problem | None = None) -> HttpResponse:
    balance = ledger.balance_of(cast(User, request.user))
    return render(
        request,
        "billing/confirm.html",
        {
            "package": package,
            "balance": balance,
            "wallet_after_idr": balance.wallet_idr - package.price_idr,
            "tokens_after": balance.tokens + package.total_tokens,
            "missing_idr": max(0, package.price_idr - balance.wallet_idr),
            "has_changed": isinstance(problem, shop.TermsChanged),
        },
        status=problem.status if problem else 200,
    )
