"""Claude over Anthropic's Messages API: what is sent, what arrives, what is counted, what goes wrong, what is paid."""

import json
import logging
from collections.abc import Iterator
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aleph import ids
from billing.models import Transfer
from chat import catalogue, prompts, providers, turns
from chat.model_list import OPENING
from chat.models import Message
from chat.providers import counts, exchange
from chat.providers.anthropic import Anthropic, MessageAnswer
from chat.providers.base import Call, Clocks, Counts, Finish, Prompt, ProviderError
from chat.providers.openai_compatible import OpenAICompatible
from tests import people
from tests.clock import in_time
from tests.listening import QUESTION, Heard, ask, ask_and_cancel, prompt
from tests.simulator_anthropic import CURRENT, RETRY_AFTER_S, AnthropicSimulator
from tests.stories_of_chat import (
    answered,
    assert_books_are_right,
    available,
    calls_of,
    ending_of,
    held,
    special_model,
)

KEY = "sk-ant-api03-Ab12Cd34Ef56"
FIVE = "word1 word2 word3 word4 word5 "


@pytest.fixture(scope="module")
def simulator() -> Iterator[AnthropicSimulator]:
    with AnthropicSimulator() as running:
        yield running


@pytest.fixture
def claude(simulator: AnthropicSimulator) -> Anthropic:
    return Anthropic(name="anthropic", base_url=simulator.base_url, api_key=KEY)


# What is sent


def test_a_request_is_what_the_api_asks_for(simulator: AnthropicSimulator, claude: Anthropic) -> None:
    assert ask(claude, prompt("sim-echo", "hi", user_ref="u1", max_output_tokens=9)).text == "hi"
    sent = simulator.requests[-1]
    assert sent.path == "/v1/messages"
    assert sent.body == {
        "model": "sim-echo",
        "max_tokens": 9,
        "system": "Be kind.",
        "messages": [{"role": "user", "content": "hi"}],
        "stream": True,
        "metadata": {"user_id": "u1"},
    }
    assert (sent.headers["x-api-key"], sent.headers["anthropic-version"]) == (KEY, "2026-10-21")
    assert "authorization" not in sent.headers


@pytest.mark.parametrize("tail", ["", "/", "/v1", "/v1/"])
def test_an_address_may_be_given_with_its_version_or_without(
    simulator: AnthropicSimulator, tail: str
) -> None:
    claude = Anthropic(name="anthropic", base_url=simulator.base_url + tail, api_key=KEY)
    assert ask(claude, prompt("sim-echo")).text == QUESTION


SAID: list[tuple[tuple[tuple[str, str], ...], str, list[tuple[str, str]]]] = [
    (
        (("user", "a"), ("assistant", "b"), ("user", "c")),
        "",
        [("user", "a"), ("assistant", "b"), ("user", "c")],
    ),
    ((("system", "s"), ("user", "a"), ("user", "b")), "s", [("user", "a\n\nb")]),
    ((("user", "a"), ("assistant", " \n"), ("user", "b")), "", [("user", "a\n\nb")]),
    ((("system", "s"), ("system", ""), ("system", "t"), ("user", "a")), "s\n\nt", [("user", "a")]),
    (
        (("system", "s"), ("assistant", "b"), ("user", "c")),
        "s",
        [("user", "(The conversation before this message is left out.)"), ("assistant", "b"), ("user", "c")],
    ),
]


@pytest.mark.parametrize(("messages", "system", "expected"), SAID)
def test_the_user_begins_roles_alternate_and_nothing_is_empty(
    simulator: AnthropicSimulator,
    claude: Anthropic,
    messages: tuple[tuple[str, str], ...],
    system: str,
    expected: list[tuple[str, str]],
) -> None:
    assert ask(claude, Prompt("sim-words-1", messages, 10)).problem is None
    body = simulator.requests[-1].body
    assert [(said["role"], said["content"]) for said in body["messages"]] == expected
    assert body.get("system", "") == system
    assert "metadata" not in body


