"""The adapters of gateways against simulators that speak their formats over HTTP: what is sent, believed, and made of it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aleph import ids, sealed
from billing import gateways
from billing.checks import gateways_can_be_configured
from billing.gateways import midtrans, stripe, wire
from billing.gateways.base import (
    AlreadyThere,
    Forged,
    Gateway,
    GatewayError,
    Payment,
    Unauthorized,
    Unclear,
    Unreachable,
    Unreadable,
)
from tests.simulator_gateways import (
    BUSINESS,
    MERCHANT,
    XENDIT_TOKEN,
    Gateways,
    midtrans_signature,
    stripe_header,
)

NAMES = ["midtrans", "xendit", "xendit-invoice", "stripe"]
every_gateway = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateways]:
    monkeypatch.setattr(wire, "READ_S", 0.4)
    with Gateways() as simulator:
        yield simulator


def gateway_of(shop: Gateways, name: str, **env: str) -> Gateway:
    return gateways.configure({**shop.environment, **env}).all[name]


def payment(**fields: Any) -> Payment:
    now = datetime.now(UTC)
    given: dict[str, Any] = {
        "reference": ids.new("top"),
        "amount_idr": 50_000,
        "email": "budi@example.com",
        "name": "Budi",
        "return_url": "https://aleph.example/billing/topups/x",
        "created_at": now,
        "expires_at": now + timedelta(hours=1),
    }
    return Payment(**(given | fields))


def opened(shop: Gateways, name: str) -> tuple[Gateway, Payment]:
    gateway, first = gateway_of(shop, name), payment()
    created = gateway.create(first)
    return gateway, payment(reference=first.reference, gateway_id=created.gateway_id)


# Opening


@every_gateway
def test_a_payment_is_opened_under_our_reference_for_our_amount(shop: Gateways, name: str) -> None:
    wanted = payment()
    created = gateway_of(shop, name).create(wanted)
    order = shop.orders[wanted.reference]
    assert created.gateway_id == order.id
    assert created.pay_url.startswith("https://")
    assert (order.amount, order.gateway) == (50_000, name)


@every_gateway
def test_a_payment_waits_until_somebody_pays_and_then_says_all_that_is_compared(
    shop: Gateways, name: str
) -> None:
    gateway, wanted = opened(shop, name)
    assert gateway.fetch_status(wanted).state in ("pending", "missing")
    shop.pay(wanted.reference)
    status = gateway.fetch_status(wanted)
    assert (status.state, status.amount_idr, status.currency) == ("paid", 50_000, "IDR")
    assert status.reference == wanted.reference
    assert status.merchant == {"midtrans": MERCHANT, "stripe": ""}.get(name, BUSINESS)
    assert (status.refunded_idr, status.doubt) == (0, "")


@every_gateway
def test_a_payment_expires(shop: Gateways, name: str) -> None:
    gateway, wanted = opened(shop, name)
    shop.expire(wanted.reference)
    assert gateway.fetch_status(wanted).state == "expired"


@every_gateway
def test_a_wrong_key_is_told_apart(shop: Gateways, name: str) -> None:
    wrong = {"MIDTRANS_SERVER_KEY": "no", "XENDIT_SECRET_KEY": "no", "STRIPE_SECRET_KEY": "no"}
    with pytest.raises(Unauthorized):
        gateway_of(shop, name, **wrong).create(payment())
    assert shop.orders == {}


@every_gateway
@pytest.mark.parametrize("fault", ["500", "503", "429", "timeout-before", "cut"])
def test_an_answer_that_does_not_come_leaves_it_open(shop: Gateways, name: str, fault: str) -> None:
    shop.faults["create"] = [fault]
    with pytest.raises(Unclear):
        gateway_of(shop, name).create(payment())
    gateway, wanted = opened(shop, name)
    shop.faults["status"] = [fault]
    with pytest.raises(Unclear):
        gateway.fetch_status(wanted)


@every_gateway
def test_nobody_at_the_address_means_that_nothing_has_happened(shop: Gateways, name: str) -> None:
    closed = dict.fromkeys(
        ("MIDTRANS_SNAP_BASE_URL", "XENDIT_BASE_URL", "STRIPE_BASE_URL"), "http://127.0.0.1:9"
    )
    with pytest.raises(Unreachable):
        gateway_of(shop, name, **closed).create(payment())


@pytest.mark.parametrize("name", ["xendit-invoice", "stripe"])
def test_a_page_whose_address_got_lost_is_found_and_not_opened_again(shop: Gateways, name: str) -> None:
    gateway, wanted = gateway_of(shop, name), payment()
    shop.faults["create"] = ["timeout-after"]
    with pytest.raises(Unclear):
        gateway.create(wanted)
    found = gateway.find(wanted)
    assert found is not None
    assert found.gateway_id == shop.orders[wanted.reference].id
    assert shop.doubles == []


def test_midtrans_gives_the_page_of_an_order_once_and_never_makes_two(shop: Gateways) -> None:
    gateway, wanted = gateway_of(shop, "midtrans"), payment()
    shop.faults["create"] = ["timeout-after"]
    with pytest.raises(Unclear):
        gateway.create(wanted)
    assert gateway.find(wanted) is None
    with pytest.raises(AlreadyThere):
        gateway.create(wanted)
    fresh = payment()
    shop.faults["create"] = ["timeout-before"]
    with pytest.raises(Unclear):
        gateway.create(fresh)
    assert gateway.find(fresh) is not None
    assert shop.doubles == []


@pytest.mark.parametrize("name", ["xendit", "xendit-invoice"])
def test_xendit_is_never_asked_to_open_one_again(shop: Gateways, name: str) -> None:
    gateway, wanted = gateway_of(shop, name), payment()
    shop.faults["create"] = ["timeout-before"]
    with pytest.raises(Unclear):
        gateway.create(wanted)
    with pytest.raises(Unclear):
        gateway.find(wanted)
    assert len([line for line in shop.requests if line.startswith("POST")]) == 1


def test_stripe_counts_rupiah_in_hundredths_and_is_asked_for_its_pinned_version(shop: Gateways) -> None:
    _, wanted = opened(shop, "stripe")
    sent = shop.orders[wanted.reference].sent
    assert sent["line_items[0][price_data][unit_amount]"] == "5000000"
    assert sent["line_items[0][price_data][currency]"] == "idr"
    assert sent["payment_intent_data[metadata][payment]"] == wanted.reference


# What a status means


def test_midtrans_says_404_within_a_200_until_a_method_is_chosen(shop: Gateways) -> None:
    gateway, wanted = opened(shop, "midtrans")
    assert gateway.fetch_status(wanted).state == "missing"


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ({"transaction_status": "settlement"}, "paid"),
        ({"transaction_status": "capture", "fraud_status": "accept"}, "paid"),
        ({"transaction_status": "capture", "fraud_status": "challenge", "status_code": "201"}, "pending"),
        ({"transaction_status": "pending", "status_code": "201"}, "pending"),
        ({"transaction_status": "deny", "status_code": "202"}, "pending"),
        ({"transaction_status": "expire", "status_code": "407"}, "expired"),
        ({"transaction_status": "expire", "status_code": "202"}, "expired"),
        ({"transaction_status": "cancel"}, "failed"),
        ({"transaction_status": "failure", "status_code": "202"}, "failed"),
    ],
)
def test_words_of_midtrans(shop: Gateways, said: dict[str, str], state: str) -> None:
    gateway, wanted = opened(shop, "midtrans")
    shop.pay(wanted.reference)
    shop.wrong = said
    assert gateway.fetch_status(wanted).state == state


@pytest.mark.parametrize("code", ["401", "500", "999"])
def test_an_error_of_midtrans_within_a_200_is_an_error(shop: Gateways, code: str) -> None:
    gateway, wanted = opened(shop, "midtrans")
    shop.pay(wanted.reference)
    shop.wrong = {"status_code": code}
    with pytest.raises(GatewayError):
        gateway.fetch_status(wanted)


@pytest.mark.parametrize("name", ["midtrans", "stripe"])
def test_what_went_back_is_told_in_rupiah(shop: Gateways, name: str) -> None:
    gateway, wanted = opened(shop, name)
    shop.pay(wanted.reference)
    shop.refund(wanted.reference, 20_000)
    status = gateway.fetch_status(wanted)
    assert (status.state, status.refunded_idr) == ("paid", 20_000)
    shop.dispute(wanted.reference)
    shop.orders[wanted.reference].refunded = 0 if name == "midtrans" else 20_000
    assert gateway.fetch_status(wanted).refunded_idr == 50_000


def test_a_partial_refund_without_an_amount_needs_a_person(shop: Gateways) -> None:
    gateway, wanted = opened(shop, "midtrans")
    shop.pay(wanted.reference)
    shop.wrong = {"transaction_status": "partial_refund"}
    status = gateway.fetch_status(wanted)
    assert (status.refunded_idr, status.doubt) == (0, "partial_refund without an amount")


def test_stripe_is_paid_only_where_the_payment_is(shop: Gateways) -> None:
    gateway, wanted = opened(shop, "stripe")
    shop.orders[wanted.reference].status = "complete"
    assert gateway.fetch_status(wanted).state == "pending"
    shop.wrong = {"payment_intent": {"id": "pi_1", "status": "requires_payment_method"}}
    assert gateway.fetch_status(wanted).state == "failed"
    shop.wrong = {"payment_status": "no_payment_required"}
    assert gateway.fetch_status(wanted).doubt


# Notices


@every_gateway
def test_a_notice_names_our_reference_and_keeps_no_secret(shop: Gateways, name: str) -> None:
    gateway, wanted = opened(shop, name)
    shop.pay(wanted.reference)
    path, headers, body = shop.notice(wanted.reference)
    event = gateway.parse_webhook({key.lower(): value for key, value in headers.items()}, body)
    assert path == f"/webhooks/{name}"
    assert event.reference == wanted.reference
    for secret in (*shop.environment.values(), json.loads(body).get("signature_key") or XENDIT_TOKEN):
        assert secret == shop.url or secret not in event.body.replace(MERCHANT, "").replace(BUSINESS, "")


@every_gateway
def test_a_forged_notice_is_not_believed(shop: Gateways, name: str) -> None:
    gateway, wanted = opened(shop, name)
    shop.pay(wanted.reference)
    _, headers, body = shop.notice(wanted.reference)
    lower = {key.lower(): value for key, value in headers.items()}
    forged = [({}, body), (dict.fromkeys(lower, "no"), body), (dict.fromkeys(lower, "é"), body)]
    if name == "midtrans":
        said = json.loads(body)
        forged = [
            (lower, json.dumps(said | wrong).encode())
            for wrong in (
                {"gross_amount": "90000.00"},
                {"order_id": "top_other"},
                {"status_code": "201"},
                {"signature_key": "0" * 128},
                {"signature_key": "é"},
            )
        ]
    if name == "stripe":
        old = int(time.time()) - 301
        forged += [
            (lower, body + b" "),
            ({"stripe-signature": stripe_header(body, moment=old)}, body),
            ({"stripe-signature": stripe_header(body, secret="whsec_other")}, body),
            ({"stripe-signature": stripe_header(body).replace("v1=", "v2=")}, body),
        ]
    for given, text in forged:
        with pytest.raises(Forged):
            gateway.parse_webhook(given, text)


@every_gateway
@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{}", b"\xff\xfe", b'{"data": 1}', b"[" * 5000])
def test_what_cannot_be_read_is_no_fault_of_ours(shop: Gateways, name: str, body: bytes) -> None:
    headers = {"x-callback-token": XENDIT_TOKEN, "stripe-signature": stripe_header(body)}
    with pytest.raises(Unreadable):
        gateway_of(shop, name).parse_webhook(headers, body)


def test_the_signature_of_midtrans_is_that_of_its_documentation() -> None:
    said = {"order_id": "ALEPH-7f3c2a", "status_code": "200", "gross_amount": "50000.00"}
    expected = (
        "d803f9b6fbb749e7f968d14b29da2c665cb26826b514a2217be8a2b672a9029d"
        "d113a52d0c84f38a2456e521f1a951070c9cdcc0c9d1524934973514253006c1"
    )
    assert midtrans._signature("ALEPH-7f3c2a20050000.00", "SB-Mid-server-TEST") == expected
    assert midtrans_signature(said) == expected
    gateway = midtrans.Midtrans(server_key="SB-Mid-server-TEST", snap_url="", api_url="")
    body = json.dumps({**said, "signature_key": expected, "transaction_status": "settlement"}).encode()
    assert gateway.parse_webhook({}, body).reference == "ALEPH-7f3c2a"


def test_the_signature_of_stripe_is_that_of_its_documentation() -> None:
    expected = "1ef00b5c883f3889c1127b60eec38c156e479083175d6c2050a764dc535c447c"
    body = b'{"id":"evt_1"}'
    assert stripe.signature("whsec_test", "1795341670", body) == expected
    header = f"t=1795341670,v1={expected}"
    stripe.verify(header, body, ("whsec_test",), now=1795341670)
    stripe.verify(f"{header},v1=00,v0=11", body, ("whsec_other", "whsec_test"), now=1795341969)
    for wrong, now in [
        (header, 1795341971),
        (header, 1795341369),
        (f"t=1795341670,v0={expected}", 1795341670),
        (f"v1={expected}", 1795341670),
        (f"t=1795341670,t=1,v1={expected}", 1795341670),
        ("", 1795341670),
    ]:
        with pytest.raises(Forged):
            stripe.verify(wrong, body, ("whsec_test",), now=now)


def test_two_secrets_hold_while_they_are_being_changed(shop: Gateways) -> None:
    _gateway, wanted = opened(shop, "xendit")
    shop.pay(wanted.reference)
    _, headers, body = shop.notice(wanted.reference)
    changing = gateway_of(shop, "xendit", XENDIT_CALLBACK_TOKEN=f"fresh-token, {XENDIT_TOKEN}")
    assert changing.parse_webhook(headers, body).reference == wanted.reference


# Configuration


def test_only_what_has_a_key_is_connected_and_the_sandbox_only_with_one() -> None:
    assert gateways.configure({}).all == {}
    assert list(gateways.configure({}, sandbox_key="k", sandbox_url="http://127.0.0.1:1").offered) == [
        "sandbox"
    ]
    env = {"XENDIT_SECRET_KEY": "k", "XENDIT_CALLBACK_TOKEN": "t", "XENDIT_PRODUCT": "invoices"}
    connected = gateways.configure(env)
    assert list(connected.offered) == ["xendit-invoice"]
    assert set(connected.all) == {"xendit", "xendit-invoice"}, "what was begun before is finished"


@pytest.mark.parametrize(
    "env",
    [
        {"XENDIT_SECRET_KEY": "k"},
        {"STRIPE_SECRET_KEY": "k"},
        {"STRIPE_SECRET_KEY": "k y", "STRIPE_WEBHOOK_SECRET": "s"},
        {"XENDIT_SECRET_KEY": "k", "XENDIT_CALLBACK_TOKEN": "t", "XENDIT_PRODUCT": "other"},
        {"MIDTRANS_SERVER_KEY": "k", "MIDTRANS_API_BASE_URL": "ftp://x"},
        {"MIDTRANS_SERVER_KEY": "k", "MIDTRANS_API_BASE_URL": "http://api.example.com"},
    ],
)
def test_a_configuration_that_cannot_work_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(gateways.ConfigurationError):
        gateways.configure(env)


def test_production_refuses_to_start_with_the_sandbox() -> None:
    env = {
        **os.environ,
        "ALEPH_ENV": "production",
        "SECRET_KEY": "x" * 50,
        "FIELD_KEYS": sealed.named_key("a", "x"),
        "ALLOWED_HOSTS": "aleph.example",
        "SANDBOX_GATEWAY": "1",
    }
    read = [sys.executable, "-c", "import aleph.settings"]
    refused = subprocess.run(read, env=env, capture_output=True, text=True, check=False)
    assert "SANDBOX_GATEWAY gives money away" in refused.stderr
    del env["SANDBOX_GATEWAY"]
    assert subprocess.run(read, env=env, capture_output=True, text=True, check=False).returncode == 0


def test_a_gateway_that_cannot_work_is_said_before_anything_starts(settings: Any) -> None:
    assert gateways_can_be_configured() == []
    settings.GATEWAY_ENV = {"STRIPE_SECRET_KEY": "sk"}
    (found,) = gateways_can_be_configured()
    assert "STRIPE_WEBHOOK_SECRET" in found.msg
