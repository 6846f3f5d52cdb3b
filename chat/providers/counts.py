"""Turns the `usage` object of an OpenAI-compatible answer into `Counts`. The one place where usage is
normalised.

Containment differs between vendors; in this family the details are parts of the totals: cached and written
tokens of `prompt_tokens`, reasoning of `completion_tokens`.
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
