"""What was shown before a message went out is what it may cost, also where more is reckoned by the time it is sent."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from aleph import ids
from chat import turns
from chat.models import ChatModel, Message
from chat.turns import CostsMore, Quote
from tests import people
from tests.forms import filled
from tests.product import Product
from tests.stories_of_chat import answered, available, held, special_model
from tests.test_chat_pages import HTMX, signed_in, words
from usage import calibration
from usage.models import Calibration

pytestmark = pytest.mark.usefixtures("committed", "redis_server", "simulator")

TEXT = "The quick brown fox jumps over the lazy dog. " * 80


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    calibration.forget()
    monkeypatch.setattr(calibration._memory, "_due_at", float("inf"))
    yield
    calibration.forget()


def a_model(script: str = "sim-words-9", *, rate: int = 100) -> str:
    """The slug of a model that no other test learns about."""
    return special_model(ids.new("led").lower(), script=script, input_rate=rate, output_rate=rate).slug


def learnt_to_count_more(slug: str) -> None:
    """As if calls of other people had just taught that this model counts more than was thought."""
    Calibration.objects.create(model=slug, kind="prose", factor=1500, reserve=1600)
    calibration._memory.read()


def quote(user: Any, slug: str) -> Quote:
    return turns.quote(user=user, session=None, text=TEXT, model_slug=slug)


def send(user: Any, slug: str, **bounds: Any) -> turns.Turn:
    return turns.start(user=user, session=None, text=TEXT, model_slug=slug, turn=ids.new("trn"), **bounds)


def test_no_more_is_held_than_was_shown_where_more_is_reckoned_by_now() -> None:
    alice, slug = people.alice(), a_model("sim-words-900")
    shown = quote(alice, slug)
    learnt_to_count_more(slug)
    assert quote(alice, slug).at_most > shown.ceiling

    turn = send(alice, slug, terms=shown.terms)

    assert turn.reply.held_tokens == held(alice) == shown.ceiling
    assert turn.reply.max_output_tokens < turn.reply.model.max_output_tokens  # type: ignore[union-attr]
    assert not turn.reply.is_limited_by_balance
    reply = answered(turn)
    assert reply.state == "complete"
    assert 0 < reply.tokens_used <= shown.ceiling
    assert available(alice) == 10_500 - reply.tokens_used


def test_what_was_shown_of_a_small_balance_still_holds_when_there_is_more() -> None:
    bob, slug = people.bob(), a_model("sim-words-900")
    shown = turns.quote(user=bob, session=None, text="Halo", model_slug=slug)
    assert shown.ceiling == 50 < shown.at_most
    people.give_tokens(bob, 5_000)

    turn = turns.start(user=bob, session=None, text="Halo", model_slug=slug, turn="t", terms=shown.terms)

    assert (turn.reply.held_tokens, turn.reply.is_limited_by_balance) == (50, False)


def test_what_was_shown_and_pays_for_nothing_useful_any_more_is_shown_again() -> None:
    alice, slug = people.alice(), a_model()
    shown = quote(alice, slug)
    Calibration.objects.create(model=slug, kind="prose", factor=3000, reserve=3000)
    calibration._memory.read()

    with pytest.raises(CostsMore):
        send(alice, slug, terms=shown.terms)

    assert (held(alice), Message.objects.filter(user=alice).count()) == (0, 0)
    assert send(alice, slug, terms=quote(alice, slug).terms).reply.held_tokens > shown.ceiling


def test_what_was_shown_of_another_model_says_nothing_of_this_one() -> None:
    alice = people.alice()
    cheap, dear = a_model(rate=2), a_model(rate=200)
    shown = quote(alice, cheap)

    assert send(alice, dear, terms=shown.terms).reply.held_tokens == quote(alice, dear).at_most


def test_a_sender_who_says_himself_what_it_may_cost_is_held_to_that() -> None:
    alice, slug = people.alice(), a_model("sim-words-900")
    shown = quote(alice, slug)

    reply = answered(send(alice, slug, terms=shown.terms, most=shown.minimum + 3))

    assert (reply.held_tokens, reply.finish_reason) == (shown.minimum + 3, "length")
    assert reply.tokens_used <= shown.minimum + 3
    with pytest.raises(CostsMore):
        send(alice, slug, most=shown.minimum - 1)
    assert send(alice, slug, most=10**9).reply.held_tokens == shown.at_most


@pytest.mark.parametrize("ceiling", ["@", "@-5", "@x", "@9999999999999999999", "@²", ""])
def test_terms_that_nobody_has_shown_are_no_ceiling(ceiling: str) -> None:
    alice, slug = people.alice(), a_model()
    model = ChatModel.objects.get(slug=slug)

    turn = send(alice, slug, terms=model.terms + ceiling)

    assert turn.reply.held_tokens == quote(alice, slug).at_most


class TestPages:
    def test_send_back_what_they_show(self) -> None:
        alice, slug = people.alice(), a_model()
        client = signed_in(alice)
        form = {"text": TEXT, "model": slug}
        line = client.post(reverse("chat:estimates"), form, headers=HTMX)
        shown = quote(alice, slug)
        assert f"at most {shown.ceiling} tokens" in words(line)
        assert f'name="terms" value="{shown.terms}"' in line.content.decode()
        learnt_to_count_more(slug)

        client.post(
            reverse("chat:turns"), {**form, "turn": ids.new("trn"), "terms": shown.terms}, headers=HTMX
        )

        assert Message.objects.get(user=alice, role="assistant").held_tokens == shown.ceiling

    @pytest.mark.parametrize(("way", "script"), [("retries", "error-500"), ("continuations", "length")])
    def test_hold_another_try_to_what_its_button_says(self, way: str, script: str) -> None:
        alice, slug = people.alice(), a_model(f"sim-words-9-{script}")
        reply = answered(send(alice, slug))
        client = signed_in(alice)
        address = reverse(f"chat:{way}", args=[reply.pk])
        form = filled(client.get(reverse("chat:session", args=[reply.session_id])), action=address)
        shown = int(form["terms"].partition("@")[2])
        learnt_to_count_more(slug)

        assert client.post(address, form).status_code == 303

        again = Message.objects.filter(user=alice, role="assistant").latest("pk")
        assert (again.pk != reply.pk, again.held_tokens) == (True, shown)

    def test_agree_to_what_the_shop_shows_where_tokens_are_missing(self) -> None:
        carol, slug = people.carol(), a_model()
        people.give_rupiah(carol, 100_000)
        client = signed_in(carol)
        sent = {"text": "Halo", "turn": ids.new("trn"), "model": slug}
        shown = turns.quote(user=carol, session=None, text="Halo", model_slug=slug)
        stale = turns.terms_up_to(shown.terms, shown.minimum)

        refused = client.post(reverse("chat:turns"), {**sent, "terms": stale})

        assert refused.status_code == 402
        form = filled(refused, action=reverse("chat:purchases"))
        assert form["terms"] == shown.terms


class TestPrograms:
    def test_may_say_what_a_reply_costs_at_most(self, product: Product) -> None:
        alice, slug = people.alice(), a_model("sim-words-900")
        program = product.program(alice)
        session = program.post(
            "/api/v1/chat/sessions", json={"serviceType": "external_llm", "model": slug}
        ).json()["data"]["id"]
        address = f"/api/v1/chat/sessions/{session}/messages"

        little = program.post(address, json={"content": "Count", "maxCost": 1})
        assert (little.status_code, little.json()["code"]) == (409, "CONFLICT")
        least = little.json()["data"]["minimum"]

        bounded = program.post(address, json={"content": "Count", "maxCost": least})
        assert bounded.json()["data"]["finishReason"] == "length"
        assert 0 < bounded.json()["data"]["tokensUsed"] <= least
        for wrong in (0, -1, "x", 1.5):
            assert program.post(address, json={"content": "Count", "maxCost": wrong}).status_code == 400
