"""The ledger moves every amount once, and the database refuses whatever would make the books wrong."""

from datetime import timedelta, timezone
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, connection, models, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone as clock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, NotFound
from billing import audit, ledger
from billing.models import Account, Package, Purchase, Transfer, Unit
from tests import people
from tests.crowd import again_if_raced, at_once, failures, successes

Phase = Transfer.Phase
ON_POSTGRESQL = connection.vendor == "postgresql"


def someone_with(tokens: int) -> User:
    person = people.someone("Alice")
    people.give_tokens(person, tokens)
    return person


def hold(person: User, amount: int, **differences: Any) -> ledger.Moved:
    return ledger.hold(
        user=person, amount=amount, **{"reference": "msg_1", "key": ids.new("hold"), **differences}
    )


def post(held: ledger.Moved, amount: int, key: str = "") -> ledger.Moved:
    return ledger.post(hold_id=held.id, amount=amount, key=key or ids.new("close"))


def void(held: ledger.Moved, key: str = "") -> ledger.Moved:
    return ledger.void(hold_id=held.id, key=key or ids.new("close"), reason="not needed")


def figures(person: User) -> tuple[int, int]:
    """Balance and held."""
    balance = ledger.balance_of(person)
    return balance.tokens, balance.held


def transfers_of(person: User) -> models.QuerySet[Transfer]:
    return Transfer.objects.filter(debit__user=person) | Transfer.objects.filter(credit__user=person)


# Stories


def test_everybody_has_two_empty_accounts_from_the_start(db: None) -> None:
    carol = people.carol()
    assert ledger.balance_of(carol) == ledger.Balance(0, 0, 0, None, False)


def test_a_hold_reserves_and_takes_nothing(db: None) -> None:
    alice = someone_with(1000)
    hold(alice, 300)
    balance = ledger.balance_of(alice)
    assert (balance.tokens, balance.held, balance.available) == (1000, 300, 700)


def test_a_post_takes_what_was_used_and_gives_the_rest_back(db: None) -> None:
    alice = someone_with(1000)
    moved = post(hold(alice, 300), 100)
    assert (moved.amount, moved.balance, moved.held) == (100, 900, 0)
    assert figures(alice) == (900, 0)


def test_a_void_gives_all_back(db: None) -> None:
    alice = someone_with(1000)
    moved = void(hold(alice, 300))
    assert (moved.amount, moved.balance, moved.held) == (0, 1000, 0)
    assert figures(alice) == (1000, 0)


def test_the_whole_balance_can_be_held_and_spent(db: None) -> None:
    alice = someone_with(300)
    post(hold(alice, 300), 300)
    assert figures(alice) == (0, 0)


def test_a_hold_that_is_not_covered_says_both_figures_and_writes_nothing(db: None) -> None:
    bob = someone_with(50)
    with pytest.raises(ledger.Insufficient) as refused:
        hold(bob, 51)
    assert refused.value.data == {"currentBalance": 50, "estimatedCost": 51}
    assert refused.value.status == 402
    assert figures(bob) == (50, 0)
    assert not transfers_of(bob).filter(phase=Phase.PENDING).exists()


def test_what_is_held_cannot_be_held_again(db: None) -> None:
    alice = someone_with(1000)
    hold(alice, 900)
    with pytest.raises(ledger.Insufficient) as refused:
        hold(alice, 101)
    assert refused.value.data["currentBalance"] == 100


def test_a_hold_takes_all_there_is_down_to_its_minimum(db: None) -> None:
    bob = someone_with(50)
    assert hold(bob, 300, minimum=50).amount == 50
    assert figures(bob) == (50, 50)


def test_a_hold_is_refused_below_its_minimum(db: None) -> None:
    bob = someone_with(50)
    with pytest.raises(ledger.Insufficient) as refused:
        hold(bob, 300, minimum=51)
    assert refused.value.data == {"currentBalance": 50, "estimatedCost": 51}


