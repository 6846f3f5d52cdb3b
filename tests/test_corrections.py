"""Staff change what people have only with a reason, above a limit only two of them together, and each change once."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import IdempotencyMismatch, InvalidRequest, NotFound
from billing import audit, corrections, ledger, notices, purchases
from billing.models import Account, Correction, Purchase, Transfer
from tests import people
from tests.crowd import at_once, failures, successes
from tests.test_billing_pages import signed_in, words
from tests.test_offers import text_of_pdf

WALLET, TOKENS = Account.WALLET, Account.TOKENS


def adjusted(amount: int, *, account: str = WALLET, **fields: Any) -> Correction:
    given = {
        "author": people.dewi(),
        "user": people.alice(),
        "reason": "Slow replies on 11 August",
        "key": ids.new("key"),
    }
    return corrections.adjust(**{**given, "account": account, "amount": amount, **fields})


def refunded(purchase: Purchase, **fields: Any) -> Correction:
    given = {"author": people.dewi(), "reason": "Bought by mistake", "key": ids.new("key")}
    return corrections.refund(**{**given, "purchase": purchase, **fields})


def bought(person: User, package: str = "starter") -> Purchase:
    return purchases.buy(user=person, package_slug=package, key=ids.new("key"))


def use(person: User, amount: int) -> None:
    ledger.spend(
        user=person,
        account=TOKENS,
        amount=amount,
        to="consumed",
        kind=Transfer.Kind.REPLY,
        reference="msg_1",
        key=ids.new("use"),
    )


def rich() -> User:
    """Has Rp 1.000.000 and no tokens."""
    person = people.someone("Alice")
    people.give_rupiah(person, 1_000_000)
    return person


def has(person: User) -> tuple[int, int, int]:
    now = ledger.balance_of(person)
    return now.tokens, now.bonus, now.wallet_idr


@pytest.fixture
def books(db: None) -> Iterator[None]:
    """Right after whatever a story has done."""
    yield
    assert audit.check() == []


# Adjustments


def test_a_small_adjustment_is_applied_at_once_and_told(books: None) -> None:
    alice = people.alice()
    made = adjusted(5_000, user=alice)
    assert made.state == Correction.State.APPLIED
    assert ledger.balance_of(alice).wallet_idr == 280_000
    moved = Transfer.objects.get(reference=made.pk)
    assert (moved.kind, moved.reason, moved.author_id) == (
        "adjustment",
        "Slow replies on 11 August",
        made.author_id,
    )
    (notice,) = notices.inbox(alice)
    assert (notice.kind, notice.amount, notice.detail) == ("adjustment", 5_000, "Slow replies on 11 August")


def test_an_adjustment_can_take(books: None) -> None:
    alice = people.alice()
    adjusted(-500, account=TOKENS, user=alice)
    assert ledger.balance_of(alice).tokens == 10_000


def test_nobody_is_left_with_less_than_nothing(books: None) -> None:
    bob = people.bob()
    with pytest.raises(ledger.Insufficient):
        adjusted(-51, account=TOKENS, user=bob)
    assert ledger.balance_of(bob).tokens == 50
    assert not Correction.objects.filter(user=bob).exists()


def test_one_key_adjusts_once(books: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    first = adjusted(5_000, user=alice, author=dewi, key="a")
    assert adjusted(5_000, user=alice, author=dewi, key="a").pk == first.pk
    assert ledger.balance_of(alice).wallet_idr == 280_000
    with pytest.raises(IdempotencyMismatch):
        adjusted(6_000, user=alice, author=dewi, key="a")


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount": 0},
        {"amount": 10**13},
        {"account": "sales"},
        {"reason": " "},
        {"reason": "x" * 201},
        {"reason": "a\0b"},
        {"key": ""},
        {"key": "x" * 129},
    ],
)
def test_what_makes_no_sense_is_refused(books: None, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        adjusted(**{"amount": 1, **wrong})


# Two people


def test_above_the_limit_a_second_person_decides(books: None) -> None:
    alice, dewi, eka = people.alice(), people.dewi(), people.dewi()
    made = adjusted(100_001, user=alice, author=dewi)
    assert made.state == Correction.State.PROPOSED
    assert ledger.balance_of(alice).wallet_idr == 275_000
    with pytest.raises(corrections.OwnProposal):
        corrections.approve(correction_id=made.pk, by=dewi)
    corrections.approve(correction_id=made.pk, by=eka)
    assert ledger.balance_of(alice).wallet_idr == 375_001
    with pytest.raises(corrections.DecidedBefore):
        corrections.approve(correction_id=made.pk, by=eka)
    assert ledger.balance_of(alice).wallet_idr == 375_001


def test_what_was_declined_moves_nothing(books: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    made = adjusted(200_000, user=alice, author=dewi)
    corrections.decline(correction_id=made.pk, by=dewi)
    with pytest.raises(corrections.DecidedBefore):
        corrections.approve(correction_id=made.pk, by=people.dewi())
    assert ledger.balance_of(alice).wallet_idr == 275_000
    assert notices.inbox(alice) == []


def test_many_small_steps_are_a_large_one(books: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    states = [adjusted(40_000, user=alice, author=dewi).state for _step in range(3)]
    assert states == ["applied", "applied", "proposed"]
    assert adjusted(40_000, user=alice).state == "applied", "the limit is one of each author"


def test_what_cannot_be_applied_stays_a_proposal(books: None) -> None:
    bob = people.bob()
    made = adjusted(-30_000, account=TOKENS, user=bob)
    with pytest.raises(ledger.Insufficient):
        corrections.approve(correction_id=made.pk, by=people.dewi())
    made.refresh_from_db()
    assert made.state == Correction.State.PROPOSED
    people.give_tokens(bob, 30_000)
    corrections.approve(correction_id=made.pk, by=people.dewi())
    assert ledger.balance_of(bob).tokens == 50


def test_the_database_wants_two_people(books: None) -> None:
    made = adjusted(200_000)
    row = Correction.objects.filter(pk=made.pk)
    with pytest.raises(IntegrityError, match="correction_by_two_people"), transaction.atomic():
        row.update(state="applied", decided_by=made.author, decided_at=made.created_at)
    with pytest.raises(IntegrityError, match="correction_is_decided_by_somebody"), transaction.atomic():
        row.update(state="applied")


@pytest.mark.parametrize("unknown", ["", "cor_1", "\0", "x" * 90])
def test_what_does_not_exist_cannot_be_decided(books: None, unknown: str) -> None:
    for decide in (corrections.approve, corrections.decline):
        with pytest.raises(NotFound):
            decide(correction_id=unknown, by=people.dewi())


# Refunds


def test_a_purchase_of_which_nothing_was_used_is_refunded_whole(books: None) -> None:
    alice = rich()
    purchase = bought(alice)
    before = has(alice)
    assert before[2] == 950_000
    made = refunded(purchase)
    assert (made.state, made.amount, made.tokens_taken, made.bonus_taken) == (
        "applied",
        50_000,
        before[0],
        before[1],
    )
    assert has(alice) == (0, 0, 1_000_000)
    assert notices.inbox(alice)[0].kind == "refund"


def test_bonus_is_used_first_and_worth_nothing(books: None) -> None:
    alice = rich()
    purchase = bought(alice)
    bonus = ledger.balance_of(alice).bonus
    use(alice, bonus)
    assert corrections.refundable(purchase) == (50_000, 10_000, 0)
    use(alice, 2_500)
    assert corrections.refundable(purchase) == (37_500, 7_500, 0)
    refunded(purchase)
    assert has(alice) == (0, 0, 987_500)


def test_the_oldest_tokens_are_used_first(books: None) -> None:
    alice = rich()
    first, second = bought(alice), bought(alice)
    use(alice, ledger.balance_of(alice).bonus + 10_000)
    with pytest.raises(corrections.NothingLeft):
        corrections.refundable(first)
    assert corrections.refundable(second).amount_idr == 50_000


def test_bonus_of_another_purchase_stays(books: None) -> None:
    alice = rich()
    first = bought(alice)
    given = ledger.balance_of(alice).bonus
    second = bought(alice)
    extra = ledger.balance_of(alice).bonus - given
    refunded(second)
    assert has(alice) == (10_000 + given, given, 950_000)
    assert Correction.objects.get(purchase=second).bonus_taken == extra
    refunded(first)
    assert has(alice) == (0, 0, 1_000_000)


def test_a_purchase_is_refunded_once(books: None) -> None:
    alice = rich()
    purchase, dewi = bought(alice), people.dewi()
    first = refunded(purchase, author=dewi, key="a")
    assert refunded(purchase, author=dewi, key="a").pk == first.pk
    with pytest.raises(corrections.RefundedBefore):
        refunded(purchase)
    assert ledger.balance_of(alice).wallet_idr == 1_000_000


def test_a_large_refund_is_of_what_is_left_when_it_is_approved(books: None) -> None:
    alice = rich()
    purchase = bought(alice, "pro")
    made = refunded(purchase)
    assert (made.state, made.amount) == ("proposed", 200_000)
    with pytest.raises(corrections.RefundedBefore):
        refunded(purchase)
    use(alice, ledger.balance_of(alice).bonus + 25_000)
    approved = corrections.approve(correction_id=made.pk, by=people.dewi())
    approved.refresh_from_db()
    assert (approved.amount, approved.tokens_taken, approved.bonus_taken) == (100_000, 25_000, 0)
    assert has(alice) == (0, 0, 900_000)


def test_nothing_is_refunded_while_a_reply_is_written(books: None) -> None:
    alice = rich()
    purchase = bought(alice)
    ledger.hold(user=alice, amount=1, reference="msg_1", key=ids.new("hold"))
    with pytest.raises(corrections.RepliesInProgress):
        refunded(purchase)


def test_tokens_that_were_given_are_worth_nothing(books: None) -> None:
    alice = rich()
    adjusted(1_000, account=TOKENS, user=alice)
    purchase = bought(alice)
    use(alice, ledger.balance_of(alice).bonus + 1_000)
    assert corrections.refundable(purchase).amount_idr == 50_000, "the gift was older"


# Races


def test_many_refund_one_purchase_and_it_is_refunded_once(committed: None) -> None:
    alice = rich()
    purchase = bought(alice)
    staff = [people.dewi() for _each in range(8)]
    outcomes = at_once([partial(refunded, purchase, author=author) for author in staff])
    assert len(successes(outcomes)) == 1
    assert all(isinstance(error, corrections.RefundedBefore) for error in failures(outcomes))
    assert has(alice) == (0, 0, 1_000_000)


def test_one_key_pressed_many_times_adjusts_once(committed: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    outcomes = at_once([partial(adjusted, 5_000, user=alice, author=dewi, key="a")] * 8)
    assert {made.pk for made in successes(outcomes)} == {successes(outcomes)[0].pk}
    assert failures(outcomes) == []
    assert ledger.balance_of(alice).wallet_idr == 280_000


def test_approved_and_declined_at_once_is_one_of_both(committed: None) -> None:
    alice = people.alice()
    made = adjusted(200_000, user=alice)
    staff = [people.dewi() for _each in range(8)]
    decide: list[Callable[[], Correction]] = [
        partial(corrections.approve if nth % 2 else corrections.decline, correction_id=made.pk, by=by)
        for nth, by in enumerate(staff)
    ]
    outcomes = at_once(decide)
    assert len(successes(outcomes)) == 1
    made.refresh_from_db()
    assert ledger.balance_of(alice).wallet_idr == 275_000 + (200_000 if made.state == "applied" else 0)
    assert Transfer.objects.filter(reference=made.pk).count() == (made.state == "applied")


def test_the_limit_holds_for_many_at_once(committed: None) -> None:
    alice, dewi = people.alice(), people.dewi()
    outcomes = at_once([partial(adjusted, 40_000, user=alice, author=dewi) for _each in range(8)])
    assert failures(outcomes) == []
    assert sorted(made.state for made in successes(outcomes)) == ["applied"] * 2 + ["proposed"] * 6


def test_what_is_used_while_it_is_refunded_is_one_of_both(committed: None) -> None:
    for _round in range(5):
        alice = rich()
        purchase = bought(alice)
        tokens = ledger.balance_of(alice).tokens
        acts: list[Callable[[], Correction | None]] = [
            partial(refunded, purchase),
            *[partial(use, alice, 700)] * 6,
        ]
        outcomes = at_once(acts)
        assert all(isinstance(error, ledger.Insufficient) for error in failures(outcomes))
        spent = 700 * sum(outcome is None for outcome in outcomes)
        (made,) = filter(None, successes(outcomes))
        assert made.tokens_taken + spent == tokens - ledger.balance_of(alice).tokens
        assert ledger.balance_of(alice).wallet_idr == 950_000 + made.amount
    assert audit.check() == []


# The receipt


def test_a_receipt_shows_the_refund_below_what_it_always_said(books: None) -> None:
    alice = rich()
    other = bought(alice)
    purchase = bought(alice)
    client = signed_in(alice)
    address = reverse("billing:receipt", args=[purchase.pk])
    before = words(client.get(address))
    assert "Refund" not in before
    use(alice, ledger.balance_of(alice).bonus + 12_500)
    refunded(purchase, reason="Bought by mistake")
    page = words(client.get(address))
    shared = before.partition("Order ")[0].replace(purchase.number, f"{purchase.number} Refunded")
    assert page.startswith(shared), "what was said of the purchase stays as it was"
    below = page.removeprefix(shared)
    assert "Bought by mistake" in below
    assert "Tokens that were not used −7,500 −Rp 37.500" in below
    assert "Total after the refund 3,000 tokens Rp 12.500" in below
    assert "Before Rp 900.000 This refund +Rp 37.500 After Rp 937.500" in below
    assert "Before 7,500 This refund −7,500 After 0" in below
    paper = text_of_pdf(client.get(f"{address}.pdf"))
    for said in ("Refund", "Bought by mistake", "-Rp 37.500", "Rp 12.500", "Rp 937.500"):
        assert said in paper, said
    assert "Refund" not in words(client.get(reverse("billing:receipt", args=[other.pk])))


def test_a_refund_that_waits_for_a_second_person_is_on_no_receipt(books: None) -> None:
    alice = rich()
    purchase = bought(alice, "business")
    made = refunded(purchase)
    assert made.state == "proposed"
    client, address = signed_in(alice), reverse("billing:receipt", args=[purchase.pk])
    assert "Refund" not in words(client.get(address))
    corrections.approve(correction_id=made.pk, by=people.someone("Erik", is_staff=True))
    below = words(client.get(address)).partition("Refunded on")[2]
    assert "Tokens that were not used −200,000 −Rp 600.000 Bonus that was not used −30,000 Rp 0" in below
    assert "Total after the refund 0 tokens Rp 0" in below