def test_sampling_is_sent_only_to_the_version_that_knows_it(
    simulator: AnthropicSimulator, claude: Anthropic
) -> None:
    asked = prompt("sim-echo", temperature=Decimal("0.7"), top_p=Decimal("0.9"))
    assert ask(claude, asked).problem is None
    assert not {"temperature", "top_p"} & simulator.requests[-1].body.keys()
    older = Anthropic(name="anthropic", base_url=simulator.base_url, api_key=KEY, version="2023-06-01")
    assert ask(older, asked).problem is None
    body = simulator.requests[-1].body
    assert (body["temperature"], body["top_p"]) == (0.7, 0.9)
    assert ask(older, prompt("sim-echo")).problem is None
    assert not {"temperature", "top_p"} & simulator.requests[-1].body.keys()


# What arrives


def test_an_answer_arrives_word_for_word_and_ends_with_what_claude_said(claude: Anthropic) -> None:
    heard = ask(claude, prompt("sim-echo"))
    assert heard.text == QUESTION
    assert (heard.finish.reason, heard.finish.raw_reason) == ("stop", "end_turn")
    assert (heard.finish.model, heard.finish.service_tier) == ("sim-echo", "standard")
    assert heard.finish.request_id.startswith("req_")


@pytest.mark.parametrize(
    "form",
    ["bytes-1", "bytes-7-crlf", "crlf", "ping", "unknown", "json", "blocks", "twice", "nousage", "pace-2"],
)
def test_the_text_is_the_same_in_whatever_form_it_is_sent(claude: Anthropic, form: str) -> None:
    heard = ask(claude, prompt(f"sim-echo-{form}"))
    assert heard.text == QUESTION
    assert heard.finish.reason == "stop"


def test_thinking_is_kept_apart_from_the_answer(claude: Anthropic) -> None:
    heard = ask(claude, prompt("sim-thinking"))
    assert (heard.thoughts, heard.text) == ("Let me see.", QUESTION)


@pytest.mark.parametrize(
    ("script", "reason", "raw", "text"),
    [
        ("words-9", "length", "max_tokens", FIVE),
        ("words-5", "stop", "end_turn", FIVE),
        ("words-5-window", "length", "model_context_window_exceeded", FIVE),
        ("words-9-refusal-5", "content_filter", "refusal", FIVE),
        ("words-5-tool", "other", "tool_use", FIVE),
        ("words-5-unsaid", "other", "message_stop", FIVE),
        ("words-5-cut-last", "stop", "end_turn", FIVE),
        ("empty", "stop", "end_turn", ""),
    ],
)
def test_each_end_has_its_reason(claude: Anthropic, script: str, reason: str, raw: str, text: str) -> None:
    heard = ask(claude, prompt(f"sim-{script}", max_output_tokens=5))
    assert heard.problem is None
    assert (heard.finish.reason, heard.finish.raw_reason, heard.text) == (reason, raw, text)


def test_without_a_header_the_message_names_itself(claude: Anthropic) -> None:
    assert ask(claude, prompt("sim-echo-noid")).finish.request_id == "msg_01AlephSample0001"
    problem = ask(claude, prompt("sim-error-529-noid")).problem
    assert problem is not None
    assert problem.request_id.startswith("req_")


# What is counted


def test_the_classes_of_tokens_are_disjoint_and_add_up(claude: Anthropic) -> None:
    assert ask(claude, prompt("sim-cached")).counts == Counts(40, 64, 16, 19, 41, 120, 60)


def test_words_are_counted_as_the_provider_counts_them(claude: Anthropic) -> None:
    words = len(QUESTION.split())
    expected = Counts(words + 2, 0, 0, words, 0, words + 2, words)
    for form in ("echo", "echo-json", "echo-endusage", "echo-twice"):
        assert ask(claude, prompt(f"sim-{form}")).counts == expected


