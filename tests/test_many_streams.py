"""What was streamed, what a reload shows and what is stored are the same, over many streams with random reloads and faults.

`TEST_DEPTH=125` watches a thousand replies (`tests.depth`); the seed of each is its number.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import cast

import pytest
import structlog
from django.db import connection
from django.utils import translation

from aleph import ids
from aleph.threads import in_thread
from chat import api, turns
from chat.models import Message
from chat.render import render
from tests import people
from tests.crowd import at_once, failures, successes
from tests.depth import DEPTH
from tests.screen import Screen, article_of, letters_of
from tests.stories_of_chat import fresh, special_model, worker
from tests.watching import MARKDOWN, forget_everything, page_of, seen_by_a_page, told_story

pytestmark = pytest.mark.usefixtures("committed", "simulator")

log = structlog.get_logger(__name__)
AT_ONCE = 8
"""Replies that are watched at the same time: a process has twelve connections, and a story takes one and now and then more."""
STREAMS = AT_ONCE * DEPTH
SCRIPTS = {
    "sim-echo-pace-15": 8,
    "sim-words-60-pace-25": 3,
    "sim-words-40-pace-25-length": 2,
    "sim-cut-25-pace-30": 2,
    "sim-midstream-error-pace-60": 1,
    "sim-garbage-pace-20": 1,
    "sim-words-5": 1,
    "sim-error-500": 1,
}


@dataclass
class Reader:
    """Somebody who reads one reply by page and by program, and comes and goes as he likes."""

    reply: Message
    chance: Random
    reloads: int = 0
    screen: Screen = field(default_factory=Screen)
    finished: list[str] = field(default_factory=list)
    """The finished blocks that each visit of the page saw last."""
    told: str = ""
    state: str = ""

    async def reads(self) -> None:
        with translation.override("en"):
            await asyncio.gather(self.watch_page(), self.listen(), self.meddle())

    async def watch_page(self) -> None:
        while not self.screen.is_done:
            patience = self.chance.randint(1, 8)
            row = await in_thread(lambda: fresh(self.reply))
            self.screen = Screen()
            await seen_by_a_page(row, self.screen, enough=partial(is_enough, patience=patience))
            self.finished.append(letters_of(self.screen.blocks))
            self.reloads += not self.screen.is_done
            await asyncio.sleep(self.chance.random() * 0.2)

    async def listen(self) -> None:
        while not self.state:
            patience, text = self.chance.randint(1, 8), ""
            row = await in_thread(lambda: fresh(self.reply))
            waiting = api.Pending(row, row.session, row.user, as_stream=True)
            async with aclosing(cast(AsyncGenerator[str, None], api.streamed(waiting))) as events:
                async for event in events:
                    patience -= 1
                    name, _, data = event.partition("\n")
                    if name == "event: delta":
                        delta = json.loads(data.strip().removeprefix("data: "))
                        assert delta["offset"] <= len(text)
                        text = text[: delta["offset"]] + delta["text"]
                    elif name in ("event: done", "event: error"):
                        body = json.loads(data.strip().removeprefix("data: "))["data"]
                        self.told, self.state = text, body["state"]
                        assert text == body["content"]
                    elif patience < 0:
                        break
            self.reloads += not self.state

    async def meddle(self) -> None:
        """Stop it, or have Redis forget everything; mostly neither."""
        deed = self.chance.random()
        await asyncio.sleep(self.chance.random())
        if deed < 0.15:
            await in_thread(partial(turns.stop, user=self.reply.user, reply_id=self.reply.pk))
        elif deed < 0.22:
            await in_thread(forget_everything)


def is_enough(seen: Screen, *, patience: int) -> bool:
    return len(seen.drawn) >= patience and not seen.is_done


def story(seed: int) -> Reader:
    chance = Random(seed)
    script = chance.choices([*SCRIPTS], [*SCRIPTS.values()])[0]
    # A model of its own, so that the failures of one do not close the way to the others.
    model = special_model(ids.new("sim").lower(), script=script).slug
    text = MARKDOWN * chance.randint(1, 3) + f"\n{seed}"
    turn = turns.start(user=people.alice(), session=None, text=text, model_slug=model, turn=ids.new("trn"))
    reader = Reader(fresh(turn.reply), chance)
    # While it is watched a story needs none of the process's connections, of which there are fewer than stories.
    connection.close()
    with worker(turn):
        told_story(reader.reads)
    stored = fresh(turn.reply)
    assert (reader.told, reader.state) == (stored.content, stored.state), script
    with translation.override("en"):
        whole = letters_of(render(stored.content))
    assert [seen for seen in reader.finished if not whole.startswith(seen)] == [], script
    assert seen_in(reader.screen.article) == seen_in(article_of(page_of(stored))), script
    return reader


def seen_in(article: str) -> str:
    """What is read in it. Its forms carry ids of their own each time they are drawn, and some of it counts down."""
    return re.sub(r"\d+seconds?", "", letters_of(article))


def test_streamed_reloaded_and_stored_are_the_same_whatever_happens_in_between() -> None:
    began = time.monotonic()
    stories = [partial(story, seed) for seed in range(STREAMS)]
    waves = [stories[first : first + AT_ONCE] for first in range(0, STREAMS, AT_ONCE)]
    outcomes = [outcome for wave in waves for outcome in at_once(wave)]
    assert failures(outcomes) == []
    readers = successes(outcomes)
    reloads = sum(reader.reloads for reader in readers)
    log.info(
        "watched",
        replies=len(readers),
        reloads=reloads,
        states=Counter(reader.state for reader in readers),
        seconds=round(time.monotonic() - began),
    )
    assert reloads >= len(readers) / 2
