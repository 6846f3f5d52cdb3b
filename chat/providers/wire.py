"""One request to a provider, and the bytes of its answer as they arrive. Only adapters call this.

No retries, no redirects, no environment proxies, no cookies. Another thread can hang up in any phase: while
connecting, in the TLS handshake, before the first byte, in mid-answer. With `ALEPH_FORBID_NETWORK` set,
nothing but this machine can be reached.
"""

import http.client
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from time import monotonic
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.response import HTTPResponse

from chat.providers.base import Call, Cancelled, Clocks, ProviderError

CONNECTIONS = 512  # kept open per provider: more than the threads of one worker process
READ_BYTES = 65536
LONGEST_CHUNK_HEAD = 8192
LAST_READ_S = (
    0.05  # patience for the end of a body whose content is complete: a kept connection saves a handshake
)

_thread = threading.local()


class NetworkForbidden(RuntimeError):
    """Something tried to leave this machine while `ALEPH_FORBID_NETWORK` is set."""


class Wire:
    """The connections to one provider, shared by all threads of the process."""

    def __init__(self) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.clear()
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        adapter = _Adapter(pool_connections=4, pool_maxsize=CONNECTIONS, max_retries=0)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    @contextmanager
    def send(
        self, url: str, *, body: bytes | None, headers: Mapping[str, str], call: Call, clocks: Clocks
    ) -> Iterator["Incoming"]:
        """Send, and hand over the answer once its headers are here; whatever its status. Without a body it is a GET. The
        connection is kept for the next call if the answer was read to its end, else closed."""
        line = _Line(call)
        call.when_cancelled(line.hang_up)
        started_at = monotonic()
        response = None
        try:
            response = self._begin(url, body, headers, line, clocks)
            incoming = Incoming(response, line, clocks, started_at)
            yield incoming
            incoming.read_to_end()
        finally:
            call.when_cancelled(None)
            if response is not None:
                response.close()
            line.drop()

    def _begin(
        self, url: str, body: bytes | None, headers: Mapping[str, str], line: "_Line", clocks: Clocks
    ) -> requests.Response:
        patience = (clocks.connect_s, min(clocks.first_byte_s, clocks.total_s))
        _thread.line = line
        try:
            request = requests.Request(
                "GET" if body is None else "POST", url, data=body, headers=dict(headers)
            )
            prepared = self._session.prepare_request(request)
            return self._session.send(prepared, stream=True, timeout=patience, allow_redirects=False)
        except (requests.RequestException, HTTPError, http.client.HTTPException, OSError) as problem:
            line.call.check()
            raise _before_answer(problem) from None
        finally:
            _thread.line = None


class Incoming:
    """The answer of one request: status, headers, and `read` for the body."""

    def __init__(self, response: requests.Response, line: "_Line", clocks: Clocks, started_at: float) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._raw: HTTPResponse = response.raw
        self._line = line
        self._idle_s = clocks.idle_s
        self._first_at: float | None = started_at + clocks.first_byte_s
        self._until = started_at + clocks.total_s
        self._patience: float | None = None
        self._encoded = response.headers.get("content-encoding", "identity").lower() != "identity"
        self._ended = False

    def begun(self) -> None:
        """The first event is here: from now on the idle clock runs instead of the first one."""
        self._first_at = None

    def end_within(self, seconds: float) -> None:
        """Whatever is still to come has this long at most."""
        self._until = min(self._until, monotonic() + seconds)

    def read(self) -> bytes:
        """All that has arrived, at least one byte; b"" at the end. Raises ProviderError `timeout` or
        `broken_stream`, or Cancelled."""
        self._line.call.check()
        now = monotonic()
        if self._first_at is None:
            patience = min(self._idle_s, self._until - now)
        else:
            patience = min(self._first_at, self._until) - now
        try:
            self._wait_at_most(patience)
            data = self._raw.read1(READ_BYTES, decode_content=self._encoded)
        except (HTTPError, OSError) as problem:
            self._line.call.check()
            raise _in_answer(problem) from None
        if not data:
            self._ended = True
            self._line.call.check()  # a line that was hung up looks like an end
        return data

    def read_at_most(self, size: int) -> bytes:
        """The body up to `size` bytes, whatever of it can still be had."""
        body = b""
        try:
            while len(body) < size and (data := self.read()):
                body += data
        except ProviderError:
            return body
        return body[:size]

    def read_to_end(self) -> None:
        """Let the connection be kept when the end of the body is only a moment away."""
        self.end_within(LAST_READ_S)
        self._first_at = None
        try:
            if not self._ended and not self._raw.isclosed():
                self.read()
        except (ProviderError, Cancelled):
            return

    def _wait_at_most(self, seconds: float) -> None:
        if seconds <= 0:
            raise TimeoutError
        if seconds != self._patience and self._line.sock is not None:
            self._line.sock.settimeout(seconds)
            self._patience = seconds


