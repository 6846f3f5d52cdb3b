"""What calls cost us: which price holds when, and the sum to the last place."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction

from tests.stories_of_usage import price_of
from usage import price_list, pricing
from usage.meter import Counts
from usage.models import ModelPrice

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
        price_of("acme", "swift", "1 - - 2", NOON, NOON)


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
        ("deepseek", "deepseek-flash", "0.3", "1.2"),
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
