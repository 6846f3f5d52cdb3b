"""How much of the machine other work took: promises about time can only be judged where a process that was killed gets
the CPU to start again."""

import os
from collections.abc import Iterable

import psutil

JUDGED_UP_TO = 0.15
"""Part of the machine's CPU time that others may take before times tell more of them than of the product."""


class Load:
    """From its making on. `pids` are processes of ours that run, all that they started included."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._ours = _ours_s(pids)
        self._busy, self._all = _machine_s()

    def of_others(self, pids: Iterable[int]) -> float:
        """Part of the CPU time since then that was spent by whoever is not of ours, 0 to 1."""
        busy, every = _machine_s()
        spent = busy - self._busy - (_ours_s(pids) - self._ours)
        return min(1.0, max(0.0, spent / max(0.01, every - self._all)))


def _machine_s() -> tuple[float, float]:
    times = psutil.cpu_times()._asdict()
    every = sum(
        times.get(name, 0.0)
        for name in ("user", "nice", "system", "irq", "softirq", "steal", "idle", "iowait")
    )
    return every - times["idle"] - times.get("iowait", 0.0), every


def _ours_s(pids: Iterable[int]) -> float:
    """CPU seconds of this process, of its children that have ended, and of those that run."""
    total = sum(os.times()[:4])
    for pid in pids:
        try:
            process = psutil.Process(pid)
            for one in (process, *process.children(recursive=True)):
                total += sum(one.cpu_times()[:4])
        except psutil.Error:
            continue
    return float(total)
