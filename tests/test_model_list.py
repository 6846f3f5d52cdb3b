"""The models a shop opens with, and rates that are set from cost."""

from datetime import timedelta
from decimal import Decimal

import pytest
from django.utils import timezone

from billing import purchases
from billing.models import Package
from chat import catalogue, model_list, rates_from_cost
from chat.models import ChatModel, Route
from tests.stories_of_usage import price_of
from usage import currency
from usage.models import ExchangeRate, ModelPrice

pytestmark = pytest.mark.usefixtures("db")

RATES_OF_S0 = {
    "gpt-4o": 150,
    "gpt-4o-mini": 30,
    "claude-3.5-sonnet": 200,
    "claude-3-haiku": 40,
    "gemini-pro": 100,
    "gemini-flash": 25,
    "deepseek-chat": 20,
    "deepseek-coder": 25,
}
TODAY = [listing for listing in model_list.OPENING if listing.rate is None]


def idr_per_1k() -> int:
    return min(package.idr_per_1k for package in purchases.packages())


def set_dollar(idr: int) -> None:
    ExchangeRate.objects.create(valid_on=timezone.localdate(), idr_per_usd=Decimal(idr), source="test")


class TestTheOpening:
    def test_has_the_names_of_the_beginning_at_their_prices(self) -> None:
        found = dict(ChatModel.objects.filter(slug__in=RATES_OF_S0).values_list("slug", "input_rate"))
        assert found == RATES_OF_S0
        assert all(listing.rate == RATES_OF_S0.get(listing.slug, 0) for listing in model_list.OF_S0)

    @pytest.mark.parametrize("listing", TODAY, ids=lambda listing: listing.slug)
    def test_sells_each_model_of_today_above_its_cost(self, listing: model_list.Listing) -> None:
        model = ChatModel.objects.get(slug=listing.slug)
        rupiah = currency.rate_on(timezone.localdate())
        assert rupiah is not None
        for price in ModelPrice.objects.filter(
            provider=listing.provider,
            model=listing.upstream_model,
            valid_from__lte=timezone.now() + timedelta(days=60),
            above_input_tokens__lt=model.context_tokens,
        ):
            for usd, rate in (
                (price.input_usd_per_million, model.input_rate),
                (price.output_usd_per_million, model.output_rate),
            ):
                cost_idr = usd / 1000 * rupiah.idr_per_usd
                assert rate * idr_per_1k() / Decimal(1000) >= cost_idr * Decimal("1.5")

    def test_names_who_follows_where_a_day_is_known(self) -> None:
        ending = ChatModel.objects.exclude(retires_on=None)
        assert {model.slug for model in ending} >= {"gpt-4o", "gpt-4o-mini", "gpt-4.1"}
        assert all(model.successor is not None for model in ending)

    def test_leads_what_makers_have_retired_to_a_model_that_is_sold_here_too(self) -> None:
        for listing in model_list.OF_S0:
            if listing.note and listing.successor:
                successor = ChatModel.objects.get(slug=listing.successor)
                assert listing.upstream_model in successor.routes.values_list("upstream_model", flat=True)

    def test_has_a_price_for_every_route(self) -> None:
        for listing in model_list.OPENING:
            for provider, upstream_model in listing.ways:
                if provider not in catalogue.GATEWAYS:
                    assert ModelPrice.objects.filter(
                        provider=provider, model__in=(upstream_model, "*")
                    ).exists(), f"{provider}/{upstream_model}"


class TestSeedingAgain:
    def test_changes_nothing_that_staff_have_set(self) -> None:
        edited = ChatModel.objects.get(slug="claude-opus-5.5")
        edited.input_rate, edited.margin_percent, edited.successor = 7, None, None
        edited.retires_on, edited.takes_images = timezone.localdate(), False
        edited.save()
        edited.routes.update(is_enabled=False, total_s=33)
        before = list(ChatModel.objects.order_by("pk").values()), list(Route.objects.order_by("pk").values())

        assert model_list.seed() == 0

        after = list(ChatModel.objects.order_by("pk").values()), list(Route.objects.order_by("pk").values())
        assert after == before

    def test_brings_back_what_is_missing_with_its_successor(self) -> None:
        ChatModel.objects.get(slug="gemini-3.1-flash-lite").delete()

        assert model_list.seed() == 1

        again = ChatModel.objects.get(slug="gemini-3.1-flash-lite")
        assert again.successor == ChatModel.objects.get(slug="gemini-3.5-flash-lite")

    def test_leaves_out_what_nobody_can_price(self) -> None:
        ChatModel.objects.get(slug="qwen-3.8-27b").delete()
        ModelPrice.objects.filter(provider="cerebras", model="qwen-3.8-27b").delete()

        assert model_list.seed() == 0


class TestRatesFromCost:
    def of(self, *routes: str, margin: int = 50, context: int = 100_000) -> rates_from_cost.Rates:
        return rates_from_cost.of(
            [("openai", route) for route in routes], context_tokens=context, margin_percent=margin
        )

    @pytest.fixture(autouse=True)
    def figures(self, db: None) -> None:
        """One package: Rp 2,000 for 1,000 tokens. A dollar is Rp 10,000."""
        Package.objects.update(is_offered=False)
        Package.objects.create(slug="round", name="Round", tokens=1000, bonus_tokens=0, price_idr=2_000)
        set_dollar(10_000)

    def test_are_cost_and_margin_in_tokens_rounded_up(self) -> None:
        price_of("openai", "even", "2 - - 8")
        price_of("openai", "odd", "2.01 - - 0.001")

        assert self.of("even", margin=50) == (15, 60)
        assert self.of("even", margin=0) == (10, 40)
        assert self.of("odd", margin=0) == (11, 1)

    def test_are_those_of_the_dearest_route_in_each_direction(self) -> None:
        price_of("openai", "reads-dear", "4 - - 1")
        price_of("openai", "writes-dear", "1 - - 4")

        assert self.of("reads-dear", "writes-dear", margin=0) == (20, 20)

    def test_count_what_is_written_to_a_cache(self) -> None:
        price_of("openai", "cached", "2 0.2 2.5 8")

        assert self.of("cached", margin=0).input == 13

    def test_are_for_the_longest_prompt_that_the_context_takes(self) -> None:
        price_of("openai", "tiered", "1 - - 1")
        ModelPrice.objects.create(
            provider="openai",
            model="tiered",
            above_input_tokens=100_000,
            input_usd_per_million=5,
            output_usd_per_million=5,
            valid_from=timezone.now() - timedelta(days=1),
        )
        assert self.of("tiered", margin=0, context=100_000) == (5, 5)
        assert self.of("tiered", margin=0, context=200_000) == (25, 25)

    def test_know_a_rise_that_is_announced_and_forget_a_price_that_is_over(self) -> None:
        now = timezone.now()
        price_of("openai", "moving", "9 - - 9", now - timedelta(days=400))
        price_of("openai", "moving", "1 - - 1", now - timedelta(days=100))
        price_of("openai", "moving", "2 - - 2", now + timedelta(days=20))
        price_of("openai", "moving", "7 - - 7", now + timedelta(days=200))

        assert self.of("moving", margin=0) == (10, 10)

    def test_cannot_be_set_without_a_price(self) -> None:
        with pytest.raises(rates_from_cost.NoPrice, match="openai/unheard-of"):
            self.of("unheard-of")
