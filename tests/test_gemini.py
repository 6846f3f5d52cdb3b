"""Gemini's adapter against a simulated Gemini over real HTTP: what is sent and heard, what is counted and charged, what
goes wrong."""

import json
import logging
import re
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aleph import ids
from billing.models import Transfer
from chat import catalogue, providers, turns
from chat.models import ChatModel
from chat.providers import counts, gemini
from chat.providers.base import Clocks, Counts, Finish, ProviderError
from chat.providers.gemini import Gemini
from tests import people
from tests.clock import in_time
from tests.listening import QUESTION, Heard, ask, ask_and_cancel, prompt
from tests.simulator_gemini import KEY, RETRY_DELAY_S, GeminiSimulator, failure
from tests.stories_of_chat import answered, assert_books_are_right, available, calls_of, held
from usage import pricing

WORDS = "word1 word2 word3 word4 word5 "


@pytest.fixture(scope="module")
def google() -> Iterator[GeminiSimulator]:
    with GeminiSimulator() as running:
        yield running


@pytest.fixture
def adapter(google: GeminiSimulator) -> Gemini:
    return Gemini(name="gemini", base_url=google.base_url, api_key=KEY)


# What is sent


def test_a_conversation_is_sent_in_geminis_own_form(google: GeminiSimulator, adapter: Gemini) -> None:
    asked = prompt(
        "sim-echo",
        messages=(
            ("system", "Be kind."),
            ("user", "Hi"),
            ("assistant", "Hello!"),
            ("user", "Who"),
            ("user", "are you?"),
        ),
        temperature=Decimal("0.7"),
        top_p=Decimal("0.9"),
        user_ref="u1",
    )
    ask(adapter, asked)
    request = google.requests[-1]
    assert request.path == "/v1/models/sim-echo:streamGenerateContent?alt=sse"
    assert request.headers["x-goog-api-key"] == KEY
    assert request.body == {
        "systemInstruction": {"role": "user", "parts": [{"text": "Be kind."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Hello!"}]},
            {"role": "user", "parts": [{"text": "Who"}, {"text": "are you?"}]},
        ],
        "generationConfig": {"maxOutputTokens": 1000, "temperature": 0.7, "topP": 0.9},
    }


def test_what_a_model_does_not_take_is_not_sent(google: GeminiSimulator, adapter: Gemini) -> None:
    ask(adapter, prompt("sim-echo", messages=(("user", "Hi"),)))
    assert set(google.requests[-1].body) == {"contents", "generationConfig"}
    assert google.requests[-1].body["generationConfig"] == {"maxOutputTokens": 1000}


@pytest.mark.parametrize(
    ("model", "level"),
    [
        ("gemini-3.8-flash", "low"),
        ("gemini-3.5-flash-lite", "low"),
        ("models/gemini-4-argon", "low"),
        ("gemini-2.5-flash-lite", None),
    ],
)
def test_only_models_that_know_levels_of_thinking_are_given_one(
    google: GeminiSimulator, adapter: Gemini, model: str, level: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = model.removeprefix("models/")
    monkeypatch.setitem(google.scripts, name, "sim-echo")
    heard = ask(adapter, prompt(model))
    assert heard.finish.model == name
    thinking = google.requests[-1].body["generationConfig"].get("thinkingConfig")
    assert thinking == (level and {"thinkingLevel": level})


def test_a_models_name_cannot_lead_elsewhere(google: GeminiSimulator, adapter: Gemini) -> None:
    assert ask(adapter, prompt("../v9/x?key=1#a b")).kind == "not_found"
    assert google.requests[-1].path.startswith("/v1/models/..%2Fv9%2Fx%3Fkey%3D1%23a%20b:streamGenerate")


# What arrives


def test_an_answer_arrives_word_for_word_and_ends_with_what_gemini_said(adapter: Gemini) -> None:
    heard = ask(adapter, prompt("sim-echo"))
    assert heard.text == QUESTION
    assert (heard.finish.reason, heard.finish.raw_reason) == ("stop", "STOP")
    assert heard.finish.model == "sim-echo"
    assert heard.finish.request_id.startswith("AlephSimulated")
    words = len(QUESTION.split())
    assert heard.counts == Counts(words + 2, 0, None, words, 0, words + 2, words, 2 * words + 2)


@pytest.mark.parametrize(
    "form",
    [
        "close",
        "crlf",
        "bytes-1",
        "bytes-7-crlf",
        "bytes-3-close",
        "onewrite",
        "noise",
        "gzip",
        "array",
        "linger",
    ],
)
def test_the_text_is_the_same_in_whatever_form_it_is_sent(
    adapter: Gemini, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.providers.exchange.AFTER_FINISH_S", 0.2)
    heard = ask(adapter, prompt(f"sim-{form}-echo" if form == "array" else f"sim-echo-{form}"))
    assert heard.problem is None
    assert (heard.text, heard.finish.reason) == (QUESTION, "stop")
    assert heard.counts is not None


def test_thoughts_are_kept_apart_from_the_answer_and_counted(adapter: Gemini) -> None:
    heard = ask(adapter, prompt("sim-thinking", "Halo apa kabar"))
    assert (heard.thoughts, heard.text) == ("Let me see.", "Halo apa kabar")
    assert heard.counts == Counts(5, 0, None, 3, 2, 5, 5, 10)


def test_an_answer_cut_by_the_output_limit_says_so(adapter: Gemini) -> None:
    heard = ask(adapter, prompt("sim-thinking-words-50", max_output_tokens=20))
    assert (heard.finish.reason, heard.finish.raw_reason) == ("length", "MAX_TOKENS")
    assert len(heard.text.split()) == 18
    assert heard.counts is not None
    assert (heard.counts.visible_output, heard.counts.reasoning, heard.counts.provider_output) == (18, 2, 20)


def test_thoughts_alone_can_use_up_the_limit(adapter: Gemini) -> None:
    heard = ask(adapter, prompt("sim-thinking-words-50", max_output_tokens=2))
    assert (heard.text, heard.finish.reason) == ("", "length")
    assert heard.counts is not None
    assert (heard.counts.visible_output, heard.counts.reasoning) == (0, 2)


@pytest.mark.parametrize(
    ("script", "raw"), [("sim-safety-words-3", "SAFETY"), ("sim-recitation-words-3", "RECITATION")]
)
def test_an_answer_that_is_blocked_on_its_way_keeps_what_was_said(
    adapter: Gemini, script: str, raw: str
) -> None:
    heard = ask(adapter, prompt(script))
    assert heard.text == "word1 word2 word3 "
    assert (heard.finish.reason, heard.finish.raw_reason) == ("content_filter", raw)


@pytest.mark.parametrize(
    ("script", "why"),
    [("sim-blocked", "SAFETY"), ("sim-safety-empty", "SAFETY"), ("sim-recitation-empty", "RECITATION")],
)
def test_a_refusal_without_a_word_is_a_failure_with_its_count(adapter: Gemini, script: str, why: str) -> None:
    heard = ask(adapter, prompt(script, "Halo"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable, heard.text) == ("policy", False, "")
    assert why in heard.problem.detail
    assert heard.counts is not None
    assert (heard.counts.provider_input, heard.counts.provider_output) == (3, 0)


# What is counted


def test_the_classes_of_tokens_are_disjoint_and_exact(adapter: Gemini) -> None:
    assert ask(adapter, prompt("sim-cached")).counts == Counts(56, 64, None, 19, 41, 120, 60, 180)


def test_tokens_of_tools_are_input(adapter: Gemini) -> None:
    assert ask(adapter, prompt("sim-tools-words-4", "Halo")).counts == Counts(10, 0, None, 4, 0, 10, 4, 14)


def test_an_absent_field_is_zero_and_an_absent_count_is_unknown(adapter: Gemini) -> None:
    assert ask(adapter, prompt("sim-bare-usage-words-4", "Halo")).counts == Counts(3, 0, None, 4, 0, 3, 4, 7)
    assert ask(adapter, prompt("sim-nousage")).counts is None


def test_a_stream_that_ends_early_leaves_the_count_so_far(adapter: Gemini) -> None:
    heard = ask(adapter, prompt("sim-cut-clean-5", "Halo"))
    assert heard.kind == "broken_stream"
    assert heard.counts == Counts(3, 0, None, 5, 0, 3, 5, 8)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"promptTokenCount": 12, "totalTokenCount": 52, "thoughtsTokenCount": 40},
            Counts(12, 0, None, 0, 40, 12, 40, 52),
        ),
        ({"promptTokenCount": 12, "totalTokenCount": 20}, Counts(12, 0, None, 8, 0, 12, 8, 20)),
        ({"promptTokenCount": 12}, Counts(12, 0, None, 0, 0, 12, 0, None)),
        ({"candidatesTokenCount": 5}, Counts(None, 0, None, 5, 0, None, 5, None)),
        (
            {"promptTokenCount": 12, "candidatesTokenCount": 5, "cachedContentTokenCount": 20},
            Counts(0, 12, None, 5, 0, 12, 5, None, flagged=True),
        ),
        (
            {"promptTokenCount": 12, "candidatesTokenCount": 5, "totalTokenCount": 99},
            Counts(12, 0, None, 5, 0, 12, 5, 99, flagged=True),
        ),
        (
            {"promptTokenCount": 12, "candidatesTokenCount": -5, "thoughtsTokenCount": "x"},
            Counts(12, 0, None, 0, 0, 12, 0, None, flagged=True),
        ),
        ({}, None),
        ({"totalTokenCount": 5}, None),
        ([], None),
    ],
)
def test_counts_are_read_as_google_means_them(usage: object, expected: Counts | None) -> None:
    assert counts.read_gemini(usage) == expected


numbers = st.none() | st.integers(-2, 300)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            (
                "promptTokenCount",
                "candidatesTokenCount",
                "thoughtsTokenCount",
                "totalTokenCount",
                "cachedContentTokenCount",
                "toolUsePromptTokenCount",
            ),
            numbers,
        ),
    )
)
def test_classes_never_overlap_and_always_add_up(usage: dict[str, Any]) -> None:
    found = counts.read_gemini(usage)
    if found is None:
        return
    assert (found.visible_output or 0) + (found.reasoning or 0) == found.provider_output
    assert min(found.visible_output or 0, found.reasoning or 0, found.cache_read or 0) >= 0
    if found.provider_input is not None:
        assert (found.fresh_input or 0) + (found.cache_read or 0) == found.provider_input
        assert (found.fresh_input or 0) >= 0


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "status"),
    [
        ("badkey", "auth", False, 400),
        ("country", "credit", False, 400),
        ("spent", "credit", False, 402),
        ("permission", "auth", False, 403),
        ("error-400", "bad_request", False, 400),
        ("error-404", "not_found", False, 404),
        ("unheard-of", "not_found", False, 404),
        ("context", "context_too_long", False, 400),
        ("error-429", "rate_limit", True, 429),
        ("perday", "rate_limit", False, 429),
        ("error-500", "server", True, 500),
        ("error-503", "overloaded", True, 503),
        ("error-504", "timeout", True, 504),
        ("html", "bad_response", False, None),
        ("html-502", "overloaded", True, 502),
        ("cut-5", "broken_stream", True, None),
        ("cut-clean-5", "broken_stream", True, None),
        ("cut-clean-5-close", "broken_stream", True, None),
        ("unfinished", "broken_stream", True, None),
        ("midstream-error", "overloaded", True, 503),
        ("loose-error", "overloaded", True, 503),
        ("array-error", "overloaded", True, 503),
        ("garbage", "bad_response", False, None),
    ],
)
def test_each_fault_has_its_name(
    adapter: Gemini, fault: str, kind: str, retryable: bool, status: int | None
) -> None:
    heard = ask(adapter, prompt(f"sim-{fault}"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable, heard.problem.status) == (kind, retryable, status)
    assert not any(isinstance(event, Finish) for event in heard.events)


@pytest.mark.parametrize("fault", ["cut-clean-5", "midstream-error", "loose-error", "array-error", "garbage"])
def test_text_from_before_the_break_arrives(adapter: Gemini, fault: str) -> None:
    heard = ask(adapter, prompt(f"sim-{fault}"))
    assert heard.text == WORDS
    assert heard.problem is not None
    assert heard.problem.request_id.startswith("AlephSimulated")


def test_a_rate_limit_says_in_its_body_when_to_come_back(adapter: Gemini) -> None:
    limited, used_up = (ask(adapter, prompt(f"sim-{fault}")).problem for fault in ("error-429", "perday"))
    assert limited is not None
    assert limited.retry_after_s == RETRY_DELAY_S
    assert used_up is not None
    assert used_up.retry_after_s is None


def test_neither_key_nor_prompt_reaches_an_address_an_error_or_a_log(
    google: GeminiSimulator, adapter: Gemini, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in ("leak", "badkey", "error-500", "cut-5", "garbage", "loose-error", "words-9"):
        heard = ask(adapter, prompt(f"sim-{fault}", "nomor rahasia 4471-9921-CANARY"))
        assert KEY not in google.requests[-1].path
        for sink in (str(heard.problem), repr(heard.problem), repr(adapter), caplog.text):
            assert KEY not in sink
            assert "CANARY" not in sink


# The clocks, and hanging up


@pytest.mark.parametrize(
    ("script", "clocks"),
    [
        ("sim-timeout", Clocks(first_byte_s=0.3, idle_s=9, total_s=9)),
        ("sim-delay-9000", Clocks(first_byte_s=0.3, idle_s=9, total_s=9)),
        ("sim-stall-5", Clocks(first_byte_s=9, idle_s=0.3, total_s=9)),
        ("sim-slow-100x50ms", Clocks(first_byte_s=9, idle_s=9, total_s=0.5)),
    ],
)
def test_an_answer_is_waited_for_only_so_long(
    google: GeminiSimulator, adapter: Gemini, script: str, clocks: Clocks
) -> None:
    aborted = google.aborted
    heard = ask(adapter, prompt(script), clocks=clocks)
    assert heard.kind == "timeout"
    assert google.wait_for_aborted(aborted + 1)
    assert (heard.text == WORDS) == (script == "sim-stall-5")


@pytest.mark.parametrize("script", ["sim-timeout", "sim-stall-5", "sim-slow-500x20ms"])
def test_cancel_closes_the_connection_at_once(google: GeminiSimulator, adapter: Gemini, script: str) -> None:
    aborted = google.aborted
    heard, took_s = ask_and_cancel(adapter, prompt(script), after_s=0.2)
    assert heard.cancelled
    in_time(took_s, 1)
    assert google.wait_for_aborted(aborted + 1)


def test_a_connection_serves_one_call_after_the_other(google: GeminiSimulator, adapter: Gemini) -> None:
    before = google.connections
    for form in ("sim-echo", "sim-error-429", "sim-array-echo"):
        ask(adapter, prompt(form))
    assert google.connections == before + 1


# The bytes


def _sse(*chunks: dict[str, Any]) -> bytes:
    return b"".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\r\n\r\n".encode() for chunk in chunks)


def _said(text: str, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, **more}]}


