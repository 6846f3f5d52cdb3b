"""A receiver of webhooks to test against: real HTTP, and whatever may go wrong at the other end.

    with Receiver() as receiver:
        receiver.url("ok")              an address whose last part says what happens there
        receiver.requests[-1]           path, headers (lower case), body as it came

``ok`` answers 204; a number is that status (3xx with a Location); ``flaky-N`` fails N times, then takes it; ``text-WORDS``
answers 200 with these words; ``busy-N`` is 503 with Retry-After: N; ``huge`` a body without an end; ``slow`` says nothing;
``hang-N`` says nothing N times, then takes it;
``drip`` sends its header byte by byte, for ever; ``cut`` breaks the line.
"""

import contextlib
import ssl
import threading
from collections import Counter
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass(frozen=True)
class Request:
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.written = 0
        """Bytes of bodies without an end."""
        self._tls = tls
        self._seen: Counter[str] = Counter()
        self._stop = threading.Event()

    def url(self, script: str, host: str = "127.0.0.1") -> str:
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}/{script}"

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append(Request(self.path, headers, body))
                with contextlib.suppress(OSError):
                    receiver._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        if self._tls:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        script = handler.path.strip("/").split("?")[0]
        self._seen[script] += 1
        word, _dash, more = script.partition("-")
        if word == "slow" or (word == "hang" and self._seen[script] <= int(more)):
            self._stop.wait(60)
        elif word == "drip":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self._stop.wait(0.05):
                handler.wfile.write(b"x")
        elif word == "huge":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
            while not self._stop.is_set():
                self.written += handler.wfile.write(b"y" * 65536)
        elif word == "cut":
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf of it")
        elif word == "hang":
            self._status(handler, 200, b"")
        elif word == "flaky":
            self._status(handler, 500 if self._seen[script] <= int(more) else 200, b"")
        elif word == "busy":
            self._status(handler, 503, b"later", {"Retry-After": more})
        elif word == "text":
            self._status(handler, 200, more.encode())
        else:
            status = 204 if word == "ok" else int(word)
            away = {"Location": self.url("ok")} if 300 <= status < 400 else {}
            self._status(handler, status, b"" if status == 204 else b"no thanks", away)

    def _status(
        self, handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
