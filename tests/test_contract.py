"""The contract of `chat.providers.base`, told once for every adapter over real HTTP: what arrives, what is counted, how
long somebody waits, what a Stop does, and that text from before a failure is kept.

Each provider is connected as an installation connects it, by its variables, and asked in the words of `tests.simulator`.
"""

import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from chat import providers
from chat.providers.base import Clocks, Provider
from tests import simulator_gemini, simulator_n8n
from tests.clock import in_time
from tests.listening import QUESTION, QUICK, Heard, ask, ask_and_cancel, prompt
from tests.simulator import Simulator
from tests.simulator_anthropic import AnthropicSimulator
from tests.simulator_gemini import GeminiSimulator
from tests.simulator_n8n import N8nSimulator
from tests.simulator_ollama import OllamaSimulator
from tests.simulator_tgi import TGISimulator

KEY = "sk-alice-9f8e7d6c5b4a39281706"
FIVE = "word1 word2 word3 word4 word5 "
COMPATIBLE = ("openai", "deepseek", "huggingface", "openrouter", "together", "cerebras", "compatible")
ALL = (*COMPATIBLE, "anthropic", "gemini", "ollama", "tgi", "n8n")
HAS_NO_THOUGHTS = ("tgi", "n8n")
ANTHROPIC_WORDS = {
    "slow-500x20ms": "words-500-pace-20",
    "stall-5": "words-20-stall-5",
    "cut-5": "words-20-cut-5",
    "cut-clean-5": "words-20-broken-5",
    "midstream-error": "words-20-overloaded-5",
    "garbage": "words-20-garbage-5",
}


@dataclass
class Stand:
    """One provider as this process reaches it. `env`: what connects it, for a server that answers as a script says; `words`:
    how its simulator calls what the others call otherwise."""

    name: str
    simulator: Any
    env: Callable[[str], dict[str, str]]
    words: dict[str, str] = field(default_factory=dict)

    def model(self, script: str) -> str:
        return f"sim-{self.words.get(script, script)}"

    def provider(self, script: str = "echo") -> Provider:
        return providers.configure(self.env(self.model(script)))[self.name]

    def hears(
        self, script: str, question: str = QUESTION, *, clocks: Clocks | None = None, **more: Any
    ) -> Heard:
        asked = prompt(self.model(script), question, **more)
        return ask(self.provider(script), asked, clocks=clocks or QUICK)


