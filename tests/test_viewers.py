"""Who may watch, how many at once, and how a stream ends for whoever may not go on. Views, database and Redis are real."""

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import pytest
from django.contrib.sessions.models import Session as SignIn
from django.db import connection
from django.http import HttpRequest, StreamingHttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from playwright.sync_api import expect

from aleph import rates
from aleph.accounts.models import ApiKey, User
from aleph.problems import Problem
from aleph.rates import parsed
from aleph.threads import in_thread
from chat import live, sessions, stream, turns, viewers
from tests import people
from tests.browser import Browser
from tests.forms import Answer
from tests.limits import asked_by, counted, forget_limits
from tests.product import Product
from tests.stories_of_chat import answered, ask, fresh, told, until

pytestmark = pytest.mark.usefixtures("committed", "simulator")


@pytest.fixture(autouse=True)
def fresh_limits() -> Iterator[None]:
    forget_limits()
    with translation.override("en"):
        yield
    forget_limits()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are looked after all the time."""
    monkeypatch.setattr(viewers, "RECHECK_S", 0.05)


@pytest.fixture
def five(settings: Any) -> None:
    settings.MAX_OPEN_STREAMS = 5


def page_of(person: User) -> Client:
    client = Client(headers={"accept-language": "en"})
    client.force_login(person)
    return client


def program_of(person: User) -> Client:
    key = ApiKey.issue(user=person, name="test")
    return Client(
        headers={
            "Authorization": f"Bearer {key}",
            "Accept-Language": "en",
            "Accept": "text/event-stream",
        }
    )


def page_stream(client: Client, turn: turns.Turn) -> Answer:
    return client.get(f"/chat/replies/{turn.reply.pk}/stream")


def api_stream(client: Client, turn: turns.Turn) -> Answer:
    return client.get(f"/api/v1/chat/sessions/{turn.session.pk}/messages/{turn.reply.pk}")


def slots() -> int:
    """How many slots are taken, by anybody."""
    return sum(int(str(stream.client().zcard(key))) for key in counted("slots"))


@dataclass
class Listener:
    """Reads a stream to its end. `events` are its names, `text` all of it."""

    answer: StreamingHttpResponse
    text: str = ""
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> "Listener":
        content: Any = self.answer.streaming_content
        try:
            async for part in content:
                self.text += part.decode()
                self.started.set()
        finally:
            await in_thread(self.answer.close)
        return self

    @property
    def events(self) -> list[str]:
        return re.findall(r"^event: (\w+)$", self.text, re.MULTILINE)

    @property
    def last(self) -> Any:
        """The data of the last event, of a program's stream."""
        return json.loads(self.text.rstrip().rsplit("data: ", 1)[1])


def story(tell: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(tell(), 30))


def ends_after(answer: Answer, what_happens: Callable[[], object]) -> Listener:
    """Listens to a stream, lets something happen once it has begun, and waits for its end."""
    listener = Listener(answer)

    async def tell() -> None:
        listening = asyncio.create_task(listener.listen())
        await listener.started.wait()
        await in_thread(what_happens)
        await listening
        assert viewers.count() == 0

    story(tell)
    return listener


# Whoever may not go on


def sign_out(person: User, client: Client) -> None:
    client.post("/accounts/logout/")


def lose_session(person: User, client: Client) -> None:
    SignIn.objects.filter(session_key=client.session.session_key).delete()


def expire_session(person: User, client: Client) -> None:
    SignIn.objects.filter(session_key=client.session.session_key).update(expire_date=timezone.now())


def change_password(person: User, client: Client) -> None:
    changed = User.objects.get(pk=person.pk)
    changed.set_password("sepuluh-ikan-terbang")
    changed.save()


def disable(person: User, client: Client) -> None:
    User.objects.filter(pk=person.pk).update(is_active=False)


def revoke_key(person: User, client: Client) -> None:
    ApiKey.objects.filter(user=person).update(revoked_at=timezone.now())


def expire_key(person: User, client: Client) -> None:
    ApiKey.objects.filter(user=person).update(expires_at=timezone.now() - timedelta(seconds=1))


