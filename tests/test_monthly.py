"""A month adds up: opening and every line are the closing, for any month and any time zone, to the last token and rupiah."""

import zoneinfo
from datetime import UTC, date, datetime, timedelta

import pytest
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aleph import ids
from aleph.accounts.models import User
from billing import corrections, ledger, monthly, purchases
from billing.lots import Inflow, Pool, standing
from billing.models import Account, Correction, Package, Purchase, Transfer
from tests import people

ZONES = ["Asia/Jakarta", "Asia/Jayapura", "UTC", "America/New_York", "Pacific/Kiritimati", "Asia/Kathmandu"]


class Books:
    """Writes what has happened at other times, as the ledger would have written it."""

    def __init__(self) -> None:
        self.person = people.carol()
        accounts = {account.name: account for account in Account.objects.filter(user=self.person)}
        self.tokens, self.wallet = accounts[Account.TOKENS], accounts[Account.WALLET]

    def move(
        self, account: Account, moment: datetime, amount: int, *, kind: str, reference: str = "", house: str
    ) -> None:
        account.balance += amount
        account.moves += 1
        if account is self.tokens:
            account.bonus = (
                account.bonus + (amount if kind == "bonus" else 0)
                if amount > 0
                else max(0, account.bonus + amount)
            )
        sides = (account.pk, ledger.house(house))
        debit, credit = sides if amount < 0 else sides[::-1]
        Transfer.objects.create(
            id=f"{ids.first('trf', moment)}{ids.new('trf')[-16:]}",
            phase="single",
            kind=kind,
            unit=account.unit,
            debit_id=debit,
            credit_id=credit,
            amount=abs(amount),
            reference=reference,
            key=ids.new("key"),
            input_hash="",
            balance_after=account.balance,
            bonus_after=account.bonus,
            place=account.moves,
            created_at=moment,
        )

    def buy(self, moment: datetime, tokens: int, bonus: int, price: int) -> str:
        purchase = Purchase.objects.create(
            id=ids.new("buy"),
            number=ids.new("n")[-20:],
            user=self.person,
            package=Package.objects.get(slug="starter"),
            package_name="Starter",
            tokens=tokens,
            bonus_tokens=bonus,
            price_idr=price,
            wallet_before_idr=0,
            tokens_before=self.tokens.balance,
            key=ids.new("key"),
            created_at=moment,
        )
        self.move(self.wallet, moment, price, kind="topup", house="bank")
        self.move(self.wallet, moment, -price, kind="purchase", reference=purchase.pk, house="sales")
        self.move(self.tokens, moment, tokens, kind="purchase", reference=purchase.pk, house="issued")
        if bonus:
            self.move(self.tokens, moment, bonus, kind="bonus", reference=purchase.pk, house="bonus")
        return purchase.pk

    def use(self, moment: datetime, amount: int) -> None:
        if amount := min(amount, self.tokens.balance):
            self.move(self.tokens, moment, -amount, kind="reply", reference="msg_1", house="consumed")

    def give(self, moment: datetime, amount: int) -> None:
        amount = max(amount, -self.tokens.balance)
        if amount:
            self.move(self.tokens, moment, amount, kind="adjustment", house="corrections_token")

    def refund(self, moment: datetime, purchase_id: str) -> None:
        """All bonus goes, as if it had come with this purchase, and what is left of its tokens."""
        Account.objects.filter(pk=self.tokens.pk).update(
            balance=self.tokens.balance, bonus=self.tokens.bonus, moves=self.tokens.moves
        )
        lot = monthly.pool_now(self.tokens).lot_of(purchase_id)
        if lot is None:
            return
        staff = people.dewi()
        made = Correction.objects.create(
            id=ids.new("cor"),
            kind="refund",
            state="applied",
            user=self.person,
            account="wallet",
            amount=max(1, lot.left_idr),
            purchase_id=purchase_id,
            reason="Asked for",
            needs_second=False,
            author=staff,
            decided_by=staff,
            decided_at=moment,
            key=ids.new("key"),
        )
        if self.tokens.bonus:
            self.move(
                self.tokens, moment, -self.tokens.bonus, kind="refund", reference=made.pk, house="bonus"
            )
        self.move(self.tokens, moment, -lot.left, kind="refund", reference=made.pk, house="issued")
        if lot.left_idr:
            self.move(self.wallet, moment, lot.left_idr, kind="refund", reference=made.pk, house="sales")


def in_the_ledger(account: Account, before: datetime) -> int:
    """What the account had, from every row there is."""
    rows = Transfer.objects.filter(phase__in=("single", "post"), created_at__lt=before)
    came = rows.filter(credit=account).aggregate(total=Sum("amount"))["total"] or 0
    went = rows.filter(debit=account).aggregate(total=Sum("amount"))["total"] or 0
    return came - went


def adds_up(month: monthly.Month) -> None:
    tokens = sum(line.tokens for line in month.lines) - sum(use.tokens for use in month.uses)
    value = sum(line.value_idr for line in month.lines) - sum(use.value_idr for use in month.uses)
    assert month.opening.tokens + tokens == month.closing.tokens
    assert month.opening.value_idr + value == month.closing.value_idr
    assert min(month.closing) >= 0
    assert month.closing.bonus <= month.closing.tokens


step = st.tuples(
    st.sampled_from(["buy", "use", "use", "use", "give", "refund"]),
    st.integers(1, 20_000),
    st.integers(0, 700),
    st.integers(1, 90_000),
    st.integers(1, 40 * 24 * 3600),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(step, min_size=1, max_size=14), zone=st.sampled_from(ZONES))