def test_a_frozen_account_spends_nothing_but_settles_what_is_open(db: None) -> None:
    alice = someone_with(1000)
    open_hold = hold(alice, 300)
    Account.objects.filter(user=alice).update(frozen_at=clock.now())
    with pytest.raises(ledger.Frozen):
        hold(alice, 1)
    with pytest.raises(ledger.Frozen):
        ledger.spend(
            user=alice, account=ledger.WALLET, amount=1, to="sales", kind="purchase", reference="r", key="k"
        )
    post(open_hold, 100)
    people.give_tokens(alice, 5)
    assert figures(alice) == (905, 0)
    assert ledger.balance_of(alice).frozen


def test_received_tokens_can_say_what_they_are_worth(db: None) -> None:
    alice = someone_with(1000)
    assert ledger.balance_of(alice).value_idr_per_1k == people.STARTER_VALUE_IDR_PER_1K
    assert hold(alice, 1).value_idr_per_1k == people.STARTER_VALUE_IDR_PER_1K


def test_a_wallet_that_is_too_small_says_both_figures(db: None) -> None:
    bob = people.someone("Bob")
    people.give_rupiah(bob, 10_000)
    with pytest.raises(ledger.InsufficientWallet) as refused:
        ledger.spend(
            user=bob,
            account=ledger.WALLET,
            amount=50_000,
            to="sales",
            kind="purchase",
            reference="r",
            key="k",
        )
    assert refused.value.data == {"walletBalance": 10_000, "price": 50_000}
    assert "Rp 10.000" in str(refused.value.message)
    assert ledger.balance_of(bob).wallet_idr == 10_000


def test_a_transfer_remembers_its_moment_and_the_balance_after_it(db: None) -> None:
    before = clock.now() - timedelta(seconds=2)
    alice = someone_with(1000)
    moved = post(hold(alice, 300), 100)
    row = Transfer.objects.get(pk=moved.id)
    assert before < row.created_at < clock.now() + timedelta(seconds=2)
    assert (row.balance_after, row.reference, row.kind) == (900, "msg_1", "reply")


# Once and no more


def test_the_same_key_gives_the_first_answer_again(db: None) -> None:
    alice = someone_with(1000)
    people.give_rupiah(alice, 100)
    paid = partial(
        ledger.spend, user=alice, account=ledger.WALLET, to="sales", kind="purchase", reference="r"
    )
    given = partial(
        ledger.receive, user=alice, account=ledger.TOKENS, source="issued", kind="refund", reference="r"
    )
    held = hold(alice, 300, key=f"hold:{alice.pk}")
    for action in (
        partial(hold, alice, 300, key=f"hold:{alice.pk}"),
        partial(post, held, 100, key=f"close:{alice.pk}"),
        partial(paid, amount=60, key=f"spend:{alice.pk}"),
        partial(given, amount=7, key=f"receive:{alice.pk}"),
    ):
        assert action() == action()
    other = hold(alice, 10)
    assert void(other, key=f"void:{alice.pk}") == void(other, key=f"void:{alice.pk}")
    assert figures(alice) == (1000 - 100 + 7, 0)
    assert ledger.balance_of(alice).wallet_idr == 40


def test_the_same_key_holds_the_first_amount_again_even_when_the_balance_is_gone(db: None) -> None:
    bob = someone_with(50)
    first = hold(bob, 300, minimum=10, key=f"hold:{bob.pk}")
    assert hold(bob, 300, minimum=10, key=f"hold:{bob.pk}").amount == first.amount == 50


def test_the_same_key_with_other_inputs_is_an_error(db: None) -> None:
    alice = someone_with(1000)
    held = hold(alice, 300, key=f"hold:{alice.pk}")
    with pytest.raises(IdempotencyMismatch):
        hold(alice, 301, key=f"hold:{alice.pk}")
    with pytest.raises(IdempotencyMismatch):
        hold(alice, 300, reference="msg_2", key=f"hold:{alice.pk}")
    with pytest.raises(IdempotencyMismatch):
        post(held, 100, key=f"hold:{alice.pk}")
    assert figures(alice) == (1000, 300)


def test_a_key_that_somebody_else_used_is_an_error(db: None) -> None:
    alice, carol = someone_with(1000), someone_with(1000)
    hold(alice, 300, key=f"hold:{alice.pk}")
    with pytest.raises(IdempotencyMismatch):
        hold(carol, 300, key=f"hold:{alice.pk}")
    assert figures(carol) == (1000, 0)


