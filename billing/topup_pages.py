"""The pages of top-ups: the form, the way to the gateway, what became of it, and the list.

Coming back from a gateway proves nothing: a top-up's page says what is known, and asks again until it is over. A form
must not lead to another host, which the policy forbids, so the way out is a page that goes on by itself.
"""

from datetime import timedelta
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_http_methods, require_safe

from aleph import rates
from aleph.accounts.entrance import posted
from aleph.accounts.models import User
from aleph.pages import page
from aleph.problems import InvalidRequest, Problem, noting_delay
from billing import amounts, ledger, topups
from billing.models import TopUp

CHIPS_IDR = (50_000, 100_000, 200_000, 500_000, 1_000_000)
STEP_IDR = 10_000
LIVE_S = 600
"""How long a page asks by itself after it was drawn, every three seconds; then its reader does."""
STOP_POLLING = 286
"""htmx's status for: this is the last answer."""


class NoAmount(InvalidRequest):
    text = _("Please write the amount in whole rupiah, such as 75.000.")


@require_safe
@page
def form(request: HttpRequest) -> HttpResponse:
    needed = request.GET.get("amount", "")
    amount = int(needed) if needed.isascii() and needed.isdecimal() and len(needed) < 10 else 0
    return _form(request, amount_idr=-(-amount // STEP_IDR) * STEP_IDR, return_to=request.GET.get("next", ""))


@require_http_methods(["GET", "HEAD", "POST"])
@page
def topup_list(request: HttpRequest) -> HttpResponse:
    """GET lists all of one's top-ups, POST begins one."""
    if request.method == "POST":
        return _start(request)
    before = request.GET.get("before")
    found = topups.recent(cast(User, request.user), before=before)
    return render(request, "billing/topups.html", {"page": found, "is_first_page": before is None})


@require_safe
@page
def topup(request: HttpRequest, topup_id: str) -> HttpResponse:
    found = topups.get(cast(User, request.user), topup_id)
    return render(request, "billing/topup.html", _shown(found, until=_until(request)))


@require_safe
@page
def way_out(request: HttpRequest, topup_id: str) -> HttpResponse:
    """To the gateway's page, where it may still be paid; else to what became of it."""
    found = topups.get(cast(User, request.user), topup_id)
    if found.state != TopUp.State.PENDING or not found.pay_url:
        return HttpResponse(status=303, headers={"Location": reverse("billing:topup", args=[found.pk])})
    return render(request, "billing/way_out.html", _shown(found))


@require_safe
@page
def state(request: HttpRequest, topup_id: str) -> HttpResponse:
    """The fragment that a top-up's page fetches while something may happen; nothing as long as nothing has."""
    context = _shown(topups.get(cast(User, request.user), topup_id), until=_until(request))
    if context["is_live"] and request.GET.get("seen") == context["version"]:
        return HttpResponse(status=204)
    status = 200 if context["is_live"] else STOP_POLLING
    return render(request, "billing/_topup.html", context, status=status)


@posted("billing:topup")
@page
def checks(request: HttpRequest, topup_id: str) -> HttpResponse:
    """Ask the gateway now."""
    user = cast(User, request.user)
    topups.get(user, topup_id)
    rates.take(request, "topup-check")
    try:
        topups.ask_for(user, topup_id)
    except topups.GatewayDown as problem:
        context = _shown(topups.get(user, topup_id), problem=problem)
        return render(request, "billing/topup.html", context, status=problem.status)
    return HttpResponse(status=303, headers={"Location": reverse("billing:topup", args=[topup_id])})


def _start(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    chip, own = request.POST.get("amount", ""), request.POST.get("own", "")
    amount = amounts.whole_in(chip or own)
    return_to = _path_of_ours(request.POST.get("next", ""))
    gateway, key = request.POST.get("gateway", ""), request.POST.get("key", "")
    try:
        rates.take(request, "topup")
        if amount is None:
            raise NoAmount
        begun = topups.start(user=user, amount_idr=amount, gateway=gateway, key=key, return_to=return_to)
    except Problem as problem:
        again = _form(
            request,
            amount_idr=amount or 0,
            own="" if chip else own,
            return_to=return_to,
            gateway=gateway,
            problem=problem,
        )
        return noting_delay(again, problem)
    return HttpResponse(status=303, headers={"Location": reverse("billing:topup_pay", args=[begun.pk])})


def _form(
    request: HttpRequest,
    *,
    amount_idr: int,
    return_to: str,
    own: str = "",
    gateway: str = "",
    problem: Problem | None = None,
) -> HttpResponse:
    balance = ledger.balance_of(cast(User, request.user))
    methods = topups.methods()
    return render(
        request,
        "billing/topup_form.html",
        {
            "balance": balance,
            "chips": [chip for chip in CHIPS_IDR if settings.TOPUP_MIN_IDR <= chip <= settings.TOPUP_MAX_IDR],
            "amount_idr": amount_idr or CHIPS_IDR[1],
            "own": own or (str(amount_idr) if amount_idr and amount_idr not in CHIPS_IDR else ""),
            "least_idr": settings.TOPUP_MIN_IDR,
            "most_idr": settings.TOPUP_MAX_IDR,
            "methods": methods,
            "chosen": gateway if any(gateway == method.name for method in methods) else "",
            "next": _path_of_ours(return_to),
            "problem": problem,
            "is_wrong": isinstance(problem, NoAmount | topups.WrongAmount),
        },
        status=problem.status if problem else 200,
    )


def _shown(found: TopUp, *, until: int = 0, **more: Any) -> dict[str, Any]:
    now = timezone.now()
    until = until or int(now.timestamp()) + LIVE_S
    # Whoever pays late comes back here, too.
    may_change = found.state in TopUp.OPEN or (
        found.state in TopUp.UNPAID and now - found.changed_at < timedelta(seconds=LIVE_S)
    )
    return {
        "topup": found,
        "label": found.label,
        "is_open": found.state in TopUp.OPEN,
        "is_live": may_change and now.timestamp() < until,
        "version": f"{found.state}-{found.refunded_idr}-{'flagged' if found.flag else ''}",
        "until": until,
        "return_to": _path_of_ours(found.return_to),
        **more,
    }


def _until(request: HttpRequest) -> int:
    """Until when this page wanted to ask; 0 where it was opened just now."""
    until = request.GET.get("until", "")
    return int(until) if until.isascii() and until.isdecimal() and len(until) < 12 else 0


def _path_of_ours(path: str) -> str:
    """`path` where it leads to a page of ours; else ""."""
    is_ours = path.startswith("/") and url_has_allowed_host_and_scheme(path, allowed_hosts=None)
    return path if is_ours and len(path) <= 200 and path.isprintable() else ""
