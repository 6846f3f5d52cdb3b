"""Those who come and go leave nothing behind in the web process."""

import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
import pytest
from django.conf import settings

from chat import turns
from chat.models import Message
from tests import people
from tests.depth import DEPTH
from tests.product import Product, session_cookie
from tests.stories_of_chat import fresh, until
from tests.visits import send

CONNECTIONS = 400 * DEPTH
AT_ONCE = 16
LEAK_MIB = 12
"""What the heap may have grown by, however many came: at `TEST_DEPTH=25`, for ten thousand, that is 1 KiB each."""

pytestmark = pytest.mark.usefixtures("committed")


def look(product: Product, reply: Message, cookie: str, _number: int) -> None:
    """Open the stream of a reply, read its beginning, and hang up."""
    with socket.create_connection(("127.0.0.1", product.port), timeout=20) as line:
        line.sendall(
            f"GET /chat/replies/{reply.pk}/stream HTTP/1.1\r\nHost: 127.0.0.1:{product.port}\r\n"
            f"Cookie: {settings.SESSION_COOKIE_NAME}={cookie}\r\n\r\n".encode()
        )
        seen = b""
        while b"event: " not in seen:
            more = line.recv(65536)
            assert more, seen
            seen += more
        assert seen.startswith(b"HTTP/1.1 200"), seen


def test_thousands_who_connect_and_hang_up_leave_no_file_and_no_memory_behind(product: Product) -> None:
    alice = people.alice()
    reply = send(product.signed_in(alice), "Tell me a story", "sim-slow-9000x50ms", rate=0, turn="one")
    until(lambda: fresh(reply).state == "streaming")
    web = psutil.Process(_pid_of(product, "web"))
    come_and_go = partial(look, product, reply, session_cookie(alice))
    with ThreadPoolExecutor(AT_ONCE) as crowd:
        list(crowd.map(come_and_go, range(AT_ONCE * 6)))
        until(lambda: _streams(web, product) == 0)
        files, memory = web.num_fds(), web.memory_info().rss
        list(crowd.map(come_and_go, range(CONNECTIONS)))
    until(lambda: _streams(web, product) == 0)
    # Pools of connections grow to what came at once, and no further.
    assert web.num_fds() <= files + 2 * AT_ONCE
    assert web.memory_info().rss - memory < LEAK_MIB * 2**20
    turns.stop(user=alice, reply_id=reply.pk)
    until(lambda: fresh(reply).state == "stopped")


def _pid_of(product: Product, name: str) -> int:
    (child,) = [child for child in product.processes.all if child.name == name]
    process: Any = child.process
    return int(process.pid)


def _streams(web: psutil.Process, product: Product) -> int:
    """Connections of visitors that the web process has."""
    return sum(
        line.laddr.port == product.port and line.status == psutil.CONN_ESTABLISHED
        for line in web.net_connections("tcp")
    )
