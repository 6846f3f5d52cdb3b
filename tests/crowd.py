"""Many at once: threads that begin together, each with a database connection of its own. For tests with `committed`."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

from billing.ledger import Raced

T = TypeVar("T")
MOST = 16


def at_once(actions: Iterable[Callable[[], T]]) -> list[T | Exception]:
    """What each action returned or raised, in their order. At most `MOST` run at the same time."""
    waiting = list(actions)
    start = threading.Barrier(min(MOST, len(waiting)))
    begun = threading.local()

    def run(action: Callable[[], T]) -> T | Exception:
        if not getattr(begun, "yes", False):
            begun.yes = True
            start.wait(timeout=10)
        try:
            return action()
        except Exception as error:
            return error
        finally:
            connections.close_all()

    with ThreadPoolExecutor(start.parties) as pool:
        return list(pool.map(run, waiting))


def successes(outcomes: Iterable[T | Exception]) -> list[T]:
    return [outcome for outcome in outcomes if not isinstance(outcome, Exception)]


def failures(outcomes: Iterable[T | Exception]) -> list[Exception]:
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]


def again_if_raced(action: Callable[[], T]) -> Callable[[], T]:
    """As every caller of the ledger does it: whoever raced runs his transaction again."""

    def run() -> T:
        for _attempt in range(5):
            try:
                return action()
            except Raced:
                continue
        raise AssertionError("raced five times")

    return run
