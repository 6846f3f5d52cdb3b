"""The billing pages say what somebody has, what a purchase will do and what it did; to its owner and nobody else."""

import re
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from aleph import ids
from aleph.accounts.models import User
from billing import ledger, purchases, topups
from billing.models import Account, Package, Purchase, Transfer
from tests import people

HOME = "/billing"
CONFIRM = "/billing/packages/pro"
BUY = "/billing/purchases"


def signed_in(person: User, **options: Any) -> Client:
    client = Client(headers={"accept-language": "en"}, **options)
    client.force_login(person)
    return client


def words(response: Any) -> str:
    """What the main part of a page says, without its markup."""
    main = re.search(r"<main.*</main>", response.content.decode(), re.DOTALL)
    assert main is not None
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main[0])).split())


def form_of(response: Any) -> dict[str, str]:
    """The fields of the confirm step, as a browser would send them."""
    fields = re.findall(
        r'<input type="hidden" name="(package|quantity|promo|key|terms)" value="([^"]*)">',
        response.content.decode(),
    )
    return dict(fields)


def use(person: User, cost: int) -> str:
    reply = ids.new("msg")
    held = ledger.hold(user=person, amount=cost, reference=reply, key=ids.new("hold"))
    ledger.post(hold_id=held.id, amount=cost, key=ids.new("close"))
    return reply


# The overview


def test_the_overview_says_what_somebody_has(db: None) -> None:
    alice = people.alice()
    ledger.hold(user=alice, amount=352, reference="msg_1", key=ids.new("hold"))
    use(alice, 500)
    page = signed_in(alice).get(HOME)
    said = words(page)
    assert "10,000 tokens" in said
    assert '<data value="10000">' in page.content.decode(), "no separators in what machines read"
    assert "352 held for replies in progress" in said
    assert "Free to spend 9,648" in said
    assert "Used this month 500" in said
    assert "Rp 275.000" in said


def test_the_overview_offers_four_packages_with_price_and_saving(db: None) -> None:
    said = words(signed_in(people.alice()).get(HOME))
    assert "Starter 10,500 tokens 10,000 + 500 bonus Price Rp 50.000 Per 1K Rp 4.762 per 1K Saving –" in said
    assert (
        "Pro Most bought 55,000 tokens 50,000 + 5,000 bonus Price Rp 200.000 Per 1K Rp 3.636 per 1K Saving 24%"
        in said
    )
    assert "Saving 45% Buy Business" in said
    assert "Saving 56% Buy Enterprise" in said


def test_the_overview_has_no_button_that_does_nothing(db: None, settings: Any) -> None:
    settings.SANDBOX_GATEWAY = False
    topups.connected.cache_clear()
    response = signed_in(people.alice()).get(HOME)
    topups.connected.cache_clear()
    assert "Staff can add to it." in words(response)
    assert "Top up" not in words(response)


def test_a_withdrawn_package_is_not_shown(db: None) -> None:
    Package.objects.filter(slug="pro").update(is_offered=False)
    assert "Buy Pro" not in words(signed_in(people.alice()).get(HOME))


def test_a_frozen_account_is_told_so(db: None) -> None:
    alice = people.alice()
    Account.objects.filter(user=alice).update(frozen_at=timezone.now())
    client = signed_in(alice)
    assert "Frozen while we check this account" in words(client.get(HOME))
    confirm = client.get(CONFIRM)
    assert "Nothing can be bought until then" in words(confirm)
    assert "Buy Pro</span></button>" not in confirm.content.decode()
    too_dear = words(client.get("/billing/packages/enterprise"))
    assert "Nothing can be bought until then" in too_dear
    assert "more is needed" not in too_dear
    refused = client.post(BUY, form_of(confirm))
    assert refused.status_code == 423
    assert "frozen" in words(refused)


# The history


def test_the_history_shows_what_was_bought_and_used_and_no_holds(db: None) -> None:
    alice = people.alice()
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    use(alice, 225)
    failed = ledger.hold(user=alice, amount=7_777, reference="msg_2", key=ids.new("hold"))
    ledger.void(hold_id=failed.id, key=ids.new("close"), reason="failed")
    response = signed_in(alice).get(HOME)
    said = words(response)
    assert "Reply Its chat was deleted −225 tokens 20,775" in said
    assert "Starter package 10,000 and 500 bonus, paid with Rp 50.000 +10,500 tokens 21,000" in said
    assert "Starter package 10,500 tokens −Rp 50.000 Rp 225.000" in said
    assert "7,777" not in said
    page = response.content.decode()
    assert reverse("billing:receipt", args=[purchase.pk]) in page
    assert reverse("billing:history") in page


