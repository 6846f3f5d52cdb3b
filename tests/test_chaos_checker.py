"""The checker of `make chaos` can fail: a violation of each invariant is planted, and it is found.

Nothing planted stays: each test runs in a transaction that is rolled back. What other tests left in the database is looked at,
too, so a plant has to be told apart by the rows that were not there before.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest
from django.db import connection, transaction

from aleph.accounts.models import User
from billing import purchases
from billing.models import Purchase
from chaos.checker import Checker, Longest, Measures, Violation
from chaos.invariants import INVARIANTS, Known, Look
from chaos.memory import Acknowledged, Bought, Memory, Shown
from chaos.plan import plan
from chaos.report import Found, Outage, table
from chat.models import Message
from tests import people
from tests.product import database_url
from tests.stories_of_chat import ask, told

pytestmark = pytest.mark.usefixtures("committed", "simulator")


@dataclass
class Story:
    """Alice has a finished reply, an open one and a purchase; Carol is somebody else. `memory` is what they saw."""

    alice: User
    carol: User
    done: Message
    open: Message
    purchase: Purchase
    memory: Memory


@pytest.fixture
def story() -> Story:
    alice, memory = people.alice(), Memory()
    done = told(alice, f"who-{alice.pk}- tell me", script="sim-echo")
    opened = ask(alice, f"who-{alice.pk}- go on").reply
    memory.purchase_keys.add("a-key")
    bought = purchases.buy(user=alice, package_slug="starter", key="a-key")
    memory.buy(Bought("a-key", alice.pk, bought.pk))
    for reply in (done, opened):
        assert reply.parent is not None
        assert reply.turn is not None
        memory.acknowledge(
            Acknowledged(reply.turn, alice.pk, reply.parent.content, reply.session_id, reply.pk)
        )
    memory.show(Shown(done.session_id, done.pk, "complete", done.content, done.content))
    return Story(alice, people.carol(), done, opened, bought, memory)


Plant = Callable[[Story], Iterable[str] | None]
"""Changes what is remembered, or returns statements that change what is stored."""


def forget_the_alleged(story: Story) -> None:
    """A message was acknowledged that nobody stored."""
    story.memory.acknowledge(Acknowledged("turn-x", story.alice.pk, "gone", story.done.session_id, "msg_x"))


def store_the_refused(story: Story) -> None:
    story.memory.refuse(str(story.open.turn), "402")


def sell_nothing(story: Story) -> None:
    story.memory.buy(Bought("another-key", story.alice.pk, "buy_x"))


def sell_unasked(story: Story) -> None:
    story.memory.purchase_keys.clear()


def show_another_text(story: Story) -> None:
    story.memory.show(Shown(story.done.session_id, story.done.pk, "complete", "other words", None))


def stream_another_text(story: Story) -> None:
    done = story.done
    story.memory.show(Shown(done.session_id, done.pk, "complete", done.content, done.content[:-5]))


def show_what_is_not_stored(story: Story) -> None:
    story.memory.show(Shown(story.done.session_id, "msg_x", "complete", "words", None))


def statement(text: str) -> Plant:
    """One statement, with what is in the story by name."""

    def plant(story: Story) -> list[str]:
        return [
            text.format(
                alice=story.alice.pk,
                carol=story.carol.pk,
                done=story.done.pk,
                open=story.open.pk,
                said=story.open.parent_id,
                hold=story.open.hold_id,
                purchase=story.purchase.pk,
                session=story.done.session_id,
            )
        ]

    return plant


PLANTS: list[tuple[str, Plant]] = [
    ("I1", statement("UPDATE billing_account SET balance = balance + 1 WHERE user_id = {alice} AND name = 'tokens'")),
    (
        "I1",
        statement(
            "UPDATE billing_transfer SET debit_id = (SELECT id FROM billing_account WHERE user_id = {carol} AND"
            " name = 'tokens') WHERE key = '{purchase}:tokens'"
        ),
    ),
    ("I2", statement("UPDATE billing_account SET held = held - 1 WHERE user_id = {alice} AND name = 'tokens'")),
    ("I2", statement("UPDATE chat_message SET state = 'failed' WHERE id = '{open}'")),
    ("I3", statement("UPDATE billing_account SET balance = -1 WHERE user_id = {carol} AND name = 'tokens'")),
    ("I3", statement("UPDATE billing_transfer SET amount = -amount WHERE key = 'close:{done}'")),
    ("I4", statement("UPDATE chat_message SET state = 'complete' WHERE id = '{open}'")),
    ("I4", statement("UPDATE chat_message SET state = 'streaming' WHERE id = '{done}'")),
    ("I4", statement("UPDATE billing_transfer SET key = 'another' WHERE key = 'close:{done}'")),
    ("I4", statement("UPDATE chat_message SET hold_id = '' WHERE id = '{done}'")),
    ("I4", statement("DELETE FROM chat_message WHERE id = '{open}'")),
    ("I5", statement("UPDATE billing_transfer SET amount = amount + 1 WHERE key = 'close:{done}'")),
    ("I5", statement("UPDATE chat_message SET state = 'interrupted' WHERE id = '{done}'")),
    ("I5", statement("DELETE FROM billing_transfer WHERE key = 'close:{done}'")),
    ("I6", statement("UPDATE billing_transfer SET amount = 10000000 WHERE id = '{hold}'")),
    ("I6", statement("UPDATE billing_transfer SET balance_after = balance_after + 1 WHERE id = '{hold}'")),
    ("I7", statement("UPDATE chat_message SET content = 'other words' WHERE id = '{said}'")),
    ("I7", statement("UPDATE chat_message SET content = (SELECT content FROM chat_message WHERE id = '{said}') WHERE role = 'user' AND user_id = {alice}")),
    ("I7", forget_the_alleged),
    ("I7", store_the_refused),
    ("I8", statement("UPDATE billing_account SET balance = balance - 1 WHERE user_id = {alice} AND name = 'wallet'")),
    ("I8", statement("UPDATE billing_purchase SET price_idr = price_idr - 1 WHERE id = '{purchase}'")),
    ("I9", statement("UPDATE billing_purchase SET tokens = tokens + 1 WHERE id = '{purchase}'")),
    ("I9", statement("DELETE FROM billing_transfer WHERE key = '{purchase}:bonus'")),
    ("I9", statement("DELETE FROM billing_purchase WHERE id = '{purchase}'")),
    ("I9", sell_nothing),
    ("I9", sell_unasked),
    ("I10", statement("DELETE FROM usage_tokenusage WHERE operation_id = '{done}'")),
    ("I10", statement("UPDATE usage_tokenusage SET transfer_id = '' WHERE operation_id = '{done}'")),
    ("I10", statement("UPDATE usage_tokenusage SET transfer_id = '{hold}' WHERE operation_id = '{done}'")),
    ("I10", statement("UPDATE usage_tokenusage SET attempt = 2 WHERE operation_id = '{done}'")),
    ("I11", statement("UPDATE billing_transfer SET reason = 'another' WHERE key = 'close:{done}'")),
    ("I11", statement("DELETE FROM billing_transfer WHERE key = 'close:{done}'")),
    ("I12", statement("UPDATE chat_session SET user_id = {carol} WHERE id = '{session}'")),
    ("I12", statement("UPDATE usage_tokenusage SET user_id = {carol} WHERE operation_id = '{done}'")),
    ("I12", statement("UPDATE chat_message SET content = 'who-{carol}- said' WHERE id = '{done}'")),
    ("I13", statement("UPDATE chat_message SET content = 'other words' WHERE id = '{done}'")),
    ("I13", statement("UPDATE chat_message SET state = 'stopped' WHERE id = '{done}'")),
    ("I13", statement("UPDATE chat_message SET tokens_used = tokens_used - 1 WHERE id = '{done}'")),
    ("I13", statement("DELETE FROM chat_message WHERE id = '{done}'")),
    ("I13", show_another_text),
    ("I13", stream_another_text),
    ("I13", show_what_is_not_stored),
    ("I14", statement("UPDATE billing_account SET bonus = bonus + 1 WHERE user_id = {alice} AND name = 'tokens'")),
    ("I14", statement("UPDATE billing_transfer SET bonus_after = bonus_after + 1 WHERE id = '{hold}'")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "plant"), PLANTS)
def test_what_breaks_an_invariant_is_reported(story: Story, rule: str, plant: Plant) -> None:
    known = Known()
    with unguarded():
        before = broken(story, known)
        for sql in plant(story) or ():
            with connection.cursor() as cursor:
                cursor.execute(sql)
                assert cursor.rowcount > 0, "nothing was planted"
        after = broken(story, known)
    assert after[rule] - before[rule], f"{rule} does not see it"


def test_what_is_right_is_not_reported(story: Story) -> None:
    own = {story.done.pk, story.open.pk, story.purchase.pk, story.open.hold_id}
    alice = str(story.alice.pk)
    with unguarded():
        found = broken(story, Known())
    assert not [row for rows in found.values() for row in rows if own & set(row) or row[0] == alice]


def test_every_invariant_has_its_plants() -> None:
    assert {rule for rule, _ in PLANTS} == set(INVARIANTS)


def broken(story: Story, known: Known) -> dict[str, set[tuple[str, ...]]]:
    """What each invariant finds at this moment, inside the transaction of the test."""

    def ask_inside(sql: str) -> list[tuple[Any, ...]]:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    look = Look(ask_inside, connection.vendor == "postgresql", story.memory, known)
    return {rule: {tuple(map(str, row)) for row in find(look)} for rule, find in INVARIANTS.items()}


@contextmanager
def unguarded() -> Iterator[None]:
    """The database without what it refuses by itself, until the block ends; then all is as it was."""
    is_postgresql = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        if not is_postgresql:
            cursor.execute("PRAGMA ignore_check_constraints = ON")
        try:
            with transaction.atomic():
                for sql in _without_guards(cursor):
                    cursor.execute(sql)
                yield
                transaction.set_rollback(True)
        finally:
            if not is_postgresql:
                cursor.execute("PRAGMA ignore_check_constraints = OFF")


def _without_guards(cursor: Any) -> list[str]:
    if connection.vendor == "sqlite":
        cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        return [f"DROP TRIGGER {name}" for (name,) in cursor.fetchall()]
    cursor.execute(
        "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c'"
        " AND conrelid::regclass::text IN ('billing_account', 'billing_transfer', 'chat_message')"
    )
    checks = [f"ALTER TABLE {table_name} DROP CONSTRAINT {name}" for table_name, name in cursor.fetchall()]
    tables = ("billing_account", "billing_transfer", "billing_purchase")
    return [*checks, *(f"ALTER TABLE {name} DISABLE TRIGGER USER" for name in tables)]


# The checker around them


def test_the_checker_reads_the_database_by_itself_and_reports(story: Story) -> None:
    checker = Checker(database_url(), story.memory)
    checker.check()
    assert (checker.snapshots, checker.missed) == (1, 0)
    before = {violation.rule for violation in checker.violations}
    assert "the runner" not in before
    forget_the_alleged(story)
    story.memory.complain("no 500", "somebody saw a 500")
    checker.check()
    reported = [violation for violation in checker.violations if "turn-x" in str(violation)]
    assert [violation.rule for violation in reported] == ["I7"]
    assert "no 500" in {violation.rule for violation in checker.violations}


def test_a_database_that_is_away_is_missed_and_not_a_violation() -> None:
    checker = Checker("postgresql://nobody@127.0.0.1:1/nothing", Memory())
    checker.check()
    assert (checker.snapshots, checker.missed, checker.violations) == (0, 1, [])


def test_a_broken_promise_or_a_violation_makes_a_bad_run() -> None:
    """On a machine that others use, times are told and not judged."""
    late = Found(seed=1, database="sqlite", seconds=1, measures=Measures(bell=Longest(16.0, "msg_x")))
    assert "16.0 s at most (promised 15 s) **BROKEN** (msg_x)" in table(late)
    runs = [
        Found(seed=1, database="sqlite", seconds=1),
        late,
        Found(seed=1, database="sqlite", seconds=1, outages=[Outage("redis", "", 0.1, 10.5)]),
        Found(seed=1, database="sqlite", seconds=1, violations=[Violation("I1", 1.0, ("a row",))]),
    ]
    assert [run.is_good for run in runs] == [True, False, False, False]
    for run in runs:
        run.others = 0.5
    assert [run.is_good for run in runs] == [True, True, True, False]


def test_a_seed_names_its_plan() -> None:
    def drawn(seed: int) -> list[Any]:
        return list(plan(Random(seed), seconds=600, kills=2000, has_postgresql=True))

    faults = drawn(7)
    assert faults == drawn(7) != drawn(8)
    kinds = [fault.kind for fault in faults]
    assert [kinds.count(kind) for kind in ("kill", "redis restart", "redis flush", "postgresql stop")] == [
        2000,
        20,
        10,
        10,
    ]
    assert {fault.target for fault in faults} >= {"worker1", "worker2", "web", "house", "beat"}
