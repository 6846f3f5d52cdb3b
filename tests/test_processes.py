"""The whole way over the product's real processes: without JavaScript, with many watchers, and with workers that die."""

import os
import re
import signal
import time
from typing import Any

import pytest
from django.conf import settings

from chat import stream
from chat.models import Message
from tests import people
from tests.clock import in_time
from tests.product import Product
from tests.screen import letters_of
from tests.stories_of_chat import (
    assert_books_are_right,
    available,
    calls_of,
    ending_of,
    fresh,
    held,
    until,
)
from tests.visits import drawn, lines_of, send, watched


def test_without_javascript_a_message_is_sent_answered_and_paid_for(product: Product) -> None:
    alice = people.alice()
    visitor = product.signed_in(alice)
    visitor.headers["Accept-Language"] = "en"
    home = visitor.get("/").text
    turn = re.search(r'name="turn" value="(trn_\w+)"', home)
    assert turn, "the composer has no turn"
    reply = send(visitor, "Tell me a story", "sim-slow-40x100ms", turn=turn[1])
    chat = f"/chat/{reply.session_id}"
    waiting = visitor.get(chat).text
    assert "Look again" in waiting
    assert "Tell me a story" in waiting
    until(lambda: "word40" in visitor.get(chat).text)
    assert "Look again" not in visitor.get(chat).text
    reply = fresh(reply)
    left = f"{10_500 - reply.tokens_used:,}"
    assert left in visitor.get(chat).text
    assert re.search(r"\b0 of|Nothing is held", visitor.get(chat).text)
    receipt = visitor.get(f"/chat/replies/{reply.pk}/receipt").text
    assert f"{reply.tokens_used}" in letters_of(receipt)
    assert "sim-slow-40x100ms" in visitor.get("/usage").text
    assert left in visitor.get("/billing").text
    assert ending_of(reply) == "post"


def test_a_page_is_drawn_by_its_stream_and_a_second_one_sees_the_same(product: Product) -> None:
    visitor = product.signed_in(people.alice())
    reply = send(visitor, "Tell me a story", "sim-slow-60x25ms", turn="one")
    with watched(visitor, reply) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-cache"
        until(lambda: stream.text(reply.pk, 1).count(" ") > 10)
        with watched(visitor, reply) as other:
            second = drawn(lines_of(other))
        first = drawn(lines_of(answer))
    assert first.drawn[-1] == second.drawn[-1] == "done"
    assert first.article == second.article
    assert "word60" in first.article
    assert second.letters.startswith("word1word2")


def test_more_people_watch_than_there_are_connections_to_the_database(product: Product) -> None:
    alice = people.alice()
    visitor = product.signed_in(alice)
    reply = send(visitor, "Tell me a story", "sim-slow-100x40ms", rate=0, turn="one")
    watching = [watched(product.signed_in(alice), reply) for _each in range(30)]
    try:
        streams = [lines_of(answer) for answer in watching]
        assert all(next(lines).startswith("retry: ") for lines in streams)
        began = time.monotonic()
        assert visitor.get("/usage").status_code == 200
        in_time(time.monotonic() - began, 3)
        assert [drawn(lines).is_done for lines in streams] == [True] * 30
    finally:
        for answer in watching:
            answer.close()


def test_nobody_else_watches(product: Product) -> None:
    reply = send(product.signed_in(people.alice()), "Tell me", "sim-words-5", turn="one")
    address = f"/chat/replies/{reply.pk}/stream"
    assert product.signed_in(people.carol()).get(address).status_code == 404
    assert product.visitor().get(address).status_code == 404


def test_after_redis_forgot_everything_the_next_message_is_answered(product: Product) -> None:
    visitor = product.signed_in(people.alice())
    slow = send(visitor, "Tell me a story", "sim-slow-60x40ms", turn="one")
    until(lambda: stream.text(slow.pk, 1))
    for key in stream.client().scan_iter(f"{settings.REDIS_PREFIX}*", count=1000):
        stream.client().delete(key)
    began = time.monotonic()
    quick = send(visitor, "And another", "sim-words-5", turn="two")
    until(lambda: fresh(quick).state == "complete", within_s=20)
    in_time(time.monotonic() - began, 5)
    with watched(visitor, slow) as answer:
        screen = drawn(lines_of(answer))
    assert "word60" in screen.article
    assert fresh(slow).content.split() == [f"word{number}" for number in range(1, 61)]


@pytest.mark.slow
def test_a_killed_worker_leaves_no_reply_without_an_end_and_no_hold(product: Product) -> None:
    """What was shown stays and costs nothing; what nobody saw is written by the next worker."""
    alice = people.alice()
    visitor = product.signed_in(alice)
    shown = send(visitor, "Tell me a story", "sim-slow-900x50ms", turn="shown")
    unseen = send(visitor, "Tell me another", "sim-words-5-delay-2000", turn="unseen")
    asked = len(product.simulator.requests)
    until(lambda: fresh(shown).content and fresh(unseen).state == "streaming")
    watching = watched(visitor, shown)
    _kill(product, "worker")
    killed_at = time.monotonic()
    while fresh(shown).state == "streaming" or fresh(unseen).state in Message.OPEN:
        product.processes.tend()
        time.sleep(0.1)
        assert time.monotonic() - killed_at < 45
    shown, unseen = fresh(shown), fresh(unseen)
    assert (shown.state, shown.error_kind, shown.tokens_used) == ("interrupted", "worker_died", 0)
    assert re.fullmatch(r"(word\d+ )+(w|wo|wor|word\d*)?", shown.content)
    assert ending_of(shown) == "void"
    assert (unseen.state, unseen.attempts, unseen.content) == (
        "complete",
        2,
        "word1 word2 word3 word4 word5 ",
    )
    assert [call.status for call in calls_of(unseen)] == ["interrupted", "complete"]
    assert len(product.simulator.requests) >= asked
    assert (available(alice), held(alice)) == (10_500 - unseen.tokens_used, 0)
    assert_books_are_right()
    with watching as answer:
        screen = drawn(lines_of(answer))
    assert 'data-state="interrupted"' in screen.article
    product.wait_until_ready()


def _kill(product: Product, name: str) -> None:
    (child,) = [child for child in product.processes.all if child.name == name]
    process: Any = child.process
    os.kill(process.pid, signal.SIGKILL)
    process.wait(5)
