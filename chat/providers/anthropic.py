"""The adapter for Anthropic's Messages API: Claude, and gateways that speak the same protocol."""

import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from chat.providers import counts, exchange, wire
from chat.providers.answers import REASONS, Answer
from chat.providers.base import CLOCKS, Call, Clocks, Event, Image, Prompt, ProviderError, Usage
from chat.providers.spec import ProviderSpec, Setting

VERSION = "2026-10-21"
TAKES_SAMPLING = frozenset({"2023-06-01"})
"""Versions of the API that know `temperature` and `top_p`; others refuse them even at their default."""
LEFT_OUT = "(The conversation before this message is left out.)"


class Anthropic:
    """Anthropic at one base URL, with or without its `/v1`. Safe to share between threads. `version` is the date that
    pins the API."""

    def __init__(self, *, name: str, base_url: str, api_key: str = "", version: str = VERSION) -> None:
        self.name = name
        self._url = f"{base_url.rstrip('/').removesuffix('/v1')}/v1/messages"
        self._api_key = api_key
        self._version = version
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        key = {"x-api-key": self._api_key} if self._api_key else {}
        return exchange.stream(
            self._wire,
            self._url,
            prompt=prompt,
            body=self._body(prompt),
            headers={"anthropic-version": self._version, **key},
            secrets=(self._api_key,) if self._api_key else (),
            call=call,
            clocks=clocks,
            reader=MessageAnswer,
        )

    def _body(self, prompt: Prompt) -> bytes:
        body: dict[str, Any] = {
            "model": prompt.upstream_model,
            "max_tokens": prompt.max_output_tokens,
            "messages": _turns(prompt.messages, prompt.images),
            "stream": True,
        }
        system = "\n\n".join(
            content for role, content in prompt.messages if role == "system" and content.strip()
        )
        if system:
            body["system"] = system
        if prompt.user_ref:
            body["metadata"] = {"user_id": prompt.user_ref}
        if self._version in TAKES_SAMPLING:
            if prompt.temperature is not None:
                body["temperature"] = float(prompt.temperature)
            if prompt.top_p is not None:
                body["top_p"] = float(prompt.top_p)
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def _turns(
    messages: Sequence[tuple[str, str]], images: Mapping[int, tuple[Image, ...]]
) -> list[dict[str, Any]]:
    """The conversation as the API takes it: the user begins, roles alternate, nothing is empty. Where images are with a
    turn, its content is a list of blocks, each image before the words about it."""
    turns: list[dict[str, Any]] = []
    for at, (role, content) in enumerate(messages):
        seen = images.get(at, ())
        if role == "system" or not (content.strip() or seen):
            continue
        if not turns and role != "user":
            turns.append({"role": "user", "content": LEFT_OUT})
        if not turns or turns[-1]["role"] != role:
            turns.append({"role": role, "content": _blocks(content, seen) if seen else content})
        elif seen or isinstance(turns[-1]["content"], list):
            turns[-1]["content"] = [*_as_blocks(turns[-1]["content"]), *_blocks(content, seen)]
        else:
            turns[-1]["content"] += f"\n\n{content}"
    return turns


def _as_blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return _blocks(content, ()) if isinstance(content, str) else content


def _blocks(text: str, images: tuple[Image, ...]) -> list[dict[str, Any]]:
    sources = [{"type": "base64", "media_type": image.media_type, "data": image.base64} for image in images]
    words = [{"type": "text", "text": text}] if text.strip() else []
    return [*({"type": "image", "source": source} for source in sources), *words]


class MessageAnswer(Answer):
    """What one message of Claude has said so far. Event and delta types that are not known are passed over: the API may
    bring more of them at any time."""

    reasons = REASONS | {"model_context_window_exceeded": "length", "refusal": "content_filter"}
    _told: dict[str, Any] | None = None
    _has_spoken = False

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        kind = chunk.get("type")
        self.begun = self.begun or kind != "ping"  # a ping keeps the line open and is no sign of an answer
        if kind == "content_block_delta":
            self._take_piece(chunk["delta"])
        elif kind == "content_block_start":
            self._take_piece(chunk["content_block"])
        elif kind == "message_start":
            self._begin(chunk["message"])
        elif kind == "message_delta":
            self._take_usage(chunk.get("usage"))
            self._stop(chunk["delta"])
        elif kind == "message_stop":
            self.done = True
            if not self.finished:
                self._finish(kind)

    def _take_whole(self, body: dict[str, Any]) -> None:
        self._begin(body)
        for block in body["content"]:
            self._take_piece(block)
        self._take_usage(body.get("usage"))
        self._stop(body)

    def _begin(self, message: dict[str, Any]) -> None:
        self.begun = True
        self._identify(message)
        usage = message.get("usage")
        if isinstance(usage, dict):
            # The input is exact from here on; the output is a placeholder until a `message_delta` counts it.
            self._take_usage({name: count for name, count in usage.items() if name != "output_tokens"})

    def _take_piece(self, piece: dict[str, Any]) -> None:
        """A content block, or a delta of one: both carry their text under the same names."""
        kind = piece.get("type")
        if kind in ("text", "text_delta"):
            text = piece.get("text")
            if text and type(text) is str:
                self._texts.append(text)
                self._has_spoken = True
        elif kind in ("thinking", "thinking_delta"):
            thought = piece.get("thinking")
            if thought and type(thought) is str:
                self._thoughts.append(thought)

    def _take_usage(self, usage: Any) -> None:
        """Counts are cumulative, and those of the input may be told only once."""
        if not isinstance(usage, dict):
            return
        told = {name: value for name, value in usage.items() if value is not None}
        self._told = {**(self._told or {}), **told}
        found = counts.read_anthropic(self._told)
        if found is not None:
            self._usage = Usage(found, self._told)
        tier = self._told.get("service_tier")
        if isinstance(tier, str) and tier.isprintable():
            self._service_tier = tier[:200]

    def _stop(self, delta: dict[str, Any]) -> None:
        reason = delta.get("stop_reason")
        if not reason or self.finished:
            return
        if reason == "refusal" and not self._has_spoken:
            details = delta.get("stop_details")
            category = details.get("category") if isinstance(details, dict) else None
            known = type(category) is str and category.isprintable()
            raise ProviderError("policy", detail=f"refusal: {category}"[:100] if known else "refusal")
        self._finish(reason)


SPEC = ProviderSpec(
    name="anthropic",
    label="Anthropic",
    key_variable="ANTHROPIC_API_KEY",
    url_variable="ANTHROPIC_BASE_URL",
    base_url="https://api.anthropic.com",
    adapter=Anthropic,
    settings=(Setting("ANTHROPIC_VERSION", "version", r"\d{4}-\d{2}-\d{2}", VERSION),),
)
