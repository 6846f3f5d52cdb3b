"""`check_usage` says nothing where replies, transfers and usage rows agree, and names what does not."""

from collections.abc import Callable
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now

from aleph import ids, reconcile
from aleph.accounts.models import User
from billing import ledger
from billing.models import Transfer
from chat import replies
from chat.keeper import LEASE
from chat.models import Message, Session
from chat.providers.base import Counts
from chat.replies import Outcome
from tests import people
from tests.stories_of_chat import ask, calls_of, fresh, orphaned
from tests.stories_of_usage import call_of, price_of
from tests.test_audit import unguarded
from usage.models import ModelPrice, TokenUsage

SAID = Counts(
    fresh_input=400,
    visible_output=300,
    cache_read=200,
    cache_write=100,
    provider_input=700,
    provider_output=300,
)


@pytest.fixture(autouse=True)
def price(db: None, simulator: object) -> ModelPrice:
    return price_of("openai", "*", "2.5 1.25 3 10")


def over(reply: Message, state: str = "complete", **how: Any) -> Message:
    """A reply that was begun, ended as its worker would end it."""
    ending: dict[str, Any] = {"text": "Once upon a time", "counts": SAID, "finish_reason": "stop"}
    assert replies._close(reply, Outcome(state, **(ending | how)))
    return fresh(reply)


def complete(person: User | None = None) -> Message:
    return over(orphaned(person or people.alice()))


def failed() -> Message:
    return over(orphaned(people.alice()), "failed", text="", counts=None, error_kind="server")


def begun_again(person: User) -> Message:
    """A reply whose first worker died before it wrote anything; the second one writes."""
    reply = orphaned(person)
    assert replies._hand_back(reply, Q())
    Message.objects.filter(pk=reply.pk).update(
        state="streaming", attempts=2, started_at=Now(), lease_until=Now() + LEASE
    )
    return fresh(reply)


def deleted(reply: Message) -> Message:
    Session.objects.filter(pk=reply.session_id).delete()
    return reply


def stopped_before_it_began() -> Message:
    reply = ask(people.alice()).reply
    assert replies.close_queued(reply.pk, Message.State.STOPPED)
    return reply


RIGHT: dict[str, Callable[[], Message]] = {
    "a complete one": complete,
    "a complete one that was estimated": lambda: over(orphaned(people.alice()), counts=None),
    "one that cost more than was held": lambda: over(
        orphaned(people.alice()),
        counts=Counts(
            fresh_input=90_000, visible_output=90_000, provider_input=90_000, provider_output=90_000
        ),
    ),
    "one that counted nothing": lambda: over(
        orphaned(people.alice()),
        counts=Counts(fresh_input=0, visible_output=0, provider_input=0, provider_output=0),
    ),
    "a stopped one": lambda: over(orphaned(people.alice()), "stopped", counts=None),
    "one that was stopped without a word": lambda: over(
        orphaned(people.alice()), "stopped", counts=None, text=""
    ),
    "one that was stopped in the queue": stopped_before_it_began,
    "a failed one": failed,
    "a failed one with a text": lambda: over(orphaned(people.alice()), "failed", error_kind="broken_stream"),
    "one whose provider was not connected": lambda: over(
        orphaned(people.alice()), "failed", text="", counts=None, error_kind="unreachable", called=False
    ),
    "an interrupted one": lambda: over(orphaned(people.alice()), "interrupted", error_kind="worker_died"),
    "one that was handed back": lambda: over(begun_again(people.alice())),
    "one in its second try": lambda: begun_again(people.alice()),
    "one in the queue": lambda: ask(people.alice()).reply,
    "one that is being written": lambda: orphaned(people.alice()),
    "a free one": lambda: over(orphaned(people.carol(), rate=0)),
    "one whose chat was deleted": lambda: deleted(complete()),
    "a failed one whose chat was deleted": lambda: deleted(failed()),
}


def rules_about(reply: Message) -> set[str]:
    """The rules that are broken by a reply, its hold or its calls. There may be others' in this database."""
    holds = Transfer.objects.filter(reference=reply.pk)
    calls = TokenUsage.objects.filter(operation_id=reply.pk)
    own = {reply.pk, *holds.values_list("pk", flat=True), *calls.values_list("pk", flat=True)}
    return {found.rule for found in reconcile.Reconciliation().differences() if found.subject in own}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_reply_that_is_right_passes(kind: str) -> None:
    assert rules_about(RIGHT[kind]()) == set()


def change(row: Any, **changes: Any) -> None:
    """Write past everything that guards a row."""
    if isinstance(row, Transfer):
        unguarded()
    assert type(row)._default_manager.filter(pk=row.pk).update(**changes)


def call(reply: Message) -> TokenUsage:
    return calls_of(reply)[-1]


