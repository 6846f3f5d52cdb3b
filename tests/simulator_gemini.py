"""Gemini to test against: real HTTP, the format of `streamGenerateContent`, and every way it can go wrong.

    with GeminiSimulator() as gemini:
        ... Gemini(name="gemini", base_url=gemini.base_url, api_key=KEY) ...

The model's name says what happens, in the words of `tests.simulator`; `scripts` gives other names such a script. More
words, to be put first ("sim-blocked", "sim-loose-error-words-9"):

Refusal   badkey, country, permission, perday (a quota of the day), spent (402), and error-CODE, context, leak, html
          as ever; 429 comes with a RetryInfo in the body
Blocked   blocked (the prompt), safety, recitation (the answer, after its text), unfinished (no reason at the end)
Failure   loose-error (JSON over several lines without `data:`), array-error (in a list); midstream-error as an event
Form      array (the body that comes without alt=sse), tools (tokens of tools), bare-usage (only what is not 0)

Every chunk carries the count so far. `maxOutputTokens` includes the thoughts.
"""

import asyncio
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from tests.simulator import Request, Script, Simulator, _Connection, _Writer

KEY = "AIzaSyAliceSimulated_9f8e7d6c5b4a3928170"
RETRY_DELAY_S = 37
THOUGHTS = ("Let me ", "see.")
EXTRA = re.compile(
    r"(?<=-)(badkey|country|permission|perday|spent|blocked|safety|recitation|unfinished|loose-error|array-error"
    r"|array|tools|bare-usage)(-|$)"
)
PATH = re.compile(
    r"/v1/models/(?P<model>[^/?]+):(?:(?P<whole>generateContent)|streamGenerateContent(?P<sse>\?alt=sse)?)"
)
REASONS = {"safety": "SAFETY", "recitation": "RECITATION"}
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class _GeminiConnection(_Connection):
    """One connection of a client, answered as Google answers."""

    simulator: "GeminiSimulator"

    async def _complete(self, method: str, path: str, headers: dict[str, str], raw: bytes) -> None:
        try:
            body = json.loads(raw)
        except ValueError:
            body = {}
        self.simulator.requests.append(Request(path, headers, body, raw))
        found = PATH.fullmatch(path)
        model = unquote(found["model"]) if found else ""
        name = self.simulator.scripts.get(model, model)
        extras = {match[1] for match in EXTRA.finditer(name)}
        script = Script.of(EXTRA.sub("", name).rstrip("-") if extras else name) or (
            Script() if extras else None
        )
        if found is None or method != "POST" or script is None:
            text = f"models/{model} is not found for API version v1, or is not supported for generateContent."
            self._whole(404, failure(404, text))
            return
        script.flags |= extras
        if headers.get("x-goog-api-key") != KEY or "badkey" in extras:
            reason = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
            text = "API key not valid. Please pass a valid API key."
            self._whole(400, failure(400, text, info("ErrorInfo", reason)))
        elif not self._refuse(script, headers, body):
            script.flags |= {"whole"} if found["whole"] else set()
            await self._answer_as(script, model, body, is_stream=bool(found["sse"]))

    def _refuse(self, script: Script, headers: dict[str, str], body: dict[str, Any]) -> bool:
        flags, status = script.flags, script.numbers.get("error")
        if status == 429 or "perday" in flags:
            period = "Day" if "perday" in flags else "Minute"
            violation = {
                "quotaId": f"GenerateRequestsPer{period}PerProjectPerModel-FreeTier",
                "quotaValue": "20",
            }
            text = f"You exceeded your current quota. Please retry in {RETRY_DELAY_S - 0.2}s."
            quota = info("QuotaFailure", {"violations": [violation]})
            delay = info("RetryInfo", {"retryDelay": f"{RETRY_DELAY_S - 0.2}s"})
            self._whole(429, failure(429, text, quota, delay))
        elif status == 503:
            self._whole(503, failure(503, "The model is overloaded. Please try again later."))
        elif "country" in flags:
            text = "User location is not supported for the API use."
            self._whole(400, failure(400, text, status="FAILED_PRECONDITION"))
        elif "permission" in flags:
            self._whole(403, failure(403, "The caller does not have permission"))
        elif "spent" in flags:
            self._whole(402, failure(402, "Your prepaid balance is used up."))
        elif "context" in flags:
            text = "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."
            self._whole(400, failure(400, text))
        elif "leak" in flags:
            said = body["contents"][-1]["parts"][-1]["text"]
            self._whole(400, failure(400, f"Bad key {headers['x-goog-api-key']} for input {said!r}"))
        elif status:
            self._whole(status, failure(status, f"Refused with {status}, as asked"))
        else:
            return super()._refuse(script, headers, body)
        return True

    async def _answer_as(self, script: Script, model: str, body: dict[str, Any], *, is_stream: bool) -> None:
        if "timeout" in script.flags:
            await asyncio.Event().wait()
        await asyncio.sleep(script.numbers.get("delay", 0) / 1000)
        reply = _Reply(script, model, body, number=len(self.simulator.requests))
        if "whole" in script.flags:
            self._whole(200, reply.whole())
            return
        if "array" in script.flags or not is_stream:
            self._whole(200, list(reply.chunks()))
            self.simulator.finished += 1
            return
        await self._write_out(script, reply, _Writer(self, script))

    async def _write_out(self, script: Script, reply: "_Reply", writer: _Writer) -> None:
        numbers, flags = script.numbers, script.flags
        interval_s = numbers.get("ms", numbers.get("pace", 0)) / 1000
        for number, chunk in enumerate(reply.chunks(), 1):
            await writer.event(chunk)
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
            if number == 5 and await self._break_off(flags, writer):
                return
            await asyncio.sleep(interval_s)
            await self._writable.wait()
        self.simulator.finished += 1
        if "linger" in flags:
            await asyncio.Event().wait()
        await writer.end()

    async def _break_off(self, flags: set[str], writer: _Writer) -> bool:
        error = failure(503, "The model is overloaded. Please try again later.")
        if "midstream-error" in flags:
            await writer.event(error)
        elif "loose-error" in flags:
            await writer.write(json.dumps(error, indent=2).encode() + b"\n")
        elif "array-error" in flags:
            await writer.write(json.dumps([error], indent=2).encode() + b"\n")
        elif "garbage" in flags:
            await writer.write(b"data: {this is not JSON\n\n")
        else:
            return False
        await writer.end()
        return True

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        lines = {"Content-Type": content_type, "Server": "scaffolding on HTTPServer2", **headers}
        text = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.transport.write(f"HTTP/1.1 {status} Simulated\r\n{text}\r\n".encode())


