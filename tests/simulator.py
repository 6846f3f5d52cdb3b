"""A provider to test against: real HTTP, OpenAI's chat completions format, and every way it can go wrong.

    with Simulator() as provider:
        ... OpenAICompatible(name="openai", base_url=provider.base_url, api_key="sk-x") ...
        provider.requests[-1].body["messages"]

    python -m tests.simulator --port 9100        # for other processes; GET /stats, GET /requests

The model's name says what happens: "sim-" and any of the words below, joined by "-", in any order
("sim-words-50-cached-close"). A prefix up to the last "/" and a suffix from ":" are ignored.

Text      echo (the default: the last user message, word by word), words-N, slow-NxMms, empty, thinking,
          delay-MS (before the first chunk), pace-MS (between the chunks), numbered (each word carries the
          number of its request, so that no two answers have the same text)
Count     cached, zero-usage, nousage, usage-on-finish; else words in, chunks out
Refusal   error-CODE (429 with Retry-After: 3, 3xx with Location), quota, context, html, html-502,
          leak (repeats key and prompt)
Failure   timeout (accepts, never answers), stall-N, cut-N (reset), cut-clean-N (proper end, no finish
          reason), midstream-error, garbage; with a text of 20 words unless another is named; cut-finish
          and stall-finish (after the finish reason, before the count)
Form      json (a plain body although a stream was asked for), close (no chunked coding), crlf,
          bytes-N (writes of N bytes), onewrite (all in one write), nodone, keepalive, keepalive-forever,
          noise (unknown fields), length, gzip (although it was not accepted),
          linger (does not end the body after [DONE])

The output limit of the request is obeyed: a longer text is cut there and ends with "length". Without
`stream_options.include_usage` a stream carries no count, as the real ones do.
"""

import argparse
import asyncio
import contextlib
import json
import re
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self

WORD = re.compile(
    r"words-(?P<words>\d+)|slow-(?P<slow>\d+)x(?P<ms>\d+)ms|delay-(?P<delay>\d+)|pace-(?P<pace>\d+)|error-(?P<error>\d{3})"
    r"|stall-(?P<stall>\d+)|cut-clean-(?P<cut_clean>\d+)|cut-(?P<cut>\d+)|bytes-(?P<bytes>\d+)"
    r"|(?P<flag>echo|empty|thinking|cached|zero-usage|nousage|usage-on-finish|quota|context|html-502|html"
    r"|leak|timeout|midstream-error|garbage|json|close|crlf|onewrite|nodone|keepalive-forever|keepalive"
    r"|noise|length|linger|cut-finish|stall-finish|gzip|numbered)"
)
FAILS_AT = {"cut", "cut_clean", "stall"}
FAILS = {"midstream-error", "garbage"}
RETRY_AFTER_S = 3
KEEPALIVES = 4
KEEPALIVE_S = 0.05


@dataclass
class Request:
    """One request as it came in. Header names are lower case; `body` is {} when it was not JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    raw: bytes


@dataclass
class Script:
    """What the words of a model's name ask for."""

    flags: set[str] = field(default_factory=set)
    numbers: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, model: str) -> "Script | None":
        """The script of a model name; None when the name is not one of ours."""
        name = model.rsplit("/", 1)[-1].split(":", 1)[0]
        if not name.startswith("sim-"):
            return None
        script, at = cls(), 3
        while at < len(name):
            found = WORD.match(name, at + 1)
            if name[at] != "-" or found is None:
                return None
            at = found.end()
            for word, value in found.groupdict().items():
                if word == "flag" and value:
                    script.flags.add(value)
                elif value:
                    script.numbers[word] = int(value)
        return script

    def pieces(self, messages: list[dict[str, Any]]) -> list[str]:
        if "empty" in self.flags:
            return []
        amount = self.numbers.get("words") or self.numbers.get("slow")
        if amount is None and (self.numbers.keys() & FAILS_AT or self.flags & FAILS):
            amount = 20
        if amount:
            return [f"word{number} " for number in range(1, amount + 1)]
        said = [str(message.get("content", "")) for message in messages if message.get("role") == "user"]
        return re.findall(r"\s*\S+\s*$|\s*\S+", said[-1]) if said else []