def post(reply: Message) -> Transfer:
    return Transfer.objects.get(pending=reply.hold_id)


def forget(row: Any) -> None:
    if isinstance(row, Transfer):
        unguarded()
    with connection.cursor() as cursor:
        cursor.execute(f"DELETE FROM {row._meta.db_table} WHERE id = %s", [row.pk])


def again(row: TokenUsage, **changes: Any) -> None:
    """Another row like this one."""
    for name, value in {"pk": ids.new("use"), **changes}.items():
        setattr(row, name, value)
    row.save(force_insert=True)


def counted_more(row: TokenUsage) -> None:
    """What a row counts is changed everywhere in it, and its cost with it."""
    change(
        row,
        fresh_input_tokens=F("fresh_input_tokens") + 20_000,
        input_tokens=F("input_tokens") + 20_000,
        total_tokens=F("total_tokens") + 20_000,
        input_cost_usd=F("input_cost_usd") + Decimal("0.05"),
        total_cost_usd=F("total_cost_usd") + Decimal("0.05"),
    )


CALLS, PAID = "one usage row for each call", "one usage row for what was paid"
TOOK, USED = "charged what the books took", "charged what was used"
HELD, KEEPS = "nothing is held for what is over", "what is open keeps its hold"
HAS_HOLD, HAS_REPLY = "a reply has its hold", "a hold has its reply"
SAYS = "a call says what was charged for it"
HAS_TRANSFER = "a paid call has its transfer"
SUMS, COSTS = "totals are the sum of the classes", "costs are counts by price"

Wrong = tuple[set[str], Callable[[], Message], Callable[[Message], object]]
WRONG: dict[str, Wrong] = {
    "a usage row is gone": ({CALLS, PAID, USED}, complete, lambda reply: forget(call(reply))),
    "a failed reply has no usage row": ({CALLS}, failed, lambda reply: forget(call(reply))),
    "a call was recorded twice": ({CALLS}, failed, lambda reply: again(call(reply), attempt=2)),
    "the first of two calls is gone": (
        {CALLS},
        RIGHT["one that was handed back"],
        lambda reply: forget(calls_of(reply)[0]),
    ),
    "a call is recorded that still runs": (
        {CALLS},
        RIGHT["one that is being written"],
        lambda reply: call_of(reply.user, operation_id=reply.pk),
    ),
    "a reply says that it cost less": (
        {TOOK, USED},
        complete,
        lambda reply: change(reply, tokens_used=F("tokens_used") - 1),
    ),
    "a failed reply was charged": (
        {TOOK, USED, CALLS, PAID},
        lambda: orphaned(people.alice()),
        lambda reply: failed_and_charged(reply),
    ),
    "the books took more": (
        {TOOK, SAYS},
        complete,
        lambda reply: change(post(reply), amount=F("amount") + 1),
    ),
    "the counts are others": ({USED}, complete, lambda reply: counted_more(call(reply))),
    "the rates are others": ({USED}, complete, lambda reply: change(reply, input_rate=F("input_rate") * 9)),
    "a usage row says another charge": (
        {SAYS},
        complete,
        lambda reply: change(call(reply), charged_tokens=1),
    ),
    "a busy provider was asked, and no row says so": (
        {CALLS},
        lambda: over(orphaned(people.alice()), "failed", text="", counts=None, error_kind="overloaded"),
        lambda reply: call(reply).delete(),
    ),
    "a usage row names no transfer": ({PAID}, complete, lambda reply: change(call(reply), transfer_id="")),
    "a usage row names a transfer that is not there": (
        {PAID, HAS_TRANSFER},
        complete,
        lambda reply: change(call(reply), transfer_id="trf_nowhere"),
    ),
    "a usage row names the transfer of another": (
        {PAID, HAS_TRANSFER},
        complete,
        lambda reply: change(call(reply), transfer_id=post(complete()).pk),
    ),
    "a usage row says that a void paid": (
        {PAID, HAS_TRANSFER},
        failed,
        lambda reply: change(call(reply), transfer_id=post(reply).pk),
    ),
    "a hold stays open": (
        {HELD, TOOK, PAID, HAS_TRANSFER},
        complete,
        lambda reply: forget(post(reply)),
    ),
    "a hold of a failed reply stays open": ({HELD}, failed, lambda reply: forget(post(reply))),
    "a hold stays open of a chat that is gone": (
        {HELD},
        lambda: orphaned(people.alice()),
        lambda reply: deleted(reply),
    ),
    "a call is gone of a chat that is gone": (
        {PAID},
        lambda: deleted(complete()),
        lambda reply: forget(call(reply)),
    ),
    "a call names no transfer of a chat that is gone": (
        {PAID},
        lambda: deleted(complete()),
        lambda reply: change(call(reply), transfer_id=""),
    ),
    "an open reply lost its hold": (
        {KEEPS},
        lambda: orphaned(people.alice()),
        lambda reply: ledger.void(hold_id=reply.hold_id, key=ids.new("key"), reason=""),
    ),
    "a reply forgot its hold": (
        {HAS_HOLD, HAS_REPLY, TOOK, USED, PAID},
        complete,
        lambda reply: change(reply, hold_id=""),
    ),
    "a reply holds more than its hold": (
        {HAS_HOLD},
        complete,
        lambda reply: change(reply, held_tokens=F("held_tokens") + 1),
    ),
    "a hold was made twice": (
        {HAS_REPLY},
        lambda: orphaned(people.alice()),
        lambda reply: ledger.hold(user=reply.user, amount=5, reference=reply.pk, key=ids.new("key")),
    ),
    "a total is not the sum of its classes": (
        {SUMS, COSTS},
        complete,
        lambda reply: change(call(reply), fresh_input_tokens=F("fresh_input_tokens") + 1),
    ),
    "a class that nobody knows is counted": (
        {SUMS, COSTS},
        complete,
        lambda reply: change(call(reply), cache_read_tokens=None),
    ),
    "a cost was rewritten": (
        {COSTS},
        complete,
        lambda reply: change(call(reply), total_cost_usd=F("total_cost_usd") + Decimal("0.000000000001")),
    ),
    "a price was rewritten": (
        {COSTS},
        complete,
        lambda reply: change(call(reply).price, input_usd_per_million=Decimal("2.500001")),
    ),
    "a cost has no price": ({COSTS}, complete, lambda reply: change(call(reply), price=None)),
    "a price made no cost": ({COSTS}, complete, lambda reply: change(call(reply), total_cost_usd=None)),
}


