"""What calls used: recorded once, reported to their owner only, shown on his page."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from django.utils import timezone

from aleph.accounts.models import User
from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import meter, reports
from usage.models import ModelPrice, TokenUsage

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> User:
    return people.someone("Alice")


@pytest.fixture
def carol() -> User:
    return people.someone("Carol")


def days_ago(days: int) -> datetime:
    return timezone.now() - timedelta(days=days)


# Recording


def test_a_call_keeps_its_counts_its_price_and_its_cost(alice: User) -> None:
    price = price_of("acme", "swift", "3 0.30 - 15")
    counts = meter.Counts(fresh_input=900, cache_read=100, visible_output=150, reasoning=50)
    row = call_of(alice, provider="acme", model="swift", counts=counts)
    row.refresh_from_db()
    assert (row.input_tokens, row.output_tokens, row.total_tokens) == (1000, 200, 1200)
    assert row.price == price
    assert row.input_cost_usd == Decimal("0.00273")
    assert row.output_cost_usd == Decimal("0.003")
    assert row.total_cost_usd == Decimal("0.00573")


def test_a_class_that_nobody_counted_stays_unknown(alice: User) -> None:
    row = call_of(alice, counts=meter.Counts(fresh_input=10, visible_output=0))
    row.refresh_from_db()
    assert row.visible_output_tokens == 0
    assert row.cache_read_tokens is None
    assert row.reasoning_tokens is None


def test_yesterday_s_call_keeps_yesterday_s_price(alice: User) -> None:
    midnight = datetime(2026, 11, 20, tzinfo=UTC)
    price_of("acme", "swift", "1 - - 1", midnight - timedelta(days=30), midnight)
    price_of("acme", "swift", "2 - - 2", midnight)
    counts = meter.Counts(fresh_input=1_000_000)
    late = call_of(
        alice, provider="acme", model="swift", counts=counts, started_at=midnight - timedelta(seconds=1)
    )
    early = call_of(alice, provider="acme", model="swift", counts=counts, started_at=midnight)
    assert (late.total_cost_usd, early.total_cost_usd) == (Decimal(1), Decimal(2))


def test_a_call_without_a_price_is_kept_and_can_be_found(alice: User) -> None:
    row = call_of(alice, provider="acme", model="new", requested_model="new")
    found = TokenUsage.objects.get(price=None, user=alice)
    assert found == row
    assert found.total_tokens == 1200
    assert found.total_cost_usd is None


def test_a_price_that_calls_were_made_at_cannot_be_deleted(alice: User) -> None:
    price = price_of("acme", "swift", "1 - - 1")
    call_of(alice, provider="acme", model="swift")
    with pytest.raises(IntegrityError):
        price.delete()
    assert ModelPrice.objects.filter(pk=price.pk).exists()


def test_recording_twice_gives_the_first_row_and_leaves_the_transaction_alive(alice: User) -> None:
    with transaction.atomic():
        first = call_of(alice, operation_id="msg_1", counts=meter.Counts(fresh_input=5))
        again = call_of(alice, operation_id="msg_1", counts=meter.Counts(fresh_input=999))
        other = call_of(alice, operation_id="msg_1", attempt=2)
    assert again.pk == first.pk
    assert again.input_tokens == 5
    assert other.pk != first.pk
    assert TokenUsage.objects.filter(operation_id="msg_1").count() == 2


@pytest.mark.parametrize(("again_within", "statements"), [(timedelta(0), 2), (timedelta(days=40), 3)])
def test_recording_is_two_statements_and_one_more_just_after_a_month_has_turned(
    again_within: timedelta,
    statements: int,
    alice: User,
    django_assert_num_queries: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(meter, "AGAIN_WITHIN", again_within)
    with django_assert_num_queries(statements):
        call_of(alice)


def test_a_broken_row_is_an_error_and_never_silently_nothing(alice: User) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        call_of(alice, counts=meter.Counts(fresh_input=-5))
    with pytest.raises(IntegrityError), transaction.atomic():
        call_of(alice, latency_ms=-1)


def test_what_a_provider_says_oddly_does_not_stop_the_charge(alice: User) -> None:
    row = call_of(
        alice,
        model="m\x00odel-\ud83d" + "x" * 500,
        label="\ud83d" * 500,
        metadata={
            "raw": {"nan": float("nan"), "nul\x00": "\x00", "half": "\ud83d", "deep": [[[[[[[["x"]]]]]]]]}
        },
    )
    row.refresh_from_db()
    assert row.model.startswith("model-?xxx")
    assert len(row.model) == 120
    assert row.label == "?" * 80
    assert row.metadata["raw"]["nan"] is None
    assert row.metadata["raw"]["nul"] == ""
    assert row.metadata["raw"]["half"] == "?"


def test_nobody_s_call_is_recorded_too() -> None:
    assert call_of(None).user_id is None


def test_tokens_that_do_not_add_up_are_refused(alice: User) -> None:
    row = call_of(alice)
    with pytest.raises(IntegrityError), transaction.atomic():
        TokenUsage.objects.filter(pk=row.pk).update(total_tokens=7)
    with pytest.raises(IntegrityError), transaction.atomic():
        TokenUsage.objects.filter(pk=row.pk).update(total_cost_usd=Decimal("-0.01"))


@pytest.mark.skipif(connection.vendor != "postgresql", reason="an index that only PostgreSQL has")
def test_postgresql_finds_times_by_block_ranges() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT indexdef FROM pg_indexes WHERE indexname = 'usage_by_time'")
        (definition,) = cursor.fetchone()
    assert "USING brin (created_at)" in definition


# Reporting


@pytest.mark.parametrize(
    ("label", "requested", "answered", "is_another"),
    [
        ("GPT-4o", "gpt-4o", "gpt-4o-2024-08-06", False),
        ("GPT-4o Mini", "gpt-4o-mini", "gpt-4o-mini", False),
        ("Llama 3.3 70B Instruct", "meta/Llama-3.3-70B-Instruct", "meta/Llama-3.3-70B-Instruct", False),
        ("Aleph Demo", "demo", "demo", False),
        ("Claude 3.5 Sonnet", "claude-sonnet-5-5", "claude-sonnet-5-5", True),
        ("", "claude-sonnet-5-5", "claude-sonnet-5-5", False),
        ("", "openai/gpt-4o", "gpt-4o-2024-08-06", False),
        ("", "gpt-4o", "something-else", True),
    ],
)
def test_a_model_that_answers_for_another_is_named(
    label: str, requested: str, answered: str, is_another: bool, alice: User
) -> None:
    row = call_of(alice, label=label, requested_model=requested, model=answered)
    assert row.is_answered_by_another is is_another


def test_paging_shows_every_call_once_newest_first(alice: User) -> None:
    moment = days_ago(1)
    made = {call_of(alice, at=moment).pk for _ in range(5)} | {
        call_of(alice, at=days_ago(2 + nth)).pk for nth in range(4)
    }
    seen: list[TokenUsage] = []
    for page in pages_of(alice, limit=2):
        assert len(page.calls) <= 2
        seen += page.calls
    assert len(seen) == 9
    assert {call.pk for call in seen} == made
    assert seen == sorted(seen, key=lambda call: (call.created_at, call.id), reverse=True)


def pages_of(person: User, limit: int) -> Iterator[reports.Page]:
    page = reports.recent(person, limit=limit)
    yield page
    while page.older:
        page = reports.recent(person, before=page.older, limit=limit)
        yield page


@pytest.mark.parametrize(
    "cursor", ["x", "-", "12-a/b", "1-\x00", "99999999999999999-", "١-x", "1-" + "x" * 99]
)
def test_a_cursor_that_nobody_gave_out_is_refused(alice: User, cursor: str) -> None:
    with pytest.raises(reports.InvalidCursor):
        reports.recent(alice, before=cursor)


def test_nobody_sees_a_stranger_s_calls(alice: User, carol: User) -> None:
    row = call_of(alice, operation_id="msg_alice")
    call_of(None)
    assert reports.recent(carol).calls == []
    assert reports.call_of(carol, "msg_alice") is None
    assert reports.call_of(alice, "msg_alice") == row


def test_the_last_attempt_is_the_call_of_a_reply(alice: User, django_assert_num_queries: Any) -> None:
    call_of(alice, operation_id="msg_1", attempt=1, status="interrupted")
    last = call_of(alice, operation_id="msg_1", attempt=2)
    with django_assert_num_queries(1):
        call = reports.call_of(alice, "msg_1")
        assert call == last
        assert call.price is not None
        assert call.price.model == "gpt-4o"


# The log line


def test_the_line_of_a_call_is_logged_once_it_is_stored_whatever_celery_says(
    db: None,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    django_capture_on_commit_callbacks: Any,
) -> None:
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    counts = meter.Counts(fresh_input=245, visible_output=187)
    with django_capture_on_commit_callbacks(execute=True):
        call_of(None, counts=counts)
    assert "Token usage - Prompt: 245, Candidates: 187, Total: 432" in caplog.text
