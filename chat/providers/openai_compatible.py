"""The adapter for everyone who speaks OpenAI's chat completions. What differs between them is data: a `Dialect`, which
stands in a module of each one's own.
"""

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chat.providers import exchange, wire
from chat.providers.base import CLOCKS, Call, Clocks, Event, Image, Prompt


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one provider's requests differ. `output_cap`: the parameter that limits the output;
    `include_usage`: it knows `stream_options.include_usage`; `user_field`: where the hashed user goes, ""
    for nowhere; `extra`: sent as it is with every request."""

    output_cap: str = "max_tokens"
    include_usage: bool = True
    include_obfuscation: bool | None = None
    user_field: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)


class OpenAICompatible:
    """One provider at one base URL. Safe to share between threads."""

    def __init__(
        self, *, name: str, base_url: str, api_key: str = "", dialect: Dialect | None = None
    ) -> None:
        self.name = name
        self._url = f"{base_url.rstrip('/')}/chat/completions"
        self._api_key = api_key
        self._dialect = dialect or Dialect()
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        return exchange.stream(
            self._wire,
            self._url,
            prompt=prompt,
            body=self._body(prompt),
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            secrets=(self._api_key,) if self._api_key else (),
            call=call,
            clocks=clocks,
        )

    def _body(self, prompt: Prompt) -> bytes:
        dialect = self._dialect
        body: dict[str, Any] = {
            "model": prompt.upstream_model,
            "messages": messages_of(prompt),
            "stream": True,
            dialect.output_cap: prompt.max_output_tokens,
            **dialect.extra,
        }
        options: dict[str, bool] = {}
        if dialect.include_usage:
            options["include_usage"] = True
        if dialect.include_obfuscation is not None:
            options["include_obfuscation"] = dialect.include_obfuscation
        if options:
            body["stream_options"] = options
        if prompt.temperature is not None:
            body["temperature"] = float(prompt.temperature)
        if prompt.top_p is not None:
            body["top_p"] = float(prompt.top_p)
        if dialect.user_field and prompt.user_ref:
            body[dialect.user_field] = prompt.user_ref
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """The conversation in this form; others have taken it over."""
    return [
        {"role": role, "content": _content(content, prompt.images.get(at, ()))}
        for at, (role, content) in enumerate(prompt.messages)
    ]


def _content(text: str, images: tuple[Image, ...]) -> str | list[dict[str, Any]]:
    """The text alone, or as one of several parts where images are with it; an empty one is left out then."""
    if not images:
        return text
    urls = [f"data:{image.media_type};base64,{image.base64}" for image in images]
    words = [{"type": "text", "text": text}] if text.strip() else []
    return [*({"type": "image_url", "image_url": {"url": url}} for url in urls), *words]
