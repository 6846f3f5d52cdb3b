"""Turns the `usage` object of an answer into `Counts`. The one place where usage is normalised.

Containment differs between vendors. For OpenAI and all who follow it the details are parts of the totals: cached and
written tokens of `prompt_tokens`, reasoning of `completion_tokens`. For Anthropic the classes of input are disjoint.
For Gemini the cache is part of the input, and thoughts stand beside the output. Ollama and text-generation-inference
split nothing off but Ollama's cache.
"""

from typing import Any

from chat.providers.base import Counts

RESPONSES = {
    "input_tokens": "prompt_tokens",
    "output_tokens": "completion_tokens",
    "input_tokens_details": "prompt_tokens_details",
    "output_tokens_details": "completion_tokens_details",
}
"""OpenAI's Responses API, by the names of its chat completions."""
LANGCHAIN = {
    "promptTokens": "prompt_tokens",
    "completionTokens": "completion_tokens",
    "totalTokens": "total_tokens",
}
MOST_TOKENS = 1_000_000_000  # a count above this is nonsense, and would not fit the columns it is stored in


def read(usage: object) -> Counts | None:
    """The counts, or None when the object says nothing that can be used. A field that is absent, negative,
    absurd or not a whole number is unknown; all but absence flag the counts."""
    if not isinstance(usage, dict):
        return None
    seen = _Fields()
    total_in = seen.number(usage, "prompt_tokens")
    total_out = seen.number(usage, "completion_tokens")
    if total_in is None and total_out is None:
        return None
    total = seen.number(usage, "total_tokens")
    in_details = usage.get("prompt_tokens_details")
    cached = seen.number(usage, "prompt_cache_hit_tokens")  # DeepSeek's own name comes first
    if cached is None:
        cached = seen.number(in_details, "cached_tokens")
    missed = seen.number(usage, "prompt_cache_miss_tokens")
    written = seen.number(in_details, "cache_write_tokens")
    reasoning = seen.number(usage.get("completion_tokens_details"), "reasoning_tokens")

    cached_in, written_in, thought = cached, written, reasoning
    if total_in is not None:
        cached_in = _at_most(cached, total_in)
        written_in = _at_most(written, total_in - (cached_in or 0))
    if total_out is not None:
        thought = _at_most(reasoning, total_out)
    return Counts(
        fresh_input=None if total_in is None else total_in - (cached_in or 0) - (written_in or 0),
        cache_read=cached_in,
        cache_write=written_in,
        visible_output=None if total_out is None else total_out - (thought or 0),
        reasoning=thought,
        provider_input=total_in,
        provider_output=total_out,
        provider_total=total,
        flagged=(
            seen.nonsense
            or (cached_in, written_in, thought) != (cached, written, reasoning)
            or (total is not None and total != (total_in or 0) + (total_out or 0))
            or (missed is not None and missed + (cached or 0) != total_in)
        ),
    )


def read_anthropic(usage: object) -> Counts | None:
    """The counts of Anthropic's Messages API, where `input_tokens` leaves out what was read from the cache or written to
    it, and `output_tokens` includes the thinking. Unknown and absurd fields are as in `read`."""
    if not isinstance(usage, dict):
        return None
    seen = _Fields()
    fresh = seen.number(usage, "input_tokens")
    written = seen.number(usage, "cache_creation_input_tokens")
    kept = seen.number(usage.get("cache_creation"), "ephemeral_1h_input_tokens") or None
    kept_1h = _at_most(kept, written or 0)
    cached = seen.number(usage, "cache_read_input_tokens")
    total_out = seen.number(usage, "output_tokens")
    if fresh is None and total_out is None:
        return None
    thinking = seen.number(usage.get("output_tokens_details"), "thinking_tokens")
    thought = thinking if total_out is None else _at_most(thinking, total_out)
    total_in = None
    if fresh is not None:
        total_in = seen.number({"sum": fresh + (cached or 0) + (written or 0)}, "sum")
    return Counts(
        fresh_input=fresh,
        cache_read=cached,
        cache_write=None if written is None else written - (kept_1h or 0),
        cache_write_1h=kept_1h,
        visible_output=None if total_out is None else total_out - (thought or 0),
        reasoning=thought,
        provider_input=total_in,
        provider_output=total_out,
        flagged=seen.nonsense or thought != thinking or kept_1h != kept,
    )


