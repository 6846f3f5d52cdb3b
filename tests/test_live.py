"""What somebody sees who watches a reply: everything once, from wherever he comes in, and always an end."""

import asyncio
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone, translation

from aleph.accounts.models import User
from aleph.threads import in_thread
from chat import api, live, replies, sessions, stream, turns
from chat.live import Moment
from chat.models import Message
from tests import people
from tests.clock import in_time
from tests.product import session_cookie
from tests.screen import Screen, article_of, letters_of
from tests.stories_of_chat import ask, fresh, told, until, worker
from tests.watching import MARKDOWN, forget_everything, page_of, request_of, seen_by_a_page, told_story

pytestmark = pytest.mark.usefixtures("committed", "simulator")

SLOW = "sim-slow-60x25ms"


async def moments_of(reply: Message, *, enough: Callable[[Moment], bool] = lambda _: False) -> list[Moment]:
    """What a watcher is told, to the end or until he has `enough`."""
    seen: list[Moment] = []
    async with aclosing(live.watch(reply)) as moments:
        async for moment in moments:
            if moment is not None:
                seen.append(moment)
                if enough(moment):
                    break
    return seen


def words(moment: Moment) -> int:
    return moment.text.count(" ")


@pytest.fixture(autouse=True)
def english() -> Iterator[None]:
    with translation.override("en"):
        yield


@pytest.fixture
def redis_away(settings: Any) -> Iterator[Callable[[], None]]:
    """Call it, and from then on no connection to Redis is made any more from here. What is connected stays so."""

    def go() -> None:
        settings.REDIS_URL = "unix:///nowhere/redis.sock"
        stream.client.cache_clear()

    yield go
    stream.client.cache_clear()


# Watching the text


def test_a_watcher_is_told_the_text_as_it_grows_and_then_the_end() -> None:
    turn = ask(people.alice(), script=SLOW)

    async def story() -> None:
        seen = await moments_of(turn.reply)
        assert len(seen) > 10
        for before, after in itertools.pairwise(seen):
            assert after.text.startswith(before.text)
        assert [moment.is_over for moment in seen[-2:]] == [False, True]
        assert seen[-1].text == (await in_thread(lambda: fresh(turn.reply))).content

    with worker(turn):
        told_story(story)


def test_who_comes_in_the_middle_is_first_told_everything_so_far() -> None:
    turn = ask(people.alice(), script=SLOW)

    async def story() -> None:
        await moments_of(turn.reply, enough=lambda moment: words(moment) > 20)
        (first,) = await moments_of(fresh_row(turn), enough=lambda _: True)
        assert words(first) > 20
        assert first.text.startswith("word1 word2 ")

    with worker(turn):
        told_story(story)


def fresh_row(turn: turns.Turn) -> Message:
    """The row as a view reads it at the beginning of a stream, here from an old picture: open, of the first epoch."""
    turn.reply.epoch, turn.reply.state = 1, "streaming"
    return turn.reply


def test_who_comes_after_the_end_is_told_it_at_once() -> None:
    reply = told(people.alice())

    async def story() -> None:
        assert await moments_of(reply) == [Moment(reply.content, True)]

    told_story(story)


def test_a_reply_that_ended_just_before_one_listened_has_an_end_soon() -> None:
    turn = ask(people.alice())
    as_it_was = fresh(turn.reply)
    replies.generate(turn.reply.pk)

    async def story() -> None:
        began = time.monotonic()
        seen = await moments_of(as_it_was)
        assert seen[-1] == Moment("word1 word2 word3 word4 word5 ", True)
        in_time(time.monotonic() - began, 1.5)

    told_story(story)


def test_silence_is_filled_so_that_proxies_stay_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REREAD_S", 0.1)
    turn = ask(people.alice())

    async def story() -> None:
        async with aclosing(live.watch(turn.reply, patience=0.2)) as moments:
            assert await anext(moments) == Moment("", False)
            assert await anext(moments) is None
            assert await anext(moments) is None

    told_story(story)