@pytest.mark.parametrize("script", ["cut-5", "broken-5", "stall-5", "overloaded-5", "startusage"])
def test_before_the_last_event_the_input_is_exact_and_the_output_unknown(
    claude: Anthropic, script: str
) -> None:
    found = ask(claude, prompt(f"sim-words-9-cached-{script}"), clocks=Clocks(idle_s=0.3)).counts
    assert found == Counts(40, 64, 16, None, None, 120, None)


def test_no_count_is_no_count(claude: Anthropic) -> None:
    assert ask(claude, prompt("sim-nousage")).counts is None


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"input_tokens": 21, "cache_read_input_tokens": 1024}, Counts(21, 1024, None, None, None, 1045)),
        ({"output_tokens": 9}, Counts(None, None, None, 9, None, None, 9)),
        ({"input_tokens": 0, "output_tokens": 0}, Counts(0, None, None, 0, None, 0, 0)),
        (
            {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 9}},
            Counts(5, None, None, 0, 3, 5, 3, flagged=True),
        ),
        (
            {"input_tokens": -1, "output_tokens": 3, "cache_read_input_tokens": 7},
            Counts(None, 7, None, 3, None, None, 3, flagged=True),
        ),
        (
            {"input_tokens": counts.MOST_TOKENS, "cache_read_input_tokens": 1, "output_tokens": 1},
            Counts(counts.MOST_TOKENS, 1, None, 1, None, None, 1, flagged=True),
        ),
        ({"cache_read_input_tokens": 3}, None),
        ({}, None),
        (None, None),
    ],
)
def test_usage_becomes_disjoint_classes(usage: object, expected: Counts | None) -> None:
    assert counts.read_anthropic(usage) == expected


# What goes wrong


@pytest.mark.parametrize(
    ("fault", "kind", "retryable", "status"),
    [
        ("error-400", "bad_request", False, 400),
        ("error-401", "auth", False, 401),
        ("error-402", "credit", False, 402),
        ("error-403", "auth", False, 403),
        ("error-404", "not_found", False, 404),
        ("error-409", "server", True, 409),
        ("error-413", "context_too_long", False, 413),
        ("error-429", "rate_limit", True, 429),
        ("error-500", "server", True, 500),
        ("error-504", "timeout", True, 504),
        ("error-529", "overloaded", True, 529),
        ("spend", "credit", False, 429),
        ("ramp", "rate_limit", True, 429),
        ("budget", "credit", False, 400),
        ("context", "context_too_long", False, 400),
        ("refusal", "policy", False, None),
        ("words-9-cut-5", "broken_stream", True, None),
        ("words-9-broken-5", "broken_stream", True, None),
        ("words-9-overloaded-5", "overloaded", True, None),
        ("words-9-garbage-5", "bad_response", False, None),
    ],
)
def test_each_fault_has_its_name(
    claude: Anthropic, fault: str, kind: str, retryable: bool, status: int | None
) -> None:
    heard = ask(claude, prompt(f"sim-{fault}"))
    assert heard.problem is not None
    assert (heard.kind, heard.problem.retryable, heard.problem.status) == (kind, retryable, status)
    assert heard.problem.request_id.startswith("req_")
    assert heard.text == (FIVE if "words" in fault else "")
    assert not any(isinstance(event, Finish) for event in heard.events)


def test_a_rate_limit_says_when_to_come_back_and_a_spent_budget_does_not(claude: Anthropic) -> None:
    for fault, seconds in (("error-429", RETRY_AFTER_S), ("ramp", RETRY_AFTER_S), ("spend", None)):
        problem = ask(claude, prompt(f"sim-{fault}")).problem
        assert problem is not None
        assert problem.retry_after_s == seconds


