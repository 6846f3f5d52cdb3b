"""What goes wrong and when: drawn beforehand from the seed, so that a run can be repeated."""

from dataclasses import dataclass
from random import Random
from typing import Literal

Kind = Literal["kill", "redis restart", "redis flush", "postgresql stop"]

TARGETS = {"worker1": 30, "worker2": 30, "web": 18, "house": 11, "beat": 11}
"""Processes that are killed, and how often of a hundred times each."""
KILLS_PER_RESTART, KILLS_PER_FLUSH, KILLS_PER_STOP = 100, 200, 200
LONGEST_ABSENCE_S = 4.0


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One thing that goes wrong `at_s` seconds after the beginning. A server that is ended stays `away_s` seconds away;
    a process of the product is started again at once."""

    at_s: float
    kind: Kind
    target: str
    away_s: float = 0.0


def plan(random: Random, *, seconds: float, kills: int, has_postgresql: bool) -> list[Fault]:
    """The faults of one run in their order, spread evenly at random over its time."""

    def moments(number: int) -> list[float]:
        return [random.uniform(1, max(2, seconds - 1)) for _ in range(number)]

    def absence() -> float:
        return random.uniform(0, LONGEST_ABSENCE_S)

    names, weights = [*TARGETS], [*TARGETS.values()]
    faults = [Fault(at_s, "kill", random.choices(names, weights)[0]) for at_s in moments(kills)]
    faults += [
        Fault(at_s, "redis restart", "redis", absence()) for at_s in moments(_share(kills, KILLS_PER_RESTART))
    ]
    faults += [Fault(at_s, "redis flush", "redis") for at_s in moments(_share(kills, KILLS_PER_FLUSH))]
    if has_postgresql:
        stops = moments(_share(kills, KILLS_PER_STOP))
        faults += [Fault(at_s, "postgresql stop", "postgresql", absence()) for at_s in stops]
    return sorted(faults)


def _share(kills: int, each: int) -> int:
    return max(1, round(kills / each)) if kills else 0
