"""Staff at their desks: adjusting, refunding and deciding in the administration, searching, and reading the figures."""

import csv
import io
import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from aleph import ids
from aleph.accounts.models import User
from billing import corrections, figures, ledger, monthly, purchases
from billing.models import Account, Correction, Purchase, TopUp
from tests import people
from tests.test_admin import address, office, save, saved, staff_who_may
from tests.test_billing_pages import words


def said_by(answer: Any) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.content.decode())).split())


def rich() -> User:
    person = people.someone("Alice")
    people.give_rupiah(person, 1_000_000)
    return person


def adjust(client: Client, person: User, amount: int, account: str = "wallet", **more: Any) -> Any:
    fields = {"email": person.email, "amount": str(amount), "account": account, "reason": "Slow replies"}
    return save(client, address(Correction, "add"), "correction_form", **fields, **more)


# Adjustments


def test_dewi_adjusts_with_a_reason(db: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    assert saved(adjust(office(dewi), alice, 5_000))
    assert ledger.balance_of(alice).wallet_idr == 280_000
    made = Correction.objects.get(user=alice)
    assert (made.author, made.decided_by, made.reason) == (dewi, dewi, "Slow replies")
    assert LogEntry.objects.filter(user=dewi, object_id=made.pk).exists()


def test_the_form_sent_twice_adjusts_once(db: None) -> None:
    alice, client = people.alice(), office()
    adjust(client, alice, 5_000, key="one")
    adjust(client, alice, 5_000, key="one")
    assert ledger.balance_of(alice).wallet_idr == 280_000


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "nobody@aleph.test"},
        {"amount": "0"},
        {"amount": "1.5"},
        {"reason": " "},
        {"account": "sales"},
    ],
)
def test_what_makes_no_sense_is_not_saved(db: None, wrong: dict[str, str]) -> None:
    alice = people.alice()
    fields = {"email": alice.email, "amount": "5000", "account": "wallet", "reason": "Slow"}
    answer = save(office(), address(Correction, "add"), "correction_form", **(fields | wrong))
    assert not saved(answer)
    assert not Correction.objects.filter(user=alice).exists()


def test_what_cannot_be_taken_is_said(db: None) -> None:
    bob, client = people.bob(), office()
    answer = adjust(client, bob, -51, "tokens")
    assert "Not enough tokens" in said_by(answer)
    assert 'value="Slow replies"' in answer.content.decode(), "nothing typed is lost"
    assert not Correction.objects.filter(user=bob).exists()


@pytest.mark.parametrize(
    ("typed", "meant"), [("12.000", 12_000), ("-12,000", -12_000), ("Rp 12.000,00", 12_000)]
)
def test_an_amount_is_read_as_staff_write_it(db: None, typed: str, meant: int) -> None:
    alice = people.alice()
    fields = {"email": alice.email, "amount": typed, "account": "wallet", "reason": "Slow"}
    assert saved(save(office(), address(Correction, "add"), "correction_form", **fields))
    assert ledger.balance_of(alice).wallet_idr == 275_000 + meant