def test_the_end_comes_when_redis_loses_it(redis_away: Callable[[], None]) -> None:
    alice = people.alice()
    turn = ask(alice)

    async def story() -> None:
        async with aclosing(live.watch(turn.reply)) as moments:
            assert await anext(moments) == Moment("", False)
            redis_away()
            await in_thread(lambda: turns.stop(user=alice, reply_id=turn.reply.pk))
            assert await anext(moments) == Moment("", True)

    told_story(story)


def test_without_redis_one_watches_what_the_database_has(
    redis_away: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "REREAD_S", 1.0)
    turn = ask(people.alice(), script="sim-slow-80x50ms")
    redis_away()

    async def story() -> None:
        seen = await moments_of(turn.reply)
        assert any(moment.text and not moment.is_over for moment in seen)
        for before, after in itertools.pairwise(seen):
            assert after.text.startswith(before.text)
        assert seen[-1].is_over
        assert seen[-1].text.split() == [f"word{number}" for number in range(1, 81)]

    with worker(turn):
        told_story(story)
    assert fresh(turn.reply).state == "complete"


def test_a_deleted_chat_ends_for_those_who_watch_it() -> None:
    alice = people.alice()
    turn = ask(alice, script=SLOW)

    async def story() -> None:
        screen = Screen()
        await asyncio.gather(
            seen_by_a_page(turn.reply, screen),
            in_thread(partial(_delete_once_written, alice, turn)),
        )
        assert screen.is_done
        assert screen.article == "", "a stopped reply offers to go on, and there is no chat to go on in"

    with worker(turn):
        told_story(story)


def test_a_reply_that_is_written_again_begins_again_for_those_who_watch_it() -> None:
    """The first worker died before anything was saved; only the screen has seen a few words of it."""
    turn = ask(people.alice(), script="sim-words-30-pace-10")
    screen = Screen()

    async def story() -> None:
        watching = asyncio.create_task(seen_by_a_page(fresh_row(turn), screen))
        await in_thread(lambda: until(lambda: screen.letters == "Lostwords"))
        forget_everything()
        await in_thread(replies.sweep)
        await in_thread(lambda: replies.generate(turn.reply.pk))
        await watching

    Message.objects.filter(pk=turn.reply.pk).update(
        state="streaming", epoch=1, attempts=1, lease_until=timezone.now() - timedelta(seconds=1)
    )
    stream.publisher().append(
        reply_id=turn.reply.pk,
        user_id=turn.reply.user_id,
        epoch=1,
        offset=0,
        byte_offset=0,
        text="Lost words",
    )
    stream.publisher().flush()
    told_story(story)
    assert screen.drawn.count("snapshot") >= 2
    assert "word30" in screen.article
    assert "Lost" not in screen.article


def test_a_program_can_put_together_a_reply_whose_shown_text_was_lost() -> None:
    """Its worker died before anything was saved, and Redis forgot what was shown: a delta goes back to the beginning."""
    turn = ask(people.alice(), script="sim-words-30-pace-10-numbered")
    texts: list[str] = []
    text = ""

    async def story() -> None:
        nonlocal text
        reply = fresh_row(turn)
        watching = api.streamed(api.Pending(reply, reply.session, reply.user, as_stream=True))
        async for sent in watching:
            name, data = sent.removeprefix("event: ").split("\ndata: ")
            if name == "delta":
                delta = json.loads(data)
                assert delta["offset"] <= len(text), "a hole"
                text = text[: delta["offset"]] + delta["text"]
                texts.append(text)
            if texts == ["Lost words"]:
                forget_everything()
                await in_thread(replies.sweep)
                await in_thread(lambda: replies.generate(turn.reply.pk))

    Message.objects.filter(pk=turn.reply.pk).update(
        state="streaming", epoch=1, attempts=1, lease_until=timezone.now() - timedelta(seconds=1)
    )
    stream.publisher().append(
        reply_id=turn.reply.pk,
        user_id=turn.reply.user_id,
        epoch=1,
        offset=0,
        byte_offset=0,
        text="Lost words",
    )
    stream.publisher().flush()
    told_story(story)
    assert texts[0] == "Lost words"
    assert text == fresh(turn.reply).content
    assert text.startswith("word1.")