@pytest.mark.parametrize("first", [lambda held: post(held, 100), void])
@pytest.mark.parametrize("second", [lambda held: post(held, 100), void])
def test_a_hold_is_closed_once(db: None, first: Any, second: Any) -> None:
    alice = someone_with(1000)
    held = hold(alice, 300)
    first(held)
    after = figures(alice)
    with pytest.raises(ledger.AlreadyResolved):
        second(held)
    assert figures(alice) == after


def test_nothing_but_a_hold_can_be_closed(db: None) -> None:
    alice = someone_with(1000)
    gift = transfers_of(alice).get()
    closed = post(hold(alice, 300), 100)
    for name in (gift.pk, closed.id, "trf_unknown"):
        with pytest.raises(NotFound):
            ledger.void(hold_id=name, key=ids.new("close"), reason="")


def test_more_than_was_held_is_never_taken(db: None) -> None:
    alice = someone_with(1000)
    held = hold(alice, 300)
    with pytest.raises(ValueError, match="301 is more than the 300"):
        post(held, 301)
    assert figures(alice) == (1000, 300)


@pytest.mark.parametrize("amount", [0, -1, 1.5, True, 2**53, "7"])
def test_an_amount_is_a_positive_whole_number(db: None, amount: Any) -> None:
    alice = someone_with(1000)
    held = hold(alice, 300)
    for action in (partial(hold, alice, amount), partial(post, held, amount)):
        with pytest.raises(ValueError, match="positive whole number"):
            action()
    assert figures(alice) == (1000, 300)


def test_holds_whose_time_is_over_are_given_back_once(db: None) -> None:
    alice = someone_with(1000)
    jakarta = timezone(timedelta(hours=7))
    hold(alice, 100, expires_at=clock.now().astimezone(jakarta) - timedelta(seconds=5))
    hold(alice, 200, expires_at=clock.now().astimezone(jakarta) + timedelta(seconds=60))
    hold(alice, 300)
    settled = hold(alice, 50, expires_at=clock.now() - timedelta(seconds=5))
    post(settled, 50)
    assert ledger.expire_due() == 1
    assert ledger.expire_due() == 0
    assert figures(alice) == (950, 500)
    assert transfers_of(alice).get(phase=Phase.EXPIRE).amount == 100


def test_a_move_without_a_transaction_happens_as_a_whole_or_not_at_all(committed: None) -> None:
    alice = someone_with(1000)
    with pytest.raises(IntegrityError):
        hold(alice, 300, reference=None)
    assert figures(alice) == (1000, 0)


def test_a_fault_in_a_transfer_is_not_mistaken_for_a_race(committed: None) -> None:
    """Its message names the key, the pending row and everything else of the row."""
    alice = someone_with(1000)
    with pytest.raises(IntegrityError, match="between two accounts of its unit"):
        ledger.hold(user=alice, amount=1, to="bank", reference="pending key", key=ids.new("hold"))
    assert figures(alice) == (1000, 0)


# Many at once


def test_fifty_holds_at_once_with_a_balance_for_three_admit_three(committed: None) -> None:
    alice = someone_with(350)
    outcomes = at_once([again_if_raced(partial(hold, alice, 100))] * 50)
    assert len(successes(outcomes)) == 3
    assert {type(error) for error in failures(outcomes)} == {ledger.Insufficient}
    assert figures(alice) == (350, 300)
    assert transfers_of(alice).filter(phase=Phase.PENDING).count() == 3


def test_one_key_held_by_sixteen_at_once_is_one_hold(committed: None) -> None:
    alice = someone_with(1000)
    outcomes = at_once([again_if_raced(partial(hold, alice, 100, key=f"hold:{alice.pk}"))] * 16)
    assert len({moved.id for moved in successes(outcomes)}) == 1
    assert not failures(outcomes)
    assert figures(alice) == (1000, 100)


@pytest.mark.parametrize("other_holds", [0, 1000], ids=["its only hold", "one of two holds"])
def test_a_hold_closed_by_sixteen_at_once_is_closed_once(committed: None, other_holds: int) -> None:
    alice = someone_with(1000 + other_holds)
    if other_holds:
        hold(alice, other_holds)
    held = hold(alice, 300)
    actions = [again_if_raced(partial(post, held, 100)), again_if_raced(partial(void, held))] * 8
    outcomes = at_once(actions)
    (winner,) = successes(outcomes)
    assert {type(error) for error in failures(outcomes)} == {ledger.AlreadyResolved}
    assert figures(alice) == (1000 + other_holds - winner.amount, other_holds)
    assert Transfer.objects.filter(pending=held.id).count() == 1


