"""The pages of top-ups, the addresses of notices, the JSON API, and the sandbox gateway over HTTP."""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from aleph import ids
from aleph.accounts.models import ApiKey, User
from billing import topups, webhooks
from billing.gateways import wire
from billing.models import GatewayEvent, SandboxPayment, TopUp
from tests import people
from tests.forms import filled
from tests.product import Product, Visitor
from tests.simulator_gateways import Gateways
from tests.stories_of_topups import begun, page_of, paid, told, wallet
from tests.test_billing_pages import signed_in, words

FORM = "/billing/top-up"
BEGIN = "/billing/topups"
API = "/api/v1/wallet/topups"


@pytest.fixture(scope="module")
def running_shop() -> Iterator[Gateways]:
    with Gateways() as simulator:
        yield simulator


@pytest.fixture
def shop(
    running_shop: Gateways, settings: Any, monkeypatch: pytest.MonkeyPatch, db: None
) -> Iterator[Gateways]:
    monkeypatch.setattr(wire, "READ_S", 0.4)
    settings.GATEWAY_ENV = {**settings.GATEWAY_ENV, **running_shop.environment}
    topups.connected.cache_clear()
    yield running_shop
    running_shop.faults.clear()
    topups.connected.cache_clear()


@pytest.fixture
def alice(db: None) -> User:
    return people.carol()


# The form


def test_the_form_offers_amounts_and_ways_to_pay(shop: Gateways, alice: User) -> None:
    page = signed_in(alice).get(FORM)
    said = words(page)
    for word in (
        "Rp 50.000",
        "Rp 1.000.000",
        "Another amount",
        "Midtrans",
        "Xendit",
        "Stripe",
        "Sandbox",
        "No money moves",
    ):
        assert word in said
    fields = filled(page, action=BEGIN)
    assert (fields["amount"], fields["gateway"]) == ("100000", "midtrans")


def test_what_is_missing_is_proposed_in_tens_of_thousands(shop: Gateways, alice: User) -> None:
    fields = filled(signed_in(alice).get(f"{FORM}?amount=123456"), action=BEGIN)
    assert (fields["amount"], fields["own"]) == ("", "130000")


@pytest.mark.parametrize(
    "typed",
    [
        "75000",
        "75.000",
        "Rp 75.000",
        " 75,000 ",
        "rp75000",
        "Rp. 75.000,-",
        "75.000,00",
        "75,000.00",
        "75 000",
    ],
)
def test_an_amount_is_taken_as_people_write_it(shop: Gateways, alice: User, typed: str) -> None:
    client = signed_in(alice)
    client.post(BEGIN, {"amount": "", "own": typed, "gateway": "midtrans", "key": ids.new("key")})
    assert TopUp.objects.get(user=alice).amount_idr == 75_000


@pytest.mark.parametrize("typed", ["0", "-50000", "9" * 30, "5000", "999.999.999.999"])
def test_an_amount_that_cannot_be_is_said_beside_the_form(shop: Gateways, alice: User, typed: str) -> None:
    answer = signed_in(alice).post(BEGIN, {"amount": "", "own": typed, "gateway": "midtrans", "key": "k"})
    assert answer.status_code == 400
    assert "between Rp 10.000 and Rp 10.000.000" in words(answer)
    fields = filled(answer, action=BEGIN)
    assert fields["key"] != "k", "another try is another top-up"
    assert (fields["amount"], fields["own"]) == ("", typed)


@pytest.mark.parametrize(
    "typed", ["abc", "5-0000", "1e6", "٧٥٠٠٠", "75.000,50", "750.00.000", "75.0000", "10.5"]
)
def test_what_could_be_another_amount_is_asked_again(shop: Gateways, alice: User, typed: str) -> None:
    answer = signed_in(alice).post(BEGIN, {"amount": "", "own": typed, "gateway": "midtrans", "key": "k"})
    assert answer.status_code == 400
    assert "in whole rupiah, such as 75.000" in words(answer)
    fields = filled(answer, action=BEGIN)
    assert (fields["amount"], fields["own"]) == ("", typed)
    assert not TopUp.objects.filter(user=alice).exists()


