"""Models at the end of their days: who follows, and that nobody pays a price that he has not been shown."""

from collections.abc import Iterator
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone, translation

from aleph import ids
from chat import catalogue, picker, turns
from chat.models import ChatModel, Message
from tests import people
from tests.stories_of_chat import answered, special_model
from tests.test_chat_pages import page_of, signed_in, words

pytestmark = pytest.mark.usefixtures("committed", "redis_server", "simulator")


@pytest.fixture(autouse=True)
def withdrawn(committed: None) -> Iterator[None]:
    """Models of other prices than all the others' are withdrawn after a test: pages say what models cost."""
    before = set(ChatModel.objects.values_list("pk", flat=True))
    yield
    ChatModel.objects.exclude(pk__in=before).exclude(slug__contains="-at-").update(is_offered=False)


def model(name: str, *, rate: int = 100, **fields: Any) -> ChatModel:
    return special_model(
        ids.new(name).lower(), name=name.title(), input_rate=rate, output_rate=rate, **fields
    )


def retire(old: ChatModel, successor: ChatModel | None = None, *, days: int = 0) -> ChatModel:
    """`old` has its last day behind it, or `days` before it."""
    old.retires_on = timezone.localdate() + timedelta(days=days)
    old.successor = successor
    old.save()
    return old


def ask(slug: str | None = None, **how: object) -> turns.Turn:
    said = {"user": people.alice(), "session": None, "text": "Halo", "turn": ids.new("trn")}
    return turns.start(**{**said, "model_slug": slug, **how})  # type: ignore[arg-type]


def slugs() -> set[str]:
    return {offer.model.slug for offer in catalogue.offers()}


class TestAModelWhoseDayHasCome:
    def test_is_offered_up_to_the_day_before(self) -> None:
        old, young = model("old"), model("young")

        assert retire(old, young, days=1).slug in slugs()
        assert catalogue.find(old.slug).instead_of is None
        assert retire(old, young).slug not in slugs()

    def test_is_followed_by_its_successor_and_that_ones(self) -> None:
        old, middle, young = model("old"), model("middle"), model("young")
        retire(old, middle)
        retire(middle, young)

        offer = catalogue.find(old.slug)

        assert (offer.model, offer.instead_of) == (young, old)
        assert answered(ask(old.slug)).model == young

    def test_is_followed_by_nothing_where_nobody_was_named(self) -> None:
        old = retire(model("old"))

        with pytest.raises(catalogue.ModelRetired) as refused, translation.override("en"):
            ask(old.slug)
        assert refused.value.message == "Old has been retired. Choose another model."

    def test_is_followed_by_nothing_in_a_circle(self) -> None:
        one, other = model("one"), model("other")
        retire(one, other)
        retire(other, one)

        with pytest.raises(catalogue.ModelRetired):
            catalogue.find(one.slug)

    def test_cannot_follow_itself(self) -> None:
        old = model("old")
        with pytest.raises(IntegrityError), transaction.atomic():
            retire(old, old)

    def test_is_not_followed_by_what_is_not_offered(self) -> None:
        old = retire(model("old"), model("young", is_offered=False))

        with pytest.raises(catalogue.ModelRetired):
            catalogue.find(old.slug)


