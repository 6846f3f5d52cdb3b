"""A fast stand-in for a provider that speaks OpenAI's chat completions, so that the provider is never the slow part.

    python -m bench.upstream --port 9100

One process, one event loop, no framework: a raw asyncio protocol. `POST …/chat/completions` answers `stream: true` with
server-sent events; `GET /stats` tells how many requests are active, and how many were hung up. The timing is
chosen by the model's name:

    fast-200         200 chunks, one write per chunk, no delay
    slow-100x50ms    100 chunks, one every 50 ms on an absolute schedule, so that it does not drift

The content of every chunk is "w<microseconds> ", the CLOCK_MONOTONIC time at which it was written. That clock is common
to all processes of a machine, so whoever receives a chunk on the same machine reads from it how long it was on its way.
"""

import argparse
import asyncio
import json
import re
import time
from typing import Any, cast

import uvloop

NAME = re.compile(r"(?:fast|slow)-(?P<chunks>\d+)(?:x(?P<ms>\d+)ms)?")
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
stats = {"requests": 0, "active": 0, "peak": 0, "chunks": 0, "aborted": 0}


def frame(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(base: dict[str, Any], **fields: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(base | fields, separators=(",", ":")).encode()


class Stream:
    """One streamed answer, driven by timers: no task, no coroutine."""

    __slots__ = (
        "after",
        "before",
        "began",
        "chunks",
        "connection",
        "ending",
        "interval_s",
        "is_over",
        "sent",
        "timer",
    )

    def __init__(self, connection: "Connection", model: str, prompt_tokens: int) -> None:
        self.connection = connection
        timing = NAME.fullmatch(model.rsplit("/", 1)[-1])
        assert timing is not None
        self.chunks, self.interval_s = int(timing["chunks"]), int(timing["ms"] or 0) / 1000
        self.sent, self.is_over = 0, False
        stats["requests"] += 1
        stats["active"] += 1
        stats["peak"] = max(stats["peak"], stats["active"])
        base = {
            "id": f"chatcmpl-{stats['requests']}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        choice: dict[str, Any] = {"index": 0, "delta": {"content": "w@ "}, "finish_reason": None}
        self.before, self.after = event(base, choices=[choice]).split(b"@")
        usage = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.chunks,
            "total_tokens": prompt_tokens + self.chunks,
        }
        finish = event(base, choices=[choice | {"delta": {}, "finish_reason": "stop"}])
        self.ending = (
            frame(finish + event(base, choices=[], usage=usage) + b"data: [DONE]\n\n") + b"0\r\n\r\n"
        )
        connection.transport.write(
            HEAD + frame(event(base, choices=[choice | {"delta": {"role": "assistant", "content": ""}}]))
        )
        self.began = connection.loop.time()
        self.timer: asyncio.Handle = connection.loop.call_soon(self.tick)

    def tick(self) -> None:
        if self.is_over:
            return
        self.sent += 1
        stats["chunks"] += 1
        stamp = b"%d" % (time.monotonic_ns() // 1000)
        out = frame(self.before + stamp + self.after)
        if self.sent == self.chunks:
            self.connection.transport.write(out + self.ending)
            self.finish()
            self.connection.stream = None
            self.connection.take_requests()
            return
        self.connection.transport.write(out)
        loop = self.connection.loop
        if self.interval_s:
            self.timer = loop.call_at(self.began + self.sent * self.interval_s, self.tick)
        elif self.connection.is_full:
            self.timer = loop.call_later(0.001, self.tick)
        else:
            self.timer = loop.call_soon(self.tick)

    def finish(self, *, aborted: bool = False) -> None:
        if not self.is_over:
            self.is_over = True
            self.timer.cancel()
            stats["active"] -= 1
            stats["aborted"] += aborted


class Connection(asyncio.Protocol):
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self.received = b""
        self.stream: Stream | None = None
        self.is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.loop = cast(asyncio.Transport, transport), asyncio.get_running_loop()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.stream:
            self.stream.finish(aborted=True)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.take_requests()

    def take_requests(self) -> None:
        """Take whole requests, one at a time, while no answer is being written."""
        while self.stream is None and (end := self.received.find(b"\r\n\r\n")) >= 0:
            head = self.received[:end].decode("latin-1").lower()
            length = re.search(r"\r\ncontent-length:\s*(\d+)", head)
            whole = end + 4 + (int(length[1]) if length else 0)
            if len(self.received) < whole:
                return
            body, self.received = self.received[end + 4 : whole], self.received[whole:]
            self.answer(head.split(" ", 2)[1], body)

    def answer(self, path: str, body: bytes) -> None:
        if path.endswith("/chat/completions"):
            self.stream = Stream(self, json.loads(body)["model"], len(body) // 4)
            return
        data = json.dumps(stats).encode()
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(data), data)
        )


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", port, backlog=4096)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description="A fast fake provider.")
    arguments.add_argument("--port", type=int, default=9100)
    uvloop.run(serve(arguments.parse_args().port))
