"""Gateways to test against: real HTTP, the wire formats of Midtrans Snap, Xendit (sessions, invoices) and Stripe Checkout.

    with Gateways() as shop:
        shop.environment            what connects Aleph to it
        shop.pay(reference)         somebody pays on the gateway's page
        shop.notice(reference)      the notice that the gateway would send now: path, headers, body
        shop.faults["create"] = ["timeout-after"]      what goes wrong next, once each

A fault is a status (``500``, ``401``), ``timeout-after`` (it is carried out, the answer never comes), ``timeout-before``
(it is not carried out, and no answer comes) or ``cut`` (the line breaks in the answer). Places: ``create``, ``status``, ``find``.
"""

import hashlib
import hmac
import json
import threading
import time
from base64 import b64decode
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, parse_qsl, urlsplit

from aleph import ids

MIDTRANS_KEY = "SB-Mid-server-TEST"
MERCHANT = "G141532850"
XENDIT_KEY = "xnd_development_TEST"
XENDIT_TOKEN = "xendit-callback-token"
BUSINESS = "5f0c1d2e3f4a5b6c7d8e9f0a"
STRIPE_KEY = "sk_test_TEST"
STRIPE_SECRET = "whsec_test"
HANG_S = 30.0


@dataclass
class Order:
    """What a gateway knows of one payment; `status` is its own word."""

    gateway: str
    reference: str
    amount: int
    id: str
    status: str
    paid: int = 0
    refunded: int = 0
    is_disputed: bool = False
    sent: dict[str, Any] = field(default_factory=dict)