def test_every_month_adds_up_and_is_the_ledger(
    db: None, steps: list[tuple[str, int, int, int, int]], zone: str
) -> None:
    books, moment = Books(), datetime(2025, 11, 3, 4, 5, 6, tzinfo=UTC)
    bought: list[str] = []
    for what, amount, bonus, price, seconds in steps:
        moment += timedelta(seconds=seconds)
        if what == "buy":
            bought.append(books.buy(moment, amount, bonus, price))
        elif what == "use":
            books.use(moment, amount)
        elif what == "give":
            books.give(moment, amount if price % 2 else -amount)
        elif bought:
            books.refund(moment, bought.pop(price % len(bought)))
    first, before = date(2025, 11, 1), monthly.Standing(0, 0, 0)
    wallet = 0
    while first <= moment.date() + timedelta(days=31):
        month = monthly.month(books.person, first=first, zone=zoneinfo.ZoneInfo(zone))
        adds_up(month)
        assert month.opening == before
        assert month.wallet_opening_idr == wallet
        assert month.closing.tokens == in_the_ledger(books.tokens, month.end)
        assert month.wallet_closing_idr == in_the_ledger(books.wallet, month.end)
        first, before, wallet = monthly.following(first), month.closing, month.wallet_closing_idr
    assert before.tokens == books.tokens.balance
    assert before.bonus == books.tokens.bonus


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(1, 5_000), st.integers(0, 50_000)), max_size=30))
def test_what_is_left_is_the_newest(steps: list[tuple[bool, int, int]]) -> None:
    """A pool that was moved step by step is the one that the balance and what came in give."""
    pool, inflows = Pool(), []
    for is_in, amount, price in steps:
        if is_in:
            pool.add(amount, price_idr=price)
            inflows.append(Inflow(amount, price, ""))
        elif amount <= pool.tokens:
            pool.take(amount)
    assert standing(inflows, bonus=0, paid=pool.tokens) == pool


def test_a_price_is_split_to_the_last_rupiah() -> None:
    pool = Pool()
    pool.add(3, price_idr=100)
    assert [pool.take(1).value_idr for _token in range(3)] == [33, 33, 34]


def test_what_is_not_there_cannot_be_used() -> None:
    with pytest.raises(ValueError, match="not there"):
        Pool(5).take(6)


def test_the_worked_example_of_a_month(db: None) -> None:
    """Alice has bought Starter: 10,000 tokens and bonus for Rp 50.000. She uses the bonus and 2,500 more."""
    alice: User = people.someone("Alice")
    people.give_rupiah(alice, 100_000)
    purchase = purchases.buy(user=alice, package_slug="starter", key="a")
    held = ledger.hold(user=alice, amount=9_000, reference="msg_1", key=ids.new("hold"))
    ledger.post(hold_id=held.id, amount=purchase.bonus_tokens + 2_500, key=ids.new("post"))
    month = this_month(alice)
    assert month.opening == (0, 0, 0)
    assert [(line.kind, line.tokens, line.value_idr) for line in month.lines] == [
        ("purchase", 10_000, 50_000),
        ("bonus", purchase.bonus_tokens, 0),
    ]
    assert [(use.tokens, use.value_idr) for use in month.uses] == [(purchase.bonus_tokens + 2_500, 12_500)]
    assert month.closing == (7_500, 0, 37_500)
    assert [(line.kind, line.value_idr) for line in month.wallet_lines] == [
        ("topup", 100_000),
        ("purchase", -50_000),
    ]
    corrections.refund(author=people.dewi(), purchase=purchase, reason="Asked for", key="a")
    month = this_month(alice)
    adds_up(month)
    assert month.closing == (0, 0, 0)
    assert month.wallet_closing_idr == 87_500


def test_a_refund_is_one_line_of_the_month(db: None) -> None:
    """The books take out all bonus, and put back what came with other purchases."""
    alice = people.carol()
    people.give_rupiah(alice, 250_000)
    purchases.buy(user=alice, package_slug="pro", key="a")
    starter = purchases.buy(user=alice, package_slug="starter", key="b")
    corrections.refund(author=people.dewi(), purchase=starter, reason="Asked for", key="c")
    month = this_month(alice)
    adds_up(month)
    assert [(line.kind, line.number, line.tokens, line.value_idr) for line in month.lines] == [
        ("purchase", 2, 60_000, 250_000),
        ("bonus", 2, 5_500, 0),
        ("refund", 1, -10_500, -50_000),
    ]
    assert month.closing == (55_000, 5_000, 200_000)


def this_month(person: User) -> monthly.Month:
    zone = zoneinfo.ZoneInfo("Asia/Jakarta")
    return monthly.month(person, first=datetime.now(zone).date().replace(day=1), zone=zone)


def test_old_rows_without_a_place_are_counted(db: None) -> None:
    """Rows from before bonus was kept apart say nothing of it; it is computed from all of them."""
    books, moment = Books(), datetime(2026, 1, 10, tzinfo=UTC)
    rows: list[Transfer] = []
    create = Transfer.objects.create
    for kind, amount, house in (
        ("adjustment", 100, "corrections_token"),
        ("bonus", 50, "bonus"),
        ("reply", -70, "consumed"),
    ):
        sides = (books.tokens.pk, ledger.house(house))
        debit, credit = sides if amount < 0 else sides[::-1]
        rows.append(
            create(
                id=f"{ids.first('trf', moment)}{ids.new('trf')[-16:]}",
                phase="single",
                kind=kind,
                unit="TOKEN",
                debit_id=debit,
                credit_id=credit,
                amount=abs(amount),
                reference="",
                key=ids.new("key"),
                input_hash="",
                created_at=moment,
            )
        )
        moment += timedelta(hours=1)
    month = monthly.month(books.person, first=date(2026, 2, 1), zone=UTC)
    assert month.opening == month.closing == (80, 0, 0)