def test_a_gateway_that_is_down_keeps_what_was_chosen(shop: Gateways, alice: User) -> None:
    shop.faults["create"] = ["401"]
    form = {"amount": "200000", "gateway": "xendit", "key": "k", "next": "/chat/cht_1"}
    answer = signed_in(alice).post(BEGIN, form)
    assert answer.status_code == 503
    assert "Nothing was charged" in words(answer)
    fields = filled(answer, action=BEGIN)
    assert (fields["amount"], fields["gateway"], fields["next"]) == ("200000", "xendit", "/chat/cht_1")


def test_a_double_click_leads_to_the_same_top_up(shop: Gateways, alice: User) -> None:
    form = {"amount": "50000", "gateway": "midtrans", "key": "one"}
    client = signed_in(alice)
    first, second = client.post(BEGIN, form), client.post(BEGIN, form)
    assert first.status_code == second.status_code == 303
    assert first["Location"] == second["Location"]


def test_the_way_out_is_a_page_because_forms_may_not_leave(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    page = signed_in(alice).get(f"{page_of(topup)}/pay").content.decode()
    assert f'<meta http-equiv="refresh" content="0; url={topup.pay_url}">' in page
    assert f'href="{topup.pay_url}"' in page
    topup = paid(shop, alice)
    assert signed_in(alice).get(f"{page_of(topup)}/pay")["Location"] == page_of(topup)


@pytest.mark.parametrize(
    "way", ["https://evil.example/", "//evil.example", "javascript:alert(1)", "/\\evil.example", "chat"]
)
def test_nobody_is_led_elsewhere_afterwards(shop: Gateways, alice: User, way: str) -> None:
    client = signed_in(alice)
    assert "next" not in filled(client.get(FORM, {"next": way}), action=BEGIN)
    client.post(BEGIN, {"amount": "50000", "gateway": "midtrans", "key": "k", "next": way})
    assert TopUp.objects.get(user=alice).return_to == ""


# What became of it


def test_coming_back_says_what_is_known_and_credits_nothing(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    answer = signed_in(alice).get(
        f"{page_of(topup)}?order_id={topup.pk}&transaction_status=settlement&status_code=200"
    )
    assert "Waiting for word from Midtrans" in words(answer)
    assert wallet(alice) == 0


def test_the_page_asks_for_itself_until_it_is_over(shop: Gateways, alice: User) -> None:
    topup, client = begun(alice), signed_in(alice)
    page = client.get(page_of(topup)).content.decode()
    assert 'hx-trigger="every 3s"' in page
    assert "<noscript><meta http-equiv" in page
    address = f"{page_of(topup)}/state?seen=pending-0-&until={int(time.time()) + 600}"
    assert client.get(address).status_code == 204, "nothing has changed"
    late = client.get(f"{page_of(topup)}/state?seen=pending-0-&until=5")
    assert (late.status_code, b"hx-trigger" in late.content) == (286, False)
    shop.pay(topup.pk)
    told(shop, topup)
    done = client.get(address)
    assert (done.status_code, b"hx-trigger" in done.content) == (286, False)
    assert "Rp 100.000 is in your wallet" in done.content.decode()


def test_its_owner_has_the_gateway_asked(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    assert signed_in(alice).post(f"{page_of(topup)}/checks").status_code == 303
    assert wallet(alice) == 100_000
    topup = begun(alice)
    shop.faults["status"] = ["500"]
    answer = signed_in(alice).post(f"{page_of(topup)}/checks")
    assert (answer.status_code, "We keep asking" in words(answer)) == (503, True)


def test_after_paying_one_comes_back_to_the_message(shop: Gateways, alice: User) -> None:
    topup = begun(alice, return_to="/chat/cht_1")
    shop.pay(topup.pk)
    told(shop, topup)
    assert 'href="/chat/cht_1"' in signed_in(alice).get(page_of(topup)).content.decode()


def test_every_state_has_words_of_its_own(shop: Gateways, alice: User) -> None:
    client = signed_in(alice)
    topup = begun(alice)
    shop.expire(topup.pk)
    told(shop, topup)
    assert "The time to pay is over" in words(client.get(page_of(topup)))
    topup = paid(shop, alice)
    shop.refund(topup.pk, 40_000)
    told(shop, topup)
    said = words(client.get(page_of(topup)))
    assert "Rp 40.000 was given back" in said
    assert "is in your wallet" not in said
    people.take_rupiah(alice, 60_000)
    shop.refund(topup.pk)
    told(shop, topup)
    said = words(client.get(page_of(topup)))
    assert "Rp 100.000 was given back" in said
    assert "Rp 60.000 of what went back had already been spent" in said
    listed = words(client.get(BEGIN))
    assert "expired" in listed
    assert "given back" in listed
    assert "No money has come in yet" in words(signed_in(people.carol()).get(BEGIN))


# Notices


def test_notices_are_posted_and_not_too_long_and_to_gateways_that_are_there(
    shop: Gateways, alice: User
) -> None:
    client = Client(enforce_csrf_checks=True)
    assert client.get("/webhooks/midtrans").status_code == 405
    assert client.post("/webhooks/nobody", b"{}", "application/json").status_code == 404
    long = b" " * (webhooks.LONGEST + 1)
    assert client.post("/webhooks/midtrans", long, "application/json").status_code == 413
    assert client.post("/webhooks/midtrans", b"{}", "application/json").status_code == 400
    assert client.post("/webhooks/xendit", b"{}", "application/json").status_code == 401
    assert client.post("/webhooks/midtrans/", b"{}", "application/json").status_code == 404
    assert not GatewayEvent.objects.exists()


def test_what_is_kept_of_a_notice_has_no_secret(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    told(shop, topup)
    _path, _headers, body = shop.notice(topup.pk)
    kept = GatewayEvent.objects.get(topup=topup).body
    assert json.loads(body)["signature_key"] not in kept
    assert json.loads(kept)["order_id"] == topup.pk


# Programs


def program(user: User, key: str = "") -> Client:
    headers = {"Authorization": f"Bearer {ApiKey.issue(user=user, name='t')}", "Accept-Language": "en"}
    return Client(headers=headers | ({"Idempotency-Key": key} if key else {}))


def test_a_program_begins_a_top_up_once_and_reads_it(shop: Gateways, alice: User) -> None:
    client = program(alice, "one")
    first = client.post(API, {"amount": 50_000, "method": "stripe"}, "application/json")
    again = client.post(API, {"amount": 50_000, "method": "stripe"}, "application/json")
    assert (first.status_code, again.status_code) == (201, 201)
    data = first.json()["data"]
    assert data == again.json()["data"]
    assert (data["state"], data["method"], data["amount"]) == ("pending", "stripe", 50_000)
    assert data["paymentUrl"].startswith("https://checkout.stripe.com/")
    other = client.post(API, {"amount": 60_000, "method": "stripe"}, "application/json")
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")
    assert client.get(f"{API}/{data['id']}").json()["data"] == data
    assert client.get(API).json()["data"] == {"topups": [data], "nextCursor": None}
    assert program(people.carol()).get(f"{API}/{data['id']}").status_code == 404


def test_a_program_is_told_what_is_wrong(shop: Gateways, alice: User) -> None:
    assert program(alice).post(API, {"amount": 50_000}, "application/json").status_code == 400
    client = program(alice, "k")
    unknown = client.post(API, {"amount": 50_000, "method": "cash"}, "application/json")
    assert unknown.json()["data"]["methods"] == ["midtrans", "xendit", "stripe", "sandbox"]
    assert client.post(API, {"amount": 5}, "application/json").json()["data"]["minimum"] == 10_000
    assert client.post(API, {"amount": "many"}, "application/json").status_code == 400
    shop.faults["create"] = ["401"]
    down = client.post(API, {"amount": 50_000}, "application/json")
    assert (down.status_code, down.json()["code"]) == (503, "GATEWAY_UNAVAILABLE")


# Staff


def test_staff_find_a_payment_by_the_gateways_reference_and_have_it_asked(
    shop: Gateways, alice: User
) -> None:
    dewi = signed_in(people.dewi())
    topup = begun(alice, "stripe")
    found = dewi.get("/admin/billing/topup/", {"q": topup.gateway_id}).content.decode()
    assert topup.pk in found
    shop.pay(topup.pk)
    chosen = {"action": "ask_again", "_selected_action": [topup.pk]}
    answer = dewi.post("/admin/billing/topup/", chosen, follow=True).content.decode()
    assert f"Credited: {topup.pk}" in answer
    assert wallet(alice) == 100_000
    assert dewi.post(f"/admin/billing/topup/{topup.pk}/change/", {"state": "paid"}).status_code == 403


# The sandbox


def test_the_sandbox_cannot_be_in_production(settings: Any) -> None:
    settings.DEVELOPMENT = False
    topups.connected.cache_clear()
    assert "sandbox" not in topups.connected().all
    topups.connected.cache_clear()


def test_a_stranger_pays_nothing_at_the_sandbox(shop: Gateways, alice: User) -> None:
    topup = begun(alice, "sandbox")
    carol = signed_in(people.carol())
    assert carol.get(topup.pay_url).status_code == 404
    assert carol.post(topup.pay_url, {"action": "pay"}).status_code == 404
    assert Client().get(f"/sandbox-gateway/payments/{topup.pk}").status_code == 401
    assert not SandboxPayment.objects.exists()


def at_sandbox(visitor: Visitor, action: str, *, amount: int = 50_000) -> TopUp:
    """Somebody without scripts begins a top-up and does something on the sandbox's page."""
    form = {"amount": str(amount), "gateway": "sandbox", "key": ids.new("key")}
    way_out = visitor.post(BEGIN, form)
    topup = TopUp.objects.get(pk=way_out.url.split("/")[-2])
    assert f'url={topup.pay_url}"' in way_out.text
    act(visitor, topup, action)
    return topup


def act(visitor: Visitor, topup: TopUp, action: str) -> None:
    assert "No money moves" in visitor.get(topup.pay_url).text
    assert visitor.post(topup.pay_url, {"action": action}).status_code == 200


def until(topup: TopUp, state: str) -> TopUp:
    deadline = time.monotonic() + 60
    while topup.state != state:
        assert time.monotonic() < deadline, f"{topup.pk} is {topup.state}"
        time.sleep(0.1)
        topup.refresh_from_db()
    return topup


def test_the_sandbox_tells_by_the_same_way_as_the_others(product: Product) -> None:
    carol = people.carol()
    visitor = product.signed_in(carol)
    topup = until(at_sandbox(visitor, "pay-twice"), "paid")
    assert GatewayEvent.objects.get(topup=topup).deliveries >= 1
    assert wallet(carol) == 50_000
    act(visitor, topup, "refund")
    until(topup, "refunded")
    assert wallet(carol) == 0


def test_a_notice_of_the_sandbox_that_got_lost_is_asked_for(product: Product) -> None:
    carol = people.carol()
    visitor = product.signed_in(carol)
    topup = at_sandbox(visitor, "pay-silently")
    assert topup.state == "pending"
    assert "is in your wallet" in visitor.post(f"{page_of(topup)}/checks").text
    assert wallet(carol) == 50_000


def test_paying_late_at_the_sandbox_counts(product: Product) -> None:
    carol = people.carol()
    visitor = product.signed_in(carol)
    topup = until(at_sandbox(visitor, "expire"), "expired")
    act(visitor, topup, "pay")
    assert until(topup, "paid").was_late
    assert wallet(carol) == 50_000
