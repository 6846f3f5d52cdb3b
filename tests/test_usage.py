"""What calls used: recorded once, reported to their owner only, shown on his page."""

import logging
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils import timezone

from aleph.accounts.models import User
from tests import people
from tests.stories_of_usage import call_of, price_of
from usage import meter, reports
from usage.models import ExchangeRate, ModelPrice, TokenUsage

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


def test_recording_is_two_statements(alice: User, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(2):
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


def test_the_figures_tell_of_today_and_of_this_month(alice: User) -> None:
    today = timezone.now()
    call_of(alice, at=today)
    call_of(alice, at=today, provider="acme", model="new", requested_model="new")
    call_of(alice, at=today - timedelta(days=32))
    figures = reports.figures(alice)
    assert (figures.tokens_today, figures.calls_today) == (2400, 2)
    assert (figures.calls_month, figures.unpriced_month) == (2, 1)
    assert figures.cost_month_usd == Decimal("0.0045")


def test_the_most_used_model_is_that_of_the_most_tokens(alice: User) -> None:
    call_of(alice, requested_model="acme/swift", counts=meter.Counts(fresh_input=700))
    for _ in range(3):
        call_of(alice, requested_model="slow", counts=meter.Counts(fresh_input=100))
    figures = reports.figures(alice)
    assert (figures.top_model, figures.top_share_percent) == ("swift", 70)


def test_models_go_by_the_names_that_people_know(alice: User) -> None:
    flash: dict[str, Any] = {
        "provider": "deepseek",
        "model": "deepseek-flash",
        "requested_model": "deepseek-flash",
    }
    call_of(alice, label="DeepSeek Chat", **flash)
    call_of(alice, label="DeepSeek Coder", counts=meter.Counts(fresh_input=5000), **flash)
    call_of(alice, label="DeepSeek Coder", **{**flash, "requested_model": "deepseek-flash-2"})
    assert reports.figures(alice).top_model == "DeepSeek Coder"
    assert [(model.name, model.total) for model in reports.by_day(alice, 7).models] == [
        ("DeepSeek Coder", 6200),
        ("DeepSeek Chat", 1200),
    ]


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


def test_nothing_used_is_no_division_by_zero(alice: User) -> None:
    call_of(alice, counts=meter.Counts())
    figures = reports.figures(alice)
    assert (figures.calls_today, figures.top_model, figures.top_share_percent) == (1, "", 0)


def test_a_day_is_a_day_of_the_reader_s_time_zone(alice: User) -> None:
    # 23:30 in Jakarta is 16:30 UTC; half an hour later it is the next day there.
    evening = datetime.combine(timezone.localdate() - timedelta(days=3), datetime.min.time(), tzinfo=UTC)
    evening += timedelta(hours=16, minutes=30)
    call_of(alice, at=evening)
    call_of(alice, at=evening + timedelta(minutes=31))
    alice.time_zone = "Asia/Jakarta"
    there = used_by_day(alice)
    alice.time_zone = "UTC"
    here = used_by_day(alice)
    assert there == {evening.date(): 1200, evening.date() + timedelta(days=1): 1200}
    assert here == {evening.date(): 2400}


def used_by_day(person: User) -> dict[date, int]:
    report = reports.by_day(person, 7)
    sums = [sum(model.tokens[place] for model in report.models) for place in range(7)]
    return {day.on: used for day, used in zip(report.days, sums, strict=True) if used}


def test_the_days_of_a_report_end_today_and_older_calls_are_left_out(alice: User) -> None:
    call_of(alice, at=days_ago(6))
    call_of(alice, at=days_ago(7))
    report = reports.by_day(alice, 7)
    assert [model.total for model in report.models] == [1200]
    assert len(report.days) == 7
    assert report.days[-1].on == reports.figures(alice).today


def test_five_models_have_names_and_the_others_are_one(alice: User) -> None:
    for rank in range(1, 9):
        call_of(alice, requested_model=f"m{rank}", counts=meter.Counts(fresh_input=1000 - rank))
    models = reports.by_day(alice, 7).models
    assert [model.name for model in models[:5]] == ["m1", "m2", "m3", "m4", "m5"]
    assert models[5].is_rest
    assert models[5].total == 994 + 993 + 992
    assert len(models) == 6


def test_a_single_other_model_keeps_its_name(alice: User) -> None:
    for rank in range(1, 7):
        call_of(alice, requested_model=f"m{rank}", counts=meter.Counts(fresh_input=1000 - rank))
    assert [model.name for model in reports.by_day(alice, 7).models][5] == "m6"


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


def test_a_day_of_the_chart_leads_to_its_last_call(alice: User) -> None:
    call_of(alice, at=days_ago(1))
    wanted = call_of(alice, at=days_ago(3))
    call_of(alice, at=days_ago(5))
    its_day = wanted.created_at.astimezone(ZoneInfo(alice.time_zone)).date()
    day = next(day for day in reports.by_day(alice, 7).days if day.on == its_day)
    assert reports.recent(alice, before=day.cursor).calls[0] == wanted


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
    assert reports.figures(carol).calls_month == 0
    assert reports.by_day(carol).models == []
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


# The page


@pytest.fixture
def page(alice: User) -> Client:
    """Alice's browser."""
    return browser_of(alice)


def browser_of(person: User) -> Client:
    browser = Client(headers={"accept-language": "en"})
    browser.force_login(person)
    return browser


def test_a_guest_is_asked_to_sign_in(client: Client) -> None:
    response = client.get("/usage")
    assert response.status_code == 302
    assert "login" in response["Location"]


def test_an_empty_account_sees_what_will_be_here(page: Client) -> None:
    shown = page.get("/usage").content.decode()
    assert "Nothing was used yet" in shown
    assert "<table" not in shown


def test_the_page_shows_figures_chart_and_calls(page: Client, alice: User) -> None:
    call_of(alice, requested_model="meta-llama/Llama-3.3-70B-Instruct", model="something-else")
    shown = page.get("/usage").content.decode()
    assert "1,200" in shown
    assert "Llama-3.3-70B-Instruct" in shown
    assert "answered by something-else" in shown
    assert shown.count('class="chart__column"') == 30
    assert "reported" in shown


def test_the_page_shows_the_name_and_behind_it_the_provider_s_id(page: Client, alice: User) -> None:
    call_of(alice, label="DeepSeek Chat", requested_model="deepseek-flash", model="deepseek-flash")
    shown = page.get("/usage").content.decode()
    assert '<span title="deepseek-flash">DeepSeek Chat</span>' in shown
    assert "answered by deepseek-flash" in shown
    assert ">deepseek-flash<" not in shown


def test_the_month_s_cost_is_said_in_rupiah_by_the_rate_of_the_day(page: Client, alice: User) -> None:
    call_of(alice)
    ExchangeRate.objects.update(idr_per_usd=16_000)
    assert "about Rp 72" in page.get("/usage").content.decode()
    ExchangeRate.objects.all().delete()
    assert "about Rp" not in page.get("/usage").content.decode()


def test_a_call_without_a_price_says_so(page: Client, alice: User) -> None:
    call_of(alice, provider="acme", model="new", requested_model="new")
    shown = page.get("/usage").content.decode()
    assert "no price" in shown
    assert "without 1 call that has no price yet" in shown


def test_the_range_is_picked_in_the_address(page: Client, alice: User) -> None:
    call_of(alice)
    shown = page.get("/usage?days=7").content.decode()
    assert shown.count('class="chart__column"') == 7
    assert 'href="?days=7" aria-current="true"' in shown


@pytest.mark.parametrize(
    "query",
    [
        *("days=", "days=8", "days=-7", "days=x", "days=7&days=x", "days=%00", "days=" + "9" * 5000),
        *("before=x", "before=%00", "before=1-%00", "before=9999999999999999-x", "before=" + "1" * 5000),
    ],
)
def test_an_address_that_makes_no_sense_shows_the_usual_page(page: Client, alice: User, query: str) -> None:
    call_of(alice)
    response = page.get(f"/usage?{query}")
    assert response.status_code == 200
    assert "gpt-4o" in response.content.decode()


def test_older_calls_are_on_the_next_page(page: Client, alice: User) -> None:
    oldest = call_of(alice, at=days_ago(9), requested_model="the-oldest")
    for nth in range(25):
        call_of(alice, at=days_ago(1) + timedelta(minutes=nth))
    first = page.get("/usage?days=7").content.decode()
    assert "the-oldest" not in first
    assert "Older" in first
    older = reports.recent(alice).older
    second = page.get(f"/usage?days=7&before={older}").content.decode()
    assert "the-oldest" in second
    assert "Newest" in second
    beyond = page.get(f"/usage?before={reports.cursor_of(oldest.created_at, oldest.id)}")
    assert "There are no older calls." in beyond.content.decode()


def test_a_range_without_calls_says_so_and_draws_no_chart(page: Client, alice: User) -> None:
    call_of(alice, at=days_ago(40))
    shown = page.get("/usage?days=7").content.decode()
    assert "Nothing was used in these 7 days." in shown
    assert "chart__plot" not in shown
    assert "gpt-4o" in shown


def test_names_of_models_are_text_and_never_markup(page: Client, alice: User) -> None:
    call_of(alice, requested_model="<script>alert(1)<script>", model="<img src=x>")
    shown = page.get("/usage").content.decode()
    assert "<script>alert" not in shown
    assert "<img" not in shown


def test_the_page_asks_the_database_only_a_handful_of_times(
    page: Client, alice: User, django_assert_max_num_queries: Any
) -> None:
    for nth in range(30):
        call_of(alice, at=days_ago(nth))
    page.get("/usage")
    with django_assert_max_num_queries(9):
        page.get("/usage")


def test_a_stranger_s_page_does_not_show_my_calls(alice: User, carol: User) -> None:
    call_of(alice, requested_model="my-secret-model")
    call_of(carol)
    assert "my-secret-model" not in browser_of(carol).get("/usage?days=90").content.decode()


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