def _before_answer(problem: Exception) -> ProviderError:
    if isinstance(problem, requests.ConnectTimeout):
        return ProviderError("unreachable", detail="no connection in time")
    if isinstance(problem, requests.Timeout | ReadTimeoutError | TimeoutError):
        return ProviderError("timeout", detail="no answer in time")
    if isinstance(problem, requests.exceptions.SSLError):
        return ProviderError("unreachable", retryable=False, detail="TLS failed")
    if isinstance(problem, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader):
        return ProviderError("bad_request", detail="address or header is not valid")
    return ProviderError("unreachable", detail=f"connection failed ({type(problem).__name__})")


def _in_answer(problem: Exception) -> ProviderError:
    if isinstance(problem, ReadTimeoutError | TimeoutError):
        return ProviderError("timeout", detail="the answer stalled or took too long")
    return ProviderError("broken_stream", detail=f"connection lost ({type(problem).__name__})")


class _Line:
    """The socket that one call talks over, so that another thread can shut it.

    It shuts a duplicate of the descriptor: a socket that is being connected, or that TLS has wrapped
    meanwhile, is reached the same way. Under the lock, because after `drop` the connection may already
    serve somebody else.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.sock: socket.socket | None = None
        self._duplicate: socket.socket | None = None
        self._lock = threading.Lock()

    def take(self, sock: socket.socket) -> None:
        with self._lock:
            if self._duplicate is not None:
                self._duplicate.close()
            self.sock = sock
            self._duplicate = socket.fromfd(sock.fileno(), sock.family, sock.type)
        self.call.check()

    def hang_up(self) -> None:
        with self._lock:
            if self._duplicate is None:
                return
            with suppress(OSError):  # the other side may have been faster
                self._duplicate.shutdown(socket.SHUT_RDWR)

    def drop(self) -> None:
        with self._lock:
            self.sock = None
            if self._duplicate is not None:
                self._duplicate.close()
                self._duplicate = None


class _Body(http.client.HTTPResponse):
    """The standard response, but `read1` hands over all chunks that have arrived, not one chunk a call:
    with fast models that is one read, one parse and one event for dozens of chunks."""

    _left = 0
    _rest = b""
    _last = False

    def read1(self, n: int = -1) -> bytes:
        if not self.chunked:
            return super().read1(n)
        while not self.isclosed():
            data = self.fp.read1(READ_BYTES)
            if not data:
                raise http.client.IncompleteRead(b"")
            content = self._unframe(data)
            if content:
                return content
        return b""

    def _unframe(self, data: bytes) -> bytes:
        if self._rest:
            data, self._rest = self._rest + data, b""
        parts = []
        at, size = 0, len(data)
        while at < size:
            if self._left:
                end = at + self._left
                parts.append(data[at:end])
                self._left = max(0, end - size)
                at = end
                continue
            line_end = data.find(b"\n", at)
            if line_end < 0:
                self._rest = data[at:]
                if len(self._rest) > LONGEST_CHUNK_HEAD:
                    raise http.client.LineTooLong("chunk size")
                break
            line = data[at:line_end].strip()
            at = line_end + 1
            if self._last and not line:
                self._close_conn()  # type: ignore[attr-defined]
                break
            if line and not self._last:
                self._left = _chunk_size(line)
                self._last = self._left == 0
        return b"".join(parts)


def _chunk_size(line: bytes) -> int:
    try:
        size = int(line.partition(b";")[0], 16)
    except ValueError:
        size = -1
    if size < 0:
        raise http.client.IncompleteRead(b"")
    return size


class _OnALine:
    """A connection that tells the call's line which socket it uses."""

    line: _Line | None = None

    def _new_conn(self: Any) -> socket.socket:
        self.line = _thread.line
        if os.environ.get("ALEPH_FORBID_NETWORK") and not is_this_machine(self.host):
            raise NetworkForbidden(f"{self.host} is not this machine, and ALEPH_FORBID_NETWORK is set")
        try:
            places = socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
        except OSError as problem:
            raise NameResolutionError(self.host, self, socket.gaierror(str(problem))) from problem
        refused: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in places:
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(self.timeout)
                self.line.take(sock)
                sock.connect(address)
            except OSError as problem:
                sock.close()
                self.line.call.check()
                refused = problem
            except Cancelled:
                sock.close()
                raise
            else:
                return sock
        if isinstance(refused, TimeoutError):
            raise ConnectTimeoutError(self, "no connection in time") from refused
        raise NewConnectionError(self, "no connection") from refused

    def request(self: Any, *args: Any, **kwargs: Any) -> None:
        self.line = _thread.line
        if self.sock is not None:
            self.line.take(self.sock)
        super().request(*args, **kwargs)  # type: ignore[misc]


class _Connection(_OnALine, HTTPConnection):
    response_class = _Body


class _TLSConnection(_OnALine, HTTPSConnection):
    response_class = _Body


class _LetsGo:
    """A pool that cuts the line before the connection can be given to another call: a late `cancel` of the
    first must not reach the second."""

    def _put_conn(self, conn: Any) -> None:
        if conn is not None and conn.line is not None:
            conn.line.drop()
            conn.line = None
        super()._put_conn(conn)  # type: ignore[misc]


class _Pool(_LetsGo, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_LetsGo, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TLSPool}


def is_this_machine(host: str) -> bool:
    """Whether a host name or address is loopback, without asking a name server."""
    if host.rstrip(".").lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
