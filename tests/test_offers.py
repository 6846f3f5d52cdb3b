"""Quantity discounts, promo codes and bonuses: exact to the rupiah, within their limits however many come at once, and
nobody pays another price than he was shown.
"""

import re
import zlib
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from aleph import ids, rates
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest
from billing import audit, ledger, offers, purchases
from billing.models import (
    MAX_PERCENT,
    MAX_QUANTITY,
    FirstPurchaseBonus,
    Package,
    PromoCode,
    Purchase,
    QuantityDiscount,
    Redemption,
)
from tests import people
from tests.crowd import at_once, failures, successes
from tests.test_billing_pages import form_of, signed_in, words


def promo(kind: str = "percent", amount: int = 10, **fields: Any) -> PromoCode:
    return PromoCode.objects.create(
        code=fields.pop("code", ids.new("PROMO").upper()), kind=kind, amount=amount, **fields
    )


def step(slug: str, from_quantity: int, percent: int) -> None:
    QuantityDiscount.objects.create(
        package=Package.objects.get(slug=slug), from_quantity=from_quantity, percent=percent
    )


def rich(rupiah: int = 100_000_000) -> User:
    person = people.someone("Alice")
    people.give_rupiah(person, rupiah)
    return person


def buy(person: User, slug: str = "starter", **how: Any) -> Purchase:
    return purchases.buy(user=person, package_slug=slug, key=how.pop("key", ids.new("buy")), **how)


def has(person: User) -> tuple[int, int, int]:
    """Wallet, tokens, and what of these is bonus."""
    balance = ledger.balance_of(person)
    return balance.wallet_idr, balance.tokens, balance.bonus


def why(person: User, code: str, slug: str = "starter", **how: Any) -> str:
    with pytest.raises(purchases.PromoRefused) as refused:
        buy(person, slug, promo_code=code, **how)
    reason: str = refused.value.data["reason"]
    return reason


# Arithmetic


@given(
    price=st.integers(1, 10_000_000),
    tokens=st.integers(1, 2_000_000),
    bonus=st.integers(0, 500_000),
    quantity=st.integers(1, MAX_QUANTITY),
    percent=st.integers(0, MAX_PERCENT),
    kind=st.sampled_from([None, *PromoCode.Kind.values]),
    amount=st.integers(1, 20_000_000),
    first=st.integers(0, 100_000),
)
def test_whatever_staff_offer_adds_up(
    price: int,
    tokens: int,
    bonus: int,
    quantity: int,
    percent: int,
    kind: str | None,
    amount: int,
    first: int,
) -> None:
    package = Package(slug="x", name="X", tokens=tokens, bonus_tokens=bonus, price_idr=price)
    code = PromoCode(
        code="X", kind=kind or "", amount=min(amount, MAX_PERCENT) if kind == "percent" else amount
    )
    quoted = offers.priced(
        package,
        quantity=quantity,
        quantity_percent=percent,
        promo=code if kind else None,
        first_bonus_tokens=first,
    )
    least = min(price * quantity, offers.LEAST_IDR)
    assert least <= quoted.price_idr <= price * quantity
    assert quoted.price_idr + quoted.quantity_discount_idr + quoted.promo_discount_idr == price * quantity
    assert quoted.tokens == tokens * quantity
    assert quoted.bonus_tokens == bonus * quantity + first + (amount if kind == "tokens" else 0)
    # Rounded in favour of who buys, by less than one rupiah, unless the least that is to be paid is reached.
    if quoted.price_idr > least:
        assert 0 <= quoted.quantity_discount_idr * 100 - price * quantity * percent < 100
        if kind == "percent":
            left = price * quantity - quoted.quantity_discount_idr
            assert 0 <= quoted.promo_discount_idr * 100 - left * code.amount < 100
        if kind == "rupiah":
            assert quoted.promo_discount_idr == amount
    one_less = offers.priced(package, quantity=max(1, quantity - 1), quantity_percent=percent)
    alone = offers.priced(package, quantity=quantity, quantity_percent=percent)
    assert one_less.price_idr <= alone.price_idr, "more of the same is never cheaper at the same discount"


