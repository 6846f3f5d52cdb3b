"""Days in the life of the books, in round numbers, with the packages and rates of the product's sources.

GPT-4o costs 150 tokens per 1,000 LLM tokens, so a reply of 1,500 LLM tokens costs 225.
"""

from typing import Any

from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from billing import audit, ledger, purchases, statements
from billing.models import FirstPurchaseBonus, Package, PromoCode, QuantityDiscount, Transfer, Unit
from tests import people


def paid_reply(person: User, *, at_most: int, cost: int) -> None:
    held = ledger.hold(user=person, amount=at_most, minimum=1, reference="msg_1", key=ids.new("hold"))
    ledger.post(hold_id=held.id, amount=cost, key=ids.new("close"))


def of(unit: Unit) -> statements.Filter:
    return statements.Filter(timezone.get_default_timezone(), unit=unit)


def lines(person: User, unit: Unit = Unit.TOKEN) -> list[tuple[str, int, int]]:
    """The history as the page shows it: kind, change, balance after; newest first."""
    return [
        (entry.kind, entry.amount, entry.balance_after)
        for entry in statements.history(person, wanted=of(unit)).entries
    ]


def test_alice_buys_starter_and_asks_gpt_4o(db: None) -> None:
    alice = people.someone("Alice")
    people.give_rupiah(alice, 100_000)

    purchases.buy(user=alice, package_slug="starter", key="first")
    assert ledger.balance_of(alice) == ledger.Balance(
        tokens=10_500, held=0, wallet_idr=50_000, value_idr_per_1k=4_762, frozen=False, bonus=500
    )

    paid_reply(alice, at_most=600, cost=500)
    paid_reply(alice, at_most=600, cost=225)
    assert ledger.balance_of(alice).available == 9_775

    assert lines(alice) == [("reply", -225, 9_775), ("reply", -500, 10_000), ("purchase", 10_500, 10_500)]
    assert lines(alice, Unit.IDR) == [("purchase", -50_000, 50_000), ("topup", 100_000, 100_000)]
    assert audit.check() == []


def test_alice_stops_waiting_for_a_reply_that_failed(db: None) -> None:
    alice = people.alice()
    held = ledger.hold(user=alice, amount=600, reference="msg_1", key=ids.new("hold"))
    assert ledger.balance_of(alice).available == 9_900

    ledger.void(hold_id=held.id, key=ids.new("close"), reason="failed")
    assert ledger.balance_of(alice).available == 10_500
    assert [kind for kind, *_ in lines(alice)] == ["adjustment"], (
        "what did not happen is no line of the history"
    )
    assert audit.check() == []


def test_bob_spends_his_last_token_then_buys_pro(db: None) -> None:
    bob = people.bob()
    people.give_rupiah(bob, 200_000)

    paid_reply(bob, at_most=600, cost=50)
    assert ledger.balance_of(bob).tokens == 0

    purchase = purchases.buy(user=bob, package_slug="pro", key="now")
    paid_reply(bob, at_most=600, cost=225)
    assert (purchase.tokens_before, purchase.tokens_after) == (0, 55_000)
    balance = ledger.balance_of(bob)
    assert (balance.tokens, balance.wallet_idr, balance.value_idr_per_1k) == (54_775, 0, 3_636)
    assert audit.check() == []


def test_alice_writes_in_two_windows_and_pays_for_both(db: None) -> None:
    alice = people.alice()
    first = ledger.hold(user=alice, amount=600, reference="msg_1", key=ids.new("hold"))
    second = ledger.hold(user=alice, amount=400, reference="msg_2", key=ids.new("hold"))
    assert ledger.balance_of(alice).held == 1_000

    ledger.post(hold_id=second.id, amount=100, key=ids.new("close"))
    assert ledger.balance_of(alice).held == 600
    ledger.post(hold_id=first.id, amount=600, key=ids.new("close"))
    balance = ledger.balance_of(alice)
    assert (balance.tokens, balance.held) == (9_800, 0)
    assert audit.check() == []


def test_dewi_makes_good_for_a_bad_day(db: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    paid_reply(alice, at_most=600, cost=225)

    ledger.receive(
        user=alice,
        account=ledger.TOKENS,
        amount=100,
        source="corrections_token",
        kind="adjustment",
        reference="msg_1",
        key=ids.new("sorry"),
        author=dewi,
        reason="Slow replies on 11 August",
    )
    newest = statements.history(alice, wanted=of(Unit.TOKEN)).entries[0]
    assert (newest.amount, newest.balance_after, newest.reason) == (100, 10_375, "Slow replies on 11 August")
    assert ledger.balance_of(alice).value_idr_per_1k == people.STARTER_VALUE_IDR_PER_1K, (
        "a gift changes no price"
    )
    assert audit.check() == []


def test_alice_uses_her_bonus_before_what_she_has_paid_for(db: None) -> None:
    alice = people.someone("Alice")
    people.give_rupiah(alice, 50_000)
    purchases.buy(user=alice, package_slug="starter", key="first")

    left = []
    for cost in (225, 225, 225, 225):
        paid_reply(alice, at_most=600, cost=cost)
        balance = ledger.balance_of(alice)
        left.append((balance.tokens, balance.bonus))
    assert left == [(10_275, 275), (10_050, 50), (9_825, 0), (9_600, 0)]

    replies = Transfer.objects.filter(debit__user=alice, phase="post").order_by("place")
    assert [row.bonus_after for row in replies] == [275, 50, 0, 0], (
        "each charge says how much bonus it has left"
    )
    assert audit.check() == []


def test_alice_buys_three_starters_with_a_code(db: None) -> None:
    """Rp 150.000, 10 % less for three, 20 % less by the code: Rp 108.000 for 31,500 tokens and 1,000 on top."""
    starter = Package.objects.get(slug="starter")
    QuantityDiscount.objects.create(package=starter, from_quantity=3, percent=10)
    PromoCode.objects.create(code="S0-TWENTY", kind="percent", amount=20)
    FirstPurchaseBonus.objects.create(name="Welcome", bonus_tokens=1_000)
    alice = people.someone("Alice")
    people.give_rupiah(alice, 200_000)

    purchases.buy(user=alice, package_slug="starter", quantity=3, promo_code="s0-twenty", key="three")
    assert ledger.balance_of(alice) == ledger.Balance(
        tokens=32_500, held=0, wallet_idr=92_000, value_idr_per_1k=3_323, frozen=False, bonus=2_500
    )
    paid_reply(alice, at_most=2_600, cost=2_600)
    assert ledger.balance_of(alice).bonus == 0
    assert lines(alice, Unit.IDR) == [("purchase", -108_000, 92_000), ("topup", 200_000, 200_000)]
    assert lines(alice) == [("reply", -2_600, 29_900), ("purchase", 32_500, 32_500)]
    assert audit.check() == []


def test_dewi_gives_bonus_and_takes_tokens_back(db: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    said: dict[str, Any] = {
        "user": alice,
        "account": ledger.TOKENS,
        "reference": "letter",
        "author": dewi,
        "reason": "A letter",
    }
    ledger.receive(amount=300, source="bonus", kind="bonus", key=ids.new("gift"), **said)
    assert ledger.balance_of(alice).bonus == 300
    ledger.spend(amount=100, to="corrections_token", kind="adjustment", key=ids.new("fine"), **said)
    balance = ledger.balance_of(alice)
    assert (balance.tokens, balance.bonus) == (10_700, 200), "whatever leaves takes bonus first"
    assert audit.check() == []
