"""Xendit: Payment Sessions, and Invoices for older accounts. Source: docs.xendit.co, xendit-python 7.0.0.

The header `x-callback-token` is a static secret and the body is not signed, so a notice is only ever a reason to ask.
Neither answer tells of refunds: staff book those.
"""

import hashlib
import json
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


class Account:
    """What both products share: the key, the address, the tokens that notices must carry, and who must be paid."""

    label = "Xendit"

    def __init__(
        self, *, secret_key: str, base_url: str, tokens: tuple[str, ...], merchant: str = ""
    ) -> None:
        self.merchant = merchant
        self._auth = (secret_key, "")
        self._base_url = base_url
        self._tokens = tokens

    def _ask(self, method: str, path: str, **what: Any) -> wire.Answer:
        answer = wire.call(method, f"{self._base_url}{path}", auth=self._auth, **what)
        if answer.status != 404:
            wire.check(answer, _error(answer.body))
        return answer

    def _notice(self, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        if not same(headers.get("x-callback-token") or "", self._tokens):
            raise Forged
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            raise Unreadable from None
        if not isinstance(said, dict):
            raise Unreadable
        return said


class Sessions(Account):
    name = "xendit"
    STATES: dict[str, State] = {
        "ACTIVE": "pending",
        "COMPLETED": "paid",
        "EXPIRED": "expired",
        "CANCELED": "failed",
    }

    def create(self, payment: Payment) -> Created:
        answer = self._ask(
            "POST",
            "/sessions",
            as_json={
                "reference_id": payment.reference,
                "session_type": "PAY",
                "mode": "PAYMENT_LINK",
                "amount": payment.amount_idr,
                "currency": "IDR",
                "country": "ID",
                "customer": {
                    "reference_id": f"for-{payment.reference}",
                    "type": "INDIVIDUAL",
                    "email": payment.email,
                    "individual_detail": {"given_names": payment.name[:50] or "Aleph"},
                },
                "success_return_url": payment.return_url,
                "cancel_return_url": payment.return_url,
            },
        )
        return _created(answer, "payment_session_id", "payment_link_url")

    def find(self, payment: Payment) -> Created | None:
        """A session is asked for by its id only, which never came. Its link never came either, so nobody can pay it."""
        raise Unclear("sessions cannot be looked up by reference")

    def fetch_status(self, payment: Payment) -> Status:
        if not payment.gateway_id:
            return Status("missing", "no id")
        answer = self._ask("GET", f"/sessions/{payment.gateway_id}")
        if answer.status == 404:
            return Status("missing", "404")
        body = answer.body
        said = text(body.get("status"))
        return Status(
            self.STATES.get(said, "pending"),
            said,
            reference=text(body.get("reference_id")),
            amount_idr=whole_rupiah(body.get("amount")),
            currency=text(body.get("currency")),
            merchant=text(body.get("business_id")),
            payment_id=text(body.get("payment_id")),
            doubt="" if said in self.STATES else f"unknown status {said}",
        )

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        said = self._notice(headers, body)
        data = said.get("data")
        if not isinstance(data, dict) or not text(data.get("payment_session_id")):
            raise Unreadable
        kind, session = text(said.get("event")), text(data["payment_session_id"])
        return Event(
            key=f"{session}:{kind}:{_digest(body)}",
            kind=kind,
            reference=text(data.get("reference_id")),
            gateway_id=session,
            payment_id=text(data.get("payment_id")),
            body=without(body, self._tokens),
        )


class Invoices(Account):
    name = "xendit-invoice"
    STATES: dict[str, State] = {
        "PENDING": "pending",
        "PAID": "paid",
        "SETTLED": "paid",
        "EXPIRED": "expired",
    }

    def create(self, payment: Payment) -> Created:
        answer = self._ask(
            "POST",
            "/v2/invoices",
            as_json={
                "external_id": payment.reference,
                "amount": payment.amount_idr,
                "currency": "IDR",
                "description": "Aleph top-up",
                "payer_email": payment.email,
                "invoice_duration": payment.duration_s,
                "success_redirect_url": payment.return_url,
                "failure_redirect_url": payment.return_url,
                "items": [{"name": "Aleph top-up", "quantity": 1, "price": payment.amount_idr}],
            },
        )
        return _created(answer, "id", "invoice_url")

    def find(self, payment: Payment) -> Created | None:
        """`external_id` is not unique there, so a second `create` could make a second invoice that can be paid. An empty
        answer proves nothing either: the first request may still be on its way."""
        answer = self._ask("GET", "/v2/invoices", params={"external_id": payment.reference})
        for found in answer.body if isinstance(answer.body, list) else []:
            if isinstance(found, dict) and found.get("external_id") == payment.reference:
                return _created(wire.Answer(200, found), "id", "invoice_url")
        raise Unclear("no invoice with this reference yet")

    def fetch_status(self, payment: Payment) -> Status:
        if not payment.gateway_id:
            return Status("missing", "no id")
        answer = self._ask("GET", f"/v2/invoices/{payment.gateway_id}")
        if answer.status == 404:
            return Status("missing", "404")
        body = answer.body
        said = text(body.get("status"))
        state = self.STATES.get(said, "pending")
        paid = body.get("paid_amount") if state == "paid" else None
        return Status(
            state,
            said,
            reference=text(body.get("external_id")),
            amount_idr=whole_rupiah(body.get("amount") if paid is None else paid),
            currency=text(body.get("currency")),
            merchant=text(body.get("user_id")),
            payment_id=text(body.get("payment_id")),
            doubt="" if said in self.STATES else f"unknown status {said}",
        )

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        said = self._notice(headers, body)
        invoice, kind = text(said.get("id")), text(said.get("status"))
        if not invoice or not kind:
            raise Unreadable
        return Event(
            key=f"{invoice}:{kind}:{_digest(body)}",
            kind=kind,
            reference=text(said.get("external_id")),
            gateway_id=invoice,
            payment_id=text(said.get("payment_id")),
            body=without(body, self._tokens),
        )


def _created(answer: wire.Answer, name: str, address: str) -> Created:
    body = answer.body if isinstance(answer.body, dict) else {}
    found, page = text(body.get(name)), body.get(address)
    if answer.status == 404 or not found or not isinstance(page, str):
        raise Unclear(f"{answer.status} without a page")
    return Created(found, page)


def _error(body: Any) -> str:
    return f"{body.get('error_code', '')}: {body.get('message', '')}"[:200] if isinstance(body, dict) else ""


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]
