"""Turns what a provider says about a failure into a `ProviderError`. Vendors agree on little here: `error`
is an object, a string, a list or absent; `code` a word or a number; the body JSON, HTML, plain text or
nothing.

An HTTP status decides first (DeepSeek's 401 carries the code invalid_request_error), words refine it.
Without a status, in mid-stream or in a body with status 200, the words decide.
"""

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Any

from chat.providers.base import WORTH_RETRYING, Kind, ProviderError

CONTEXT = re.compile(
    r"(maximum|max) (context|prompt) length|context_length_exceeded|too many tokens|prompt is too long"
    r"|input length|input token count .{0,40}exceeds|reduce the length|longer than the context length|tokens`? \+ `?max_new_tokens",
    re.IGNORECASE,
)
SPENT = re.compile(r"spend(ing)? limit|credit balance is too low", re.IGNORECASE)
WORDS: dict[Kind, frozenset[str]] = {
    "credit": frozenset(
        {
            "insufficient_quota",
            "credit_balance_exhausted",
            "organization_spend_limit_exceeded",
            "project_spend_limit_exceeded",
            "organization_usage_limit_exceeded",
            "billing_hard_limit_reached",
            "insufficient_credits",
            "payment_required",
            "billing_error",
            "failed_precondition",  # Gemini: no free use in this country, or billing is off
            "enforced_spend_limit_reached",
            "contract_spend_limit_reached",
        }
    ),
    "context_too_long": frozenset({"context_length_exceeded", "max_tokens_exceeded", "request_too_large"}),
    "policy": frozenset({"content_policy_violation", "content_filter", "refusal"}),
    "auth": frozenset(
        {
            "invalid_api_key",
            "wrong_api_key",
            "authentication_error",
            "authentication",
            "permission_error",
            "api_key_invalid",
            "unauthenticated",
            "permission_denied",
        }
    ),
    "not_found": frozenset(
        {"model_not_found", "model_not_supported", "model_not_available", "not_found_error", "not_found"}
    ),
    "rate_limit": frozenset(
        {"rate_limit_exceeded", "rate_limit_error", "rate_limit", "slow_down", "resource_exhausted"}
    ),
    "overloaded": frozenset(
        {
            "server_is_overloaded",
            "overloaded",
            "overloaded_error",
            "provider_overloaded",
            "provider_unavailable",
            "unavailable",
        }
    ),
    "timeout": frozenset({"timeout", "timeout_error", "upstream_timeout", "deadline_exceeded"}),
    "bad_request": frozenset({"validation", "invalid_argument", "invalid_request_error"}),
}
STATUS: dict[int, Kind] = {
    401: "auth",
    402: "credit",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",
    410: "not_found",
    413: "context_too_long",
    424: "server",
    425: "server",
    429: "rate_limit",
    502: "overloaded",
    503: "overloaded",
    504: "timeout",
    524: "timeout",
    529: "overloaded",
}
# A status whose meaning differs between vendors, and the words that may overrule it.
REFINES: dict[int, tuple[Kind, ...]] = {
    400: ("context_too_long", "policy", "auth", "credit", "not_found"),
    403: ("context_too_long", "policy", "credit"),
    404: ("policy",),
    422: ("context_too_long", "policy", "not_found"),
    429: ("credit", "overloaded"),
    500: ("overloaded",),
}
RPC_DURATION = re.compile(r"[0-9]{1,6}(?:[.][0-9]{1,9})?s")
LONGEST_DETAIL = 200
SHORTEST_QUOTE = 12
SECRET = re.compile(
    r"\b(?:bearer\s+\S+|(?:sk|pk|hf|gsk|xai|alp|key)[-_][\w*.-]{4,}|[\w-]*\*{3,}[\w*-]*|[\w-]{32,})",
    re.IGNORECASE,
)


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    secrets: Iterable[str] = (),
    said: Iterable[str] = (),
) -> ProviderError:
    """The error of an HTTP answer that is not 200. `secrets` and `said` (the prompt) never appear in its
    detail."""
    found = _parsed(body)
    words, text, _ = _understand(found)
    kind = _kind_of_status(status, words, text)
    retry_after_s = _retry_after_s(headers)
    retryable = kind in WORTH_RETRYING and status not in (410, 501)
    if status == 402 and retry_after_s is not None and kind == "credit":
        kind, retryable = ("rate_limit", True)  # OpenRouter: running calls hold the budget for a moment
    told = headers.get("x-should-retry", "").lower()
    if told in ("true", "false") and kind != "credit":
        retryable = told == "true"
    if kind == "rate_limit" and _is_used_up(found):
        retryable, retry_after_s = False, None  # the wait that it names is not until midnight
    elif retry_after_s is None:
        retry_after_s = _rpc_delay_s(found) or _told_in_body_s(found)
    return ProviderError(
        kind,
        retryable=retryable,
        status=status,
        retry_after_s=retry_after_s,
        request_id=_request_id(found),
        detail=_detail(status, words, text, secrets, said),
    )