def failed_and_charged(reply: Message) -> None:
    """Its tokens were taken, and no row says for what; the constraint that failures cost nothing is not in the way."""
    ledger.post(hold_id=reply.hold_id, amount=5, key=ids.new("key"))
    change(reply, state="stopped", tokens_used=6)


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_is_named(kind: str) -> None:
    rules, story, do = WRONG[kind]
    reply = story()
    assert rules_about(reply) == set()
    do(reply)
    assert rules_about(reply) == rules


def test_a_price_that_nobody_knows_costs_nothing(price: ModelPrice) -> None:
    change(price, provider="somebody-else")
    reply = complete()
    assert call(reply).total_cost_usd is None
    assert rules_about(reply) == set()


def test_batches_end_where_the_rows_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told = [complete() for _each in range(4)]
    forget(call(told[3]))
    for size in (1, 2, 3, 4, 5):
        monkeypatch.setattr(reconcile, "BATCH", size)
        assert [reply.pk for reply in told if rules_about(reply)] == [told[3].pk]


def test_it_asks_as_often_as_there_are_batches(
    monkeypatch: pytest.MonkeyPatch, django_assert_max_num_queries: Any
) -> None:
    for _each in range(6):
        complete()
    nothing_else()
    with django_assert_max_num_queries(14):
        assert not list(reconcile.Reconciliation().differences())


def test_the_command_says_how_much_there_was() -> None:
    nothing_else()
    told = [complete(), failed(), deleted(complete()), RIGHT["one in the queue"]()]
    out = StringIO()

    call_command("check_usage", stdout=out)

    table = {line[:26].strip(): line[26:].split() for line in out.getvalue().splitlines()}
    charged, gone = told[0].tokens_used, told[2].tokens_used
    assert table["replies"] == ["3", str(charged)]
    assert table["deleted with their chats"] == ["1", str(gone)]
    assert table["holds"] == ["4"]
    assert table["posted"] == table["paid"] == ["2", str(charged + gone)]
    assert table["usage rows"] == ["3"]
    assert "They say the same." in out.getvalue()


def test_the_command_fails_and_names_what_differs() -> None:
    nothing_else()
    told = [complete() for _each in range(22)]
    for reply in told:
        change(call(reply), transfer_id="")
    out = StringIO()

    with pytest.raises(CommandError, match="They differ in 23 places"):
        call_command("check_usage", stdout=out)

    lines = out.getvalue().splitlines()
    assert sum(line.startswith(f"{PAID}: msg_") for line in lines) == 20
    assert f"{PAID}: 2 more" in lines
    assert any(line.startswith("sums: all: replies ") for line in lines)


def nothing_else() -> None:
    """Take away what other tests have left in this database, until the transaction ends; and what was told so far stays
    out of it."""
    unguarded()
    with connection.cursor() as cursor:
        for table in ("usage_tokenusage", "chat_message"):
            cursor.execute(f"DELETE FROM {table}")
        cursor.execute("DELETE FROM billing_transfer WHERE pending_id IS NOT NULL")
        cursor.execute("DELETE FROM billing_transfer WHERE kind = 'reply'")
