"""What somebody could do to spend less: only what is true of his own last 30 days, and only what is worth a word."""

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from aleph import ids, suggestions
from aleph.accounts.models import Dismissal, User
from chat.models import ChatModel, Message, Session
from tests import people
from tests.stories_of_chat import special_model
from tests.stories_of_usage import call_of
from usage import meter

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("simulator")]

DEAR, LESS = "Dear Model", "Smaller Model"


@pytest.fixture
def shop() -> None:
    """Two models on offer that can be had: at 40 and 10 tokens per 1K, both with 100,000 tokens of context."""
    ChatModel.objects.update(is_offered=False)
    for name, rate in ((DEAR, 40), (LESS, 10)):
        special_model(
            ids.new("mod").lower(),
            name=name,
            input_rate=rate,
            output_rate=rate,
            context_tokens=100_000,
            max_output_tokens=1000,
        )


def calls(person: User, number: int = 10, *, read: int = 1000, **differences: Any) -> None:
    """Calls of `DEAR`, of 1,000 and 500 LLM tokens, at 60 tokens and Rp 120 each."""
    for _ in range(number):
        call_of(
            person,
            **{
                "label": DEAR,
                "counts": meter.Counts(fresh_input=read, visible_output=500),
                "charged_tokens": 60,
                "value_idr_per_1k": 2000,
                **differences,
            },
        )


def said(person: User, session: Session, text: str, *, tokens: int = 0, **reply: Any) -> Message:
    message = Message.objects.create(
        id=ids.new("msg"), session=session, user=person, role="user", content=text
    )
    return Message.objects.create(
        id=ids.new("msg"),
        session=session,
        user=person,
        parent=message,
        role="assistant",
        content="Yes.",
        turn=ids.new("trn"),
        state="complete",
        tokens_used=tokens,
        held_tokens=tokens,
        **reply,
    )


def chat_of(person: User, title: str = "A long talk", messages: int = 20) -> Session:
    return Session.objects.create(id=ids.new("cht"), user=person, title=title, message_count=messages)


@pytest.mark.usefixtures("shop")
class TestCheaper:
    def test_prices_the_same_calls_at_the_rates_of_others(self) -> None:
        alice = people.alice()
        calls(alice)
        found = suggestions.of(alice).cheaper
        assert found is not None
        assert (found.name, found.calls, found.tokens, found.idr) == (DEAR, 10, 600, 1200)
        (other,) = found.others
        # 10 times 1,500 at 10 per 1K, and up to one more for each call that rounds up.
        assert (other.model.name, other.tokens, other.idr, other.percent) == (LESS, 160, 320, 73)

    def test_knows_only_ones_own_calls_of_the_last_thirty_days(self) -> None:
        alice = people.alice()
        calls(people.bob())
        calls(alice, at=timezone.now() - timedelta(days=31))
        assert suggestions.of(alice).cheaper is None

    @pytest.mark.parametrize("differences", [{"charged_tokens": 0}, {"operation": "presentation_outline"}])
    def test_is_about_replies_that_cost_something(self, differences: dict[str, Any]) -> None:
        alice = people.alice()
        calls(alice, **differences)
        assert suggestions.of(alice).cheaper is None

    def test_names_no_model_that_could_not_do_it(self) -> None:
        alice = people.alice()
        calls(alice)
        calls(alice, 1, read=100_000)
        assert suggestions.of(alice).cheaper is None

    def test_names_no_blind_model_to_who_shows_images(self) -> None:
        alice = people.alice()
        calls(alice)
        said(alice, chat_of(alice), "Look")
        assert suggestions.of(alice).cheaper is not None
        Message.objects.filter(user=alice, role="user").update(image_count=1)
        assert suggestions.of(alice).cheaper is None

    def test_is_silent_about_little(self) -> None:
        alice, bob = people.alice(), people.bob()
        calls(alice, 4)
        ChatModel.objects.filter(name=LESS).update(input_rate=35, output_rate=35)
        calls(bob)
        assert suggestions.of(alice).cheaper is None
        assert suggestions.of(bob).cheaper is None


