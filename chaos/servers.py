"""The processes of a run: the product's own, and a Redis, a PostgreSQL and a provider that belong to nobody else.

Everything stands in one temporary folder and on ports of its own. Start processes from the main thread only: the kernel
ends a child together with the thread that started it.
"""

import contextlib
import glob
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import redis
import requests

from aleph.children import dies_with_parent
from aleph.embedded_redis import executable
from aleph.run import BASE_DIR, HOST, commands, what_is_missing

START_SECONDS = 60
POSTGRESQL_USER = "postgres"
"""Who runs PostgreSQL where we are root, which it refuses to be."""


class CannotRun(Exception):
    """Something that a run needs is not there; the message says what."""


class Server:
    """A process that is killed and started again. All its lives write into one log."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], log: Path, user: str | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.env = env
        self.log = log
        self.user = user
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_at

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command,
                env=dict(self.env),
                cwd=BASE_DIR if self.user is None else "/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=dies_with_parent(),
                **_as_user(self.user),
            )
        self.started_at = time.monotonic()

    def end(self, number: signal.Signals = signal.SIGKILL, *, within_s: float = 20) -> None:
        """Send a signal and wait until the process is gone; with SIGKILL, all that it started is gone, too."""
        process = self.process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        try:
            process.wait(within_s)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])


class Servers:
    """All processes of a run, below one folder. `url` is where the product answers."""

    def __init__(self, folder: Path, *, has_postgresql: bool) -> None:
        self.folder = folder
        self.has_postgresql = has_postgresql
        self.port, self.redis_port, self.provider_port, self.postgresql_port = (free_port() for _ in range(4))
        self.url = f"http://{HOST}:{self.port}"
        self.secret_key = secrets.token_urlsafe(48)
        self.all: dict[str, Server] = {}

    @property
    def database_url(self) -> str:
        if self.has_postgresql:
            return f"postgresql://aleph@{HOST}:{self.postgresql_port}/postgres"
        return f"sqlite:///{self.folder}/aleph.sqlite3"

    @property
    def redis_url(self) -> str:
        return f"redis://{HOST}:{self.redis_port}/0"

    @property
    def provider_url(self) -> str:
        return f"http://{HOST}:{self.provider_port}"

    @property
    def pids(self) -> list[int]:
        return [server.process.pid for server in self.all.values() if server.process is not None]

    @property
    def environment(self) -> dict[str, str]:
        """What the processes of the product are told. Nothing of the caller's settings gets in."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges",
            "DJANGO_SETTINGS_MODULE": "aleph.settings",
            "ALEPH_ENV": "development",
            "ALEPH_DATA": str(self.folder),
            "ALEPH_FORBID_NETWORK": "1",
            "SECRET_KEY": self.secret_key,
            "PORT": str(self.port),
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            "OPENAI_API_KEY": "sk-chaos",
            "OPENAI_BASE_URL": f"{self.provider_url}/v1",
            # All people come from one address and are busier than any person.
            **dict.fromkeys(
                ("RATE_LIMIT_MESSAGE", "RATE_LIMIT_PURCHASE", "RATE_LIMIT_STREAM"), "1000000/m/user"
            ),
            "MAX_OPEN_STREAMS": "1000",
            "MAX_OPEN_REPLIES": "1000",
        }

    def start_surroundings(self) -> None:
        """Redis, the provider, PostgreSQL if it is wanted, and an empty database with the seed data."""
        self._redis()
        self._add("provider", [sys.executable, "-m", "tests.simulator", "--port", str(self.provider_port)])
        if self.has_postgresql:
            self._postgresql()
        for server in self.all.values():
            server.start()
        for name, port in (("redis", self.redis_port), ("provider", self.provider_port)):
            self._await(name, lambda port=port: listens(port))
        if self.has_postgresql:
            self._await("postgresql", self.postgresql_answers)
        self.manage("manage.py", "migrate", "--noinput", "-v0")
        self.manage("manage.py", "seed")
        self.manage("manage.py", "collectstatic", "--noinput", "-v0")

    def start_product(self) -> None:
        found = commands(self.port)
        worker = found.pop("worker")
        found |= {
            name: [name + "@%h" if part == "worker@%h" else part for part in worker]
            for name in ("worker1", "worker2")
        }
        for name, command in found.items():
            self._add(name, command).start()
        self._await("web", lambda: not what_is_missing(self.port))

    def manage(self, *arguments: str) -> str:
        """What a Python program of the product printed. Raises `CannotRun`."""
        done = subprocess.run(
            [sys.executable, *arguments],
            env=self.environment,
            cwd=BASE_DIR,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise CannotRun(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        return done.stdout

    def provider_stats(self) -> dict[str, int]:
        found: dict[str, int] = requests.get(f"{self.provider_url}/stats", timeout=10).json()
        return found

    def redis_answers(self) -> bool:
        return self._redis_says(lambda line: line.ping())

    def flush_redis(self) -> bool:
        return self._redis_says(lambda line: line.flushall())

    def postgresql_answers(self) -> bool:
        try:
            with psycopg.connect(self.database_url, connect_timeout=1) as line:
                line.execute("SELECT 1")
            return True
        except psycopg.Error:
            return False

    def stop(self) -> None:
        """End everything: the product first, what it stands on afterwards."""
        for name in (*(set(self.all) - SURROUNDINGS), "provider", "redis"):
            if name in self.all:
                self.all[name].end()
        if "postgresql" in self.all:
            self.all["postgresql"].end(signal.SIGINT)

    def _add(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> Server:
        log = self.folder / f"{name}.log"
        server = self.all[name] = Server(name, command, env=env or self.environment, log=log, user=user)
        return server

    def _await(self, name: str, is_ready: Any) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not is_ready():
            if not self.all[name].is_running or time.monotonic() > deadline:
                raise CannotRun(f"{name} did not come up:\n{self.all[name].last_words()}")
            time.sleep(0.05)

    def _redis(self) -> None:
        (self.folder / "redis").mkdir()
        # As `make run` has it: what is written survives a kill, but for the last second.
        options = {
            "port": self.redis_port,
            "bind": HOST,
            "dir": self.folder / "redis",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        self._add("redis", [str(executable()), *given])

    def _redis_says(self, ask: Any) -> bool:
        line = redis.Redis.from_url(self.redis_url, socket_timeout=1, socket_connect_timeout=1)
        try:
            return bool(ask(line))
        except (redis.RedisError, OSError):
            return False
        finally:
            line.close()

    def _postgresql(self) -> None:
        """A cluster of its own, with everything on that keeps a commit over a crash."""
        programs = postgresql_programs()
        home, user = self.folder / "postgresql", POSTGRESQL_USER if os.geteuid() == 0 else None
        home.mkdir()
        if user is not None:
            self.folder.chmod(0o711)
            shutil.chown(home, user)
        made = subprocess.run(
            [
                programs / "initdb",
                "-D",
                home / "data",
                "-U",
                "aleph",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            cwd="/",
            env={"PATH": os.environ["PATH"], "LANG": "C"},
            capture_output=True,
            text=True,
            **_as_user(user),
        )
        if made.returncode:
            raise CannotRun(f"initdb cannot make a cluster in {home}:\n{made.stderr[-2000:]}")
        options = {
            "listen_addresses": HOST,
            "port": self.postgresql_port,
            "unix_socket_directories": home,
            "max_connections": 150,
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
        }
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [str(programs / "postgres"), "-D", str(home / "data"), *given]
        self._add("postgresql", command, env={"PATH": os.environ["PATH"], "LANG": "C"}, user=user)


SURROUNDINGS = {"redis", "provider", "postgresql"}


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Where a run keeps everything. It is left behind when `keep` was put into it."""
    folder = Path(tempfile.mkdtemp(prefix="aleph-chaos-"))
    try:
        yield folder
    finally:
        if not (folder / "keep").exists():
            shutil.rmtree(folder, ignore_errors=True)


def postgresql_programs() -> Path:
    """The folder of initdb and postgres, the newest that this machine has. Raises `CannotRun`."""
    folders = [Path(path) for path in glob.glob("/usr/lib/postgresql/*/bin")]
    folders.sort(key=lambda path: [int(part) for part in path.parent.name.split(".") if part.isdigit()])
    on_path = shutil.which("postgres")
    if on_path:
        folders.insert(0, Path(on_path).resolve().parent)
    for folder in reversed(folders):
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise CannotRun(
        "DB=postgres needs PostgreSQL's own programs (initdb, postgres) and found none in PATH or"
        " /usr/lib/postgresql. Install them, or run with DB=sqlite."
    )


def _as_user(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CannotRun(
            f"PostgreSQL does not run as root, and there is no user {name} to run it as."
        ) from None
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
