"""The bytes of an answer, read: text that survives any split, counts that add up, and every vendor's way
to say no."""

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.providers import answers, counts, problems
from chat.providers.base import Counts, Finish, ProviderError
from tests.listening import Heard


def _sse(*deltas: str) -> bytes:
    chunks = [{"choices": [{"index": 0, "delta": {"content": delta}}]} for delta in deltas]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode() for chunk in chunks)


def _read(*pieces: bytes) -> Heard:
    heard, answer = Heard(), answers.Answer()
    try:
        for piece in pieces:
            heard.events.extend(answer.feed(piece))
        heard.events.extend(answer.end())
    except ProviderError as problem:
        heard.problem = problem
    return heard


texts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), max_size=8)


@given(texts, st.lists(st.integers(0, 2000)), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_text_survives_any_split_of_the_bytes(deltas: list[str], cuts: list[int], newline: bytes) -> None:
    data = b": keep-alive\n\n" + _sse(*deltas) + b"data: [DONE]\n\n"
    data = data.replace(b"\n", newline)
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    heard = _read(*(data[a:b] for a, b in pairwise(places)))
    assert heard.text == "".join(deltas)
    assert heard.finish.reason == "stop"


KEYS = re.findall(
    r"\w+",
    "choices delta message content finish_reason index usage error code type id model prompt_tokens detail "
    "text completion_tokens total_tokens prompt_tokens_details cached_tokens reasoning metadata estimated_time",
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(json_values, st.booleans())
def test_nothing_a_provider_sends_raises_anything_but_a_provider_error(found: Any, streamed: bool) -> None:
    data = json.dumps(found)
    heard = _read(f"data: {data}\n\n".encode() if streamed else data.encode())
    assert heard.problem is not None or isinstance(heard.events[-1], Finish)
    problems.refusal(500, {}, data.encode())
    problems.refusal(403, {}, data.encode())


def test_a_last_line_without_its_end_is_read() -> None:
    assert _read(_sse("all").rstrip()).finish.reason == "stop"


def test_a_character_cut_in_two_by_a_utf16_server_is_joined() -> None:
    halves = b"".join(
        b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % half
        for half in (rb"a\ud83d", rb"\udc4bb", rb"c\ud83d")
    )
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    together, apart = _read(halves + end), _read(*re.findall(rb"[^\n]+\n\n", halves + end))
    assert together.text == apart.text == "a👋bc\ufffd"


def test_text_can_always_be_stored() -> None:
    heard = _read(_sse("a\0b") + b'data: {"choices":[{"delta":{"content":"\\udc00"}}]}\n\n')
    assert heard.text == "a\ufffdb\ufffd"


def test_events_without_blank_lines_or_over_several_lines_are_read() -> None:
    close = _sse("a", "b").replace(b"\n\n", b"\n")
    wide = json.dumps({"choices": [{"delta": {"content": "ab"}, "finish_reason": "stop"}]}, indent=1)
    lines = b"".join(b"data: %b\n" % line.encode() for line in wide.splitlines()) + b"\n"
    assert _read(close).text == _read(lines).text == "ab"


def test_a_router_says_who_answered() -> None:
    chunk = b'data: {"id":"gen-1","model":"m","provider":"Groq","service_tier":"flex","choices":[%s]}\n\n'
    heard = _read(chunk % b'{"delta":{"content":[{"type":"text","text":"hi"}]},"finish_reason":"eos"}')
    assert heard.text == "hi"
    assert heard.finish == Finish("stop", "eos", "m", "gen-1", "Groq", "flex")


def test_other_finish_reasons_are_kept_as_they_were_said() -> None:
    heard = _read(b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"tool_calls"}]}\n\n')
    assert (heard.finish.reason, heard.finish.raw_reason) == ("other", "tool_calls")


def test_an_error_after_the_finish_reason_does_not_unsay_the_answer() -> None:
    error = b'data: {"error":{"message":"late"}}\n\n'
    assert _read(_sse("all") + error).finish.reason == "stop"
    assert _read(_sse("all"), error).finish.reason == "stop"