def test_a_refusal_says_why_and_its_count_is_kept(claude: Anthropic) -> None:
    heard = ask(claude, prompt("sim-refusal"))
    assert heard.problem is not None
    assert heard.problem.detail == "refusal: cyber"
    assert heard.counts is not None
    assert heard.counts.provider_output == 0


def test_a_retired_model_is_not_found(claude: Anthropic) -> None:
    assert ask(claude, prompt("claude-3-haiku-20240307")).kind == "not_found"


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("overloaded_error", "overloaded"),
        ("rate_limit_error", "rate_limit"),
        ("api_error", "server"),
        ("timeout_error", "timeout"),
        ("authentication_error", "auth"),
        ("permission_error", "auth"),
        ("billing_error", "credit"),
        ("not_found_error", "not_found"),
        ("request_too_large", "context_too_long"),
        ("invalid_request_error", "bad_request"),
        ("an_error_of_tomorrow", "server"),
    ],
)
def test_errors_in_mid_stream_are_told_by_their_type(error: str, kind: str) -> None:
    event = {"type": "error", "error": {"type": error, "message": "x"}, "request_id": "req_011"}
    heard = _read(f"event: error\ndata: {json.dumps(event)}\n\n".encode())
    assert heard.problem is not None
    assert (heard.kind, heard.problem.request_id) == (kind, "req_011")


def test_neither_key_nor_prompt_reaches_an_error_or_a_log(
    claude: Anthropic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in ("leak", "error-500", "cut-1", "garbage-1", "echo"):
        heard = ask(claude, prompt(f"sim-{fault}", "nomor rahasia 4471-9921-CANARY"))
        for sink in (str(heard.problem), repr(heard.problem), repr(claude), caplog.text):
            assert KEY not in sink
            assert "CANARY" not in sink


# Any bytes


def _read(*pieces: bytes) -> Heard:
    heard, answer = Heard(), MessageAnswer()
    try:
        for piece in pieces:
            heard.events.extend(answer.feed(piece))
        heard.events.extend(answer.end())
    except ProviderError as problem:
        heard.problem = problem
    return heard


def _sse(*events: Any) -> bytes:
    return b"".join(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events)


texts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8)


@given(texts, st.lists(st.integers(0, 2000)))
def test_text_survives_any_split_of_the_bytes(deltas: list[str], cuts: list[int]) -> None:
    spoken = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
        for text in deltas
    ]
    data = _sse(
        *spoken, {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}, {"type": "message_stop"}
    )
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    heard = _read(*(data[a:b] for a, b in pairwise(places)))
    assert (heard.text, heard.finish.reason) == ("".join(deltas), "stop")