class Gateways:
    """`requests` is what was asked, as ``POST /sessions``. `orders` are by reference, also those made twice: `doubles`."""

    def __init__(self) -> None:
        self.orders: dict[str, Order] = {}
        self.doubles: list[Order] = []
        self.requests: list[str] = []
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.wrong: dict[str, Any] = {}
        self._idempotent: dict[str, tuple[Any, Any]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        simulator = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                simulator._serve(self, b"")

            def do_POST(self) -> None:
                simulator._serve(self, self.rfile.read(int(self.headers.get("Content-Length", 0))))

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "MIDTRANS_SERVER_KEY": MIDTRANS_KEY,
            "MIDTRANS_MERCHANT_ID": MERCHANT,
            "MIDTRANS_SNAP_BASE_URL": self.url,
            "MIDTRANS_API_BASE_URL": self.url,
            "XENDIT_SECRET_KEY": XENDIT_KEY,
            "XENDIT_CALLBACK_TOKEN": XENDIT_TOKEN,
            "XENDIT_BUSINESS_ID": BUSINESS,
            "XENDIT_BASE_URL": self.url,
            "STRIPE_SECRET_KEY": STRIPE_KEY,
            "STRIPE_WEBHOOK_SECRET": STRIPE_SECRET,
            "STRIPE_BASE_URL": self.url,
        }

    # What happens on the gateway's side

    def pay(self, reference: str, *, amount: int | None = None) -> None:
        order = self.orders[reference]
        order.paid = order.amount if amount is None else amount
        order.status = {
            "midtrans": "settlement",
            "xendit": "COMPLETED",
            "xendit-invoice": "PAID",
            "stripe": "complete",
        }[order.gateway]

    def expire(self, reference: str) -> None:
        order = self.orders[reference]
        order.status = (
            "expire" if order.gateway == "midtrans" else "expired" if order.gateway == "stripe" else "EXPIRED"
        )

    def refund(self, reference: str, amount: int | None = None) -> None:
        order = self.orders[reference]
        order.refunded = order.paid if amount is None else order.refunded + amount
        if order.gateway == "midtrans":
            order.status = "refund" if order.refunded == order.paid else "partial_refund"

    def dispute(self, reference: str) -> None:
        order = self.orders[reference]
        order.is_disputed = True
        if order.gateway == "midtrans":
            order.status = "chargeback"

    def notice(self, reference: str, **changed: Any) -> tuple[str, dict[str, str], bytes]:
        """`changed` are other fields than the true ones, signed all the same."""
        order = self.orders[reference]
        if order.gateway == "midtrans":
            said = {**self._midtrans(order), **changed}
            said["signature_key"] = midtrans_signature(said)
            return "/webhooks/midtrans", {}, json.dumps(said).encode()
        token = {"x-callback-token": XENDIT_TOKEN}
        if order.gateway == "xendit-invoice":
            return "/webhooks/xendit-invoice", token, json.dumps(self._invoice(order) | changed).encode()
        if order.gateway == "xendit":
            kind = {"COMPLETED": "payment_session.completed"}.get(order.status, "payment_session.expired")
            said = {"event": kind, "business_id": BUSINESS, "data": self._session(order) | changed}
            return "/webhooks/xendit", token, json.dumps(said).encode()
        event: dict[str, Any] = {
            "id": f"evt_{order.id}_{order.status}_{order.refunded}_{order.is_disputed}",
            "object": "event",
            "livemode": False,
        }
        if order.is_disputed:
            event |= {"type": "charge.dispute.created", "data": {"object": self._dispute(order) | changed}}
        elif order.refunded:
            event |= {"type": "charge.refunded", "data": {"object": self._charge(order) | changed}}
        else:
            kind = "expired" if order.status == "expired" else "completed"
            event |= {"type": f"checkout.session.{kind}", "data": {"object": self._checkout(order) | changed}}
        body = json.dumps(event).encode()
        return "/webhooks/stripe", {"Stripe-Signature": stripe_header(body)}, body

    # The wire formats

    def _midtrans(self, order: Order) -> dict[str, Any]:
        code = {"pending": "201", "deny": "202", "expire": "407", "challenge": "201"}.get(order.status, "200")
        said = {
            "transaction_time": "2026-11-22 10:00:00",
            "transaction_status": order.status,
            "transaction_id": f"9aed5972-{order.id}",
            "status_message": "midtrans payment notification",
            "status_code": code,
            "payment_type": "qris",
            "order_id": order.reference,
            "merchant_id": MERCHANT,
            "gross_amount": f"{order.paid or order.amount}.00",
            "fraud_status": "accept",
            "currency": "IDR",
        }
        if order.refunded:
            said["refund_amount"] = f"{order.refunded}.00"
        return said | self.wrong

    def _session(self, order: Order) -> dict[str, Any]:
        said = {
            "payment_session_id": order.id,
            "reference_id": order.reference,
            "session_type": "PAY",
            "mode": "PAYMENT_LINK",
            "amount": order.paid or order.amount,
            "currency": "IDR",
            "country": "ID",
            "status": order.status,
            "business_id": BUSINESS,
            "payment_link_url": f"https://xen.to/{order.id}",
            "expires_at": "2026-11-22T11:00:00.000Z",
        }
        if order.paid:
            said |= {"payment_request_id": f"pr-{order.id}", "payment_id": f"py-{order.id}"}
        return said | self.wrong

    def _invoice(self, order: Order) -> dict[str, Any]:
        said = {
            "id": order.id,
            "external_id": order.reference,
            "user_id": BUSINESS,
            "status": order.status,
            "merchant_name": "Aleph",
            "amount": order.amount,
            "expiry_date": "2026-11-22T11:00:00.000Z",
            "invoice_url": f"https://checkout.xendit.co/web/{order.id}",
            "currency": "IDR",
            "created": "2026-11-22T10:00:00.000Z",
            "updated": "2026-11-22T10:00:00.000Z",
        }
        if order.paid:
            said |= {"paid_amount": order.paid, "payment_id": f"qrpy_{order.id}", "payment_method": "QR_CODE"}
        return said | self.wrong

    def _checkout(self, order: Order, *, expanded: bool = False) -> dict[str, Any]:
        intent: Any = f"pi_{order.id}" if order.paid else None
        if expanded and order.paid:
            intent = {
                "id": intent,
                "object": "payment_intent",
                "status": "succeeded",
                "latest_charge": self._charge(order),
            }
        return {
            "id": order.id,
            "object": "checkout.session",
            "url": f"https://checkout.stripe.com/c/pay/{order.id}",
            "status": order.status,
            "payment_status": "paid" if order.paid else "unpaid",
            "amount_total": (order.paid or order.amount) * 100,
            "currency": "idr",
            "client_reference_id": order.reference,
            "payment_intent": intent,
            "metadata": {"payment": order.reference},
        } | self.wrong

    def _charge(self, order: Order) -> dict[str, Any]:
        return {
            "id": f"ch_{order.id}",
            "object": "charge",
            "payment_intent": f"pi_{order.id}",
            "amount": order.paid * 100,
            "amount_refunded": order.refunded * 100,
            "refunded": order.refunded == order.paid,
            "disputed": order.is_disputed,
            "metadata": {"payment": order.reference},
        }

    def _dispute(self, order: Order) -> dict[str, Any]:
        return {
            "id": f"dp_{order.id}",
            "object": "dispute",
            "charge": f"ch_{order.id}",
            "payment_intent": f"pi_{order.id}",
            "amount": order.paid * 100,
            "metadata": {},
        }

    # HTTP

    def _serve(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        address = urlsplit(handler.path)
        self.requests.append(f"{handler.command} {address.path}")
        place = _place(handler.command, address.path, address.query)
        with self._lock:
            fault = self.faults[place].pop(0) if self.faults[place] else ""
        if fault == "timeout-before":
            self._stop.wait(HANG_S)
            handler.close_connection = True
            return
        if fault.isdecimal():
            self._answer(handler, int(fault), {"error": {"type": "api_error"}, "status_code": fault})
            return
        with self._lock:
            status, said = self._carry_out(handler, address.path, parse_qs(address.query), body)
        if fault == "timeout-after":
            self._stop.wait(HANG_S)
            handler.close_connection = True
            return
        self._answer(handler, status, said, cut=fault == "cut")

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, said: Any, *, cut: bool = False) -> None:
        text = json.dumps(said).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text[: len(text) // 2] if cut else text)
        handler.close_connection = cut

    def _carry_out(
        self, handler: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if path.startswith("/v1/"):
            if handler.headers.get("Authorization") != f"Bearer {STRIPE_KEY}":
                return 401, {
                    "error": {"type": "invalid_request_error", "message": "Invalid API Key provided"}
                }
            if handler.command == "POST":
                return self._open_checkout(handler.headers.get("Idempotency-Key", ""), body)
            return self._by_id(parts[-1], lambda order: self._checkout(order, expanded="expand[]" in query))
        user = _basic_user(handler.headers.get("Authorization", ""))
        if path == "/snap/v1/transactions" or path.endswith("/status"):
            if user != MIDTRANS_KEY:
                why = "Access denied due to unauthorized transaction, please check client or server key"
                return 401, {"error_messages": [why]}
            return self._open_snap(json.loads(body)) if body else self._snap_status(parts[1])
        if user != XENDIT_KEY:
            return 401, {"error_code": "INVALID_API_KEY", "message": "API key is not valid"}
        if path == "/sessions":
            said = json.loads(body)
            order = Order(
                "xendit", said["reference_id"], said["amount"], f"ps-{ids.new('sim')}", "ACTIVE", sent=said
            )
            return 200, self._session(self._add(order))
        if path == "/v2/invoices" and handler.command == "POST":
            said = json.loads(body)
            order = Order(
                "xendit-invoice", said["external_id"], said["amount"], ids.new("inv"), "PENDING", sent=said
            )
            return 200, self._invoice(self._add(order))
        if path == "/v2/invoices":
            found = self.orders.get(query["external_id"][0])
            return 200, [self._invoice(found)] if found else []
        return self._by_id(parts[-1], self._session if parts[0] == "sessions" else self._invoice)

    def _add(self, order: Order) -> Order:
        if order.reference in self.orders:
            self.doubles.append(order)
        self.orders[order.reference] = order
        return order

    def _by_id(self, wanted: str, shown: Any) -> tuple[int, Any]:
        found = next((order for order in self.orders.values() if order.id == wanted), None)
        return (
            (200, shown(found))
            if found
            else (404, {"error_code": "DATA_NOT_FOUND", "error": {"code": "resource_missing"}})
        )

    def _open_snap(self, said: dict[str, Any]) -> tuple[int, Any]:
        details = said["transaction_details"]
        reference, amount = details["order_id"], details["gross_amount"]
        if sum(item["price"] * item["quantity"] for item in said["item_details"]) != amount:
            return 400, {
                "error_messages": ["transaction_details.gross_amount is not equal to the sum of item_details"]
            }
        if len(reference) > 50 or reference in self.orders:
            return 400, {"error_messages": ["transaction_details.order_id sudah digunakan"]}
        order = self._add(Order("midtrans", reference, amount, ids.new("sim"), "", sent=said))
        page = f"https://app.sandbox.midtrans.com/snap/v3/redirection/{order.id}"
        return 201, {"token": order.id, "redirect_url": page}

    def _snap_status(self, reference: str) -> tuple[int, Any]:
        order = self.orders.get(reference)
        if order is None or not order.status:
            return 200, {"status_code": "404", "status_message": "Transaction doesn't exist."}
        return 200, self._midtrans(order)

    def _open_checkout(self, key: str, body: bytes) -> tuple[int, Any]:
        sent = dict(parse_qsl(body.decode()))
        if key in self._idempotent:
            first, answer = self._idempotent[key]
            return (200, answer) if first == sent else (400, {"error": {"type": "idempotency_error"}})
        if not 1700 <= int(sent["expires_at"]) - time.time() <= 24 * 3600:
            return 400, {"error": {"type": "invalid_request_error", "param": "expires_at"}}
        amount = int(sent["line_items[0][price_data][unit_amount]"]) // 100
        order = Order(
            "stripe", sent["client_reference_id"], amount, f"cs_test_{ids.new('sim')}", "open", sent=sent
        )
        self._idempotent[key] = sent, self._checkout(self._add(order))
        return 200, self._idempotent[key][1]


def midtrans_signature(said: dict[str, Any], key: str = MIDTRANS_KEY) -> str:
    signed = said["order_id"] + said["status_code"] + said["gross_amount"] + key
    return hashlib.sha512(signed.encode()).hexdigest()


def stripe_header(body: bytes, *, secret: str = STRIPE_SECRET, moment: int | None = None) -> str:
    at = int(time.time()) if moment is None else moment
    signature = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={signature},v0={'0' * 64}"


def _place(method: str, path: str, query: str) -> str:
    if method == "POST":
        return "create"
    return "find" if "external_id" in query else "status"


def _basic_user(header: str) -> str:
    scheme, _space, encoded = header.partition(" ")
    return b64decode(encoded).decode().removesuffix(":") if scheme == "Basic" else ""
