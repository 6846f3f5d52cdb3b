"""`make run`, as whoever types it sees it: one command, one terminal, one data folder, and nothing left behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import psutil
import pytest
import requests

from aleph.children import Children
from aleph.embedded_redis import EmbeddedRedis
from aleph.run import BASE_DIR
from tests.product import Visitor, free_port

# Longer than the path of a unix socket may be, and with everything that has a meaning in addresses and configurations.
AWKWARD = "Data of Aleph, 100% 'new' + more? #1 " + "long " * 20
OF_THE_TESTS = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "STATIC_ROOT", "PORT")


class Run:
    """`python -m aleph.run` with a data folder and a port; `lines` is what it wrote so far."""

    all: ClassVar[list["Run"]] = []

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.lines: list[str] = []
        environment = {name: value for name, value in os.environ.items() if name not in OF_THE_TESTS}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aleph.run"],
            cwd=BASE_DIR,
            env={**environment, "ALEPH_DATA": str(folder), "PORT": str(self.port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.all.append(self)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_for(self, text: str, *, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.output:
            assert time.monotonic() < deadline, f"never said {text!r}:\n{self.output}"
            assert self.process.poll() is None, self.output
            time.sleep(0.02)

    def said(self, pattern: str) -> str:
        found = re.search(pattern, self.output)
        assert found, self.output
        return found[1]

    def ready(self) -> "Run":
        """Wait until it is. `work_s` is the processor time that it and its children took for that."""
        self.wait_for("Stop: Ctrl-C")
        run = psutil.Process(self.process.pid)
        self.work_s = sum(sum(each.cpu_times()[:2]) for each in [run, *run.children(recursive=True)])
        return self

    def processes(self) -> dict[str, psutil.Process]:
        """What it started, by a word of the command line."""
        words = {
            "uvicorn": "web",
            "worker@": "worker",
            "house@": "house",
            "beat": "beat",
            "redis-server": "redis",
        }
        children = psutil.Process(self.process.pid).children(recursive=True)
        lines = {child: " ".join(child.cmdline()) for child in children}
        return {name: child for child, line in lines.items() for word, name in words.items() if word in line}

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self.reader.join(timeout=5)
        return code

    def program(self) -> Visitor:
        """A program with the API key that was printed."""
        program = Visitor(self.url)
        program.headers["Authorization"] = "Bearer " + self.said(r"API key +(alp_\S+)")
        return program

    def ask(self, text: str) -> str:
        """The reply of the free tier, which is Aleph Demo where nothing is connected."""
        program = self.program()
        session = program.post(
            "/api/v1/chat/sessions", json={"serviceType": "huggingface", "model": None}
        ).json()
        answer = program.post(
            f"/api/v1/chat/sessions/{session['data']['id']}/messages", json={"content": text}
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["data"]["content"])

    def tokens(self) -> int:
        answer = self.program().get("/api/v1/chat/tokens/balance")
        return int(answer.json()["data"]["tokens"])


@pytest.fixture(autouse=True, scope="module")
def nothing_stays() -> Iterator[None]:
    """A failed test must not leave a run behind."""
    yield
    for run in Run.all:
        if run.process.poll() is None:
            run.end()


@pytest.fixture(scope="module")
def used_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """A data folder that one run has set up and left again, and that run."""
    folder = tmp_path_factory.mktemp("run") / AWKWARD.strip()
    run = Run(folder).ready()
    children = list(run.processes().values())
    assert len(children) == 5, run.output
    assert run.tokens() == 10_500
    code = run.end()
    assert code == 0, run.output
    left = [child for child in children if child.is_running()]
    assert not left, "Ctrl-C left processes behind"
    return folder, run


@pytest.fixture(scope="module")
def running(used_folder: tuple[Path, Run]) -> Iterator[Run]:
    """A second run in the same folder."""
    run = Run(used_folder[0]).ready()
    yield run
    run.end()


# The first start and the second


@pytest.mark.slow
def test_the_first_start_says_where_it_is_and_how_to_sign_in(used_folder: tuple[Path, Run]) -> None:
    _, run = used_folder
    assert run.url in run.output
    password = run.said(r"demo@aleph\.test +(\S+)")
    assert run.said(r"admin@aleph\.test +(\S+)") == password
    assert run.said(r"(curl -H .+/api/v1/chat/tokens/balance)")
    assert "Traceback" not in run.output


def test_secrets_are_readable_by_their_owner_only(used_folder: tuple[Path, Run]) -> None:
    folder, _ = used_folder
    for name in ("secret_key", "demo_password", "demo_api_key"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name


def test_a_second_start_is_quick_and_keeps_people_money_and_keys(
    used_folder: tuple[Path, Run], running: Run
) -> None:
    _, first = used_folder
    # The five processes start, and nothing is set up. Seconds would tell more of the machine than of the start.
    assert running.work_s < first.work_s / 2
    assert "Setting up the database" not in running.output
    assert "Collecting" not in running.output
    for kept in (r"demo@aleph\.test +(\S+)", r"API key +(alp_\S+)"):
        assert running.said(kept) == first.said(kept)
    assert running.tokens() == 10_500


def test_the_demo_person_can_sign_in_with_the_printed_password(running: Run) -> None:
    visitor = Visitor(running.url)
    answer = visitor.post(
        "/accounts/login/",
        data={"login": "demo@aleph.test", "password": running.said(r"demo@aleph\.test +(\S+)")},
        allow_redirects=False,
    )
    assert answer.status_code == 302, answer.text
    assert "sessionid" in visitor.cookies


# Where it cannot start


def test_a_second_run_in_the_same_folder_is_refused_plainly(running: Run) -> None:
    other = Run(running.folder)
    assert other.process.wait(timeout=30) == 1
    other.reader.join()
    assert len(other.lines) == 1
    assert f"process {running.process.pid}" in other.output


def test_a_taken_port_is_said_in_one_line_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = Run(tmp_path / "data", port=port)
        assert run.process.wait(timeout=30) == 1
    run.reader.join()
    assert len(run.lines) == 1
    assert f"Port {port} cannot be used" in run.output
    assert not (tmp_path / "data" / "redis").exists()
    assert not (tmp_path / "data" / "aleph.sqlite3").exists()


# What happens while it runs


def test_readyz_tells_when_redis_is_gone_and_when_it_is_back(running: Run) -> None:
    assert requests.get(f"{running.url}/readyz", timeout=5).json() == {"database": "ok", "redis": "ok"}
    redis = running.processes()["redis"]
    redis.suspend()
    try:
        answer = requests.get(f"{running.url}/readyz", timeout=5)
        assert answer.status_code == 503
        assert answer.json()["database"] == "ok"
        assert answer.json()["redis"] != "ok"
        assert requests.get(f"{running.url}/healthz", timeout=5).status_code == 200
    finally:
        redis.resume()
    assert requests.get(f"{running.url}/readyz", timeout=5).status_code == 200


@pytest.mark.slow
def test_what_dies_is_started_again_and_answers(running: Run) -> None:
    assert "Aleph Demo" in running.ask("Halo")
    before = running.processes()
    before["worker"].kill()
    before["redis"].kill()
    running.wait_for("worker | was ended by SIGKILL; starting again")
    running.wait_for("redis  | ended")
    deadline = time.monotonic() + 20
    while (now := running.processes()).keys() != before.keys():
        assert time.monotonic() < deadline, running.output
        time.sleep(0.1)
    assert now["worker"].pid != before["worker"].pid
    assert requests.get(f"{running.url}/readyz", timeout=5).status_code == 200
    assert "Aleph Demo" in running.ask("Apa kabar?")


# How it ends


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
def test_a_killed_run_leaves_no_process_and_no_obstacle(used_folder: tuple[Path, Run], running: Run) -> None:
    children = list(running.processes().values())
    assert len(children) == 5
    running.process.kill()
    _, left = psutil.wait_procs(children, timeout=10)
    assert not left
    again = Run(used_folder[0]).ready()
    assert again.tokens() == 10_500
    assert again.end(signal.SIGTERM) == 0


def test_a_child_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    deaf = "trap '' TERM; sleep 60 & echo $! > grandchild; echo deaf; wait; wait"
    heard: list[str] = []
    children = Children(
        {"deaf": ["sh", "-c", deaf]}, env=os.environ, folder=tmp_path, say=lambda _, line: heard.append(line)
    )
    children.start()
    deadline = time.monotonic() + 10
    while "deaf" not in heard and time.monotonic() < deadline:
        time.sleep(0.01)
    grandchild = psutil.Process(int((tmp_path / "grandchild").read_text()))
    children.stop(patience_s=0.2)
    assert heard[-1] == "did not end in time and was killed"
    assert grandchild in psutil.wait_procs([grandchild], timeout=5)[0]


def test_a_child_that_keeps_dying_is_started_less_and_less_often(tmp_path: Path) -> None:
    heard: list[str] = []
    children = Children(
        {"ill": ["sh", "-c", "exit 3"]},
        env=os.environ,
        folder=tmp_path,
        say=lambda _, line: heard.append(line),
    )
    children.start()
    deadline = time.monotonic() + 10
    while len(heard) < 2 and time.monotonic() < deadline:
        children.tend()
        time.sleep(0.02)
    children.stop(patience_s=1)
    assert heard == [
        "ended with exit code 3; starting again in 0.5 s",
        "ended with exit code 3; starting again in 1 s",
    ]


# The embedded Redis


@pytest.fixture
def redis_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("r")


def test_the_socket_of_a_killed_redis_is_no_obstacle(redis_folder: Path) -> None:
    killed = EmbeddedRedis(socket_path=redis_folder / "s", folder=redis_folder / "data")
    killed.start()
    assert killed.process is not None
    killed.process.kill()
    killed.process.wait()
    assert (redis_folder / "s").exists()
    after = EmbeddedRedis(socket_path=redis_folder / "s", folder=redis_folder / "data")
    after.start()
    assert after.answers()
    after.stop()
    assert not after.answers()


def test_an_orphaned_redis_makes_room(redis_folder: Path) -> None:
    orphan = EmbeddedRedis(socket_path=redis_folder / "s", folder=redis_folder / "data")
    orphan.start()
    heir = EmbeddedRedis(socket_path=redis_folder / "s", folder=redis_folder / "data")
    heir.start()
    assert orphan.process is not None
    assert orphan.process.wait(timeout=5) == 0
    assert heir.answers()
    heir.stop()


def test_only_the_owner_reaches_the_socket(redis_folder: Path) -> None:
    redis = EmbeddedRedis(socket_path=redis_folder / "s", folder=redis_folder / "data")
    redis.start()
    assert (redis_folder / "s").stat().st_mode & 0o077 == 0
    redis.stop()
