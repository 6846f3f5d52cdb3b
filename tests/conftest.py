"""What every test may ask for.

Three ways to the database, which holds the seed data from the start:

`db`         the usual one: all that a test writes is rolled back.
`committed`  what a test writes stays, for threads and for other processes. The books cannot be emptied, so nothing is
             cleaned: bring people of your own from `tests.people`.
`product`    the product's real processes on the same database and Redis (`tests.product`); implies `committed`.

`browser` is a page of an installed Chromium at the product. Tests that use processes run last, so that no worker
meddles with the others. What fails only by time, in a browser or by `tests.clock`, gets one more try, and the summary names it.

`TEST_SECOND_RUN=1` leaves out what another database or Redis cannot change: `.ci/run` sets it where everything passes on
SQLite at the same time.
"""

import ipaddress
import os
import shutil
import socket
from collections.abc import Generator, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from _pytest._code.code import ExceptionChainRepr
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections
from django.test.utils import setup_databases, teardown_databases
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import TimeoutError as WaitedInVain
from playwright.sync_api import sync_playwright

from aleph.embedded_redis import EmbeddedRedis
from chat import catalogue, stream
from tests.browser import ARGUMENTS, Browser
from tests.clock import Late
from tests.product import Product, Visitor
from tests.simulator import Simulator

NO_CHROMIUM = "no Chromium was found (CHROMIUM names one), so the tests in the browser were skipped"


def chromium() -> str | None:
    named = os.environ.get("CHROMIUM")
    return named or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )


# Which tests run, in which order, and how often

ONCE = {
    "test_attachments_in_the_browser",
    "test_branches_in_the_browser",
    "test_chat_in_the_browser",
    "test_narrow_pages",
    "test_translations",
}
"""Modules in which the database is scenery: about scripts, layout and texts."""

ON_REDIS = {"test_rates", "test_stream"}
"""Modules that need Redis and mostly no database."""

ONE_MORE_TRY = pytest.mark.flaky(
    reruns=1, only_rerun=[Late, WaitedInVain, r"(?s)\AAssertionError: .+ with timeout \d+ms"]
)
"""For what was too slow on a busy machine. Whatever else goes wrong fails at once."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.environ.get("TEST_SECOND_RUN"):
        config.hook.pytest_deselected(items=[item for item in items if not _may_differ(item)])
        items[:] = [item for item in items if _may_differ(item)]
    items.sort(key=lambda item: _processes_of(item))
    if not config.getoption("usepdb"):
        for item in items:
            item.add_marker(ONE_MORE_TRY)


def _may_differ(item: pytest.Item) -> bool:
    """Whether another database, or another Redis, might make a difference to a test."""
    if item.path.stem in ONCE:
        return False
    asks_for_a_database = {"db", "django_db_setup"} & _fixtures_of(item) or item.get_closest_marker(
        "django_db"
    )
    return bool(asks_for_a_database) or item.path.stem in ON_REDIS


def _processes_of(item: pytest.Item) -> int:
    fixtures = _fixtures_of(item)
    return 2 if "installed_chromium" in fixtures else 1 if "product" in fixtures else 0


def _fixtures_of(item: pytest.Item) -> set[str]:
    return {*getattr(item, "fixturenames", ())}


# What is said of failures

LAST_LINES = 100


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Behind a failure stands what was last written, by the test and by the product's processes."""
    report = yield
    running = getattr(item, "funcargs", {}).get("product")
    if report.failed:
        if running is not None:
            report.sections.append(("the product's processes", "\n".join(running.log)))
        report.sections = [(name, _last_lines(text)) for name, text in report.sections]
    return report


def _last_lines(text: str) -> str:
    lines = text.splitlines()
    left_out = [f"({len(lines) - LAST_LINES} lines before these)"] if len(lines) > LAST_LINES else []
    return "\n".join([*left_out, *lines[-LAST_LINES:]])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """At the end, where it is looked for: what was tried twice, and each failure once more, without the logs."""
    for report in terminalreporter.getreports("rerun"):
        terminalreporter.write_line(f"NEEDED ONE MORE TRY: {report.nodeid}", yellow=True)
        terminalreporter.write_line(_fault_of(report).partition("\n\n")[0])
    for report in [*terminalreporter.getreports("error"), *terminalreporter.getreports("failed")]:
        terminalreporter.write_sep("_", report.nodeid, red=True)
        terminalreporter.write_line(_fault_of(report))
    if any(NO_CHROMIUM in str(report.longrepr) for report in terminalreporter.getreports("skipped")):
        terminalreporter.write_line(f"NOTE: {NO_CHROMIUM}.", yellow=True)