@pytest.mark.parametrize("happens", [sign_out, lose_session, expire_session, change_password, disable])
def test_the_page_of_somebody_who_is_not_signed_in_any_more_is_led_to_sign_in(
    often: None, happens: Callable[[User, Client], None]
) -> None:
    alice = people.alice()
    client, turn = page_of(alice), ask(alice)
    heard = ends_after(page_stream(client, turn), lambda: happens(alice, client))
    assert heard.events[-1] == "again"
    address = f"/chat/{turn.session.pk}?at={turn.reply.pk}"
    assert f'hx-get="{address}" hx-trigger="load, every 5s"' in heard.text
    if happens is not change_password:
        headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver/chat/{turn.session.pk}"}
        there = client.get(f"/chat/{turn.session.pk}", headers=headers)
        assert there.headers["HX-Redirect"] == f"/accounts/login/?next=/chat/{turn.session.pk}"
    assert slots() == 0


@pytest.mark.parametrize("happens", [revoke_key, expire_key, disable])
def test_a_program_that_may_not_go_on_is_told_so(
    often: None, happens: Callable[[User, Client], None]
) -> None:
    alice = people.alice()
    client, turn = program_of(alice), ask(alice)
    heard = ends_after(api_stream(client, turn), lambda: happens(alice, client))
    assert heard.events == ["start", "error"]
    assert (heard.last["success"], heard.last["code"]) == (False, "UNAUTHENTICATED")
    assert heard.last["error"] == "Please sign in, or send an API key."
    assert slots() == 0


def test_a_program_that_came_with_a_session_loses_its_stream_with_it(often: None) -> None:
    alice = people.alice()
    client, turn = page_of(alice), ask(alice)
    answer = client.get(
        f"/api/v1/chat/sessions/{turn.session.pk}/messages/{turn.reply.pk}",
        headers={"Accept": "text/event-stream"},
    )
    assert ends_after(answer, lambda: sign_out(alice, client)).last["code"] == "UNAUTHENTICATED"


def test_another_key_and_another_password_are_no_matter_of_a_program(often: None) -> None:
    alice = people.alice()
    client, turn = program_of(alice), ask(alice)

    def happens() -> None:
        ApiKey.issue(user=alice, name="other")
        ApiKey.objects.filter(user=alice, name="other").update(revoked_at=timezone.now())
        change_password(alice, client)
        time.sleep(0.5)
        turns.stop(user=alice, reply_id=turn.reply.pk)

    assert ends_after(api_stream(client, turn), happens).events == ["start", "done"]


@pytest.mark.parametrize("stream_of", [page_stream, api_stream])
def test_a_deleted_chat_ends_its_streams(
    often: None, stream_of: Callable[[Client, turns.Turn], Answer]
) -> None:
    alice = people.alice()
    turn = ask(alice)
    client = page_of(alice) if stream_of is page_stream else program_of(alice)
    heard = ends_after(stream_of(client, turn), lambda: sessions.delete(turn.session))
    # Its reply is stopped a moment before it goes, and the stream may have seen that.
    if heard.events[-1] == "error":
        assert heard.last["code"] == "NOT_FOUND"
    else:
        assert heard.events[-1] == "done"
        assert "stopped" in heard.text or "This chat was deleted." in heard.text


def test_a_deleted_chat_ends_its_streams_though_its_text_goes_on(often: None) -> None:
    """The end was lost, and a worker that knows nothing of it still writes."""
    alice = people.alice()
    turn = ask(alice)

    async def endless() -> AsyncIterator[str]:
        while True:
            yield live.event("delta", "{}")
            await asyncio.sleep(0.01)

    said: list[Problem] = []
    request = asked_by(alice)
    request.session = page_of(alice).session

    async def tell() -> None:
        seat = await in_thread(lambda: viewers.admit(request))

        def farewell(problem: Problem) -> str:
            said.append(problem)
            return "bye"

        watched = viewers.Watched(seat, turn.reply.pk, endless(), farewell=farewell)
        heard = 0
        async for event in watched:
            heard += 1
            if heard == 5:
                await in_thread(lambda: sessions.delete(turn.session))
            if event == "bye":
                break
        await in_thread(watched.close)

    story(tell)
    assert [problem.code for problem in said] == ["NOT_FOUND"]


def test_whoever_may_go_on_hears_everything_to_the_end(often: None, simulator: object) -> None:
    alice = people.alice()
    client, turn = page_of(alice), ask(alice, script="sim-slow-40x20ms")
    heard = ends_after(page_stream(client, turn), lambda: answered(turn))
    assert heard.events[-1] == "done"
    assert "again" not in heard.events
    assert "word40" in heard.text
    assert slots() == 0


