"""A server that gives one answer to whatever it is asked: the bytes of a vendor's documentation, over real HTTP.

with CannedServer() as server:
    server.says(Canned(429, '{"error": "Model is overloaded"}', {"Retry-After": "20"}))
"""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self, cast


@dataclass(frozen=True)
class Canned:
    """One answer. A stream is a body like any other: it ends where the connection is closed."""

    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)


class CannedServer:
    """Runs in threads of this process while the `with` block lasts. `asked`: how often."""

    def __init__(self) -> None:
        self.answer = Canned(200, "")
        self.asked = 0
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def says(self, answer: Canned) -> None:
        self.answer, self.asked = answer, 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, canned: CannedServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.canned = canned


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at `asked`."""

    def do_POST(self) -> None:
        canned = cast(_Server, self.server).canned
        canned.asked += 1
        self.rfile.read(int(self.headers.get("content-length", 0)))
        answer = canned.answer
        self.send_response(answer.status)
        for name, value in ({"Content-Type": "application/json"} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body.encode())
