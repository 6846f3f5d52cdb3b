"""Limits for tests: forgetting what was counted, asking as somebody from somewhere, and other processes that count, too."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.test import RequestFactory

from aleph.accounts.models import User
from aleph.run import BASE_DIR
from chat import stream


def forget_limits() -> None:
    """Whatever was counted in this test session. Never the whole server, which may be shared."""
    for key in counted():
        stream.client().delete(key)


def counted(*kinds: str) -> Iterator[bytes]:
    """The keys in which limits are counted."""
    for kind in kinds or ("cache", "rate", "slots"):
        yield from stream.client().scan_iter(f"{settings.REDIS_PREFIX}{kind}:*", count=1000)


def asked_by(person: User | None, *, at: str = "203.0.113.7") -> HttpRequest:
    """A request of `person`, of a guest without one, from the address `at`."""
    request = RequestFactory().post("/", REMOTE_ADDR=at)
    request.user = person or AnonymousUser()
    return request


PRELUDE = """
import json, os, sys
import django
django.setup()
from aleph import rates
from aleph.accounts.models import User
from django.test import RequestFactory
request = RequestFactory().post("/", REMOTE_ADDR="203.0.113.7")
request.user = User(pk=int(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
"""


class OtherProcess:
    """Runs `code` with `rates` and a `request` of somebody whose id is `user_id`, once it is told to `go`."""

    def __init__(self, user_id: int, code: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + code, str(user_id)],
            cwd=BASE_DIR,
            env={**os.environ, "DJANGO_SETTINGS_MODULE": "aleph.settings", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """What it printed, as JSON, once it has ended."""
        output, _errors = self.process.communicate(timeout=60)
        return json.loads(output)
