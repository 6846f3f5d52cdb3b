"""What the simulated people were told and saw, for the checker to compare with the database."""

import threading
from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A message of which its sender was told that it is in."""

    turn: str
    user: int
    text: str
    session: str
    reply: str


@dataclass(frozen=True, slots=True)
class Shown:
    """A reply as somebody saw it at its end. `streamed` is what had come piece by piece; None if nobody followed."""

    session: str
    reply: str
    state: str
    text: str
    streamed: str | None


@dataclass(frozen=True, slots=True)
class Bought:
    key: str
    user: int
    purchase: str


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing was seen of a reply between these two moments (seconds since the epoch)."""

    reply: str
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that nobody may ever see, and the invariant that it breaks."""

    rule: str
    text: str


LONG_SILENCE_S = 5.0


class Memory:
    """Shared by all people of a run. Lists only ever grow, so the checker may read the first so many at leisure."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.acknowledged: list[Acknowledged] = []
        self.shown: list[Shown] = []
        self.bought: list[Bought] = []
        self.silences: list[Silence] = []
        self.complaints: list[Complaint] = []
        self.refused: dict[str, str] = {}
        """Turns that were refused for good, and why: nothing of them may be stored."""
        self.deleted: set[str] = set()
        """Sessions that somebody has asked to delete, from before he asked."""
        self.purchase_keys: set[str] = set()
        self.counts: Counter[str] = Counter()

    def acknowledge(self, found: Acknowledged) -> None:
        with self._lock:
            self.acknowledged.append(found)
            self.counts["messages acknowledged"] += 1

    def show(self, found: Shown) -> None:
        with self._lock:
            self.shown.append(found)
            self.counts[f"replies seen {found.state}"] += 1

    def buy(self, found: Bought) -> None:
        with self._lock:
            self.bought.append(found)

    def refuse(self, turn: str, why: str) -> None:
        with self._lock:
            self.refused[turn] = why
            self.counts[f"refused: {why}"] += 1

    def wants_to_buy(self, key: str) -> None:
        with self._lock:
            self.purchase_keys.add(key)

    def wants_to_delete(self, session: str) -> None:
        with self._lock:
            self.deleted.add(session)
            self.counts["chats deleted"] += 1

    def silent(self, reply: str, since: float, until: float) -> None:
        if until - since >= LONG_SILENCE_S:
            with self._lock:
                self.silences.append(Silence(reply, since, until))

    def complain(self, rule: str, text: str) -> None:
        with self._lock:
            self.complaints.append(Complaint(rule, text))

    def count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1