def test_the_order_is_quantity_then_code(db: None) -> None:
    step("starter", 3, 10)
    code = promo(amount=15, code=ids.new("ORDER").upper())
    alice = rich(150_000)
    purchase = buy(alice, quantity=3, promo_code=code.code)
    assert purchase.list_price_idr == 150_000
    assert (purchase.quantity_percent, purchase.quantity_discount_idr) == (10, 15_000)
    assert purchase.promo_discount_idr == 20_250, "15 % of Rp 135.000"
    assert purchase.price_idr == 114_750
    assert has(alice) == (35_250, 31_500, 1_500)
    assert ledger.balance_of(alice).value_idr_per_1k == 3_643
    assert audit.check() == []


def test_a_third_of_a_rupiah_is_given_away(db: None) -> None:
    Package.objects.create(slug="odd", name="Odd", tokens=1_000, price_idr=9_999)
    code = promo(amount=10)
    assert buy(rich(), "odd", promo_code=code.code).price_idr == 8_999, "10 % are Rp 999,90, so Rp 1.000"


def test_the_highest_step_that_is_reached_counts(db: None) -> None:
    step("pro", 2, 5)
    step("pro", 5, 12)
    alice = rich()
    paid = {quantity: buy(alice, "pro", quantity=quantity).price_idr for quantity in (1, 2, 4, 5, 6)}
    assert paid == {1: 200_000, 2: 380_000, 4: 760_000, 5: 880_000, 6: 1_056_000}


def test_no_discount_makes_a_purchase_free(db: None) -> None:
    code = promo("rupiah", 1_000_000)
    alice = rich(50_000)
    assert buy(alice, promo_code=code.code).price_idr == offers.LEAST_IDR
    Package.objects.create(slug="tiny", name="Tiny", tokens=10, price_idr=700)
    assert buy(alice, "tiny").price_idr == 700, "the floor raises no price"
    assert why(alice, promo("rupiah", 500).code, "tiny") == "minimum"


@pytest.mark.parametrize("quantity", [0, -1, 101])
def test_quantities_have_bounds(db: None, quantity: int) -> None:
    with pytest.raises(InvalidRequest, match="INVALID_REQUEST"):
        buy(rich(), quantity=quantity)


# Codes


def test_a_code_may_be_written_as_one_likes(db: None) -> None:
    word = ids.new("HEMAT").upper()
    promo("tokens", 2_000, code=word, user_limit=None)
    alice = rich(100_000)
    first = buy(alice, promo_code=f"  {word.lower()} ", key="a")
    assert (first.promo_code, first.promo_bonus_tokens, first.bonus_tokens) == (word, 2_000, 2_500)
    assert buy(alice, promo_code=word, key="a") == first, "the same code, so the same purchase"
    assert has(alice) == (50_000, 12_500, 2_500)
    assert audit.check() == []


def test_a_code_says_why_it_does_not_hold(db: None) -> None:
    alice, now = rich(), timezone.now()
    business = Package.objects.get(slug="business")
    only = promo(code=ids.new("ONLY").upper())
    only.packages.add(business)
    assert why(alice, "NO-SUCH-CODE") == "unknown"
    assert why(alice, "x" * 5_000) == why(alice, "a\0") == why(alice, "'; --") == "unknown"
    assert why(alice, promo(ends_at=now - timedelta(seconds=1)).code) == "expired"
    assert why(alice, promo(is_active=False).code) == "expired"
    assert why(alice, promo(starts_at=now + timedelta(hours=1)).code) == "not yet"
    assert why(alice, only.code) == "package"
    assert why(alice, promo(minimum_idr=50_001).code) == "minimum"
    assert why(alice, promo(total_limit=0).code) == "used up"
    used = promo()
    buy(alice, promo_code=used.code)
    assert why(alice, used.code) == "used"
    assert buy(alice, "business", promo_code=only.code).price_idr == 540_000


def test_a_code_that_is_refused_moves_nothing(db: None) -> None:
    alice = rich(50_000)
    why(alice, "UNKNOWN")
    assert has(alice) == (50_000, 0, 0)
    assert not Purchase.objects.filter(user=alice).exists()


