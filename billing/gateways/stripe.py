"""Stripe Checkout, for cards. Sources: stripe-python 16.1.0, docs.stripe.com ("Supported currencies").

Rupiah is a currency of two decimals there: Rp 50.000 is 5000000.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from typing import Any

from billing.gateways import wire
from billing.gateways.base import (
    Created,
    Event,
    Forged,
    Payment,
    State,
    Status,
    Unclear,
    Unreadable,
    same,
    text,
    whole_rupiah,
    without,
)

VERSION = "2026-10-28.endive"
PER_RUPIAH = 100
TOLERANCE_S = 300
LAST_CHARGE = "payment_intent.latest_charge"


class Stripe:
    name = "stripe"
    label = "Stripe"
    merchant = ""  # a session does not say whose it is: the key decides

    def __init__(self, *, secret_key: str, webhook_secrets: tuple[str, ...], base_url: str) -> None:
        self._headers = {"Authorization": f"Bearer {secret_key}", "Stripe-Version": VERSION}
        self._secrets = webhook_secrets
        self._base_url = base_url

    def create(self, payment: Payment) -> Created:
        answer = wire.call(
            "POST",
            f"{self._base_url}/v1/checkout/sessions",
            headers={**self._headers, "Idempotency-Key": payment.reference},
            form={
                "mode": "payment",
                "client_reference_id": payment.reference,
                "customer_email": payment.email,
                "line_items[0][quantity]": "1",
                "line_items[0][price_data][currency]": "idr",
                "line_items[0][price_data][unit_amount]": str(payment.amount_idr * PER_RUPIAH),
                "line_items[0][price_data][product_data][name]": "Aleph top-up",
                "success_url": payment.return_url,
                "cancel_url": payment.return_url,
                "expires_at": str(int(payment.expires_at.timestamp())),
                "metadata[payment]": payment.reference,
                # A charge carries the metadata of its intent, so that a refund names our reference.
                "payment_intent_data[metadata][payment]": payment.reference,
            },
        )
        wire.check(answer, _error(answer.body))
        session, page = text(answer.body.get("id")), answer.body.get("url")
        if not session or not isinstance(page, str):
            raise Unclear("an answer without a page")
        return Created(session, page)

    def find(self, payment: Payment) -> Created | None:
        """The same key and body give the first answer again."""
        return self.create(payment)

    def fetch_status(self, payment: Payment) -> Status:
        if not payment.gateway_id:
            return Status("missing", "no id")
        answer = wire.call(
            "GET",
            f"{self._base_url}/v1/checkout/sessions/{payment.gateway_id}",
            headers=self._headers,
            params={"expand[]": LAST_CHARGE},
        )
        if answer.status == 404:
            return Status("missing", "404")
        wire.check(answer, _error(answer.body))
        return _status(answer.body)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        verify(headers.get("stripe-signature") or "", body, self._secrets)
        try:
            said = json.loads(body)
            about = said["data"]["object"]
            is_session = about["object"] == "checkout.session"
            metadata = about.get("metadata") or {}
            reference = text(about.get("client_reference_id")) or text(metadata.get("payment"))
            key, kind = text(said["id"]), text(said["type"])
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise Unreadable from None
        return Event(
            key=key,
            kind=kind,
            reference=reference,
            gateway_id=text(about.get("id")) if is_session else "",
            payment_id=text(about.get("payment_intent")),
            body=without(body, self._secrets),
        )


def verify(header: str, body: bytes, secrets: tuple[str, ...], *, now: float | None = None) -> None:
    """``t=1795341670,v1=<hex>[,v1=<hex>]``; anything but v1 says nothing. Raises `Forged`."""
    parts = [part.partition("=")[::2] for part in header.split(",")]
    moments = [value for name, value in parts if name.strip() == "t"]
    if len(moments) != 1 or not moments[0].isdecimal() or len(moments[0]) > 12:
        raise Forged
    wanted = [signature(secret, moments[0], body) for secret in secrets]
    is_right = any(same(value, wanted) for name, value in parts if name.strip() == "v1")
    if not is_right or abs((time.time() if now is None else now) - int(moments[0])) > TOLERANCE_S:
        raise Forged


def signature(secret: str, moment: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()


def _status(body: dict[str, Any]) -> Status:
    intent = body.get("payment_intent")
    intent = intent if isinstance(intent, dict) else {"id": intent}
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, dict) else {}
    status, paid = text(body.get("status")), text(body.get("payment_status"))
    amount = whole_rupiah(body.get("amount_total"), per_rupiah=PER_RUPIAH)
    state: State = "pending"
    if paid == "paid":
        state = "paid"
    elif status == "expired":
        state = "expired"
    elif status == "complete" and text(intent.get("status")) in ("requires_payment_method", "canceled"):
        state = "failed"  # a method that pays later did not
    doubt = "nothing had to be paid" if paid == "no_payment_required" else ""
    back = whole_rupiah(charge.get("amount_refunded") or 0, per_rupiah=PER_RUPIAH)
    if back is None:
        back, doubt = 0, "a refund that is no whole rupiah"
    if charge.get("disputed"):
        back = amount or 0  # the bank has taken it back until the dispute is decided
    return Status(
        state,
        f"{status}/{paid}" + ("/disputed" if charge.get("disputed") else ""),
        reference=text(body.get("client_reference_id")),
        amount_idr=amount,
        currency=text(body.get("currency")).upper(),
        payment_id=text(intent.get("id")),
        refunded_idr=min(back, amount or 0) if state == "paid" else 0,
        doubt=doubt,
    )


def _error(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return f"{error.get('type', '')} {error.get('code', '')}"[:200] if isinstance(error, dict) else ""
