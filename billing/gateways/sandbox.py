"""The sandbox gateway, in which no money moves: the client's side, and how it signs what it sends. Development only.

It is asked and tells over HTTP like the others; what it knows lives behind the pages of `billing.sandbox`.
"""

import json
import time
from collections.abc import Mapping

from billing.gateways import stripe, wire
from billing.gateways.base import (
    Created,
    Event,
    Payment,
    State,
    Status,
    Unreadable,
    same,
    text,
    whole_rupiah,
)

HEADER = "x-sandbox-signature"
STATES: dict[str, State] = {"pending": "pending", "paid": "paid", "expired": "expired", "failed": "failed"}
MERCHANT = "aleph-sandbox"


class Sandbox:
    """`base_url` is where our own web process answers; `key` signs both ways."""

    name = "sandbox"
    label = "Sandbox"
    merchant = MERCHANT

    def __init__(self, *, key: str, base_url: str) -> None:
        self._key = key
        self._base_url = base_url

    def create(self, payment: Payment) -> Created:
        """Its page stands on the host that somebody uses already, so that he stays signed in."""
        return Created(f"sandbox-{payment.reference}", f"/sandbox-gateway/{payment.reference}")

    def find(self, payment: Payment) -> Created | None:
        return self.create(payment)

    def fetch_status(self, payment: Payment) -> Status:
        answer = wire.call(
            "GET",
            f"{self._base_url}/sandbox-gateway/payments/{payment.reference}",
            headers={"Authorization": f"Bearer {self._key}"},
        )
        if answer.status == 404:
            return Status("missing", "404")
        wire.check(answer)
        body = answer.body
        said = text(body.get("status"))
        return Status(
            STATES.get(said, "pending"),
            said,
            reference=text(body.get("reference")),
            amount_idr=whole_rupiah(body.get("amount")),
            currency=text(body.get("currency")),
            merchant=text(body.get("merchant")),
            refunded_idr=whole_rupiah(body.get("refunded")) or 0,
        )

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        stripe.verify(headers.get(HEADER) or "", body, (self._key,))
        try:
            said = json.loads(body)
            key, kind, reference = (text(said[name]) for name in ("id", "event", "reference"))
        except (ValueError, KeyError, TypeError):
            raise Unreadable from None
        return Event(key=key, kind=kind, reference=reference, body=body.decode())

    def notify(self, notice: Mapping[str, object], *, times: int = 1) -> None:
        """Tell the shop, by the address that every gateway uses. Raises `GatewayError`."""
        body = json.dumps(notice).encode()
        for _each in range(times):
            moment = str(int(time.time()))
            signed = f"t={moment},v1={stripe.signature(self._key, moment, body)}"
            wire.check(
                wire.call(
                    "POST",
                    f"{self._base_url}/webhooks/sandbox",
                    headers={HEADER: signed, "Content-Type": "application/json"},
                    form=body,
                )
            )

    def knows(self, header: str) -> bool:
        """Whether somebody who asks for a payment has the key."""
        scheme, _space, key = header.partition(" ")
        return scheme == "Bearer" and same(key, (self._key,))
