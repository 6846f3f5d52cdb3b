"""What calls cost us: which price holds when, and the sum to the last place."""

import zoneinfo
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from tests.stories_of_usage import LONG_AGO, call_of, price_of
from usage import price_list, pricing
from usage.meter import Counts
from usage.models import ModelPrice
from usage.price_list import Listing

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


# Which price


def test_a_model_has_its_own_price_before_the_default_of_its_provider() -> None:
    price_of("acme", "*", "9 - - 9")
    own = price_of("acme", "swift", "1 - - 2")
    assert pricing.price_at("acme", "swift", NOON) == own


def test_a_model_without_a_price_takes_the_default_of_its_provider() -> None:
    default = price_of("acme", "*", "9 - - 9")
    assert pricing.price_at("acme", "unheard-of", NOON) == default


def test_another_provider_s_price_is_no_price() -> None:
    price_of("acme", "swift", "1 - - 2")
    assert pricing.price_at("globex", "swift", NOON) is None


def test_a_dated_name_costs_what_the_model_costs() -> None:
    price_of("acme", "*", "9 - - 9")
    own = price_of("acme", "swift", "1 - - 2")
    assert pricing.price_at("acme", "swift-2026-08-06", NOON) == own
    assert pricing.price_at("acme", "swift-20260806", NOON) == own


def test_what_answered_is_priced_before_what_was_requested() -> None:
    answered, requested = price_of("acme", "swift-2", "3 - - 4"), price_of("acme", "swift", "1 - - 2")
    assert pricing.price_at("acme", "swift-2", NOON, requested="swift") == answered
    assert pricing.price_at("acme", "unheard-of", NOON, requested="swift") == requested


def test_a_price_holds_from_its_start_up_to_its_end_and_not_at_it() -> None:
    before = price_of("acme", "swift", "1 - - 2", NOON - timedelta(days=9), NOON)
    after = price_of("acme", "swift", "3 - - 4", NOON)
    instant = timedelta(microseconds=1)
    assert pricing.price_at("acme", "swift", NOON - instant) == before
    assert pricing.price_at("acme", "swift", NOON) == after
    assert pricing.price_at("acme", "swift", before.valid_from) == before
    assert pricing.price_at("acme", "swift", before.valid_from - instant) is None


def test_of_two_prices_that_overlap_the_later_one_holds() -> None:
    price_of("acme", "swift", "1 - - 2", NOON - timedelta(days=9))
    later = price_of("acme", "swift", "3 - - 4", NOON - timedelta(days=1))
    assert pricing.price_at("acme", "swift", NOON) == later


def test_looking_a_price_up_is_one_query(django_assert_num_queries) -> None:  # type: ignore[no-untyped-def]
    with django_assert_num_queries(1):
        pricing.price_at("openai", "gpt-4o-2024-08-06", NOON, requested="gpt-4o")


# How much


def test_every_class_of_tokens_costs_what_its_own_price_says() -> None:
    price = price_of("acme", "swift", "3 0.30 3.75 15")
    counts = Counts(
        fresh_input=1_000_000, cache_read=100_000, cache_write=10_000, visible_output=2_000, reasoning=500
    )
    cost = pricing.cost(price, counts)
    assert cost.input_usd == Decimal("3") + Decimal("0.03") + Decimal("0.0375")
    assert cost.output_usd == Decimal("0.0375")
    assert cost.total_usd == Decimal("3.105")


def test_cache_without_a_price_of_its_own_costs_what_fresh_input_costs() -> None:
    price = price_of("acme", "swift", "2 - - 8")
    cost = pricing.cost(price, Counts(fresh_input=100, cache_read=200, cache_write=300, visible_output=0))
    assert cost.input_usd == Decimal("0.0012")


def test_a_free_cache_costs_nothing() -> None:
    price = price_of("acme", "swift", "2 0 0 8")
    assert pricing.cost(price, Counts(cache_read=200, cache_write=300)).total_usd == 0


def test_one_token_at_the_finest_price_is_not_lost() -> None:
    price = price_of("acme", "swift", "0.000001 - - 0.003")
    cost = pricing.cost(price, Counts(fresh_input=1, visible_output=1))
    assert cost.input_usd == Decimal("1E-12")
    assert cost.output_usd == Decimal("3E-9")
    assert cost.total_usd == Decimal("0.000000003001")


