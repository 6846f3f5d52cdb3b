"""Anthropic to test against: real HTTP, the Messages API's own format, and every way it can go wrong.

    with AnthropicSimulator() as provider:
        ... Anthropic(name="anthropic", base_url=provider.base_url, api_key="sk-ant-x") ...
        provider.requests[-1].body["messages"]

It is as strict as the original: headers, `max_tokens`, roles, empty content and sampling parameters are checked, and a
retired model is not found. A current model (`CURRENT`) says ``Answered by …``; any other name is "sim-" and words of
these, joined by "-", in any order ("sim-words-20-overloaded-5"):

Text      echo (the default: the last user message, word by word), words-N, pace-MS (between the words), delay-MS
          (before the first event), empty, thinking, blocks (two of text), json (a plain body although a stream was
          asked for)
Count     cached, nousage (none at all), startusage (only with `message_start`), endusage (only with the last event), twice
          (a count in the middle, too); else words in, words out
End       refusal-N (after N words; "refusal" before the first), window, tool, unsaid (`message_stop` without a reason)
Refusal   error-CODE (429 with Retry-After: 7), spend, ramp, budget (400), context, leak (repeats key and prompt)
Failure   timeout (accepts, never answers), pings-forever, stall-N, cut-N (reset), broken-N (proper end, no stop reason),
          overloaded-N, garbage-N; cut-last and stall-last (after the stop reason)
Form      bytes-N (writes of N bytes), crlf, ping, unknown (events, blocks and deltas that do not exist yet), noid (no
          `request-id` header)

The output limit is obeyed: a longer text is cut there and ends with "max_tokens".
"""

import json
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Self, cast

CURRENT = frozenset({"claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5", "claude-fable-5-2"})
VERSIONS = frozenset({"2023-06-01", "2026-10-21"})
RETRY_AFTER_S = 7
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
WORD = re.compile(r"-([a-z]+)(?:-(\d+|last|forever))?")
Event = dict[str, Any]


