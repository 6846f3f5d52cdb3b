"""What we read and send, held against the official SDKs: answers that are built of their models, requests that fit their
types, and their clients talking to our simulators, so that these speak the format, too."""

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from anthropic import types as claude
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from google import genai
from google.genai import types as google
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.completion_usage import CompletionTokensDetails, PromptTokensDetails
from pydantic import BaseModel, TypeAdapter

from chat import providers
from chat.providers import answers, gemini
from chat.providers.anthropic import MessageAnswer
from chat.providers.base import Counts, Image, Prompt
from tests.listening import ask
from tests.simulator import Simulator
from tests.simulator_anthropic import AnthropicSimulator
from tests.simulator_gemini import KEY as GEMINI_KEY
from tests.simulator_gemini import GeminiSimulator
from tests.test_provider_payloads import read_at_every_cut

PIXEL = Image(
    "image/png",
    bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
        "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
    ),
)
ASKED = Prompt(
    upstream_model="sim-words-5",
    messages=(
        ("system", "Be kind."),
        ("user", "Apa ini?"),
        ("assistant", "Sebuah titik."),
        ("user", "Dan ini?"),
    ),
    max_output_tokens=100,
    temperature=Decimal("0.7"),
    top_p=Decimal("0.9"),
    user_ref="5d41402abc4b2a76b9719d911017c592",
    images={1: (PIXEL,), 3: (PIXEL, PIXEL)},
)
TEXT = "Selamat pagi 👋🏽!"


def sse(events: Iterable[BaseModel], *, named: bool = False) -> bytes:
    parts = []
    for event in events:
        data = event.model_dump_json(by_alias=True, exclude_none=named)
        name = f"event: {json.loads(data)['type']}\n" if named else ""
        parts.append(f"{name}data: {data}\n\n")
    return "".join(parts).encode()


# OpenAI

USAGE = CompletionUsage(
    prompt_tokens=120,
    completion_tokens=60,
    total_tokens=180,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=64, cache_write_tokens=16, audio_tokens=0),
    completion_tokens_details=CompletionTokensDetails(
        reasoning_tokens=41, audio_tokens=0, accepted_prediction_tokens=0, rejected_prediction_tokens=0
    ),
)
COUNTED = Counts(40, 64, 16, 19, 41, 120, 60, 180)


def openai_chunks() -> Iterator[ChatCompletionChunk]:
    base: dict[str, Any] = {
        "id": "chatcmpl-A1",
        "object": "chat.completion.chunk",
        "created": 1795340000,
        "model": "gpt-6-luna-2026-09-01",
        "service_tier": "default",
    }
    for delta, reason in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Selamat"}, None),
        ({"content": " pagi 👋🏽!"}, None),
        ({}, "stop"),
    ):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        yield ChatCompletionChunk.model_validate({**base, "choices": [choice]})
    yield ChatCompletionChunk.model_validate({**base, "choices": [], "usage": USAGE})


def test_a_stream_of_openais_chunks_is_read() -> None:
    heard = read_at_every_cut(answers.Answer, sse(openai_chunks()) + b"data: [DONE]\n\n")
    assert (heard.text, heard.finish.reason, heard.counts) == (TEXT, "stop", COUNTED)
    assert (heard.finish.model, heard.finish.service_tier) == ("gpt-6-luna-2026-09-01", "default")


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_a_whole_completion_of_openai_is_read(reason: str) -> None:
    message = {"role": "assistant", "content": TEXT, "refusal": None}
    whole = ChatCompletion.model_validate(
        {
            "id": "chatcmpl-A1",
            "object": "chat.completion",
            "created": 1795340000,
            "model": "gpt-6-luna",
            "choices": [{"index": 0, "message": message, "finish_reason": reason, "logprobs": None}],
            "usage": USAGE,
        }
    )
    heard = read_at_every_cut(answers.Answer, whole.model_dump_json().encode())
    assert (heard.text, heard.finish.reason, heard.counts) == (TEXT, reason, COUNTED)


@pytest.mark.parametrize("name", ["openai", "openrouter", "huggingface", "compatible"])
def test_what_we_send_to_openai_fits_its_types(name: str) -> None:
    with Simulator() as simulator:
        env = {f"{name.upper()}_API_KEY": "sk-x", f"{name.upper()}_BASE_URL": simulator.base_url}
        assert ask(providers.configure(env)[name], ASKED).problem is None
        body = simulator.requests[-1].body
    assert body.keys() <= CompletionCreateParamsStreaming.__annotations__.keys()
    TypeAdapter(CompletionCreateParamsStreaming).validate_python(body)
    fitting = TypeAdapter(list[ChatCompletionMessageParam])
    fitting.validate_python(body["messages"])
    # A union of open dictionaries takes almost anything: what is in a part is looked at by hand.
    parts = [
        part
        for message in body["messages"]
        if isinstance(message["content"], list)
        for part in message["content"]
    ]
    assert [part["type"] for part in parts] == ["image_url", "text", "image_url", "image_url", "text"]


