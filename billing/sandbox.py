"""The sandbox gateway from the inside: its page, what it answers to programs, and the notices that it sends.

Development only: everything here is 404 unless `billing.topups.connected` has the sandbox. It plays a gateway as honestly
as it can: the shop learns of a payment only by a signed notice at the public address, or by asking.
"""

from typing import cast

import structlog
from celery import current_app
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_safe

from aleph import ids
from aleph.accounts.models import User
from aleph.pages import page
from billing import topups
from billing.gateways.base import GatewayError
from billing.gateways.sandbox import MERCHANT, Sandbox
from billing.models import SandboxPayment, TopUp

log = structlog.get_logger(__name__)

ACTIONS = {
    # what happens there: (the states it is possible in, the state after it, how many notices are sent of it)
    "pay": ({"pending", "failed", "expired"}, "paid", 1),
    "pay-twice": ({"pending"}, "paid", 3),
    "pay-silently": ({"pending"}, "paid", 0),
    "pay-short": ({"pending"}, "paid", 1),
    "fail": ({"pending"}, "failed", 1),
    "expire": ({"pending"}, "expired", 1),
    "refund-half": ({"paid"}, "paid", 1),
    "refund": ({"paid"}, "paid", 1),
    "repeat": ({"paid", "failed", "expired"}, "", 1),
    "stale": ({"paid"}, "", 1),
}


@require_http_methods(["GET", "HEAD", "POST"])
@page
def payment(request: HttpRequest, topup_id: str) -> HttpResponse:
    """The page of a payment; POST does one of `ACTIONS` to it."""
    _gateway()
    topup = topups.get(cast(User, request.user), topup_id)
    if topup.gateway != Sandbox.name:
        raise Http404
    if request.method == "POST":
        act(topup, request.POST.get("action", ""))
        paid = request.POST.get("action", "").startswith("pay")
        place = "billing:topup" if paid else "billing:sandbox"
        return HttpResponse(status=303, headers={"Location": reverse(place, args=[topup.pk])})
    known = SandboxPayment.objects.filter(pk=topup.pk).first() or _opened(topup)
    return render(request, "billing/sandbox.html", {"topup": topup, "payment": known})


@require_safe
def status(request: HttpRequest, reference: str) -> HttpResponse:
    """What a payment is, for the shop, which has the key."""
    if not _gateway().knows(request.headers.get("Authorization", "")):
        return JsonResponse({"error": "unauthorized"}, status=401)
    known = SandboxPayment.objects.filter(pk=reference).first()
    if known is None:
        return JsonResponse({"error": "not found"}, status=404)
    return JsonResponse(
        {
            "reference": known.reference,
            "status": known.state,
            "amount": known.paid_idr if known.state == "paid" else known.amount_idr,
            "refunded": known.refunded_idr,
            "currency": "IDR",
            "merchant": MERCHANT,
        }
    )


def act(topup: TopUp, action: str) -> None:
    """Let something happen at the gateway, and have the shop told. What is not possible now changes nothing."""
    with transaction.atomic():
        known = SandboxPayment.objects.select_for_update().filter(pk=topup.pk).first()
        if known is None:
            known = _opened(topup)
            known.save(force_insert=True)
        possible, state, notices = ACTIONS.get(action, (set(), "", 0))
        if known.state not in possible:
            return
        known.state = state or known.state
        if action.startswith("pay"):
            known.paid_idr = known.amount_idr - (1 if action == "pay-short" else 0)
        elif action.startswith("refund"):
            half = known.refunded_idr + known.amount_idr // 2
            known.refunded_idr = known.amount_idr if action == "refund" else min(half, known.amount_idr)
        known.notices += 1
        known.changed_at = timezone.now()
        known.save()
        if notices:
            event = "payment.expired" if action == "stale" else f"payment.{known.state}"
            transaction.on_commit(lambda: _ring(topup.pk, event, notices), robust=True)


def tell(reference: str, event: str, *, times: int) -> None:
    """Send the shop a notice, `times` times over. It is lost where the shop does not answer: the shop has to ask then."""
    gateway = topups.connected().all.get(Sandbox.name)
    if not isinstance(gateway, Sandbox):
        return
    try:
        gateway.notify({"id": ids.new("sbx"), "event": event, "reference": reference}, times=times)
    except GatewayError as error:
        log.warning("the sandbox's notice was not heard", topup=reference, detail=error.detail)


def _ring(reference: str, event: str, times: int) -> None:
    try:
        current_app.send_task(
            "billing.tasks.tell_of_sandbox", args=[reference, event, times], queue="house", retry=False
        )
    except Exception as error:
        log.warning("the sandbox's notice is lost", topup=reference, error=str(error))


def _opened(topup: TopUp) -> SandboxPayment:
    return SandboxPayment(reference=topup.pk, amount_idr=topup.amount_idr)


def _gateway() -> Sandbox:
    found = topups.connected().all.get(Sandbox.name)
    if not isinstance(found, Sandbox):
        raise Http404
    return found
