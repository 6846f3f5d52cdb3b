"""The catalogue in the administration: what staff may set, what they are kept from, and how routes are."""

from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from aleph import ids
from chat import breakers, catalogue, rates_from_cost
from chat.models import ChatModel, Route
from tests.forms import Answer, filled
from tests.stories_of_usage import price_of
from tests.test_admin import address, office, save, saved, text_of
from usage.models import ModelPrice

pytestmark = pytest.mark.usefixtures("db", "redis_server")


def model(slug: str = "gpt-6.1-terra") -> ChatModel:
    return ChatModel.objects.get(slug=slug)


def change(slug: str, **fields: Any) -> Answer:
    return save(office(), address(ChatModel, "change", model(slug).pk), "chatmodel_form", **fields)


def page_of(slug: str) -> str:
    return text_of(office().get(address(ChatModel, "change", model(slug).pk)))


class TestSuccessors:
    def test_are_set_with_the_day_and_followed(self) -> None:
        today = timezone.localdate().isoformat()

        assert saved(change("gpt-6-astra", retires_on=today, successor=str(model().pk)))

        assert catalogue.find("gpt-6-astra").model == model()

    def test_may_not_lead_round_in_a_circle(self) -> None:
        luna, sol = model("gpt-6-luna"), model("gpt-6.1-sol")
        ChatModel.objects.filter(pk=sol.pk).update(successor=model())
        ChatModel.objects.filter(pk=model().pk).update(successor=luna)

        refused = text_of(change("gpt-6-luna", successor=str(sol.pk)))

        assert (
            "This leads round in a circle: GPT-6 Luna → GPT-6.1 Sol → GPT-6.1 Terra → GPT-6 Luna" in refused
        )
        assert "circle: GPT-6.1 Sol → GPT-6.1 Sol" in text_of(change("gpt-6.1-sol", successor=str(sol.pk)))

    def test_of_free_models_are_free(self) -> None:
        refused = text_of(change("llama-3.3-70b", successor=str(model().pk)))

        assert "Who chose a free model must not be led to one that costs." in refused
        ChatModel.objects.filter(slug="llama-3.3-70b").update(
            successor=model(), retires_on=timezone.localdate()
        )
        with pytest.raises(catalogue.ModelRetired):
            catalogue.find("llama-3.3-70b")


class TestRates:
    def test_follow_a_margin_that_is_said(self) -> None:
        before = model()

        assert saved(change("gpt-6.1-terra", margin_percent="200"))

        after = model()
        expected = rates_from_cost.of(
            [("openai", "gpt-6.1-terra")], context_tokens=after.context_tokens, margin_percent=200
        )
        assert (after.input_rate, after.output_rate) == expected > (before.input_rate, before.output_rate)

    def test_that_are_typed_hold_and_take_the_margin_away(self) -> None:
        assert saved(change("gpt-6.1-terra", input_rate="77"))

        assert (model().input_rate, model().margin_percent) == (77, None)

    def test_stay_where_nothing_is_changed_whatever_prices_do(self) -> None:
        rates = model().terms
        ModelPrice.objects.filter(model="gpt-6.1-terra").update(output_usd_per_million=90)

        assert saved(change("gpt-6.1-terra", note="Dear now"))

        assert model().terms == rates

    def test_are_set_again_for_all_that_are_chosen(self) -> None:
        ModelPrice.objects.filter(model="gpt-6.1-terra").update(output_usd_per_million=90)
        by_hand = model("gpt-4o").terms
        chosen = [model().pk, model("gpt-4o").pk]

        office().post(
            address(ChatModel, "changelist"),
            {"action": "set_rates_from_cost", "_selected_action": chosen},
        )

        assert model().output_rate > 1_000
        assert model("gpt-4o").terms == by_hand

    def test_are_not_set_from_a_price_that_nobody_knows(self) -> None:
        ModelPrice.objects.filter(model="gpt-6.1-terra").delete()

        refused = text_of(change("gpt-6.1-terra", margin_percent="80"))

        assert "a price is missing (openai/gpt-6.1-terra)" in refused

    def test_of_a_free_model_have_no_margin(self) -> None:
        assert "A free model has no margin." in text_of(change("llama-3.3-70b", margin_percent="5"))


