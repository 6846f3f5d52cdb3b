"""The real product for tests: web, workers and clock as processes, on the test database and Redis.

OpenAI and Hugging Face are stood in for by `tests.simulator`, payment gateways by `tests.simulator_gateways`; e-mail goes into
files.
"""

import email
import email.policy
import os
import random
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from email.message import EmailMessage
from typing import Any, Self
from urllib.parse import urljoin, urlsplit, urlunsplit

import requests
from django.conf import settings
from django.db import connection, transaction
from django.test import Client
from django.utils.crypto import get_random_string

from aleph.accounts.models import ApiKey, User
from aleph.celery import app
from aleph.children import Children
from aleph.run import BASE_DIR, HOST, child_environment, commands, what_is_missing
from chat.models import ChatModel, Route
from tests.simulator import Simulator
from tests.simulator_gateways import Gateways

START_SECONDS = 60


class Visitor(requests.Session):
    """A browser without scripts: it keeps cookies, takes paths, and has the CSRF token that a page would hold."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url
        self.trust_env = False
        token = get_random_string(32)
        self.cookies.set(settings.CSRF_COOKIE_NAME, token, domain=HOST, path="/")
        self.headers.update({"X-CSRFToken": token, "Accept-Language": "en"})

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **options: Any) -> requests.Response:
        return super().request(method, urljoin(self.url, str(url)), *args, **{"timeout": 60, **options})


class Product:
    """`url` is where it answers; `simulator` what its providers are; `log` the last lines of its processes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.mail_folder = settings.DATA_DIR / "mail"
        self.simulator = Simulator()
        self.gateways = Gateways()
        self.log: deque[str] = deque(maxlen=200)

    def __enter__(self) -> Self:
        self.simulator.__enter__()
        self.gateways.__enter__()
        env = self.environment()
        subprocess.run(
            [sys.executable, "manage.py", "collectstatic", "--noinput", "-v0"],
            cwd=BASE_DIR,
            env=env,
            check=True,
        )
        self.processes = Children(commands(self.port), env=env, folder=BASE_DIR, say=self.note)
        self.processes.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.processes.stop(patience_s=10)
        self.simulator.__exit__(None, None, None)
        self.gateways.__exit__()

    def environment(self) -> dict[str, str]:
        return {
            **child_environment(),
            "DJANGO_SETTINGS_MODULE": "aleph.settings",
            "DATABASE_URL": database_url(),
            "PORT": str(self.port),
            "SHUTDOWN_GRACE_SECONDS": "20",
            "EMAIL_URL": f"filemail:///{self.mail_folder}",
            "OPENAI_API_KEY": "sk-simulated",
            "OPENAI_BASE_URL": self.simulator.base_url,
            "HUGGINGFACE_API_KEY": "hf-simulated",
            "HUGGINGFACE_BASE_URL": self.simulator.base_url,
            **self.gateways.environment,
        }

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while missing := what_is_missing(self.port) or self.missing_workers():
            if time.monotonic() > deadline:
                raise TimeoutError(missing + "\n" + "\n".join(self.log))
            time.sleep(0.1)

    def missing_workers(self) -> str:
        answers = {
            name.partition("@")[0] for answer in app.control.ping(timeout=0.5) or [] for name in answer
        }
        return ", ".join({"worker", "house"} - answers)

    def note(self, name: str, line: str) -> None:
        self.log.append(f"{name:<6} | {line}")

    # Who comes

    def visitor(self) -> Visitor:
        """Somebody who is not signed in."""
        return Visitor(self.url)

    def signed_in(self, user: User) -> Visitor:
        visitor = self.visitor()
        visitor.cookies.set(settings.SESSION_COOKIE_NAME, session_cookie(user), domain=HOST, path="/")
        return visitor

    def api_key(self, user: User) -> str:
        return ApiKey.issue(user=user, name="test")

    def program(self, user: User) -> Visitor:
        """A program that acts for `user` with an API key."""
        program = Visitor(self.url)
        program.cookies.clear()
        program.headers["Authorization"] = f"Bearer {self.api_key(user)}"
        return program

    def mail(self, address: str) -> list[EmailMessage]:
        """The messages sent to an address so far, oldest first."""
        files = sorted(self.mail_folder.glob("*.log"), key=lambda file: file.stat().st_mtime_ns)
        texts = [text.strip() for file in files for text in file.read_text().split("-" * 79)]
        messages = [email.message_from_string(text, policy=email.policy.default) for text in texts if text]
        return [message for message in messages if address in str(message["To"])]


def simulated_model(script: str, *, rate: int = 100) -> str:
    """A model on offer that the simulator answers as `script` says (``sim-words-50``); its slug. `rate` 0 is free."""
    slug = f"{script}-at-{rate}"
    with transaction.atomic():
        model, is_fresh = ChatModel.objects.get_or_create(
            slug=slug,
            defaults={
                "name": slug,
                "maker": "Simulator",
                "is_free": rate == 0,
                "input_rate": rate,
                "output_rate": rate,
                "context_tokens": 8192,
                "position": 100,
            },
        )
        if is_fresh:
            Route.objects.create(model=model, provider="openai", upstream_model=script)
    return slug


def session_cookie(user: User) -> str:
    """The value of the session cookie of somebody who has just signed in."""
    client = Client()
    client.force_login(user)
    return client.cookies[settings.SESSION_COOKIE_NAME].value


def database_url() -> str:
    """The test database as other processes know it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return urlunsplit(urlsplit(os.environ["TEST_DATABASE_URL"])._replace(path=f"/{name}"))


def free_port() -> int:
    """A port to listen on a little later. It lies below those that systems give to connections and to whoever asks for
    any, so that nobody else gets it meanwhile."""
    while True:
        port = random.randrange(12_000, 30_000)
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
