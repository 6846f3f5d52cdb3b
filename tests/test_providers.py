"""Adapters against a simulated provider over real HTTP: what arrives, what is counted, what goes wrong, and
which providers there are."""

import logging
import socket
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest

from chat import providers
from chat.providers import exchange, wire
from chat.providers.base import Clocks, Counts, Finish, Text
from chat.providers.openai_compatible import Dialect, OpenAICompatible
from tests.clock import in_time
from tests.listening import QUESTION, Heard, ask, prompt
from tests.simulator import RETRY_AFTER_S, Simulator

KEY = "sk-alice-9f8e7d6c5b4a39281706"


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture
def openai(simulator: Simulator) -> OpenAICompatible:
    return OpenAICompatible(name="openai", base_url=simulator.base_url, api_key=KEY)


# What arrives


def test_an_answer_arrives_word_for_word_and_ends_with_what_the_provider_said(
    openai: OpenAICompatible,
) -> None:
    heard = ask(openai, prompt("sim-echo"))
    assert heard.text == QUESTION
    assert heard.finish.reason == heard.finish.raw_reason == "stop"
    assert heard.finish.model == "sim-echo-2026-09-01"
    assert heard.finish.request_id.startswith("req_")
    words = len(QUESTION.split())
    assert heard.counts == Counts(words + 2, None, None, words, None, words + 2, words, 2 * words + 2)


@pytest.mark.parametrize(
    "form",
    [
        "close",
        "crlf",
        "bytes-1",
        "bytes-7-crlf",
        "bytes-3-close",
        "onewrite",
        "onewrite-close-crlf",
        "noise",
        "nodone",
        "nodone-close",
        "json",
        "json-nousage",
        "keepalive",
        "usage-on-finish",
        "linger",
        "gzip",
        "gzip-close-bytes-5",
        "slow",
    ],
)
def test_the_text_is_the_same_in_whatever_form_it_is_sent(openai: OpenAICompatible, form: str) -> None:
    model = "sim-slow-5x5ms" if form == "slow" else f"sim-echo-{form}"
    heard = ask(openai, prompt(model))
    assert heard.text == ("word1 word2 word3 word4 word5 " if form == "slow" else QUESTION)
    assert heard.finish.reason == "stop"
    assert (heard.counts is None) == ("nousage" in form)
    in_time(heard.took_s, 1)