# The page


def test_the_page_is_drawn_in_finished_blocks_and_one_open_one() -> None:
    turn = ask(people.alice(), MARKDOWN, script="sim-echo-pace-20")
    screen = Screen()
    with worker(turn):
        told_story(lambda: seen_by_a_page(turn.reply, screen))
    assert screen.drawn[0] == "snapshot"
    assert screen.drawn.count("snapshot") == 1
    assert screen.drawn.count("block") >= 2
    assert screen.drawn.count("tail") > 5
    assert screen.drawn[-1] == "done"
    assert letters_of(article_of(page_of(turn.reply))) == letters_of(screen.article)


def test_the_live_count_grows_and_stays_within_the_hold() -> None:
    turn = ask(people.alice(), script=SLOW, rate=1000)
    counts: list[int] = []

    def note(screen: Screen) -> bool:
        if screen.drawn[-1:] == ["count"] and (found := re.search(r"<b>([\d.,]+) tokens?</b>", screen.count)):
            counts.append(int(found[1].replace(",", "")))
        return False

    with worker(turn):
        told_story(lambda: seen_by_a_page(turn.reply, Screen(), enough=note))
    assert counts == sorted(counts)
    assert len(set(counts)) > 5
    assert counts[-1] <= turn.reply.held_tokens


def test_the_end_brings_the_balance_the_toast_and_the_button_to_send() -> None:
    turn = ask(people.alice())
    sent: list[str] = []

    async def story() -> None:
        events = live.page_events(turn.reply, request=request_of(turn.reply))
        sent.extend([event async for event in events])

    with worker(turn):
        told_story(story)
    reply, done = fresh(turn.reply), sent[-1]
    assert done.startswith("event: done\n")
    assert f'id="{reply.pk}"' in done
    assert f"Used {reply.tokens_used} token" in done
    assert re.search(r'id="balance"[^>]*hx-swap-oob="true"', done)
    assert f"{10_500 - reply.tokens_used:,}" in done
    assert re.search(r'id="composer-send"[^>]*hx-swap-oob="true"', done)
    assert "data-send" in done


def test_who_leaves_is_forgotten() -> None:
    turn = ask(people.alice(), script=SLOW)

    async def story() -> None:
        await seen_by_a_page(turn.reply, Screen(), enough=lambda screen: len(screen.drawn) > 6)
        async with stream.hub().follow(turn.reply.pk, 1) as tail:
            assert tail.viewers == 1

    with worker(turn):
        told_story(story)
        turns.stop(user=turn.reply.user, reply_id=turn.reply.pk)


def test_a_long_connection_ends_with_a_word_that_it_may_be_opened_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live, "CONNECTION_S", 0.3)
    turn = ask(people.alice(), script="sim-slow-60x30ms")
    sent: list[str] = []

    async def story() -> None:
        sent.extend([event async for event in live.page_events(turn.reply, request=request_of(turn.reply))])

    with worker(turn):
        told_story(story)
    assert sent[-1].startswith("event: reconnect\n")


# Who may watch


def test_strangers_and_guests_watch_nothing() -> None:
    reply = told(people.alice())
    stranger, guest, owner = Client(), Client(), Client()
    stranger.cookies["sessionid"] = session_cookie(people.carol())
    owner.cookies["sessionid"] = session_cookie(reply.user)
    address = f"/chat/replies/{reply.pk}/stream"
    assert stranger.get(address).status_code == 404
    assert guest.get(address).status_code == 404
    assert owner.get("/chat/replies/msg_%00/stream").status_code == 404
    assert owner.post(address).status_code == 405
    assert owner.get(address, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert owner.get(address, headers={"Sec-Fetch-Site": "same-site"}).status_code == 403
    answer = owner.get(address, headers={"Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/event-stream")


def _delete_once_written(person: User, turn: turns.Turn) -> None:
    until(lambda: stream.text(turn.reply.pk, 1))
    sessions.delete(sessions.get(person, turn.session.pk))
