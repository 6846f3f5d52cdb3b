"""Why a call cost what it did: its classes of tokens at the prices that held, how much of the prompt was history, what
was cached, and what the same person usually pays for this model."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import NotFound
from usage import costs, currency, neighbours, pricing
from usage.models import CostCorrection, ExchangeRate, ModelPrice, TokenUsage
from usage.neighbours import Prompt

COMPARED = 200
"""Calls before and after that make the median, at most."""
LEAST_COMPARED = 5
MUCH = Decimal(2)
"""So many times the median is much."""
MOSTLY_PERCENT = 60
LONG_PROMPT = 2000
"""LLM tokens from which on it matters whether a prompt was cached."""


@dataclass(frozen=True, slots=True)
class Line:
    """One class of tokens: how many (None: nobody said), the price of a million, and what they came to."""

    name: str
    tokens: int | None
    usd_per_million: Decimal | None
    cost_usd: Decimal | None


@dataclass(frozen=True, slots=True)
class Usual:
    """The medians of the person's own calls of this model and kind; `calls` of them."""

    calls: int
    cost_usd: Decimal
    input_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Explained:
    """`prompt` is None where the reply was deleted or was none, `usual` where there is too little to compare with.
    `reasons` are names of what made it dear, the heaviest first; of an ordinary call there are none. `price` is the one
    that holds for the call by what is known now, `corrections` what has changed its cost since, oldest first."""

    call: TokenUsage
    price: ModelPrice | None
    corrections: Sequence[CostCorrection]
    lines: Sequence[Line]
    cost_idr: int | None
    rate: ExchangeRate | None
    prompt: Prompt | None
    usual: Usual | None
    reasons: Sequence[str]

    @property
    def times(self) -> Decimal | None:
        """How many times the usual it cost."""
        if self.usual is None or not self.usual.cost_usd or self.call.cost_usd is None:
            return None
        return (self.call.cost_usd / self.usual.cost_usd).quantize(Decimal("0.1"))

    @property
    def is_dear(self) -> bool:
        return self.times is not None and self.times >= MUCH

    @property
    def cached_percent(self) -> int | None:
        """What of the prompt was read from a cache; None where nobody said."""
        return cached_percent(self.call)


def of(user: User, call_id: str) -> Explained:
    """One of the user's calls. Raises `NotFound`. Six queries, whatever the call."""
    call = None
    if ids.is_one(call_id, "use"):
        calls = costs.told(TokenUsage.objects.filter(user=user, pk=call_id))
        call = calls.select_related("price").first()
    if call is None:
        raise NotFound
    rate = currency.rate_on(call.created_at.astimezone(ZoneInfo(user.time_zone)).date())
    prompt = neighbours.ask().prompt_of(user, call.operation_id)
    usual = _usual(call)
    entries = CostCorrection.objects.filter(usage=call).select_related("correction__right")
    corrections = list(entries.order_by("correction_id"))
    price = corrections[-1].correction.right if corrections else call.price
    return Explained(
        call=call,
        price=price,
        corrections=corrections,
        lines=_lines(call, price.snapshot if corrections and price else call.unit_prices),
        cost_idr=None if call.cost_usd is None else currency.in_idr(call.cost_usd, rate),
        rate=rate,
        prompt=prompt,
        usual=usual,
        reasons=_reasons(call, usual, prompt),
    )


def cached_percent(call: TokenUsage) -> int | None:
    if call.cache_read_tokens is None or not call.input_tokens:
        return None
    return 100 * call.cache_read_tokens // call.input_tokens


def _lines(call: TokenUsage, unit_prices: dict[str, Any] | None) -> list[Line]:
    """The classes that were reported, and those that always are. What has no price of its own has the one before."""
    kept = unit_prices or (call.price.snapshot if call.price else {})
    said = {name: Decimal(text) for name, text in kept.items() if name in PRICES}
    fresh, output = said.get("input"), said.get("output")
    cached, written = said.get("cached_input", fresh), said.get("cache_write", fresh)
    lines = [
        _line("fresh_input", call.fresh_input_tokens, fresh),
        _line("cache_read", call.cache_read_tokens, cached),
        _line("cache_write", call.cache_write_tokens, written),
        _line("cache_write_1h", call.cache_write_1h_tokens, said.get("cache_write_1h", written)),
        _line("visible_output", call.visible_output_tokens, output),
        _line("reasoning", call.reasoning_tokens, output),
    ]
    return [line for line in lines if line.tokens or line.name in ("fresh_input", "visible_output")]


PRICES = ("input", "cached_input", "cache_write", "cache_write_1h", "output")


def _line(name: str, tokens: int | None, usd_per_million: Decimal | None) -> Line:
    is_known = tokens is not None and usd_per_million is not None
    cost = Decimal(tokens or 0) * (usd_per_million or 0) / pricing.MILLION if is_known else None
    return Line(name, tokens, usd_per_million, cost)


def _usual(call: TokenUsage) -> Usual | None:
    """Of the person's last calls that were asked the same model for the same kind of thing, this one left out."""
    others = (
        costs.told(
            TokenUsage.objects.filter(
                user=call.user_id,
                label=call.label,
                requested_model=call.requested_model,
                operation=call.operation,
                status=TokenUsage.Status.COMPLETE,
                total_cost_usd__isnull=False,
            )
        )
        .exclude(pk=call.pk)
        .exclude(source=TokenUsage.Source.REUSED)
        .order_by("-created_at")
        .values_list("total_cost_usd", "corrected_usd", "input_tokens", "output_tokens")
    )
    found = list(others[:COMPARED])
    if len(found) < LEAST_COMPARED:
        return None
    recorded, added, inputs, outputs = zip(*found, strict=True)
    usd = median([cost + more for cost, more in zip(recorded, added, strict=True)])
    return Usual(len(found), usd, round(median(inputs)), round(median(outputs)))


def _reasons(call: TokenUsage, usual: Usual | None, prompt: Prompt | None) -> list[str]:
    """What of this call was large: compared with the usual, or, with nothing to compare it with, by itself."""
    if usual is not None and (call.cost_usd is None or call.cost_usd < MUCH * usual.cost_usd):
        return []
    reasons: list[tuple[Decimal, str]] = []
    is_long = call.input_tokens >= (MUCH * usual.input_tokens if usual else LONG_PROMPT)
    input_usd, output_usd = call.input_usd or Decimal(0), call.output_usd or Decimal(0)
    if is_long:
        is_history = prompt is not None and prompt.earlier_percent >= MOSTLY_PERCENT
        reasons.append((input_usd, "history" if is_history else "long_prompt"))
        if not cached_percent(call) and call.input_tokens >= LONG_PROMPT:
            reasons.append((input_usd / 2, "not_cached"))
    thought = call.reasoning_tokens or 0
    if usual is not None and call.output_tokens >= max(Decimal(1), MUCH * usual.output_tokens):
        reasons.append((output_usd, "reasoning" if 2 * thought >= call.output_tokens else "long_reply"))
    elif 2 * thought >= call.output_tokens > 0:
        reasons.append((output_usd, "reasoning"))
    return [name for _weight, name in sorted(reasons, reverse=True)]