def test_the_minimum_is_what_is_left_after_the_quantity_discount(db: None) -> None:
    step("starter", 2, 10)
    code = promo("rupiah", 5_000, minimum_idr=90_000)
    assert buy(rich(), quantity=2, promo_code=code.code).price_idr == 85_000


def test_an_edit_of_offers_leaves_receipts_as_they_were(db: None) -> None:
    code = promo()
    alice = rich(50_000)
    purchase = buy(alice, promo_code=code.code)
    PromoCode.objects.filter(pk=code.pk).update(code=ids.new("OTHER").upper(), amount=50, is_active=False)
    Package.objects.filter(slug="starter").update(name="Small", price_idr=1)
    kept = purchases.receipt(alice, purchase.pk)
    assert (kept.package_name, kept.promo_code, kept.promo_discount_idr, kept.price_idr) == (
        "Starter",
        code.code,
        5_000,
        45_000,
    )


def test_the_database_keeps_codes_within_reason(db: None) -> None:
    for kind, amount, code in [
        ("percent", 91, "A-1"),
        ("tokens", 0, "A-2"),
        ("rupiah", 5, "lower"),
        ("rupiah", 5, ""),
    ]:
        with pytest.raises(IntegrityError), transaction.atomic():
            promo(kind, amount, code=code)


# The first purchase


def test_the_first_purchase_brings_its_bonus_once(db: None) -> None:
    FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1_000)
    FirstPurchaseBonus.objects.create(name="Big start", bonus_tokens=9_000, minimum_idr=200_000)
    FirstPurchaseBonus.objects.create(name="Over", bonus_tokens=99_000, ends_at=timezone.now())
    alice, dian = rich(), rich()
    assert buy(alice).first_bonus_tokens == 1_000
    assert buy(alice, "pro").first_bonus_tokens == 0
    assert buy(dian, "pro").first_bonus_tokens == 9_000, "the largest that holds"
    assert audit.check() == []


@pytest.fixture
def welcome(committed: None) -> Iterator[FirstPurchaseBonus]:
    """A bonus for everybody, which the next test must not see."""
    bonus = FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1_000)
    yield bonus
    bonus.delete()


def test_twenty_first_purchases_at_once_bring_one_bonus(welcome: FirstPurchaseBonus) -> None:
    alice = rich()
    outcomes = at_once([partial(buy, alice)] * 20)
    assert not failures(outcomes)
    assert sorted(purchase.first_bonus_tokens for purchase in successes(outcomes)) == [*[0] * 19, 1_000]
    assert ledger.balance_of(alice).tokens == 20 * 10_500 + 1_000


def test_who_was_shown_the_bonus_is_asked_again_where_it_is_gone(db: None) -> None:
    FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1_000)
    alice = rich()
    shown = purchases.quote(user=alice, package_slug="starter").terms
    buy(alice, terms=shown)
    with pytest.raises(purchases.TermsChanged):
        buy(alice, terms=shown)


# Many at once


def test_fifty_at_once_use_a_code_as_often_as_it_may(committed: None) -> None:
    code = promo("rupiah", 10_000, total_limit=7)
    crowd = [rich(50_000) for _ in range(50)]
    outcomes = at_once([partial(buy, person, promo_code=code.code) for person in crowd])
    assert len(successes(outcomes)) == 7
    assert {getattr(error, "data", {}).get("reason") for error in failures(outcomes)} == {"used up"}
    assert sorted(Redemption.objects.filter(promo=code).values_list("place", flat=True)) == [*range(1, 8)]
    assert sum(has(person)[0] for person in crowd) == 43 * 50_000 + 7 * 10_000
    assert audit.check() == []


def test_fifty_tries_of_one_person_use_a_code_as_often_as_he_may(committed: None) -> None:
    code = promo(user_limit=2, total_limit=40)
    alice = rich()
    outcomes = at_once([partial(buy, alice, promo_code=code.code) for _ in range(50)])
    assert len(successes(outcomes)) == 2
    assert {getattr(error, "data", {}).get("reason") for error in failures(outcomes)} == {"used"}
    assert has(alice) == (100_000_000 - 90_000, 21_000, 1_000)