# Buying


def test_the_confirm_step_says_exactly_what_will_happen(db: None) -> None:
    said = words(signed_in(people.alice()).get(CONFIRM))
    assert "Buy Pro for Rp 200.000? This is all that will happen:" in said
    assert "Wallet Rp 275.000 −Rp 200.000 Rp 75.000" in said
    assert "Tokens 10,500 +55,000 65,500" in said
    assert "50,000 tokens and 5,000 bonus, which are used first." in said


def test_buying_leads_to_the_receipt(db: None) -> None:
    alice = people.alice()
    client = signed_in(alice)
    bought = client.post(BUY, form_of(client.get(CONFIRM)))
    assert bought.status_code == 303
    purchase = Purchase.objects.get(user=alice)
    assert bought["Location"] == reverse("billing:receipt", args=[purchase.pk])
    said = words(client.get(bought["Location"]))
    assert f"Receipt {purchase.number}" in said
    assert f"Alice {alice.email}" in said
    assert "Pro package 50,000 Rp 200.000 Bonus 5,000 Rp 0 Total 55,000 tokens Rp 200.000" in said
    assert "Wallet Before Rp 275.000 This purchase −Rp 200.000 After Rp 75.000" in said
    assert "Tokens Before 10,500 This purchase +55,000 After 65,500" in said
    for transfer in purchases.transfers_of(purchase):
        assert transfer in said


def test_a_form_that_is_sent_twice_buys_once(db: None) -> None:
    alice = people.alice()
    people.give_rupiah(alice, 500_000)
    client = signed_in(alice)
    form = form_of(client.get(CONFIRM))
    assert client.post(BUY, form)["Location"] == client.post(BUY, form)["Location"]
    assert ledger.balance_of(alice).wallet_idr == 575_000


@pytest.mark.parametrize("change", [{"price_idr": 250_000}, {"tokens": 10_000}, {"bonus_tokens": 0}])
def test_nobody_buys_at_other_terms_than_he_was_shown(db: None, change: dict[str, int]) -> None:
    alice = people.alice()
    client = signed_in(alice)
    form = form_of(client.get(CONFIRM))
    Package.objects.filter(slug="pro").update(**change)
    asked_again = client.post(BUY, form)
    assert asked_again.status_code == 409
    assert "This package has changed meanwhile" in words(asked_again)
    assert ledger.balance_of(alice).wallet_idr == 275_000
    assert client.post(BUY, form_of(asked_again)).status_code == 303


def test_each_confirm_step_is_a_purchase_of_its_own(db: None) -> None:
    client = signed_in(people.alice())
    assert form_of(client.get(CONFIRM))["key"] != form_of(client.get(CONFIRM))["key"]


def test_without_enough_in_the_wallet_there_is_nothing_to_press(db: None) -> None:
    bob = people.bob()
    people.give_rupiah(bob, 150_000)
    page = signed_in(bob).get(CONFIRM)
    assert "Rp 50.000 more is needed" in words(page)
    assert "Buy Pro</span></button>" not in page.content.decode()


def test_a_purchase_that_the_wallet_cannot_pay_is_refused_in_words(db: None) -> None:
    bob = people.bob()
    refused = signed_in(bob).post(BUY, {"package": "pro", "key": "one"})
    assert refused.status_code == 402
    assert "Rp 200.000 more is needed" in words(refused)
    assert not Purchase.objects.filter(user=bob).exists()


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"package": "unknown", "key": "a"}, 404),
        ({"package": "pro"}, 400),
        ({"package": "pro", "key": "x" * 200}, 400),
        ({"package": "pro", "key": "a\0"}, 400),
        ({"package": "pro\0", "key": "a"}, 404),
        ({}, 400),
    ],
)
def test_a_form_that_makes_no_sense_is_refused(db: None, form: dict[str, str], status: int) -> None:
    assert signed_in(people.alice()).post(BUY, form).status_code == status


