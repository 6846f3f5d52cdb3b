"""`check_ledger` says nothing about books that are right, and names what is wrong in those that are not."""

from collections.abc import Callable
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F

from aleph import ids
from aleph.accounts.models import User
from billing import audit, ledger, purchases
from billing.models import Account, Transfer, Unit
from tests import people
from tests.crowd import at_once


def alice_after_a_day() -> User:
    """She has bought Starter, had one reply, one that failed, and one is being written."""
    alice = people.alice()
    purchases.buy(user=alice, package_slug="starter", key="a")
    held = [
        ledger.hold(user=alice, amount=300, reference="msg_1", key=f"hold:{alice.pk}:{which}").id
        for which in range(3)
    ]
    ledger.post(hold_id=held[0], amount=225, key=f"close:{held[0]}")
    ledger.void(hold_id=held[1], key=f"close:{held[1]}", reason="failed")
    return alice


def unguarded() -> None:
    """Take the guards off until the transaction ends, as somebody with a database console could."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
            for table in ("billing_transfer", "billing_account", "billing_purchase"):
                cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        else:
            for name in audit.TRIGGERS["sqlite"]:
                cursor.execute(f"DROP TRIGGER {name}")


def rewrite(person: User, which: str, **change: object) -> None:
    unguarded()
    rows = Transfer.objects.filter(debit__user=person) | Transfer.objects.filter(credit__user=person)
    assert rows.filter(kind=which).update(**change)


def smuggle(person: User, **differences: object) -> None:
    unguarded()
    Transfer.objects.create(
        **{
            "id": "trf_smuggled",
            "phase": "single",
            "kind": "adjustment",
            "unit": Unit.TOKEN,
            "debit_id": ledger.house("corrections_token"),
            "credit": Account.objects.get(user=person, name=ledger.TOKENS),
            "amount": 1,
            "reference": "r",
            "key": ids.new("key"),
            **differences,
        }
    )


def tokens_of(person: User) -> Account:
    return Account.objects.get(user=person, name=ledger.TOKENS)


def hold_of(person: User) -> str:
    return str(Transfer.objects.get(debit__user=person, phase="pending", resolution=None).pk)


def test_books_that_are_right_pass(db: None) -> None:
    alice_after_a_day()
    assert audit.check() == []
    out = StringIO()
    call_command("check_ledger", stdout=out)
    assert "The books are right." in out.getvalue()


def test_a_wrong_balance_ends_the_command_with_the_name_of_its_owner(db: None) -> None:
    alice = alice_after_a_day()
    Account.objects.filter(pk=tokens_of(alice).pk).update(balance=F("balance") + 5)
    out = StringIO()
    with pytest.raises(CommandError, match="wrong in 2 places"):
        call_command("check_ledger", stdout=out)
    assert f"balance: {alice.email}/tokens: the account says 20780, its transfers 20775" in out.getvalue()
    assert "nothing comes from nowhere: TOKEN" in out.getvalue()


WRONGS: dict[str, tuple[str, Callable[[User], object]]] = {
    "held drifted": ("held", lambda alice: Account.objects.filter(pk=tokens_of(alice).pk).update(held=1)),
    "a transfer was rewritten": ("balance", lambda alice: rewrite(alice, "topup", amount=1)),
    "a paid price was rewritten": (
        "a purchase has its transfers",
        lambda alice: rewrite(alice, "purchase", amount=1),
    ),
    "a bonus was redirected": (
        "a purchase has its transfers",
        lambda alice: rewrite(alice, "bonus", kind="refund"),
    ),
    "tokens were sold without a receipt": (
        "a sale has its purchase",
        lambda alice: smuggle(alice, kind="purchase", debit_id=ledger.house("issued")),
    ),
    "a bonus was given twice": (
        "a sale has its purchase",
        lambda alice: smuggle(
            alice, kind="bonus", reference=Transfer.objects.get(kind="bonus", credit__user=alice).reference
        ),
    ),
    "rupiah became tokens": ("one unit", lambda alice: smuggle(alice, debit_id=ledger.house("bank"))),
    "a post took more than was held": (
        "a resolution fits its hold",
        lambda alice: smuggle(
            alice,
            phase="post",
            kind="reply",
            pending_id=hold_of(alice),
            debit=tokens_of(alice),
            credit=None,
            credit_id=ledger.house("consumed"),
            amount=301,
        ),
    ),
    "somebody has no accounts": (
        "two accounts each",
        lambda alice: User.objects.bulk_create([User(email=ids.new("carol"), name="Carol")]),
    ),
    "the guards are off": ("guarded by the database", lambda alice: unguarded()),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_what_is_wrong_is_named(db: None, wrong: str) -> None:
    rule, do = WRONGS[wrong]
    do(alice_after_a_day())
    assert rule in {drift.rule for drift in audit.check()}


def test_the_check_readsone_moment_and_lets_others_write(committed: None) -> None:
    """Its statements see the state at its beginning, though a reply is settled while it runs."""
    alice = alice_after_a_day()
    with audit.one_moment():
        before = audit.counts()
        with connection.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM billing_transfer")
        settled = _in_another_thread(
            lambda: ledger.void(hold_id=hold_of(alice), key=ids.new("close"), reason="")
        )
        assert settled.held == 0
        assert audit.counts() == before
    assert audit.counts().open_holds == before.open_holds - 1


def _in_another_thread(action: Callable[[], ledger.Moved]) -> ledger.Moved:
    (outcome,) = at_once([action])
    assert not isinstance(outcome, Exception), outcome
    return outcome
