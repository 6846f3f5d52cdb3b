"""What stands before several web processes: a port that passes connections on to the first of them that takes them."""

import contextlib
import socket
import threading
from typing import Self

from aleph.run import HOST

PATIENCE_S = 60


class Balancer:
    """`ports` are those of the web processes, the preferred one first; it may be changed at any time."""

    def __init__(self, *ports: int) -> None:
        self.ports = ports
        self._door = socket.create_server((HOST, 0), backlog=64)
        self.url = f"http://{HOST}:{self._door.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._open, name="balancer", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._door.close()

    def _open(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _address = self._door.accept()
                threading.Thread(target=self._lead, args=(visitor,), daemon=True).start()

    def _lead(self, visitor: socket.socket) -> None:
        for port in self.ports:
            with contextlib.suppress(OSError):
                web = socket.create_connection((HOST, port), timeout=PATIENCE_S)
                threading.Thread(target=_pass_on, args=(visitor, web), daemon=True).start()
                _pass_on(web, visitor)
                return
        visitor.close()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Everything that comes, until one of them hangs up; then both do."""
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    finally:
        for line in (source, target):
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