def test_one_key_posted_by_sixteen_at_once_answers_all_of_them(committed: None) -> None:
    alice = someone_with(1000)
    held = hold(alice, 300)
    outcomes = at_once([again_if_raced(partial(post, held, 100, key=f"close:{held.id}"))] * 16)
    assert len({moved.id for moved in successes(outcomes)}) == 1
    assert not failures(outcomes)
    assert figures(alice) == (900, 0)


def test_replies_at_once_add_up(committed: None) -> None:
    alice = someone_with(100_000)

    def reply(cost: int) -> None:
        held = again_if_raced(partial(hold, alice, 500))()
        again_if_raced(partial(post, held, cost))() if cost else again_if_raced(partial(void, held))()

    outcomes = at_once([partial(reply, cost) for cost in range(100)])
    assert not failures(outcomes)
    assert figures(alice) == (100_000 - sum(range(100)), 0)
    assert audit.check() == []


# What the database refuses, whoever asks


def refused(*actions: Any, match: str | None = None) -> None:
    for action in actions:
        with pytest.raises(IntegrityError, match=match), transaction.atomic():
            action()


def written(person: User, **differences: Any) -> Transfer:
    """A transfer written past the ledger: 100 tokens of the person for a reply, unless told otherwise."""
    return Transfer.objects.create(
        **{
            "id": ids.new("trf"),
            "phase": Phase.SINGLE,
            "kind": "reply",
            "unit": Unit.TOKEN,
            "debit": Account.objects.get(user=person, name=ledger.TOKENS),
            "credit_id": ledger.house("consumed"),
            "amount": 100,
            "reference": "msg_1",
            "key": ids.new("key"),
            **differences,
        }
    )


def test_a_transfer_is_never_changed_or_deleted(db: None) -> None:
    alice = someone_with(1000)
    rows = transfers_of(alice)
    refused(
        lambda: rows.update(amount=1),
        lambda: rows.get().delete(),
        lambda: Transfer.objects.filter(pk=rows.get().pk).update(reason="rewritten"),
        match="never changed or deleted",
    )
    assert rows.get().amount == 1000


@pytest.mark.skipif(not ON_POSTGRESQL, reason="SQLite has no TRUNCATE")
@pytest.mark.parametrize("table", ["billing_transfer", "billing_purchase"])
def test_the_books_are_never_emptied(db: None, table: str) -> None:
    with connection.cursor() as cursor:
        refused(lambda: cursor.execute(f"TRUNCATE {table} CASCADE"), match="never changed or deleted")


@pytest.mark.skipif(ON_POSTGRESQL, reason="PostgreSQL has no REPLACE")
def test_a_transfer_is_never_replaced(db: None) -> None:
    alice = someone_with(1000)
    columns = ledger.COLUMNS
    with connection.cursor() as cursor:
        refused(
            lambda: cursor.execute(
                f"INSERT OR REPLACE INTO billing_transfer ({columns}) SELECT {columns} FROM billing_transfer WHERE id = %s",
                [transfers_of(alice).get().pk],
            ),
            match="UNIQUE",
        )


def test_an_amount_of_zero_or_less_is_refused(db: None) -> None:
    alice = someone_with(1000)
    refused(
        lambda: written(alice, amount=0), lambda: written(alice, amount=-5), match="transfer_amount_positive"
    )


def test_a_transfer_to_the_same_account_is_refused(db: None) -> None:
    alice = someone_with(1000)
    own = Account.objects.get(user=alice, name=ledger.TOKENS).pk
    refused(lambda: written(alice, credit_id=own))


def test_a_transfer_between_units_is_refused(db: None) -> None:
    alice = someone_with(1000)
    refused(
        lambda: written(alice, credit_id=ledger.house("bank")),
        lambda: written(alice, unit=Unit.IDR),
        lambda: written(alice, credit_id=10**12),
        match="between two accounts of its unit",
    )


