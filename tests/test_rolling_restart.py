"""A new version comes while people read: each process is stopped as soon as its successor is there, and nobody notices."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import pytest
import requests
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from aleph.accounts.models import User
from aleph.celery import app
from aleph.children import Child, Children
from aleph.run import BASE_DIR, commands, what_is_missing
from chat.models import Message
from tests import people
from tests.balancer import Balancer
from tests.browser import Browser
from tests.clock import Late
from tests.product import Product, Visitor, free_port, simulated_model
from tests.programs import ROOT, events_of
from tests.screen import Screen, letters_of
from tests.stories_of_chat import assert_books_are_right, available, calls_of, ending_of, fresh, held, until
from tests.visits import lines_of, send

LONG = "sim-slow-400x50ms"
"""Twenty seconds, as long as a worker that is asked to go may go on: a reply that both restarts happen in the middle of."""
WORDS = [f"word{number}" for number in range(1, 401)]


class Fleet:
    """The product's processes and their successors."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.port = product.port
        self.fresh: list[Children] = []
        self.asked: list[Child] = []
        """Those that were asked to go."""

    def successor(self, name: str, command: list[str]) -> Children:
        children = Children(
            {name: command}, env=self.product.environment(), folder=BASE_DIR, say=self.product.note
        )
        children.start()
        self.fresh.append(children)
        return children

    def roll_worker(self) -> None:
        """The next worker is there before the one before is asked to go."""
        old = self.child("worker")
        name = f"worker{len(self.fresh)}"
        command = [f"{name}@%h" if part == "worker@%h" else part for part in commands(self.port)["worker"]]
        self.successor(name, command)
        until(lambda: name in workers_that_answer(), within_s=60)
        self.let_go(old)

    def prepare_web(self) -> int:
        """The port of the next web process, which nobody is led to yet."""
        port = free_port()
        self.successor("web", commands(port)["web"])
        until(lambda: not what_is_missing(port), within_s=60)
        return port

    def roll_web(self, balancer: Balancer, port: int) -> None:
        """Nobody else is led to a process once it is asked to go: what waits at its door then is not answered."""
        old = self.child("web")
        balancer.ports = (port,)
        self.let_go(old)

    def let_go(self, child: Child) -> None:
        assert child.process is not None
        child.process.terminate()
        self.asked.append(child)

    def child(self, name: str) -> Child:
        return next(child for child in self.product.processes.all if child.name == name)

    def come_back(self) -> None:
        """The processes that other stories expect."""
        for child in self.asked:
            assert child.process is not None
            assert child.process.wait(30) in (0, -15), f"{child.name} did not end as it was asked to"
        for children in self.fresh:
            children.stop(patience_s=15)
        while not all(child.is_alive for child in self.product.processes.all):
            self.product.processes.tend()
            time.sleep(0.05)
        self.product.wait_until_ready()


def workers_that_answer() -> set[str]:
    return {name.partition("@")[0] for answer in app.control.ping(timeout=0.5) or [] for name in answer}


@pytest.fixture
def fleet(product: Product) -> Iterator[Fleet]:
    fleet = Fleet(product)
    yield fleet
    fleet.come_back()


@pytest.fixture
def balancer(product: Product) -> Iterator[Balancer]:
    with Balancer(product.port) as balancer:
        yield balancer


