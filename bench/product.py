"""The product as production starts it, on one core; and what stands around it on the other: a database of its own on
PostgreSQL, a Redis, and the fake provider."""

import contextlib
import itertools
import json
import os
import re
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psutil
import psycopg

from aleph import sealed
from aleph.embedded_redis import executable
from aleph.run import what_is_missing
from bench.machine import (
    HELPER_CORES,
    HOST,
    ROOT,
    SERVER_CORE,
    Failed,
    Process,
    await_ready,
    free_port,
    listens,
    pinned,
    resident_mib,
    run,
)

FOLDER = ROOT / "var" / "bench"
DATABASE = f"aleph_bench_{os.getpid()}"
WORKER_THREADS = 320
"""More than the streams of the highest level, so that none waits for a thread."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the product needs around it. `pids` are its processes, for the accounting of CPU time."""

    admin_url: str
    database_url: str
    redis_url: str
    upstream_url: str
    pids: tuple[int, ...]
    has_pinned_database: bool
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        """What processes of the product are told: production, with the fake provider as OpenAI."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            "DJANGO_SETTINGS_MODULE": "aleph.settings",
            "ALEPH_ENV": "production",
            "ALEPH_DATA": str(FOLDER),
            "ALLOWED_HOSTS": HOST,
            "SECRET_KEY": self.secret_key,
            "FIELD_KEYS": sealed.named_key("bench", self.secret_key),
            "SECURE_SSL_REDIRECT": "0",
            "DATABASE_URL": self.database_url,
            "REDIS_URL": self.redis_url,
            # Counted as ever, and never reached: a hundred people make the load of thousands.
            **dict.fromkeys(("RATE_LIMIT_MESSAGE", "RATE_LIMIT_STREAM"), "1000000/m/user, 1000000/m/ip"),
            "MAX_OPEN_STREAMS": "100000",
            "MAX_OPEN_REPLIES": "100000",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": self.upstream_url,
            **{name: os.environ[name] for name in ("DATABASE_POOL",) if name in os.environ},
        }

    def manage(
        self, *arguments: str, timeout_s: float = 120, cores: set[int] = HELPER_CORES, **env: str
    ) -> str:
        command = [sys.executable, *arguments]
        return run(command, env=self.environment | env, cores=cores, timeout_s=timeout_s)


@contextlib.contextmanager
def surroundings(admin_url: str) -> Iterator[Surroundings]:
    """All of it is gone when this ends. `admin_url` names a PostgreSQL on which databases may be created."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        postmaster = create_database(admin_url)
        stack.callback(drop_database, admin_url)
        is_pinned = stack.enter_context(pinned(postmaster, HELPER_CORES))
        redis_port, upstream_port = free_port(), free_port()
        redis = helper(
            "redis",
            [
                str(executable()),
                "--port",
                str(redis_port),
                "--bind",
                HOST,
                "--save",
                "",
                "--appendonly",
                "no",
            ],
            redis_port,
            stack,
        )
        upstream = helper(
            "upstream",
            [sys.executable, "-m", "bench.upstream", "--port", str(upstream_port)],
            upstream_port,
            stack,
        )
        around = Surroundings(
            admin_url=admin_url,
            database_url=urlunsplit(urlsplit(admin_url)._replace(path=f"/{DATABASE}")),
            redis_url=f"redis://{HOST}:{redis_port}/0",
            upstream_url=f"http://{HOST}:{upstream_port}/v1",
            pids=(redis.pid, upstream.pid, *([postmaster] if postmaster else [])),
            has_pinned_database=is_pinned,
            secret_key=secrets.token_urlsafe(48),
        )
        around.manage("manage.py", "migrate", "--noinput", "-v0")
        around.manage("manage.py", "seed")
        around.manage("manage.py", "collectstatic", "--noinput", "-v0")
        yield around


def helper(name: str, command: Sequence[str], port: int, stack: contextlib.ExitStack) -> Process:
    process = Process(name, command, env=os.environ, log=FOLDER / f"{name}.log", cores=HELPER_CORES)
    stack.callback(process.stop)
    await_ready(process, lambda: listens(port))
    return process


def create_database(admin_url: str) -> int | None:
    """Make the database anew; the process id of PostgreSQL, where it runs on this machine and can be seen."""
    drop_database(admin_url)
    with psycopg.connect(admin_url, autocommit=True, connect_timeout=5) as line:
        line.execute(f"CREATE DATABASE {DATABASE}")
        row = line.execute("SELECT pg_backend_pid()").fetchone()
        if urlsplit(admin_url).hostname not in (HOST, "localhost", None) or row is None:
            return None
        with contextlib.suppress(psutil.Error):
            return int(psutil.Process(row[0]).ppid())
    return None