class TestLongChats:
    def test_are_those_whose_last_message_sent_much(self) -> None:
        alice = people.alice()
        long, short = chat_of(alice), chat_of(alice, "A short one")
        for session, size in ((long, 12_000), (short, 900)):
            reply = said(alice, session, "And then?", tokens=80, input_rate=10, output_rate=10)
            calls(
                alice,
                1,
                operation_id=reply.pk,
                read=size,
                session=session.pk,
            )
        (found,) = suggestions.of(alice).long_chats
        assert (found.title, found.input_tokens, found.tokens) == ("A long talk", 12_000, 120)

    def test_one_long_message_is_no_long_chat(self) -> None:
        alice = people.alice()
        session = chat_of(alice, messages=2)
        reply = said(alice, session, "x" * 50_000, tokens=80)
        calls(alice, 1, operation_id=reply.pk, read=12_000, session=session.pk)
        assert suggestions.of(alice).long_chats == []


class TestRepeated:
    def test_counts_what_all_replies_have_cost(self, settings: Any) -> None:
        alice = people.alice()
        settings.ENCRYPT_MESSAGES = True
        text = "Write a summary of our opening hours"
        for spelt in (text, text.upper(), f"  {text}\n"):
            last = said(alice, chat_of(alice), spelt, tokens=7)
        said(people.bob(), chat_of(people.bob()), text, tokens=7)
        (found,) = suggestions.of(alice).repeated
        assert (found.times, found.tokens, found.message_id) == (3, 21, last.parent_id)

    def test_is_not_about_short_words_or_what_was_said_twice(self) -> None:
        alice = people.alice()
        for text in [
            "Go on",
            "Go on",
            "Go on",
            "A sentence that is long enough",
            "A sentence that is long enough",
        ]:
            said(alice, chat_of(alice), text, tokens=7)
        assert suggestions.of(alice).repeated == []


@pytest.mark.usefixtures("shop")
class TestThePage:
    def test_shows_them_and_lets_one_send_them_away_for_a_month(self) -> None:
        alice = people.alice()
        calls(alice)
        client = Client(headers={"accept-language": "en"})
        client.force_login(alice)
        assert "/usage/suggestions" in client.get("/usage").content.decode()
        page = client.get("/usage/suggestions").content.decode()
        assert "Smaller Model" in page
        assert "about 160 tokens" in page
        found = suggestions.of(alice).cheaper
        assert found is not None
        after = client.post("/usage/suggestions/unwanted", {"key": found.key}, follow=True).content.decode()
        assert "There is nothing to suggest" in after
        assert suggestions.of(people.bob()).cheaper is None
        Dismissal.objects.update(at=timezone.now() - timedelta(days=31))
        assert suggestions.of(alice).cheaper is not None

    def test_escapes_what_was_said(self) -> None:
        alice = people.alice()
        for _ in range(3):
            said(alice, chat_of(alice), "<script>alert('again and again')</script>", tokens=7)
        client = Client(headers={"accept-language": "en", "hx-request": "true"})
        client.force_login(alice)
        part = client.get("/usage/suggestions").content.decode()
        assert "&lt;script&gt;" in part
        assert "<html" not in part

    def test_leads_to_the_setting_that_makes_a_repeated_message_free_and_says_how_once_it_is_on(self) -> None:
        alice = people.alice()
        for _each in range(3):
            said(alice, chat_of(alice), "Write a summary of our opening hours", tokens=7)
        client = Client(headers={"accept-language": "en"})
        client.force_login(alice)
        assert 'href="/settings#reuse"' in client.get("/usage/suggestions").content.decode()
        User.objects.filter(pk=alice.pk).update(reuses_replies=True)
        page = client.get("/usage/suggestions").content.decode()
        assert "/settings#reuse" not in page
        assert "At temperature 0" in page
