"""A package is bought once per key, as a whole or not at all, and its receipt never changes."""

import re
from functools import partial
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound
from billing import audit, ledger, purchases
from billing.models import Account, Package, Purchase, Transfer
from tests import people
from tests.crowd import at_once, failures, successes


def someone_with_rupiah(amount: int) -> User:
    person = people.someone("Alice")
    people.give_rupiah(person, amount)
    return person


def buy(person: User, slug: str = "starter", key: str = "one") -> Purchase:
    return purchases.buy(user=person, package_slug=slug, key=key)


def has(person: User) -> tuple[int, int]:
    """Wallet and tokens."""
    balance = ledger.balance_of(person)
    return balance.wallet_idr, balance.tokens


def kinds_of(purchase: Purchase) -> list[tuple[str, str, int]]:
    rows = Transfer.objects.in_bulk(purchases.transfers_of(purchase))
    return [
        (row.unit, row.kind, row.amount) for row in map(rows.get, purchases.transfers_of(purchase)) if row
    ]


# Stories


def test_a_purchase_takes_the_price_and_brings_tokens_and_bonus(db: None) -> None:
    alice = someone_with_rupiah(275_000)
    purchase = buy(alice, "pro")
    assert has(alice) == (75_000, 55_000)
    assert kinds_of(purchase) == [
        ("IDR", "purchase", 200_000),
        ("TOKEN", "purchase", 50_000),
        ("TOKEN", "bonus", 5_000),
    ]
    assert ledger.balance_of(alice).value_idr_per_1k == 3_636
    assert audit.check() == []


def test_a_receipt_says_what_was_before_and_after(db: None) -> None:
    alice = someone_with_rupiah(325_000)
    people.give_tokens(alice, 247)
    purchase = purchases.receipt(alice, buy(alice).pk)
    assert (purchase.wallet_before_idr, purchase.wallet_after_idr) == (325_000, 275_000)
    assert (purchase.tokens_before, purchase.tokens_after) == (247, 10_747)
    assert (purchase.package_name, purchase.price_idr, purchase.total_tokens) == ("Starter", 50_000, 10_500)


def test_receipts_have_numbers_of_their_own(db: None) -> None:
    alice = someone_with_rupiah(100_000)
    first, second = buy(alice, key="one"), buy(alice, key="two")
    year = timezone.localtime(timezone=timezone.get_default_timezone()).year
    for purchase in (first, second):
        assert re.fullmatch(rf"ALP-{year}-\d{{6}}", purchase.number)
    assert first.number < second.number


def test_a_package_without_bonus_has_no_bonus_transfer(db: None) -> None:
    Package.objects.create(slug="plain", name="Plain", tokens=1_000, price_idr=5_000)
    alice = someone_with_rupiah(5_000)
    purchase = buy(alice, "plain")
    assert kinds_of(purchase) == [("IDR", "purchase", 5_000), ("TOKEN", "purchase", 1_000)]
    assert has(alice) == (0, 1_000)
    assert audit.check() == []


def test_the_shop_shows_what_is_offered_and_what_it_saves(db: None) -> None:
    Package.objects.filter(slug="business").update(is_offered=False)
    shown = purchases.packages()
    assert [package.slug for package in shown] == ["starter", "pro", "enterprise"]
    assert [purchases.saving_percent(package, against=shown[0]) for package in shown] == [0, 24, 56]


def test_a_new_price_leaves_old_receipts_as_they_were(db: None) -> None:
    alice = someone_with_rupiah(100_000)
    purchase = buy(alice)
    Package.objects.filter(slug="starter").update(name="Small", tokens=1, bonus_tokens=0, price_idr=99_000)
    kept = purchases.receipt(alice, purchase.pk)
    assert (kept.package_name, kept.tokens, kept.bonus_tokens, kept.price_idr) == (
        "Starter",
        10_000,
        500,
        50_000,
    )


# Once per key


def test_the_same_key_buys_once(db: None) -> None:
    alice = someone_with_rupiah(100_000)
    assert buy(alice) == buy(alice)
    assert has(alice) == (50_000, 10_500)


def test_the_same_key_finds_its_purchase_after_the_package_was_withdrawn(db: None) -> None:
    alice = someone_with_rupiah(50_000)
    first = buy(alice)
    Package.objects.filter(slug="starter").update(is_offered=False)
    assert buy(alice) == first


def test_the_same_key_does_not_buy_another_package(db: None) -> None:
    alice = someone_with_rupiah(500_000)
    buy(alice)
    with pytest.raises(IdempotencyMismatch):
        buy(alice, "pro")
    assert has(alice) == (450_000, 10_500)


def test_two_people_may_have_the_same_key(db: None) -> None:
    alice, carol = someone_with_rupiah(50_000), someone_with_rupiah(50_000)
    assert buy(alice).pk != buy(carol).pk
    assert has(alice) == has(carol) == (0, 10_500)


