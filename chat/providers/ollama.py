"""The adapter for Ollama's own API (`/api/chat`), and what a server has installed (`chat.local_models` asks).

Its OpenAI-compatible side cannot be told the size of the context, and without that Ollama drops the beginning of a long
conversation in silence. Answers are JSON objects, one a line; the last has `done`, the counts and the durations.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from chat.providers import answers, counts, exchange, wire
from chat.providers.base import CLOCKS, Call, Clocks, Event, Prompt, Usage
from chat.providers.spec import ProviderSpec, Setting

NUM_CTX = "8192"
LOOKING = Clocks(connect_s=1, first_byte_s=3, idle_s=3, total_s=5)
"""A server on the same machine answers at once, or is not there."""
NANO = 1_000_000_000
MOST_MODELS = 200


@dataclass(frozen=True, slots=True)
class Installed:
    """A model that a server has. `context_tokens` is what it was trained for, None where the server does not say."""

    name: str
    can_chat: bool
    takes_images: bool
    context_tokens: int | None


class Ollama:
    """Ollama at one address, with or without the `/v1` or `/api` of it. Safe to share between threads. `num_ctx`: the size
    of the context that models are loaded with."""

    def __init__(self, *, name: str, base_url: str, api_key: str = "", num_ctx: str = NUM_CTX) -> None:
        self.name = name
        self.num_ctx = int(num_ctx)
        self._base_url = base_url.rstrip("/").removesuffix("/v1").removesuffix("/api")
        self._api_key = api_key
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        return exchange.stream(
            self._wire,
            f"{self._base_url}/api/chat",
            prompt=prompt,
            body=self._body(prompt),
            headers=self._headers(),
            secrets=(self._api_key,) if self._api_key else (),
            call=call,
            clocks=clocks,
            reader=Answer,
        )

    def installed(self) -> list[str]:
        """The names of the models on this server itself; those that it passes on to a cloud are left out. Raises
        ProviderError, `unreachable` where no server is."""
        found = exchange.look_up(
            self._wire, f"{self._base_url}/api/tags", headers=self._headers(), clocks=LOOKING
        )
        models = found.get("models") if isinstance(found, dict) else None
        told = [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        names = [answers.name_of(model.get("name")) for model in told if not model.get("remote_host")]
        return sorted(filter(None, names))[:MOST_MODELS]

    def describe(self, name: str) -> Installed:
        """What the server tells of one of its models. Raises ProviderError."""
        body = json.dumps({"model": name}).encode()
        found = exchange.look_up(
            self._wire, f"{self._base_url}/api/show", headers=self._headers(), clocks=LOOKING, body=body
        )
        found = found if isinstance(found, dict) else {}
        can = found.get("capabilities")
        can = can if isinstance(can, list) else ["completion"]  # older servers do not say
        info = found.get("model_info")
        lengths = [
            length
            for key, length in (info.items() if isinstance(info, dict) else ())
            if key.endswith(".context_length") and type(length) is int and length > 0
        ]
        return Installed(name, "completion" in can, "vision" in can, min(lengths) if lengths else None)

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"} if self._api_key else {}

    def _body(self, prompt: Prompt) -> bytes:
        options: dict[str, Any] = {"num_predict": prompt.max_output_tokens, "num_ctx": self.num_ctx}
        if prompt.temperature is not None:
            options["temperature"] = float(prompt.temperature)
        if prompt.top_p is not None:
            options["top_p"] = float(prompt.top_p)
        body = {
            "model": prompt.upstream_model,
            "messages": [
                {"role": role, "content": content}
                | ({"images": [image.base64 for image in prompt.images[at]]} if at in prompt.images else {})
                for at, (role, content) in enumerate(prompt.messages)
            ],
            "stream": True,
            "think": False,
            "truncate": False,  # an error is better than an answer to half of the conversation
            "shift": False,
            "options": options,
        }
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


class Answer(answers.Lines):
    """What one answer of Ollama has said so far."""

    def __init__(self, *, secrets: tuple[str, ...] = (), said: tuple[str, ...] = ()) -> None:
        super().__init__(secrets=secrets, said=said)
        self._words = sum(len(text.split()) for text in said)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        self.begun = True
        message = chunk.get("message") or {}
        text, thought = message.get("content"), message.get("thinking")
        if text and type(text) is str:
            self._texts.append(text)
        if thought and type(thought) is str:
            self._thoughts.append(thought)
        self._identify({"model": chunk.get("model")})
        if chunk.get("done"):
            found = counts.read_ollama(chunk, words=self._words)
            if found is not None:
                self._usage = Usage(found, _figures(chunk), _facts(chunk))
            self._finish(chunk.get("done_reason") or "stop")  # older servers give no reason
            self.done = True


def _figures(chunk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in chunk.items() if name.endswith(("_count", "_duration"))}


def _facts(chunk: dict[str, Any]) -> dict[str, int | str]:
    """How long the model took to be loaded: the reason why a first answer is slow."""
    load_ms = answers.milliseconds(chunk.get("load_duration"), per_second=NANO)
    return {} if load_ms is None else {"load_ms": load_ms}


SPEC = ProviderSpec(
    name="ollama",
    label="Ollama",
    key_variable="OLLAMA_API_KEY",
    url_variable="OLLAMA_BASE_URL",
    base_url="http://127.0.0.1:11434",
    adapter=Ollama,
    is_own=True,
    is_found=True,
    settings=(Setting("OLLAMA_NUM_CTX", "num_ctx", r"[1-9]\d{2,6}", NUM_CTX),),
)