class Simulator:
    """Runs in a thread of this process while the `with` block lasts.

    `requests`: all requests so far. `aborted`: answers that the client did not wait for. `active`: answers
    being written now, `peak` their highest number. `chunks`: text chunks written. `finished`: answers whose
    finish reason was sent and that did not stall after it. `connections`: opened.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self._tls = tls
        self.requests: list[Request] = []
        self.aborted = self.active = self.peak = self.chunks = self.finished = self.connections = 0
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self.serve()), name="simulator", daemon=True
        )

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the simulator did not start")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def wait_for_aborted(self, number: int, *, timeout_s: float = 5) -> bool:
        """Whether that many answers have been given up by their clients within the time."""
        until = time.monotonic() + timeout_s
        while self.aborted < number and time.monotonic() < until:
            time.sleep(0.005)
        return self.aborted >= number

    def stats(self) -> dict[str, int]:
        return {
            "requests": len(self.requests),
            "active": self.active,
            "peak": self.peak,
            "chunks": self.chunks,
            "finished": self.finished,
            "aborted": self.aborted,
            "connections": self.connections,
        }

    def _speak(self, open_connections: set["_Connection"]) -> "_Connection":
        return _Connection(self, open_connections)

    async def serve(self) -> None:
        """Answer until stopped."""
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        open_connections: set[_Connection] = set()
        server = await self._loop.create_server(
            lambda: self._speak(open_connections), self.host, self.port, ssl=self._tls, backlog=1024
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for connection in list(open_connections):
            connection.transport.abort()
        await asyncio.sleep(0)


class _Connection(asyncio.Protocol):
    """One connection of a client: takes whole requests off the buffer, and answers them one by one."""

    transport: asyncio.Transport
    path = re.compile(r".*/chat/completions")
    """Where questions are asked."""

    def __init__(self, simulator: Simulator, open_connections: set["_Connection"]) -> None:
        self.simulator = simulator
        self._open = open_connections
        self._buffer = b""
        self._answering: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.simulator.connections += 1
        self._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open.discard(self)
        self._writable.set()
        if self._answering is not None:
            self.simulator.aborted += 1
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next_request()

    def _next_request(self) -> None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if self._answering is not None or not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        size = int(headers.get("content-length", "0"))
        if len(rest) < size:
            return
        raw, self._buffer = rest[:size], rest[size:]
        method, path, _ = first.split(" ", 2)
        self._answering = asyncio.ensure_future(self._answer(method, path, headers, raw))

    async def _answer(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        simulator = self.simulator
        simulator.active += 1
        simulator.peak = max(simulator.peak, simulator.active)
        try:
            await self._route(method, path, headers, raw)
        finally:
            simulator.active -= 1
        self._answering = None
        if not self.transport.is_closing():
            self._next_request()

    async def _route(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        if path.endswith("/models"):
            self._whole(200, {"object": "list", "data": []})
        elif path == "/stats":
            self._whole(200, self.simulator.stats())
        elif path == "/requests":
            self._whole(200, [request.body for request in self.simulator.requests])
        else:
            await self._complete(method, path, headers, raw)

    async def _complete(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        self.simulator.requests.append(Request(path, headers, body, raw))
        script = Script.of(self._model(path, body))
        if method != "POST" or not self.path.fullmatch(path):
            self._whole(404, self._error("no such route", "invalid_request_error", "not_found"))
        elif script is None:
            error = self._error("The model does not exist", "invalid_request_error", "model_not_found")
            self._whole(404, error)
        elif not self._refuse(script, headers, body):
            await self._talk(script, body)

    # What differs from one format to another

    def _model(self, path: str, body: dict[str, Any]) -> str:
        return str(body.get("model", ""))

    def _question(self, body: dict[str, Any]) -> str:
        return str(body["messages"][-1]["content"])

    def _error(self, message: str, kind: str, code: str | None) -> dict[str, Any]:
        return _error(message, kind, code)

    def _reply(self, script: Script, body: dict[str, Any]) -> "_Reply":
        return _Reply(script, body, number=len(self.simulator.requests))

    def _writer(self, script: Script) -> "_Writer":
        return _Writer(self, script)

    # Answers

    def _refuse(self, script: Script, headers: dict[str, str], body: dict[str, Any]) -> bool:
        flags, status = script.flags, script.numbers.get("error")
        if status == 429:
            error = self._error("Rate limit reached", "requests", "rate_limit_exceeded")
            self._whole(429, error, {"Retry-After": str(RETRY_AFTER_S)})
        elif status:
            away = {"Location": f"{self.simulator.base_url}/elsewhere"} if status < 400 else None
            self._whole(status, self._error(f"Refused with {status}, as asked", "simulated", None), away)
        elif "quota" in flags:
            text = "You exceeded your current quota"
            self._whole(429, self._error(text, "insufficient_quota", "insufficient_quota"))
        elif "context" in flags:
            text = "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens."
            self._whole(400, self._error(text, "invalid_request_error", "context_length_exceeded"))
        elif "leak" in flags:
            text = f"Bad header among {headers} for input {self._question(body)!r}"
            self._whole(401, self._error(text, "invalid_request_error", "invalid_api_key"))
        elif "html" in flags or "html-502" in flags:
            page = b"<!DOCTYPE html><html><body><h1>Bad Gateway</h1></body></html>"
            self._head(502 if "html-502" in flags else 200, "text/html", {"Content-Length": str(len(page))})
            self.transport.write(page)
        else:
            return False
        return True

    async def _talk(self, script: Script, body: dict[str, Any]) -> None:
        if "timeout" in script.flags:
            await asyncio.Event().wait()
        reply = self._reply(script, body)
        await asyncio.sleep(script.numbers.get("delay", 0) / 1000)
        if "json" in script.flags or not reply.is_streamed:
            self._whole(200, reply.whole())
            self.simulator.finished += 1
            return
        writer = self._writer(script)
        if script.flags & {"keepalive", "keepalive-forever"}:
            await self._keep_alive(writer, forever="keepalive-forever" in script.flags)
        await self._stream(script, reply, writer)

    async def _keep_alive(self, writer: "_Writer", *, forever: bool) -> None:
        left = KEEPALIVES
        while left or forever:
            left -= 1
            await writer.write(b": keep-alive\n\n")
            await asyncio.sleep(KEEPALIVE_S)

    async def _stream(self, script: Script, reply: "_Reply", writer: "_Writer") -> None:
        numbers, flags = script.numbers, script.flags
        interval_s = numbers.get("ms", numbers.get("pace", 0)) / 1000
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        for event in reply.opening():
            await writer.event(event)
        for number, event in enumerate(reply.deltas(), 1):
            await writer.event(event)
            self.simulator.chunks += 1
            if number == numbers.get("cut"):
                self._answering = None  # it is us who end this
                self.transport.abort()
                return
            if number == numbers.get("cut_clean"):
                await writer.end()
                return
            if number == numbers.get("stall"):
                await asyncio.Event().wait()
            if "midstream-error" in flags and number == 5:
                text = "The server is overloaded"
                await writer.event(self._error(text, "server_error", "server_is_overloaded"))
                await writer.end()
                return
            if "garbage" in flags and number == 5:
                await writer.write(writer.garbage)
            due_at += interval_s
            if interval_s:
                await asyncio.sleep(due_at - loop.time())
            await self._writable.wait()
        for event in reply.closing():
            await writer.event(event)
            if "stall-finish" in flags:
                await asyncio.Event().wait()
            if "cut-finish" in flags:
                self.simulator.finished += 1
                self._answering = None
                self.transport.abort()
                return
        if "nodone" not in flags and writer.done:
            await writer.write(writer.done)
        self.simulator.finished += 1
        if "linger" in flags:
            await asyncio.Event().wait()
        await writer.end()

    def _whole(self, status: int, found: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(found).encode()
        self._head(status, "application/json", {**(headers or {}), "Content-Length": str(len(data))})
        self.transport.write(data)

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        lines = {
            "Content-Type": content_type,
            "x-request-id": f"req_{len(self.simulator.requests)}",
            **headers,
        }
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.transport.write(f"HTTP/1.1 {status} Simulated\r\n{text}\r\n".encode())


class _Writer:
    """Puts the bytes of a stream on the wire in the form that the script asks for."""

    content_type = "text/event-stream"
    garbage = b"data: {this is not JSON\n\n"
    done = b"data: [DONE]\n\n"

    def __init__(self, connection: _Connection, script: Script) -> None:
        self._transport = connection.transport
        self._flags = script.flags
        self._size = script.numbers.get("bytes", 0)
        self._kept = b""
        self._gzip = zlib.compressobj(wbits=31) if "gzip" in self._flags else None
        framing = {"Connection": "close"} if "close" in self._flags else {"Transfer-Encoding": "chunked"}
        coding = {"Content-Encoding": "gzip"} if self._gzip else {}
        connection._head(200, self.content_type, framing | coding)

    async def event(self, found: dict[str, Any]) -> None:
        text = json.dumps(found, ensure_ascii=False).encode()
        if "noise" in self._flags:
            await self.write(b"event: ping\nid: 7\nretry: 100\nnonsense\n: comment\n\n\n")
            await self.write(b"data:" + text + b"\n\n")
        else:
            await self.write(b"data: " + text + b"\n\n")

    async def write(self, data: bytes) -> None:
        if "crlf" in self._flags:
            data = data.replace(b"\n", b"\r\n")
        if self._gzip:
            data = self._gzip.compress(data) + self._gzip.flush(zlib.Z_SYNC_FLUSH)
        if "onewrite" in self._flags:
            self._kept += self._framed(data)
            return
        data = self._framed(data)
        step = self._size or len(data)
        for at in range(0, len(data), step):
            self._transport.write(data[at : at + step])
            if self._size:
                await asyncio.sleep(0)

    async def end(self) -> None:
        if "close" in self._flags:
            self._transport.write(self._kept)
            self._transport.close()
        else:
            self._transport.write(self._kept + b"0\r\n\r\n")

    def _framed(self, data: bytes) -> bytes:
        return data if "close" in self._flags else b"%x\r\n%b\r\n" % (len(data), data)


class _Reply:
    """What one answer says: its chunks in the provider's format."""

    def __init__(self, script: Script, body: dict[str, Any], *, number: int) -> None:
        self._flags = script.flags
        self.is_streamed = bool(body.get("stream"))
        messages = body.get("messages") or []
        pieces = script.pieces(messages)
        if "numbered" in self._flags:
            pieces = [re.sub(r"(?<=\S)(?=\s*$)", f".{number}", piece) for piece in pieces]
        limit = body.get("max_completion_tokens") or body.get("max_tokens") or len(pieces)
        self._pieces = pieces[:limit]
        self._reason = "length" if len(pieces) > limit or "length" in self._flags else "stop"
        self._asked = bool((body.get("stream_options") or {}).get("include_usage"))
        self._words_in = sum(len(str(message.get("content", "")).split()) for message in messages)
        self._base = {
            "id": f"chatcmpl-{id(self):x}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": f"{body.get('model')}-2026-09-01",
        }

    def opening(self) -> Iterator[dict[str, Any]]:
        yield self._chunk({"role": "assistant", "content": ""})
        if "thinking" in self._flags:
            yield self._chunk({"reasoning_content": "Let me "})
            yield self._chunk({"reasoning": "see."})

    def deltas(self) -> Iterator[dict[str, Any]]:
        for piece in self._pieces:
            yield self._chunk({"content": piece})

    def closing(self) -> Iterator[dict[str, Any]]:
        last = self._chunk({}, self._reason)
        if "usage-on-finish" in self._flags:
            yield last | {"usage": self._usage()}
            return
        yield last
        if self._asked and "nousage" not in self._flags:
            yield self._base | {"choices": [], "usage": self._usage()}

    def whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._pieces), "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self._reason}
        found = self._base | {"object": "chat.completion", "choices": [choice]}
        return found if "nousage" in self._flags else found | {"usage": self._usage()}

    def _chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        chunk = self._base | {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        return chunk | {"usage": None} if self._asked else chunk

    def _usage(self) -> dict[str, Any]:
        if "cached" in self._flags:
            return _counted(120, 60) | {
                "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 16},
                "completion_tokens_details": {"reasoning_tokens": 41},
            }
        if "zero-usage" in self._flags:
            return _counted(0, 0)
        return _counted(self._words_in, len(self._pieces))


def _counted(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _error(message: str, kind: str, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def main() -> None:
    parser = argparse.ArgumentParser(description="A simulated provider, for other processes.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9100)
    given = parser.parse_args()
    simulator = Simulator(host=given.host, port=given.port)
    sys.stdout.write(f"simulator on http://{given.host}:{given.port}/v1\n")
    sys.stdout.flush()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(simulator.serve())


if __name__ == "__main__":
    main()