def test_openais_client_understands_our_simulator() -> None:
    with Simulator() as simulator:
        client = openai.OpenAI(base_url=simulator.base_url, api_key="sk-x", max_retries=0)
        chunks = list(
            client.chat.completions.create(
                model="sim-words-5-cached",
                messages=[{"role": "user", "content": "Halo"}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        with pytest.raises(openai.RateLimitError):
            client.chat.completions.create(
                model="sim-error-429", messages=[{"role": "user", "content": "Halo"}]
            )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usage = chunks[-1].usage
    assert text == "word1 word2 word3 word4 word5 "
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (120, 60, 180)


# Anthropic


def claude_usage(**more: Any) -> claude.Usage:
    return claude.Usage.model_validate(
        {
            "input_tokens": 40,
            "cache_creation_input_tokens": 16,
            "cache_read_input_tokens": 64,
            "cache_creation": {"ephemeral_5m_input_tokens": 16, "ephemeral_1h_input_tokens": 0},
            "output_tokens": 1,
            "service_tier": "standard",
            **more,
        }
    )


def claude_message(**more: Any) -> claude.Message:
    return claude.Message.model_validate(
        {
            "id": "msg_01",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-5-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": claude_usage(),
            **more,
        }
    )


THINKING_USAGE = {
    "input_tokens": 40,
    "cache_creation_input_tokens": 16,
    "cache_read_input_tokens": 64,
    "output_tokens": 60,
    "output_tokens_details": {"thinking_tokens": 41},
}


def claude_events() -> Iterator[BaseModel]:
    event = TypeAdapter(claude.RawMessageStreamEvent).validate_python
    yield claude.RawMessageStartEvent(type="message_start", message=claude_message())
    yield event(
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        }
    )
    yield event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}}
    )
    yield event(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "x"}}
    )
    yield event({"type": "content_block_stop", "index": 0})
    yield event({"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}})
    yield event(
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Selamat"}}
    )
    yield event(
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " pagi 👋🏽!"}}
    )
    yield event({"type": "content_block_stop", "index": 1})
    yield event(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": THINKING_USAGE,
        }
    )
    yield event({"type": "message_stop"})  # fmt: skip


def test_a_stream_of_anthropics_events_is_read() -> None:
    heard = read_at_every_cut(MessageAnswer, sse(claude_events(), named=True))
    assert (heard.thoughts, heard.text, heard.finish.reason) == ("Hm.", TEXT, "stop")
    found = heard.counts
    assert found is not None
    assert (found.fresh_input, found.cache_read, found.visible_output, found.reasoning) == (40, 64, 19, 41)
    assert (found.cache_write or 0) + (found.cache_write_1h or 0) == 16
    assert (found.provider_input, found.provider_output, found.flagged) == (120, 60, False)


@pytest.mark.parametrize(("said", "reason"), [("end_turn", "stop"), ("max_tokens", "length")])
def test_a_whole_message_of_anthropic_is_read(said: str, reason: str) -> None:
    whole = claude_message(
        content=[{"type": "text", "text": TEXT, "citations": None}],
        stop_reason=said,
        usage=claude_usage(output_tokens=60, output_tokens_details={"thinking_tokens": 41}),
    )
    heard = read_at_every_cut(MessageAnswer, whole.model_dump_json().encode())
    assert (heard.text, heard.finish.reason) == (TEXT, reason)
    assert heard.counts is not None
    assert (heard.counts.provider_input, heard.counts.provider_output) == (120, 60)


@pytest.mark.parametrize("version", ["2026-10-21", "2023-06-01"])
def test_what_we_send_to_anthropic_fits_its_types(version: str) -> None:
    with AnthropicSimulator() as simulator:
        env = {
            "ANTHROPIC_API_KEY": "sk-ant-x",
            "ANTHROPIC_BASE_URL": simulator.base_url,
            "ANTHROPIC_VERSION": version,
        }
        assert ask(providers.configure(env)["anthropic"], ASKED).problem is None
        body = simulator.requests[-1].body
    known = {**claude.message_create_params.MessageCreateParamsBase.__annotations__, "stream": bool}
    sampling = {"temperature", "top_p"} if version == "2023-06-01" else set()  # the SDK knows them no more
    assert body.keys() - known.keys() == sampling
    TypeAdapter(MessageCreateParamsStreaming).validate_python(body)
    turns = TypeAdapter(list[claude.MessageParam])
    turns.validate_python(body["messages"])
    sources = [
        block["source"]
        for turn in body["messages"]
        if isinstance(turn["content"], list)
        for block in turn["content"]
        if block["type"] == "image"
    ]
    assert len(sources) == 3
    TypeAdapter(list[claude.Base64ImageSourceParam]).validate_python(sources)