@contextmanager
def beside(act: Callable[[], None]) -> Iterator[None]:
    """`act` goes on in a thread of its own, and is over when the block is left."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield
    thread.join(60)
    assert not thread.is_alive()
    assert faults == []


def follow(visitor: Visitor, reply: Message, screen: Screen, connections: list[str]) -> None:
    """As the page does: read the stream, and come back as often as it ends before its end."""
    while not screen.is_done:
        with visitor.get(f"/chat/replies/{reply.pk}/stream", stream=True) as answer:
            assert answer.status_code == 200
            event, last = "", ""
            for line in lines_of(answer):
                event += line + "\n"
                if line.startswith("event: "):
                    last = line.removeprefix("event: ")
                elif not line:
                    if last != "reconnect":
                        screen.take(event)
                    event = ""
            connections.append(last)
        time.sleep(1)  # what the stream tells browsers to wait at least


@dataclass
class Heard:
    """A reply as a program hears it that comes back as often as its stream breaks off."""

    reply_id: str = ""
    text: str = ""
    is_over: bool = False

    def listen(self, program: Visitor, address: str) -> None:
        as_events: Any = {"headers": {"Accept": "text/event-stream"}, "stream": True}
        answer = program.post(address, json={"content": "Tell me, too"}, **as_events)
        while not self.is_over:
            with answer, suppress(requests.RequestException):
                self.take(answer)
            answer = program.get(f"{address}/{self.reply_id}", **as_events)
        answer.close()

    def take(self, answer: requests.Response) -> None:
        for name, data in events_of(answer):
            if name == "start":
                self.reply_id = data["messageId"]
            elif name == "delta":
                self.text = self.text[: data["offset"]] + data["text"]
            else:
                self.is_over = name == "done"


def visitor_at(balancer: Balancer, product: Product, person: User) -> Visitor:
    visitor = product.signed_in(person)
    visitor.url = balancer.url
    return visitor


def program_at(balancer: Balancer, product: Product, person: User) -> Visitor:
    program = product.program(person)
    program.url = balancer.url
    return program


@pytest.mark.slow
def test_a_new_version_interrupts_no_reply_and_no_reader(
    product: Product, fleet: Fleet, balancer: Balancer
) -> None:
    alice, eva, port = people.alice(), people.alice(), fleet.prepare_web()
    visitor = visitor_at(balancer, product, alice)
    program = program_at(balancer, product, eva)
    read = send(visitor, "Tell me a story", LONG, turn="read")
    unread = send(visitor, "Tell me another", LONG, turn="unread")
    chat = program.post(
        f"{ROOT}/sessions", json={"serviceType": "external_llm", "model": simulated_model(LONG)}
    )
    address = f"{ROOT}/sessions/{chat.json()['data']['id']}/messages"
    screen, connections = Screen(), list[str]()
    heard = Heard()
    with (
        beside(lambda: follow(visitor, read, screen, connections)),
        beside(lambda: heard.listen(program, address)),
    ):
        until(lambda: all(fresh(reply).content for reply in (read, unread)) and heard.text)
        fleet.roll_worker()
        fleet.roll_web(balancer, port)
        late = send(visitor_at(balancer, product, alice), "And after it", "sim-words-5", turn="late")
        if fresh(read).state != "streaming":
            raise Late("both restarts were to happen while the reply is written")
        until(lambda: fresh(late).state == "complete")
    assert connections == ["reconnect", "done"]
    assert "".join(WORDS).startswith(screen.letters)
    assert "".join(WORDS) in letters_of(screen.article)
    asked = Message.objects.get(pk=heard.reply_id)
    assert heard.text.split() == WORDS
    for reply in (read, unread, asked):
        reply = fresh(reply)
        assert (reply.state, reply.attempts, reply.content.split()) == ("complete", 1, WORDS)
        assert ending_of(reply) == "post"
        assert [call.status for call in calls_of(reply)] == ["complete"]
    spent = sum(fresh(reply).tokens_used for reply in (read, unread, late))
    assert (available(alice), held(alice)) == (10_500 - spent, 0)
    assert (available(eva), held(eva)) == (10_500 - fresh(asked).tokens_used, 0)
    assert_books_are_right()


@pytest.mark.slow
def test_a_page_goes_on_by_itself(
    product: Product, fleet: Fleet, balancer: Balancer, installed_chromium: Chromium
) -> None:
    alice, port = people.alice(), fleet.prepare_web()
    reply = send(product.signed_in(alice), "Tell me a story", LONG, turn="one")
    browser = Browser(installed_chromium, cast(Product, SimpleNamespace(url=balancer.url)))
    try:
        page = browser.page(user=alice)
        page.goto(f"/chat/{reply.session_id}")
        article = page.locator(f"#{reply.pk}")
        expect(article.locator(".prose--open")).to_contain_text("word9")
        fleet.roll_web(balancer, port)
        expect(article).to_have_attribute("data-state", "complete", timeout=40_000)
        expect(article.locator(".prose")).to_have_text(" ".join(WORDS))
        assert fresh(reply).state == "complete"
    finally:
        browser.close()
    assert [text for text in browser.complaints if "[object Event]" not in text] == []
