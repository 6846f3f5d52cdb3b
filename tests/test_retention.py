"""Calls of months long over are forgotten, and every figure stays as it was."""

from datetime import UTC, date, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from chat import receipts
from tests import people
from tests.stories_of_chat import fresh
from tests.stories_of_usage import call_of
from tests.test_check_usage import complete, nothing_else
from usage import history, partitions, reports, retention, rollups
from usage.models import RollupMark, TokenUsage, UsageDay, UsageMonth

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
OLD = datetime(2025, 10, 14, 9, tzinfo=UTC)
"""Of a month that has been over for more than a year."""
KEPT = datetime(2025, 11, 3, 9, tzinfo=UTC)
"""Of the month that a year ago lies in."""


@pytest.fixture(autouse=True)
def calm(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_else()
    monkeypatch.setattr(timezone, "now", lambda: NOW)
    monkeypatch.setattr(rollups, "LAG", timedelta(0))
    if connection.vendor == "postgresql":
        partitions.make(date(2025, 10, 1))
        # A month cannot be dropped by a transaction that has keys of its rows to check.
        with connection.cursor() as cursor:
            cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def added_up() -> None:
    while rollups.run():
        pass


def figures_of(person: Any) -> Any:
    tallies = history.tallies(person)
    days = history.by_day(person, date(2025, 10, 1), date(2025, 11, 30))
    return tallies, days, history.log(person).tokens


def test_figures_of_the_past_stay_when_its_calls_go() -> None:
    alice = people.alice()
    for nth, moment in enumerate((OLD, OLD + timedelta(days=2), KEPT, NOW - timedelta(days=2))):
        call_of(alice, at=moment, operation=("chat_message", "training")[nth % 2])
        call_of(alice, at=moment, provider="nobody", model="unpriced", requested_model="unpriced")
    added_up()
    before = figures_of(alice)
    assert before[0].whole.calls == 8
    assert before[0].whole.unpriced == 4

    assert retention.clean_up() > 0

    assert TokenUsage.objects.filter(user=alice).count() == 4
    assert not TokenUsage.objects.filter(created_at__lt=datetime(2025, 11, 1, tzinfo=UTC)).exists()
    assert retention.kept_from() == datetime(2025, 11, 1, tzinfo=UTC)
    assert figures_of(alice) == before
    added_up()
    assert figures_of(alice) == before
    assert retention.clean_up() == 0
    if connection.vendor == "postgresql":
        assert date(2025, 10, 1) not in partitions.months()


def test_figures_are_right_while_calls_disappear() -> None:
    alice = people.alice()
    for day in range(5):
        call_of(alice, at=OLD + timedelta(days=day))
    added_up()
    before = figures_of(alice)
    retention._move_mark()
    assert TokenUsage.objects.filter(user=alice).count() == 5
    assert figures_of(alice) == before


def test_nothing_goes_that_is_not_added_up() -> None:
    alice = people.alice()
    call_of(alice, at=OLD)
    assert retention.clean_up() == 0
    added_up()
    rollups.due([OLD])
    assert retention.clean_up() == 0
    assert TokenUsage.objects.filter(user=alice).count() == 1
    added_up()
    assert retention.clean_up() > 0


def test_it_goes_on_where_it_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    alice = people.alice()
    long_ago = datetime(2024, 3, 4, tzinfo=UTC)
    for minute in range(5):
        call_of(alice, at=long_ago + timedelta(minutes=minute))
    added_up()
    monkeypatch.setattr(retention, "BATCH", 2)
    retention.clean_up(budget_s=0)
    assert TokenUsage.objects.filter(created_at__lt=OLD).count() == 5, "no time, no work"
    retention._delete_some(datetime(2025, 11, 1, tzinfo=UTC))
    assert TokenUsage.objects.filter(created_at__lt=OLD).count() == 3
    assert retention.clean_up() == 3


def test_calls_are_kept_for_as_long_as_the_setting_says(settings: Any) -> None:
    call_of(people.alice(), at=OLD)
    added_up()
    settings.USAGE_RETENTION_DAYS = 0
    assert retention.clean_up() == 0
    assert retention.kept_from() is None
    settings.USAGE_RETENTION_DAYS = 800
    assert retention.clean_up() == 0
    settings.USAGE_RETENTION_DAYS = 365
    assert retention.clean_up() == 1


def test_what_is_left_of_gone_days_is_not_added_up_again() -> None:
    alice = people.alice()
    call_of(alice, at=OLD)
    added_up()
    retention.clean_up()
    rollups.due([OLD])
    added_up()
    assert [row.calls for row in UsageMonth.objects.filter(user=alice)] == [1]
    assert [row.calls for row in UsageDay.objects.filter(user=alice)] == [1]
    with pytest.raises(CommandError, match="kept from 2025-11-01"):
        call_command("rebuild_rollups", since=OLD.date(), stdout=StringIO())
    call_command("rebuild_rollups", stdout=StringIO())
    assert [row.calls for row in UsageDay.objects.filter(user=alice)] == [1]


def test_the_proof_holds_for_what_is_still_there() -> None:
    alice = people.alice()
    call_of(alice, at=OLD)
    call_of(alice, at=KEPT)
    added_up()
    retention.clean_up()
    assert not list(rollups.differences())
    UsageMonth.objects.filter(month=date(2025, 11, 1)).update(calls=7)
    assert [line for line in rollups.differences() if "calls is 7" in line]


def test_a_month_is_mended_with_its_hours() -> None:
    alice = people.alice()
    call_of(alice, at=KEPT)
    added_up()
    UsageMonth.objects.update(calls=7)
    assert list(rollups.differences())
    call_command("rebuild_rollups", since=KEPT.date(), until=KEPT.date(), stdout=StringIO())
    assert not list(rollups.differences())
    late = call_of(alice, at=KEPT + timedelta(minutes=1))
    rollups.due([late.created_at])
    added_up()
    assert sum(row.calls for row in UsageMonth.objects.filter(user=alice)) == 2


def test_a_receipt_says_that_its_details_are_past_keeping(
    monkeypatch: pytest.MonkeyPatch, simulator: object
) -> None:
    monkeypatch.undo()
    reply = complete()
    alice = fresh(reply).user
    page = Client()
    page.force_login(alice)
    receipt = receipts.of_reply(alice, reply.pk)
    assert receipt.call is not None
    TokenUsage.objects.filter(operation_id=reply.pk).delete()
    assert not receipts.of_reply(alice, reply.pk).is_past_keeping
    month = rollups.month_after(rollups.month_of(timezone.now()))
    RollupMark.objects.update(rows_from=month)
    assert reports.is_past_keeping(reply.created_at)
    said = page.get(f"/chat/replies/{reply.pk}/receipt", headers={"Accept-Language": "en"}).content.decode()
    assert "is not kept any more" in said
    assert "Charged" in said


def test_the_command_says_from_where_calls_are_kept() -> None:
    call_of(people.alice(), at=OLD)
    added_up()
    told = StringIO()
    call_command("clean_up_usage", stdout=told)
    assert "kept from 2025-11-01 on" in told.getvalue()
