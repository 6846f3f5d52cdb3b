"""Top-ups: opened once, credited once, whatever repeats, comes late or out of order; and what goes back is taken back."""

from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core import mail
from django.core.management import call_command
from django.db import IntegrityError, transaction
from django.utils import timezone, translation

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound
from billing import audit, freezing, ledger, mailing, notices, topups
from billing.gateways import wire
from billing.models import Account, GatewayEvent, TopUp
from tests import people
from tests.simulator_gateways import Gateways
from tests.stories_of_topups import (
    AMOUNT,
    begun,
    deliver,
    handle_all,
    outcomes,
    paid,
    told,
    transfers,
    wallet,
)

NAMES = ["midtrans", "xendit", "xendit-invoice", "stripe"]
every_gateway = pytest.mark.parametrize("name", NAMES)


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
    running_shop.wrong = {}
    topups.connected.cache_clear()


@pytest.fixture
def alice(db: None) -> User:
    return people.carol()


@pytest.fixture(autouse=True)
def books_are_right(db: None) -> Iterator[None]:
    yield
    assert audit.check() == []


def chosen(settings: Any, name: str) -> None:
    """Xendit's invoices are offered instead of its sessions."""
    if name == "xendit-invoice":
        settings.GATEWAY_ENV = {**settings.GATEWAY_ENV, "XENDIT_PRODUCT": "invoices"}
        topups.connected.cache_clear()


def aged(topup: TopUp, **by: float) -> TopUp:
    """As if it had been begun so long ago."""
    age = timedelta(**by)
    TopUp.objects.filter(pk=topup.pk).update(
        created_at=topup.created_at - age,
        expires_at=topup.expires_at - age,
        calling_until=topup.calling_until and topup.calling_until - age,
        ask_at=timezone.now(),
    )
    topup.refresh_from_db()
    return topup


# Opening


@every_gateway
def test_a_top_up_is_opened_paid_and_credited(shop: Gateways, alice: User, settings: Any, name: str) -> None:
    chosen(settings, name)
    topup = begun(alice, name)
    assert (topup.state, topup.pay_url[:8]) == ("pending", "https://")
    shop.pay(topup.pk)
    topup = told(shop, topup)
    assert (topup.state, wallet(alice)) == ("paid", AMOUNT)
    assert transfers(topup) == [("bank", "wallet", AMOUNT)]
    assert outcomes(topup) == ["credited"]


def test_a_double_click_opens_one(shop: Gateways, alice: User) -> None:
    first, second = begun(alice, key="one"), begun(alice, key="one")
    assert first.pk == second.pk
    assert second.pay_url
    assert TopUp.objects.filter(user=alice).count() == 1
    with pytest.raises(IdempotencyMismatch):
        begun(alice, amount_idr=50_000, key="one")


@pytest.mark.parametrize("amount", [0, -5, 9_999, 10_000_001])
def test_amounts_have_limits(shop: Gateways, alice: User, amount: int) -> None:
    with pytest.raises(topups.WrongAmount):
        begun(alice, amount_idr=amount)


@pytest.mark.parametrize(
    ("gateway", "key"), [("nobody", "k"), ("xendit-invoice", "k"), ("midtrans", ""), ("midtrans", "a\x00")]
)
def test_what_is_not_offered_or_has_no_key_is_refused(
    shop: Gateways, alice: User, gateway: str, key: str
) -> None:
    with pytest.raises(InvalidRequest):
        begun(alice, gateway, key=key)
    assert not TopUp.objects.filter(user=alice).exists()


def test_a_frozen_wallet_takes_no_top_up(shop: Gateways, alice: User) -> None:
    Account.objects.filter(user=alice).update(frozen_at=timezone.now())
    with pytest.raises(ledger.Frozen):
        begun(alice)


def test_a_gateway_that_is_down_is_said_and_nothing_is_lost(
    shop: Gateways, alice: User, settings: Any
) -> None:
    settings.GATEWAY_ENV = {**settings.GATEWAY_ENV, "MIDTRANS_SNAP_BASE_URL": "http://127.0.0.1:9"}
    topups.connected.cache_clear()
    with pytest.raises(topups.GatewayDown) as caught:
        begun(alice)
    assert "Midtrans" in str(caught.value.message)
    assert TopUp.objects.get(user=alice).state == "failed"


