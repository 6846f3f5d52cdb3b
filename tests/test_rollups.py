"""Rollups say what the calls say, however often and in whatever order they are written."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import meter, rollups
from usage.models import RollupDue, TokenUsage, UsageDay, UsageHour

pytestmark = pytest.mark.django_db

NOON = (datetime.now(UTC) - timedelta(days=5)).replace(hour=12, minute=0, second=0, microsecond=0)
MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def price(db: None) -> None:
    price_of("openai", "*", "2.5 1.25 3 10")


def added_up() -> None:
    while rollups.run():
        pass


def hours() -> list[UsageHour]:
    return list(UsageHour.objects.order_by("hour", "provider", "model"))


def test_an_hour_is_added_up_by_what_was_done_and_who_answered() -> None:
    alice, bob = people.alice(), people.bob()
    call_of(alice, at=NOON)
    call_of(bob, at=NOON + 59 * MINUTE, status=meter.Status.FAILED)
    call_of(alice, at=NOON + 2 * MINUTE, operation="title", source=meter.Source.ESTIMATED)
    call_of(alice, at=NOON + 60 * MINUTE)
    added_up()
    chat, title, later = sorted(hours(), key=lambda row: (row.hour, row.operation))
    assert (chat.hour, chat.calls, chat.failed, chat.total_tokens) == (NOON, 2, 1, 2400)
    assert (chat.first_token_ms, chat.first_token_calls, chat.latency_ms) == (840, 2, 6200)
    assert chat.total_cost_usd == 2 * Decimal("0.0045")
    assert (title.operation, title.calls, title.estimated) == ("title", 1, 1)
    assert (later.hour, later.calls) == (NOON + timedelta(hours=1), 1)


def test_a_day_is_added_up_by_person() -> None:
    alice, bob = people.alice(), people.bob()
    for hour in range(3):
        call_of(alice, at=NOON + timedelta(hours=hour))
    call_of(bob, at=NOON)
    call_of(None, at=NOON)
    added_up()
    said = {row.user_id: row.calls for row in UsageDay.objects.filter(day=NOON.date())}
    assert said == {alice.pk: 3, bob.pk: 1, None: 1}


def test_what_is_not_over_yet_is_left_to_the_rows() -> None:
    call_of(people.alice())
    added_up()
    assert not UsageHour.objects.exists()
    assert rollups.mark().hours_to <= timezone.now()


def test_to_add_up_twice_changes_nothing() -> None:
    call_of(people.alice(), at=NOON)
    added_up()
    once = [(row.hour, row.calls, row.total_cost_usd) for row in hours()]
    rollups.due([NOON])
    added_up()
    assert [(row.hour, row.calls, row.total_cost_usd) for row in hours()] == once
    assert not RollupDue.objects.exists()


def test_a_call_that_comes_late_is_added_when_somebody_says_so() -> None:
    alice = people.alice()
    call_of(alice, at=NOON)
    added_up()
    late = call_of(alice, at=NOON + MINUTE)
    assert list(rollups.differences())
    rollups.due([late.created_at])
    assert not list(rollups.differences()), "what waits is passed over"
    added_up()
    assert [row.calls for row in hours()] == [2]
    assert [row.calls for row in UsageDay.objects.all()] == [2]
    assert not list(rollups.differences())


def test_an_hour_whose_calls_are_gone_is_empty() -> None:
    call = call_of(people.alice(), at=NOON)
    added_up()
    TokenUsage.objects.filter(pk=call.pk).delete()
    rollups.due([NOON])
    added_up()
    assert not UsageHour.objects.exists()
    assert not UsageDay.objects.exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: UsageHour.objects.update(calls=7), "calls is 7, and the calls make 1"),
        (lambda: UsageHour.objects.all().delete(), "not added up"),
        (lambda: UsageDay.objects.update(total_tokens=1), "total_tokens is 1"),
        (lambda: UsageHour.objects.update(total_cost_usd=Decimal("0.00450001")), "total_cost_usd"),
        (lambda: TokenUsage.objects.all().delete(), "added up, and there is no call"),
    ],
)
def test_the_command_finds_what_differs_and_rebuilding_mends_it(wrong: Any, said: str) -> None:
    call_of(people.alice(), at=NOON)
    added_up()
    wrong()
    told = StringIO()
    with pytest.raises(CommandError):
        call_command("check_usage", stdout=told)
    assert said in told.getvalue()
    call_command("rebuild_rollups", since=NOON.date(), until=NOON.date(), stdout=StringIO())
    call_command("check_usage", stdout=StringIO())


def test_a_sum_that_stands_twice_is_found() -> None:
    call_of(people.alice(), at=NOON)
    added_up()
    UsageHour.objects.bulk_create([UsageHour(**{**row, "id": None}) for row in UsageHour.objects.values()])
    assert [line for line in rollups.differences() if "added up twice" in line]


def test_a_quiet_year_costs_a_handful_of_questions() -> None:
    alice = people.alice()
    call_of(alice, at=NOON - timedelta(days=365))
    call_of(alice, at=NOON)
    with CaptureQueriesContext(connection) as asked:
        added_up()
    assert len(hours()) == 2
    assert len(asked) < 110


CALLS = st.lists(
    st.tuples(
        st.integers(0, 60 * 72),  # minutes
        st.sampled_from(["openai", "anthropic"]),
        st.sampled_from(["complete", "failed", "stopped", "interrupted"]),
        st.none() | st.integers(0, 10**6),
        st.integers(0, 10**6),
        st.booleans(),
    ),
    max_size=8,
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(early=CALLS, late=CALLS)
def test_whatever_was_called_and_whenever_it_was_told(early: list[Any], late: list[Any]) -> None:
    TokenUsage.objects.all().delete()
    UsageHour.objects.all().delete()
    UsageDay.objects.all().delete()
    persons = [None, people.carol()]
    for batch in (early, late):
        for minutes, provider, status, cached, fresh, is_somebodys in batch:
            call = call_of(
                persons[is_somebodys],
                at=NOON + minutes * MINUTE,
                provider=provider,
                status=status,
                counts=meter.Counts(fresh_input=fresh, cache_read=cached, visible_output=200),
            )
            rollups.due([call.created_at])
        added_up()
        assert not list(rollups.differences())
        assert sum(row.calls for row in UsageHour.objects.all()) == TokenUsage.objects.count()
        assert sum(row.calls for row in UsageDay.objects.all()) == TokenUsage.objects.count()