def _read(*pieces: bytes) -> Heard:
    heard, answer = Heard(), gemini.Answer()
    try:
        for piece in pieces:
            heard.events.extend(answer.feed(piece))
        heard.events.extend(answer.end())
    except ProviderError as problem:
        heard.problem = problem
    return heard


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8),
    st.lists(st.integers(0, 2000)),
)
def test_text_survives_any_split_of_the_bytes(texts: list[str], cuts: list[int]) -> None:
    data = _sse(*map(_said, texts), _said("", finishReason="STOP"))
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    heard = _read(*(data[a:b] for a, b in pairwise(places)))
    assert (heard.text, heard.finish.reason) == ("".join(texts), "stop")


KEYS = re.findall(
    r"\w+",
    "candidates content parts text thought finishReason index usageMetadata promptTokenCount totalTokenCount error code "
    "status message details retryDelay violations quotaId promptFeedback blockReason modelVersion responseId",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["STOP", "SAFETY"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.sampled_from(["data: %s\n\n", "%s", ": hi\n\n%s\n"]))
def test_nothing_gemini_sends_raises_anything_but_a_provider_error(found: Any, form: str) -> None:
    heard = _read((form % json.dumps(found, indent=None if "data" in form else 1)).encode())
    assert heard.problem is not None or isinstance(heard.events[-1], Finish)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        ("SPII", "content_filter"),
        ("CONTINUATION", "length"),
        ("MALFORMED_RESPONSE", "other"),
        ("TO_BE_INVENTED", "other"),
    ],
)
def test_each_finish_reason_has_its_meaning_and_is_kept_as_it_was_said(raw: str, reason: str) -> None:
    heard = _read(_sse(_said("x", finishReason=raw)))
    assert (heard.finish.reason, heard.finish.raw_reason) == (reason, raw)


