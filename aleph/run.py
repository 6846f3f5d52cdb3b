"""`make run`: everything of Aleph on one machine, in one terminal, ended by Ctrl-C.

It prepares the data folder, starts the web process, the workers, the clock and, unless `REDIS_URL` names a server, an
embedded Redis; it starts again what dies, and leaves no process behind. Production starts the same commands from the
Procfile instead.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")
os.environ.setdefault("ALEPH_ENV", "development")

import django
from django.conf import settings
from django.contrib.staticfiles.finders import get_finders
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor

from aleph.children import Children
from aleph.embedded_redis import CannotStart, EmbeddedRedis
from billing import gateways
from chat import providers

HOST = "127.0.0.1"
BASE_DIR = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS = 10
NOT_READY_SECONDS = 20

COLOURS = {"web": 36, "worker": 32, "house": 34, "beat": 35, "redis": 33, "aleph": 1}
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotRun(Exception):
    """Why it cannot start, in one line for whoever typed the command."""


def main() -> int:
    try:
        run()
    except CannotRun as reason:
        say("aleph", str(reason))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def run() -> None:
    for number in ENDINGS:
        signal.signal(number, signal.default_int_handler)
    configure()
    with locked(settings.DATA_DIR / "run.lock"):
        check_port(settings.PORT)
        with redis_server() as redis:
            prepare()
            supervise(redis)


def configure() -> None:
    """Read the settings and load the apps; a wrong value in the environment is the caller's to mend."""
    try:
        django.setup()
        providers.configure(settings.PROVIDER_ENV)
        gateways.configure(settings.GATEWAY_ENV)
    except (ImproperlyConfigured, ValueError, OSError) as problem:
        raise CannotRun(f"This configuration cannot work: {problem}") from problem


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One run for one data folder. The kernel drops the lock with the process, however that ends."""
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotRun(
                f"Aleph already runs with the data in {path.parent} (process {file.read().strip() or 'unknown'})."
                " Stop it first, or give this one a folder of its own: ALEPH_DATA=... make run"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_port(port: int) -> None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError) as problem:
        raise CannotRun(
            f"Port {port} cannot be used ({problem}). Choose another one: PORT=8001 make run"
        ) from problem


@contextlib.contextmanager
def redis_server() -> Iterator[EmbeddedRedis | None]:
    """The embedded Redis, the last to go; None where `REDIS_URL` names a server."""
    if not settings.REDIS_EMBEDDED:
        yield None
        return
    server = EmbeddedRedis(socket_path=settings.REDIS_SOCKET, folder=settings.DATA_DIR / "redis")
    try:
        server.start()
    except CannotStart as problem:
        raise CannotRun(f"Redis does not start: {problem}") from problem
    try:
        yield server
    finally:
        server.stop()


def prepare() -> None:
    """Bring the database, the seed data and the static files up to date; next to nothing where they are."""
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            say("aleph", "Setting up the database ...")
            call_command("migrate", interactive=False, verbosity=0)
        call_command("seed", demo=settings.DEVELOPMENT, verbosity=0)
    except DatabaseError as problem:
        raise CannotRun(f"The database cannot be used: {problem}") from problem
    finally:
        connection.close()
    collect_static()


def collect_static() -> None:
    """Collect, hash and compress the static files if any of them changed since the last time."""
    stamp = Path(settings.STATIC_ROOT) / ".collected"
    digest = static_digest()
    if stamp.exists() and stamp.read_text() == digest:
        return
    say("aleph", "Collecting static files ...")
    call_command("collectstatic", interactive=False, clear=True, verbosity=0)
    stamp.write_text(digest)


def static_digest() -> str:
    """Changes with the name, size or time of any source file, and with what processes them."""
    digest = hashlib.sha256()
    sources = [(path, storage.path(path)) for finder in get_finders() for path, storage in finder.list([])]
    for name, path in [*sorted(sources), ("", BASE_DIR / "aleph" / "assets.py")]:
        state = os.stat(path)
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def commands(port: int) -> dict[str, list[str]]:
    """The processes of one machine by name. `Procfile` starts the same ones in production."""
    celery = [sys.executable, "-m", "celery", "--quiet", "--skip-checks", "-A", "aleph"]
    worker = ["-P", "threads", "--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
    return {
        "web": [
            *(
                sys.executable,
                "-m",
                "uvicorn",
                "aleph.asgi:application",
                "--host",
                HOST,
                "--port",
                str(port),
            ),
            *("--loop", "uvloop", "--http", "httptools", "--lifespan", "off"),
            *("--timeout-graceful-shutdown", "5", "--no-access-log", "--log-level", "warning"),
        ],
        "worker": [*celery, "worker", "-Q", "replies", "-c", "64", "-n", "worker@%h", *worker],
        "house": [*celery, "worker", "-Q", "house", "-c", "4", "-n", "house@%h", *worker],
        "beat": [*celery, "beat", "--pidfile", "", "-l", "WARNING"],
    }


def child_environment() -> dict[str, str]:
    """What the children are told: the same data folder wherever they stand, to write lines as they come, and not to
    warn of the administrator's rights, which many a container gives."""
    warnings = [
        os.environ.get("PYTHONWARNINGS", ""),
        "ignore:You're running the worker with superuser privileges",
    ]
    return {
        **os.environ,
        "ALEPH_DATA": str(settings.DATA_DIR),
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": ",".join(filter(None, warnings)),
    }


