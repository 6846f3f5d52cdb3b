"""What a run found, as a table for people."""

from collections import Counter
from dataclasses import dataclass, field

from chaos.checker import Measures, Violation
from chaos.load import JUDGED_UP_TO


@dataclass(slots=True)
class Outage:
    """A server that was away and came back, and how long after that the next send was taken and answered (seconds)."""

    server: str
    where: str = ""
    taken_s: float | None = None
    answered_s: float | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """How long something may take at most, and what the run measured; None where it did not come up."""

    text: str
    limit_s: float
    found_s: float | None
    where: str = ""

    @property
    def is_kept(self) -> bool:
        return self.found_s is None or self.found_s <= self.limit_s


@dataclass(slots=True)
class Found:
    seed: int
    database: str
    seconds: float
    faults: Counter[str] = field(default_factory=Counter)
    """What was done, by kind; kills by process."""
    replies_in_flight: int = 0
    """Replies that were open at the moment of a fault, over all faults."""
    died_alone: Counter[str] = field(default_factory=Counter)
    outages: list[Outage] = field(default_factory=list)
    measures: Measures = field(default_factory=Measures)
    violations: list[Violation] = field(default_factory=list)
    snapshots: int = 0
    missed: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    """What people did and saw."""
    replies: dict[str, int] = field(default_factory=dict)
    """Replies by how they ended."""
    calls: dict[str, int] = field(default_factory=dict)
    ledger: str = ""
    usage: str = ""
    others: float = 0.0
    """Part of the machine's CPU time that other work took, 0 to 1."""
    is_timed: bool = True
    """Whether a broken promise about time fails the run."""

    @property
    def promises(self) -> list[Promise]:
        answered = [outage for outage in self.outages if outage.answered_s is not None]
        slowest = max(answered, key=lambda outage: outage.answered_s or 0, default=Outage(""))
        found = self.measures
        timed = [
            ("after a worker's death: an outcome or more text", 45, found.outcome),
            ("a lost bell is rung again", 15, found.bell),
            ("a hold without a live lease", 60, found.hold),
        ]
        return [
            *(Promise(text, limit_s, longest.seconds, longest.where) for text, limit_s, longest in timed),
            Promise(
                "after Redis or PostgreSQL is back: the next send is answered",
                10,
                slowest.answered_s,
                f"{slowest.server}, {slowest.where}",
            ),
        ]

    @property
    def is_good(self) -> bool:
        are_kept = all(promise.is_kept for promise in self.promises)
        return not self.violations and (are_kept or not self.is_timed or self.others > JUDGED_UP_TO)


def table(found: Found) -> str:
    kills = {name: number for name, number in sorted(found.faults.items()) if " " not in name}
    rows = [
        ("kills -9", f"{sum(kills.values())} ({_list(kills)})"),
        ("Redis restarts / flushes", f"{found.faults['redis restart']} / {found.faults['redis flush']}"),
        ("PostgreSQL stops `immediate`", str(found.faults["postgresql stop"])),
        ("replies open at those moments", str(found.replies_in_flight)),
        ("processes that ended by themselves", _list(found.died_alone) or "0"),
        ("replies", f"{sum(found.replies.values())} ({_list(found.replies)})"),
        *((name, str(number)) for name, number in sorted(found.seen.items())),
        *((name, str(number)) for name, number in found.calls.items()),
        ("snapshots checked / database away", f"{found.snapshots} / {found.missed}"),
        ("longest snapshot", f"{found.measures.snapshot.seconds:.2f} s"),
        ("`check_ledger` at the end", found.ledger),
        ("`check_usage` at the end", found.usage),
        ("CPU that other work took", _others(found.others)),
        *(_promise(promise) for promise in found.promises),
        ("**violations of I1-I13**", f"**{len(found.violations)}**"),
    ]
    head = f"seed {found.seed}, {found.seconds:.0f} s, {found.database}"
    return "\n".join(
        ["", f"| {head} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows), ""]
    )


def _promise(promise: Promise) -> tuple[str, str]:
    if promise.found_s is None:
        return promise.text, "did not come up"
    verdict = "" if promise.is_kept else f" **BROKEN** ({promise.where})"
    return promise.text, f"{promise.found_s:.1f} s at most (promised {promise.limit_s:.0f} s){verdict}"


def _others(share: float) -> str:
    verdict = "" if share <= JUDGED_UP_TO else ": too much for what follows to be judged"
    return f"{share:.0%} of the machine{verdict}"


def _list(counted: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counted.items())