def test_a_key_is_used_once(db: None) -> None:
    alice = someone_with(1000)
    key = transfers_of(alice).get().key
    refused(lambda: written(alice, key=key))


def test_only_a_pending_transfer_is_resolved(db: None) -> None:
    alice = someone_with(1000)
    open_hold, gift = hold(alice, 300).id, transfers_of(alice).get(phase=Phase.SINGLE).pk
    refused(
        lambda: written(alice, phase=Phase.POST),
        lambda: written(alice, phase=Phase.SINGLE, pending_id=open_hold, amount=300),
        lambda: written(alice, phase=Phase.PENDING, pending_id=open_hold, amount=300),
        match="transfer_resolves_a_pending",
    )
    refused(
        lambda: written(alice, phase=Phase.POST, pending_id=gift),
        lambda: written(alice, phase=Phase.POST, pending_id="trf_unknown"),
        match="resolves a pending one",
    )


def test_a_resolution_must_fit_its_hold(db: None) -> None:
    alice, carol = someone_with(1000), someone_with(1000)
    resolving = partial(written, alice, phase=Phase.POST, pending_id=hold(alice, 300).id)
    refused(
        lambda: resolving(amount=301),
        lambda: resolving(phase=Phase.VOID, amount=299),
        lambda: resolving(phase=Phase.EXPIRE, amount=299),
        lambda: resolving(kind="refund"),
        lambda: resolving(debit=Account.objects.get(user=carol, name=ledger.TOKENS)),
        lambda: resolving(credit_id=ledger.house("bonus")),
        match="resolves a pending one",
    )
    resolving(amount=300)
    refused(lambda: resolving(amount=1))


def test_a_balance_never_falls_below_what_is_held(db: None) -> None:
    alice = someone_with(1000)
    own = Account.objects.filter(user=alice, name=ledger.TOKENS)
    refused(lambda: own.update(balance=-1), match="account_")
    refused(lambda: own.update(held=1001), match="account_holds_are_covered")
    refused(lambda: own.update(held=-1), match="account_held_not_negative")
    refused(
        lambda: own.update(bonus=-1),
        lambda: own.update(bonus=1001),
        match="account_bonus_is_part_of_balance",
    )
    wallet = Account.objects.filter(user=alice, name=ledger.WALLET)
    refused(lambda: wallet.update(balance=5, bonus=1), match="account_bonus_is_tokens")


def test_the_house_caches_nothing(db: None) -> None:
    refused(
        lambda: Account.objects.filter(user=None).update(balance=1),
        match="account_of_house_caches_nothing",
    )


def test_an_account_keeps_its_owner_its_name_and_its_unit(db: None) -> None:
    alice, carol = people.carol(), people.carol()
    own = Account.objects.filter(user=alice, name=ledger.TOKENS)
    refused(
        lambda: own.update(user=carol),
        lambda: own.update(user=None),
        lambda: own.update(name="savings"),
        lambda: own.update(unit=Unit.IDR),
        lambda: own.delete(),
        match="never deleted and keep",
    )
    own.update(frozen_at=clock.now())


def test_nobody_has_two_accounts_of_a_name(db: None) -> None:
    alice = people.carol()
    refused(
        lambda: Account.objects.create(user=alice, name=ledger.TOKENS, unit=Unit.TOKEN),
        lambda: Account.objects.create(user=None, name="bank", unit=Unit.IDR),
    )


def test_a_person_with_accounts_is_not_deleted(db: None) -> None:
    with pytest.raises(models.ProtectedError):
        people.carol().delete()


def test_a_package_has_tokens_and_a_price(db: None) -> None:
    offer = partial(Package.objects.create, slug="x", name="X")
    refused(lambda: offer(tokens=0, price_idr=1), match="package_has_tokens")
    refused(lambda: offer(tokens=1, price_idr=0), match="package_has_price")


def test_a_purchase_is_never_changed_or_deleted(db: None) -> None:
    alice = people.alice()
    package = Package.objects.get(slug="starter")
    receipt = partial(
        Purchase.objects.create,
        user=alice,
        package=package,
        tokens=1,
        bonus_tokens=0,
        price_idr=1,
        wallet_before_idr=1,
        tokens_before=0,
    )
    first = receipt(id="buy_1", number=ids.new("no")[:24], key="a")
    refused(
        lambda: Purchase.objects.filter(pk=first.pk).update(price_idr=2),
        lambda: first.delete(),
        match="never changed or deleted",
    )
    refused(
        lambda: receipt(id="buy_2", number=ids.new("no")[:24], key="a"),
        lambda: receipt(id="buy_3", number=first.number, key="b"),
    )