def test_a_used_key_does_not_buy_something_else(db: None) -> None:
    client = signed_in(people.alice())
    client.post(BUY, {"package": "starter", "key": "a"})
    assert client.post(BUY, {"package": "pro", "key": "a"}).status_code == 422


def test_another_site_cannot_buy(db: None) -> None:
    alice = people.alice()
    assert (
        signed_in(alice, enforce_csrf_checks=True).post(BUY, {"package": "pro", "key": "a"}).status_code
        == 403
    )
    assert ledger.balance_of(alice).wallet_idr == 275_000


def test_the_name_of_a_package_is_text(db: None) -> None:
    Package.objects.filter(slug="pro").update(name="<b>Pro</b>")
    for address in (HOME, CONFIRM):
        assert "<b>Pro" not in signed_in(people.alice()).get(address).content.decode()


# Who may, and what is kept


@pytest.fixture
def receipt(db: None) -> Purchase:
    return purchases.buy(user=people.alice(), package_slug="starter", key="a")


def test_receipts_of_others_do_not_exist(receipt: Purchase) -> None:
    address = reverse("billing:receipt", args=[receipt.pk])
    assert signed_in(receipt.user).get(address).status_code == 200
    assert signed_in(people.carol()).get(address).status_code == 404
    assert signed_in(people.dewi()).get(address).status_code == 404
    assert signed_in(receipt.user).get("/billing/packages/unknown").status_code == 404
    assert signed_in(receipt.user).get("/billing/purchases/buy_%00").status_code == 404


def test_guests_are_asked_to_sign_in(receipt: Purchase) -> None:
    for address in (HOME, CONFIRM, reverse("billing:receipt", args=[receipt.pk])):
        asked = Client().get(address)
        assert (asked.status_code, asked["Location"].split("?")[0]) == (302, reverse("account_login"))
    assert Client().post(BUY, {"package": "pro", "key": "a"}).status_code == 302


def test_nothing_is_bought_by_a_link(receipt: Purchase) -> None:
    """The answer to a form stands at its address: whoever goes there again finds the packages."""
    answer = signed_in(receipt.user).get(f"{BUY}?package=pro&key=b")
    assert (answer.status_code, answer["Location"]) == (303, HOME)
    assert Purchase.objects.filter(user=receipt.user).count() == 1


def test_whoever_was_signed_out_meanwhile_comes_back_to_what_he_was_buying(db: None) -> None:
    alice, there = people.alice(), f"{CONFIRM}?quantity=3"
    asked = Client().post(BUY, {"package": "pro"}, headers={"referer": f"http://testserver{there}"})
    client = Client()
    answer = client.post(asked["Location"], {"login": alice.email, "password": people.PASSWORD})
    assert (answer.status_code, answer["Location"]) == (302, there)


@pytest.mark.parametrize("before", ["https://evil.example/billing", "", "//evil.example"])
def test_nobody_is_sent_to_another_site_after_signing_in(db: None, before: str) -> None:
    asked = Client().post(BUY, {"package": "pro"}, headers={"referer": before})
    assert asked["Location"] == f"{reverse('account_login')}?next=/"


def test_a_page_that_asks_by_itself_goes_to_sign_in_as_a_whole(db: None) -> None:
    here = "http://testserver/billing/topups/top_1"
    asked = Client().get(
        "/billing/topups/top_1/state", headers={"hx-request": "true", "hx-current-url": here}
    )
    assert asked["HX-Redirect"] == f"{reverse('account_login')}?next=/billing/topups/top_1"


def test_no_browser_keeps_a_copy(receipt: Purchase) -> None:
    client = signed_in(receipt.user)
    answers: list[HttpResponse] = [
        client.get(address)  # type: ignore[misc]
        for address in (
            HOME,
            CONFIRM,
            reverse("billing:receipt", args=[receipt.pk]),
            "/billing/packages/unknown",
        )
    ]
    answers.append(client.post(BUY, {"package": "starter", "key": "b"}))  # type: ignore[arg-type]
    for answer in answers:
        assert "no-store" in answer["Cache-Control"]


# The administration


BOOKS = ("account", "transfer", "purchase")