def test_an_unspecified_reason_is_none() -> None:
    assert _read(_sse(_said("x", finishReason="FINISH_REASON_UNSPECIFIED"))).kind == "broken_stream"


def test_parts_without_text_and_other_candidates_are_passed_over() -> None:
    parts = [{"functionCall": {"name": "x"}}, {"text": "one"}, {"inlineData": {}}]
    chunk = {"candidates": [{"content": {"parts": parts}}, {"index": 1, **_said("two")["candidates"][0]}]}
    assert _read(_sse(chunk, _said(" end", finishReason="STOP"))).text == "one end"


@pytest.mark.parametrize("wrap", [lambda error: error, lambda error: [error]])
@pytest.mark.parametrize("form", ["body", "event"])
def test_an_error_with_status_200_is_an_error(wrap: Any, form: str) -> None:
    said = json.dumps(wrap(failure(429, "Slow down")), indent=None if form == "event" else 2).encode()
    assert _read(b"data: %b\n\n" % said if form == "event" else said).kind == "rate_limit"


# Connecting it


def test_a_key_connects_gemini_and_an_address_may_name_the_version(google: GeminiSimulator) -> None:
    assert providers.missing("gemini") == ("GEMINI_API_KEY",)
    assert "gemini" not in providers.configure({"GEMINI_BASE_URL": google.base_url})
    address = google.base_url.removesuffix("/v1")
    connected = providers.configure({"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": address})
    assert ask(connected["gemini"], prompt("sim-echo")).text == QUESTION
    later = providers.configure({"GEMINI_API_KEY": KEY, "GEMINI_BASE_URL": f"{address}/v1beta"})
    assert ask(later["gemini"], prompt("sim-echo")).kind == "not_found"
    assert google.requests[-1].path == "/v1beta/models/sim-echo:streamGenerateContent?alt=sse"