def test_above_the_limit_somebody_else_approves(db: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    client = office(dewi)
    answer = adjust(client, alice, 150_000)
    assert "nothing is moved until somebody else approves" in said_by(client.get(answer["Location"]))
    made = Correction.objects.get(user=alice)
    change = address(Correction, "change", made.pk)
    own = office(dewi)
    answer = save(own, change, "correction_form", decision="approve")
    assert "Somebody else has to approve" in said_by(answer)
    assert ledger.balance_of(alice).wallet_idr == 275_000
    assert saved(save(office(), change, "correction_form", decision="approve"))
    assert ledger.balance_of(alice).wallet_idr == 425_000
    assert office().post(change, {"decision": "decline"}).status_code == 403, "it is decided"


def test_who_may_only_look_corrects_nothing(db: None) -> None:
    alice = people.alice()
    made = corrections.adjust(
        author=people.dewi(), user=alice, account="wallet", amount=200_000, reason="x", key=ids.new("key")
    )
    client = office(staff_who_may("view_correction", "view_purchase", "view_account"))
    assert client.get(address(Correction, "add")).status_code == 403
    assert client.post(address(Correction, "change", made.pk), {"decision": "approve"}).status_code == 403
    purchase = purchases.buy(user=rich(), package_slug="starter", key="a")
    assert (
        client.post(address(Purchase, "change", purchase.pk), {"reason": "x", "key": "a"}).status_code == 403
    )
    assert ledger.balance_of(alice).wallet_idr == 275_000


def test_nobody_deletes_a_correction(db: None) -> None:
    made = corrections.adjust(
        author=people.dewi(), user=people.alice(), account="wallet", amount=1, reason="x", key="a"
    )
    assert office().post(address(Correction, "delete", made.pk), {"post": "yes"}).status_code == 403


# Refunds


def test_dewi_refunds_on_the_page_of_the_purchase(db: None) -> None:
    alice = rich()
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    client, change = office(), address(Purchase, "change", purchase.pk)
    assert "Rp 50.000 goes back to the wallet" in said_by(client.get(change))
    assert saved(save(client, change, "purchase_form", reason="Bought by mistake"))
    assert ledger.balance_of(alice).wallet_idr == 1_000_000
    assert ledger.balance_of(alice).tokens == 0
    assert client.post(change, {"reason": "Again", "key": "b"}).status_code == 403
    own = Client(headers={"accept-language": "en"})
    own.force_login(alice)
    assert "Refund Bought by mistake" in words(own.get("/billing/history"))


def test_why_there_is_no_refund_is_said(db: None) -> None:
    alice = rich()
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    ledger.hold(user=alice, amount=1, reference="msg_1", key=ids.new("hold"))
    client, change = office(), address(Purchase, "change", purchase.pk)
    assert "Tokens are held for a reply in progress." in said_by(client.get(change))
    answer = save(client, change, "purchase_form", reason="Please")
    assert "Tokens are held for a reply in progress." in said_by(answer)
    assert not Correction.objects.filter(purchase=purchase).exists()


# The search

SEARCH = "/admin/money/search/"


def test_one_box_finds_what_is_asked_for(db: None) -> None:
    alice = rich()
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    topup = TopUp.objects.create(
        id=ids.new("top"),
        user=alice,
        gateway="sandbox",
        amount_idr=50_000,
        key="k",
        gateway_id=ids.new("gw"),
        payment_id=ids.new("pay"),
        expires_at=timezone.now(),
    )
    made = corrections.adjust(
        author=people.dewi(), user=alice, account="wallet", amount=1, reason="x", key="a"
    )
    client = office()
    for term, row in (
        (purchase.number.lower(), purchase),
        (purchase.pk, purchase),
        (topup.gateway_id, topup),
        (topup.payment_id, topup),
        (topup.pk, topup),
        (made.pk, made),
    ):
        page = client.get(SEARCH, {"q": f" {term} "}).content.decode()
        assert (row.number if isinstance(row, Purchase) else row.pk) in page, term
    page = client.get(SEARCH, {"q": alice.email.upper()}).content.decode()
    assert topup.pk in page
    for own in (alice, purchase, made, Account.objects.get(user=alice, name="wallet")):
        assert address(type(own), "change", own.pk) in page
    for nonsense in ("nobody@aleph.test", "\0", "x" * 500, "' OR 1=1"):
        assert "Nothing here has this" in said_by(client.get(SEARCH, {"q": nonsense})) or nonsense == "\0"


@pytest.mark.parametrize("place", ["/admin/money/", SEARCH])
def test_the_pages_about_money_are_for_who_may_see_the_books(db: None, place: str) -> None:
    assert office(staff_who_may("view_transfer", "view_purchase")).get(place).status_code == 200
    assert office(staff_who_may("view_purchase")).get(place).status_code == 403
    assert office(people.alice()).get(place).status_code == 302
    assert office().post(place).status_code == 405


# The figures


def today() -> figures.Figures:
    day = timezone.localdate()
    return figures.of(since=day, until=day, zone=timezone.get_current_timezone())


def test_the_figures_are_those_of_the_books(db: None) -> None:
    before = today()
    alice, bella = rich(), rich()
    first = purchases.buy(user=alice, package_slug="starter", key="a")
    purchases.buy(user=bella, package_slug="starter", key="a")
    corrections.refund(author=people.dewi(), purchase=first, reason="Asked for", key="b")
    held = ledger.hold(user=bella, amount=9_000, reference="msg_1", key=ids.new("hold"))
    bonus = ledger.balance_of(bella).bonus
    ledger.post(hold_id=held.id, amount=bonus + 1_000, key=ids.new("post"))
    ledger.hold(user=bella, amount=77, reference="msg_2", key=ids.new("hold"))
    after = today()
    assert after.revenue_idr - before.revenue_idr == 100_000
    assert after.refunded_idr - before.refunded_idr == 50_000
    assert after.sold_tokens - before.sold_tokens == 20_000
    assert after.used_tokens - before.used_tokens == bonus + 1_000
    assert after.owed.tokens - before.owed.tokens == 9_000
    assert after.owed.held - before.owed.held == 77
    assert after.owed.bonus == before.owed.bonus
    assert after.owed.value_idr - before.owed.value_idr == 45_000
    assert after.owed.wallets_idr - before.owed.wallets_idr == 1_000_000 + 950_000


def test_what_is_owed_is_the_sum_of_what_each_account_is_worth(db: None) -> None:
    for nth in range(6):
        person = rich()
        for which in range(nth):
            purchases.buy(user=person, package_slug="starter", key=str(which))
            people.give_tokens(person, 333 * nth)
            ledger.spend(
                user=person,
                account="tokens",
                amount=1_237 * (nth + 1),
                to="consumed",
                kind="reply",
                reference="msg_1",
                key=ids.new("use"),
            )
    each = [
        monthly.pool_now(account) for account in Account.objects.filter(name="tokens", user__isnull=False)
    ]
    assert today().owed.value_idr == sum(pool.value_idr for pool in each)
    assert today().owed.tokens == sum(pool.tokens for pool in each)


def test_the_figures_are_of_the_days_that_were_asked_for(db: None) -> None:
    purchases.buy(user=rich(), package_slug="starter", key="a")
    day = timezone.localdate() - timedelta(days=400)
    zone = timezone.get_current_timezone()
    assert figures.of(since=day, until=day, zone=zone).revenue_idr == 0


def test_the_figures_take_few_queries_and_have_a_csv(
    db: None, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    purchases.buy(user=rich(), package_slug="pro", key="a")
    with django_assert_max_num_queries(7):
        shown = today()
    client = office()
    page = said_by(client.get("/admin/money/"))
    assert "Revenue by package" in page
    answer = client.get("/admin/money/", {"as": "csv"})
    _head, *rows = csv.reader(io.StringIO(answer.content.decode("utf-8-sig")))
    (pro,) = [row for row in rows if row[:2] == ["Revenue", "Pro"]]
    assert int(pro[4]) == next(line.revenue_idr for line in shown.sold if line.package == "Pro")
    assert client.get("/admin/money/", {"from": "x", "to": "0001-01-01"}).status_code == 200