def in_answer(found: Any, *, secrets: Iterable[str] = (), said: Iterable[str] = ()) -> ProviderError:
    """The error of a JSON object with status 200 that reports a failure: a chunk in mid-stream, or a whole
    body."""
    words, text, status = _understand(found)
    kind = (
        _kind_of_status(status, words, text)
        if status
        else _kind_of_words(words, text, tuple(WORDS)) or "server"
    )
    return ProviderError(
        kind,
        status=status,
        retry_after_s=_loading_s(found) or _rpc_delay_s(found) or _told_in_body_s(found),
        request_id=_request_id(found),
        detail=_detail(status, words, text, secrets, said),
    )


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace").strip()
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return "" if text.startswith("<") else text


def _understand(body: Any) -> tuple[tuple[str, ...], str, int | None]:
    """(type and code words, message, status said inside) of any error body."""
    if isinstance(body, list):
        body = body[0] if body else ""
    if not isinstance(body, dict):
        return (), body if isinstance(body, str) else "", None
    error = body.get("error")
    if isinstance(error, list):
        error = "; ".join(part for part in error if isinstance(part, str))
    source = error if isinstance(error, dict) else body
    metadata = source.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    told = source.get("details")
    details = told if isinstance(told, dict) else {}
    named = [
        *(detail.get("reason") for detail in _rpc_details(body)),
        source.get("status"),
        details.get("error_code"),
        source.get("code"),
        source.get("type"),
        body.get("error_type"),
        metadata.get("error_type"),
    ]
    words = [word.lower() for word in named if isinstance(word, str)]
    if "flagged_input" in metadata or "reasons" in metadata:
        words.append("content_policy_violation")
    numbers = (
        source.get("code"),
        source.get("http_status_code"),
        body.get("status_code"),
        source.get("status"),
    )
    status = next((number for number in map(_error_status, numbers) if number), None)
    return tuple(words), error if isinstance(error, str) else _message(source), status


def _message(source: dict[str, Any]) -> str:
    message = source.get("message") or source.get("detail") or source.get("msg") or ""
    if isinstance(message, list):  # a validator's list: what is wrong, not what was sent
        message = "; ".join(str(part.get("msg", "")) for part in message if isinstance(part, dict))
    return message if isinstance(message, str) else ""


def _error_status(value: Any) -> int | None:
    if isinstance(value, str) and value.isdecimal() and len(value) == 3:
        value = int(value)
    return value if type(value) is int and 400 <= value <= 599 else None


def _kind_of_status(status: int, words: tuple[str, ...], text: str) -> Kind:
    refined = _kind_of_words(words, text, REFINES.get(status, ()))
    if refined:
        return refined
    if status == 400 and "token seems invalid" in text:
        return "auth"  # the old hosted inference of Hugging Face
    if 300 <= status < 400:
        return "bad_response"  # redirects are not followed: the key would go along
    return STATUS.get(status) or ("server" if status >= 500 else "bad_request")


