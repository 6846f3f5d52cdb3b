"""Each failure that a provider's documentation names, once, through the whole product: what the reader is told, that it
costs nothing, and what the usage row says. The bodies are the vendors' own."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import pytest
from django.test import Client

from aleph import ids
from chat import catalogue, replies, turns
from chat.models import Message
from tests import people
from tests.canned import Canned, CannedServer
from tests.stories_of_chat import (
    answered,
    assert_books_are_right,
    available,
    calls_of,
    ending_of,
    held,
    special_model,
)

BUSY = "Simulator has too much to do at the moment"
OURS = "Faulty cannot be reached by us at the moment"
TOO_LONG = "This chat is too long for Faulty"
REFUSED = "Simulator does not answer this message"
AWAY = "Simulator is not answering at the moment"
BROKE_OFF = "Simulator broke off in the middle of the reply"
TOLD = {
    "auth": OURS,
    "credit": OURS,
    "not_found": OURS,
    "bad_request": OURS,
    "rate_limit": BUSY,
    "overloaded": BUSY,
    "context_too_long": TOO_LONG,
    "policy": REFUSED,
    "broken_stream": BROKE_OFF,
}
"""What a reader is told where it is not `AWAY`, or `BROKE_OFF` after a part of the text."""
TWICE = frozenset({"overloaded", "server"})
"""Failures after which the only route is asked once more (`rate_limit` names a wait here that is too long)."""
NOT_AGAIN = ("n8n",)
"""A gateway that goes on working, and being paid for, when nobody listens."""
PAGE = "<html><body><h1>Bad Gateway</h1></body></html>"
WAIT = {"Retry-After": "20"}


@dataclass(frozen=True)
class Fault:
    """What a provider sends, and the name that we have for it. `text`: what of the answer came before."""

    provider: str
    name: str
    kind: str
    status: int
    body: str
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    is_asked_twice: bool | None = None

    def __str__(self) -> str:
        return f"{self.provider}-{self.name}"


def openai_error(message: str, kind: str | None, code: Any, **more: Any) -> str:
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code, **more}})


def anthropic_error(kind: str, message: str, code: str = "") -> str:
    error = {"type": kind, "message": message} | ({"details": {"error_code": code}} if code else {})
    return json.dumps({"type": "error", "error": error, "request_id": "req_011AlephSample"})


def google_error(code: int, status: str, message: str, *details: dict[str, Any]) -> str:
    error = {"code": code, "message": message, "status": status}
    return json.dumps({"error": error | ({"details": list(details)} if details else {})}, indent=2)


def n8n_error(message: str, **more: Any) -> str:
    return json.dumps({"error": {"message": message, **more}})


def sse(*events: Any) -> str:
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def chunk(text: str) -> dict[str, Any]:
    return {"id": "chatcmpl-A1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def info(kind: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


LOADING = json.dumps({"error": "Model gpt2 is currently loading", "estimated_time": 20.0})
FAULTS = [
    # OpenAI
    Fault("openai", "bad-key", "auth", 401, openai_error("Incorrect API key provided: sk-alep****0001.", "invalid_request_error", "invalid_api_key")),
    Fault("openai", "rate", "rate_limit", 429, openai_error("Rate limit reached", "requests", "rate_limit_exceeded"), WAIT),
    Fault("openai", "slow-down", "rate_limit", 429, openai_error("Slow down", "requests", "slow_down"), WAIT),
    Fault("openai", "no-credit", "credit", 429, openai_error("You have no credit", "insufficient_quota", "credit_balance_exhausted")),
    Fault("openai", "spend-limit", "credit", 429, openai_error("Limit", "insufficient_quota", "project_spend_limit_exceeded")),
    Fault("openai", "too-long", "context_too_long", 400, openai_error("Your input exceeds the window", "invalid_request_error", "context_length_exceeded")),
    Fault("openai", "overloaded", "overloaded", 503, openai_error("Overloaded", "server_error", "server_is_overloaded")),
    Fault("openai", "bad-parameter", "bad_request", 400, openai_error("Unsupported value: temperature", "invalid_request_error", "unsupported_value")),
    Fault("openai", "policy", "policy", 400, openai_error("Rejected", "invalid_request_error", "content_policy_violation")),
    Fault("openai", "retired", "not_found", 404, openai_error("The model does not exist", "invalid_request_error", "model_not_found")),
    Fault("openai", "server", "server", 500, openai_error("The server had an error", "server_error", None)),
    Fault("openai", "in-stream", "overloaded", 200, sse(chunk("Sela"), json.loads(openai_error("Overloaded", "server_error", "server_is_overloaded"))), text="Sela"),
    Fault("openai", "cut", "broken_stream", 200, sse(chunk("Sela")), text="Sela"),
    Fault("openai", "page", "overloaded", 502, PAGE, {"Content-Type": "text/html"}),
    # DeepSeek
    Fault("deepseek", "bad-key", "auth", 401, openai_error("Authentication Fails, Your api key: ****0001 is invalid", "authentication_error", "invalid_request_error")),
    Fault("deepseek", "no-credit", "credit", 402, openai_error("Insufficient Balance", "unknown_error", "invalid_request_error")),
    Fault("deepseek", "too-long", "context_too_long", 400, openai_error("This model's maximum context length is 65536 tokens. However, you requested 70000 tokens", "invalid_request_error", "invalid_request_error")),
    Fault("deepseek", "busy", "rate_limit", 429, openai_error("Rate Limit Reached", "rate_limit", None), WAIT),
    Fault("deepseek", "parameters", "bad_request", 422, openai_error("Invalid parameters", "invalid_request_error", None)),
    Fault("deepseek", "overloaded", "overloaded", 503, openai_error("Server overloaded", None, None)),
    Fault("deepseek", "gave-up", "overloaded", 200, sse({"choices": [{"index": 0, "delta": {"content": "Sela"}, "finish_reason": None}]}, {"choices": [{"index": 0, "delta": {}, "finish_reason": "insufficient_system_resource"}]}), text="Sela"),
    # Cerebras
    Fault("cerebras", "bad-key", "auth", 401, json.dumps({"message": "Wrong API Key", "type": "invalid_request_error", "param": "api_key", "code": "wrong_api_key"})),
    Fault("cerebras", "no-header", "auth", 403, '{"detail":"Not authenticated"}'),
    Fault("cerebras", "no-credit", "credit", 402, json.dumps({"message": "Payment required", "type": "x", "param": "", "code": "payment_required"})),
    Fault("cerebras", "rate", "rate_limit", 429, json.dumps({"message": "Too many", "type": "too_many_requests_error", "param": "quota", "code": "request_quota_exceeded"}), WAIT),
    Fault("cerebras", "too-long", "context_too_long", 400, json.dumps({"message": "Please reduce the length of the messages", "type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"})),
    Fault("cerebras", "in-stream", "overloaded", 200, sse(chunk("Sela"), {"error": {"message": "Too busy", "type": "x", "param": "", "code": "x", "id": ""}, "status_code": 503}), text="Sela"),
    # Together
    Fault("together", "too-long", "context_too_long", 403, openai_error("input token count + max_tokens must be: maximum context length 8192", "invalid_request_error", None)),
    Fault("together", "unavailable", "not_found", 400, openai_error("Unable to access non-serverless model x", "invalid_request_error", "model_not_available")),
    Fault("together", "no-credit", "credit", 402, openai_error("Payment required", "x", None)),
    Fault("together", "rate", "rate_limit", 429, openai_error("Rate limit", "x", None), WAIT),
    Fault("together", "overloaded", "overloaded", 503, openai_error("Overloaded", "x", None)),
    # OpenRouter
    Fault("openrouter", "bad-key", "auth", 401, '{"error":{"message":"No auth credentials found","code":401}}'),
    Fault("openrouter", "no-credit", "credit", 402, '{"error":{"message":"This request requires more credits, or fewer max_tokens.","code":402}}'),
    Fault("openrouter", "in-flight", "rate_limit", 402, '{"error":{"message":"Budget in flight","code":402}}', WAIT),
    Fault("openrouter", "policy", "policy", 403, json.dumps({"error": {"message": "Flagged", "code": 403, "metadata": {"reasons": ["violence"], "flagged_input": "x"}}})),
    Fault("openrouter", "too-long", "context_too_long", 400, json.dumps({"error": {"message": "Too long", "code": 400, "metadata": {"error_type": "context_length_exceeded"}}})),
    Fault("openrouter", "late", "timeout", 524, '{"error":{"message":"Timed out","code":524}}'),
    Fault("openrouter", "provider", "overloaded", 529, '{"error":{"message":"Overloaded","code":529}}'),
    Fault("openrouter", "body-200", "overloaded", 200, '{"error":{"message":"Provider returned error","code":502}}'),
    Fault("openrouter", "in-stream", "overloaded", 200, ": OPENROUTER PROCESSING\n\n" + sse(chunk("Sela"), {"error": {"code": 502, "message": "x", "metadata": {"error_type": "provider_unavailable"}}, "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}]}), text="Sela"),
    # Hugging Face's router
    Fault("huggingface", "unsupported", "not_found", 400, json.dumps({"error": {"message": "The requested model 'x/y' is not supported by any provider you have enabled.", "type": "invalid_request_error", "param": "model", "code": "model_not_supported"}})),
    Fault("huggingface", "bad-key", "auth", 401, '{"error":"Invalid username or password."}'),
    Fault("huggingface", "no-credit", "credit", 402, '{"error":"You have exceeded your monthly included credits for Inference Providers."}'),
    Fault("huggingface", "gated", "auth", 403, '{"error":"Cannot access gated repo"}'),
    Fault("huggingface", "no-model", "not_found", 404, '{"error":"Model not found"}'),
    Fault("huggingface", "dead-host", "not_found", 410, '{"error":"https://api-inference.huggingface.co is no longer supported. Please use https://router.huggingface.co instead."}'),
    Fault("huggingface", "validation", "bad_request", 422, '{"error":"Input validation error: `temperature` must be strictly positive","error_type":"validation"}'),
    Fault("huggingface", "rate", "rate_limit", 429, '{"error":"Too many requests"}', WAIT),
    Fault("huggingface", "gateway", "overloaded", 502, PAGE, {"Content-Type": "text/html"}),
    Fault("compatible", "gone", "overloaded", 503, ""),
    # Anthropic
    Fault("anthropic", "too-long", "context_too_long", 400, anthropic_error("invalid_request_error", "prompt is too long: 205000 tokens > 200000 maximum")),
    Fault("anthropic", "spend-limit", "credit", 400, anthropic_error("invalid_request_error", "You have reached your specified API usage limits: spend limit")),
    Fault("anthropic", "bad-key", "auth", 401, anthropic_error("authentication_error", "invalid x-api-key")),
    Fault("anthropic", "billing", "credit", 402, anthropic_error("billing_error", "Payment")),
    Fault("anthropic", "permission", "auth", 403, anthropic_error("permission_error", "No")),
    Fault("anthropic", "retired", "not_found", 404, anthropic_error("not_found_error", "model: claude-3-haiku-20240307")),
    Fault("anthropic", "conflict", "server", 409, anthropic_error("conflict_error", "Conflict")),
    Fault("anthropic", "too-large", "context_too_long", 413, anthropic_error("request_too_large", "Too large")),
    Fault("anthropic", "rate", "rate_limit", 429, anthropic_error("rate_limit_error", "Slow"), WAIT),
    Fault("anthropic", "ramp", "rate_limit", 429, anthropic_error("rate_limit_error", "Slow", "ramp_limit_exceeded"), WAIT),
    Fault("anthropic", "month-spent", "credit", 429, anthropic_error("rate_limit_error", "Spent", "enforced_spend_limit_reached")),
    Fault("anthropic", "server", "server", 500, anthropic_error("api_error", "Internal")),
    Fault("anthropic", "late", "timeout", 504, anthropic_error("timeout_error", "Late")),
    Fault("anthropic", "overloaded", "overloaded", 529, anthropic_error("overloaded_error", "Overloaded")),
    Fault("anthropic", "in-stream", "overloaded", 200, 'event: message_start\ndata: {"type":"message_start","message":{"id":"m","model":"c","usage":{"input_tokens":21,"output_tokens":1}}}\n\nevent: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Sela"}}\n\nevent: error\ndata: ' + anthropic_error("overloaded_error", "Overloaded") + "\n\n", text="Sela"),
    Fault("anthropic", "refusal", "policy", 200, sse({"type": "message_delta", "delta": {"stop_reason": "refusal", "stop_details": {"category": "cyber"}}, "usage": {"output_tokens": 1}})),
    # Gemini
    Fault("gemini", "bad-key", "auth", 400, google_error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", info("ErrorInfo", reason="API_KEY_INVALID", domain="googleapis.com"))),
    Fault("gemini", "country", "credit", 400, google_error(400, "FAILED_PRECONDITION", "User location is not supported for the API use.")),
    Fault("gemini", "too-long", "context_too_long", 400, google_error(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).")),
    Fault("gemini", "no-credit", "credit", 402, google_error(402, "RESOURCE_EXHAUSTED", "Your prepaid balance is used up.")),
    Fault("gemini", "permission", "auth", 403, google_error(403, "PERMISSION_DENIED", "No")),
    Fault("gemini", "retired", "not_found", 404, google_error(404, "NOT_FOUND", "models/x is not found")),
    Fault("gemini", "rate", "rate_limit", 429, google_error(429, "RESOURCE_EXHAUSTED", "Please retry in 37.8s.", info("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerMinutePerProjectPerModel"}]), info("RetryInfo", retryDelay="37s"))),
    Fault("gemini", "day", "rate_limit", 429, google_error(429, "RESOURCE_EXHAUSTED", "Quota", info("QuotaFailure", violations=[{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]), info("RetryInfo", retryDelay="37s"))),
    Fault("gemini", "internal", "server", 500, google_error(500, "INTERNAL", "An internal error has occurred.")),
    Fault("gemini", "overloaded", "overloaded", 503, google_error(503, "UNAVAILABLE", "The model is overloaded.")),
    Fault("gemini", "late", "timeout", 504, google_error(504, "DEADLINE_EXCEEDED", "Late")),
    Fault("gemini", "blocked", "policy", 200, sse({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}, "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12}})),
    Fault("gemini", "loose", "overloaded", 200, sse({"candidates": [{"content": {"parts": [{"text": "Sela"}]}}]}) + google_error(503, "UNAVAILABLE", "Overloaded") + "\n", text="Sela"),
    # Ollama
    Fault("ollama", "no-chat", "bad_request", 400, '{"error":"\\"nomic-embed-text\\" does not support chat"}'),
    Fault("ollama", "too-long", "context_too_long", 400, '{"error":"the prompt is longer than the context length currently available to the model; shorten it"}'),
    Fault("ollama", "not-pulled", "not_found", 404, "{\"error\":\"model 'x' not found\"}"),
    Fault("ollama", "cloud-limit", "rate_limit", 429, '{"error":"usage limit"}', WAIT),
    Fault("ollama", "memory", "server", 500, '{"error":"llama runner process has terminated: out of memory"}'),
    Fault("ollama", "cloud-away", "overloaded", 502, '{"error":"upstream unreachable"}'),
    Fault("ollama", "busy", "overloaded", 503, '{"error":"server busy, please try again.  maximum pending requests exceeded"}'),
    Fault("ollama", "in-stream", "server", 200, '{"model":"x","message":{"role":"assistant","content":"Sela"},"done":false}\n{"error":"an error was encountered while running the model"}\n', text="Sela"),
    Fault("ollama", "cut", "broken_stream", 200, '{"model":"x","message":{"role":"assistant","content":"Sela"},"done":false}\n', text="Sela"),
    # Text generation inference
    Fault("tgi", "validation", "bad_request", 422, '{"error":"Input validation error: `top_p` must be > 0.0 and < 1.0","error_type":"validation"}'),
    Fault("tgi", "too-long", "context_too_long", 422, json.dumps({"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 4000 `inputs` tokens and 250 `max_new_tokens`", "error_type": "validation"})),
    Fault("tgi", "old-key", "auth", 400, '{"error":"Authorization header is correct, but the token seems invalid"}'),
    Fault("tgi", "failed", "server", 424, '{"error":"Request failed during generation: x","error_type":"generation"}'),
    Fault("tgi", "full", "overloaded", 429, '{"error":"Model is overloaded","error_type":"overloaded"}'),
    Fault("tgi", "incomplete", "server", 500, '{"error":"Incomplete generation","error_type":"incomplete_generation"}'),
    Fault("tgi", "loading", "overloaded", 503, LOADING),
    Fault("tgi", "loading-200", "overloaded", 200, LOADING, is_asked_twice=False),
    Fault("tgi", "in-stream", "server", 200, 'data:{"index":1,"token":{"id":1,"text":"Sela","special":false},"generated_text":null,"details":null}\n\ndata:{"error":"Request failed during generation: CUDA out of memory","error_type":"generation"}\n\n', text="Sela"),
    # n8n
    Fault("n8n", "bad-token", "auth", 403, "Authorization data is wrong!", {"Content-Type": "text/html"}),
    Fault("n8n", "no-credential", "server", 500, "No authentication data defined on node!"),
    Fault("n8n", "unpublished", "not_found", 404, '{"code":404,"message":"The requested webhook \\"POST none\\" is not registered.","hint":"x","stacktrace":"at secret.js"}'),
    Fault("n8n", "starting", "overloaded", 404, "<!DOCTYPE html><pre>Cannot POST /webhook/aleph-chat</pre>", {"Content-Type": "text/html"}, is_asked_twice=True),
    Fault("n8n", "not-json", "bad_request", 422, '{"code":422,"message":"Failed to parse request body","hint":"x","stacktrace":"x"}'),
    Fault("n8n", "node-failed", "server", 500, '{"message":"Error in workflow"}'),
    Fault("n8n", "no-rule", "bad_response", 200, ""),
    Fault("n8n", "no-data", "bad_response", 200, '{"message":"Workflow executed successfully but no data was returned"}'),
    Fault("n8n", "late", "timeout", 500, '{"code":0,"message":"The execution was cancelled because it timed out","stacktrace":"x"}'),
    Fault("n8n", "too-large", "context_too_long", 413, "Payload Too Large"),
    Fault("n8n", "provider-busy", "overloaded", 529, '{"ok":false,"error":{"code":"provider_error","status":529,"message":"Overloaded","retry_after":null}}', is_asked_twice=True),
    Fault("n8n", "provider-rate", "rate_limit", 429, n8n_error("Rate limit reached", code="rate_limit_exceeded", retry_after="20")),
    Fault("n8n", "provider-spent", "credit", 429, n8n_error("You exceeded your current quota", type="insufficient_quota", code="insufficient_quota")),
    Fault("n8n", "no-route", "not_found", 404, n8n_error("No route for this model", code="model_not_found")),
    Fault("n8n", "in-stream", "server", 200, '{"type":"begin","metadata":{}}\n{"type":"item","content":"Sela","metadata":{}}\n{"type":"error","content":"Original error: APIError","metadata":{}}\n', text="Sela"),
]  # fmt: skip


@pytest.fixture(scope="module")
def vendor() -> Iterator[CannedServer]:
    with CannedServer() as server:
        yield server


@pytest.fixture
def connected(
    committed: None, vendor: CannedServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CannedServer]:
    """Every provider there is, all at the one address."""
    monkeypatch.setattr(replies, "PAUSE_S", 0.01)
    names = (
        "openai",
        "deepseek",
        "cerebras",
        "together",
        "openrouter",
        "huggingface",
        "compatible",
        "anthropic",
        "gemini",
        "ollama",
    )
    keys = {f"{name.upper()}_API_KEY": "sk-simulated" for name in names}
    addresses = {f"{name.upper()}_BASE_URL": vendor.address for name in names}
    own = {
        "HF_TGI_BASE_URL": vendor.address,
        "N8N_WEBHOOK_URL": f"{vendor.address}/webhook/aleph-chat",
        "N8N_WEBHOOK_TOKEN": "a-token-of-the-webhook",
    }
    settings.PROVIDER_ENV = {**settings.PROVIDER_ENV, **keys, **addresses, **own}
    catalogue.connected.cache_clear()
    yield vendor
    catalogue.connected.cache_clear()


def reply_by(provider: str) -> Message:
    """What Alice gets from a model that only this provider answers, and that nobody has asked before."""
    alice = people.alice()
    slug = ids.new("flt").lower()
    model = special_model(slug, name="Faulty")
    model.routes.update(provider=provider, upstream_model=slug)
    turn = turns.start(
        user=alice, session=None, text="Selamat pagi!", model_slug=model.slug, turn=ids.new("trn")
    )
    return answered(turn)


def page_of(reply: Message) -> str:
    client = Client(headers={"accept-language": "en"})
    client.force_login(reply.user)
    html = client.get(f"/chat/{reply.session_id}").content.decode()
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_failure_is_told_as_it_is_and_costs_nothing(connected: CannedServer, fault: Fault) -> None:
    connected.says(Canned(fault.status, fault.body, fault.headers))
    reply = reply_by(fault.provider)

    assert (reply.state, reply.error_kind, reply.content) == ("failed", fault.kind, fault.text)
    page = page_of(reply)
    assert TOLD.get(fault.kind, BROKE_OFF if fault.text else AWAY) in page
    assert ("What was written is kept" if fault.text else "Your message is kept") in page
    if fault.headers == WAIT:
        assert re.search(r"Try again in (1\d|20) seconds\.", page)
    assert "stacktrace" not in page
    assert fault.body not in page or not fault.body

    assert (reply.tokens_used, ending_of(reply)) == (0, "void")
    assert (available(reply.user), held(reply.user)) == (10_500, 0)
    calls = calls_of(reply)
    twice = fault.is_asked_twice
    if twice is None:
        twice = fault.kind in TWICE and not fault.text and fault.provider not in NOT_AGAIN
    assert connected.asked == len(calls) == (2 if twice else 1)
    for call in calls:
        assert (call.provider, call.status, call.transfer_id) == (fault.provider, "failed", "")
        assert call.metadata["error"] == fault.kind
        if fault.kind in replies.NOTHING_WAS_USED and not fault.text:
            assert call.total_tokens == 0
        else:
            assert call.input_tokens > 0
    assert_books_are_right()