def test_a_hundred_with_one_key_use_the_last_use_of_a_code_once(committed: None) -> None:
    code = promo(total_limit=1)
    alice = rich(45_000)
    outcomes = at_once([partial(buy, alice, promo_code=code.code, key="one")] * 100)
    assert not failures(outcomes)
    assert len({purchase.pk for purchase in successes(outcomes)}) == 1
    assert has(alice) == (0, 10_500, 500)
    assert Redemption.objects.filter(promo=code).count() == 1


# Keys and terms


@pytest.mark.parametrize("other", [{"quantity": 2}, {"promo_code": "ELSE"}])
def test_a_key_buys_one_thing(db: None, other: dict[str, Any]) -> None:
    alice = rich()
    buy(alice, key="a")
    with pytest.raises(IdempotencyMismatch):
        buy(alice, key="a", **other)


def test_nobody_pays_more_than_he_says(db: None) -> None:
    alice = rich(50_000)
    with pytest.raises(purchases.TermsChanged):
        buy(alice, most_idr=49_999)
    assert buy(alice, most_idr=50_000).price_idr == 50_000


def test_a_code_that_became_worse_is_shown_again(db: None) -> None:
    code = promo(amount=50)
    alice = rich(50_000)
    shown = purchases.quote(user=alice, package_slug="starter", promo_code=code.code).terms
    PromoCode.objects.filter(pk=code.pk).update(amount=10)
    with pytest.raises(purchases.TermsChanged):
        buy(alice, promo_code=code.code, terms=shown)
    assert has(alice) == (50_000, 0, 0)


# Pages


def page(person: User, **query: Any) -> Any:
    return signed_in(person).get("/billing/packages/starter", query)


def test_the_confirm_step_shows_every_discount_and_buys_at_that(db: None) -> None:
    step("starter", 3, 10)
    FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1_000)
    code = promo("rupiah", 5_000, code=ids.new("HEMAT").upper())
    alice = rich(275_000)
    client = signed_in(alice)
    assert "+ 1,000 with your first purchase 3 or more: 10% less" in words(client.get("/billing"))
    shown = client.get("/billing/packages/starter", {"quantity": "3", "promo": code.code.lower()})
    said = words(shown)
    assert "Buy Starter for Rp 130.000?" in said
    assert (
        f"Starter package × 3 30,000 Rp 150.000 Bonus 1,500 Rp 0 Bonus for the first purchase 1,000 Rp 0"
        f" Quantity discount, 10% −Rp 15.000 Promo code {code.code} −Rp 5.000 Total 32,500 Rp 130.000" in said
    )
    assert "Wallet Rp 275.000 −Rp 130.000 Rp 145.000 Tokens 0 +32,500 32,500" in said
    bought = client.post("/billing/purchases", form_of(shown))
    assert bought.status_code == 303
    assert has(alice) == (145_000, 32_500, 2_500)
    receipt = words(client.get(bought["Location"]))
    assert f"Promo code {code.code} −Rp 5.000 Total 32,500 tokens Rp 130.000" in receipt
    assert "Of these bonus, used first 2,500" in words(client.get("/billing"))


def test_a_wrong_code_is_named_and_the_price_without_it_is_shown(db: None) -> None:
    alice = rich(50_000)
    shown = page(alice, promo="WRONG")
    assert "There is no such promo code. Look for a typing error. Without it:" in words(shown)
    assert form_of(shown)["promo"] == ""
    assert 'value="WRONG"' in shown.content.decode(), "what was typed can be mended"


def test_a_code_that_ran_out_meanwhile_is_shown_again_and_buys_nothing(db: None) -> None:
    code = promo()
    alice = rich(50_000)
    form = form_of(page(alice, promo=code.code))
    PromoCode.objects.filter(pk=code.pk).update(is_active=False)
    asked_again = signed_in(alice).post("/billing/purchases", form)
    assert asked_again.status_code == 400
    assert "does not hold any more. Without it:" in words(asked_again)
    assert "Buy Starter for Rp 50.000?" in words(asked_again)
    assert has(alice) == (50_000, 0, 0)


