"""The figures of the usage page as a stream: what is sent when, and to whom. Views, worker, database and Redis are real."""

import asyncio
import html
import re
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from aleph import live_figures
from aleph.threads import in_thread
from chat import turns, viewers
from chat.models import Message
from tests import people
from tests.limits import forget_limits
from tests.stories_of_chat import answered, ask, told
from tests.stories_of_usage import call_of
from tests.test_usage_page import browser_of
from tests.test_viewers import lose_session, slots
from usage import meter
from usage.models import TokenUsage

pytestmark = pytest.mark.usefixtures("committed", "simulator")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(live_figures, "REST_S", 0.05)
    forget_limits()
    with translation.override("en"):
        yield
    forget_limits()


@dataclass
class Shown:
    """What a page was sent."""

    text: str = ""
    parts: list[str] = field(default_factory=list)

    @property
    def events(self) -> list[str]:
        return re.findall(r"^event: (\w+)$", self.text, re.MULTILINE)

    @property
    def tokens_today(self) -> int:
        return int(re.findall(r'data-figure="tokens-today">([\d,]+)<', self.text)[-1].replace(",", ""))


def seen_on(page: Client) -> str:
    return html.unescape(
        re.search(r'data-live="([^"]+)"', page.get("/usage").content.decode())[1]  # type: ignore[index]
    )


def shown_on(
    page: Client, *, until: Callable[[Shown], bool], meanwhile: Callable[[], object] = lambda: None
) -> Shown:
    """Listens as the page does, lets something happen once it listens, and leaves when it has seen enough."""
    answer: Any = page.get(seen_on(page))
    shown = Shown()

    async def listen() -> None:
        happening = None
        async with aclosing(aiter(answer)) as parts:
            async for part in parts:
                shown.text += part.decode()
                shown.parts.append(part.decode())
                if happening is None and len(shown.parts) == 2:
                    happening = asyncio.create_task(in_thread(meanwhile))
                if happening is not None and until(shown):
                    break
        if happening is not None:
            await happening
        await in_thread(answer.close)

    asyncio.run(asyncio.wait_for(listen(), 30))
    return shown


def test_whoever_knows_everything_is_told_nothing_and_then_what_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice = people.alice()
    page = browser_of(alice)
    call_of(alice)
    shown = shown_on(page, until=lambda shown: len(shown.parts) >= 2)
    assert shown.events == []
    monkeypatch.setattr(live_figures, "LOOK_S", 0.1)
    shown = shown_on(page, meanwhile=lambda: call_of(alice), until=lambda shown: "calls" in shown.events)
    assert shown.events == ["figures", "calls"]
    assert shown.tokens_today == 2400


def test_at_midnight_the_day_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    alice = people.alice()
    page = browser_of(alice)
    call_of(alice)
    monkeypatch.setattr(live_figures, "LOOK_S", 0.1)
    tomorrow = timezone.now() + timedelta(days=1)

    def midnight() -> None:
        monkeypatch.setattr(timezone, "now", lambda: tomorrow)

    shown = shown_on(page, meanwhile=midnight, until=lambda shown: "figures" in shown.events)
    assert shown.events == ["figures"]
    assert shown.tokens_today == 0


def test_a_reply_counts_in_while_it_is_written_and_as_its_call_when_it_is_over() -> None:
    """Nobody has to look round for it: the text itself rings."""
    alice = people.alice()
    page = browser_of(alice)
    call_of(alice)
    turn: list[turns.Turn] = []

    def meanwhile() -> None:
        turn.append(ask(alice, script="sim-slow-40x20ms"))
        answered(turn[0])

    shown = shown_on(page, meanwhile=meanwhile, until=lambda shown: "calls" in shown.events)
    drawn = re.findall(r'data-figure="tokens-today">([\d,]+)<', shown.text)
    counted = [int(tokens.replace(",", "")) for tokens in drawn]
    assert len(set(counted)) > 3
    assert counted[0] > 1200
    assert "of the reply being written" in shown.text
    row = TokenUsage.objects.get(operation_id=turn[0].reply.pk)
    assert shown.tokens_today == 1200 + row.total_tokens
    assert "of the reply being written" not in shown.parts[-1]


def test_what_is_past_is_read_once_and_not_with_every_word() -> None:
    alice = people.alice()
    call_of(alice)
    reply = told(alice, "Tell me")
    Message.objects.filter(pk=reply.pk).update(
        state="streaming", content="word " * 100, estimated_input_tokens=40, finished_at=None
    )
    TokenUsage.objects.filter(operation_id=reply.pk).delete()
    request: Any = browser_of(alice).get("/usage").wsgi_request
    shown = live_figures._Page(request, "")
    first = shown.draw()
    assert "of the reply being written" in first
    with CaptureQueriesContext(
        connection,
    ) as asked:
        again = shown.draw()
    assert again.count("event: figures") == 1
    assert not [query for query in asked if "GROUP BY" in query["sql"]]
    assert len(asked) <= 6
    Message.objects.filter(pk=reply.pk).update(state="complete")
    assert shown.draw().count("event: figures") == 1
    assert shown.draw() == ""


def test_a_stranger_hears_nothing_of_my_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_figures, "LOOK_S", 0.2)
    alice, carol = people.alice(), people.carol()
    call_of(alice, counts=meter.Counts(fresh_input=1))
    call_of(carol, counts=meter.Counts(fresh_input=7))
    answer = shown_on(
        browser_of(carol),
        meanwhile=lambda: answered(ask(alice, script="sim-slow-10x20ms")),
        until=lambda shown: len(shown.parts) >= 20,
    )
    assert answer.events == []


def test_whoever_is_not_signed_in_is_led_to_sign_in(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.get("/usage/figures").content == b"event: leave\ndata: \n\n"
    monkeypatch.setattr(viewers, "RECHECK_S", 0.05)
    alice = people.alice()
    page = browser_of(alice)
    call_of(alice)
    shown = shown_on(
        page, meanwhile=lambda: lose_session(alice, page), until=lambda shown: "leave" in shown.events
    )
    assert shown.events == ["leave"]
    assert slots() == 0


def test_an_account_has_only_so_many_pages_that_are_live(settings: Any) -> None:
    settings.MAX_OPEN_STREAMS = 2
    page = browser_of(people.alice())
    answers = [page.get("/usage/figures") for _each in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    for answer in answers:
        answer.close()
    assert slots() == 0
