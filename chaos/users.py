"""People who use the product while it is being killed: by page and by API, in two tabs, impatiently.

They send, stop, reload, leave and come back, try again, say it otherwise, go on with what was cut off, buy with double
clicks, spend more than they have, delete chats, and look where they have no business. Each of them insists until he got an
answer, as people do, and remembers what it was.
"""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import requests

from chaos.client import Client, words_of
from chaos.memory import Acknowledged, Bought, Memory, Shown

PATIENCE_S = 150.0
"""How long somebody insists before he complains that nothing happens."""
PAUSE_S = 0.3
OPEN = ("queued", "streaming")
WORDS = (
    "apa",
    "kabar",
    "hari",
    "ini",
    "saya",
    "mau",
    "tanya",
    "soal",
    "hujan",
    "sawah",
    "kopi",
    "kereta",
    "pasar",
)
REPLY = re.compile(r'<article class="message message--reply" id="(msg_\w{26})" data-state="(\w+)"')
SNAPSHOT = re.compile(
    r'<div class="prose" id="\w+-blocks">(.*)</div><div class="prose prose--open" id="\w+-open">(.*)</div>',
    re.DOTALL,
)
SESSION = re.compile(r"/chat/(cht_\w{26})")
PURCHASE = re.compile(r"/billing/purchases/(buy_\w{26})")
CHATS_KEPT = 8

Events = Generator[tuple[str, str], None, None]


@dataclass(frozen=True, slots=True)
class Place:
    """A reply and the chat that it stands in. `is_rest`: it goes on with another one, whose text stands before its own."""

    chat: str
    reply: str
    is_rest: bool = False


@dataclass(slots=True)
class Watch:
    """What somebody has seen of a reply so far, and until when he wants to look."""

    place: Place
    leaves_at: float | None = None
    reloads_at: float | None = None
    text: str = ""
    seen_at: float = field(default_factory=time.time)
    gives_up_at: float = field(default_factory=lambda: time.monotonic() + PATIENCE_S)

    def is_left(self) -> bool:
        return self.leaves_at is not None and time.monotonic() > self.leaves_at

    def is_reloaded(self) -> bool:
        if self.reloads_at is None or time.monotonic() < self.reloads_at:
            return False
        self.reloads_at = None
        return True


