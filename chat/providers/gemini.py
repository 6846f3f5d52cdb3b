"""The adapter for Google's Gemini API (`streamGenerateContent`, the Developer API).

The key travels in a header, never in the address: addresses are logged. The stream has no end marker; an answer is
whole once a finish reason came, and the bytes ended.
"""

import json
import re
from collections.abc import Generator
from typing import Any
from urllib.parse import quote

from chat.providers import answers, counts, exchange, wire
from chat.providers.base import (
    CLOCKS,
    Call,
    Clocks,
    Event,
    FinishReason,
    Prompt,
    ProviderError,
    Usage,
)
from chat.providers.spec import ProviderSpec

LONGEST_LOOSE_JSON = 65536
LEVEL_OF_THINKING = (
    "low"  # thoughts count against the output limit: a high level can leave no room for an answer
)
TAKES_A_LEVEL = re.compile(r"gemini-(?:[3-9]|\d\d)(?!\d)")  # 2.5 answers a level with a refusal
ROLES = {"user": "user", "assistant": "model"}
REASONS: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
}
UNSAID = ("", "FINISH_REASON_UNSPECIFIED", "BLOCK_REASON_UNSPECIFIED", "BLOCKED_REASON_UNSPECIFIED")


class Gemini:
    """Gemini at one base URL, which ends in the version of the API. Safe to share between threads."""

    def __init__(self, *, name: str, base_url: str, api_key: str = "") -> None:
        self.name = name
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        model = quote(prompt.upstream_model.removeprefix("models/"), safe="")
        return exchange.stream(
            self._wire,
            f"{self._base_url}/models/{model}:streamGenerateContent?alt=sse",
            prompt=prompt,
            body=_body(prompt),
            headers={"x-goog-api-key": self._api_key} if self._api_key else {},
            secrets=(self._api_key,) if self._api_key else (),
            call=call,
            clocks=clocks,
            reader=Answer,
        )


def _body(prompt: Prompt) -> bytes:
    contents: list[dict[str, Any]] = []
    instructions: list[dict[str, str]] = []
    for at, (role, content) in enumerate(prompt.messages):
        images = [
            {"inlineData": {"mimeType": image.media_type, "data": image.base64}}
            for image in prompt.images.get(at, ())
        ]
        words = [{"text": content}] if content.strip() or not images else []
        if role == "system":
            instructions += words
        elif contents and contents[-1]["role"] == ROLES[role]:
            contents[-1]["parts"] += [*images, *words]  # turns alternate
        else:
            contents.append({"role": ROLES[role], "parts": [*images, *words]})
    config: dict[str, Any] = {"maxOutputTokens": prompt.max_output_tokens}
    if prompt.temperature is not None:
        config["temperature"] = float(prompt.temperature)
    if prompt.top_p is not None:
        config["topP"] = float(prompt.top_p)
    if TAKES_A_LEVEL.search(prompt.upstream_model):
        config["thinkingConfig"] = {"thinkingLevel": LEVEL_OF_THINKING}
    body: dict[str, Any] = {"contents": contents, "generationConfig": config}
    if instructions:
        body["systemInstruction"] = {"role": "user", "parts": instructions}
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


class Answer(answers.Answer):
    """What one answer of Gemini has said so far: events of `generateContent`, and errors as JSON over several lines
    without `data:`, alone or in a list."""

    reasons = REASONS

    def __init__(self, *, secrets: tuple[str, ...] = (), said: tuple[str, ...] = ()) -> None:
        super().__init__(secrets=secrets, said=said)
        self._loose = b""
        self._has_text = False

    def _take_other(self, line: bytes) -> None:
        if not self._loose and line.lstrip()[:1] not in (b"{", b"["):
            return
        self._loose += line + b"\n"
        if len(self._loose) > LONGEST_LOOSE_JSON:
            raise ProviderError("bad_response", detail="an event is too long")
        if self._loose.count(b"{") <= self._loose.count(b"}"):
            found = answers.json_or_none(self._loose)
            if found is not None:
                self._loose = b""
                self._take_object(found)

    def _take_body(self) -> None:
        found = answers.json_or_none(self._rest)
        for each in found if isinstance(found, list) else [found]:
            self._take_object(each)

    def _take_object(self, chunk: Any) -> None:
        super()._take_object(chunk[0] if type(chunk) is list and len(chunk) == 1 else chunk)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        self.begun = True
        usage = chunk.get("usageMetadata")
        if usage:
            found = counts.read_gemini(usage)
            if found is not None:
                self._usage = Usage(found, usage)
        self._identify({"model": chunk.get("modelVersion"), "id": chunk.get("responseId")})
        blocked = (chunk.get("promptFeedback") or {}).get("blockReason")
        if blocked and blocked not in UNSAID:
            raise _refused("prompt", blocked)
        for candidate in chunk.get("candidates") or ():
            if not candidate.get("index"):  # another alternative of the answer was not asked for
                self._take_candidate(candidate)

    def _take_candidate(self, candidate: dict[str, Any]) -> None:
        for part in (candidate.get("content") or {}).get("parts") or ():
            text = part.get("text")
            if text and type(text) is str:
                (self._thoughts if part.get("thought") else self._texts).append(text)
                self._has_text = self._has_text or not part.get("thought")
        reason = candidate.get("finishReason")
        if not reason or reason in UNSAID or self.finished:
            return
        if REASONS.get(reason) == "content_filter" and not self._has_text:
            raise _refused("answer", reason)
        self._finish(reason)


def _refused(what: str, reason: Any) -> ProviderError:
    word = reason if type(reason) is str and reason.isascii() and reason.isprintable() else "unreadable"
    return ProviderError("policy", detail=f"the {what} was blocked: {word[:100]}")


SPEC = ProviderSpec(
    name="gemini",
    label="Google Gemini",
    key_variable="GEMINI_API_KEY",
    url_variable="GEMINI_BASE_URL",
    base_url="https://generativelanguage.googleapis.com/v1",
    adapter=Gemini,
    base_path="/v1",
)
