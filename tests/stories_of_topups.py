"""What tests of top-ups share: gateways that this process knows, and how their notices come in."""

from typing import Any

from django.test import Client
from django.urls import reverse

from aleph import ids
from aleph.accounts.models import User
from billing import ledger, topups
from billing.models import GatewayEvent, TopUp, Transfer
from tests.simulator_gateways import Gateways

AMOUNT = 100_000


def begun(user: User, gateway: str = "midtrans", amount_idr: int = AMOUNT, **fields: Any) -> TopUp:
    return topups.start(
        user=user, amount_idr=amount_idr, gateway=gateway, key=fields.pop("key", ids.new("key")), **fields
    )


def deliver(shop: Gateways, reference: str, **changed: Any) -> int:
    """Send the notice that is due, as the gateway would; the status of the answer. What it leads to is not done yet."""
    path, headers, body = shop.notice(reference, **changed)
    answer = Client().post(path, data=body, content_type="application/json", headers=headers)
    return answer.status_code


def told(shop: Gateways, topup: TopUp, **changed: Any) -> TopUp:
    """A notice and all that it leads to."""
    assert deliver(shop, topup.pk, **changed) == 200
    handle_all()
    topup.refresh_from_db()
    return topup


def handle_all() -> None:
    for event_id in GatewayEvent.objects.filter(handled_at=None).order_by("pk").values_list("pk", flat=True):
        topups.handle(event_id)


def paid(shop: Gateways, user: User, gateway: str = "midtrans", amount_idr: int = AMOUNT) -> TopUp:
    topup = begun(user, gateway, amount_idr)
    shop.pay(topup.pk)
    return told(shop, topup)


def wallet(user: User) -> int:
    return ledger.balance_of(user).wallet_idr


def transfers(topup: TopUp) -> list[tuple[str, str, int]]:
    """From which account to which one, and how much, oldest first."""
    rows = Transfer.objects.filter(reference=topup.pk).select_related("debit", "credit").order_by("pk")
    return [(row.debit.name, row.credit.name, row.amount) for row in rows]


def outcomes(topup: TopUp) -> list[str]:
    return list(GatewayEvent.objects.filter(topup=topup).order_by("pk").values_list("outcome", flat=True))


def page_of(topup: TopUp) -> str:
    return reverse("billing:topup", args=[topup.pk])
