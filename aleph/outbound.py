"""POST to an address that a person has named, which may lead anywhere and mean us ill.

A name is resolved once; every address that it has must be a public one, and the connection goes to the address that
was looked at, so that a name which answers otherwise a moment later leads nowhere else. HTTPS only, no redirects, no
proxies from the environment, no cookies, no compression; the answer and the time that it may take are bounded. In
development this machine itself may be named, by HTTP as well.
"""

import contextlib
import http.client
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from urllib.parse import SplitResult, urlsplit

import certifi
import urllib3
from django.conf import settings
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util.ssl_match_hostname import CertificateError

CONNECT_S, READ_S, TOTAL_S = 5.0, 10.0, 15.0
LONGEST = 4096
"""Bytes of an answer that are read."""
LONGEST_URL = 500
CA_FILE = certifi.where()


class NotDelivered(Exception):
    """No whole answer came. `code` says why:

    ``address``     the address is none that may be reached
    ``name``        its name is not known
    ``tls``         no connection can be trusted: a certificate, or the protocol
    ``connection``  nobody listens there, or the line broke
    ``timeout``     it took too long
    """

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is the beginning of what came; `retry_after_s` what the receiver asked for, None where it did not."""

    status: int
    body: bytes
    retry_after_s: int | None


def check(url: str) -> None:
    """Raise `NotDelivered("address")` for what no request will ever be sent to, as far as its spelling tells."""
    host = _parts(url).hostname or ""
    try:
        is_refused = not is_public(host) and not (settings.DEVELOPMENT and _is_loopback(host))
    except ValueError:
        return  # a name, which is looked up when something is sent
    if is_refused:
        raise NotDelivered("address")


def post(url: str, *, body: bytes, headers: Mapping[str, str]) -> Answer:
    """Raises `NotDelivered`."""
    parts = _parts(url)
    until = monotonic() + TOTAL_S
    connection = _connection(parts, _checked_address(parts))
    try:
        connection.connect()
        connection.timeout = READ_S
        # A receiver could go on for ever, byte by byte.
        watchdog = threading.Timer(max(until - monotonic(), 0), _hang_up, [connection])
        watchdog.daemon = True
        watchdog.start()
        try:
            answer = _exchange(connection, parts, body, headers)
        finally:
            watchdog.cancel()
    except TimeoutError:
        raise NotDelivered("timeout") from None
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError) as error:
        is_tls = isinstance(error, ssl.SSLError | urllib3.exceptions.SSLError | CertificateError)
        # urllib3 derives "nobody listens there" from its timeouts.
        is_slow = monotonic() > until or (
            isinstance(error, urllib3.exceptions.TimeoutError)
            and not isinstance(error, urllib3.exceptions.NewConnectionError)
        )
        raise NotDelivered("timeout" if is_slow else "tls" if is_tls else "connection") from None
    finally:
        connection.close()
    if monotonic() > until:
        raise NotDelivered("timeout")
    return answer


def _exchange(
    connection: HTTPConnection, parts: SplitResult, body: bytes, headers: Mapping[str, str]
) -> Answer:
    connection.request(
        "POST",
        (parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        body=body,
        headers={"Host": parts.netloc, "Accept-Encoding": "identity", **headers},
        preload_content=False,
        decode_content=False,
    )
    response = connection.getresponse()
    read = bytearray()
    while len(read) < LONGEST and (piece := response.read1(LONGEST - len(read))):
        read += piece
    return Answer(response.status, bytes(read), _seconds(response.headers.get("Retry-After", "")))


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and not another spelling of one that is not."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv4Address):
        return found.is_global and not found.is_multicast and not found.is_reserved
    return found in _GLOBAL_UNICAST and not any(found in network for network in _NOT_PUBLIC)


_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC = [
    # Protocol assignments and Teredo, documentation, and 6to4, which carries an IPv4 address.
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16")
]


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise NotDelivered("address") from None
    is_here = settings.DEVELOPMENT and _is_this_machine(host)
    if (
        len(url) > LONGEST_URL
        or not url.isascii()
        or any(sign <= " " or sign in '"<>\\^`{|}\x7f' for sign in url)
        or parts.scheme not in ({"http", "https"} if is_here else {"https"})
        or not host
        or "@" in parts.netloc
        or "%" in parts.netloc
        or parts.fragment
        # What listens below 1024 is rarely a receiver of webhooks, and often something to be left alone.
        or not (is_here or port in (None, 443) or port > 1023)
    ):
        raise NotDelivered("address")
    return parts


def _checked_address(parts: SplitResult) -> str:
    """The address to connect to. Raises `NotDelivered` where any that the name has is not public."""
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, _port(parts), type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotDelivered("name") from None
    addresses = [str(entry[4][0]) for entry in found]
    may_be_here = settings.DEVELOPMENT and _is_this_machine(host)
    for address in addresses:
        if not (_is_loopback(address) if may_be_here else "%" not in address and is_public(address)):
            raise NotDelivered("address")
    if not addresses:
        raise NotDelivered("name")
    if os.environ.get("ALEPH_FORBID_NETWORK") and not may_be_here:
        raise NotDelivered("connection")
    return addresses[0]


def _connection(parts: SplitResult, address: str) -> HTTPConnection:
    if parts.scheme == "http":
        return HTTPConnection(address, _port(parts), timeout=CONNECT_S)
    return HTTPSConnection(
        address,
        _port(parts),
        timeout=CONNECT_S,
        cert_reqs="CERT_REQUIRED",
        ca_certs=CA_FILE,
        server_hostname=parts.hostname,
        assert_hostname=parts.hostname,
    )


def _hang_up(connection: HTTPConnection) -> None:
    with contextlib.suppress(OSError, TypeError):
        # Of the plain socket: that of TLS would forget its keys while another thread reads.
        socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


def _port(parts: SplitResult) -> int:
    return parts.port or (80 if parts.scheme == "http" else 443)


def _seconds(header: str) -> int | None:
    return int(header) if header.isascii() and header.isdecimal() and len(header) < 7 else None


def _is_this_machine(host: str) -> bool:
    return host == "localhost" or _is_loopback(host)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
