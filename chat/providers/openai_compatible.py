"""The adapter for everyone who speaks OpenAI's chat completions: OpenAI, DeepSeek, the Hugging Face router,
Ollama, and gateways such as LiteLLM. What differs between them is data: a `Dialect`.
"""

import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chat.providers import answers, problems, wire
from chat.providers.base import CLOCKS, Call, Clocks, Event, Prompt, ProviderError

LONGEST_ERROR_BODY = 65536
ERROR_BODY_S = 10.0
LONGEST_STREAM = 256 << 20
AFTER_FINISH_S = 5.0  # how long the count may lag behind the finish reason
REQUEST_ID_HEADERS = ("x-request-id", "x-generation-id", "request-id")
FIXED_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "text/event-stream, application/json",
    "Accept-Encoding": "identity",  # a compressing proxy would hold pieces back
    "User-Agent": "Aleph/1.0",
}


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
        secrets = (self._api_key,) if self._api_key else ()
        said = tuple(content for _, content in prompt.messages)
        try:
            with self._wire.post(
                self._url, body=self._body(prompt), headers=self._headers(), call=call, clocks=clocks
            ) as incoming:
                call.request_id = _request_id(incoming.headers)
                if incoming.status != 200:
                    incoming.end_within(ERROR_BODY_S)
                    body = incoming.read_at_most(LONGEST_ERROR_BODY)
                    raise problems.refusal(
                        incoming.status, incoming.headers, body, secrets=secrets, said=said
                    )
                answer = answers.Answer(secrets=secrets, said=said)
                answer.request_id = call.request_id
                answer.served_by = incoming.headers.get("x-inference-provider", "")[:200]
                yield from _events(incoming, answer, call)
        except ProviderError as problem:
            problem.request_id = problem.request_id or call.request_id
            raise

    def _headers(self) -> dict[str, str]:
        if not self._api_key:
            return FIXED_HEADERS
        return {**FIXED_HEADERS, "Authorization": f"Bearer {self._api_key}"}

    def _body(self, prompt: Prompt) -> bytes:
        dialect = self._dialect
        body: dict[str, Any] = {
            "model": prompt.upstream_model,
            "messages": [{"role": role, "content": content} for role, content in prompt.messages],
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


def _events(incoming: wire.Incoming, answer: answers.Answer, call: Call) -> Iterator[Event]:
    received = 0
    while not answer.done:
        try:
            data = incoming.read()
        except ProviderError:
            if answer.finished:
                break  # the text is whole, only the count or the formal end got lost
            raise
        if not data:
            break
        received += len(data)
        if received > LONGEST_STREAM:
            raise ProviderError("bad_response", detail="the answer does not end")
        was_finished = answer.finished
        yield from answer.feed(data)
        if answer.begun:
            incoming.begun()
            call.request_id = answer.request_id
        if answer.finished and not was_finished:
            incoming.end_within(AFTER_FINISH_S)
    yield from answer.end()


def _request_id(headers: Mapping[str, str]) -> str:
    return next((headers[name][:200] for name in REQUEST_ID_HEADERS if headers.get(name)), "")
