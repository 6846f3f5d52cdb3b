"""`make chaos`: the product on this machine, used by people and killed at random, while its books are checked.

    python -m chaos.run [--seed N] [--seconds 300] [--kills 300] [--database sqlite|postgres] [--people 20] [--untimed] [--keep]

Prints the seed first and a table last. Ends with 0 if nothing was violated and every promise about time was kept.
"""

import argparse
import heapq
import itertools
import json
import secrets
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from chaos.audit import audit
from chaos.checker import Checker, snapshot
from chaos.load import Load
from chaos.memory import Memory
from chaos.plan import Fault, plan
from chaos.probe import Probe
from chaos.report import Found, Outage, table
from chaos.servers import SURROUNDINGS, CannotRun, Servers, temporary_folder
from chaos.users import Person, Place

WARM_UP_S = 3.0
SETTLE_S = 200.0
STEP_S = 0.02
PROBER_CHATS = 200


def main() -> int:
    given = parsed()
    print(
        f"seed {given.seed}: {given.kills} kills in {given.seconds:.0f} s, {given.people} people, {given.database}",
        flush=True,
    )
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        with temporary_folder() as folder:
            found = Run(folder, given).found()
            print(table(found), flush=True)
            if given.keep or not found.is_good:
                (folder / "keep").touch()
                print(f"seed {given.seed}; the logs of all processes are in {folder}")
            return 0 if found.is_good else 1
    except CannotRun as problem:
        print(f"Chaos cannot run: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as ending:
        print(f"ended by {ending}: nothing can be said", file=sys.stderr)
        return 130


def on_signal(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def parsed() -> argparse.Namespace:
    arguments = argparse.ArgumentParser(description="Kills the product at random while people use it.")
    arguments.add_argument("--seed", type=int, default=secrets.randbelow(10**9))
    arguments.add_argument("--seconds", type=float, default=300)
    arguments.add_argument("--kills", type=int, default=300)
    arguments.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    arguments.add_argument("--people", type=int, default=20)
    arguments.add_argument(
        "--untimed",
        action="store_true",
        help="do not fail for a broken promise about time, on a slow machine",
    )
    arguments.add_argument("--keep", action="store_true", help="keep the logs, whatever comes out")
    return arguments.parse_args()


class Run:
    """One run; `found` is all of it."""

    def __init__(self, folder: Path, given: argparse.Namespace) -> None:
        self.folder = folder
        self.given = given
        self.random = Random(given.seed)
        has_postgresql = given.database == "postgres"
        self.plan = plan(
            Random(given.seed), seconds=given.seconds, kills=given.kills, has_postgresql=has_postgresql
        )
        self.servers = Servers(folder, has_postgresql=has_postgresql)
        self.memory = Memory()
        self.checker = Checker(self.servers.database_url, self.memory)
        self.result = Found(
            seed=given.seed, database=given.database, seconds=given.seconds, is_timed=not given.untimed
        )
        self.people: list[Person] = []
        self.probes: list[Probe] = []
        self.cast: dict[str, Any] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._away: set[str] = set()

    def found(self) -> Found:
        try:
            self.servers.start_surroundings()
            poor = max(1, self.given.people // 5)
            said = self.servers.manage("-m", "chaos.people", str(self.given.people - poor), str(poor))
            self.cast = json.loads(said.splitlines()[-1])
            self.servers.start_product()
            self.send_people_in(poor)
            load = Load(self.servers.pids)
            self.go_wrong()
            self.result.others = load.of_others(self.servers.pids)
            self.settle()
            self.sum_up()
        finally:
            for person in self.people:
                person.stop.set()
            self.checker.stop.set()
            self.servers.stop()
        return self.result

    def send_people_in(self, poor: int) -> None:
        records = self.cast["rich"] + self.cast["poor"]
        self.people = [
            Person(
                record,
                models=self.cast["models"],
                url=self.servers.url,
                memory=self.memory,
                random=Random(self.random.random()),
            )
            for record in records
        ]
        for person in self.people[-poor:]:
            person.is_poor = True
        prober = Person(
            self.cast["prober"], models={}, url=self.servers.url, memory=self.memory, random=self.random
        )
        chats = (prober.new_chat() for _ in range(PROBER_CHATS))
        self.prober_chats = [chat for chat in chats if chat is not None]
        self.checker.start()
        for person in self.people:
            person.start()
        time.sleep(WARM_UP_S)
        for person, other in zip(self.people, self.people[1:] + self.people[:1], strict=True):
            person.others = [
                Place(told.session, told.reply)
                for told in self.memory.acknowledged
                if told.user == other.record["id"]
            ]

    # What goes wrong

    def go_wrong(self) -> None:
        """Carry out the plan. What has to happen later (a server's return) is put among what is due."""
        began = time.monotonic()
        for fault in self.plan:
            self._later(began + fault.at_s, lambda fault=fault: self.carry_out(fault))  # type: ignore[misc]
        while self._due or time.monotonic() < began + self.given.seconds:
            while self._due and self._due[0][0] <= time.monotonic():
                heapq.heappop(self._due)[2]()
            self.tend()
            time.sleep(STEP_S)

    def carry_out(self, fault: Fault) -> None:
        self.result.replies_in_flight += self.checker.open_now
        if fault.kind == "kill":
            server = self.servers.all[fault.target]
            server.end()
            server.start()
            self.result.faults[fault.target] += 1
        elif fault.target in self._away:  # it went only a moment ago: once it is back
            self._later(time.monotonic() + 1, lambda: self.carry_out(fault))
        elif fault.kind == "redis flush":
            self.result.faults[fault.kind] += self.servers.flush_redis()
        else:
            self.take_away(fault)

    def take_away(self, fault: Fault) -> None:
        server = self.servers.all[fault.target]
        for probe in self.probes:
            probe.is_void = True
        self._away.add(fault.target)
        # PostgreSQL's `immediate` is SIGQUIT: no checkpoint, so it has to recover from its log.
        server.end(signal.SIGKILL if fault.target == "redis" else signal.SIGQUIT)
        self.result.faults[fault.kind] += 1
        self._later(time.monotonic() + fault.away_s, lambda: self.bring_back(fault.target))

    def bring_back(self, name: str) -> None:
        self.servers.all[name].start()
        self.await_return(name)

    def await_return(self, name: str) -> None:
        answers = self.servers.redis_answers if name == "redis" else self.servers.postgresql_answers
        if not answers():
            self._later(time.monotonic() + STEP_S, lambda: self.await_return(name))
            return
        self._away.discard(name)
        self.checker.back_at = time.time()
        if self._away:
            return
        probe = Probe(
            Outage(name, self.checker.now()),
            self.cast["prober"],
            model=self.cast["models"]["good"][2],
            url=self.servers.url,
            memory=self.memory,
            chats=self.prober_chats,
        )
        self.probes.append(probe)
        probe.start()

    def tend(self) -> None:
        """Start again what ended by itself, as `make run` does, and note it."""
        for name, server in self.servers.all.items():
            if not server.is_running and name not in self._away:
                self.result.died_alone[name] += 1
                assert server.process is not None
                print(
                    f"{name} ended by itself ({server.process.returncode}):\n{server.last_words()}",
                    flush=True,
                )
                if name in SURROUNDINGS:
                    raise CannotRun(f"{name} ended by itself")
                server.start()

    def _later(self, at: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._due, (at, next(self._number), action))

    # The end

    def settle(self) -> None:
        """Nobody begins anything; whatever is open comes to its end."""
        until = time.monotonic() + SETTLE_S
        for person in self.people:
            person.stop.set()
        while time.monotonic() < until:
            self.tend()
            waiting = [thread for thread in [*self.people, *self.probes] if thread.is_alive()]
            if not waiting and self.checker.open_replies() == 0:
                break
            time.sleep(0.2)
        else:
            names = ", ".join(person.name for person in self.people if person.is_alive())
            self.memory.complain(
                "I4", f"{self.checker.open_replies()} replies are open at the end; waiting: {names}"
            )
        self.checker.stop.set()
        self.checker.join()

    def sum_up(self) -> None:
        result, checker = self.result, self.checker
        people = [*self.cast["rich"], *self.cast["poor"]]
        compared = audit(self.servers.url, self.servers.database_url, people, self.memory)
        result.measures, result.violations = checker.measures, checker.violations
        result.outages = [probe.outage for probe in self.probes if not probe.is_void]
        result.seen = self.memory.counts
        result.seen["messages compared through the API at the end"] = compared
        stats = self.servers.provider_stats()
        with snapshot(self.servers.database_url) as ask:
            result.replies = dict(
                ask("SELECT state, COUNT(*) FROM chat_message WHERE role = 'assistant' GROUP BY state")
            )
            ((rows, with_end),) = ask(
                "SELECT COUNT(*), SUM(CASE WHEN CAST(metadata AS text) LIKE '%raw_finish_reason%' THEN 1 ELSE 0 END)"
                " FROM usage_tokenusage"
            )
            frozen = ask("SELECT user_id, name FROM billing_account WHERE frozen_at IS NOT NULL")
        for user, name in frozen:
            self.memory.complain(
                "I1", f"the {name} of user {user} were frozen, so the product itself saw them drift"
            )
        result.calls = {
            "calls that reached the provider": stats["requests"],
            "usage rows": rows,
            "answers that the provider finished": stats["finished"],
            "of these, died before our commit (absorbed)": stats["finished"] - int(with_end or 0),
        }
        if stats["requests"] > rows:
            self.memory.complain(
                "I10", f"{stats['requests']} calls reached the provider, {rows} are in the log"
            )
        result.ledger = self._proved_by("check_ledger", "I1")
        result.usage = self._proved_by("check_usage", "I10")
        checker.check()
        result.snapshots, result.missed = checker.snapshots, checker.missed

    def _proved_by(self, command: str, rule: str) -> str:
        """The last line of what the product's own proof says; "DIFFERENCES", and a violation, where it fails."""
        try:
            return self.servers.manage("manage.py", command).strip().splitlines()[-1]
        except CannotRun as problem:
            self.memory.complain(rule, str(problem))
            return "DIFFERENCES"


if __name__ == "__main__":
    sys.exit(main())