# Counts


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            {"prompt_tokens": 24, "completion_tokens": 5, "total_tokens": 29},
            Counts(24, None, None, 5, None, 24, 5, 29),
        ),
        (
            {
                "prompt_tokens": 120,
                "completion_tokens": 60,
                "total_tokens": 180,
                "prompt_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 16, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 41},
            },
            Counts(40, 64, 16, 19, 41, 120, 60, 180),
        ),
        (
            {
                "prompt_tokens": 120,
                "completion_tokens": 60,
                "total_tokens": 180,
                "prompt_cache_hit_tokens": 64,
                "prompt_cache_miss_tokens": 56,
                "prompt_tokens_details": {"cached_tokens": 1},
            },
            Counts(56, 64, None, 60, None, 120, 60, 180),
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
            Counts(0, None, None, 0, None, 0, 0, 0),
        ),
        ({"prompt_tokens": 7}, Counts(7, None, None, None, None, 7, None, None)),
        (
            {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": None, "total_tokens": None},
            Counts(7, None, None, 2, None, 7, 2, None),
        ),
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 9},
            },
            Counts(10, None, None, 0, 5, 10, 5, None, flagged=True),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 11}},
            Counts(0, 10, None, 5, None, 10, 5, None, flagged=True),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 99},
            Counts(10, None, None, 5, None, 10, 5, 99, flagged=True),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": -5},
            Counts(10, None, None, None, None, 10, None, None, flagged=True),
        ),
        (
            {
                "prompt_tokens": "10",
                "completion_tokens": 5.0,
                "prompt_tokens_details": {"cached_tokens": True},
            },
            Counts(None, None, None, 5, None, None, 5, None, flagged=True),
        ),
        ({}, None),
        ({"prompt_tokens": 10**12}, None),
        ("many", None),
        (None, None),
    ],
)
def test_usage_becomes_disjoint_classes(usage: object, expected: Counts | None) -> None:
    assert counts.read(usage) == expected


def test_the_last_valid_count_wins_wherever_it_stands() -> None:
    first = (
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    )
    count = b'"usage":{"prompt_tokens":3,"completion_tokens":2}'
    then = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],%b}\n\n' % count
    after = b'data: {"choices":[],"usage":null}\n\ndata: {"choices":[],"usage":{}}\n\n'
    found = _read(first, then, after).counts
    assert found is not None
    assert found.provider_output == 2


def test_a_count_seen_before_the_break_is_not_lost() -> None:
    heard = _read(
        b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}\n\n'
    )
    assert heard.kind == "broken_stream"
    assert heard.counts is not None


# Refusals


