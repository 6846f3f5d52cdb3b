"""Images on their way to providers: each adapter sends them in the form of its API, beside the words they came with."""

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from chat.providers.anthropic import Anthropic
from chat.providers.base import Image, Prompt, Provider
from chat.providers.gemini import Gemini
from chat.providers.n8n import N8n
from chat.providers.ollama import Ollama
from chat.providers.openai_compatible import OpenAICompatible
from tests import images
from tests.listening import ask
from tests.simulator import Simulator
from tests.simulator_anthropic import AnthropicSimulator
from tests.simulator_gemini import KEY, GeminiSimulator

PHOTO = Image("image/jpeg", images.photograph(size=(40, 30)))
DRAWING = Image("image/png", images.picture(size=(20, 10)))
DATA = {image.media_type: b64encode(image.data).decode() for image in (PHOTO, DRAWING)}
JPEG, PNG = "image/jpeg", "image/png"


def prompt(*said: tuple[str, str], shown: dict[int, tuple[Image, ...]]) -> Prompt:
    return Prompt("sim-words-3", said, 100, images=shown)


TWO = prompt(("system", "Be kind."), ("user", "Which?"), shown={1: (PHOTO, DRAWING)})


@pytest.fixture(scope="module")
def openai() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


def sent(simulator: Any, provider: Provider, asked: Prompt = TWO) -> dict[str, Any]:
    ask(provider, asked)
    body: dict[str, Any] = simulator.requests[-1].body
    return body


def test_openai_gets_data_addresses_before_the_words(openai: Simulator) -> None:
    adapter = OpenAICompatible(name="openai", base_url=openai.base_url, api_key="sk-x")
    assert ask(adapter, TWO).text
    assert openai.requests[-1].body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{DATA[JPEG]}"}},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DATA[PNG]}"}},
                {"type": "text", "text": "Which?"},
            ],
        },
    ]


def test_claude_gets_sources_in_blocks() -> None:
    with AnthropicSimulator() as running:
        adapter = Anthropic(name="anthropic", base_url=running.base_url, api_key="sk-ant-x")
        said = (("user", "Look"), ("user", "Which?"), ("assistant", "This"), ("user", "Why?"), ("user", "!"))
        body = sent(running, adapter, prompt(*said, shown={1: (PHOTO,), 3: (DRAWING,)}))
    picture = {"type": "image", "source": {"type": "base64", "media_type": JPEG, "data": DATA[JPEG]}}
    drawing = {"type": "image", "source": {"type": "base64", "media_type": PNG, "data": DATA[PNG]}}
    assert body["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look"}, picture, {"type": "text", "text": "Which?"}],
        },
        {"role": "assistant", "content": "This"},
        {
            "role": "user",
            "content": [drawing, {"type": "text", "text": "Why?"}, {"type": "text", "text": "!"}],
        },
    ]


def test_gemini_gets_inline_data() -> None:
    with GeminiSimulator() as running:
        body = sent(running, Gemini(name="gemini", base_url=running.base_url, api_key=KEY))
    assert body["contents"] == [
        {
            "role": "user",
            "parts": [
                {"inlineData": {"mimeType": JPEG, "data": DATA[JPEG]}},
                {"inlineData": {"mimeType": PNG, "data": DATA[PNG]}},
                {"text": "Which?"},
            ],
        }
    ]


def test_ollama_gets_them_beside_the_words(openai: Simulator) -> None:
    body = sent(openai, Ollama(name="ollama", base_url=openai.base_url))
    assert body["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Which?", "images": [DATA[JPEG], DATA[PNG]]},
    ]


def test_a_workflow_gets_them_as_openai_would(openai: Simulator) -> None:
    body = sent(openai, N8n(name="n8n", base_url=openai.base_url))
    assert body["messages"][0] == {"role": "system", "content": "Be kind."}
    assert [part["type"] for part in body["messages"][1]["content"]] == ["image_url", "image_url", "text"]


class TestWithoutWords:
    ALONE = prompt(("system", "Be kind."), ("user", ""), shown={1: (PHOTO,)})

    def test_openai_gets_no_empty_part(self, openai: Simulator) -> None:
        adapter = OpenAICompatible(name="openai", base_url=openai.base_url, api_key="sk-x")
        (part,) = sent(openai, adapter, self.ALONE)["messages"][-1]["content"]
        assert part["type"] == "image_url"

    def test_claude_gets_no_empty_block(self) -> None:
        with AnthropicSimulator() as claude:
            adapter = Anthropic(name="anthropic", base_url=claude.base_url, api_key="sk-ant-x")
            (block,) = sent(claude, adapter, self.ALONE)["messages"][-1]["content"]
        assert block["type"] == "image"

    def test_gemini_gets_no_empty_part(self) -> None:
        with GeminiSimulator() as google:
            adapter = Gemini(name="gemini", base_url=google.base_url, api_key=KEY)
            (part,) = sent(google, adapter, self.ALONE)["contents"][-1]["parts"]
        assert set(part) == {"inlineData"}