@pytest.mark.parametrize("quantity", ["0", "101", "-1", "many", "", "1e3", "٣", "9" * 50])
def test_a_quantity_that_is_none_is_refused(db: None, quantity: str) -> None:
    assert page(rich(50_000), quantity=quantity).status_code == 400


def test_codes_cannot_be_guessed_in_quantity(db: None, settings: Any) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "promo": rates.parsed("3/h/user")}
    alice = rich(50_000)
    assert [page(alice, promo=f"GUESS{which}").status_code for which in range(5)] == [200] * 3 + [429] * 2
    assert page(alice).status_code == 200, "who guesses no more may go on"


def text_of_pdf(answer: Any) -> str:
    """What a PDF says, in the order in which it was written."""
    streams = re.findall(rb"stream\r?\n(.*?)\r?\nendstream", answer.content, re.DOTALL)
    drawn = b"".join(zlib.decompress(stream) for stream in streams)
    said = b" ".join(re.findall(rb"\((.*?)(?<!\\)\) Tj", drawn, re.DOTALL)).decode("latin-1")
    return re.sub(r"\\([()\\])", r"\1", said)


def test_the_receipt_as_pdf_says_what_the_page_says(db: None) -> None:
    step("starter", 2, 10)
    alice = rich(275_000)
    purchase = buy(alice, quantity=2, promo_code=promo("tokens", 700, code=ids.new("PDF").upper()).code)
    client = signed_in(alice)
    address = f"/billing/purchases/{purchase.pk}"
    answer = client.get(f"{address}.pdf")
    assert answer["Content-Type"] == "application/pdf"
    assert answer["Content-Disposition"] == f'attachment; filename="{purchase.number}.pdf"'
    assert "no-store" in answer["Cache-Control"]
    on_paper, on_page = text_of_pdf(answer), words(client.get(address))
    for said in (
        purchase.number,
        alice.email,
        "Starter package × 2",
        "20,000",
        "Rp 90.000",
        "21,700",
        *purchases.transfers_of(purchase),
    ):
        assert said in on_page
        assert said.replace("−", "-") in on_paper.replace("  ", " "), said
    assert "Rp 275.000" in on_paper
    assert "-Rp 10.000" in on_paper
    assert client.get(f"{address}.pdf").content == answer.content
    assert signed_in(people.carol()).get(f"{address}.pdf").status_code == 404


@pytest.mark.parametrize(
    "name", ["Ayu " + "Very Long Name " * 20, "x" * 120, "سارة 李雷 🙂", "(a\\b)\n<b>", ""]
)
def test_any_name_can_be_put_on_paper(db: None, name: str) -> None:
    alice = rich(50_000)
    alice.name = name[:120]
    alice.save()
    purchase = buy(alice)
    assert signed_in(alice).get(f"/billing/purchases/{purchase.pk}.pdf").content.startswith(b"%PDF-")


# The administration


def test_staff_make_codes_in_capitals_and_within_reason(db: None) -> None:
    client = signed_in(people.dewi())
    add = reverse("admin:billing_promocode_add")
    word = ids.new("ramadan")
    form = {
        "code": f" {word.lower()} ",
        "kind": "percent",
        "amount": "25",
        "minimum_idr": "0",
        "user_limit": "1",
        "is_active": "on",
    }
    form |= {f"{moment}_at_{part}": "" for moment in ("starts", "ends") for part in (0, 1)}
    assert client.post(add, form | {"amount": "95"}).status_code == 200
    assert client.post(add, form | {"code": "a b!"}).status_code == 200
    assert client.post(add, form).status_code == 302
    made = PromoCode.objects.get(code=word.upper())
    assert (made.amount, made.total_limit, made.user_limit) == (25, None, 1)
    assert "There is such a code already." in client.post(add, form).content.decode()
    buy(rich(50_000), promo_code=word)
    listed = client.get(reverse("admin:billing_promocode_changelist"), {"q": word}).content.decode()
    assert "−25%" in listed
    assert client.get(reverse("admin:billing_promocode_delete", args=[made.pk])).status_code == 403
    uses = client.get(reverse("admin:billing_redemption_changelist"), {"q": word})
    assert [row.promo_id for row in uses.context["cl"].result_list] == [made.pk]
