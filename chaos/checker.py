"""Looks at the database once a second, in one snapshot, and tests every invariant; and measures how long people wait."""

import hashlib
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import psycopg

from chaos.invariants import INVARIANTS, Known, Look, Row
from chaos.memory import Memory

EVERY_S = 1.0
SHARE = 0.25
"""Part of its time that the checker may use: when a run has grown long, it looks less often."""
ROWS_SHOWN = 5


class Away(Exception):
    """The database does not answer at the moment."""


@dataclass(frozen=True, slots=True)
class Violation:
    rule: str
    at_s: float
    rows: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(
            [f"{self.rule}, {self.at_s:.1f} s after the beginning:", *(f"    {row}" for row in self.rows)]
        )


@dataclass(slots=True)
class Longest:
    """The longest of something, in seconds, and where that was."""

    seconds: float = 0.0
    where: str = ""

    def note(self, seconds: float, where: str) -> None:
        if seconds > self.seconds:
            self.seconds, self.where = seconds, where


@dataclass
class Measures:
    bell: Longest = field(default_factory=Longest)
    """A queued reply whose bell was lost, until it was rung again; while Redis and the database are there."""
    hold: Longest = field(default_factory=Longest)
    """A hold without a live lease."""
    outcome: Longest = field(default_factory=Longest)
    """Without text and without an outcome, after the last claim of a reply."""
    snapshot: Longest = field(default_factory=Longest)


class Checker(threading.Thread):
    """`back_at` is when Redis or the database last came back (seconds since the epoch), `open_now` how many replies
    were open in the last snapshot."""

    def __init__(self, database_url: str, memory: Memory) -> None:
        super().__init__(name="checker", daemon=True)
        self.database_url = database_url
        self.memory = memory
        self.known = Known()
        self.measures = Measures()
        self.violations: list[Violation] = []
        self.snapshots = self.missed = 0
        self.back_at = 0.0
        self.open_now = 0
        self.began_at = time.time()
        self.stop = threading.Event()
        self._reported: Counter[str] = Counter()
        self._complaints = self._silences = 0

    @property
    def is_postgresql(self) -> bool:
        return self.database_url.startswith("postgresql:")

    def run(self) -> None:
        while not self.stop.is_set():
            took_s = self.check()
            self.stop.wait(max(EVERY_S - took_s, took_s / SHARE - took_s))

    def check(self) -> float:
        """Test everything once; how long it took, in seconds. A database that is away is counted as missed."""
        began = time.monotonic()
        try:
            with snapshot(self.database_url) as ask:
                look = Look(ask, self.is_postgresql, self.memory, self.known)
                for rule, broken in INVARIANTS.items():
                    self._report(rule, list(broken(look)))
                self._measure(look)
            self.snapshots += 1
        except Away:
            self.missed += 1
        except Exception as problem:
            self._report("the runner", [(f"the checker fell over: {problem!r}",)])
        self._listen()
        took_s = time.monotonic() - began
        self.measures.snapshot.note(took_s, self.now())
        return took_s

    def open_replies(self) -> int:
        """How many replies are not over; -1 while the database is away."""
        try:
            with snapshot(self.database_url) as ask:
                return int(
                    ask("SELECT COUNT(*) FROM chat_message WHERE state IN ('queued', 'streaming')")[0][0]
                )
        except Away:
            return -1

    def _report(self, rule: str, rows: list[Row]) -> None:
        """Keep what is broken, each rule a few times: most of what breaks stays broken."""
        if rows and self._reported[rule] < ROWS_SHOWN:
            self._reported[rule] += 1
            shown = tuple(" ".join(map(str, row)) for row in rows[:ROWS_SHOWN])
            found = Violation(rule, time.time() - self.began_at, shown)
            self.violations.append(found)
            print(f"VIOLATION of {found}", flush=True)

    def _listen(self) -> None:
        """What people complained of since the last time."""
        fresh = self.memory.complaints[self._complaints :]
        self._complaints += len(fresh)
        for complaint in fresh:
            self._report(complaint.rule, [(complaint.text,)])

    def now(self) -> str:
        return f"{time.time() - self.began_at:.0f} s after the beginning"

    def _measure(self, look: Look) -> None:
        age, since_back = look.seconds_since, time.time() - self.back_at
        rung, unleased = age("rung_at"), age("COALESCE(lease_until, created_at)")
        rows = look.ask(
            f"SELECT id, state, hold_id, {rung}, {unleased} FROM chat_message WHERE state IN ('queued', 'streaming')"
        )
        self.open_now = len(rows)
        for reply, state, hold, rung_s, unleased_s in rows:
            where = f"{reply}, {self.now()}"
            if state == "queued":
                self.measures.bell.note(min(float(rung_s), since_back), where)
            if hold:
                self.measures.hold.note(float(unleased_s), where)
        self._measure_silences(look)

    def _measure_silences(self, look: Look) -> None:
        """A silence counts from the last claim of its reply, if that was within it: the one before was another death."""
        fresh = self.memory.silences[self._silences :]
        self._silences += len(fresh)
        if not fresh:
            return
        named = ", ".join(f"'{reply}'" for reply in {silence.reply for silence in fresh})
        ages: dict[str, float] = dict(
            look.ask(
                f"SELECT id, {look.seconds_since('started_at')} FROM chat_message"
                f" WHERE id IN ({named}) AND started_at IS NOT NULL"
            )
        )
        now = time.time()
        for silence in fresh:
            claimed_at = now - float(ages[silence.reply]) if silence.reply in ages else 0.0
            since = max(silence.since, claimed_at if claimed_at < silence.until else 0.0)
            self.measures.outcome.note(silence.until - since, f"{silence.reply}, {self.now()}")


@contextmanager
def snapshot(database_url: str) -> Iterator[Callable[[str], list[Row]]]:
    """All queries inside see one moment of the database, and hold nobody up. Raises `Away`."""
    if database_url.startswith("postgresql:"):
        try:
            with psycopg.connect(database_url, connect_timeout=2) as line:
                line.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                line.read_only = True
                yield lambda sql: line.execute(sql).fetchall()
        except psycopg.OperationalError as problem:
            raise Away from problem
        return
    path = urlsplit(database_url).path
    with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as file:
        file.create_function("md5", 1, _md5, deterministic=True)
        file.execute("PRAGMA query_only = ON")
        file.execute("BEGIN DEFERRED")
        yield lambda sql: file.execute(sql).fetchall()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