def supervise(redis: EmbeddedRedis | None) -> None:
    """Keep everything running until a signal says to stop; a second signal stops at once."""
    stop, hurry = threading.Event(), threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        (hurry if stop.is_set() else stop).set()

    for number in ENDINGS:
        signal.signal(number, on_signal)
    children = Children(commands(settings.PORT), env=child_environment(), folder=BASE_DIR, say=say)
    try:
        children.start()
        announcement = Announcement()
        while not stop.wait(0.1):
            children.tend()
            if redis is not None:
                tend_redis(redis)
            announcement.tend()
        say("aleph", "Stopping ...")
    finally:
        children.stop(patience_s=PATIENCE_SECONDS, hurry=hurry)


def tend_redis(redis: EmbeddedRedis) -> None:
    if redis.process is None or redis.process.poll() is None:
        return
    say("redis", f"ended with exit code {redis.process.returncode}; starting again")
    try:
        redis.start()
    except CannotStart as problem:
        say("redis", f"does not start: {problem}")
        time.sleep(1)


class Announcement:
    """Says where Aleph is once it is ready, or what is missing when that takes long."""

    def __init__(self) -> None:
        self.done = False
        self.patient_until = time.monotonic() + NOT_READY_SECONDS

    def tend(self) -> None:
        if self.done:
            return
        missing = what_is_missing(settings.PORT)
        if not missing:
            self.done = True
            say("", banner())
        elif time.monotonic() > self.patient_until:
            say("aleph", f"Not ready yet: {missing}")
            self.patient_until += NOT_READY_SECONDS


def what_is_missing(port: int) -> str:
    """Nothing once `/readyz` is content; else what it says, in a few words."""
    line = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        line.request("GET", "/readyz")
        answer = line.getresponse()
        body = answer.read()
        if answer.status == 200:
            return ""
        checks: dict[str, Any] = json.loads(body)
        return ", ".join(f"{name}: {state}" for name, state in checks.items() if state != "ok")
    except (OSError, http.client.HTTPException, ValueError) as problem:
        return f"the web process does not answer ({problem})"
    finally:
        line.close()


def banner() -> str:
    url = f"http://{HOST}:{settings.PORT}"
    lines = ["", f"  Aleph is ready:  {url}", ""]
    if settings.DEVELOPMENT:
        password = (settings.DATA_DIR / "demo_password").read_text().strip()
        key = (settings.DATA_DIR / "demo_api_key").read_text().strip()
        lines += [
            f"  Sign in with     demo@aleph.test   {password}",
            f"  or, as staff     admin@aleph.test  {password}",
            f"  API key          {key}",
            f'  Try it           curl -H "Authorization: Bearer {key}" {url}/api/v1/chat/tokens/balance',
            "",
        ]
    return "\n".join([*lines, f"  Data: {settings.DATA_DIR}    Stop: Ctrl-C", ""])


_terminal = threading.Lock()


def say(name: str, text: str, *, out: TextIO = sys.stdout) -> None:
    """Write whole lines, each behind the name it comes from. A closed terminal must not stop whoever speaks."""
    lines = [f"{label(name, out)}{line}" for line in text.splitlines() if line] if name else [text]
    if not lines:
        return
    with _terminal, contextlib.suppress(OSError, ValueError):
        out.write("\n".join(lines) + "\n")
        out.flush()


def label(name: str, out: TextIO) -> str:
    padded = f"{name:<6} | "
    return f"\x1b[{COLOURS.get(name, 0)}m{padded}\x1b[0m" if out.isatty() else padded


if __name__ == "__main__":
    sys.exit(main())
