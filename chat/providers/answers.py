"""Reads the bytes of one OpenAI-compatible answer: Server-Sent Events, or a plain JSON body from servers
that ignore `stream`; `Lines` reads JSON objects, one a line. Pure: bytes in, events out; adapters own the socket.

Each `data:` line is taken as one event without waiting for the blank line, because some servers leave it
out; only a line that is no JSON by itself is held to be joined with the next, as the SSE standard allows.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from chat.providers import counts, problems
from chat.providers.base import Event, Finish, FinishReason, Kind, ProviderError, Text, Thinking, Usage

LONGEST_LINE = 1 << 20
LONGEST_BODY = 8 << 20
REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "end": "stop",
    "eos_token": "stop",
    "stop_sequence": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "content_filter": "content_filter",
}
# Finish reasons that are none: the provider gave up in mid-answer.
FAILURES: dict[str, Kind] = {"error": "server", "insufficient_system_resource": "overloaded"}

_loads = json.JSONDecoder().decode


class Answer:
    """What one answer has said so far. `begun`: an event came; `finished`: a finish reason came; `done`:
    nothing more will. `request_id` may be set from HTTP headers, which come before any chunk."""

    reasons = REASONS

    def __init__(self, *, secrets: tuple[str, ...] = (), said: tuple[str, ...] = ()) -> None:
        self.begun = False
        self.done = False
        self.request_id = ""
        self.served_by = ""
        self._model = ""
        self._service_tier = ""
        self._raw_reason = ""
        self._hidden = {"secrets": secrets, "said": said}
        self._is_json: bool | None = None  # unknown until the first byte that is no blank
        self._rest = b""
        self._held = b""
        self._error_named = False
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._half = ""  # the first half of a character that a UTF-16 server cut in two
        self._usage: Usage | None = None

    def introduce(self, headers: Mapping[str, str]) -> None:
        """What the headers tell, which come before any byte."""
        self.served_by = headers.get("x-inference-provider", "")[:200]

    @property
    def finished(self) -> bool:
        return self._raw_reason != ""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events in the next bytes, texts joined. A failure reported by the provider is raised after
        the text that came before it."""
        problem = None
        try:
            self._take(data)
        except ProviderError as found:
            if self.finished:
                self.done = True  # the text is whole; what comes after its finish reason cannot unsay it
            else:
                problem = found
        yield from self._flush()
        if problem is not None:
            raise problem

    def end(self) -> Iterator[Event]:
        """The last events, once the bytes are over. Raises ProviderError `broken_stream` without a finish
        reason."""
        problem = None
        try:
            if self._is_json:
                self._take_body()
            elif self._rest and not self.done:
                self._take(b"\n")
            if self._held and not self.finished:
                raise ProviderError("bad_response", detail="an event is not JSON")
        except ProviderError as found:
            problem = None if self.finished else found
        yield from self._flush(last=True)
        if problem is not None:
            raise problem
        if not self.finished:
            raise ProviderError("broken_stream", detail="the answer ended without a finish reason")
        reason = self.reasons.get(self._raw_reason, "other")
        yield Finish(
            reason, self._raw_reason, self._model, self.request_id, self.served_by, self._service_tier
        )

    def _take(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if self._is_json is None:
            data = data.lstrip(b"\xef\xbb\xbf \t\r\n")
            if not data:
                return
            self._is_json = self._looks_like_json(data)
        if self._is_json:
            self._rest = data
            if len(data) > LONGEST_BODY:
                raise ProviderError("bad_response", detail="the body is too long")
            return
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_LINE:
            raise ProviderError("bad_response", detail="a line is too long")
        for line in lines:
            if line.startswith(b"data:"):
                self._take_data(line[5:])
                if self.done:
                    return
            elif line:
                self._take_other(line)
            elif self._held:
                raise ProviderError("bad_response", detail="an event is not JSON")

    def _looks_like_json(self, data: bytes) -> bool:
        if data[:1] == b"<":
            raise ProviderError("bad_response", detail="the body is a page, not an answer")
        return data[:1] in b"{["

    def _take_other(self, line: bytes) -> None:
        if line.startswith(b"event:"):
            self._error_named = line[6:].strip() == b"error"
        elif line.startswith(
            (b'{"error"', b"error:")
        ):  # Ollama and llama.cpp fall out of the format like this
            found = json_or_none(line[line.find(b"{") :])
            raise problems.in_answer(found if found is not None else {"error": "unreadable"}, **self._hidden)

    def _take_data(self, payload: bytes) -> None:
        if self._held:
            payload = self._held + b"\n" + payload
        try:
            chunk = _loads(payload.decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            self._take_unreadable(payload)
            return
        self._held = b""
        self._take_object(chunk)

    def _take_object(self, chunk: Any) -> None:
        if type(chunk) is not dict:
            raise ProviderError("bad_response", detail="an event is not an object")
        if self._error_named or chunk.get("error"):
            raise problems.in_answer(chunk, **self._hidden)
        try:
            self._take_chunk(chunk)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ProviderError("bad_response", detail="an event has another shape") from None

    def _take_unreadable(self, payload: bytes) -> None:
        word = payload.strip()
        if word == b"[DONE]":
            self.done = True
        elif word:
            self._held = payload
            if len(payload) > LONGEST_LINE:
                raise ProviderError("bad_response", detail="an event is too long")

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        self.begun = True
        choices = chunk.get("choices")
        if choices:
            choice = choices[0]
            if choice.get("index"):
                return  # another alternative of the answer, which was not asked for
            delta = choice.get("delta")
            if delta:
                self._take_message(delta)
            reason = choice.get("finish_reason")
            if reason and not self._raw_reason:
                self._finish(reason)
        usage = chunk.get("usage") or (chunk.get("x_groq") or {}).get("usage")
        if usage:
            self._count(usage, chunk)
        if not self._model or not self.request_id:
            self._identify(chunk)
        if chunk.get("service_tier"):
            self._service_tier = name_of(chunk["service_tier"])

    def _take_message(self, message: dict[str, Any]) -> None:
        content = message.get("content") or message.get("refusal")
        if content:
            self._texts.append(content if type(content) is str else _joined(content))
        thought = message.get("reasoning_content") or message.get("reasoning")
        if thought and type(thought) is str:
            self._thoughts.append(thought)

    def _take_body(self) -> None:
        body = json_or_none(self._rest)
        if isinstance(body, list) and body:
            body = body[0]
        if not isinstance(body, dict):
            raise ProviderError("bad_response", detail="the body is not JSON")
        if body.get("error") or "detail" in body or "message" in body:
            raise problems.in_answer(body, **self._hidden)
        try:
            self._take_whole(body)
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ProviderError("bad_response", detail="the body has another shape") from None

    def _take_whole(self, body: dict[str, Any]) -> None:
        self._take_message(body["choices"][0]["message"])
        self._take_chunk(body)

    def _finish(self, reason: Any) -> None:
        if reason in FAILURES:
            raise ProviderError(FAILURES[reason], detail="the provider gave up in mid-answer")
        self._raw_reason = name_of(reason) or "other"

    def _count(self, usage: Any, chunk: dict[str, Any]) -> None:
        found = counts.read(usage)
        if found is not None:
            self._usage = Usage(found, usage, _facts(usage, chunk))

    def _identify(self, chunk: dict[str, Any]) -> None:
        self._model = self._model or name_of(chunk.get("model"))
        self.request_id = self.request_id or name_of(chunk.get("id"))
        self.served_by = self.served_by or name_of(chunk.get("provider"))

    def _flush(self, *, last: bool = False) -> Iterator[Event]:
        if self._thoughts:
            thought = _whole("".join(self._thoughts))
            self._thoughts.clear()
            yield Thinking(thought)
        if self._texts or (last and self._half):
            text = self._half + "".join(self._texts)
            self._texts.clear()
            self._half = "" if last or not "\ud800" <= text[-1] <= "\udbff" else text[-1]
            text = _whole(text[:-1] if self._half else text)
            if text:
                yield Text(text)
        if self._usage is not None:
            usage, self._usage = self._usage, None
            yield usage


class Lines(Answer):
    """An answer that comes as JSON objects, one a line, without `data:`."""

    def _take(self, data: bytes) -> None:
        if self._is_json is None:
            data = data.lstrip(b"\xef\xbb\xbf \t\r\n")
            if not data:
                return
            self._looks_like_json(data)
            self._is_json = False  # each line is; the whole is not
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > LONGEST_BODY:
            raise ProviderError("bad_response", detail="a line is too long")
        for line in lines:
            if line.strip() and not self.done:
                self._take_line(line)

    def _take_line(self, line: bytes) -> None:
        found = json_or_none(line)
        if found is None:
            raise ProviderError("bad_response", detail="a line is not JSON")
        self._take_object(found)


def json_or_none(data: bytes) -> Any:
    """The value of a JSON text; None for what is none."""
    try:
        return _loads(data.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def _joined(parts: Any) -> str:
    """Content as a list of parts, as some servers send it."""
    return "".join(part["text"] for part in parts if part.get("type") == "text")


def _whole(text: str) -> str:
    """The text as a database can keep it: surrogate halves paired up again, the rest of them and NUL
    replaced."""
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def milliseconds(value: Any, *, per_second: int) -> int | None:
    """A duration that is told as a number; None for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return int(value * 1000 / per_second) if is_number and 0 <= value < 86_400 * per_second else None


def _facts(usage: dict[str, Any], chunk: dict[str, Any]) -> dict[str, int | str]:
    """What OpenRouter charged us, and how long Cerebras let us wait."""
    facts: dict[str, int | str] = {}
    cost = usage.get("cost")
    if isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < 1_000_000:
        facts["cost_usd"] = f"{Decimal(str(cost)):f}"
    times = chunk.get("time_info")
    queued = milliseconds(times.get("queue_time"), per_second=1) if isinstance(times, dict) else None
    if queued is not None:
        facts["queue_ms"] = queued
    return facts


def name_of(value: Any) -> str:
    """An identifier as it may be stored and logged, "" for anything else."""
    return value[:200] if type(value) is str and value.isprintable() else ""