class TestAChatWithIt:
    def test_goes_on_with_the_successor_at_its_rates(self) -> None:
        old, young = model("old", rate=900), model("young", rate=200)
        alice = people.alice()
        first = ask(old.slug, user=alice)
        answered(first)
        retire(old, young)

        reply = answered(ask(session=first.session, user=alice))

        assert (reply.model, reply.input_rate) == (young, 200)

    def test_says_before_sending_which_one_answers_and_for_how_much(self) -> None:
        alice = people.alice()
        old, young = model("old"), model("young", rate=1_234)
        first = ask(old.slug, user=alice)
        answered(first)
        retire(old, young)

        answer = signed_in(alice).get(page_of(first.session))

        assert "Old was retired on" in words(answer)
        assert (
            "From your next message on Young answers, at 1,234 tokens per 1K of input and 1,234 per 1K"
            in words(answer)
        )
        assert f'value="{young.slug}" checked' in answer.content.decode()
        assert f'value="{old.slug}"' not in answer.content.decode()

    def test_says_so_too_where_nothing_follows_and_the_free_tier_is_left(self) -> None:
        old = retire(model("old"))

        chosen = picker.of(old.slug)

        assert chosen.instead_of == old
        assert chosen.chosen == chosen.free_tier

    def test_sends_nothing_at_a_price_that_was_shown_for_the_old_one(self) -> None:
        old, young = model("old"), model("young", rate=900)
        shown = old.terms
        retire(old, young)

        with pytest.raises(turns.PriceChanged):
            ask(old.slug, terms=shown)
        assert ask(old.slug, terms=young.terms).reply.input_rate == 900

    def test_is_named_to_whom_wrote_before_it_retired(self) -> None:
        old, young = model("old"), model("young", rate=900)
        first = ask(old.slug, user=people.alice())
        answered(first)
        page = f"{page_of(first.session)}/turns"
        written = {"text": "Halo", "model": old.slug, "turn": ids.new("trn"), "terms": old.terms}
        retire(old, young)

        answer = signed_in(first.session.user).post(page, written, headers={"HX-Request": "true"})

        assert answer.status_code == 409
        assert "Old has been retired, and Young answers in its place." in words(answer)

    def test_takes_a_message_once_whatever_the_model_is_called(self) -> None:
        old, young = model("old"), model("young")
        retire(old, young)
        alice, turn = people.alice(), ids.new("trn")

        first = ask(old.slug, user=alice, turn=turn)
        again = ask(old.slug, user=alice, turn=turn)

        assert again.reply.pk == first.reply.pk

    def test_offers_the_rest_of_a_reply_and_another_try_by_the_successor(self) -> None:
        old, young = special_model(ids.new("old").lower(), script="sim-cut-5"), model("young", rate=200)
        alice = people.alice()
        reply = answered(ask(old.slug, user=alice))
        retire(old, young)
        reply = Message.objects.select_related("model").get(pk=reply.pk)

        tries = picker.tries(reply, catalogue.offers(), available=10_000)

        assert tries.go_on is not None
        assert tries.go_on.offer.model == young
        assert tries.again[0].offer.model == young
        following = turns.go_on(user=alice, reply_id=reply.pk, turn=ids.new("trn"), terms=young.terms)
        assert following.reply.model == young


class TestTermsOfAModel:
    def test_hold_where_its_id_has_a_colon_as_well(self) -> None:
        small = special_model(f"{ids.new('local').lower()}:3b", input_rate=10, output_rate=10)
        shown = small.terms
        ChatModel.objects.filter(pk=small.pk).update(input_rate=20)

        with pytest.raises(turns.PriceChanged):
            ask(small.slug, terms=shown)


def test_a_page_that_knows_nothing_of_a_model_shows_the_free_tier() -> None:
    alice = people.alice()
    client = signed_in(alice)
    client.cookies["model"] = "no-such-model"

    answer = client.get("/")

    assert answer.status_code == HTTPStatus.OK
    assert "was retired" not in words(answer)


def test_a_reply_says_who_really_wrote_it() -> None:
    alice = people.alice()
    old = special_model(ids.new("grand").lower(), name="Grand Model")
    turn = ask(old.slug, user=alice)
    answered(turn)

    page = signed_in(alice).get(page_of(turn.session))

    assert "Grand Model · answered by sim-words-5-2026-09-01 via OpenAI ·" in words(page)


def test_a_busy_provider_is_told_of_with_the_time_to_wait() -> None:
    alice = people.alice()
    busy = special_model(ids.new("busy").lower(), script="sim-error-429")
    turn = ask(busy.slug, user=alice)
    answered(turn)

    assert "Try again in 3 seconds." in words(signed_in(alice).get(page_of(turn.session)))