def test_the_total_is_the_sum_of_its_parts_to_the_last_place() -> None:
    price = price_of("acme", "swift", "0.123457 0.011111 - 7.654321")
    cost = pricing.cost(price, Counts(fresh_input=33_333, cache_read=7, visible_output=77_777, reasoning=1))
    assert cost.input_usd is not None
    assert cost.output_usd is not None
    assert cost.total_usd == cost.input_usd + cost.output_usd
    assert cost.input_usd == Decimal("33333") * Decimal("0.123457") / 10**6 + Decimal("0.000000077777")


def test_a_call_without_a_price_costs_nobody_knows_what() -> None:
    assert pricing.cost(None, Counts(fresh_input=5)) == pricing.Cost(None, None, None)


def test_rounding_goes_to_the_nearest_and_from_the_middle_to_the_even() -> None:
    assert pricing.rounded(Decimal("0.0000000000025")) == Decimal("0.000000000002")
    assert pricing.rounded(Decimal("0.0000000000035")) == Decimal("0.000000000004")
    assert pricing.rounded(Decimal("0.0000000000026")) == Decimal("0.000000000003")


# What the table refuses


@pytest.mark.parametrize("figures", ["-1 - - 1", "1 - - -1", "1 -0.1 - 1", "1 - -0.1 1", "10000.01 - - 1"])
def test_a_price_that_cannot_be_meant_is_refused(figures: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        price_of("acme", "swift", figures)


def test_a_price_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        price_of("acme", "swift", "1 - - 2", NOON, NOON - timedelta(minutes=1))


def test_a_price_that_ends_where_it_starts_never_holds() -> None:
    price_of("acme", "swift", "1 - - 2", NOON, NOON)
    right = price_of("acme", "swift", "3 - - 4", NOON)
    for moment in (NOON - timedelta(minutes=1), NOON, NOON + timedelta(minutes=1)):
        assert pricing.price_at("acme", "swift", moment) == (right if moment >= NOON else None)


def test_two_prices_of_a_model_that_start_at_once_are_refused() -> None:
    price_of("acme", "swift", "1 - - 2", NOON)
    with pytest.raises(IntegrityError), transaction.atomic():
        price_of("acme", "swift", "3 - - 4", NOON)


# The first price list


def test_the_list_is_in_the_table_from_the_start() -> None:
    assert ModelPrice.objects.count() >= len(price_list.OPENING)


def test_seeding_again_adds_nothing_and_leaves_what_the_staff_changed() -> None:
    gpt_4o = ModelPrice.objects.get(provider="openai", model="gpt-4o")
    gpt_4o.input_usd_per_million = Decimal("2.75")
    gpt_4o.save()
    assert price_list.seed() == 0
    gpt_4o.refresh_from_db()
    assert gpt_4o.input_usd_per_million == Decimal("2.75")


def test_seeding_adds_what_is_missing() -> None:
    ModelPrice.objects.filter(provider="openai", model="gpt-4o").delete()
    assert price_list.seed() == 1
    assert ModelPrice.objects.filter(provider="openai", model="gpt-4o").exists()


@pytest.mark.parametrize(
    ("provider", "model", "input_usd", "output_usd"),
    [
        ("openai", "gpt-4", "30", "60"),
        ("openai", "gpt-4-turbo", "10", "30"),
        ("openai", "gpt-3.5-turbo", "0.5", "1.5"),
        ("cerebras", "llama3.1-8b", "0.1", "0.1"),
        ("cerebras", "llama3.1-70b", "0.6", "0.6"),
        ("together", "llama-3.1-70b", "0.88", "0.88"),
        ("ollama", "whatever-runs-here", "0", "0"),
        ("demo", "demo", "0", "0"),
        ("openai", "gpt-4o-2024-08-06", "2.5", "10"),
        ("huggingface", "meta-llama/Llama-3.3-70B-Instruct", "1.04", "1.04"),
        ("anthropic", "claude-haiku-5-5", "0.1", "0.5"),
        ("deepseek", "deepseek-flash", "0.15", "0.6"),
    ],
)
def test_the_list_holds_the_published_figures(
    provider: str, model: str, input_usd: str, output_usd: str
) -> None:
    price = pricing.price_at(provider, model, NOON)
    assert price is not None
    assert price.input_usd_per_million == Decimal(input_usd)
    assert price.output_usd_per_million == Decimal(output_usd)


def test_an_announced_price_comes_into_force_on_its_day() -> None:
    end_of_november = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    before = pricing.price_at("gemini", "gemini-4-argon", end_of_november)
    after = pricing.price_at("gemini", "gemini-4-argon", end_of_november + timedelta(seconds=1))
    assert before is not None
    assert after is not None
    assert (before.output_usd_per_million, after.output_usd_per_million) == (Decimal(10), Decimal(20))


# By the size of the prompt, and by the hour


def test_a_long_prompt_makes_the_whole_call_cost_the_other_price() -> None:
    usual, long = priced_by_size()
    at_threshold = pricing.price_at("acme", "swift", NOON, input_tokens=272_000)
    above = pricing.price_at("acme", "swift", NOON, input_tokens=272_001)
    assert (at_threshold, above) == (usual, long)
    cost = pricing.cost(above, Counts(fresh_input=2_000, cache_read=270_001, visible_output=1_000))
    assert (
        cost.total_usd
        == (2_000 * Decimal("0.20") + 270_001 * Decimal("0.02") + 1_000 * Decimal("0.75")) / 10**6
    )


def test_what_came_from_the_cache_makes_a_prompt_long_too() -> None:
    _usual, long = priced_by_size()
    call = call_of(
        None,
        provider="acme",
        model="swift",
        requested_model="swift",
        counts=Counts(fresh_input=1, cache_read=272_000, visible_output=1),
    )
    assert call.price == long


@pytest.mark.parametrize(
    ("moment", "figure"),
    [
        ("2026-11-23 00:59:59", "0.15"),
        ("2026-11-23 01:00:00", "0.30"),
        ("2026-11-23 03:59:59", "0.30"),
        ("2026-11-23 04:00:00", "0.15"),
        ("2026-11-23 06:00:00", "0.30"),
        ("2026-11-23 10:00:00", "0.15"),
        ("2026-11-27 09:59:59", "0.30"),  # Friday
        ("2026-11-28 02:00:00", "0.15"),  # Saturday
        ("2026-11-29 07:00:00", "0.15"),  # Sunday
    ],
)
def test_deepseek_costs_twice_as_much_in_its_peak_hours(moment: str, figure: str) -> None:
    at = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    in_jakarta = at.astimezone(zoneinfo.ZoneInfo("Asia/Jakarta"))
    price = pricing.price_at("deepseek", "deepseek-flash", in_jakarta)
    assert price is not None
    assert price.input_usd_per_million == Decimal(figure)


def test_a_window_to_midnight_holds_until_the_day_is_over() -> None:
    usual = price_of("acme", "swift", "1 - - 2")
    late = price_of("acme", "swift", "3 - - 4", from_utc=time(22))
    moments = [NOON.replace(hour=21, minute=59), NOON.replace(hour=22), NOON.replace(hour=23, minute=59)]
    assert [pricing.price_at("acme", "swift", at) for at in moments] == [usual, late, late]


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        price_of("acme", "swift", "1 - - 2", from_utc=time(22), to_utc=time(3))


def test_a_later_usual_price_does_not_end_the_one_for_long_prompts() -> None:
    _usual, long = priced_by_size()
    price_of("acme", "swift", "0.08 - - 0.40", NOON - timedelta(days=1))
    assert pricing.price_at("acme", "swift", NOON, input_tokens=300_000) == long


def test_what_is_written_to_the_cache_for_an_hour_has_a_price_of_its_own() -> None:
    counts = Counts(cache_write=1_000_000, cache_write_1h=1_000_000, visible_output=0)
    assert pricing.cost(price_of("acme", "swift", "2 0.10 2.50 10 4"), counts).input_usd == Decimal("6.5")
    assert pricing.cost(price_of("acme", "swifter", "2 0.10 2.50 10"), counts).input_usd == Decimal("5")


@given(
    fresh=st.integers(0, 10**9),
    read=st.integers(0, 10**9),
    written=st.integers(0, 10**9),
    kept=st.integers(0, 10**9),
    output=st.integers(0, 10**9),
    figures=st.lists(st.decimals(0, 10_000, places=6), min_size=5, max_size=5),
)
def test_a_cost_is_exact_whatever_the_figures(
    fresh: int, read: int, written: int, kept: int, output: int, figures: list[Decimal]
) -> None:
    price = Listing("acme", "swift", " ".join(f"{figure:f}" for figure in figures), "test").row()
    counts = Counts(fresh, read, written, output, cache_write_1h=kept)
    of_input, of_read, of_written, of_output, of_kept = (int(figure * 10**6) for figure in figures)
    input_exact = fresh * of_input + read * of_read + written * of_written + kept * of_kept
    cost = pricing.cost(price, counts)
    assert (cost.input_usd, cost.output_usd) == (
        Decimal(input_exact).scaleb(-12),
        Decimal(output * of_output).scaleb(-12),
    )
    assert cost.total_usd == Decimal(input_exact + output * of_output).scaleb(-12)


@given(minute=st.integers(0, 7 * 24 * 60 - 1), size=st.integers(0, 600_000))
def test_at_every_minute_of_the_week_exactly_one_price_of_the_list_holds(minute: int, size: int) -> None:
    at = datetime(2026, 11, 23, tzinfo=UTC) + timedelta(minutes=minute)
    for provider, model in {(listing.provider, listing.model) for listing in price_list.CURRENT_MODELS}:
        rows = [listing.row() for listing in price_list.CURRENT_MODELS if listing.model == model]
        usual = [row for row in rows if not row.above_input_tokens and row.valid_from <= at]
        usual = [row for row in usual if row.valid_to is None or at < row.valid_to]
        assert sum(not row.is_windowed for row in usual) == 1, (provider, model)
        assert sum(row.is_windowed and row.holds_at(at) for row in usual) <= 1, (provider, model)


# What a call keeps


def test_a_call_keeps_the_figures_that_it_was_charged_at() -> None:
    usual, long = priced_by_size()
    counts = Counts(fresh_input=272_001, visible_output=1)
    call = call_of(None, provider="acme", model="swift", requested_model="swift", counts=counts)
    long.output_usd_per_million = Decimal(9)
    long.save()
    call.refresh_from_db()
    assert call.unit_prices == {
        "input": "0.2",
        "cached_input": "0.02",
        "cache_write": "0.25",
        "output": "0.75",
        "above_input_tokens": 272_000,
    }
    assert usual != call.price


def test_a_call_in_a_window_keeps_its_hours() -> None:
    at = datetime(2026, 11, 23, 2, tzinfo=UTC)
    call = call_of(
        None, provider="deepseek", model="deepseek-flash", requested_model="deepseek-flash", started_at=at
    )
    assert call.unit_prices is not None
    assert call.unit_prices["hours"] == "12345 01:00-04:00 UTC"
    assert call.total_cost_usd == 1000 * Decimal("0.30") / 10**6 + 200 * Decimal("1.20") / 10**6


# Prices at once


@pytest.mark.parametrize(
    ("said", "clash"),
    [
        ({}, True),
        ({"valid_from": NOON - timedelta(days=1)}, False),  # takes over
        ({"above_input_tokens": 1000}, False),
        ({"weekdays": "12345"}, False),
        ({"provider": "globex"}, False),
    ],
)
def test_two_usual_prices_at_once_clash_unless_one_takes_over(said: dict[str, Any], clash: bool) -> None:
    price_of("acme", "swift", "1 - - 2")
    assert bool(pricing.clashes(proposed(**said))) is clash


@pytest.mark.parametrize(
    ("days", "start", "end", "clash"),
    [
        ("12345", 1, 4, True),
        ("5", 3, 5, True),
        ("12345", 4, 6, False),
        ("67", 1, 4, False),
        ("", 0, 2, True),
        ("", 3, 0, True),
    ],
)
def test_windows_clash_where_they_have_a_minute_in_common(
    days: str, start: int, end: int, clash: bool
) -> None:
    price_of("acme", "swift", "1 - - 2", weekdays="12345", from_utc=time(1), to_utc=time(4))
    said = proposed(weekdays=days, from_utc=time(start), to_utc=time(end))
    assert bool(pricing.clashes(said)) is clash


def test_a_price_within_the_time_of_one_that_ends_clashes() -> None:
    price_of("acme", "swift", "1 - - 2", NOON - timedelta(days=9), NOON)
    assert pricing.clashes(proposed(valid_from=NOON - timedelta(days=1)))
    assert not pricing.clashes(proposed(valid_from=NOON))


def proposed(**differences: Any) -> ModelPrice:
    row = Listing("acme", "swift", "1 - - 2", "test", LONG_AGO).row()
    for name, value in differences.items():
        setattr(row, name, value)
    return row


def priced_by_size() -> tuple[ModelPrice, ModelPrice]:
    usual = price_of("acme", "swift", "0.10 0.01 0.125 0.50")
    return usual, price_of("acme", "swift", "0.20 0.02 0.25 0.75", above_input_tokens=272_000)
