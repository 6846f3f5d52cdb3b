"""Tokens that are bought by themselves: once where few are left, within the limit of the month, at the price that was
shown, and never in the way of a reply.
"""

import json
from base64 import b64decode
from datetime import timedelta
from functools import partial
from typing import Any, cast

import pytest
from django.conf import settings
from django.test import Client
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import InvalidRequest
from billing import audit, ledger, notices, purchases, refills
from billing.models import Account, Notice, Package, Purchase, Refill
from chat import stream
from tests import people
from tests.crowd import at_once, failures
from tests.stories_of_chat import told as told_by_chat
from tests.test_billing_pages import signed_in, use, words


def someone(rupiah: int = 200_000, tokens: int = 2_000) -> User:
    person = people.someone("Alice")
    people.give_rupiah(person, rupiah)
    people.give_tokens(person, tokens)
    return person


def wanting(person: User, *, below: int = 1_000, limit: int = 100_000) -> User:
    """Starter (Rp 50.000, 10,500 tokens) below 1,000 tokens, for at most Rp 100.000 a month."""
    terms = Package.objects.get(slug="starter").terms
    refills.set_up(
        user=person, package_slug="starter", below_tokens=below, monthly_limit_idr=limit, terms=terms
    )
    return person


def has(person: User) -> tuple[int, int]:
    balance = ledger.balance_of(person)
    return balance.wallet_idr, balance.tokens


def pause_of(person: User) -> str:
    return Refill.objects.get(user=person).paused_for


def told(person: User) -> list[str]:
    return [notice.detail for notice in notices.inbox(person) if notice.kind == Notice.Kind.REFILL]


def test_it_is_off_until_somebody_asks_for_it(db: None) -> None:
    alice = someone()
    use(alice, 1_900)
    refills.run(alice.pk)
    refills.sweep()
    assert has(alice) == (200_000, 100)


def test_a_package_is_bought_once_few_tokens_are_left(db: None) -> None:
    alice = wanting(someone())
    refills.run(alice.pk)
    assert has(alice) == (200_000, 2_000), "there is enough"
    use(alice, 1_001)
    refills.run(alice.pk)
    refills.run(alice.pk)
    assert has(alice) == (150_000, 11_499)
    purchase = Purchase.objects.get(user=alice)
    assert purchase.is_automatic
    said = words(signed_in(alice).get(f"/billing/purchases/{purchase.pk}"))
    assert "Bought automatically, as its owner has set it" in said
    assert "bought automatically" in words(signed_in(alice).get("/billing"))
    assert audit.check() == []


def test_the_row_that_a_reply_moves_says_that_few_are_left(db: None) -> None:
    alice = wanting(someone())
    held = ledger.hold(user=alice, amount=1_500, reference="msg_1", key=ids.new("hold"))
    assert not held.is_low, "what is held may come back"
    assert ledger.post(hold_id=held.id, amount=1_500, key=ids.new("close")).is_low
    refills.turn_off(user=alice)
    held = ledger.hold(user=alice, amount=100, reference="msg_2", key=ids.new("hold"))
    assert not ledger.post(hold_id=held.id, amount=100, key=ids.new("close")).is_low


def test_the_sweep_makes_good_for_a_lost_bell(db: None) -> None:
    alice = wanting(someone())
    use(alice, 1_500)
    refills.sweep()
    assert has(alice) == (150_000, 11_000)


def test_the_limit_of_the_month_holds_until_it_is_raised(db: None) -> None:
    alice = wanting(someone(500_000))
    for _ in range(3):
        use(alice, ledger.balance_of(alice).tokens - 10)
        refills.run(alice.pk)
    assert has(alice) == (400_000, 10), "twice Rp 50.000"
    assert (pause_of(alice), told(alice)) == ("limit", ["limit"])
    refills.sweep()
    assert told(alice) == ["limit"], "said once"
    wanting(alice, limit=150_000)
    refills.sweep()
    assert has(alice) == (350_000, 10_510)


def test_what_was_bought_in_another_month_does_not_count(db: None) -> None:
    alice = wanting(someone(), limit=50_000)
    Purchase.objects.create(
        id=ids.new("buy"),
        number=ids.new("old")[:24],
        user=alice,
        package=Package.objects.get(slug="starter"),
        package_name="Starter",
        tokens=10_000,
        bonus_tokens=500,
        price_idr=50_000,
        wallet_before_idr=50_000,
        tokens_before=0,
        is_automatic=True,
        key="refill:0",
        created_at=refills.month_began() - timedelta(seconds=1),
    )
    use(alice, 1_500)
    refills.run(alice.pk)
    assert has(alice) == (150_000, 11_000)


def test_an_empty_wallet_pauses_it_and_money_takes_it_up_again(db: None) -> None:
    bob = wanting(someone(49_999))
    use(bob, 1_500)
    refills.run(bob.pk)
    assert (pause_of(bob), told(bob), has(bob)) == ("wallet", ["wallet"], (49_999, 500))
    page = words(signed_in(bob).get("/billing/refill"))
    assert "Paused. The wallet holds too little for your package." in page
    people.give_rupiah(bob, 1)
    refills.sweep()
    assert (pause_of(bob), has(bob)) == ("", (0, 11_000))