class TestRoutes:
    def test_are_asked_in_the_order_that_staff_say(self, settings: Any) -> None:
        settings.PROVIDER_ENV = {"OPENAI_API_KEY": "sk-x", "OPENROUTER_API_KEY": "sk-or-x"}
        catalogue.connected.cache_clear()
        price_of("openrouter", "openai/gpt-6.1-terra", "1 - - 5")
        Route.objects.create(
            model=model(), provider="openrouter", upstream_model="openai/gpt-6.1-terra", position=0
        )

        assert [route.provider for route in catalogue.find("gpt-6.1-terra").routes] == [
            "openrouter",
            "openai",
        ]
        assert saved(change("gpt-6.1-terra", **{"routes-0-position": "9"}))
        assert [route.provider for route in catalogue.find("gpt-6.1-terra").routes] == [
            "openai",
            "openrouter",
        ]
        catalogue.connected.cache_clear()

    def test_lead_to_providers_that_we_know_only(self) -> None:
        refused = text_of(change("gpt-6.1-terra", **{"routes-0-provider": "nobody"}))

        assert "Select a valid choice. nobody is not one of the available choices." in refused

    def test_that_cost_something_need_a_price(self) -> None:
        refused = text_of(change("gpt-6.1-terra", **{"routes-0-upstream_model": "gpt-unheard-of"}))

        assert "There is no price for this today." in refused

    def test_have_clocks_within_reason(self) -> None:
        assert "less than or equal to 600" in text_of(change("gpt-6.1-terra", **{"routes-0-total_s": "900"}))
        assert saved(change("gpt-6.1-terra", **{"routes-0-first_byte_s": "7"}))
        assert model().routes.get().clocks.first_byte_s == 7

    def test_say_what_is_not_set(self) -> None:
        catalogue.connected.cache_clear()

        assert "Not connected: ANTHROPIC_API_KEY is not set." in page_of("claude-opus-5.5")

    def test_say_how_they_are(self, simulator: object, settings: Any) -> None:
        settings.ROUTE_FAILURES = 2
        upstream = ids.new("gpt").lower()
        Route.objects.filter(model=model()).update(upstream_model=upstream)

        assert "Connected, no failures of late." in page_of("gpt-6.1-terra")
        breakers.failed(f"openai/{upstream}", kind="server")
        assert "Connected. The last call failed." in page_of("gpt-6.1-terra")
        breakers.failed(f"openai/{upstream}", kind="server")
        assert "because it kept failing." in page_of("gpt-6.1-terra")
        breakers.failed(f"openai/{upstream}", kind="auth")
        assert "because it kept failing. It refuses our key." in page_of("gpt-6.1-terra")


def test_a_model_can_be_added_with_a_margin_and_no_rates(simulator: object) -> None:
    client: Client = office()
    price_of("openai", "gpt-9", "1 - - 2")
    url = address(ChatModel, "add")
    form = filled(client.get(url), id="chatmodel_form")
    route = {
        "routes-TOTAL_FORMS": "1",
        "routes-0-provider": "openai",
        "routes-0-upstream_model": "gpt-9",
        "routes-0-position": "1",
        "routes-0-is_enabled": "on",
        **{f"routes-0-{name}": "60" for name in ("connect_s", "first_byte_s", "idle_s", "total_s")},
    }
    said = {
        "slug": "gpt-9",
        "name": "GPT-9",
        "maker": "OpenAI",
        "context_tokens": "9000",
        "margin_percent": "50",
    }

    answer = client.post(url, {**form, **route, **said, "_save": "Save"})

    assert saved(answer), text_of(answer)
    assert catalogue.find("gpt-9").is_available
    assert model("gpt-9").output_rate > model("gpt-9").input_rate > 0