def _fault_of(report: pytest.TestReport | pytest.CollectReport) -> str:
    """What was said of it, and the line of ours at which it failed."""
    fault = report.longrepr
    if not isinstance(fault, ExceptionChainRepr) or fault.reprcrash is None:
        return _last_lines(report.longreprtext)
    places = [str(getattr(entry, "reprfileloc", "")) for entry in fault.reprtraceback.reprentries]
    ours = next((place for place in reversed(places) if "site-packages" not in place), "")
    return _last_lines(f"{ours}\n{fault.reprcrash.message}")


# No network but this machine


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Refuse connections to other machines, the servers that the tests were told to use excepted."""
    told = {
        urlsplit(os.environ.get(name, "")).hostname for name in ("TEST_DATABASE_URL", "TEST_REDIS_URL")
    } - {None}
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in told and not _is_this_machine(address[0]):
            raise PermissionError(f"a test wanted to reach {address[0]}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded)
    yield
    patch.undo()


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


# Redis and the database


@pytest.fixture(autouse=True, scope="session")
def redis_server() -> Iterator[EmbeddedRedis | None]:
    """The embedded Redis of this session; None where `TEST_REDIS_URL` names a server, which is left as it was found."""
    if not settings.REDIS_EMBEDDED:
        yield None
        for key in stream.client().scan_iter(f"{settings.REDIS_PREFIX}*", count=1000):
            stream.client().delete(key)
        return
    server = EmbeddedRedis(socket_path=settings.REDIS_SOCKET, folder=settings.DATA_DIR / "redis")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def django_db_setup(django_test_environment: None, django_db_blocker: Any) -> Iterator[None]:
    """Takes the place of pytest-django's own, which makes no database where only `committed` asks for one."""
    with django_db_blocker.unblock():
        databases = setup_databases(verbosity=0, interactive=False)
        call_command("seed", verbosity=0)
    yield
    with django_db_blocker.unblock():
        end_other_connections()
        teardown_databases(databases, verbosity=0)


def end_other_connections() -> None:
    """A thread that tends replies may be asking the database at this moment, and PostgreSQL drops none that is in use."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )


@pytest.fixture
def committed(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock():
        yield
        connections.close_all()


@pytest.fixture
def transactional_db() -> None:
    pytest.fail("The books refuse to be emptied after a test: use `committed` instead.")


# Providers in this process


@pytest.fixture(scope="session")
def running_simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def simulator(running_simulator: Simulator, settings: Any) -> Iterator[Simulator]:
    """Stands in for OpenAI and Hugging Face as this process knows them. Elsewhere none is connected."""
    address = running_simulator.base_url
    settings.PROVIDER_ENV = {
        **settings.PROVIDER_ENV,
        "OPENAI_API_KEY": "sk-simulated",
        "OPENAI_BASE_URL": address,
        "HUGGINGFACE_API_KEY": "hf-simulated",
        "HUGGINGFACE_BASE_URL": address,
    }
    catalogue.connected.cache_clear()
    yield running_simulator
    catalogue.connected.cache_clear()


# The product and the browser


@pytest.fixture(scope="session")
def running_product(django_db_setup: None, django_db_blocker: Any, redis_server: object) -> Iterator[Product]:
    with Product() as product:
        yield product


@pytest.fixture
def product(running_product: Product, committed: None) -> Product:
    return running_product


@pytest.fixture
def visitor(product: Product) -> Visitor:
    """Somebody who is not signed in."""
    return product.visitor()


@pytest.fixture(scope="session")
def installed_chromium() -> Iterator[Chromium]:
    path = chromium()
    if path is None:
        pytest.skip(NO_CHROMIUM)
    # Playwright's own loop runs in this thread, and Django would refuse the database for it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=[*ARGUMENTS])
        yield started
        started.close()


@pytest.fixture
def browser(installed_chromium: Chromium, product: Product) -> Iterator[Browser]:
    opened = Browser(installed_chromium, product)
    yield opened
    opened.close()
    if opened.complaints:
        pytest.fail("the browser complained:\n" + "\n".join(opened.complaints))