def test_a_wrong_key_is_an_error_for_whoever_runs_this(shop: Gateways, alice: User) -> None:
    shop.faults["create"] = ["401"]
    with pytest.raises(topups.GatewayDown):
        begun(alice)
    assert TopUp.objects.get(user=alice).problem.startswith("401")


@pytest.mark.parametrize("fault", ["timeout-after", "cut", "500"])
def test_a_lost_answer_is_looked_for_at_once(shop: Gateways, alice: User, fault: str) -> None:
    shop.faults["create"] = [fault]
    topup = begun(alice, "stripe")
    assert (topup.state, topup.gateway_id) == ("pending", shop.orders[topup.pk].id)
    assert shop.doubles == []


def test_an_invoice_whose_answer_got_lost_is_found_by_the_clock_and_there_is_one(
    shop: Gateways, alice: User, settings: Any
) -> None:
    chosen(settings, "xendit-invoice")
    shop.faults["create"], shop.faults["find"] = ["timeout-after"], ["500"]
    topup = begun(alice, "xendit-invoice")
    assert (topup.state, topup.pay_url) == ("created", "")
    TopUp.objects.filter(pk=topup.pk).update(ask_at=timezone.now())
    assert topups.reconcile().changed == 1
    topup.refresh_from_db()
    assert (topup.state, topup.gateway_id) == ("pending", shop.orders[topup.pk].id)
    assert shop.doubles == []


def test_a_caller_that_died_leaves_a_row_that_the_clock_takes_up(shop: Gateways, alice: User) -> None:
    now = timezone.now()
    dead = TopUp.objects.create(
        id=ids.new("top"),
        user=alice,
        gateway="stripe",
        amount_idr=AMOUNT,
        key="k",
        calling_until=now - timedelta(seconds=1),
        expires_at=now + timedelta(hours=1),
        ask_at=now,
    )
    topups.sweep()
    dead.refresh_from_db()
    assert dead.state == "pending"


def test_a_page_that_is_not_found_in_time_is_given_up_and_still_credited_should_it_be_paid(
    shop: Gateways, alice: User
) -> None:
    shop.faults["create"] = ["timeout-after"]
    topup = begun(alice, "xendit")
    assert topup.state == "created"
    aged(topup, minutes=16)
    topups.sweep()
    topup.refresh_from_db()
    assert topup.state == "failed"
    shop.pay(topup.pk)
    topup = told(shop, topup)
    assert (topup.state, topup.was_late, wallet(alice)) == ("paid", True, AMOUNT)


def test_two_callers_at_once_ask_the_gateway_once(shop: Gateways, alice: User) -> None:
    topup = begun(alice, key="one")
    TopUp.objects.filter(pk=topup.pk).update(
        state="created", calling_until=timezone.now() + timedelta(seconds=9)
    )
    asked = len(shop.requests)
    assert begun(alice, key="one").state == "created"
    assert len(shop.requests) == asked


# Notices


@every_gateway
def test_a_notice_that_comes_thrice_credits_once(
    shop: Gateways, alice: User, settings: Any, name: str
) -> None:
    chosen(settings, name)
    topup = begun(alice, name)
    shop.pay(topup.pk)
    for _each in range(3):
        assert deliver(shop, topup.pk) == 200
        handle_all()
    assert wallet(alice) == AMOUNT
    event = GatewayEvent.objects.get(topup=topup)
    assert (event.deliveries, event.outcome) == (3, "credited")


def test_a_notice_decides_nothing_by_itself(shop: Gateways, alice: User) -> None:
    """Signed as it should be, and yet the gateway says something else when it is asked."""
    topup = begun(alice)
    shop.orders[topup.pk].status = "pending"
    topup = told(shop, topup, transaction_status="settlement")
    assert (topup.state, wallet(alice)) == ("pending", 0)
    assert deliver(shop, topup.pk) == 200