class GeminiSimulator(Simulator):
    """Runs in a thread of this process while the `with` block lasts. `scripts`: model names that are none themselves,
    and the script that each of them is answered by."""

    def __init__(self, **where: Any) -> None:
        super().__init__(**where)
        self.scripts: dict[str, str] = {}

    def _speak(self, open_connections: set[_Connection]) -> _Connection:
        return _GeminiConnection(self, open_connections)


class _Reply:
    """What one answer says: its chunks in Gemini's format."""

    def __init__(self, script: Script, model: str, body: dict[str, Any], *, number: int) -> None:
        self._flags = script.flags
        contents = body.get("contents") or []
        texts = [
            {"role": content["role"], "content": "".join(part.get("text", "") for part in content["parts"])}
            for content in contents
        ]
        fails = self._flags & {"loose-error", "array-error"} and not script.numbers
        pieces = [f"word{at} " for at in range(1, 21)] if fails else script.pieces(texts)
        thoughts = len(THOUGHTS) if "thinking" in self._flags else 0
        limit = body["generationConfig"]["maxOutputTokens"]
        self._thoughts = THOUGHTS[:limit] if thoughts else ()
        self._pieces = pieces[: max(0, limit - thoughts)]
        reason = next((REASONS[flag] for flag in self._flags if flag in REASONS), "STOP")
        self._reason = "MAX_TOKENS" if len(self._pieces) < len(pieces) else reason
        system = "".join(part["text"] for part in (body.get("systemInstruction") or {}).get("parts", ()))
        self._words_in = len(system.split()) + sum(len(text["content"].split()) for text in texts)
        self._model = model
        self._id = f"AlephSimulated{number}"

    def chunks(self) -> Iterator[dict[str, Any]]:
        if "blocked" in self._flags:
            count = {"promptTokenCount": self._words_in, "totalTokenCount": self._words_in}
            yield {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": count, **self._base()}
            return
        for at, thought in enumerate(self._thoughts, 1):
            yield self._chunk([{"text": thought, "thought": True}], thoughts=at)
        whole = len(self._thoughts)
        for at, piece in enumerate(self._pieces, 1):
            last = self._reason if at == len(self._pieces) else ""
            yield self._chunk([{"text": piece}], last, written=at, thoughts=whole)
        if not self._pieces:
            yield self._chunk([], self._reason, thoughts=whole)

    def whole(self) -> dict[str, Any]:
        """The answer of `generateContent`: the last chunk, with all that was said before it."""
        chunks = list(self.chunks())
        parts = [part for chunk in chunks for part in _parts(chunk)]
        if parts:
            chunks[-1]["candidates"][0]["content"]["parts"] = parts
        return chunks[-1]

    def _base(self) -> dict[str, Any]:
        return {"modelVersion": self._model, "responseId": self._id}

    def _chunk(
        self, parts: list[dict[str, Any]], reason: str = "", *, written: int = 0, thoughts: int = 0
    ) -> dict[str, Any]:
        content = {"parts": parts, "role": "model"} if parts else {"role": "model"}
        candidate: dict[str, Any] = {"content": content, "index": 0}
        if reason and "unfinished" not in self._flags:
            candidate["finishReason"] = reason
        found = {"candidates": [candidate], **self._base()}
        if "nousage" not in self._flags:
            found["usageMetadata"] = self._usage(written, thoughts)
        return found

    def _usage(self, written: int, thoughts: int) -> dict[str, Any]:
        if "cached" in self._flags:
            return usage(promptTokenCount=120, cached=64, candidatesTokenCount=19, thoughtsTokenCount=41)
        tools = 7 if "tools" in self._flags else 0
        counted = usage(
            promptTokenCount=self._words_in,
            candidatesTokenCount=written,
            thoughtsTokenCount=thoughts,
            toolUsePromptTokenCount=tools,
        )
        if "bare-usage" in self._flags:
            return {name: value for name, value in counted.items() if value}
        return counted


def _parts(chunk: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for one in chunk.get("candidates", ()) for part in one["content"].get("parts", ())]


def usage(cached: int = 0, **tokens: int) -> dict[str, Any]:
    """A `usageMetadata` whose total is right."""
    return {
        **tokens,
        "totalTokenCount": sum(tokens.values()),
        "cachedContentTokenCount": cached,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens["promptTokenCount"]}],
    }


def info(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    """One of the details of an error."""
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


def failure(code: int, message: str, *details: dict[str, Any], status: str = "") -> dict[str, Any]:
    """The envelope of Google's errors."""
    error: dict[str, Any] = {
        "code": code,
        "message": message,
        "status": status or STATUSES.get(code, "UNKNOWN"),
    }
    return {"error": {**error, "details": list(details)} if details else error}
