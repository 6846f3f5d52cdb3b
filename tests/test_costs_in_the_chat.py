"""What a chat cost, in the chat: beneath each reply and for the whole, unless its owner does not want to see it."""

import pytest
from django.test import Client
from playwright.sync_api import expect

from aleph.accounts.models import User
from chat import receipts
from chat.models import Message, Session
from tests import people
from tests.browser import Browser
from tests.product import simulated_model
from tests.stories_of_chat import answered, ask, told
from tests.test_chat_in_the_browser import choose, sent


def page_of(person: User, session: Session) -> str:
    client = Client(headers={"accept-language": "en"})
    client.force_login(person)
    return client.get(f"/chat/{session.pk}").content.decode()


@pytest.fixture
def alice(simulator: object, committed: None) -> User:
    return people.alice()


def test_a_chat_says_what_it_cost_all_together(alice: User) -> None:
    first = told(alice, rate=1000)
    second = answered(ask(alice, "And then?", session=first.session, rate=1000))
    told(alice, rate=1000)
    used = first.tokens_used + second.tokens_used
    session = Session.objects.get(pk=first.session_id)
    shown = page_of(alice, session)
    assert f"This chat: {used:,} tokens" in shown
    worth = sum(reply.tokens_used * (reply.value_idr_per_1k or 0) for reply in (first, second))
    assert receipts.rupiah_of(session) == (worth + 500) // 1000
    assert f"/usage?session={session.pk}" in shown


def test_a_chat_that_cost_nothing_says_nothing(alice: User) -> None:
    free = told(alice, rate=0)
    assert "This chat:" not in page_of(alice, free.session)


def test_who_does_not_want_to_see_costs_sees_none_and_still_has_the_receipts(alice: User) -> None:
    reply = told(alice, rate=1000)
    amount = f"{reply.tokens_used:,} tokens"
    assert f"· {amount}" in page_of(alice, reply.session)
    client = Client(headers={"accept-language": "en"})
    client.force_login(alice)
    said = {"name": "Alice", "language": "en", "time_zone": "Asia/Jakarta"}
    assert client.post("/settings", said).status_code == 302
    alice.refresh_from_db()
    assert not alice.shows_costs
    shown = page_of(alice, reply.session)
    assert f"· {amount}" not in shown
    assert "This chat:" not in shown
    assert f"/chat/replies/{reply.pk}/receipt" in shown
    client.post("/settings", {**said, "shows_costs": "on"})
    assert f"· {amount}" in page_of(alice, reply.session)


def test_the_whole_grows_the_moment_a_reply_is_settled(browser: Browser) -> None:
    model = simulated_model("sim-words-5", rate=1000)
    page = browser.page(user=people.alice())
    page.goto("/")
    choose(page, model)
    sent(page, "Tell me")
    total = page.locator("#total")
    expect(total).to_contain_text("This chat: ")
    before = total.inner_text()
    sent(page, "And then?")
    expect(total).not_to_have_text(before)
    reply = Message.objects.filter(role="assistant").latest("created_at")
    expect(total).to_contain_text(f"{reply.session.total_tokens_used:,} tokens")
