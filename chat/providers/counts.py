"""Turns the `usage` object of an answer into `Counts`. The one place where usage is normalised.

Containment differs between vendors. For OpenAI and all who follow it the details are parts of the totals: cached and
written tokens of `prompt_tokens`, reasoning of `completion_tokens`. For Anthropic the classes of input are disjoint.
For Gemini the cache is part of the input, and thoughts stand beside the output.
"""

from typing import Any

from chat.providers.base import Counts

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
        cache_write=written,
        visible_output=None if total_out is None else total_out - (thought or 0),
        reasoning=thought,
        provider_input=total_in,
        provider_output=total_out,
        flagged=seen.nonsense or thought != thinking,
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