def _error(error: Any, **more: Any) -> bytes:
    return json.dumps({"error": error, **more}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, _error({"message": "Authentication Fails", "code": "invalid_request_error"}), "auth"),
        (401, b'{"message":"Wrong API Key","type":"invalid_request_error","code":"wrong_api_key"}', "auth"),
        (403, b'{"detail":"Not authenticated"}', "auth"),
        (401, _error({"message": "No auth credentials found", "code": 401}), "auth"),
        (401, _error("Invalid username or password."), "auth"),
        (400, _error("Authorization header is correct, but the token seems invalid"), "auth"),
        (402, _error("You have exceeded your monthly included credits"), "credit"),
        (402, _error({"message": "Insufficient Balance", "code": "invalid_request_error"}), "credit"),
        (
            429,
            _error({"message": "x", "type": "insufficient_quota", "code": "credit_balance_exhausted"}),
            "credit",
        ),
        (429, _error({"message": "x", "code": "organization_spend_limit_exceeded"}), "credit"),
        (429, _error("Model is overloaded", error_type="overloaded"), "overloaded"),
        (400, _error({"message": "This model's maximum context length is 1 tokens"}), "context_too_long"),
        (403, _error({"message": "too many tokens"}), "context_too_long"),
        (
            422,
            _error("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096"),
            "context_too_long",
        ),
        (
            400,
            _error({"message": "x", "code": 400, "metadata": {"error_type": "context_length_exceeded"}}),
            "context_too_long",
        ),
        (413, b"", "context_too_long"),
        (400, _error("the prompt is longer than the context length currently available"), "context_too_long"),
        (
            403,
            _error({"message": "x", "code": 403, "metadata": {"reasons": ["hate"], "flagged_input": "x"}}),
            "policy",
        ),
        (400, _error({"message": "x", "code": "content_policy_violation"}), "policy"),
        (400, _error({"message": "x", "code": "model_not_supported"}), "not_found"),
        (404, _error("model 'x' not found"), "not_found"),
        (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', "bad_request"),
        (422, _error(["one", "two"]), "bad_request"),
        (500, b"", "server"),
        (502, b"<html>Bad Gateway</html>", "overloaded"),
        (503, _error("server busy, please try again.  maximum pending requests exceeded"), "overloaded"),
        (529, b"[]", "overloaded"),
        (524, b"error code: 524", "timeout"),
        (408, b"null", "timeout"),
        (418, b'"teapot"', "bad_request"),
    ],
)
def test_the_error_bodies_of_all_vendors_are_understood(status: int, body: bytes, kind: str) -> None:
    problem = problems.refusal(status, {}, body)
    assert (problem.kind, problem.status) == (kind, status)
    assert "<html>" not in problem.detail


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        ({"error": {"message": "x", "type": "server_error", "code": "x"}, "status_code": 503}, "overloaded"),
        (
            {"error": {"code": 502, "message": "x", "metadata": {"error_type": "provider_unavailable"}}},
            "overloaded",
        ),
        ({"error": {"message": "x", "http_status_code": 422}}, "bad_request"),
        ({"error": {"code": "429", "message": "x"}}, "rate_limit"),
        (
            {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"},
            "server",
        ),
        ({"error": "Model gpt2 is currently loading", "estimated_time": 20.0}, "overloaded"),
        ({"error": {"message": "maximum context length is 10"}}, "context_too_long"),
        ({"error": {"type": "insufficient_quota"}}, "credit"),
        ({"error": True}, "server"),
    ],
)
def test_errors_in_mid_stream_are_understood(found: Any, kind: str) -> None:
    data = json.dumps(found).encode()
    assert problems.in_answer(found).kind == kind
    for shape in (b"data: %b\n\n", b"event: error\ndata: %b\n\n", b":\n%b\n\n", b"%b"):
        assert _read(shape % data).kind == kind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 2),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({}, None),
    ],
)
def test_the_time_to_wait_is_read_in_all_its_forms(headers: dict[str, str], seconds: int | None) -> None:
    assert problems.refusal(429, headers, b"").retry_after_s == seconds


def test_a_provider_may_forbid_or_ask_for_another_try_but_never_on_an_empty_account() -> None:
    assert problems.refusal(500, {"x-should-retry": "false"}, b"").retryable is False
    assert problems.refusal(400, {"x-should-retry": "true"}, b"").retryable is True
    assert problems.refusal(402, {"x-should-retry": "true"}, b"").retryable is False
    busy = problems.refusal(402, {"retry-after": "5"}, b"")
    assert (busy.kind, busy.retryable) == ("rate_limit", True)


def test_an_endless_line_is_refused() -> None:
    assert _read(b"data: " + b"x" * (answers.LONGEST_LINE + 1)).kind == "bad_response"


def test_a_key_of_any_shape_is_taken_out_of_a_detail() -> None:
    body = _error({"message": "kunci/aneh! is wrong"})
    assert problems.refusal(401, {}, body, secrets=("kunci/aneh!",)).detail == "HTTP 401: [key] is wrong"


@pytest.mark.parametrize(
    "secret",
    [
        "Bearer abc123",
        "sk-proj-Ab12Cd34",
        "hf_AbCdEfGhIj",
        "sk-alep****0001",
        "0123456789abcdef0123456789abcdef",
    ],
)
def test_what_looks_like_a_key_is_taken_out_of_a_detail(secret: str) -> None:
    detail = problems.refusal(401, {}, _error({"message": f"The key {secret} is wrong\nsee help"})).detail
    assert secret not in detail
    assert detail == "HTTP 401: The key [key] is wrong see help"