def read_gemini(usage: object) -> Counts | None:
    """The counts of Gemini's `usageMetadata`, in which an absent field is 0: `promptTokenCount` includes the cache,
    `candidatesTokenCount` leaves out the thoughts, `toolUsePromptTokenCount` is more input. A prompt is never empty, so
    its absence is unknown all the same; an absent output is what the total has beyond the rest."""
    if not isinstance(usage, dict):
        return None
    seen = _Fields()
    said = seen.number(usage, "promptTokenCount")
    visible = seen.number(usage, "candidatesTokenCount")
    reasoning = seen.number(usage, "thoughtsTokenCount")
    if said is None and visible is None and reasoning is None:
        return None
    thought = reasoning or 0
    total = seen.number(usage, "totalTokenCount")
    tools = seen.number(usage, "toolUsePromptTokenCount") or 0
    cached = seen.number(usage, "cachedContentTokenCount") or 0
    total_in = None if said is None else said + tools
    if visible is None:
        visible = max(0, (total or 0) - total_in - thought) if total_in is not None else 0
    cached_in = cached if total_in is None else min(cached, total_in)
    return Counts(
        fresh_input=None if total_in is None else total_in - cached_in,
        cache_read=cached_in,
        visible_output=visible,
        reasoning=thought,
        provider_input=total_in,
        provider_output=visible + thought,
        provider_total=total,
        flagged=(
            seen.nonsense
            or cached_in != cached
            or (total is not None and total != (total_in or 0) + visible + thought)
        ),
    )


def read_ollama(usage: object, *, words: int = 0) -> Counts | None:
    """The counts of Ollama's last line: `eval_count` includes the thinking, and a field that would be 0 is absent.

    Before 0.30 `prompt_eval_count` left out what was taken from the cache. `words`: those of the prompt; no vocabulary
    has less than half a token for a word, so a count below that is not the whole prompt's and the input is unknown.
    """
    if not isinstance(usage, dict):
        return None
    seen = _Fields()
    total_in = seen.number(usage, "prompt_eval_count")
    total_out = seen.number(usage, "eval_count")
    if total_in is not None and total_in * 2 < words:
        total_in = None
    if total_in is None and total_out is None:
        return None
    cached = seen.number(usage, "prompt_eval_cached_count")
    cached_in = None if total_in is None or cached is None else _at_most(cached, total_in)
    return Counts(
        fresh_input=None if total_in is None else total_in - (cached_in or 0),
        cache_read=cached_in,
        visible_output=total_out,
        provider_input=total_in,
        provider_output=total_out,
        flagged=seen.nonsense or (total_in is not None and cached_in != cached),
    )


def read_tgi(details: object, *, prompt_tokens: int | None = None) -> Counts | None:
    """The counts in the `details` of text-generation-inference. The input is told by newer servers' streams
    (`input_length`), by a `prefill` that is not empty, or by a header (`prompt_tokens`)."""
    if not isinstance(details, dict):
        return None
    seen = _Fields()
    total_out = seen.number(details, "generated_tokens")
    prefill = details.get("prefill")
    total_in = seen.number(details, "input_length")
    if total_in is None:
        total_in = prompt_tokens
    if total_in is None and isinstance(prefill, list) and prefill:
        total_in = len(prefill)
    if total_in is None and total_out is None:
        return None
    return Counts(
        fresh_input=total_in,
        visible_output=total_out,
        provider_input=total_in,
        provider_output=total_out,
        flagged=seen.nonsense,
    )


def read_any(usage: object) -> Counts | None:
    """The counts of a raw usage object of which nobody says whose it is; its names tell. A bare total gives
    `provider_total` alone."""
    if not isinstance(usage, dict):
        return None
    if usage.keys() & {"promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount"}:
        return read_gemini(usage)
    if usage.keys() & {"prompt_eval_count", "eval_count"}:
        return read_ollama(usage)
    if usage.keys() & {"generated_tokens", "input_length"}:
        return read_tgi(usage)
    if "input_tokens_details" in usage or ("input_tokens" in usage and "total_tokens" in usage):
        return read(_named(usage, RESPONSES))
    if usage.keys() & {"input_tokens", "output_tokens"}:
        return read_anthropic(usage)
    if usage.keys() & {"promptTokens", "completionTokens"}:
        return read(_named(usage, LANGCHAIN))
    found = read(usage)
    return found if found is not None else read_total(usage.get("total_tokens", usage.get("totalTokens")))


def read_total(total: object) -> Counts | None:
    """The counts where no more than their sum is told."""
    seen = _Fields()
    told = seen.number({"total": total}, "total")
    return None if told is None else Counts(provider_total=told)


def _named(usage: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in usage.items()}


class _Fields:
    """Reads numbers, and remembers whether one was there that is none."""

    def __init__(self) -> None:
        self.nonsense = False

    def number(self, holder: Any, name: str) -> int | None:
        value = holder.get(name) if isinstance(holder, dict) else None
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and 0 <= value <= MOST_TOKENS:
            return value
        self.nonsense = True
        return None


def _at_most(count: int | None, limit: int) -> int | None:
    return None if count is None else min(count, limit)
