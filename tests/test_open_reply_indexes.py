"""What is asked about open replies, again and again, is answered by their own small indexes, however many are over."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection, transaction

from aleph import scrape
from chat import replies, sessions
from tests import people
from tests.stories_of_chat import ask, told

pytestmark = pytest.mark.usefixtures("committed", "simulator")

OPEN_ONLY = ("message_open", "message_open_by_user", "one_open_reply_per_session")


@contextmanager
def asked_of_messages() -> Iterator[list[tuple[str, Any]]]:
    """The questions about many messages that are sent in the block, each with the values that are bound to it."""
    asked: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "chat_message" in sql and sql.endswith((f"LIMIT {replies.BATCH}", f"LIMIT {sessions.PAGE}")):
            asked.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield asked


def plan_of(sql: str, params: Any) -> str:
    """How the database would find what is asked for. PostgreSQL reads small tables whole unless it is told not to."""
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}", params)
        return "\n".join(str(row) for row in cursor.fetchall())


def assert_reads_open_replies_only(plan: str) -> None:
    """By one of the partial indexes; which of them is the planner's business."""
    assert any(index in plan for index in OPEN_ONLY), plan
    assert "SCAN chat_message" not in plan, plan
    assert "Seq Scan on chat_message" not in plan, plan


def test_a_sweep_reads_open_replies_only() -> None:
    alice = people.alice()
    told(alice)
    ask(alice)
    with asked_of_messages() as asked:
        replies.sweep()
    assert len(asked) == 3
    for sql, params in asked:
        assert_reads_open_replies_only(plan_of(sql, params))


def test_the_list_of_chats_reads_open_replies_only() -> None:
    alice = people.alice()
    told(alice)
    writing = ask(alice).session
    with asked_of_messages() as asked:
        found = sessions.recent(alice)
    assert {session.pk for session in found if getattr(session, "is_open", False)} == {writing.pk}
    ((sql, params),) = asked
    assert_reads_open_replies_only(plan_of(sql, params))


def test_the_metrics_read_open_replies_only() -> None:
    assert_reads_open_replies_only(plan_of(scrape.REPLIES, ["2026-11-22"]))