def drop_database(admin_url: str) -> None:
    with psycopg.connect(admin_url, autocommit=True, connect_timeout=5) as line:
        line.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")


class Product:
    """The processes of the Procfile, on one core. `url` is where it answers."""

    def __init__(
        self, around: Surroundings, *, only: Sequence[str] = ("web", "worker", "house", "beat")
    ) -> None:
        self.around = around
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.processes: dict[str, Process] = {}
        self.wanted = {name: command for name, command in commands(self.port).items() if name in only}

    def __enter__(self) -> "Product":
        try:
            for name, command in self.wanted.items():
                self.processes[name] = Process(
                    name, command, env=self.around.environment, log=FOLDER / f"{name}.log", cores=SERVER_CORE
                )
            await_ready(self.processes["web"], lambda: not what_is_missing(self.port))
            for name in self.wanted.keys() & {"worker", "house"}:
                await_ready(self.processes[name], lambda name=name: self.hears(name))
        except BaseException:
            self.__exit__()
            raise
        time.sleep(2)
        return self

    def __exit__(self, *error: object) -> None:
        for process in reversed(self.processes.values()):
            process.stop()

    def hears(self, name: str) -> bool:
        """Whether a worker answers its broker."""
        ping = ("-m", "celery", "--quiet", "--skip-checks", "-A", "aleph", "inspect", "ping", "-t", "2")
        try:
            return f"{name}@" in self.around.manage(*ping, timeout_s=30)
        except Failed:
            return False

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes.values()]

    def memory_mib(self, *names: str) -> float:
        """Resident memory of the named processes, of all without names."""
        return resident_mib(*(self.processes[name].pid for name in names or self.processes))


def commands(port: int) -> dict[str, list[str]]:
    """What the Procfile starts, with more threads in the worker and on this machine's own address."""
    found = {}
    for line in (ROOT / "Procfile").read_text().splitlines():
        name, _, command = line.partition(":")
        command = command.replace("${PORT:-8000}", str(port)).replace("0.0.0.0", HOST)
        if name == "worker":
            command = re.sub(r"-c \d+", f"-c {WORKER_THREADS}", command)
        found[name] = shlex.split(command)
    found.pop("release")
    return found


def move_in(around: Surroundings, *, users: int, sessions: dict[str, int]) -> dict[str, Path]:
    """Funded people with keys and empty sessions, so many for each model of the fake provider; files for `--each`."""
    files = {}
    for model, number in sessions.items():
        lines = around.manage("-m", "bench.people", model, "--users", str(users), "--sessions", str(number))
        files[model] = FOLDER / f"{model}.jsonl"
        files[model].write_text(lines)
        assert len(lines.splitlines()) == number
    return files


@contextlib.contextmanager
def writer(around: Surroundings, streams: int) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Replies that are open and written by nobody yet: the file for `--each`, and what makes the writing begin."""
    command = [sys.executable, "-m", "bench.writer", "--streams", str(streams)]
    with subprocess.Popen(
        command,
        env=around.environment,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, HELPER_CORES),
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        lines = list(itertools.takewhile(lambda line: line != "ready\n", child.stdout))
        file = FOLDER / "writer.jsonl"
        file.write_text("".join(lines))

        def begin() -> None:
            assert child.stdin is not None
            child.stdin.write("go\n")
            child.stdin.flush()

        try:
            yield file, begin
        finally:
            child.terminate()


def load(
    url: str,
    *,
    clients: int,
    servers: Sequence[int],
    helpers: Sequence[int],
    timeout_s: float = 180,
    **options: object,
) -> dict[str, object]:
    """One run of the load generator on the helpers' cores. Options as `bench.loadgen` knows them; a list repeats one."""
    command = [sys.executable, "-m", "bench.loadgen", url, "-c", str(clients)]
    for name, value in ({"pid": list(servers), "helper_pid": list(helpers)} | options).items():
        for one in value if isinstance(value, list) else [value]:
            command += [f"--{name.replace('_', '-')}", str(one)]
    answer: dict[str, object] = json.loads(
        run(command, env=os.environ, cores=HELPER_CORES, timeout_s=timeout_s)
    )
    return answer
