"""One connection of one person to the product, as a browser without scripts or as a program with an API key.

Whatever comes back is looked at first: a fault of ours or somebody else's words are a complaint.
"""

import json
import re
import secrets
from collections.abc import Generator
from typing import Any

import requests

from chaos.memory import Memory

API = "/api/v1/chat"
CONNECT_S, READ_S = 2.0, 30.0
"""An open stream says something every 15 seconds; what is silent for twice that is dead."""
EVENTS = "text/event-stream"
MARK = re.compile(r"who-(\d+)-")
"""Stands in everything that a person says, with his number, so that others' words are recognised."""
TAG = re.compile(r"<[^>]*>")


class Client:
    def __init__(self, url: str, person: dict[str, Any], memory: Memory) -> None:
        self.url = url
        self.person = person
        self.memory = memory
        self.timed_out = False
        """Whether a request was given up that may still be at work."""
        self.session = requests.Session()
        self.session.trust_env = False
        self.csrf = secrets.token_hex(16)
        self.session.headers["Accept-Language"] = "en"

    def program(
        self,
        method: str,
        path: str,
        *,
        said: dict[str, Any] | None = None,
        key: str = "",
        stream: bool = False,
    ) -> requests.Response | None:
        """Ask the API. None where nobody answered, or nobody could."""
        headers = {"Authorization": f"Bearer {self.person['key']}"}
        headers |= {"Idempotency-Key": key} if key else {}
        headers |= {"Accept": EVENTS} if stream else {}
        return self._ask(method, API + path, headers=headers, json=said, stream=stream)

    def page(
        self,
        method: str,
        path: str,
        *,
        said: dict[str, Any] | None = None,
        htmx: bool = False,
        stream: bool = False,
    ) -> requests.Response | None:
        """Ask for a page, or send a form. None where nobody answered, or nobody could."""
        headers = {"Cookie": f"sessionid={self.person['cookie']}; csrftoken={self.csrf}"}
        headers |= {"X-CSRFToken": self.csrf} if method == "POST" else {}
        headers |= {"HX-Request": "true"} if htmx else {}
        return self._ask(method, path, headers=headers, data=said, stream=stream)

    def _ask(self, method: str, path: str, *, stream: bool, **more: Any) -> requests.Response | None:
        try:
            response = self.session.request(
                method,
                self.url + path,
                stream=stream,
                timeout=(CONNECT_S, READ_S),
                allow_redirects=False,
                **more,
            )
            is_stream = stream and EVENTS in response.headers.get("Content-Type", "")
            text = "" if is_stream else response.text
        except requests.RequestException as problem:
            self.timed_out |= isinstance(problem, requests.Timeout)
            self.memory.count("requests that nobody answered")
            return None
        where = f"{method} {path} for person {self.person['id']}"
        self.look(text, where)
        if response.status_code == 503 and "messageId" not in text:
            self._check_refusal(response, text, where)
            return None
        if response.status_code >= 500 and response.status_code != 503:
            self.memory.complain("no 500", f"{where}: {response.status_code} {text[:300]!r}")
            return None
        if response.status_code == 429:
            self.memory.count("requests above a limit")
            return None
        return response

    def _check_refusal(self, response: requests.Response, text: str, where: str) -> None:
        """While a server is away, people get a plain page or message that says so."""
        self.memory.count("requests answered by 503")
        if EVENTS in response.headers.get("Content-Type", ""):
            return
        is_plain = (
            ("Aleph is busy" in text) if "html" in response.headers["Content-Type"] else _is_error(text)
        )
        if not is_plain or "Traceback" in text or "Retry-After" not in response.headers:
            self.memory.complain("plain 503", f"{where}: {dict(response.headers)} {text[:300]!r}")

    def look(self, text: str, where: str) -> None:
        """Complain of words that somebody else said."""
        own = str(self.person["id"])
        foreign = {number for number in MARK.findall(text) if number != own}
        if foreign:
            self.memory.complain("I12", f"{where}: shows words of {', '.join(sorted(foreign))}")

    def events(self, response: requests.Response, where: str) -> Generator[tuple[str, str], None, None]:
        """(name, data) of each event; ends where the stream does, however that is."""
        kept, name, lines = b"", "", []
        try:
            for chunk in response.iter_content(None):
                kept += chunk
                *whole, kept = kept.split(b"\n")
                for raw in whole:
                    line = raw.decode()
                    field, _, value = line.partition(": ")
                    if field == "event":
                        name = value
                    elif field == "data":
                        lines.append(value)
                    elif not line and name:
                        data = "\n".join(lines)
                        self.look(data, where)
                        yield name, data
                        name, lines = "", []
        except requests.RequestException:
            self.memory.count("streams that broke")
        finally:
            response.close()


def _is_error(text: str) -> bool:
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return found.get("success") is False and bool(found.get("error")) and bool(found.get("code"))


def words_of(html: str) -> list[str]:
    """What of a fragment is read."""
    return TAG.sub(" ", html).split()
