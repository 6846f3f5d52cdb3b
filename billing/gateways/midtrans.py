"""Midtrans Snap. Sources: docs.midtrans.com (Snap API reference; HTTP(S) notification), midtransclient 1.4.2.

The signature of a notice covers neither `transaction_status` nor `fraud_status`, so that a captured one could be sent
again with another status: it is only ever a reason to ask.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from billing.gateways import wire
from billing.gateways.base import (
    AlreadyThere,
    Created,
    Event,
    Forged,
    Payment,
    Refused,
    State,
    Status,
    Unauthorized,
    Unclear,
    Unreadable,
    same,
    text,
    whole_rupiah,
    without,
)

STATES: dict[str, State] = {
    "settlement": "paid",
    "capture": "paid",
    "pending": "pending",
    "authorize": "pending",
    "deny": "pending",  # the customer may pay by another method under the same order until it expires
    "expire": "expired",
    "cancel": "failed",
    "failure": "failed",
    "refund": "paid",
    "partial_refund": "paid",
    "chargeback": "paid",
    "partial_chargeback": "paid",
}
BACK = ("refund", "partial_refund", "chargeback", "partial_chargeback")
KNOWN = ("200", "201", "202", "407")


class Midtrans:
    """`signing_keys` sign the notices: the server key, unless the dashboard has one of its own for that."""

    name = "midtrans"
    label = "Midtrans"

    def __init__(
        self,
        *,
        server_key: str,
        snap_url: str,
        api_url: str,
        merchant: str = "",
        signing_keys: tuple[str, ...] = (),
    ) -> None:
        self.merchant = merchant
        self._auth = (server_key, "")
        self._snap_url = snap_url
        self._api_url = api_url
        self._signing_keys = signing_keys or (server_key,)

    def create(self, payment: Payment) -> Created:
        item = {"id": "TOPUP", "price": payment.amount_idr, "quantity": 1, "name": "Aleph top-up"}
        answer = wire.call(
            "POST",
            f"{self._snap_url}/snap/v1/transactions",
            auth=self._auth,
            as_json={
                "transaction_details": {"order_id": payment.reference, "gross_amount": payment.amount_idr},
                "item_details": [item],
                "customer_details": {"first_name": payment.name[:50] or "Aleph", "email": payment.email},
                "credit_card": {"secure": True},
                "callbacks": {"finish": payment.return_url},
                "expiry": {"unit": "minutes", "duration": payment.duration_s // 60},
            },
        )
        said = _messages(answer.body)
        # The language and the wording of "was used before" vary; what it is about does not.
        if answer.status == 400 and "order_id" in said:
            raise AlreadyThere(said)
        wire.check(answer, said)
        token, address = text(answer.body.get("token")), answer.body.get("redirect_url")
        if not token or not isinstance(address, str):
            raise Unclear("an answer without a page")
        return Created(token, address)

    def find(self, payment: Payment) -> Created | None:
        """Snap cannot be asked for the page of an order. It takes an order once, so asking again either opens the page
        or says that there is one, which then nobody has the address of."""
        try:
            return self.create(payment)
        except AlreadyThere:
            return None

    def fetch_status(self, payment: Payment) -> Status:
        answer = wire.call("GET", f"{self._api_url}/v2/{payment.reference}/status", auth=self._auth)
        body = answer.body if isinstance(answer.body, dict) else {}
        code = text(body.get("status_code"))
        if "404" in (code, str(answer.status)):
            return Status("missing", "404")  # no method was chosen yet
        wire.check(answer, text(body.get("status_message")))
        if code not in KNOWN:  # errors come with HTTP 200, too
            kind = Unauthorized if code == "401" else Unclear if code.startswith("5") else Refused
            raise kind(f"{code} {text(body.get('status_message'))}")
        said = text(body.get("transaction_status"))
        return _status(body, said)

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        try:
            said = json.loads(body)
            order, code, amount, given = (
                said[name] for name in ("order_id", "status_code", "gross_amount", "signature_key")
            )
            signed = order + code + amount
            given.encode()
        except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
            raise Unreadable from None
        if not same(given, [_signature(signed, key) for key in self._signing_keys]):
            raise Forged
        kind, transaction = text(said.get("transaction_status")), text(said.get("transaction_id"))
        # The body is part of the key: what the signature does not cover must not take the place of the true notice.
        key = f"{transaction}:{kind}:{hashlib.sha256(body).hexdigest()[:16]}"
        return Event(key=key, kind=kind, reference=text(order), body=without(body, [given]))


def _signature(signed: str, key: str) -> str:
    return hashlib.sha512((signed + key).encode()).hexdigest()


def _status(body: dict[str, Any], said: str) -> Status:
    amount = whole_rupiah(body.get("gross_amount"))
    fraud = text(body.get("fraud_status"))
    state: State = STATES.get(said, "pending")
    doubt = "" if said in STATES else f"unknown status {said}"
    if said == "capture" and fraud != "accept":
        state = "pending"
    refunded = 0
    if said in BACK:
        told = whole_rupiah(body.get("refund_amount"))
        refunded = told if told is not None else 0 if said.startswith("partial") else (amount or 0)
        if not refunded:
            doubt = f"{said} without an amount"
    return Status(
        state,
        said,
        reference=text(body.get("order_id")),
        amount_idr=amount,
        currency=text(body.get("currency")),
        merchant=text(body.get("merchant_id")),
        payment_id=text(body.get("transaction_id")),
        refunded_idr=min(refunded, amount or 0),
        doubt=doubt,
    )


def _messages(body: Any) -> str:
    found = body.get("error_messages") if isinstance(body, dict) else None
    return "; ".join(str(part) for part in found)[:200] if isinstance(found, list) else ""