TYPES = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
    "text",
]
KEYS = [
    "type",
    "message",
    "delta",
    "content_block",
    "usage",
    "stop_reason",
    "stop_details",
    "category",
    "text",
    "thinking",
    "input_tokens",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from([*TYPES, "refusal"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)
event_values = st.builds(
    lambda kind, event: {**event, "type": kind},
    st.sampled_from(TYPES),
    st.dictionaries(st.sampled_from(KEYS), json_values, max_size=4),
)


@given(st.lists(event_values | json_values, max_size=4), st.booleans())
def test_nothing_that_is_sent_raises_anything_but_a_provider_error(found: list[Any], streamed: bool) -> None:
    heard = _read(_sse(*found) if streamed else json.dumps(found).encode())
    assert heard.problem is not None or isinstance(heard.events[-1], Finish)
    assert all(isinstance(event.text, str) for event in heard.events if hasattr(event, "text"))


# The clocks, and hanging up


@pytest.mark.parametrize("model", ["sim-timeout", "sim-pings-forever", "sim-delay-3000"])
def test_the_first_event_is_waited_for_only_so_long(claude: Anthropic, model: str) -> None:
    heard = ask(claude, prompt(model), clocks=Clocks(first_byte_s=0.4, idle_s=9, total_s=9))
    assert heard.kind == "timeout"
    assert heard.took_s > 0.3
    in_time(heard.took_s, 3)


def test_a_stalled_answer_is_given_up(simulator: AnthropicSimulator, claude: Anthropic) -> None:
    aborted = simulator.aborted
    clocks = Clocks(first_byte_s=9, idle_s=0.3, total_s=9)
    heard = ask(claude, prompt("sim-words-9-stall-5"), clocks=clocks)
    assert (heard.kind, heard.text) == ("timeout", FIVE)
    assert simulator.wait_for_aborted(aborted + 1)


def test_an_answer_that_drips_is_ended_by_the_total_clock(claude: Anthropic) -> None:
    clocks = Clocks(first_byte_s=9, idle_s=9, total_s=0.5)
    assert ask(claude, prompt("sim-words-900-pace-20"), clocks=clocks).kind == "timeout"


def test_an_end_that_does_not_come_is_waited_for_only_a_little(
    claude: Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "AFTER_FINISH_S", 0.2)
    heard = ask(claude, prompt("sim-words-5-stall-last"), clocks=Clocks(first_byte_s=9, idle_s=9, total_s=9))
    assert (heard.text, heard.finish.reason) == (FIVE, "stop")
    in_time(heard.took_s, 5)


@pytest.mark.parametrize(
    "model", ["sim-timeout", "sim-pings-forever", "sim-words-9-stall-5", "sim-words-900-pace-20"]
)
def test_cancel_closes_the_connection_at_once(
    simulator: AnthropicSimulator, claude: Anthropic, model: str
) -> None:
    aborted = simulator.aborted
    heard, took_s = ask_and_cancel(claude, prompt(model), after_s=0.2)
    assert heard.cancelled
    in_time(took_s, 1)
    assert simulator.wait_for_aborted(aborted + 1)


def test_a_call_cancelled_before_it_began_sends_nothing(
    simulator: AnthropicSimulator, claude: Anthropic
) -> None:
    call, before = Call(), len(simulator.requests)
    call.cancel()
    assert ask(claude, prompt("sim-echo"), call=call).cancelled
    assert len(simulator.requests) == before


# In the product


def test_a_key_connects_it_and_a_wrong_version_is_refused_by_name() -> None:
    assert providers.missing("anthropic") == ("ANTHROPIC_API_KEY",)
    assert isinstance(providers.configure({"ANTHROPIC_API_KEY": KEY})["anthropic"], Anthropic)
    assert not isinstance(providers.configure({"ANTHROPIC_API_KEY": KEY})["anthropic"], OpenAICompatible)
    with pytest.raises(providers.ConfigurationError, match="ANTHROPIC_VERSION"):
        providers.configure({"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_VERSION": "latest"})


def test_the_version_can_be_pinned(simulator: AnthropicSimulator) -> None:
    env = {"ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": simulator.base_url}
    for given_version, sent in (("", "2026-10-21"), ("2023-06-01", "2023-06-01")):
        connected = providers.configure({**env, "ANTHROPIC_VERSION": given_version})["anthropic"]
        assert ask(connected, prompt("sim-echo")).problem is None
        assert simulator.requests[-1].headers["anthropic-version"] == sent


@pytest.fixture
def with_key(simulator: AnthropicSimulator, committed: None, settings: Any) -> Iterator[AnthropicSimulator]:
    settings.PROVIDER_ENV = {
        **settings.PROVIDER_ENV,
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": simulator.base_url,
    }
    catalogue.connected.cache_clear()
    yield simulator
    catalogue.connected.cache_clear()


@pytest.mark.usefixtures("committed")
def test_without_a_key_claude_is_shown_with_what_would_connect_it() -> None:
    catalogue.connected.cache_clear()
    offer = catalogue.find("claude-3-haiku")
    assert not offer.is_available
    assert "ANTHROPIC_API_KEY" in str(offer.reason)


@pytest.mark.parametrize("slug", [listing.slug for listing in OPENING if listing.provider == "anthropic"])
def test_with_a_key_each_claude_is_offered_and_its_successor_answers(
    with_key: AnthropicSimulator, slug: str
) -> None:
    offer = catalogue.find(slug)
    assert offer.is_available
    assert offer.route is not None
    successor = offer.route.upstream_model
    assert successor in CURRENT
    reply = _reply_of(slug)
    assert (reply.state, reply.content) == ("complete", f"Answered by {successor}.")
    assert reply.answered_by == successor
    (call,) = calls_of(reply)
    assert call.source == "reported"
    assert call.total_cost_usd is not None


def _reply_of(slug: str, text: str = "Halo, apa kabar?") -> Message:
    turn = turns.start(user=people.alice(), session=None, text=text, model_slug=slug, turn=ids.new("trn"))
    return answered(turn)


def test_a_reply_of_claude_is_charged_exactly(with_key: AnthropicSimulator) -> None:
    alice = people.alice()
    turn = turns.start(
        user=alice, session=None, text="Halo, apa kabar?", model_slug="claude-3.5-sonnet", turn=ids.new("trn")
    )
    reply = answered(turn)
    words_in = len(prompts.SYSTEM.split()) + 3
    words_out = len(["Answered", "by", "claude-sonnet-5-5."])
    assert reply.tokens_used == -(-(words_in + words_out) * 200 // 1000)
    assert (available(alice), held(alice)) == (10_500 - reply.tokens_used, 0)
    (call,) = calls_of(reply)
    assert (call.input_tokens, call.output_tokens, call.source) == (words_in, words_out, "reported")
    assert (call.provider, call.requested_model, call.model) == ("anthropic",) + ("claude-sonnet-5-5",) * 2
    assert call.total_cost_usd == (words_in * Decimal(2) + words_out * Decimal(10)) / 1_000_000
    assert call.transfer_id == Transfer.objects.get(pending=reply.hold_id).pk
    assert call.metadata["request_id"].startswith("req_")
    assert with_key.requests[-1].body["max_tokens"] == reply.max_output_tokens
    assert alice.email not in str(with_key.requests[-1].body)
    assert_books_are_right()


def test_a_route_to_a_retired_model_costs_nothing_and_says_so(with_key: AnthropicSimulator) -> None:
    reply = _reply_by("claude-3-haiku-20240307")
    assert (reply.state, reply.error_kind) == ("failed", "not_found")
    assert (reply.tokens_used, ending_of(reply)) == (0, "void")


def test_a_reply_that_breaks_off_is_free_and_its_input_is_known(with_key: AnthropicSimulator) -> None:
    reply = _reply_by("sim-words-9-cached-cut-5")
    assert (reply.state, reply.error_kind, reply.content) == ("failed", "broken_stream", FIVE)
    assert (reply.tokens_used, ending_of(reply)) == (0, "void")
    (call,) = calls_of(reply)
    assert (call.source, call.fresh_input_tokens, call.cache_read_tokens) == ("partial", 40, 64)
    assert call.cache_write_tokens == 16
    assert call.output_tokens > 0


def test_a_refused_message_costs_nothing_and_is_told_as_such(with_key: AnthropicSimulator) -> None:
    reply = _reply_by("sim-refusal")
    assert (reply.state, reply.error_kind, reply.tokens_used) == ("failed", "policy", 0)
    assert calls_of(reply)[0].source == "reported"


def _reply_by(upstream_model: str) -> Message:
    """A reply of a model whose route leads to `upstream_model` at Anthropic's."""
    model = special_model(ids.new("claude").lower(), takes_temperature=False)
    model.routes.update(provider="anthropic", upstream_model=upstream_model)
    turn = turns.start(
        user=people.alice(), session=None, text="Halo", model_slug=model.slug, turn=ids.new("trn")
    )
    return answered(turn)
