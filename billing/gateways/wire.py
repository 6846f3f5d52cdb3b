"""One request to a gateway and its JSON answer. Only adapters call this.

No retries, no redirects, no environment proxies, no cookies. With `ALEPH_FORBID_NETWORK` set, nothing but this machine is
reached.
"""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from billing.gateways.base import Refused, Unauthorized, Unclear, Unreachable

CONNECT_S, READ_S, TOTAL_S = 3.05, 8.0, 12.0
LONGEST = 512 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is a dict or a list, {} where the answer was not JSON."""

    status: int
    body: Any


def call(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    auth: tuple[str, str] | None = None,
    as_json: Any = None,
    form: Mapping[str, str] | bytes | None = None,
    params: Mapping[str, str] | None = None,
) -> Answer:
    """Raises `Unreachable` where nothing was sent, `Unclear` where no whole answer came."""
    _refuse_strangers(url)
    until = monotonic() + TOTAL_S
    try:
        with _session().request(
            method,
            url,
            headers=dict(headers or {}),
            auth=auth,
            json=as_json,
            data=form,
            params=params,
            timeout=(CONNECT_S, READ_S),
            allow_redirects=False,
            stream=True,
        ) as response:
            return Answer(response.status_code, _body(response, until))
    except (requests.ConnectTimeout, requests.exceptions.InvalidURL) as error:
        raise Unreachable(f"no connection ({type(error).__name__})") from None
    except requests.ConnectionError as error:
        # A line that breaks after the request has gone is told apart from one that never was by urllib3's own words.
        if "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error):
            raise Unreachable("no connection") from None
        raise Unclear(f"the line broke ({type(error).__name__})") from None
    except requests.RequestException as error:
        raise Unclear(f"no answer ({type(error).__name__})") from None


def check(answer: Answer, detail: str = "") -> None:
    """Raise what a status other than 2xx means."""
    said = f"{answer.status} {detail}".strip()[:200]
    if answer.status in (401, 403):
        raise Unauthorized(said)
    if answer.status in (408, 409, 425, 429) or answer.status >= 500:
        raise Unclear(said)
    if not 200 <= answer.status < 300:
        raise Refused(said)


def _body(response: requests.Response, until: float) -> Any:
    read = bytearray()
    for piece in response.iter_content(16384):
        read += piece
        if len(read) > LONGEST or monotonic() > until:
            raise Unclear("the answer has no end")
    try:
        found = json.loads(bytes(read))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict | list) else {}


@cache
def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False
    session.headers.clear()
    session.headers["Accept"] = "application/json"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(pool_connections=4, pool_maxsize=32, max_retries=0))
    return session


def _refuse_strangers(url: str) -> None:
    host = urlsplit(url).hostname or ""
    if os.environ.get("ALEPH_FORBID_NETWORK") and not _is_this_machine(host):
        raise Unreachable("the network is forbidden here")


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
