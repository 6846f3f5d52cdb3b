"""The machine under the measurements: which cores serve, which help, and the processes started on them."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from aleph.children import dies_with_parent

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[-1]}
"""The core of whatever is measured."""
HELPER_CORES = set(CORES[:-1]) or SERVER_CORE
"""The cores of what feeds and watches it: upstream, PostgreSQL, Redis, load generator."""


class Failed(Exception):
    """Something that a measurement needs did not come up or broke; the message says what."""


class Process:
    """A child on given cores, which writes its log into a file and dies with this program."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, cores: set[int]
    ) -> None:
        self.name = name
        self.log = log
        ask_the_kernel = dies_with_parent()

        def prepare() -> None:
            os.sched_setaffinity(0, cores)
            if ask_the_kernel is not None:
                ask_the_kernel()

        with log.open("wb") as out:
            self.child = subprocess.Popen(
                command,
                env=dict(env),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=prepare,
            )

    @property
    def pid(self) -> int:
        return self.child.pid

    def stop(self, patience_s: float = 10) -> None:
        """End it and everything it started."""
        family = descendants(self.pid)
        with contextlib.suppress(ProcessLookupError):
            self.child.terminate()
        try:
            self.child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])


def await_ready(process: Process, is_ready: Callable[[], bool], *, within_s: float = 90) -> None:
    """Raises `Failed` when it ends, or is not ready in time."""
    deadline = time.monotonic() + within_s
    while not is_ready():
        if process.child.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{process.name} did not come up:\n{process.last_words()}")
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def resident_mib(*pids: int) -> float:
    """Resident memory of processes and all they started."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            for process in (psutil.Process(pid), *descendants(pid)):
                total += process.memory_info().rss
    return total / 2**20


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    cores: set[int],
    timeout_s: float,
    stdin: str | None = None,
) -> str:
    """What a command printed. Raises `Failed` with the end of what it complained about."""
    try:
        done = subprocess.run(
            command,
            env=dict(env),
            cwd=ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    except subprocess.TimeoutExpired as problem:
        raise Failed(f"{command[0]} took longer than {timeout_s:.0f} s") from problem
    if done.returncode:
        raise Failed(f"{' '.join(command[:4])} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def pinned(pid: int | None, cores: set[int]) -> Iterator[bool]:
    """Keep a process of somebody else's, and what it starts, on `cores` for a while. False where that is not allowed."""
    if pid is None:
        yield False
        return
    before = psutil.Process(pid).cpu_affinity() or CORES
    try:
        set_cores(pid, cores)
    except psutil.AccessDenied:
        yield False
        return
    try:
        yield True
    finally:
        set_cores(pid, set(before))


def set_cores(pid: int, cores: set[int]) -> None:
    server = psutil.Process(pid)
    server.cpu_affinity(sorted(cores))
    for process in server.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.cpu_affinity(sorted(cores))


def describe() -> dict[str, str]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "unknown",
    )
    return {
        "cpu": f"{len(CORES)} cores, {model}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": sys.version.split()[0],
    }