class Person(threading.Thread):
    """`stop` ends the beginning of new things; what was begun is followed to its end."""

    def __init__(
        self,
        record: dict[str, Any],
        *,
        models: dict[str, list[str]],
        url: str,
        memory: Memory,
        random: Random,
    ) -> None:
        super().__init__(name=f"person-{record['id']}", daemon=True)
        self.record = record
        self.models = models
        self.url = url
        self.memory = memory
        self.random = random
        self.client = Client(url, record, memory)
        self.chats: list[str] = []
        self.unfinished: list[Place] = []
        self.others: list[Place] = []
        """Places of somebody else, to look at in vain."""
        self.stop = threading.Event()
        self.is_poor = False

    def run(self) -> None:
        usual: list[tuple[Callable[[], None], int]] = [
            (self.say_something, 60),
            (self.come_back, 12),
            (self.buy, 5),
            (self.look_around, 8),
            (self.trespass, 4),
            (self.delete_a_chat, 3),
            (self.spend_more_than_there_is, 30 if self.is_poor else 1),
        ]
        actions, weights = zip(*usual, strict=True)
        while not self.stop.is_set():
            try:
                self.random.choices(actions, weights)[0]()
            except Exception as problem:
                self.memory.complain("the runner", f"{self.name} fell over: {problem!r}")
            self.stop.wait(self.random.uniform(0.1, 1.2))
        while self.unfinished:
            self.watch(Watch(self.unfinished.pop()))

    # Talking

    def say_something(self) -> None:
        chat = self.chat()
        if chat is None:
            return
        kind = self.random.choices(("good", "free", "faulty", "silent"), (72, 10, 13, 5))[0]
        model = self.random.choice(self.models[kind])
        text, turn = self.words()
        way = self.random.choices(
            (self.send_as_program, self.send_by_htmx, self.send_plainly, self.send_twice, self.send_and_wait),
            (35, 30, 10, 15, 10 if kind != "silent" else 0),
        )[0]
        way(chat, text, model, turn, must_stop=kind == "silent")

    def words(self) -> tuple[str, str]:
        turn = f"turn-{self.record['id']}-{secrets.token_hex(5)}"
        said = self.random.choices(WORDS, k=self.random.randint(4, 50))
        return " ".join([f"who-{self.record['id']}-", turn, *said]), turn

    def manner(self, place: Place, *, must_stop: bool) -> Watch:
        """How somebody behaves while he reads: he may press Stop, reload, or leave."""
        watch, now = Watch(place), time.monotonic()
        if must_stop or self.random.random() < 0.15:
            timer = threading.Timer(self.random.uniform(0, 5), self.press_stop, (place,))
            timer.daemon = True
            timer.start()
        if self.random.random() < 0.25:
            watch.reloads_at = now + self.random.uniform(0.1, 3)
        if not must_stop and self.random.random() < 0.6:
            watch.leaves_at = now + self.random.uniform(0, 3)
        return watch

    def send_as_program(self, chat: str, text: str, model: str, turn: str, *, must_stop: bool) -> None:
        said = {"content": text, "model": model}
        response = self.insist(
            turn,
            lambda client: client.program(
                "POST", f"/sessions/{chat}/messages", said=said, key=turn, stream=True
            ),
        )
        if response is None:
            return
        events = self.client.events(response, f"stream of {turn}")
        name, data = next(events, ("", ""))
        if name != "start":  # it broke off: the same turn again brings us back to the same reply
            self.send_as_program(chat, text, model, turn, must_stop=must_stop)
            return
        place = Place(chat, json.loads(data)["messageId"])
        self.acknowledged(turn, text, place)
        watch = self.manner(place, must_stop=must_stop)
        if self.random.random() < 0.15:
            self.in_a_second_tab(place)
        if not self._read_as_program(watch, events):
            self.watch(watch)

    def send_and_wait(self, chat: str, text: str, model: str, turn: str, *, must_stop: bool) -> None:
        """The API without a stream: one answer, when the reply is over."""
        said = {"content": text, "model": model}
        response = self.insist(
            turn, lambda client: client.program("POST", f"/sessions/{chat}/messages", said=said, key=turn)
        )
        if response is None:
            return
        found = response.json()["data"]
        self.acknowledged(turn, text, Place(chat, found["messageId"]))
        self.memory.show(Shown(chat, found["messageId"], found["state"], found["content"], None))

    def send_by_htmx(self, chat: str, text: str, model: str, turn: str, *, must_stop: bool) -> None:
        said = {"text": text, "model": model, "turn": turn}
        response = self.insist(
            turn, lambda client: client.page("POST", f"/chat/{chat}/turns", said=said, htmx=True)
        )
        place = None if response is None else self.place_in(response.text, chat, f"htmx answer to {turn}")
        if place is None:
            return
        self.acknowledged(turn, text, place)
        if self.random.random() < 0.15:
            self.in_a_second_tab(place)
        watch = self.manner(place, must_stop=must_stop)
        self.watch_page(watch) if self.random.random() < 0.8 else self.watch(watch)

    def send_plainly(self, chat: str, text: str, model: str, turn: str, *, must_stop: bool) -> None:
        """A browser without JavaScript: a new chat, a redirect, and a page that reloads itself."""
        said = {"text": text, "model": model, "turn": turn}
        response = self.insist(turn, lambda client: client.page("POST", "/chat/turns", said=said))
        if response is None:
            return
        moved = SESSION.search(response.headers.get("Location", ""))
        if moved is None:
            self.memory.complain("I7", f"{turn} was answered by {response.status_code} without a place")
            return
        chat = moved[1]
        self.chats.append(chat)
        page = self.until_answered(lambda: self.client.page("GET", f"/chat/{chat}"))
        place = None if page is None else self.place_in(page.text, chat, f"page of {turn}")
        if place is None:
            return
        self.acknowledged(turn, text, place)
        watch = self.manner(place, must_stop=must_stop)
        while not watch.is_left():
            page = self.until_answered(lambda: self.client.page("GET", f"/chat/{chat}"))
            if page is None or page.status_code == 404:
                return
            states = dict(REPLY.findall(page.text))
            if states.get(place.reply) not in OPEN:
                self.look_at_the_end(watch, states.get(place.reply, ""), page.text)
                return
            time.sleep(1)
        self.unfinished.append(place)

    def send_twice(self, chat: str, text: str, model: str, turn: str, *, must_stop: bool) -> None:
        """A double click, or two tabs: the same turn at the same moment is one message."""
        said = {"text": text, "model": model, "turn": turn}
        places: list[Place] = []

        def click() -> None:
            client = Client(self.url, self.record, self.memory)
            response = self.until_answered(
                lambda: client.page("POST", f"/chat/{chat}/turns", said=said, htmx=True)
            )
            if response is not None and response.status_code == 200:
                place = self.place_in(response.text, chat, f"htmx answer to {turn}")
                places.extend([place] if place else [])
            elif response is not None:
                self.memory.count(f"one of two clicks refused: {response.status_code}")

        self.at_once(click, click)
        if not places:
            return
        if len({place.reply for place in places}) != 1:
            self.memory.complain("I4", f"two clicks on {turn} became {places}")
        self.acknowledged(turn, text, places[0])
        self.watch(self.manner(places[0], must_stop=must_stop))

    def retry(self, place: Place) -> None:
        turn = f"retry-{self.record['id']}-{secrets.token_hex(5)}"
        response = self.until_answered(
            lambda: self.client.page(
                "POST", f"/chat/replies/{place.reply}/retries", said={"turn": turn}, htmx=True
            )
        )
        if response is None or response.status_code != 200:
            return
        again = self.place_in(response.text, place.chat, f"answer to {turn}")
        if again is not None:
            again = replace(again, is_rest=place.is_rest)
            self.memory.count("retries")
            timer = threading.Timer(self.random.uniform(2, 8), self.press_stop, (again,))
            timer.daemon = True
            timer.start()
            self.watch(Watch(again))

    def say_otherwise(self, place: Place) -> None:
        """Edit what led to a reply, by page or by API; it stays, and the edit stands beside it."""
        question = self.question_of(place)
        if question is None:
            return
        text, turn = self.words()
        model = self.random.choice(self.models["good"])
        if self.random.random() < 0.5:
            said = {"content": text, "model": model}
            path = f"/sessions/{place.chat}/messages/{question}/edits"
            self.begin_as_program(path, place.chat, said, turn, text)
        else:
            self.begin_by_page(
                f"/chat/messages/{question}/edits", place.chat, {"text": text, "model": model}, turn, text
            )
        self.memory.count("edits")

    def go_on(self, place: Place) -> None:
        """Ask for the rest of a reply that was cut off, by page or by API."""
        turn = f"rest-{self.record['id']}-{secrets.token_hex(5)}"
        if self.random.random() < 0.5:
            path = f"/sessions/{place.chat}/messages/{place.reply}/continuations"
            self.begin_as_program(path, place.chat, {}, turn)
        else:
            self.begin_by_page(f"/chat/replies/{place.reply}/continuations", place.chat, {}, turn)
        self.memory.count("continuations")

    def begin_as_program(self, path: str, chat: str, said: dict[str, Any], turn: str, text: str = "") -> None:
        """Begin a branch by API, twice where the first answer was lost, and read its reply."""
        response = self.insist(
            turn, lambda client: client.program("POST", path, said=said, key=turn, stream=True)
        )
        if response is None:
            return
        events = self.client.events(response, f"stream of {turn}")
        name, data = next(events, ("", ""))
        if name != "start":
            self.begin_as_program(path, chat, said, turn, text)
            return
        self.follow_branch(Place(chat, json.loads(data)["messageId"]), turn, text)
        events.close()

    def begin_by_page(self, path: str, chat: str, said: dict[str, Any], turn: str, text: str = "") -> None:
        said = {**said, "turn": turn}
        response = self.insist(turn, lambda client: client.page("POST", path, said=said, htmx=True))
        place = None if response is None else self.place_in(response.text, chat, f"htmx answer to {turn}")
        if place is not None:
            self.follow_branch(place, turn, text)

    def follow_branch(self, place: Place, turn: str, text: str) -> None:
        """A branch that begins with a `text` of one's own is a message acknowledged."""
        if text:
            self.acknowledged(turn, text, place)
        place = replace(place, is_rest=not text)
        self.watch(self.manner(place, must_stop=True))

    def question_of(self, place: Place) -> str | None:
        """The message that led to a reply, as the API tells it."""
        response = self.until_answered(
            lambda: self.client.program("GET", f"/sessions/{place.chat}?at={place.reply}")
        )
        if response is None or response.status_code != 200:
            return None
        said = [message["id"] for message in response.json()["data"]["messages"] if message["role"] == "user"]
        return said[-1] if said else None

    def press_stop(self, place: Place) -> None:
        client = Client(self.url, self.record, self.memory)
        self.until_answered(lambda: client.page("POST", f"/chat/replies/{place.reply}/stops", htmx=True))
        self.memory.count("stops pressed")

    def in_a_second_tab(self, place: Place) -> None:
        """Another thread reads the same reply from the beginning."""

        def read() -> None:
            tab = self.tab()
            watch = Watch(place)
            tab.watch_page(watch) if tab.random.random() < 0.5 else tab.watch(watch)

        self.memory.count("second tabs")
        threading.Thread(target=read, daemon=True).start()

    def tab(self) -> "Person":
        """The same person once more, for another thread."""
        tab = Person(
            self.record,
            models=self.models,
            url=self.url,
            memory=self.memory,
            random=Random(self.random.random()),
        )
        tab.stop = self.stop
        return tab

    # Reading

    def watch(self, watch: Watch) -> None:
        """Follow a reply through the API to its end, coming back as often as the line breaks."""
        place = watch.place
        while not self.has_given_up(watch):
            response = self.client.program(
                "GET", f"/sessions/{place.chat}/messages/{place.reply}", stream=True
            )
            if response is not None and response.status_code == 404:
                self.check_gone(place)
                return
            if response is not None and self._read_as_program(
                watch, self.client.events(response, f"stream of {place.reply}")
            ):
                return
            time.sleep(PAUSE_S)

    def _read_as_program(self, watch: Watch, events: Events) -> bool:
        """Read one stream of the API. True when the reply is over, or the reader has gone."""
        text = ""
        for name, data in events:
            if name == "delta":
                delta = json.loads(data)
                if delta["offset"] > len(text):
                    self.memory.complain("I13", f"a hole in the stream of {watch.place.reply} at {len(text)}")
                text = text[: delta["offset"]] + delta["text"]
                self.saw(watch, text)
            elif name in ("done", "error"):
                body = json.loads(data)
                found = body.get("data") or {}
                self.saw_end(watch)
                if "messageId" not in found:
                    self.check_gone(watch.place)
                    return True
                place = watch.place
                self.memory.show(Shown(place.chat, place.reply, found["state"], found["content"], text))
                self.afterwards(place, found["state"])
                return True
            if watch.is_left():
                events.close()
                self.unfinished.append(watch.place)
                self.memory.count("readers who left")
                return True
            if watch.is_reloaded():
                events.close()
                self.memory.count("reloads")
                return False
        return False

    def watch_page(self, watch: Watch) -> None:
        """Follow a reply as its page does, by the events that htmx puts into it."""
        place = watch.place
        while not self.has_given_up(watch):
            response = self.client.page("GET", f"/chat/replies/{place.reply}/stream", stream=True)
            if response is not None and response.status_code == 404:
                self.check_gone(place)
                return
            if response is not None and self._read_page(watch, response):
                return
            time.sleep(PAUSE_S)

    def _read_page(self, watch: Watch, response: requests.Response) -> bool:
        blocks, tail = "", ""
        events = self.client.events(response, f"page stream of {watch.place.reply}")
        for name, data in events:
            if name == "snapshot":
                drawn = SNAPSHOT.fullmatch(data.strip())
                if drawn is None:
                    self.memory.complain("the runner", f"a snapshot of another form: {data[:200]!r}")
                    return False
                blocks, tail = drawn.groups()
            elif name == "block":
                blocks += data
            elif name == "tail":
                tail = data
            if name in ("snapshot", "block", "tail"):
                self.saw(watch, " ".join(words_of(blocks + " " + tail)))
            if name == "done":
                self.saw_end(watch)
                found = dict(REPLY.findall(data))
                if watch.place.reply in found:
                    self.look_at_the_end(watch, found[watch.place.reply], data)
                else:
                    self.check_gone(watch.place)
                return True
            if watch.is_left():
                events.close()
                self.unfinished.append(watch.place)
                self.memory.count("readers who left")
                return True
            if watch.is_reloaded():
                events.close()
                self.memory.count("reloads")
                return False
        return False

    def look_at_the_end(self, watch: Watch, state: str, html: str) -> None:
        """The final page of a reply must say what is stored."""
        place = watch.place
        response = self.until_answered(lambda: self.client.page("GET", f"/chat/replies/{place.reply}/text"))
        if response is None or response.status_code == 404:
            self.check_gone(place)
            return
        if state in OPEN or not state:
            self.memory.complain("I13", f"the end of {place.reply} is shown as {state or 'nothing'}")
            return
        shown = " ".join(words_of(html))
        if " ".join(response.text.split()) not in shown:
            self.memory.complain(
                "I13", f"{place.reply} is shown as {shown[:200]!r}, stored {response.text[:200]!r}"
            )
        if not place.is_rest:
            self.memory.show(Shown(place.chat, place.reply, state, response.text, None))
        self.afterwards(place, state)

    def afterwards(self, place: Place, state: str) -> None:
        if self.stop.is_set():
            return
        if state in ("failed", "interrupted") and self.random.random() < 0.3:
            self.retry(place)
        elif state in ("stopped", "interrupted") and self.random.random() < 0.5:
            self.go_on(place)
        elif self.random.random() < 0.1:
            self.say_otherwise(place)

    def saw(self, watch: Watch, text: str) -> None:
        if text and not watch.text.startswith(text):
            now = time.time()
            self.memory.silent(watch.place.reply, watch.seen_at, now)
            watch.seen_at, watch.text = now, text

    def saw_end(self, watch: Watch) -> None:
        self.memory.silent(watch.place.reply, watch.seen_at, time.time())

    def has_given_up(self, watch: Watch) -> bool:
        if time.monotonic() < watch.gives_up_at:
            return False
        self.memory.complain("an outcome", f"nothing more of {watch.place.reply} in {PATIENCE_S:.0f} s")
        return True

    def check_gone(self, place: Place) -> None:
        if place.chat not in self.memory.deleted:
            self.memory.complain("I7", f"{place.reply} is gone, and nobody deleted {place.chat}")

    def come_back(self) -> None:
        if self.unfinished:
            place = self.unfinished.pop(self.random.randrange(len(self.unfinished)))
            watch = Watch(place)
            self.watch_page(watch) if self.random.random() < 0.3 else self.watch(watch)

    # Everything else

    def buy(self) -> None:
        """A double click on Buy, by page or by API: one purchase, whoever is asked and how often."""
        key, package = f"key-{secrets.token_hex(8)}", "starter"
        self.memory.wants_to_buy(key)
        found: list[str] = []
        by_page = self.random.random() < 0.5

        def click() -> None:
            client = Client(self.url, self.record, self.memory)
            if by_page:
                said = {"package": package, "key": key}
                response = self.until_answered(lambda: client.page("POST", "/billing/purchases", said=said))
                receipt = (
                    PURCHASE.search(response.headers.get("Location", "")) if response is not None else None
                )
                found.extend([receipt[1]] if receipt else [])
            else:
                response = self.until_answered(
                    lambda: client.program("POST", "/tokens/purchase", said={"packageId": package}, key=key)
                )
                if response is not None and response.status_code == 200:
                    found.append(response.json()["data"]["purchaseId"])
            if response is not None and response.status_code == 402:
                self.memory.count("purchases above the wallet")

        self.at_once(click, click)
        if len(set(found)) > 1:
            self.memory.complain("I9", f"two clicks with {key} bought {found}")
        if found:
            self.memory.buy(Bought(key, self.record["id"], found[0]))
            self.memory.count("purchases acknowledged")

    def spend_more_than_there_is(self) -> None:
        """Ask in many chats at the same moment; the balance decides how many of them are admitted."""
        chats = [chat for chat in (self.new_chat() for _ in range(5)) if chat is not None]
        model = self.random.choice(self.models["good"])

        def ask(chat: str) -> Callable[[], None]:
            text, turn = self.words()
            tab = self.tab()
            return lambda: tab.send_as_program(chat, text, model, turn, must_stop=False)

        self.memory.count("attempts to overspend")
        self.at_once(*map(ask, chats))

    def look_around(self) -> None:
        for path in self.random.sample(["/", "/billing", "/usage", "/chat/search?q=who"], 2):
            self.client.page("GET", path)
        if self.chats:
            self.client.page("GET", f"/chat/{self.random.choice(self.chats)}")
        balance = self.client.program("GET", "/tokens/balance")
        if balance is not None and balance.status_code == 200:
            found = balance.json()["data"]
            if min(found.values()) < 0 or found["tokens"] != found["balance"] - found["held"]:
                self.memory.complain("I3", f"person {self.record['id']} is told {found}")

    def trespass(self) -> None:
        """Somebody else's chats and replies do not exist."""
        if not self.others:
            return
        place = self.random.choice(self.others)
        wanted = (
            lambda: self.client.program("GET", f"/sessions/{place.chat}"),
            lambda: self.client.program("GET", f"/sessions/{place.chat}/messages/{place.reply}"),
            lambda: self.client.page("GET", f"/chat/{place.chat}"),
            lambda: self.client.page("GET", f"/chat/replies/{place.reply}/stream", stream=True),
            lambda: self.client.page("POST", f"/chat/replies/{place.reply}/stops", htmx=True),
        )
        response = self.random.choice(wanted)()
        if response is not None and response.status_code != 404:
            self.memory.complain(
                "I12", f"person {self.record['id']} got {response.status_code} for {response.url}"
            )
        self.memory.count("doors of others tried")

    def delete_a_chat(self) -> None:
        if len(self.chats) < 3:
            return
        chat = self.chats.pop(self.random.randrange(len(self.chats)))
        self.memory.wants_to_delete(chat)
        self.until_answered(lambda: self.client.program("DELETE", f"/sessions/{chat}"))

    # How things are done

    def chat(self) -> str | None:
        if len(self.chats) > CHATS_KEPT:
            self.chats.pop(0)
        if self.chats and self.random.random() < 0.7:
            return self.random.choice(self.chats)
        chat = self.new_chat()
        self.chats.extend([chat] if chat else [])
        return chat

    def new_chat(self) -> str | None:
        said = {"title": "", "serviceType": "huggingface", "model": None}
        response = self.until_answered(lambda: self.client.program("POST", "/sessions", said=said))
        return str(response.json()["data"]["id"]) if response is not None else None

    def acknowledged(self, turn: str, text: str, place: Place) -> None:
        self.memory.acknowledge(Acknowledged(turn, self.record["id"], text, place.chat, place.reply))

    def place_in(self, html: str, chat: str, where: str) -> Place | None:
        """The last reply of a page or a fragment."""
        found = REPLY.findall(html)
        if not found and chat not in self.memory.deleted:
            self.memory.complain("I7", f"no reply in the {where}: {' '.join(words_of(html))[:300]}")
        return Place(chat, found[-1][0]) if found else None

    def insist(
        self, turn: str, ask: Callable[[Client], requests.Response | None]
    ) -> requests.Response | None:
        """Send a turn until it is answered. None where it was refused; then nothing of it may be stored."""
        self.client.timed_out = False
        response = self.until_answered(lambda: ask(self.client))
        if response is None:
            return None
        if response.status_code in (200, 303) or (
            response.status_code == 503 and "messageId" in response.text
        ):
            return response
        if not self.client.timed_out:
            self.memory.refuse(turn, str(response.status_code))
        return None

    def until_answered(self, ask: Callable[[], requests.Response | None]) -> requests.Response | None:
        until = time.monotonic() + PATIENCE_S
        while (response := ask()) is None:
            if time.monotonic() > until:
                self.memory.complain(
                    "an answer", f"person {self.record['id']} got none in {PATIENCE_S:.0f} s"
                )
                return None
            time.sleep(PAUSE_S)
        return response

    def at_once(self, *actions: Callable[[], None]) -> None:
        threads = [threading.Thread(target=action, daemon=True) for action in actions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
