"""Calls stand in partitions by month on PostgreSQL; an existing table becomes such a one without loss, and back."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from aleph import ids
from tests import people
from tests.stories_of_usage import call_of
from usage import partitions
from usage.models import TokenUsage

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="only PostgreSQL has partitions"),
]
conversion = import_module("usage.migrations.0010_partitions")
LONG_AGO = date(2024, 2, 1)
IN_IT = datetime(2024, 2, 15, 12, tzinfo=UTC)


def told(sql: str, *params: Any) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall()) if cursor.description else []


def place_of(call: TokenUsage) -> str:
    return str(told("SELECT tableoid::regclass::text FROM usage_tokenusage WHERE id = %s", call.pk)[0][0])


def rules() -> set[tuple[str, str]]:
    """What guards the table of calls, and what finds in it."""
    found = told(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'usage_tokenusage'::regclass"
    )
    found += told("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'usage_tokenusage'")
    return {(name, said.replace(" ON ONLY ", " ON ")) for name, said in found}


@pytest.fixture
def editor() -> Iterator[Any]:
    with connection.schema_editor(atomic=False) as editor:
        yield editor


def test_this_month_and_the_next_ones_are_made() -> None:
    made = partitions.months()
    month = partitions.month_of(timezone.now())
    for _nth in range(partitions.AHEAD + 1):
        assert month in made
        month = partitions.after(month)
    assert partitions.prepare() == []


def test_a_call_stands_in_its_month() -> None:
    call = call_of(people.alice())
    assert place_of(call) == partitions.name_of(partitions.month_of(call.created_at))


def test_a_month_that_is_made_late_takes_its_calls_out_of_the_rest() -> None:
    call, other = call_of(people.alice(), at=IN_IT), call_of(people.alice(), at=IN_IT - timedelta(days=60))
    assert place_of(call) == partitions.REST
    assert partitions.make(LONG_AGO)
    assert place_of(call) == partitions.name_of(LONG_AGO)
    assert place_of(other) == partitions.REST
    assert not partitions.make(LONG_AGO), "it is made once"


def test_a_month_goes_with_its_calls_and_no_others() -> None:
    partitions.make(LONG_AGO)
    call, other = call_of(people.alice(), at=IN_IT), call_of(people.alice())
    told("SET CONSTRAINTS ALL IMMEDIATE")
    partitions.drop(LONG_AGO)
    assert not TokenUsage.objects.filter(pk=call.pk).exists()
    assert TokenUsage.objects.filter(pk=other.pk).exists()
    assert LONG_AGO not in partitions.months()


def test_an_id_and_a_moment_of_different_months_are_refused() -> None:
    call = call_of(people.alice())
    with pytest.raises(IntegrityError, match="is_of_its_month"), transaction.atomic():
        TokenUsage.objects.filter(pk=call.pk).update(created_at=IN_IT)


def test_only_the_months_of_the_question_are_read() -> None:
    partitions.make(LONG_AGO)
    plan = TokenUsage.objects.filter(user=people.alice(), created_at__gte=timezone.now()).explain()
    assert partitions.name_of(partitions.month_of(timezone.now())) in plan
    assert partitions.name_of(LONG_AGO) not in plan


def test_each_month_holds_an_attempt_once() -> None:
    call = call_of(people.alice())
    call.pk = f"use_{ids.at(call.created_at)}"
    with pytest.raises(IntegrityError, match="_once"), transaction.atomic():
        call.save(force_insert=True)


def test_an_attempt_that_is_told_again_after_the_month_has_turned_counts_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    midnight = datetime(2024, 3, 1, tzinfo=UTC)
    partitions.make(LONG_AGO)
    partitions.make(partitions.after(LONG_AGO))
    alice, reply = people.alice(), ids.new("msg")
    calls = []
    for moment in (midnight - timedelta(seconds=1), midnight + timedelta(seconds=1)):
        monkeypatch.setattr(timezone, "now", lambda moment=moment: moment)
        calls.append(call_of(alice, operation_id=reply))
    assert calls[0].pk == calls[1].pk
    assert TokenUsage.objects.filter(operation_id=reply).count() == 1


def test_the_table_becomes_one_and_becomes_partitioned_without_loss(editor: Any) -> None:
    alice = people.alice()
    calls = [
        call_of(alice),
        call_of(None),
        call_of(alice, at=IN_IT),
        call_of(alice, at=IN_IT + timedelta(days=90)),
    ]
    before, guarded = list(TokenUsage.objects.order_by("pk").values()), rules()

    conversion.join(None, editor)
    assert list(TokenUsage.objects.order_by("pk").values()) == before
    assert not told("SELECT 1 FROM pg_inherits WHERE inhparent = 'usage_tokenusage'::regclass")
    again = TokenUsage.objects.get(pk=calls[0].pk)
    again.pk = f"use_{ids.at(IN_IT)}"
    with pytest.raises(IntegrityError, match="usage_once_per_attempt"), transaction.atomic():
        again.save(force_insert=True)

    conversion.split(None, editor)
    assert list(TokenUsage.objects.order_by("pk").values()) == before
    assert rules() == guarded
    assert place_of(calls[2]) == partitions.name_of(LONG_AGO)
    assert partitions.prepare() == []
    with pytest.raises(IntegrityError, match="usage_total_adds_up"), transaction.atomic():
        TokenUsage.objects.filter(pk=calls[0].pk).update(total_tokens=1)


def test_a_call_whose_id_is_of_another_month_is_kept(editor: Any) -> None:
    call = call_of(people.alice())
    conversion.join(None, editor)
    TokenUsage.objects.filter(pk=call.pk).update(created_at=IN_IT)
    conversion.split(None, editor)
    kept = TokenUsage.objects.get(operation_id=call.operation_id)
    assert kept.created_at == IN_IT
    assert place_of(kept) == partitions.name_of(LONG_AGO)