def test_anthropics_client_understands_our_simulator() -> None:
    with AnthropicSimulator() as simulator:
        client = anthropic.Anthropic(
            base_url=simulator.base_url,
            api_key="sk-ant-x",
            max_retries=0,
            default_headers={"x-api-key": "sk-ant-x", "anthropic-version": "2026-10-21"},
        )
        how: dict[str, Any] = {"max_tokens": 100, "messages": [{"role": "user", "content": "Halo"}]}
        with client.messages.stream(model="sim-words-5-cached", **how) as stream:
            message = stream.get_final_message()
        with pytest.raises(anthropic.RateLimitError):
            client.messages.create(model="sim-error-429", **how)
    assert [block.text for block in message.content if block.type == "text"] == [
        "word1 word2 word3 word4 word5 "
    ]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (40, 60)


# Gemini


def google_chunk(text: str, reason: str | None, **tokens: int) -> google.GenerateContentResponse:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}
    if reason:
        candidate["finishReason"] = reason
    return google.GenerateContentResponse.model_validate(
        {
            "candidates": [candidate],
            "usageMetadata": {**tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 12}]},
            "modelVersion": "gemini-3.8-flash",
            "responseId": "AlephSampleResp1",
        }
    )


def as_google_sends(response: google.GenerateContentResponse) -> str:
    left_out = {"sdk_http_response", "parsed", "automatic_function_calling_history"}
    return response.model_dump_json(by_alias=True, exclude_none=True, exclude=left_out)


GOOGLE_TOKENS = {
    "promptTokenCount": 120,
    "cachedContentTokenCount": 64,
    "candidatesTokenCount": 19,
    "thoughtsTokenCount": 41,
    "totalTokenCount": 180,
}
GOOGLE_COUNTED = Counts(56, 64, None, 19, 41, 120, 60, 180)


def test_a_stream_of_geminis_chunks_is_read() -> None:
    first = google_chunk("Selamat", None, promptTokenCount=120, thoughtsTokenCount=41, totalTokenCount=161)
    last = google_chunk(" pagi 👋🏽!", "STOP", **GOOGLE_TOKENS)
    data = "".join(f"data: {as_google_sends(chunk)}\r\n\r\n" for chunk in (first, last))
    heard = read_at_every_cut(gemini.Answer, data.encode())
    assert (heard.text, heard.finish.reason, heard.counts) == (TEXT, "stop", GOOGLE_COUNTED)
    assert heard.finish.model == "gemini-3.8-flash"


@pytest.mark.parametrize("reason", [reason.value for reason in google.FinishReason])
def test_each_finish_reason_of_gemini_is_one_of_ours(reason: str) -> None:
    if reason in gemini.UNSAID:
        pytest.skip("it says nothing")
    heard = read_at_every_cut(
        gemini.Answer, as_google_sends(google_chunk(TEXT, reason, **GOOGLE_TOKENS)).encode()
    )
    assert heard.finish.raw_reason == reason
    assert heard.counts == GOOGLE_COUNTED


def test_what_we_send_to_gemini_fits_its_types() -> None:
    with GeminiSimulator() as simulator:
        env = {"GEMINI_API_KEY": GEMINI_KEY, "GEMINI_BASE_URL": simulator.base_url}
        simulator.scripts["gemini-3.8-flash"] = "sim-words-5"
        adapter = providers.configure(env)["gemini"]
        assert ask(adapter, ASKED).problem is None
        body = simulator.requests[-1].body
    for content in (*body["contents"], body["systemInstruction"]):
        google.Content.model_validate(content)  # unknown fields are refused
    google.GenerationConfig.model_validate(body["generationConfig"])
    assert body.keys() <= {"contents", "systemInstruction", "generationConfig"}


def test_geminis_client_understands_our_simulator() -> None:
    with GeminiSimulator() as simulator:
        options = google.HttpOptions(base_url=f"http://127.0.0.1:{simulator.port}", api_version="v1")
        client = genai.Client(api_key=GEMINI_KEY, http_options=options)
        config = google.GenerateContentConfig(max_output_tokens=100)
        chunks = list(
            client.models.generate_content_stream(model="sim-words-5-cached", contents="Halo", config=config)
        )
        whole = client.models.generate_content(model="sim-words-5-cached", contents="Halo", config=config)
    said = "".join(chunk.text or "" for chunk in chunks)
    assert said == whole.text == "word1 word2 word3 word4 word5 "
    usage = chunks[-1].usage_metadata
    assert usage is not None
    assert (usage.prompt_token_count, usage.total_token_count) == (120, 180)