@pytest.fixture(scope="module")
def stands() -> Iterator[dict[str, Stand]]:
    with ExitStack() as running:
        openai = running.enter_context(Simulator())
        claude = running.enter_context(AnthropicSimulator())
        gemini = running.enter_context(GeminiSimulator())
        ollama = running.enter_context(OllamaSimulator())
        tgi = running.enter_context(TGISimulator())
        n8n = running.enter_context(N8nSimulator())

        def compatible(name: str) -> Stand:
            given = {f"{name.upper()}_API_KEY": KEY, f"{name.upper()}_BASE_URL": openai.base_url}
            return Stand(name, openai, lambda _: given)

        others = (
            Stand(
                "anthropic",
                claude,
                lambda _: {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": claude.base_url},
                ANTHROPIC_WORDS,
            ),
            Stand(
                "gemini",
                gemini,
                lambda _: {"GEMINI_API_KEY": simulator_gemini.KEY, "GEMINI_BASE_URL": gemini.base_url},
                {"json": "array"},
            ),
            Stand(
                "ollama",
                ollama,
                lambda _: {"OLLAMA_BASE_URL": ollama.base_url, "OLLAMA_API_KEY": KEY},
            ),
            Stand("tgi", tgi, lambda script: {"HF_TGI_BASE_URL": tgi.address(script), "HF_TGI_API_KEY": KEY}),
            Stand(
                "n8n",
                n8n,
                lambda _: {"N8N_WEBHOOK_URL": n8n.webhook, "N8N_WEBHOOK_TOKEN": simulator_n8n.TOKEN},
            ),
        )
        yield {stand.name: stand for stand in (*map(compatible, COMPATIBLE), *others)}


@pytest.fixture(params=ALL)
def stand(request: pytest.FixtureRequest, stands: dict[str, Stand]) -> Stand:
    return stands[request.param]


def test_every_provider_keeps_the_contract() -> None:
    assert {*ALL, "demo"} == set(providers.LABELS)


# What arrives


@pytest.mark.parametrize("script", ["echo", "echo-bytes-1", "echo-json", "echo-delay-50"])
def test_the_answer_arrives_word_for_word_however_it_is_cut(stand: Stand, script: str) -> None:
    script = script.replace("json", stand.words.get("json", "json"))
    heard = stand.hears(script)
    assert (heard.text, heard.kind) == (QUESTION, None)
    assert heard.finish.reason == "stop"


def test_a_slow_answer_comes_piece_by_piece(stand: Stand) -> None:
    script = "words-5-pace-30"
    heard = stand.hears(script)
    assert heard.text == FIVE
    assert len([event for event in heard.events if getattr(event, "text", "")]) >= 4


def test_an_empty_answer_is_an_answer_without_text(stand: Stand) -> None:
    heard = stand.hears("empty")
    assert (heard.text, heard.kind, heard.finish.reason) == ("", None, "stop")


def test_thinking_is_never_part_of_the_answer(stand: Stand) -> None:
    if stand.name in HAS_NO_THOUGHTS:
        pytest.skip("its protocol has no place for thoughts")
    heard = stand.hears("echo-thinking")
    assert (heard.thoughts, heard.text) == ("Let me see.", QUESTION)


def test_an_answer_cut_by_the_limit_says_so(stand: Stand) -> None:
    # n8n's stream tells no reason; its answer in one piece does.
    heard = stand.hears("words-50-json" if stand.name == "n8n" else "words-50", max_output_tokens=20)
    assert heard.finish.reason == "length"
    assert len(heard.text.split()) == 20


# What is counted


@pytest.mark.parametrize("script", ["words-4", "words-4-cached"])
def test_the_classes_sum_to_what_the_provider_says(stand: Stand, script: str) -> None:
    heard = stand.hears(f"{script}-json" if stand.name == "n8n" else script, "Halo")
    found = heard.counts
    assert found is not None
    assert not found.flagged
    assert found.provider_input == sum(filter(None, (found.fresh_input, found.cache_read, found.cache_write)))
    assert found.provider_output == sum(filter(None, (found.visible_output, found.reasoning)))
    assert found.provider_total in (None, found.provider_input + (found.provider_output or 0))
    if "cached" in script and stand.name != "tgi":
        assert (found.provider_input, found.cache_read, found.provider_output) == (120, 64, 60)


def test_what_nobody_counted_is_unknown(stand: Stand) -> None:
    found = stand.hears("words-4-nousage-json" if stand.name == "n8n" else "words-4-nousage", "Halo").counts
    if stand.name == "n8n":
        assert found is not None
        assert (found.provider_input, found.provider_output) == (None, None)
        assert found.provider_total == 7
    elif stand.name == "tgi":
        assert found is not None
        assert (found.provider_input, found.provider_output) == (None, 5)
    else:
        assert found is None


# What goes wrong


@pytest.mark.parametrize(
    ("script", "kinds", "text"),
    [
        ("cut-5", {"broken_stream"}, None),
        ("cut-clean-5", {"broken_stream"}, FIVE),
        ("midstream-error", {"overloaded", "server"}, FIVE),
        ("garbage", {"bad_response"}, FIVE),
        ("error-500", {"server"}, ""),
        ("error-429", {"rate_limit", "overloaded"}, ""),
        ("context", {"context_too_long"}, ""),
    ],
)
def test_a_failure_has_its_name_and_text_from_before_it_is_kept(
    stand: Stand, script: str, kinds: set[str], text: str | None
) -> None:
    heard = stand.hears(script)
    assert heard.kind in kinds
    assert heard.text == text or (text is None and FIVE.startswith(heard.text))


def test_a_server_that_is_not_there_is_unreachable(stand: Stand) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
        env = {
            name: gone if name.endswith("_URL") else value for name, value in stand.env("sim-echo").items()
        }
        heard = ask(providers.configure(env)[stand.name], prompt("sim-echo"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable) == ("unreachable", True)


def test_neither_key_nor_prompt_reaches_an_error_or_a_log(
    stand: Stand, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [value for name, value in stand.env("sim-leak").items() if name.endswith(("_KEY", "_TOKEN"))]
    for script in ("leak", "error-500", "cut-5", "garbage", "echo"):
        heard = stand.hears(script, "nomor rahasia 4471-9921-CANARY")
        for sink in (str(heard.problem), repr(heard.problem), repr(stand.provider()), caplog.text):
            assert "CANARY" not in sink
            assert not any(secret in sink for secret in secrets)


# The clocks, and hanging up


@pytest.mark.parametrize(
    ("script", "clocks"),
    [
        ("timeout", Clocks(first_byte_s=0.3, idle_s=9, total_s=9)),
        ("delay-9000", Clocks(first_byte_s=0.3, idle_s=9, total_s=9)),
        ("stall-5", Clocks(first_byte_s=9, idle_s=0.3, total_s=9)),
        ("slow-500x20ms", Clocks(first_byte_s=9, idle_s=9, total_s=0.5)),
    ],
)
def test_an_answer_is_waited_for_only_so_long(stand: Stand, script: str, clocks: Clocks) -> None:
    aborted = stand.simulator.aborted
    heard = stand.hears(script, clocks=clocks)
    assert heard.kind == "timeout"
    assert stand.simulator.wait_for_aborted(aborted + 1)
    if script == "stall-5":
        assert heard.text == FIVE


@pytest.mark.parametrize("script", ["timeout", "stall-5", "slow-500x20ms"])
def test_stop_closes_the_connection_at_once(stand: Stand, script: str) -> None:
    aborted = stand.simulator.aborted
    heard, took_s = ask_and_cancel(stand.provider(script), prompt(stand.model(script)), after_s=0.15)
    assert heard.cancelled
    in_time(took_s, 1)
    assert stand.simulator.wait_for_aborted(aborted + 1)