def test_another_price_waits_for_its_owner(db: None) -> None:
    alice = wanting(someone())
    Package.objects.filter(slug="starter").update(price_idr=49_000)
    use(alice, 1_500)
    refills.run(alice.pk)
    refills.sweep()
    assert (pause_of(alice), has(alice)) == ("terms", (200_000, 500))
    wanting(alice)
    refills.sweep()
    assert has(alice) == (151_000, 11_000)


def test_a_frozen_account_buys_nothing_by_itself(db: None) -> None:
    alice = wanting(someone())
    use(alice, 1_500)
    Account.objects.filter(user=alice).update(frozen_at=timezone.now())
    refills.run(alice.pk)
    assert (pause_of(alice), has(alice)) == ("frozen", (200_000, 500))
    Account.objects.filter(user=alice).update(frozen_at=None)
    refills.sweep()
    assert has(alice) == (150_000, 11_000)


@pytest.mark.parametrize(
    "wrong", [{"below_tokens": 10_501}, {"below_tokens": 0}, {"monthly_limit_idr": 49_999}]
)
def test_what_makes_no_sense_is_not_set(db: None, wrong: dict[str, int]) -> None:
    terms = Package.objects.get(slug="starter").terms
    how: dict[str, Any] = {"below_tokens": 1_000, "monthly_limit_idr": 50_000} | wrong
    with pytest.raises(InvalidRequest):
        refills.set_up(user=someone(), package_slug="starter", terms=terms, **how)


def test_nobody_takes_the_keys_of_refills(db: None) -> None:
    with pytest.raises(InvalidRequest):
        purchases.buy(user=someone(), package_slug="starter", key=f"{purchases.OWN_KEYS}0")


def test_thirty_workers_at_once_buy_one(committed: None) -> None:
    alice = wanting(someone(500_000), limit=500_000)
    use(alice, 1_500)
    outcomes = at_once([partial(refills.run, alice.pk)] * 30)
    assert not failures(outcomes)
    assert has(alice) == (450_000, 11_000)
    assert audit.check() == []


def test_workers_and_the_owner_at_once_never_pass_the_limit(committed: None) -> None:
    alice = wanting(someone(1_000_000), limit=100_000)
    use(alice, 1_990)
    by_hand = partial(purchases.buy, user=alice, package_slug="pro", key="by hand")
    at_once([partial(refills.run, alice.pk)] * 10 + [by_hand])
    refills.sweep()
    assert refills.spent_idr(alice, since=refills.month_began()) <= 50_000
    assert ledger.balance_of(alice).tokens >= 55_010
    assert audit.check() == []


# The page


def form(**more: str) -> dict[str, str]:
    terms = {f"terms-{package.slug}": package.terms for package in purchases.packages()}
    return terms | {"package": "starter", "below_tokens": "1000", "monthly_limit_idr": "100000"} | more


def test_somebody_turns_it_on_and_off(db: None) -> None:
    alice = someone()
    client = signed_in(alice)
    assert "It is off." in words(client.get("/billing/refill"))
    written = form(below_tokens="1.000", monthly_limit_idr="Rp 100.000")
    assert client.post("/billing/refill/settings", written).status_code == 302
    assert "This month Rp 0 of Rp 100.000 were spent." in words(client.get("/billing/refill"))
    assert Account.objects.get(user=alice, name=ledger.TOKENS).refill_below == 1_000
    client.post("/billing/refill/stops")
    assert "It is off." in words(client.get("/billing/refill"))
    assert Account.objects.get(user=alice, name=ledger.TOKENS).refill_below is None


def test_a_form_that_cannot_be_is_shown_again(db: None) -> None:
    client = signed_in(someone())
    too_little = client.post("/billing/refill/settings", form(monthly_limit_idr="1"))
    assert too_little.status_code == 400
    assert "allow for at least one package" in words(too_little)
    changed = client.post("/billing/refill/settings", form(**{"terms-starter": "1-1-1"}))
    assert changed.status_code == 409
    assert client.post("/billing/refill/settings", {"package": "nothing"}).status_code == 422
    assert not Refill.objects.filter(
        user__email__startswith="alice", is_on=True, monthly_limit_idr=1
    ).exists()


def test_guests_and_links_set_nothing(db: None) -> None:
    assert Client().post("/billing/refill/settings", form()).status_code == 302
    assert signed_in(someone()).get("/billing/refill/settings")["Location"] == "/billing/refill"


# Behind a reply


def house_bells(task: str) -> list[list[Any]]:
    """What the house was asked to do and has not heard yet: the arguments of each bell for `task`."""
    waiting = cast(list[bytes], stream.client().lrange(f"{settings.REDIS_PREFIX}house", 0, -1))
    messages = [json.loads(message) for message in waiting]
    return [
        json.loads(b64decode(message["body"]))[0]
        for message in messages
        if message["headers"]["task"] == task
    ]


def test_a_reply_that_leaves_few_tokens_rings_once_it_is_paid(committed: None, simulator: object) -> None:
    alice = wanting(someone(tokens=1_001))
    carol = someone(tokens=1_001)
    before = house_bells("billing.tasks.refill").count([alice.pk])
    assert told_by_chat(alice).state == told_by_chat(carol).state == "complete"
    rung = house_bells("billing.tasks.refill")
    assert rung.count([alice.pk]) == before + 1
    assert [carol.pk] not in rung