def test_a_captured_notice_with_another_status_takes_nothing_back(shop: Gateways, alice: User) -> None:
    topup = paid(shop, alice)
    topup = told(shop, topup, transaction_status="refund")
    assert (topup.state, wallet(alice)) == ("paid", AMOUNT)
    assert outcomes(topup) == ["credited", "nothing new"]


def test_expire_after_paid_is_noted_and_not_applied(shop: Gateways, alice: User) -> None:
    topup = paid(shop, alice)
    shop.expire(topup.pk)
    topup = told(shop, topup)
    assert (topup.state, wallet(alice)) == ("paid", AMOUNT)
    assert outcomes(topup)[-1] == "expire after paid: not applied"


@every_gateway
def test_paid_after_expire_is_credited_and_said(
    shop: Gateways, alice: User, settings: Any, name: str
) -> None:
    chosen(settings, name)
    topup = begun(alice, name)
    shop.expire(topup.pk)
    topup = told(shop, topup)
    assert topup.state == "expired"
    shop.pay(topup.pk)
    topup = told(shop, topup)
    assert (topup.state, topup.was_late, wallet(alice)) == ("paid", True, AMOUNT)


def test_its_owner_is_told_what_became_of_it_once(shop: Gateways, alice: User) -> None:
    left, refused, late = begun(alice), begun(alice), begun(alice)
    for topup, what in ((left, "expire"), (refused, "failure"), (late, "expire")):
        shop.orders[topup.pk].status = what
        told(shop, topup)
    for _again in range(2):
        shop.pay(late.pk)
        told(shop, late)
    shop.refund(late.pk, 40_000)
    told(shop, late)
    with translation.override("en"):
        said = [
            (notice.reference, mailing.words_of(notice).title) for notice in reversed(notices.inbox(alice))
        ]
    assert said == [
        (left.pk, "A top-up of Rp 100.000 was not paid"),
        (refused.pk, "A top-up of Rp 100.000 did not go through"),
        (late.pk, "A top-up of Rp 100.000 was not paid"),
        (late.pk, "Rp 100.000 is in your wallet"),
        (late.pk, "Rp 40.000 refunded"),
    ]


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("midtrans", {"gross_amount": "90000.00"}),
        ("midtrans", {"gross_amount": "100000.50"}),
        ("midtrans", {"currency": "USD"}),
        ("midtrans", {"merchant_id": "G000"}),
        ("midtrans", {"order_id": "top_another"}),
        ("xendit", {"amount": 90_000}),
        ("xendit", {"business_id": "another"}),
        ("xendit-invoice", {"paid_amount": 99_999}),
        ("xendit-invoice", {"currency": "PHP"}),
        ("stripe", {"amount_total": 100_000}),
        ("stripe", {"currency": "usd"}),
        ("stripe", {"client_reference_id": "top_another"}),
    ],
)
def test_what_differs_is_not_credited_and_staff_are_told(
    shop: Gateways,
    alice: User,
    settings: Any,
    name: str,
    wrong: dict[str, Any],
    django_capture_on_commit_callbacks: Any,
) -> None:
    chosen(settings, name)
    settings.ADMINS = [("", "dewi@aleph.test")]
    topup = begun(alice, name)
    shop.pay(topup.pk)
    path_of_ours = shop.notice(topup.pk)
    shop.wrong = wrong
    with django_capture_on_commit_callbacks(execute=True):
        topups.ask(topup)
        topups.ask(topup)
    topup.refresh_from_db()
    assert (topup.state, wallet(alice)) == ("pending", 0)
    assert topup.flag.startswith("another ")
    assert len(mail.outbox) == 1
    assert topup.pk in mail.outbox[0].subject
    shop.wrong = {}
    assert path_of_ours
    topups.ask(topup)
    assert wallet(alice) == AMOUNT, "once it is right it is credited"