@dataclass
class Request:
    """One request as it came in. Header names are lower case; `body` is {} when it was not JSON."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class AnthropicSimulator:
    """Runs in threads of this process while the `with` block lasts. `requests`: all so far. `aborted`: answers that the
    client did not wait for."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.aborted = 0
        self.closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def wait_for_aborted(self, number: int, *, timeout_s: float = 5) -> bool:
        """Whether that many answers have been given up by their clients within the time."""
        until = time.monotonic() + timeout_s
        while self.aborted < number and time.monotonic() < until:
            time.sleep(0.005)
        return self.aborted >= number


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, simulator: AnthropicSimulator) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.simulator = simulator

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no error."""


class _Gone(Exception):
    """The client has hung up, or we have."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Nothing: the tests read what they need from `requests`."""

    @property
    def simulator(self) -> AnthropicSimulator:
        return cast(_Server, self.server).simulator

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.simulator.requests.append(Request(self.path, headers, body))
        self.id = f"req_{len(self.simulator.requests)}"
        self.script = {
            name: int(number) if number.isdecimal() else number
            for name, number in WORD.findall(str(body.get("model", "")).removeprefix("sim"))
        }
        problem = _objection(self.path, headers, body) or _refusal(self.script, headers, body)
        try:
            if problem:
                self._refuse(*problem)
            else:
                self._talk(body)
        except (_Gone, OSError):
            self.close_connection = True

    # Answers

    def _refuse(self, status: int, text: str, code: str = "") -> None:
        error: Event = {"type": TYPES[status], "message": text}
        if code:
            error["details"] = {"error_code": code}
        wait = status == 429 and "spend_limit" not in code
        body = {"type": "error", "error": error, "request_id": self.id}
        self._whole(status, body, {"retry-after": str(RETRY_AFTER_S)} if wait else {})

    def _whole(self, status: int, found: Event, more: dict[str, str] | None = None) -> None:
        data = json.dumps(found).encode()
        self._head(status, "application/json", {"content-length": str(len(data)), **(more or {})})
        self.wfile.write(data)

    def _head(self, status: int, content_type: str, more: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        if "noid" not in self.script:
            self.send_header("request-id", self.id)
        for name, value in more.items():
            self.send_header(name, value)
        self.end_headers()

    def _talk(self, body: Event) -> None:
        if "timeout" in self.script:
            self._wait(None)
        self._wait(_number(self.script, "delay") / 1000)
        message = _Message(self.script, body)
        if "json" in self.script or not body.get("stream"):
            self._whole(200, message.whole())
            return
        self._head(200, "text/event-stream; charset=utf-8", {"transfer-encoding": "chunked"})
        if "pings" in self.script:
            while True:
                self._send({"type": "ping"})
                self._wait(0.05)
        self._stream(message)
        self._write(b"")

    def _stream(self, message: "_Message") -> None:
        for event in message.opening():
            self._send(event)
        for said, event in enumerate(message.deltas(), 1):
            self._send(event)
            if self._breaks_after(said):
                return
            self._wait(_number(self.script, "pace") / 1000)
        for event in message.closing():
            self._send(event)
            if event["type"] != "message_delta":
                continue
            if self.script.get("cut") == "last":
                self._reset()
            if self.script.get("stall") == "last":
                self._wait(None)

    def _breaks_after(self, said: int) -> bool:
        script = self.script
        if script.get("stall") == said:
            self._wait(None)
        if script.get("cut") == said:
            self._reset()
        if script.get("garbage") == said:
            self._write(b"event: content_block_delta\ndata: {this is not JSON\n\n")
        if script.get("overloaded") == said:
            error = {"type": "overloaded_error", "message": "Overloaded"}
            self._send({"type": "error", "error": error, "request_id": self.id})
        return said in (script.get("overloaded"), script.get("broken"))

    # The line

    def _send(self, event: Event) -> None:
        text = f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n"
        data = text.replace("\n", "\r\n" if "crlf" in self.script else "\n").encode()
        step = _number(self.script, "bytes") or len(data)
        for at in range(0, len(data), step):
            self._write(data[at : at + step])

    def _write(self, data: bytes) -> None:
        try:
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        except OSError:
            self.simulator.aborted += 1
            raise

    def _wait(self, seconds: float | None) -> None:
        """Wait, for ever with None, and notice when the client hangs up meanwhile."""
        until = time.monotonic() + (1e6 if seconds is None else seconds)
        while (left := until - time.monotonic()) > 0:
            if select.select([self.connection], [], [], min(left, 0.02))[0]:
                self.simulator.aborted += 1
                raise _Gone
            if self.simulator.closing.is_set():
                raise _Gone

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()
        raise _Gone


def _number(script: dict[str, Any], name: str) -> int:
    value = script.get(name)
    return value if isinstance(value, int) else 0


def _objection(path: str, headers: dict[str, str], body: Event) -> tuple[int, str] | None:
    """What the API has against a request, whatever its model."""
    if path != "/v1/messages":
        return 404, "Not found"
    if not headers.get("x-api-key"):
        return 401, "x-api-key header is required"
    if headers.get("anthropic-version") not in VERSIONS:
        return 400, "anthropic-version: header is required"
    if headers.get("content-type") != "application/json" or not body:
        return 400, "The request body is not valid JSON"
    if type(body.get("max_tokens")) is not int:
        return 400, "max_tokens: Field required"
    for name in ("temperature", "top_p", "top_k"):
        if name in body and headers["anthropic-version"] == "2026-10-21":
            return 400, f"{name}: Extra inputs are not permitted"
    known = {"model", "max_tokens", "messages", "stream", "system", "metadata", "temperature", "top_p"}
    for name in body.keys() - known:
        return 400, f"{name}: Extra inputs are not permitted"
    return _objection_to_messages(body.get("messages") or []) or _objection_to_model(str(body.get("model")))


def _objection_to_messages(messages: list[Event]) -> tuple[int, str] | None:
    roles = [message.get("role") for message in messages]
    if not roles or not set(roles) <= {"user", "assistant"}:
        return 400, "messages: roles are user and assistant"
    if roles[0] != "user" or roles[-1] != "user" or any(one == other for one, other in pairwise(roles)):
        return 400, "messages: roles must alternate, from user to user"
    if not all(str(message.get("content", "")).strip() for message in messages):
        return 400, "messages: text content blocks must be non-empty"
    return None


def _objection_to_model(model: str) -> tuple[int, str] | None:
    return None if model in CURRENT or model.startswith("sim-") else (404, f"model: {model}")


def _refusal(
    script: dict[str, Any], headers: dict[str, str], body: Event
) -> tuple[int, str] | tuple[int, str, str] | None:
    if "error" in script:
        return _number(script, "error"), "Refused, as asked"
    if "spend" in script:
        return 429, "You have reached your monthly limit", "enforced_spend_limit_reached"
    if "ramp" in script:
        return 429, "Your use grows too fast", "ramp_limit_exceeded"
    if "budget" in script:
        return 400, "This workspace has reached its spend limit"
    if "context" in script:
        return 400, "prompt is too long: 205000 tokens > 200000 maximum"
    if "leak" in script:
        return 401, f"{headers['x-api-key']} is not valid for {body['messages'][-1]['content']}"
    return None


class _Message:
    """What one message says: its events in the provider's format."""

    def __init__(self, script: dict[str, Any], body: Event) -> None:
        self._script = script
        self._model = body["model"]
        said = str(body["messages"][-1]["content"])
        if self._model in CURRENT:
            said = f"Answered by {self._model}."
        words = re.findall(r"\s*\S+\s*$|\s*\S+", said)
        if script.get("words"):
            words = [f"word{number} " for number in range(1, _number(script, "words") + 1)]
        if "empty" in script or script.get("refusal") == "":
            words = []
        self._pieces = words[: _number(script, "refusal") or body["max_tokens"]]
        self._reason = "end_turn" if len(self._pieces) == len(words) else "max_tokens"
        others = {"refusal": "refusal", "window": "model_context_window_exceeded", "tool": "tool_use"}
        self._reason = next((reason for word, reason in others.items() if word in script), self._reason)
        self._block = 1 if "thinking" in script else 0
        all_said = [body.get("system", ""), *(message["content"] for message in body["messages"])]
        self._words_in = sum(len(str(content).split()) for content in all_said)

    def opening(self) -> Iterator[Event]:
        if "ping" in self._script:
            yield {"type": "ping"}
        start = self._shell()
        if self._script.keys() & {"nousage", "endusage"}:
            del start["usage"]
        yield {"type": "message_start", "message": start}
        if "unknown" in self._script:
            yield {"type": "weather_report", "index": 7, "delta": {"type": "text_delta", "text": "rain"}}
            yield _start(7, {"type": "hologram", "text": "seen"})
            yield _delta(7, {"type": "hologram_delta", "text": "moving"})
            yield _delta(7, {"type": "input_json_delta", "partial_json": '{"a":'})
            yield _delta(7, {"type": "citations_delta", "citation": {"cited_text": "no"}})
        if "thinking" in self._script:
            yield _start(0, {"type": "thinking", "thinking": "", "signature": ""})
            yield _delta(0, {"type": "thinking_delta", "thinking": "Let me "})
            yield _delta(0, {"type": "thinking_delta", "thinking": "see."})
            yield _delta(0, {"type": "signature_delta", "signature": "c2ln"})
            yield {"type": "content_block_stop", "index": 0}
        yield _start(self._block, {"type": "text", "text": ""})
        yield {"type": "ping"}

    def deltas(self) -> Iterator[Event]:
        for number, piece in enumerate(self._pieces):
            if "blocks" in self._script and number == len(self._pieces) // 2:
                yield {"type": "content_block_stop", "index": self._block}
                self._block += 1
                yield _start(self._block, {"type": "text", "text": ""})
            if "twice" in self._script and number == 1:
                yield {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 1}}
            yield _delta(self._block, {"type": "text_delta", "text": piece})

    def closing(self) -> Iterator[Event]:
        yield {"type": "content_block_stop", "index": self._block}
        last: Event = {"type": "message_delta", "delta": self._end()}
        if not self._script.keys() & {"nousage", "startusage"}:
            last["usage"] = self._usage() if "twice" not in self._script else self._output()
        if "unsaid" not in self._script:
            yield last
        yield {"type": "message_stop"}

    def whole(self) -> Event:
        content = [{"type": "text", "text": "".join(self._pieces)}]
        return self._shell() | self._end() | {"content": content, "usage": self._usage()}

    def _end(self) -> Event:
        details = None
        if self._reason == "refusal":
            details = {"type": "refusal", "category": "cyber", "explanation": "x"}
        return {"stop_reason": self._reason, "stop_sequence": None, "stop_details": details}

    def _shell(self) -> Event:
        return {
            "id": "msg_01AlephSample0001",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "stop_details": None,
            "usage": self._input() | {"output_tokens": 1, "service_tier": "standard"},
        }

    def _usage(self) -> Event:
        return self._input() | self._output()

    def _input(self) -> Event:
        fresh, written, cached = (40, 16, 64) if "cached" in self._script else (self._words_in, 0, 0)
        return {
            "input_tokens": fresh,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": cached,
            "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        }

    def _output(self) -> Event:
        total, thought = (60, 41) if "cached" in self._script else (len(self._pieces), 0)
        return {"output_tokens": total, "output_tokens_details": {"thinking_tokens": thought}}


def _start(index: int, block: Event) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: Event) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}