# Whatever happens, in whatever order

MOVES = st.one_of(
    st.tuples(st.just("receive"), st.integers(1, 500)),
    st.tuples(st.just("spend"), st.integers(1, 500)),
    st.tuples(st.just("hold"), st.integers(1, 500), st.integers(1, 500)),
    st.tuples(st.just("post"), st.integers(0, 9), st.integers(1, 500)),
    st.tuples(st.just("void"), st.integers(0, 9)),
    st.tuples(st.just("again"), st.integers(0, 30)),
)


class Imagined:
    """What the books must say, kept in three plain numbers and a list."""

    def __init__(self, person: User) -> None:
        self.person = person
        self.balance = 0
        self.open: dict[str, int] = {}
        self.holds: list[ledger.Moved] = []
        self.done: list[tuple[partial[ledger.Moved], ledger.Moved]] = []

    @property
    def available(self) -> int:
        return self.balance - sum(self.open.values())

    def move(self, action: partial[ledger.Moved]) -> ledger.Moved:
        moved = action()
        self.done.append((action, moved))
        return moved

    def receive(self, amount: int) -> None:
        self.move(
            partial(
                ledger.receive,
                user=self.person,
                account=ledger.TOKENS,
                amount=amount,
                source="corrections_token",
                kind="adjustment",
                reference="r",
                key=ids.new("key"),
            )
        )
        self.balance += amount

    def spend(self, amount: int) -> None:
        action = partial(
            ledger.spend,
            user=self.person,
            account=ledger.TOKENS,
            amount=amount,
            to="corrections_token",
            kind="adjustment",
            reference="r",
            key=ids.new("key"),
        )
        if amount > self.available:
            with pytest.raises(ledger.Insufficient):
                action()
        else:
            self.move(action)
            self.balance -= amount

    def hold(self, amount: int, minimum: int) -> None:
        minimum = min(minimum, amount)
        action = partial(hold, self.person, amount, minimum=minimum, key=ids.new("key"))
        if self.available < minimum:
            with pytest.raises(ledger.Insufficient):
                action()
        else:
            held = self.move(action)
            assert held.amount == min(amount, self.available)
            self.holds.append(held)
            self.open[held.id] = held.amount

    def post(self, which: int, amount: int) -> None:
        self.close(which, lambda held: partial(post, held, min(amount, held.amount), key=ids.new("key")))

    def void(self, which: int) -> None:
        self.close(which, lambda held: partial(void, held, key=ids.new("key")))

    def close(self, which: int, closing: Any) -> None:
        if not self.holds:
            return
        held = self.holds[which % len(self.holds)]
        if held.id in self.open:
            self.balance -= self.move(closing(held)).amount
            del self.open[held.id]
        else:
            with pytest.raises(ledger.AlreadyResolved):
                closing(held)()

    def again(self, which: int) -> None:
        """Somebody did not hear the answer and asks once more."""
        if self.done:
            action, first = self.done[which % len(self.done)]
            second = action()
            assert (second.id, second.amount, second.balance) == (first.id, first.amount, first.balance)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(moves=st.lists(MOVES, max_size=25))
def test_any_order_of_moves_keeps_the_books_right(db: None, moves: list[tuple[Any, ...]]) -> None:
    imagined = Imagined(people.carol())
    for name, *arguments in moves:
        getattr(imagined, name)(*arguments)
        assert figures(imagined.person) == (imagined.balance, sum(imagined.open.values()))
    assert audit.check() == []


def test_keeping_bonus_apart_asks_no_more_of_the_database(db: None) -> None:
    alice = someone_with(1000)
    with CaptureQueriesContext(connection) as sent:
        held = hold(alice, 300)
        post(held, 100)
    written = [
        query["sql"] for query in sent if not query["sql"].startswith(("SAVEPOINT", "RELEASE", "BEGIN"))
    ]
    assert len(written) == (2 if connection.vendor == "postgresql" else 4), written