def test_what_is_unknown_is_answered_kept_and_not_repeated(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    assert deliver(shop, topup.pk, order_id=ids.new("top")) == 200
    event = GatewayEvent.objects.get(outcome="unknown reference", gateway="midtrans", topup=None)
    assert event.handled_at is not None
    assert wallet(alice) == 0


def test_a_gateway_that_does_not_answer_is_asked_again_by_the_sweep(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    shop.faults["status"] = ["500"]
    topup = told(shop, topup)
    event = GatewayEvent.objects.get(topup=topup)
    assert (topup.state, event.handled_at, event.tries) == ("pending", None, 1)
    assert event.due_at > timezone.now()
    GatewayEvent.objects.filter(pk=event.pk).update(due_at=timezone.now())
    topups.sweep()
    topup.refresh_from_db()
    assert (topup.state, wallet(alice)) == ("paid", AMOUNT)


def test_a_bell_that_was_lost_is_made_up_for_by_the_sweep(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    assert deliver(shop, topup.pk) == 200
    GatewayEvent.objects.filter(topup=topup).update(due_at=timezone.now())
    topups.sweep()
    assert wallet(alice) == AMOUNT


def test_one_question_answers_all_that_has_come(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    for number in range(4):
        deliver(shop, topup.pk, settlement_time=str(number))
    asked = len(shop.requests)
    handle_all()
    assert len(shop.requests) == asked + 1
    assert outcomes(topup) == ["credited"] * 4


# What goes back


@pytest.mark.parametrize("name", ["midtrans", "stripe"])
def test_refunds_are_taken_out_of_the_wallet_step_by_step(shop: Gateways, alice: User, name: str) -> None:
    topup = paid(shop, alice, name)
    shop.refund(topup.pk, 30_000)
    topup = told(shop, topup)
    assert (topup.state, topup.refunded_idr, wallet(alice)) == ("paid", 30_000, 70_000)
    shop.refund(topup.pk, 70_000)
    topup = told(shop, topup)
    assert (topup.state, topup.refunded_idr, wallet(alice)) == ("refunded", AMOUNT, 0)
    topup = told(shop, topup)
    assert transfers(topup) == [
        ("bank", "wallet", AMOUNT),
        ("wallet", "bank", 30_000),
        ("wallet", "bank", 70_000),
    ]


@pytest.mark.parametrize("name", ["midtrans", "stripe"])
def test_a_chargeback_takes_what_is_there_and_the_rest_is_owed(
    shop: Gateways, alice: User, name: str, settings: Any, django_capture_on_commit_callbacks: Any
) -> None:
    settings.ADMINS = [("", "dewi@aleph.test")]
    topup = paid(shop, alice, name)
    people.take_rupiah(alice, 60_000)
    shop.dispute(topup.pk)
    with django_capture_on_commit_callbacks(execute=True):
        topup = told(shop, topup)
    assert (topup.state, topup.owed_idr, wallet(alice)) == ("refunded", 60_000, 0)
    assert transfers(topup)[1:] == [("wallet", "bank", 40_000), ("receivable", "bank", 60_000)]
    assert ledger.balance_of(alice).frozen
    assert "60000" in mail.outbox[-1].body


def test_what_is_owed_is_collected_by_staff_once_the_wallet_can_pay_it(shop: Gateways, alice: User) -> None:
    dewi = people.dewi()
    topup = paid(shop, alice)
    people.take_rupiah(alice, AMOUNT)
    shop.refund(topup.pk)
    topup = told(shop, topup)
    assert topup.owed_idr == AMOUNT
    assert not topups.clear_flag(topup), "a debt is not looked away"
    with pytest.raises(ledger.Frozen):
        topups.collect(topup=topup, author=dewi)
    for account in Account.objects.filter(user=alice):
        freezing.unfreeze(account)
    with pytest.raises(ledger.InsufficientWallet):
        topups.collect(topup=topup, author=dewi)
    people.give_rupiah(alice, 150_000)
    assert topups.collect(topup=topup, author=dewi) == AMOUNT
    assert topups.collect(topup=topup, author=dewi) == 0
    topup.refresh_from_db()
    assert (topup.owed_idr, topup.flag, wallet(alice)) == (0, "", 50_000)
    assert transfers(topup)[-1] == ("wallet", "receivable", AMOUNT)


def test_a_refund_that_is_heard_of_before_the_payment_moves_both(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    shop.refund(topup.pk)
    topup = told(shop, topup)
    assert (topup.state, wallet(alice)) == ("refunded", 0)
    assert transfers(topup) == [("bank", "wallet", AMOUNT), ("wallet", "bank", AMOUNT)]


def test_a_dispute_that_names_only_the_payment_finds_its_top_up(shop: Gateways, alice: User) -> None:
    topup = paid(shop, alice, "stripe")
    assert topup.payment_id.startswith("pi_")
    shop.dispute(topup.pk)
    assert told(shop, topup).state == "refunded"


# The clock


def test_a_payment_without_any_notice_is_found(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    assert topups.reconcile().asked == 0, "not at once: a notice is quicker"
    aged(topup, minutes=2)
    looked = topups.reconcile()
    assert (looked.asked, looked.changed, wallet(alice)) == (1, 1, AMOUNT)
    assert topups.reconcile().asked == 0


def test_the_older_the_rarer(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.orders[topup.pk].status = "pending"
    pauses = []
    for age in (timedelta(minutes=1), timedelta(minutes=30), timedelta(hours=5), timedelta(days=3)):
        TopUp.objects.filter(pk=topup.pk).update(
            created_at=timezone.now() - age,
            expires_at=timezone.now() + timedelta(hours=1),
            ask_at=timezone.now(),
        )
        topups.reconcile()
        topup.refresh_from_db()
        assert topup.ask_at is not None
        pauses.append(round((topup.ask_at - timezone.now()).total_seconds()))
    assert pauses == [60, 300, 3600, 43200]
    aged(topup, days=7)
    topups.reconcile()
    topup.refresh_from_db()
    assert topup.state == "expired"


def test_a_payment_that_the_gateway_never_heard_of_expires(shop: Gateways, alice: User) -> None:
    topup = aged(begun(alice), minutes=75)
    topups.reconcile()
    topup.refresh_from_db()
    assert topup.state == "expired"


def test_a_silent_gateway_is_left_alone_for_this_time(shop: Gateways, alice: User) -> None:
    for _each in range(3):
        aged(begun(alice), minutes=2)
    shop.faults["status"] = ["500"] * 3
    looked = topups.reconcile()
    assert (looked.asked, looked.failed) == (1, 1)


def test_a_refund_of_which_no_notice_came_is_found_later(shop: Gateways, alice: User) -> None:
    topup = paid(shop, alice)
    shop.refund(topup.pk)
    assert topup.ask_at is not None
    assert timedelta(hours=23) < topup.ask_at - timezone.now() <= timedelta(days=1)
    TopUp.objects.filter(pk=topup.pk).update(ask_at=timezone.now())
    topups.reconcile()
    assert wallet(alice) == 0


def test_the_command_says_what_it_found_and_is_harmless_twice(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.pay(topup.pk)
    out = StringIO()
    call_command("reconcile_topups", "--open", stdout=out)
    call_command("reconcile_topups", "--open", stdout=out)
    assert "1 changed" in out.getvalue().splitlines()[0]
    assert wallet(alice) == AMOUNT


# Its owner


def test_a_top_up_of_anothers_is_not_there(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    for wanted in (topup.pk, "top_1", ids.new("top"), ids.new("buy")):
        with pytest.raises(NotFound):
            topups.get(people.carol(), wanted)


def test_its_owner_may_ask_but_not_without_end(shop: Gateways, alice: User) -> None:
    topup = begun(alice)
    shop.orders[topup.pk].status = "pending"
    asked = len(shop.requests)
    for _each in range(3):
        topups.ask_for(alice, topup.pk)
    assert len(shop.requests) == asked + 1


# What the database itself holds


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_idr": 0},
        {"state": "paid"},
        {"state": "pending", "paid_at": timezone.now()},
        {"refunded_idr": 1},
        {"owed_idr": 1},
    ],
)
def test_a_top_up_that_cannot_be_is_refused_by_the_database(
    shop: Gateways, alice: User, wrong: dict[str, Any]
) -> None:
    topup = begun(alice)
    with pytest.raises(IntegrityError), transaction.atomic():
        TopUp.objects.filter(pk=topup.pk).update(**wrong)
