"""The billing pages: balances and packages, the confirm step, the receipt of a purchase.

They work without JavaScript, and every query starts from the person who is signed in.
"""

from dataclasses import dataclass
from typing import Self, cast

from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from aleph import rates
from aleph.accounts.entrance import posted
from aleph.accounts.models import User
from aleph.pages import page
from aleph.problems import Problem
from billing import ledger, receipts, statements, topups
from billing import purchases as shop
from billing.models import Package, QuantityDiscount

LATEST = 8
"""Entries of the history on the overview; the others have a page of their own."""


@dataclass(frozen=True, slots=True)
class Card:
    """A package on the page: what it saves against the first one, what several of it save, and what it brings on top if
    it is somebody's first purchase."""

    package: Package
    saving_percent: int
    steps: list[QuantityDiscount]
    first_bonus_tokens: int


@dataclass(frozen=True, slots=True)
class Order:
    """What a form asks for. A quantity that is none is 0, which nobody sells."""

    slug: str
    quantity: int
    promo_code: str

    @property
    def query(self) -> dict[str, str | int]:
        """The order in the address of its confirm step."""
        return {"quantity": self.quantity, **({"promo": self.promo_code} if self.promo_code else {})}

    @classmethod
    def of(cls, slug: str, form: QueryDict) -> Self:
        quantity = form.get("quantity", "1")
        is_number = quantity.isascii() and quantity.isdecimal() and len(quantity) < 6
        return cls(slug, int(quantity) if is_number else 0, form.get("promo", "").strip())


@dataclass(frozen=True, slots=True)
class Pace:
    """Tokens that replies have cost since this month began, and the days that what is left lasts so; None if unknown."""

    used: int
    days_left: int | None


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    balance = ledger.balance_of(user)
    packages = shop.packages()
    return render(
        request,
        "billing/home.html",
        {
            "balance": balance,
            "pace": pace_of(user, balance),
            "cards": cards_of(user, packages),
            "history": statements.history(
                user, wanted=statements.Filter(timezone.get_current_timezone()), limit=LATEST
            ),
            "can_top_up": bool(topups.methods()),
            "topups": topups.recent(user, limit=3),
        },
    )


@require_safe
@page
def confirm(request: HttpRequest, slug: str) -> HttpResponse:
    order = Order.of(slug, request.GET)
    if order.promo_code:
        rates.take(request, "promo")
    return _confirm(request, order)


@posted("billing:home")
@page
def purchases(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    rates.take(request, "purchase")
    order = Order.of(request.POST.get("package", ""), request.POST)
    try:
        purchase = shop.buy(
            user=user,
            package_slug=order.slug,
            quantity=order.quantity,
            promo_code=order.promo_code,
            key=request.POST.get("key", ""),
            terms=request.POST.get("terms"),
        )
    except (ledger.InsufficientWallet, shop.TermsChanged, shop.PromoRefused) as problem:
        return _confirm(request, order, problem)
    return HttpResponse(status=303, headers={"Location": reverse("billing:receipt", args=[purchase.pk])})


@require_safe
@page
def receipt(request: HttpRequest, purchase_id: str) -> HttpResponse:
    found = receipts.of(cast(User, request.user), purchase_id)
    return render(request, "billing/receipt.html", {"receipt": found, "purchase": found.purchase})


@require_safe
@page
def receipt_as_pdf(request: HttpRequest, purchase_id: str) -> HttpResponse:
    rates.take(request, "export")
    return receipts.as_pdf(receipts.of(cast(User, request.user), purchase_id))


def cards_of(user: User, packages: list[Package]) -> list[Card]:
    steps, bonuses = shop.steps(packages), shop.first_bonuses(user)
    return [
        Card(
            package,
            shop.saving_percent(package, against=packages[0]),
            steps.get(package.pk, []),
            shop.first_bonus(bonuses, package.price_idr),
        )
        for package in packages
    ]


def pace_of(user: User, balance: ledger.Balance) -> Pace:
    now = timezone.localtime()
    used = statements.used_tokens(user, since=now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
    return Pace(used, balance.available * now.day // used if used else None)


def _confirm(request: HttpRequest, order: Order, problem: Problem | None = None) -> HttpResponse:
    """The confirm step as it is at this moment; a code that does not hold is named, and left out of what is asked."""
    user = cast(User, request.user)
    package = shop.offered(order.slug)
    refused = problem if isinstance(problem, shop.PromoRefused) else None
    try:
        quote = shop.quote(
            user=user,
            package_slug=order.slug,
            quantity=order.quantity,
            promo_code="" if refused else order.promo_code,
        )
    except shop.PromoRefused as refusal:
        refused = refusal
        quote = shop.quote(user=user, package_slug=order.slug, quantity=order.quantity)
    balance = ledger.balance_of(user)
    return render(
        request,
        "billing/confirm.html",
        {
            "package": package,
            "order": order,
            "most": shop.MAX_QUANTITY,
            "steps": shop.steps([package]).get(package.pk, []),
            "quote": quote,
            "lines": receipts.lines_of(quote),
            "promo_problem": refused,
            "balance": balance,
            "wallet_after_idr": balance.wallet_idr - quote.price_idr,
            "tokens_after": balance.tokens + quote.total_tokens,
            "missing_idr": max(0, quote.price_idr - balance.wallet_idr),
            "can_top_up": bool(topups.methods()),
            "here": f"{reverse('billing:confirm', args=[order.slug])}?{urlencode(order.query)}",
            "has_changed": isinstance(problem, shop.TermsChanged),
        },
        status=problem.status if problem else 200,
    )