def listed(client: Client, model: str, **query: str) -> list[str]:
    """The ids in a list of the administration."""
    page = client.get(reverse(f"admin:billing_{model}_changelist"), query)
    assert page.status_code == 200
    return [str(row.pk) for row in page.context["cl"].result_list]


@pytest.mark.parametrize("model", BOOKS)
def test_staff_read_the_books_and_change_nothing(receipt: Purchase, model: str) -> None:
    client = signed_in(people.dewi())
    (row, *_more) = listed(client, model, q=receipt.user.email)
    assert client.get(reverse(f"admin:billing_{model}_add")).status_code == 403
    assert client.get(reverse(f"admin:billing_{model}_delete", args=[row])).status_code == 403
    change = reverse(f"admin:billing_{model}_change", args=[row])
    assert client.get(change).status_code == 200
    changed = client.post(change, {"amount": "1", "balance": "1", "price_idr": "1"})
    # A purchase can be refunded there, with a reason.
    assert changed.status_code == (200 if model == "purchase" else 403)
    assert Purchase.objects.get(pk=receipt.pk).price_idr == receipt.price_idr


def test_staff_find_rows_by_person_and_by_id(receipt: Purchase) -> None:
    client = signed_in(people.dewi())
    people.alice()
    address = receipt.user.email.upper()
    assert listed(client, "purchase", q=address) == [receipt.pk]
    assert listed(client, "purchase", q=receipt.pk) == [receipt.pk]
    assert listed(client, "purchase", q=receipt.number) == [receipt.pk]
    accounts = Account.objects.filter(user=receipt.user).values_list("pk", flat=True)
    assert set(listed(client, "account", q=address)) == {str(pk) for pk in accounts}
    own = Transfer.objects.filter(debit__in=accounts) | Transfer.objects.filter(credit__in=accounts)
    assert set(listed(client, "transfer", q=address)) == {row.pk for row in own}
    assert len(listed(client, "transfer", q=own[0].pk)) == 1
    assert listed(client, "account", q="not a number") == []


def test_staff_find_what_is_long_ago(receipt: Purchase) -> None:
    paid = Transfer.objects.get(debit__user=receipt.user)
    paid.pk = f"{ids.first('trf', timezone.now() - timedelta(days=400))}{'0' * 16}"
    paid.key, paid.pending = "of long ago", None
    paid.save(force_insert=True)
    client = signed_in(people.dewi())
    assert paid.pk not in listed(client, "transfer")
    assert listed(client, "transfer", q=paid.pk) == [paid.pk]
    assert listed(client, "transfer", q=paid.pk, period="30") == []


@pytest.mark.parametrize("model", BOOKS)
def test_a_long_list_of_the_books_asks_no_more_of_the_database(
    db: None, model: str, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    client = signed_in(people.dewi())
    for _which in range(20):
        purchases.buy(user=people.alice(), package_slug="starter", key="a")
    with django_assert_max_num_queries(10):
        assert len(listed(client, model)) >= 20


def test_a_price_that_staff_change_is_the_next_price(receipt: Purchase) -> None:
    client = signed_in(people.dewi())
    starter = Package.objects.get(slug="starter")
    form = {
        "name": "Starter",
        "position": 1,
        "is_offered": "on",
        "tokens": 10_000,
        "bonus_tokens": 0,
        "price_idr": 60_000,
        "quantity_discounts-TOTAL_FORMS": 0,
        "quantity_discounts-INITIAL_FORMS": 0,
    }
    assert client.post(reverse("admin:billing_package_change", args=[starter.pk]), form).status_code == 302
    assert purchases.buy(user=receipt.user, package_slug="starter", key="b").price_idr == 60_000
    assert Purchase.objects.get(pk=receipt.pk).price_idr == 50_000


def test_staff_withdraw_packages_and_never_delete_them(db: None) -> None:
    starter = Package.objects.get(slug="starter")
    client = signed_in(people.dewi())
    assert client.get(reverse("admin:billing_package_delete", args=[starter.pk])).status_code == 403


def test_who_is_no_staff_does_not_see_the_books(receipt: Purchase) -> None:
    page = signed_in(receipt.user).get(reverse("admin:billing_transfer_changelist"))
    assert page.status_code in (302, 403)
