"""The adapter for an n8n workflow behind a webhook (`docs/n8n` has two that fit).

The request is `{model, messages, temperature, maxTokens}`, the answer `{content, tokensUsed, model, provider}`; beside these
a workflow may give `usage`, the raw object of the provider it asked, whoever that is, and `finishReason`. Answers of
other workflows are understood where a text is to be found in them. A workflow in streaming mode sends one JSON object a
line instead: begin, item, end, error. n8n answers most of its own failures with a text, some with status 200, and goes
on working when its caller hangs up: what has begun is paid for, so it is not tried again.
"""

import json
import re
import secrets
from collections.abc import Generator, Mapping
from typing import Any

from chat.providers import answers, anthropic, counts, exchange, gemini, problems, wire
from chat.providers.base import CLOCKS, Call, Clocks, Event, Kind, Prompt, ProviderError, Usage
from chat.providers.openai_compatible import messages_of
from chat.providers.spec import ConfigurationError, ProviderSpec

HEADER = "X-Aleph-Token"
MODEL = re.compile(r"(?!.*\.\.)[A-Za-z0-9._:/-]+", re.ASCII)
"""Workflows put the name into addresses."""
TEXTS = ("content", "reply", "output", "text", "response", "message")
NO_ANSWER = ("Workflow was started", "Workflow executed successfully but no data was returned")
STREAMED = ("begin", "item", "end", "error")
PAID: frozenset[Kind] = frozenset({"timeout", "broken_stream", "server"})
"""Failures after which the provider behind the workflow may well have answered."""
ENDED = "end"


class N8n:
    """One webhook. Safe to share between threads."""

    def __init__(self, *, name: str, base_url: str, api_key: str = "") -> None:
        if "/webhook-test/" in base_url:
            raise ConfigurationError(
                "N8N_WEBHOOK_URL is the test address, which answers once: take the production one"
            )
        self.name = name
        self._url = base_url
        self._api_key = api_key
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        if not MODEL.fullmatch(prompt.upstream_model):
            raise ProviderError("bad_request", detail="the model's name has characters that no name has")
        call.request_id = call.request_id or secrets.token_hex(16)
        key = {HEADER: self._api_key} if self._api_key else {}
        try:
            yield from exchange.stream(
                self._wire,
                self._url,
                prompt=prompt,
                body=_body(prompt),
                headers={"Accept": "application/json", "X-Request-Id": call.request_id, **key},
                secrets=(self._api_key,) if self._api_key else (),
                call=call,
                clocks=clocks,
                reader=Answer,
                refusal=_refusal,
            )
        except ProviderError as problem:
            problem.retryable = problem.retryable and problem.kind not in PAID
            raise


def _body(prompt: Prompt) -> bytes:
    body: dict[str, Any] = {
        "model": prompt.upstream_model,
        "messages": messages_of(prompt),
        "maxTokens": prompt.max_output_tokens,
    }
    if prompt.temperature is not None:
        body["temperature"] = float(prompt.temperature)
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _refusal(status: int, headers: Mapping[str, str], body: bytes, **hidden: Any) -> ProviderError:
    if status == 404 and b"Cannot POST" in body:
        return ProviderError("overloaded", status=status, detail="n8n is starting up")
    if status == 500 and b"timed out" in body:
        return ProviderError("timeout", status=status, detail="the workflow took too long")
    return problems.refusal(status, headers, body, **hidden)


class Answer(answers.Lines):
    """What one answer has said so far: a whole JSON text, or one object a line. Which of them it is shows in its first
    line, or, where that is all, at the end."""

    reasons = {**gemini.REASONS, **anthropic.MessageAnswer.reasons}
    _is_streamed: bool | None = None
    _open = 0
    _has_ended = False

    def _take(self, data: bytes) -> None:
        if not self._is_streamed:
            self._rest = (self._rest + data).lstrip(b"\xef\xbb\xbf \t\r\n")
            if not self._rest:
                return
            self._looks_like_json(self._rest)
            first, ended, _ = self._rest.partition(b"\n")
            if self._is_streamed is None and ended:
                self._is_streamed = _is_streamed(answers.json_or_none(first))
            if len(self._rest) > answers.LONGEST_BODY:
                raise ProviderError("bad_response", detail="the body is too long")
            if not self._is_streamed:
                return
            data, self._rest = self._rest, b""
        super()._take(data)

    def end(self) -> Any:
        """The last events. An answer in one piece is read here."""
        if not self._is_streamed:
            self._is_json = True
        elif self._has_ended and not self._open and not self._rest:
            self._finish(ENDED)  # not before: after one node another may speak
        return super().end()

    def _take_body(self) -> None:
        if not self._rest:
            raise ProviderError("bad_response", detail="the workflow answered nothing")
        found = answers.json_or_none(self._rest)
        if _is_streamed(found):
            self._take_object(found)
            return
        found = found[0] if isinstance(found, list) and found else found
        if not isinstance(found, dict):
            raise ProviderError("bad_response", detail="the body is not an object")
        if found.get("error") or found.get("ok") is False:
            raise problems.in_answer(found, **self._hidden)
        self._take_reply(found)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        self.begun = True
        kind, content = chunk.get("type"), chunk.get("content")
        if kind == "error":
            raise problems.in_answer({"error": content if isinstance(content, str) else ""}, **self._hidden)
        if kind == "item" and content and type(content) is str:
            self._texts.append(content)
        elif kind == "begin":
            self._open += 1
        elif kind == "end":
            self._open, self._has_ended = max(0, self._open - 1), True

    def _take_reply(self, reply: dict[str, Any]) -> None:
        text = next((reply[name] for name in TEXTS if type(reply.get(name)) is str), None)
        if text is None or (text in NO_ANSWER and "content" not in reply):
            raise ProviderError("bad_response", detail="the workflow answered without a text")
        self.begun = True
        self._texts.append(text)
        found = counts.read_any(reply.get("usage")) or counts.read_total(reply.get("tokensUsed"))
        if found is not None:
            usage = reply.get("usage")
            self._usage = Usage(
                found, usage if isinstance(usage, dict) else {"tokensUsed": reply["tokensUsed"]}
            )
        self._identify(
            {
                "model": reply.get("model"),
                "id": reply.get("upstream_id") or reply.get("id"),
                "provider": reply.get("provider"),
            }
        )
        self._finish(
            answers.name_of(reply.get("finishReason")) or answers.name_of(reply.get("finish_reason")) or ENDED
        )


def _is_streamed(found: Any) -> bool:
    return isinstance(found, dict) and found.get("type") in STREAMED and "metadata" in found


SPEC = ProviderSpec(
    name="n8n",
    label="n8n",
    key_variable="N8N_WEBHOOK_TOKEN",
    url_variable="N8N_WEBHOOK_URL",
    base_url="https://n8n.example.com/webhook/aleph-chat",
    adapter=N8n,
    is_own=True,
)