def test_words_that_arrive_together_come_as_few_events(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-words-300-onewrite"))
    assert len(heard.text.split()) == 300
    assert len(heard.events) < 30


def test_slow_words_come_one_by_one(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-slow-5x30ms"))
    assert sum(isinstance(event, Text) for event in heard.events) == 5


def test_reasoning_is_kept_apart_from_the_answer(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-thinking"))
    assert (heard.thoughts, heard.text) == ("Let me see.", QUESTION)


def test_an_answer_cut_by_the_output_limit_says_so(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-words-50", max_output_tokens=20))
    assert heard.finish.reason == "length"
    assert len(heard.text.split()) == 20
    assert heard.counts is not None
    assert heard.counts.provider_output == 20


def test_an_empty_answer_is_an_answer_without_text(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-empty"))
    assert heard.text == ""
    assert heard.finish.reason == "stop"


def test_an_answer_is_whole_once_its_finish_reason_came(openai: OpenAICompatible) -> None:
    heard = ask(openai, prompt("sim-words-3-cut-finish-slow-3x20ms"))
    assert heard.problem is None
    assert heard.finish.reason == "stop"


def test_a_count_that_does_not_come_is_waited_for_only_a_little(
    openai: OpenAICompatible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "AFTER_FINISH_S", 0.2)
    heard = ask(openai, prompt("sim-stall-finish"))
    assert heard.finish.reason == "stop"
    assert heard.counts is None
    in_time(heard.took_s, 1)


def test_a_connection_serves_one_call_after_the_other(simulator: Simulator, openai: OpenAICompatible) -> None:
    before = simulator.connections
    for form in ("echo", "onewrite", "error-429", "json"):
        ask(openai, prompt(f"sim-{form}"))
    assert simulator.connections == before + 1


def test_two_hundred_answers_arrive_at_once(simulator: Simulator, openai: OpenAICompatible) -> None:
    heard: list[Heard] = []
    patient = Clocks(connect_s=20, first_byte_s=20, idle_s=20, total_s=20)
    threads = [
        threading.Thread(target=lambda: heard.append(ask(openai, prompt("sim-slow-10x50ms"), clocks=patient)))
        for _ in range(200)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [answer.problem for answer in heard] == [None] * 200
    assert {len(answer.text.split()) for answer in heard} == {10}
    assert simulator.peak > 100


# What is counted


def test_cached_and_reasoning_tokens_are_counted_apart(openai: OpenAICompatible) -> None:
    assert ask(openai, prompt("sim-cached")).counts == Counts(40, 64, 16, 19, 41, 120, 60, 180)


def test_a_count_of_zero_is_zero_and_a_missing_count_is_missing(openai: OpenAICompatible) -> None:
    zero = ask(openai, prompt("sim-zero-usage")).counts
    assert zero is not None
    assert (zero.provider_input, zero.provider_output, zero.cache_read) == (0, 0, None)
    assert ask(openai, prompt("sim-nousage")).counts is None


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "status"),
    [
        ("error-429", "rate_limit", True, 429),
        ("error-500", "server", True, 500),
        ("error-503", "overloaded", True, 503),
        ("error-401", "auth", False, 401),
        ("error-402", "credit", False, 402),
        ("error-404", "not_found", False, 404),
        ("error-410", "not_found", False, 410),
        ("error-400", "bad_request", False, 400),
        ("error-307", "bad_response", False, 307),
        ("quota", "credit", False, 429),
        ("context", "context_too_long", False, 400),
        ("html", "bad_response", False, None),
        ("html-502", "overloaded", True, 502),
        ("cut-5", "broken_stream", True, None),
        ("cut-clean-5", "broken_stream", True, None),
        ("cut-clean-5-close", "broken_stream", True, None),
        ("cut-clean-5-nodone", "broken_stream", True, None),
        ("midstream-error", "overloaded", True, None),
        ("garbage", "bad_response", False, None),
        ("unheard-of", "not_found", False, 404),
    ],
)
def test_each_fault_has_its_name(
    openai: OpenAICompatible, fault: str, kind: str, retryable: bool, status: int | None
) -> None:
    heard = ask(openai, prompt(f"sim-{fault}"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable, heard.problem.status) == (kind, retryable, status)
    assert heard.problem.request_id.startswith("req_")
    assert not any(isinstance(event, Finish) for event in heard.events)


@pytest.mark.parametrize("fault", ["cut-clean-5", "midstream-error", "garbage"])
def test_text_from_before_the_break_arrives(openai: OpenAICompatible, fault: str) -> None:
    assert ask(openai, prompt(f"sim-{fault}")).text == "word1 word2 word3 word4 word5 "


def test_a_rate_limit_says_when_to_come_back(openai: OpenAICompatible) -> None:
    problem = ask(openai, prompt("sim-error-429")).problem
    assert problem is not None
    assert problem.retry_after_s == RETRY_AFTER_S


def test_a_redirect_is_not_followed(simulator: Simulator, openai: OpenAICompatible) -> None:
    before = len(simulator.requests)
    ask(openai, prompt("sim-error-307"))
    assert len(simulator.requests) == before + 1


def test_a_provider_that_is_not_there_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        gone = OpenAICompatible(name="openai", base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        heard = ask(gone, prompt("sim-echo"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable) == ("unreachable", True)


# Secrets


def test_neither_key_nor_prompt_reaches_an_error_or_a_log(
    openai: OpenAICompatible, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in ("leak", "error-500", "cut-5", "garbage", "html-502", "words-9"):
        heard = ask(openai, prompt(f"sim-{fault}", "nomor rahasia 4471-9921-CANARY"))
        for sink in (str(heard.problem), repr(heard.problem), repr(openai), caplog.text):
            assert KEY not in sink
            assert "CANARY" not in sink


# Staying at home


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1", "http://192.0.2.1/v1", "http://127.0.0.1.example.com/v1"]
)
def test_with_the_network_forbidden_no_other_machine_is_reached(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEPH_FORBID_NETWORK", "1")
    with pytest.raises(wire.NetworkForbidden):
        ask(OpenAICompatible(name="openai", base_url=url, api_key=KEY), prompt("sim-echo"))


def test_a_proxy_in_the_environment_is_not_used(
    simulator: Simulator, openai: OpenAICompatible, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    monkeypatch.setenv("no_proxy", "")
    assert ask(openai, prompt("sim-echo")).finish.reason == "stop"


# Which providers there are


def test_without_keys_only_the_demo_is_connected() -> None:
    # Nobody has to name an Ollama on the same machine: it is looked for (chat.local_models).
    assert list(providers.configure({})) == ["ollama", "demo"]
    assert list(providers.configure({"OPENAI_API_KEY": " ", "OLLAMA_BASE_URL": "off"})) == ["demo"]


def test_each_provider_names_what_would_connect_it() -> None:
    assert {name: providers.missing(name) for name in providers.LABELS} == {
        "openai": ("OPENAI_API_KEY",),
        "anthropic": ("ANTHROPIC_API_KEY",),
        "gemini": ("GEMINI_API_KEY",),
        "deepseek": ("DEEPSEEK_API_KEY",),
        "huggingface": ("HUGGINGFACE_API_KEY",),
        "openrouter": ("OPENROUTER_API_KEY",),
        "together": ("TOGETHER_API_KEY",),
        "cerebras": ("CEREBRAS_API_KEY",),
        "n8n": ("N8N_WEBHOOK_URL",),
        "tgi": ("HF_TGI_BASE_URL",),
        "compatible": ("COMPATIBLE_BASE_URL",),
        "ollama": ("OLLAMA_BASE_URL",),
        "demo": (),
    }


def test_each_provider_is_asked_in_its_own_dialect(simulator: Simulator) -> None:
    names = ("openai", "deepseek", "huggingface", "openrouter", "together", "cerebras", "compatible")
    env = {f"{name.upper()}_BASE_URL": simulator.base_url for name in names}
    env |= {
        f"{name.upper()}_API_KEY": f"k-{name}" for name in names if name not in ("huggingface", "compatible")
    }
    connected = providers.configure(env | {"HF_TOKEN": "k-huggingface"})
    asked = prompt(
        "sim-echo", "hi", temperature=Decimal("0.7"), top_p=Decimal("0.9"), user_ref="u1", max_output_tokens=9
    )
    sent = {}
    for name in names:
        assert ask(connected[name], asked).counts is not None
        request = simulator.requests[-1]
        assert request.path == "/v1/chat/completions"
        sent[name] = {**request.body, "key": request.headers.get("authorization")}
    common = {
        "model": "sim-echo",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "hi"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.7,
        "top_p": 0.9,
    }
    assert sent["openai"] == common | {
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "max_completion_tokens": 9,
        "safety_identifier": "u1",
        "key": "Bearer k-openai",
    }
    assert sent["deepseek"] == common | {
        "max_tokens": 9,
        "thinking": {"type": "disabled"},
        "user_id": "u1",
        "key": "Bearer k-deepseek",
    }
    assert sent["huggingface"] == common | {"max_tokens": 9, "key": "Bearer k-huggingface"}
    assert sent["openrouter"] == common | {"max_tokens": 9, "user": "u1", "key": "Bearer k-openrouter"}
    assert sent["together"] == common | {
        "max_tokens": 9,
        "context_length_exceeded_behavior": "error",
        "key": "Bearer k-together",
    }
    assert sent["cerebras"] == common | {
        "max_completion_tokens": 9,
        "user": "u1",
        "key": "Bearer k-cerebras",
    }
    assert sent["compatible"] == common | {"max_tokens": 9, "key": None}


def test_what_a_model_does_not_take_is_not_sent(simulator: Simulator) -> None:
    plain = OpenAICompatible(name="x", base_url=simulator.base_url, dialect=Dialect(include_usage=False))
    ask(plain, prompt("sim-echo"))
    assert set(simulator.requests[-1].body) == {"model", "messages", "stream", "max_tokens"}


@pytest.mark.parametrize(
    "env",
    [
        {"OPENAI_API_KEY": "a\nb"},
        {"OPENAI_API_KEY": "a b"},
        {"OPENAI_API_KEY": "kunci-é"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "api.openai.com"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "ftp://api.openai.com"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://user:pw@api.openai.com"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "https://api.openai.com:x"},
        {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "http://api.openai.com/v1"},
        {"ALEPH_DEMO_WORDS_PER_SECOND": "fast"},
        {"ALEPH_DEMO_WORDS_PER_SECOND": "0"},
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(env: dict[str, str]) -> None:
    with pytest.raises(providers.ConfigurationError) as refused:
        providers.configure(env)
    assert any(variable in str(refused.value) for variable in env)
    assert "a b" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://litellm:4000", "http://10.0.0.5/v1", "http://gateway.internal/v1"])
def test_a_gateway_in_the_house_may_speak_plain_http(url: str) -> None:
    assert "openai" in providers.configure({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url})
