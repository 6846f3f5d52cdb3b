"""Child processes that live and die together. For `aleph.run` and the tests.

Each child leads a session of its own, so that Ctrl-C in a terminal reaches the parent only, and the parent can end a
child with everything it started. Start and tend them from the main thread: the kernel ends a child when the *thread*
that started it ends.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PR_SET_PDEATHSIG = 1
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 10.0
STEADY_SECONDS = 30
"""A child that lived this long before it died starts again after the first, short pause."""

Say = Callable[[str, str], None]
"""Takes the name of a child and a line about it or from it."""


def dies_with_parent() -> Callable[[], None] | None:
    """A `preexec_fn` by which Linux kills the child as soon as its parent is gone, however that went. None elsewhere."""
    if sys.platform != "linux":
        return None
    parent = os.getpid()
    prctl = ctypes.CDLL(None).prctl

    def ask_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it was gone before we asked
            os._exit(1)

    return ask_the_kernel


@dataclass
class Child:
    name: str
    command: Sequence[str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0
    pause_s: float = FIRST_PAUSE_SECONDS
    due_at: float | None = None

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Children:
    """Processes by name. `say` is called from several threads."""

    def __init__(
        self, commands: Mapping[str, Sequence[str]], *, env: Mapping[str, str], folder: Path, say: Say
    ) -> None:
        self.all = [Child(name, command) for name, command in commands.items()]
        self.env = env
        self.folder = folder
        self.say = say

    def start(self) -> None:
        for child in self.all:
            self._start(child)

    def tend(self) -> None:
        """Start again what has died, after a pause that doubles each time. Call it several times a second."""
        now = time.monotonic()
        for child in self.all:
            if child.is_alive:
                continue
            if child.due_at is None:
                if now - child.started_at > STEADY_SECONDS:
                    child.pause_s = FIRST_PAUSE_SECONDS
                child.due_at = now + child.pause_s
                self.say(child.name, f"{_how_it_ended(child)}; starting again in {child.pause_s:g} s")
                child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_SECONDS)
            elif now >= child.due_at:
                self._start(child)

    def stop(self, *, patience_s: float, hurry: threading.Event | None = None) -> None:
        """Ask all of them to end, and kill what has not ended in time, or when `hurry` is set."""
        for child in self.all:
            if child.is_alive and child.process is not None:
                child.process.terminate()
        deadline = time.monotonic() + patience_s
        while any(child.is_alive for child in self.all) and time.monotonic() < deadline:
            if hurry is not None and hurry.is_set():
                break
            time.sleep(0.05)
        for child in self.all:
            if child.process is not None:
                if child.is_alive:
                    self.say(child.name, "did not end in time and was killed")
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()

    def _start(self, child: Child) -> None:
        child.process = subprocess.Popen(
            child.command,
            env=self.env,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        child.started_at = time.monotonic()
        child.due_at = None
        threading.Thread(target=self._pass_on, args=(child.name, child.process), daemon=True).start()

    def _pass_on(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Read what a child writes until it ends, whatever it writes: a full pipe would stop it."""
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self.say(name, line.decode(errors="replace").rstrip())


def _how_it_ended(child: Child) -> str:
    code = child.process.returncode if child.process else None
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
