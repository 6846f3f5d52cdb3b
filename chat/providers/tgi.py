"""The adapter for text-generation-inference (TGI): a server of the installation's own, or a dedicated Inference Endpoint of
Hugging Face. Hosted models are reached through the router (`chat.providers.huggingface`).

Its own format takes one raw prompt, so the chat template is ours to apply; `TEMPLATES` has those of the common families.
A model of any other family is asked through the server's chat completions, where the server knows the template: setting
`server`. An address without a path is TGI itself (`/generate_stream`); one with a path is asked as it stands, like `/`.
"""

import json
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from chat.providers import answers, counts, exchange, wire
from chat.providers.base import CLOCKS, Call, Clocks, Event, Prompt, Provider, ProviderError, Usage
from chat.providers.openai_compatible import OpenAICompatible
from chat.providers.spec import ProviderSpec, Setting

SERVER = "server"
UNSAID = "unsaid"
Messages = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Template:
    """How one family of models writes a conversation down. `marks`: what opens and closes a turn, so that nobody's text
    can; `stop`: what ends an answer."""

    write: Callable[[Messages], str]
    marks: re.Pattern[str]
    stop: tuple[str, ...]

    def prompt(self, messages: Messages) -> str:
        return self.write([(role, self.marks.sub(_apart, content).strip()) for role, content in messages])


def _apart(mark: re.Match[str]) -> str:
    """A mark that somebody wrote into a text, as readable as before and no mark any more."""
    return f"{mark[0][0]} {mark[0][1:]}"


def _llama3(messages: Messages) -> str:
    turns = "".join(
        f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>" for role, content in messages
    )
    return f"{turns}<|start_header_id|>assistant<|end_header_id|>\n\n"


def _chatml(messages: Messages) -> str:
    turns = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in messages)
    return f"{turns}<|im_start|>assistant\n"


def _mistral(messages: Messages) -> str:
    written, waiting = "", ""  # the system's words have no turn of their own
    for role, content in messages:
        if role == "assistant":
            written += f" {content}</s>"
        elif role == "system":
            waiting += f"{content}\n\n"
        else:
            written += f"[INST] {waiting}{content} [/INST]"
            waiting = ""
    return written


def _gemma(messages: Messages) -> str:
    written, waiting = "", ""
    for role, content in messages:
        if role == "system":
            waiting += f"{content}\n\n"
            continue
        name = "model" if role == "assistant" else "user"
        written += f"<start_of_turn>{name}\n{waiting}{content}<end_of_turn>\n"
        waiting = ""
    return f"{written}<start_of_turn>model\n"


TEMPLATES = {
    "llama3": Template(_llama3, re.compile(r"<\|\w+\|>"), ("<|eot_id|>",)),
    "chatml": Template(_chatml, re.compile(r"<\|\w+\|>"), ("<|im_end|>",)),
    "mistral": Template(_mistral, re.compile(r"\[/?INST\]|</?s>"), ("</s>",)),
    "gemma": Template(_gemma, re.compile(r"<(?:start|end)_of_turn>|<(?:bos|eos)>"), ("<end_of_turn>",)),
}
"""By the name that `HF_TGI_TEMPLATE` takes. Source: the `tokenizer_config.json` of each family; the mark that begins a text
is left out, for the server's tokenizer puts it there."""


class TGI:
    """TGI at one base URL, in its own format. Safe to share between threads."""

    def __init__(self, *, name: str, base_url: str, api_key: str = "", template: str = "llama3") -> None:
        self.name = name
        url = base_url.rstrip("/")
        self._url = url if urlsplit(url).path else f"{url}/generate_stream"
        self._api_key = api_key
        self._template = TEMPLATES[template]
        self._wire = wire.Wire()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def stream(self, prompt: Prompt, *, call: Call, clocks: Clocks = CLOCKS) -> Generator[Event, None, None]:
        """Ask, and yield the answer as it comes. See `base.Provider` for what is raised."""
        if prompt.images:
            raise ProviderError("bad_request", retryable=True, detail="this protocol has no place for images")
        return exchange.stream(
            self._wire,
            self._url,
            prompt=prompt,
            body=self._body(prompt),
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            secrets=(self._api_key,) if self._api_key else (),
            call=call,
            clocks=clocks,
            reader=Answer,
        )

    def _body(self, prompt: Prompt) -> bytes:
        parameters: dict[str, Any] = {
            "max_new_tokens": prompt.max_output_tokens,
            "do_sample": prompt.temperature != 0,
            "return_full_text": False,  # true by default on `/`
            "details": True,
            "stop": list(self._template.stop),
        }
        if prompt.temperature:  # 0 is refused
            parameters["temperature"] = float(prompt.temperature)
        if prompt.top_p is not None and 0 < prompt.top_p < 1:  # so is 1
            parameters["top_p"] = float(prompt.top_p)
        body = {"inputs": self._template.prompt(prompt.messages), "parameters": parameters, "stream": True}
        return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


class Answer(answers.Answer):
    """What one answer of TGI has said so far. Each event is one token, so an answer that is broken off is counted
    exactly, too."""

    _tokens = 0
    _prompt_tokens: int | None = None

    def introduce(self, headers: Mapping[str, str]) -> None:
        super().introduce(headers)
        told = headers.get("x-prompt-tokens", "")  # of an answer in one piece
        self._prompt_tokens = int(told) if told.isdecimal() and len(told) < 10 else None

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        self.begun = True
        token = chunk["token"]
        self._tokens += 1
        if not token.get("special"):
            self._texts.append(_text(token["text"]))
        details = chunk.get("details")
        self._tell(details if details else {"generated_tokens": self._tokens})
        if details:
            self._finish(details.get("finish_reason"))
        elif chunk.get("generated_text") is not None:
            self._finish("eos_token" if token.get("special") else UNSAID)

    def _take_whole(self, body: dict[str, Any]) -> None:
        self._texts.append(_text(body["generated_text"]))
        details = body.get("details") or {}
        self._tell(details)
        self._finish(details.get("finish_reason") or UNSAID)

    def _tell(self, details: dict[str, Any]) -> None:
        found = counts.read_tgi(details, prompt_tokens=self._prompt_tokens)
        if found is not None:
            told = ("generated_tokens", "input_length", "finish_reason")
            self._usage = Usage(found, {name: details[name] for name in told if name in details})

    def _finish(self, reason: Any) -> None:
        if type(reason) is not str:
            raise ProviderError("bad_response", detail="the finish reason is none")
        super()._finish(reason)


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError
    return value


def _adapter(*, name: str, base_url: str, api_key: str = "", template: str = "llama3") -> Provider:
    if template == SERVER:
        return OpenAICompatible(
            name=name, base_url=f"{base_url.rstrip('/').removesuffix('/v1')}/v1", api_key=api_key
        )
    return TGI(name=name, base_url=base_url, api_key=api_key, template=template)


SPEC = ProviderSpec(
    name="tgi",
    label="Text Generation Inference",
    key_variable="HF_TGI_API_KEY",
    url_variable="HF_TGI_BASE_URL",
    base_url="http://127.0.0.1:8080",
    adapter=_adapter,
    is_own=True,
    settings=(Setting("HF_TGI_TEMPLATE", "template", "|".join((*TEMPLATES, SERVER)), "llama3 or server"),),
)