def test_a_database_that_is_away_for_a_moment_ends_no_stream(
    often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = people.alice()
    client, turn = page_of(alice), ask(alice)
    real, asked = viewers._look_after, []

    def broken(seats: Any) -> Any:
        asked.append(1)
        if len(asked) < 3:
            raise OSError("away")
        return real(seats)

    monkeypatch.setattr(viewers, "_look_after", broken)

    def happens() -> None:
        until(lambda: len(asked) >= 3)
        lose_session(alice, client)

    assert ends_after(page_stream(client, turn), happens).events[-1] == "again"


def test_one_look_after_any_number_of_streams_takes_four_queries() -> None:
    alice = people.alice()
    turn, client = ask(alice), page_of(alice)
    by_page, by_key = asked_by(alice), asked_by(alice)
    by_page.session = by_key.session = client.session
    ApiKey.issue(user=alice, name="test")
    by_key.auth = ApiKey.objects.get(user=alice)  # type: ignore[attr-defined]
    seats = [viewers.admit(request) for request in (by_page, by_key) for _each in range(20)]
    for seat in seats:
        seat.reply_id = turn.reply.pk
    with CaptureQueriesContext(connection) as captured:
        assert viewers._look_after(seats) == []
    assert len(captured) == 4
    for seat in seats:
        seat.close()


# So many at once


def test_the_sixth_page_looks_again_from_time_to_time(five: None) -> None:
    alice = people.alice()
    client = page_of(alice)
    open_turns = [ask(alice) for _each in range(6)]
    opened = [page_stream(client, turn) for turn in open_turns[:5]]
    sixth = page_stream(client, open_turns[5])
    assert (sixth.status_code, sixth.headers["Content-Type"]) == (200, "text/event-stream")
    text = sixth.content.decode()
    assert text.startswith("event: again\n")
    assert 'hx-trigger="every 5s"' in text
    assert "Many chats are open" in text
    opened[0].close()
    assert page_stream(client, open_turns[5]).streaming
    assert page_stream(page_of(people.carol()), open_turns[5]).status_code == 404


def test_a_programs_sixth_stream_is_refused_and_its_message_not_sent(five: None) -> None:
    alice = people.alice()
    program = program_of(alice)
    chats = [ask(alice) for _each in range(5)]
    opened = [api_stream(program, turn) for turn in chats]
    for refused in (
        api_stream(program, chats[0]),
        program.post(
            f"/api/v1/chat/sessions/{sessions.create(user=alice).pk}/messages",
            {"content": "Halo"},
            "application/json",
        ),
    ):
        assert (refused.status_code, refused["Content-Type"]) == (429, "application/json")
        assert refused.headers["Retry-After"] == str(rates.FULL_WAIT_S)
        assert (refused.json()["code"], refused.json()["data"]) == ("RATE_LIMITED", {"limit": "stream"})
    assert alice.sessions.count() == 6
    assert alice.sessions.filter(message_count=0).count() == 1
    for answer in opened:
        answer.close()
    assert slots() == 0


def test_who_may_open_streams_too_often_is_told_to_wait(settings: Any) -> None:
    settings.RATE_LIMITS = {**settings.RATE_LIMITS, "stream": parsed("2/m/user")}
    alice = people.alice()
    program, turn = program_of(alice), ask(alice)
    for _each in range(2):
        api_stream(program, turn).close()
    refused = api_stream(program, turn)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert page_stream(page_of(alice), turn).content.startswith(b"event: again\n")


def test_a_reply_that_is_over_takes_no_slot(five: None, simulator: object) -> None:
    alice = people.alice()
    client, reply = page_of(alice), told(alice)
    for _each in range(8):
        assert client.get(f"/chat/replies/{reply.pk}/stream").streaming
    assert slots() == 0


def test_slots_last_as_long_as_their_streams(
    often: None, five: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "SLOT_S", 2)
    alice = people.alice()
    client, turn = page_of(alice), ask(alice)

    def happens() -> None:
        time.sleep(3)
        assert slots() == 1
        turns.stop(user=alice, reply_id=turn.reply.pk)

    assert ends_after(page_stream(client, turn), happens).events[-1] == "done"


def test_without_redis_streams_are_open_to_all(
    five: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates, "_away_until", 0.0)
    alice = people.alice()
    client, turn = page_of(alice), ask(alice)
    settings.REDIS_URL = "unix:///nowhere/redis.sock"
    assert all(page_stream(client, turn).streaming for _each in range(8))


@pytest.mark.slow
def test_ten_thousand_who_come_and_go_leave_nothing_behind(five: None) -> None:
    """Some come and never read, some leave in the middle, some stay to the end."""
    alice = people.alice()
    turn = ask(alice)
    request: HttpRequest = asked_by(alice)
    request.session = page_of(alice).session

    async def events(number: int) -> AsyncIterator[str]:
        yield "one"
        await asyncio.sleep(0 if number % 2 else 3600)
        yield "two"

    async def come_and_go(number: int) -> None:
        seat = await asyncio.to_thread(viewers.admit, request)
        watched = viewers.Watched(seat, turn.reply.pk, events(number), farewell=lambda _problem: "")
        if number % 3:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    async for _event in watched:
                        pass
        await asyncio.to_thread(watched.close)

    async def tell() -> None:
        async def one_after_the_other(numbers: range) -> None:
            for number in numbers:
                await come_and_go(number)

        await asyncio.gather(*(one_after_the_other(range(start, 10_000, 5)) for start in range(5)))
        assert viewers.count() == 0

    asyncio.run(asyncio.wait_for(tell(), 300))
    assert slots() == 0
    assert not [*counted("slots")]


# The product's processes


def test_connections_that_break_off_give_their_slots_back(product: Product) -> None:
    alice = people.alice()
    turn = ask(alice, script="sim-slow-900x50ms")
    cookies = product.signed_in(alice).cookies.get_dict()
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    for _round in range(4):
        lines = []
        for _each in range(25):
            line = HTTPConnection("127.0.0.1", product.port, timeout=20)
            line.request("GET", f"/chat/replies/{turn.reply.pk}/stream", headers=headers)
            assert line.getresponse().status == 200
            lines.append(line)
        assert slots() == 25
        for line in lines:
            assert line.sock is not None
            line.sock.close()
            line.close()
        until(lambda: slots() == 0, within_s=20)
    turns.stop(user=alice, reply_id=turn.reply.pk)


def test_in_the_browser_a_page_without_a_stream_of_its_own_is_brought_up_to_date(browser: Browser) -> None:
    alice = people.alice()
    others = [rates.Slot("stream", alice.pk, 1000) for _each in range(1000)]
    for slot in others:
        rates.take(asked_by(alice), slot=slot)
    turn = ask(alice, script="sim-slow-300x50ms")
    page = browser.page(user=alice)
    page.goto(f"/chat/{turn.session.pk}")
    article = page.locator("article.message--reply")
    expect(article).to_contain_text("Many chats are open")
    expect(article).to_contain_text(re.compile(r"word\d+"))
    expect(article.locator("[sse-connect]")).to_have_count(0)
    stream.client().delete(others[0].key)
    expect(article.locator("[sse-connect]")).to_have_count(1)
    until(lambda: slots() == 1)
    page.click("[data-stop]")
    expect(page.locator("article[data-state=stopped]")).to_be_visible()
    expect(page.locator("[data-send]")).to_be_visible()


def test_in_the_browser_a_page_without_a_stream_sees_the_end_of_its_reply(browser: Browser) -> None:
    alice = people.alice()
    for _each in range(1000):
        rates.take(asked_by(alice), slot=rates.Slot("stream", alice.pk, 1000))
    turn = ask(alice, script="sim-slow-40x50ms")
    page = browser.page(user=alice)
    page.goto(f"/chat/{turn.session.pk}")
    expect(page.locator("article[data-state=complete]")).to_contain_text("word40")
    expect(page.locator("[data-send]")).to_be_visible()
    left = f"{10_500 - fresh(turn.reply).tokens_used:,}"
    expect(page.locator("#balance")).to_contain_text(left)
    expect(page.locator(".chat-link__live")).to_have_count(0)


@pytest.mark.parametrize(("stream_of", "end"), [(page_stream, "reconnect"), (api_stream, "done")])
def test_a_process_that_is_asked_to_go_sends_away_who_comes_back_by_himself(
    stream_of: Callable[[Client, turns.Turn], Answer], end: str
) -> None:
    alice = people.alice()
    turn = ask(alice)
    client = page_of(alice) if stream_of is page_stream else program_of(alice)

    def happens() -> None:
        viewers.send_away()
        time.sleep(0.5)
        turns.stop(user=alice, reply_id=turn.reply.pk)

    try:
        assert ends_after(stream_of(client, turn), happens).events[-1] == end
    finally:
        viewers._is_leaving.clear()
    turns.stop(user=alice, reply_id=turn.reply.pk)
