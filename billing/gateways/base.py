"""What a payment gateway is to Aleph, whichever it is: one contract, its values and its errors.

Adapters know no Django, no database and no settings. Amounts are whole rupiah; what a gateway counts in otherwise is its
adapter's matter.
"""

import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Protocol

State = Literal["missing", "pending", "paid", "expired", "failed"]
"""`missing`: the gateway knows nothing of it, or not yet."""
HIDDEN = "[hidden]"


@dataclass(frozen=True, slots=True)
class Payment:
    """What is to be paid. `reference` is ours and used once; `gateway_id` is the gateway's, "" until there is one."""

    reference: str
    amount_idr: int
    email: str
    name: str
    return_url: str
    created_at: datetime
    expires_at: datetime
    gateway_id: str = ""

    @property
    def duration_s(self) -> int:
        return int((self.expires_at - self.created_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Created:
    """A payment that the gateway takes: its id there, and the page where it is paid."""

    gateway_id: str
    pay_url: str


@dataclass(frozen=True, slots=True)
class Status:
    """What a gateway says of a payment when it is asked. None and "" are what it does not say.

    `amount_idr` is what was paid, or what is to be; None also where it is no whole rupiah. `refunded_idr` is all that went
    back to the payer so far, by whose wish ever. `doubt` is why a person has to look. `said` is the gateway's own word.
    """

    state: State
    said: str
    reference: str = ""
    amount_idr: int | None = None
    currency: str = ""
    merchant: str = ""
    payment_id: str = ""
    refunded_idr: int = 0
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A notice, its signature checked. `key` tells it from all others; `body` is the raw text without secrets."""

    key: str
    kind: str
    body: str
    reference: str = ""
    gateway_id: str = ""
    payment_id: str = ""


class Gateway(Protocol):
    """`merchant` is who must have been paid, "" where nobody said."""

    name: str
    label: str
    merchant: str

    def create(self, payment: Payment) -> Created:
        """Open the payment. Raises `GatewayError`; only `Unclear` leaves open whether it is there now."""

    def find(self, payment: Payment) -> Created | None:
        """What an unclear `create` has opened; None where there is nothing that anybody could pay. Never opens a second
        one. Raises `GatewayError`, `Unclear` also where the gateway has no way to look it up."""

    def fetch_status(self, payment: Payment) -> Status:
        """Raises `GatewayError`."""

    def parse_webhook(self, headers: Mapping[str, str], body: bytes) -> Event:
        """Raises `Forged` and `Unreadable`."""


class GatewayError(Exception):
    """A gateway could not be asked. `detail` is for the log, and has no secret in it."""

    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class Unreachable(GatewayError):
    """No connection, so nothing has happened there."""


class Unclear(GatewayError):
    """No answer, or one of a fault: it may have happened."""


class Refused(GatewayError):
    """It did not happen, and will not when it is tried again."""


class Unauthorized(Refused):
    """The key is wrong: whoever runs this has to look."""


class AlreadyThere(Refused):
    """This reference was used before."""


class Forged(Exception):
    """A notice without a right signature."""


class Unreadable(Exception):
    """A notice with a right signature, or none needed to see it, that is not in the gateway's format."""


def same(given: str, secrets: Iterable[str]) -> bool:
    """Whether `given` is one of `secrets`, in a time that does not say how much of it is right."""
    found = False
    for secret in secrets:
        found |= hmac.compare_digest(given.encode(), secret.encode())
    return found


def whole_rupiah(value: Any, *, per_rupiah: int = 1) -> int | None:
    """An amount as gateways write it (50000, "50000.00", 5000000 hundredths); None for what is no whole rupiah."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        amount = Decimal(str(value)) / per_rupiah
    except InvalidOperation:
        return None
    return (
        int(amount) if amount.is_finite() and amount == amount.to_integral_value() and amount >= 0 else None
    )


def text(value: Any) -> str:
    """`value` where it is a text, without what a database cannot keep; else ""."""
    return value.replace("\x00", "")[:128] if isinstance(value, str) else ""


def without(body: bytes, hidden: Iterable[str]) -> str:
    """A raw body as a text, with the secrets in it hidden."""
    shown = body.decode("utf-8", "replace").replace("\x00", "")
    for secret in filter(None, hidden):
        shown = shown.replace(secret, HIDDEN)
    return shown
