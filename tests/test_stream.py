"""Text on its way through Redis: what is lost there is noticed, and nothing is doubled."""

import asyncio
import itertools
import json
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from aleph import ids
from chat import stream
from chat.stream import Tail


def publish(reply_id: str, text: str, *, whole: str, epoch: int = 1) -> None:
    """Send a piece of a reply at the place where it stands in the whole."""
    offset = whole.index(text)
    byte_offset = len(whole[:offset].encode())
    stream.publisher().append(
        reply_id=reply_id, user_id=1, epoch=epoch, offset=offset, byte_offset=byte_offset, text=text
    )
    stream.publisher().flush()


def forget_everything() -> None:
    """Redis as after FLUSHALL, as far as this test session is concerned."""
    for key in stream.client().scan_iter(f"{settings.REDIS_PREFIX}*", count=1000):
        stream.client().delete(key)


@pytest.fixture
def redis_away(settings: Any) -> Iterator[Callable[[], None]]:
    """Call it, and from then on no connection to Redis is made any more from here. What is connected stays so."""

    def go() -> None:
        settings.REDIS_URL = "unix:///nowhere/redis.sock"
        stream.client.cache_clear()

    yield go
    stream.client.cache_clear()


def told(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


# A tail: what a web process knows of a reply


def test_pieces_in_their_order_are_the_text() -> None:
    tail = Tail("r")
    for offset, piece in [(0, "Once "), (5, "upon "), (10, "a time")]:
        tail.take(1, offset, piece)
    assert (tail.text, tail.gap) == ("Once upon a time", False)


def test_a_piece_that_comes_twice_is_taken_once() -> None:
    tail = Tail("r")
    tail.take(1, 0, "Once ")
    tail.take(1, 0, "Once ")
    tail.take(1, 3, "e upon")
    tail.take(1, 0, "On")
    assert (tail.text, tail.gap) == ("Once upon", False)


def test_a_missing_piece_is_noticed_and_the_text_waits_for_the_whole() -> None:
    tail = Tail("r")
    tail.take(1, 0, "Once ")
    tail.take(1, 10, "a time")
    assert (tail.text, tail.gap) == ("Once ", True)
    tail.replace(1, "Once upon a time")
    tail.take(1, 16, " there")
    assert tail.text == "Once upon a time there"


def test_a_dead_workers_words_give_way_to_those_of_the_next() -> None:
    tail = Tail("r")
    tail.take(1, 0, "Once ")
    tail.take(3, 0, "There was")
    tail.take(1, 5, "upon")
    assert (tail.text, tail.epoch) == ("There was", 3)


def test_a_shorter_text_replaces_nothing() -> None:
    tail = Tail("r")
    tail.take(2, 0, "Once upon")
    tail.replace(2, "Once")
    tail.replace(1, "Something else, and longer")
    assert tail.text == "Once upon"


@given(
    whole=st.text(min_size=1, max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=12),
    data=st.data(),
)
def test_whatever_is_lost_or_doubled_a_tail_holds_a_beginning_of_the_text(
    whole: str, cuts: list[int], data: st.DataObject
) -> None:
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    pieces = [(start, whole[start:end]) for start, end in itertools.pairwise(places)]
    tail = Tail("r")
    for offset, piece in pieces:
        for _time in range(data.draw(st.integers(0, 2))):
            tail.take(1, offset, piece)
        if tail.gap and data.draw(st.booleans()):
            tail.gap = False
            tail.replace(1, whole[: offset + len(piece)])
        assert whole.startswith(tail.text)
    tail.replace(1, whole)
    assert tail.text == whole


# The text as Redis keeps it


def test_the_text_so_far_can_be_read_at_any_time() -> None:
    reply_id, whole = ids.new("msg"), "Dahulu kala 🌏 ada seekor kancil"
    publish(reply_id, "Dahulu kala 🌏", whole=whole)
    assert stream.text(reply_id, 1) == "Dahulu kala 🌏"
    publish(reply_id, " ada seekor kancil", whole=whole)
    assert stream.text(reply_id, 1) == whole
    assert stream.text(reply_id, 2) == ""


def test_behind_a_lost_write_nothing_is_believed_until_it_is_repeated() -> None:
    reply_id, whole = ids.new("msg"), "abc défghi"
    publish(reply_id, "abc ", whole=whole)
    publish(reply_id, "ghi", whole=whole)
    assert stream.text(reply_id, 1) == "abc "
    publish(reply_id, "déf", whole=whole)
    assert stream.text(reply_id, 1) == whole


def test_a_text_does_not_stay_in_redis_for_ever() -> None:
    reply_id, whole = ids.new("msg"), "Once upon a time"
    publish(reply_id, "Once ", whole=whole)
    (key,) = _keys_of(reply_id)
    assert 0 < stream.client().ttl(key) <= stream.TEXT_SECONDS
    stream.client().delete(key)
    publish(reply_id, "upon a time", whole=whole)
    stream.end(reply_id, 1, user_id=1)
    assert 0 < stream.client().ttl(key) <= stream.ENDED_SECONDS


def _keys_of(reply_id: str) -> list[bytes]:
    return list(stream.client().scan_iter(f"{settings.REDIS_PREFIX}text:{reply_id}:*", count=1000))


def test_two_workers_of_one_reply_do_not_mix_their_words() -> None:
    reply_id = ids.new("msg")
    publisher = stream.publisher()
    for epoch, text in [(1, "old"), (3, "new words")]:
        publisher.append(reply_id=reply_id, user_id=1, epoch=epoch, offset=0, byte_offset=0, text=text)
    publisher.append(reply_id=reply_id, user_id=1, epoch=1, offset=3, byte_offset=3, text=" and older")
    publisher.flush()
    assert (stream.text(reply_id, 1), stream.text(reply_id, 3)) == ("old and older", "new words")


def test_the_longer_sending_takes_the_rarer_text_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FLUSH_SHARE", 1e-9)  # as if it took for ever
    reply_id = ids.new("msg")
    relay: Any = stream.client()
    before = relay.xrevrange(stream.LIVE, count=1)
    began = time.monotonic()
    for nth in range(60):
        stream.publisher().append(
            reply_id=reply_id, user_id=1, epoch=1, offset=nth, byte_offset=nth, text="a"
        )
        time.sleep(0.005)
    stream.publisher().flush()
    took_s = time.monotonic() - began
    since = f"({before[0][0].decode()}" if before else "-"
    sent = [json.loads(entry[b"d"]) for _id, entry in relay.xrange(stream.LIVE, min=since)]
    assert stream.text(reply_id, 1) == "a" * 60
    assert 2 <= len(sent) <= took_s / stream.LONGEST_FLUSH_SECONDS + 3


def test_without_redis_nothing_is_read_and_nothing_breaks(redis_away: Callable[[], None]) -> None:
    reply_id = ids.new("msg")
    redis_away()
    publish(reply_id, "Once", whole="Once")
    stream.end(reply_id, 1, user_id=1)
    assert stream.text(reply_id, 1) == ""
    assert not stream.ping()


# The hub: one reader for all who watch in a process


async def news(tail: stream.Tail) -> None:
    """Until something is known of a reply that was not."""
    before = (tail.text, tail.ended, tail.epoch, tail.gap)
    async with asyncio.timeout(2):
        while before == (tail.text, tail.ended, tail.epoch, tail.gap):
            await tail.changed()


def test_who_follows_has_what_was_and_gets_what_comes() -> None:
    reply_id, whole = ids.new("msg"), "Once upon a time"

    async def story() -> None:
        publish(reply_id, "Once ", whole=whole)
        async with stream.hub().follow(reply_id, 1) as tail:
            assert tail.text == "Once "
            publish(reply_id, "upon a time", whole=whole)
            await news(tail)
            assert tail.text == whole
            stream.end(reply_id, 1, user_id=1)
            await news(tail)
            assert tail.ended

    told(story)


def test_who_comes_after_the_next_worker_began_does_not_see_the_words_of_the_first() -> None:
    """Also where somebody else in the process still watches with what the first had written."""
    reply_id = ids.new("msg")

    async def story() -> None:
        publish(reply_id, "Old words", whole="Old words")
        async with stream.hub().follow(reply_id, 1), stream.hub().follow(reply_id, 3) as tail:
            assert tail.text == ""
            publish(reply_id, "New words, and more of them", whole="New words, and more of them", epoch=3)
            await news(tail)
            assert tail.text == "New words, and more of them"

    told(story)


def test_a_flushed_redis_is_read_on_where_it_begins_again() -> None:
    reply_id, whole = ids.new("msg"), "Once upon a time"

    async def story() -> None:
        async with stream.hub().follow(reply_id, 1) as tail:
            publish(reply_id, "Once ", whole=whole)
            await news(tail)
            forget_everything()
            await asyncio.sleep(0.01)  # what Redis counts in a millisecond, it counts anew
            publish(reply_id, "upon ", whole=whole)
            await news(tail)
            assert tail.text == "Once upon "

    told(story)


def test_a_missed_entry_is_made_good_from_the_text_so_far() -> None:
    reply_id, whole = ids.new("msg"), "Once upon a time"

    async def story() -> None:
        async with stream.hub().follow(reply_id, 1) as tail:
            tail.take(1, 5, "upon ")
            assert (tail.gap, tail.text) == (True, "")
            publish(reply_id, "Once upon ", whole=whole)
            await stream.hub().refill(tail)
            assert (tail.gap, tail.text) == (False, "Once upon ")

    told(story)


def test_nothing_is_kept_of_a_reply_that_nobody_watches_any_more() -> None:
    reply_id = ids.new("msg")

    async def story() -> None:
        async with stream.hub().follow(reply_id, 1) as first, stream.hub().follow(reply_id, 1) as second:
            assert first is second
        async with stream.hub().follow(reply_id, 1) as third:
            assert third is not first

    told(story)


def test_many_who_come_at_once_all_get_the_text() -> None:
    reply_ids = [ids.new("msg") for _each in range(200)]
    for reply_id in reply_ids:
        publish(reply_id, "Once", whole="Once")

    async def watch(reply_id: str) -> str:
        async with stream.hub().follow(reply_id, 1) as tail:
            return tail.text

    async def story() -> None:
        assert await asyncio.gather(*map(watch, reply_ids)) == ["Once"] * 200

    told(story)


def test_a_process_that_is_told_to_go_does_not_wait_for_the_reader_of_the_stream() -> None:
    """Redis's client loses a cancellation that comes together with an answer."""
    reply_id = ids.new("msg")

    async def story() -> None:
        async with stream.hub().follow(reply_id, 1):
            await asyncio.sleep(0.02)
        for _each in range(3):
            publish(reply_id, "Once", whole="Once")

    def go_several_times() -> None:
        for _time in range(10):
            told(story)

    process = threading.Thread(target=go_several_times, daemon=True)
    process.start()
    process.join(15)
    assert not process.is_alive()