@pytest.mark.parametrize("key", ["", "x" * 129])
def test_a_purchase_needs_a_usable_key(db: None, key: str) -> None:
    with pytest.raises(InvalidRequest):
        buy(someone_with_rupiah(50_000), key=key)


# All or nothing


def test_a_wallet_that_is_too_small_buys_nothing(db: None) -> None:
    bob = someone_with_rupiah(49_999)
    with pytest.raises(ledger.InsufficientWallet) as refused:
        buy(bob)
    assert refused.value.data == {"walletBalance": 49_999, "price": 50_000}
    assert has(bob) == (49_999, 0)
    assert not Purchase.objects.filter(user=bob).exists()


def test_a_purchase_that_fails_half_way_leaves_nothing_behind(db: None) -> None:
    Package.objects.create(slug="vast", name="Vast", tokens=2**53, price_idr=5_000)
    alice = someone_with_rupiah(5_000)
    with pytest.raises(ValueError, match="positive whole number"):
        buy(alice, "vast")
    assert has(alice) == (5_000, 0)
    assert audit.check() == []


@pytest.mark.parametrize("slug", ["unknown", "starter"])
def test_what_is_not_offered_is_not_found(db: None, slug: str) -> None:
    Package.objects.filter(slug="starter").update(is_offered=False)
    with pytest.raises(NotFound):
        buy(someone_with_rupiah(50_000), slug)


def test_a_frozen_account_buys_nothing(db: None) -> None:
    alice = someone_with_rupiah(50_000)
    Account.objects.filter(user=alice).update(frozen_at=timezone.now())
    with pytest.raises(ledger.Frozen):
        buy(alice)


def test_nobody_reads_the_receipts_of_others(db: None) -> None:
    alice, carol = someone_with_rupiah(50_000), people.carol()
    with pytest.raises(NotFound):
        purchases.receipt(carol, buy(alice).pk)


# Many at once


def test_a_hundred_purchases_with_one_key_are_one(committed: None) -> None:
    alice = someone_with_rupiah(500_000)
    outcomes = at_once([partial(buy, alice)] * 100)
    assert not failures(outcomes)
    assert len({purchase.pk for purchase in successes(outcomes)}) == 1
    assert has(alice) == (450_000, 10_500)


def test_a_double_click_with_money_for_one_is_no_error(committed: None) -> None:
    alice = someone_with_rupiah(50_000)
    outcomes = at_once([partial(buy, alice)] * 16)
    assert not failures(outcomes)
    assert len({purchase.pk for purchase in successes(outcomes)}) == 1
    assert has(alice) == (0, 10_500)


def test_a_hundred_purchases_with_money_for_one_are_one(committed: None) -> None:
    alice = someone_with_rupiah(50_000)
    outcomes = at_once([partial(buy, alice, key=ids.new("buy")) for _ in range(100)])
    assert len(successes(outcomes)) == 1
    assert {type(error) for error in failures(outcomes)} == {ledger.InsufficientWallet}
    assert has(alice) == (0, 10_500)


def test_people_who_buy_at_once_get_different_numbers(committed: None) -> None:
    crowd = [someone_with_rupiah(50_000) for _ in range(32)]
    outcomes = at_once([partial(buy, person) for person in crowd])
    assert not failures(outcomes)
    assert len({purchase.number for purchase in successes(outcomes)}) == 32
    assert audit.check() == []


# Credit from the shell


def credit(person: User, amount: Any, **options: Any) -> None:
    call_command("credit_wallet", person.email, str(amount), "--reason", "Welcome", verbosity=0, **options)


def test_a_wallet_is_credited_with_a_reason(db: None, capsys: pytest.CaptureFixture[str]) -> None:
    carol = people.carol()
    credit(carol, 50_000)
    assert has(carol) == (50_000, 0)
    assert "Rp 50.000" in capsys.readouterr().out
    row = Transfer.objects.get(credit__user=carol)
    assert (row.kind, row.reason, row.debit.name) == ("topup", "Welcome", "bank")
    credit(carol, 1_000, correction=True)
    assert Transfer.objects.filter(
        credit__user=carol, kind="adjustment", debit__name="corrections_idr"
    ).exists()


def test_a_credit_with_a_key_is_given_once(db: None) -> None:
    carol = people.carol()
    credit(carol, 50_000, key=f"welcome-{carol.pk}")
    credit(carol, 50_000, key=f"welcome-{carol.pk}")
    assert has(carol) == (50_000, 0)
    with pytest.raises(CommandError, match="IDEMPOTENCY_MISMATCH"):
        credit(carol, 60_000, key=f"welcome-{carol.pk}")


def test_a_credit_needs_a_person_and_an_amount(db: None) -> None:
    carol = people.carol()
    with pytest.raises(CommandError, match="Nobody here"):
        call_command("credit_wallet", "nobody@aleph.test", "1", "--reason", "x")
    with pytest.raises(CommandError, match="positive whole number"):
        credit(carol, 0)
    assert has(carol) == (0, 0)
