"""The books against a model of plain numbers: any order of moves, told twice, told wrongly, or not covered.

After every step the tables themselves are added up, with none of the ledger's own functions: every account is the sum of
its transfers (I1), what is held is the sum of the open holds (I2), nothing is negative (I3), each hold is resolved at
most once and within its amount (I4), rupiah are conserved (I8), a purchase has all its transfers or does not exist (I9),
and no row that was ever seen has changed (I11).

`TEST_DEPTH=50` searches fifty times as long (`tests.depth`). What it finds is a short program to paste into a test.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.db.models import Q
from django.utils import timezone
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch
from billing import audit, ledger, purchases
from billing.models import Account, Package, Purchase, Transfer
from tests import people
from tests.depth import search

MOST = 2**53 - 1
SMALL = st.integers(1, 600)
ANY = SMALL | st.integers(1, 200_000) | st.just(MOST)
PLENTY = st.integers(1_000, 600_000)
LITTLE = st.integers(1, 60)
WISH = st.tuples(LITTLE | SMALL, LITTLE | LITTLE | LITTLE | ANY).map(sorted)
"""The least that a hold may be, and what is wanted."""
PERCENT = st.integers(1, 100)
BEYOND = st.sampled_from([0, 0, 0, 0, 1, 600, MOST])
WRONGLY = st.sampled_from([False, False, True])
SLUGS = ["starter", "pro", "business", "enterprise"]
ACCOUNTS = [ledger.TOKENS, ledger.WALLET]
SOURCES = {
    ledger.TOKENS: [("corrections_token", "adjustment"), ("consumed", "refund"), ("bonus", "bonus")],
    ledger.WALLET: [("bank", "topup"), ("corrections_idr", "adjustment"), ("sales", "refund")],
}
Rows = dict[str, Any]
"""Transfers by id, every column of them."""
CORRECTIONS = {ledger.TOKENS: "corrections_token", ledger.WALLET: "corrections_idr"}


@dataclass(eq=False)
class Owner:
    """What a person must have."""

    user: User
    has: Counter[str] = field(default_factory=Counter)
    holds: list["Hold"] = field(default_factory=list)
    bonus: int = 0
    is_frozen: bool = False

    @property
    def held(self) -> int:
        return sum(hold.amount for hold in self.holds if hold.is_open)

    def burn(self, account: str, amount: int) -> None:
        """Whatever leaves takes bonus first."""
        self.has[account] -= amount
        if account == ledger.TOKENS:
            self.bonus = max(self.bonus - amount, 0)

    def available(self, account: str) -> int:
        return self.has[account] - (self.held if account == ledger.TOKENS else 0)


@dataclass(eq=False)
class Hold:
    owner: Owner
    id: str
    amount: int
    is_due: bool
    is_open: bool = True


@dataclass(eq=False)
class Move:
    """A move that was made: how to say the same again, and how to say something else with its key."""

    again: Callable[[], ledger.Moved]
    otherwise: list[Callable[[], ledger.Moved]]
    first: ledger.Moved


@dataclass(eq=False)
class Bought:
    owner: Owner
    slug: str
    key: str
    purchase: Purchase


class Books(RuleBasedStateMachine):
    owners = Bundle("owners")
    holds = Bundle("holds")
    moves = Bundle("moves")
    receipts = Bundle("receipts")

    def __init__(self) -> None:
        super().__init__()
        self.crowd: list[Owner] = []
        self.bought: list[Bought] = []
        self.after: dict[str, int] = {}
        self.seen: Rows = {}

    @initialize(target=owners, number=st.sampled_from([1, 2]), tokens=PLENTY, rupiah=PLENTY)
    def people_come(self, number: int, tokens: int, rupiah: int) -> MultipleResults[Owner]:
        self.crowd = [Owner(people.carol()) for _ in range(number)]
        for owner in self.crowd:
            self._receive(owner, ledger.TOKENS, tokens, SOURCES[ledger.TOKENS][0])
            self._receive(owner, ledger.WALLET, rupiah, SOURCES[ledger.WALLET][0])
        return multiple(*self.crowd)

    # Moves

    @rule(target=moves, owner=owners, account=st.sampled_from(ACCOUNTS), amount=ANY, which=st.integers(0, 2))
    def receive(self, owner: Owner, account: str, amount: int, which: int) -> Move:
        return self._receive(owner, account, amount, SOURCES[account][which])

    def _receive(self, owner: Owner, account: str, amount: int, source: tuple[str, str]) -> Move:
        say = partial(
            ledger.receive,
            user=owner.user,
            account=account,
            amount=amount,
            source=source[0],
            kind=source[1],
            reference="gift",
            key=ids.new("key"),
        )
        owner.has[account] += amount
        if source[1] == "bonus":
            owner.bonus += amount
        return self._made(owner, account, say, [*self._by_others(owner, say), partial(say, reference="r2")])

    @rule(target=moves, owner=owners, account=st.sampled_from(ACCOUNTS), amount=ANY)
    def spend(self, owner: Owner, account: str, amount: int) -> Move | MultipleResults[Move]:
        say = partial(
            ledger.spend,
            user=owner.user,
            account=account,
            amount=amount,
            to=CORRECTIONS[account],
            kind="adjustment",
            reference="fine",
            key=ids.new("key"),
        )
        available = owner.available(account)
        if owner.is_frozen:
            return _refused(ledger.Frozen, say)
        if amount > available:
            wallet = {"walletBalance": available, "price": amount}
            tokens = {"currentBalance": available, "estimatedCost": amount}
            return _refused(ledger.Insufficient, say, wallet if account == ledger.WALLET else tokens)
        owner.burn(account, amount)
        return self._made(owner, account, say, [*self._by_others(owner, say), partial(say, reference="r2")])

    @rule(target=holds, owner=owners, wishes=st.lists(WISH, min_size=1, max_size=3), is_due=st.booleans())
    def hold(self, owner: Owner, wishes: list[list[int]], is_due: bool) -> MultipleResults[Hold]:
        made = [self._hold(owner, minimum, amount, is_due) for minimum, amount in wishes]
        return multiple(*(hold for hold in made if hold is not None))

    def _hold(self, owner: Owner, minimum: int, amount: int, is_due: bool) -> Hold | None:
        say = partial(
            ledger.hold,
            user=owner.user,
            amount=amount,
            minimum=minimum,
            reference="msg_1",
            key=ids.new("hold"),
            expires_at=timezone.now() - timedelta(seconds=5) if is_due else None,
        )
        available = owner.available(ledger.TOKENS)
        if owner.is_frozen:
            _refused(ledger.Frozen, say)
            return None
        if available < minimum:
            _refused(ledger.Insufficient, say, {"currentBalance": available, "estimatedCost": minimum})
            return None
        first = say()
        assert first.amount == min(amount, available)
        hold = Hold(owner, first.id, first.amount, is_due)
        owner.holds.append(hold)
        self._note(owner, ledger.TOKENS, first)
        # Whoever asks again hears the first amount, whatever is left of the balance.
        assert (say().id, say().amount) == (first.id, first.amount)
        for otherwise in self._by_others(owner, say):
            _refused(IdempotencyMismatch, otherwise)
        return hold

    @rule(target=moves, some=st.lists(holds, min_size=1, max_size=3), part=PERCENT, beyond=BEYOND)
    def post(self, some: list[Hold], part: int, beyond: int) -> MultipleResults[Move]:
        made = [self._post(hold, -(-hold.amount * part // 100) + beyond) for hold in some]
        return multiple(*(move for move in made if move is not None))

    def _post(self, hold: Hold, amount: int) -> Move | None:
        say = partial(ledger.post, hold_id=hold.id, amount=amount, key=ids.new("close"))
        if amount > hold.amount:
            _refused(ValueError, say)
            return None
        if not hold.is_open:
            _refused(ledger.AlreadyResolved, say)
            return None
        hold.is_open = False
        hold.owner.burn(ledger.TOKENS, amount)
        less = [partial(say, amount=amount - 1)] if amount > 1 else []
        void = partial(ledger.void, hold_id=hold.id, key=say.keywords["key"], reason="")
        return self._made(hold.owner, ledger.TOKENS, say, [void, *less])

    @rule(target=moves, some=st.lists(holds, min_size=1, max_size=3))
    def void(self, some: list[Hold]) -> MultipleResults[Move]:
        made = [self._void(hold) for hold in some]
        return multiple(*(move for move in made if move is not None))

    def _void(self, hold: Hold) -> Move | None:
        say = partial(ledger.void, hold_id=hold.id, key=ids.new("close"), reason="not needed")
        if not hold.is_open:
            _refused(ledger.AlreadyResolved, say)
            return None
        hold.is_open = False
        post = partial(ledger.post, hold_id=hold.id, amount=1, key=say.keywords["key"])
        return self._made(hold.owner, ledger.TOKENS, say, [post])

    @rule()
    def expire(self) -> None:
        due = [hold for owner in self.crowd for hold in owner.holds if hold.is_open and hold.is_due]
        for hold in due:
            hold.is_open = False
        assert ledger.expire_due() >= len(due)

    @rule(target=receipts, owner=owners, slug=st.sampled_from(SLUGS), is_shown_wrongly=WRONGLY)
    def buy(self, owner: Owner, slug: str, is_shown_wrongly: bool) -> Bought | MultipleResults[Bought]:
        package = Package.objects.get(slug=slug)
        key = ids.new("key")
        terms = f"{package.price_idr - 1}-1-1" if is_shown_wrongly else package.terms
        say = partial(purchases.buy, user=owner.user, package_slug=slug, key=key, terms=terms)
        if is_shown_wrongly:
            return _refused(purchases.TermsChanged, say)
        if owner.is_frozen:
            return _refused(ledger.Frozen, say)
        if owner.has[ledger.WALLET] < package.price_idr:
            return _refused(ledger.InsufficientWallet, say)
        purchase = say()
        before = (owner.has[ledger.WALLET], owner.has[ledger.TOKENS])
        assert (purchase.wallet_before_idr, purchase.tokens_before) == before
        owner.has[ledger.WALLET] -= package.price_idr
        owner.has[ledger.TOKENS] += package.total_tokens
        owner.bonus += package.bonus_tokens
        self.bought.append(Bought(owner, slug, key, purchase))
        return self.bought[-1]

    # Told again, told otherwise

    @rule(move=moves)
    def say_it_again(self, move: Move) -> None:
        second = move.again()
        assert (second.id, second.amount, second.balance) == (
            move.first.id,
            move.first.amount,
            move.first.balance,
        )

    @rule(move=moves, which=st.integers(0, 9))
    def say_something_else_with_its_key(self, move: Move, which: int) -> None:
        _refused(IdempotencyMismatch, move.otherwise[which % len(move.otherwise)])

    @rule(receipt=receipts, slug=st.sampled_from(SLUGS))
    def buy_with_a_used_key(self, receipt: Bought, slug: str) -> None:
        say = partial(purchases.buy, user=receipt.owner.user, package_slug=slug, key=receipt.key)
        if slug == receipt.slug:
            assert say().pk == receipt.purchase.pk
        else:
            _refused(IdempotencyMismatch, say)

    @rule(owner=owners, is_frozen=st.sampled_from([True, False, False, False]))
    def freeze(self, owner: Owner, is_frozen: bool) -> None:
        moment = timezone.now() if is_frozen else None
        Account.objects.filter(user=owner.user).update(frozen_at=moment)
        owner.is_frozen = is_frozen

    def _by_others(self, owner: Owner, say: "partial[ledger.Moved]") -> list[Callable[[], ledger.Moved]]:
        amount = say.keywords["amount"]
        others = [other.user for other in self.crowd if other is not owner]
        return [
            partial(say, amount=amount + 1 if amount < MOST else amount - 1),
            *(partial(say, user=other) for other in others),
        ]

    def _made(
        self, owner: Owner, account: str, say: Callable[[], ledger.Moved], otherwise: list[Callable[[], Any]]
    ) -> Move:
        first = say()
        self._note(owner, account, first)
        return Move(say, otherwise, first)

    def _note(self, owner: Owner, account: str, moved: ledger.Moved) -> None:
        held = owner.held if account == ledger.TOKENS else 0
        bonus = owner.bonus if account == ledger.TOKENS else 0
        assert (moved.balance, moved.held, moved.bonus) == (owner.has[account], held, bonus)
        self.after[moved.id] = moved.balance

    # What the tables say

    @invariant()
    def the_tables_add_up(self) -> None:
        users = [owner.user for owner in self.crowd]
        rows = {
            row["id"]: row
            for row in Transfer.objects.filter(Q(debit__user__in=users) | Q(credit__user__in=users)).values()
        }
        accounts = {(row.user_id, row.name): row for row in Account.objects.filter(user__in=users)}
        _assert_nothing_was_rewritten(self.seen, rows)
        _assert_holds_are_resolved_once(rows)
        for owner in self.crowd:
            tokens, wallet = (accounts[owner.user.pk, name] for name in ACCOUNTS)
            assert (tokens.balance, tokens.held, tokens.bonus) == (
                owner.has[ledger.TOKENS],
                owner.held,
                owner.bonus,
            )
            assert (wallet.balance, wallet.held, wallet.bonus) == (owner.has[ledger.WALLET], 0, 0)
            _assert_bonus_burns_first(tokens, rows)
            _assert_tokens_add_up(tokens, rows)
            _assert_rupiah_add_up(wallet, rows)
        for moved, balance in self.after.items():
            assert rows[moved]["balance_after"] == balance
        _assert_house_gave_what_people_have(rows, accounts.values())
        self._assert_purchases_are_whole(rows)
        self.seen = rows

    def _assert_purchases_are_whole(self, rows: Rows) -> None:
        sold = defaultdict(list)
        for row in rows.values():
            if row["reference"].startswith("buy_"):
                sold[row["reference"]].append((row["unit"], row["kind"], row["phase"], row["amount"]))
        found = Purchase.objects.filter(user__in=[owner.user for owner in self.crowd])
        assert (
            {purchase.pk for purchase in found} == {bought.purchase.pk for bought in self.bought} == {*sold}
        )
        for purchase in found:
            assert sorted(sold[purchase.pk]) == [
                ("IDR", "purchase", "single", purchase.price_idr),
                ("TOKEN", "bonus", "single", purchase.bonus_tokens),
                ("TOKEN", "purchase", "single", purchase.tokens),
            ]

    def teardown(self) -> None:
        assert audit.check() == []


def _refused(error: type[Exception], say: Callable[[], object], data: object = None) -> MultipleResults[Any]:
    with pytest.raises(error) as refused:
        say()
    if data is not None:
        assert getattr(refused.value, "data", None) == data
    return multiple()


def _assert_nothing_was_rewritten(seen: Rows, rows: Rows) -> None:
    assert {name: rows.get(name) for name in seen} == seen


def _assert_holds_are_resolved_once(rows: Rows) -> None:
    resolutions = [row for row in rows.values() if row["pending_id"]]
    assert len({row["pending_id"] for row in resolutions}) == len(resolutions)
    for row in resolutions:
        hold = rows[row["pending_id"]]
        assert hold["phase"] == "pending"
        assert row["amount"] <= hold["amount"] if row["phase"] == "post" else row["amount"] == hold["amount"]
    assert all(row["amount"] > 0 for row in rows.values())
    assert len({row["key"] for row in rows.values()}) == len(rows)


def _assert_tokens_add_up(account: Account, rows: Rows) -> None:
    came, went = _by_kind(account, rows)
    resolved = {row["pending_id"] for row in rows.values()}
    open_holds = [
        row["amount"]
        for row in rows.values()
        if row["phase"] == "pending" and row["debit_id"] == account.pk and row["id"] not in resolved
    ]
    adjustments = came["adjustment"] + came["refund"] - went["adjustment"] - went["refund"]
    assert came["purchase"] + came["bonus"] + adjustments == went["reply"] + account.balance
    assert account.held == sum(open_holds)
    assert 0 <= account.held <= account.balance


def _assert_bonus_burns_first(account: Account, rows: Rows) -> None:
    """Walked through again in the order of their places, which have no gap."""
    own = sorted(
        (row for row in rows.values() if account.pk in (row["debit_id"], row["credit_id"])),
        key=lambda row: row["place"],
    )
    assert [row["place"] for row in own] == [*range(1, account.moves + 1)]
    bonus = 0
    for row in own:
        if row["phase"] in ("single", "post"):
            is_gift = row["kind"] == "bonus" and row["credit_id"] == account.pk
            is_loss = row["debit_id"] == account.pk
            bonus = max(bonus + row["amount"] * (is_gift - is_loss), 0)
        assert row["bonus_after"] == bonus
    assert account.bonus == bonus <= account.balance


def _assert_rupiah_add_up(account: Account, rows: Rows) -> None:
    came, went = _by_kind(account, rows)
    adjustments = came["adjustment"] + came["refund"] - went["adjustment"]
    assert came["topup"] + adjustments == went["purchase"] + went["refund"] + account.balance
    assert account.balance >= 0


def _by_kind(account: Account, rows: Rows) -> tuple[Counter[str], Counter[str]]:
    came: Counter[str] = Counter()
    went: Counter[str] = Counter()
    for row in rows.values():
        if row["phase"] in ("single", "post"):
            assert row["unit"] == account.unit or account.pk not in (row["debit_id"], row["credit_id"])
            came[row["kind"]] += row["amount"] * (row["credit_id"] == account.pk)
            went[row["kind"]] += row["amount"] * (row["debit_id"] == account.pk)
    return came, went


def _assert_house_gave_what_people_have(rows: Rows, accounts: Any) -> None:
    have: Counter[str] = Counter()
    for account in accounts:
        have[account.unit] += account.balance
    own = {account.pk for account in accounts}
    for row in rows.values():
        if row["phase"] in ("single", "post"):
            have[row["unit"]] -= row["amount"] * ((row["credit_id"] in own) - (row["debit_id"] in own))
    assert not any(have.values())


def test_whatever_is_said_to_the_ledger_the_tables_add_up(committed: None) -> None:
    run_state_machine_as_test(Books, settings=search(50, steps=30))