def _kind_of_words(words: tuple[str, ...], text: str, kinds: tuple[Kind, ...]) -> Kind | None:
    for kind in kinds:
        if not WORDS[kind].isdisjoint(words):
            return kind
        if kind == "context_too_long" and CONTEXT.search(text):
            return kind
        if kind == "credit" and SPENT.search(text):
            return kind
        if kind == "overloaded" and ("currently loading" in text or "overloaded" in text.lower()):
            return kind
    return None


def _retry_after_s(headers: Mapping[str, str]) -> int | None:
    try:
        return max(0, ceil(int(headers["retry-after-ms"]) / 1000))
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and len(value) <= 9:
        return int(value)
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0, ceil((when - datetime.now(UTC)).total_seconds()))


def _request_id(found: Any) -> str:
    """Anthropic's id of the request, which it repeats in the body of an error."""
    named = found.get("request_id") if isinstance(found, dict) else None
    return named[:200] if isinstance(named, str) and named.isprintable() else ""


def _rpc_details(found: Any) -> list[dict[str, Any]]:
    """The `details` of a Google error, each an object with its own `@type`."""
    if isinstance(found, list):
        found = found[0] if found else None
    error = found.get("error") if isinstance(found, dict) else None
    details = error.get("details") if isinstance(error, dict) else None
    return [detail for detail in details if isinstance(detail, dict)] if isinstance(details, list) else []


def _rpc_delay_s(found: Any) -> int | None:
    """How long Google asks to wait: a `RetryInfo` in the body, not a header."""
    for detail in _rpc_details(found):
        delay = detail.get("retryDelay")
        if isinstance(delay, str) and RPC_DURATION.fullmatch(delay):
            return ceil(float(delay[:-1]))
    return None


def _told_in_body_s(found: Any) -> int | None:
    """The provider's `retry-after` as our n8n workflow passes it on."""
    error = found.get("error") if isinstance(found, dict) else None
    told = error.get("retry_after") if isinstance(error, dict) else None
    return int(told) if isinstance(told, int | str) and re.fullmatch(r"[0-9]{1,6}", str(told)) else None


def _is_used_up(found: Any) -> bool:
    """Whether a quota of Google's that lasts for a day is used up: the delay it names does not help."""
    violations = [detail.get("violations") for detail in _rpc_details(found)]
    named = [each for some in violations if isinstance(some, list) for each in some if isinstance(each, dict)]
    return any("PerDay" in str(each.get("quotaId")) for each in named)


def _loading_s(found: Any) -> int | None:
    seconds = found.get("estimated_time") if isinstance(found, dict) else None
    return ceil(seconds) if isinstance(seconds, int | float) and 0 <= seconds < 86400 else None


def _detail(
    status: int | None, words: tuple[str, ...], text: str, secrets: Iterable[str], said: Iterable[str]
) -> str:
    head = " ".join(filter(None, (f"HTTP {status}" if status else "", *dict.fromkeys(words))))
    detail = ": ".join(filter(None, (head, text[:1000])))
    for secret in filter(None, secrets):
        detail = detail.replace(secret, "[key]")
    detail = SECRET.sub("[key]", detail)
    detail = "".join(sign if sign.isprintable() else " " for sign in detail)
    return _without_quotes(detail, tuple(said))[:LONGEST_DETAIL]


def _without_quotes(detail: str, said: tuple[str, ...]) -> str:
    """The detail without the passages that also stand in the prompt: validators like to repeat their
    input."""
    quoted = [False] * len(detail)
    for at in range(len(detail) - SHORTEST_QUOTE + 1):
        window = detail[at : at + SHORTEST_QUOTE]
        if any(window in words for words in said):
            quoted[at : at + SHORTEST_QUOTE] = [True] * SHORTEST_QUOTE
    return re.sub(
        "\0+", "[prompt]", "".join("\0" if hide else sign for hide, sign in zip(quoted, detail, strict=True))
    )