# The whole way


@pytest.fixture
def at_google(
    committed: None, google: GeminiSimulator, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[GeminiSimulator]:
    """Gemini as this process knows it; the two models of the seed are answered with cached and thought tokens."""
    for model in ("gemini-3.8-flash", "gemini-3.5-flash-lite"):
        monkeypatch.setitem(google.scripts, model, "sim-words-5-cached")
    settings.PROVIDER_ENV = {
        **settings.PROVIDER_ENV,
        "GEMINI_API_KEY": KEY,
        "GEMINI_BASE_URL": google.base_url,
    }
    catalogue.connected.cache_clear()
    yield google
    catalogue.connected.cache_clear()


@pytest.mark.parametrize(
    ("slug", "successor"), [("gemini-pro", "gemini-3.8-flash"), ("gemini-flash", "gemini-3.5-flash-lite")]
)
def test_a_retired_model_is_answered_by_its_successor_and_charged_exactly(
    at_google: GeminiSimulator, slug: str, successor: str
) -> None:
    assert catalogue.find(slug).is_available
    alice = people.alice()
    turn = turns.start(user=alice, session=None, text="Halo", model_slug=slug, turn=ids.new("trn"))
    reply = answered(turn)
    assert (reply.state, reply.content, reply.finish_reason) == ("complete", WORDS, "stop")
    assert reply.answered_by == successor
    request = at_google.requests[-1]
    assert request.path == f"/v1/models/{successor}:streamGenerateContent?alt=sse"
    assert request.body["generationConfig"] == {
        "maxOutputTokens": reply.max_output_tokens,
        "thinkingConfig": {"thinkingLevel": "low"},
    }
    (call,) = calls_of(reply)
    assert (call.provider, call.model, call.source, call.flagged) == ("gemini", successor, "reported", False)
    assert (call.fresh_input_tokens, call.cache_read_tokens, call.cache_write_tokens) == (56, 64, None)
    assert (call.visible_output_tokens, call.reasoning_tokens) == (19, 41)
    assert (call.input_tokens, call.output_tokens, call.total_tokens) == (120, 60, 180)
    rate = ChatModel.objects.get(slug=slug).input_rate
    assert reply.tokens_used == ceil(180 * rate / 1000)
    assert (available(alice), held(alice)) == (10_500 - reply.tokens_used, 0)
    post = Transfer.objects.get(pending=reply.hold_id)
    assert (post.phase, post.amount) == ("post", reply.tokens_used)
    assert reply.started_at is not None
    price = pricing.price_at("gemini", successor, reply.started_at)
    assert price is not None
    assert price.cached_input_usd_per_million is not None
    millions = 56 * price.input_usd_per_million + 64 * price.cached_input_usd_per_million
    assert call.total_cost_usd == (millions + 60 * price.output_usd_per_million) / 1_000_000
    assert_books_are_right()


@pytest.mark.parametrize(
    ("script", "kind", "was_used"), [("sim-blocked", "policy", True), ("sim-error-429", "rate_limit", False)]
)
def test_what_gemini_refuses_costs_nothing(
    at_google: GeminiSimulator, script: str, kind: str, was_used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(at_google.scripts, "gemini-3.8-flash", script)
    alice = people.alice()
    turn = turns.start(user=alice, session=None, text="Halo", model_slug="gemini-pro", turn=ids.new("trn"))
    reply = answered(turn)
    assert (reply.state, reply.error_kind, reply.tokens_used) == ("failed", kind, 0)
    assert (available(alice), held(alice)) == (10_500, 0)
    assert (calls_of(reply)[0].input_tokens > 0) == was_used
    assert_books_are_right()
