"""What a call costs us in USD: the price that was valid when it began, and the sum. A door of this app.

Prices are rows that staff edit (`usage.price_list` holds the first ones). A call keeps the row it was priced with, and
its figures.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from django.db.models import Q

from aleph.prepared import Given, Rows
from usage.counts import Counts
from usage.models import MIDNIGHT, ModelPrice

ANY_MODEL = "*"
EVERY_DAY = "1234567"
MILLION = Decimal(1_000_000)
PLACES = Decimal("1E-12")
SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")
"""OpenAI and Anthropic answer with the dated name of what was asked for: gpt-4o-2024-08-06."""


VALID_AT = Rows(
    lambda: ModelPrice.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=Given("at")),
        provider=Given("provider"),
        model__in=[Given("first"), Given("second"), Given("third"), ANY_MODEL],
        valid_from__lte=Given("at"),
    ).order_by("-above_input_tokens", "-valid_from", "-pk")
)


@dataclass(frozen=True, slots=True)
class Cost:
    """USD, each to twelve places; all None where nobody knows the price."""

    input_usd: Decimal | None
    output_usd: Decimal | None
    total_usd: Decimal | None


def price_at(
    provider: str, model: str, at: datetime, *, requested: str = "", input_tokens: int = 0
) -> ModelPrice | None:
    """The price of a call that began at a moment, with a prompt of `input_tokens`: of `model` itself, else of its undated
    name, else of the model that was `requested`, else the provider's `*`. None where there is no price.

    Of several of one name, the one for the longest prompts holds, then one for a window of the week before one for any
    time, then the one that begins last.
    """
    names = [name for name in (model, SNAPSHOT.sub("", model), requested, ANY_MODEL) if name]
    first, second, third = (*names, *[ANY_MODEL] * 3)[:3]
    valid = VALID_AT.all(provider=provider, first=first, second=second, third=third, at=at)
    fitting = [price for price in valid if _fits(price, at, input_tokens)]
    return min(fitting, key=lambda price: _rank(price, names), default=None)


def dearest_between(
    provider: str, model: str, since: datetime, until: datetime, *, input_tokens: int
) -> tuple[Decimal, Decimal] | None:
    """The highest that a call can cost in this time, in USD per million of input (what is written to a cache counts as
    input) and of output, at any hour and with a prompt of at most `input_tokens`. None where there is no price."""
    valid = ModelPrice.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=since),
        provider=provider,
        model__in={model, ANY_MODEL},
        valid_from__lte=until,
        above_input_tokens__lt=max(1, input_tokens),
    ).order_by("valid_from")
    rows = [price for price in valid if price.model == model] or list(valid)
    # Of rows that take over from each other without an end, those before the one that holds at the beginning are history.
    current = [row for row in rows if not any(_is_past(row, other, since) for other in rows)]
    if not current:
        return None
    inputs = [
        max(row.input_usd_per_million, row.cache_write_usd_per_million or Decimal(0)) for row in current
    ]
    return max(inputs), max(row.output_usd_per_million for row in current)


def _is_past(row: ModelPrice, other: ModelPrice, at: datetime) -> bool:
    same = all(getattr(row, name) == getattr(other, name) for name in ModelPrice.LANE)
    return same and row.valid_from < other.valid_from <= at


def valid_by_model(at: datetime) -> dict[tuple[str, str], list[ModelPrice]]:
    """The prices that hold at a moment, of sizes and windows of all kinds, by provider and model; without defaults."""
    valid = (
        ModelPrice.objects.filter(Q(valid_to=None) | Q(valid_to__gt=at), valid_from__lte=at)
        .exclude(model=ANY_MODEL)
        .order_by("provider", "model", "above_input_tokens", "from_utc", "-valid_from", "-pk")
    )
    found: dict[tuple[str, str], list[ModelPrice]] = {}
    for price in valid:
        found.setdefault((price.provider, price.model), []).append(price)
    return found


def _fits(price: ModelPrice, at: datetime, input_tokens: int) -> bool:
    is_long = not price.above_input_tokens or input_tokens > price.above_input_tokens
    return is_long and price.holds_at(at)


def _rank(price: ModelPrice, names: list[str]) -> tuple[int, int, bool]:
    return names.index(price.model), -price.above_input_tokens, not price.is_windowed


def clashes(said: ModelPrice, *, apart_from: int | None = None) -> list[ModelPrice]:
    """Stored prices that would be valid together with this one, for prompts of the same size and at the same hours, so
    that nobody could tell which holds. A price without an end is followed by one that begins later, which is no clash.
    """
    others = ModelPrice.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=said.valid_from),
        provider=said.provider,
        model=said.model,
        above_input_tokens=said.above_input_tokens,
    )
    if said.valid_to is not None:
        others = others.filter(valid_from__lt=said.valid_to)
    return [
        other
        for other in others.exclude(pk=apart_from or 0).order_by("valid_from")
        if other.is_windowed == said.is_windowed and _meet(other, said) and not _follow(other, said)
    ]


def _meet(one: ModelPrice, other: ModelPrice) -> bool:
    """Whether the windows have a minute in common."""
    days = set(one.weekdays or EVERY_DAY) & set(other.weekdays or EVERY_DAY)
    return bool(days) and _begins_within(one, other) | _begins_within(other, one)


def _begins_within(one: ModelPrice, other: ModelPrice) -> bool:
    return other.from_utc <= one.from_utc and (other.to_utc == MIDNIGHT or one.from_utc < other.to_utc)


def _follow(one: ModelPrice, other: ModelPrice) -> bool:
    """Whether one takes over from the other: the same window, and the earlier has no end."""
    earlier, later = sorted((one, other), key=lambda price: price.valid_from)
    is_same = (one.weekdays, one.from_utc, one.to_utc) == (other.weekdays, other.from_utc, other.to_utc)
    return is_same and earlier.valid_to is None and earlier.valid_from < later.valid_from


def cost(price: ModelPrice | None, counts: Counts) -> Cost:
    """What these tokens cost at this price. A class that is not known costs nothing; a class without a price of its
    own costs what fresh input costs, and what is kept for an hour what is kept for the usual time."""
    if price is None:
        return Cost(None, None, None)
    fresh = price.input_usd_per_million
    cached = _or(price.cached_input_usd_per_million, fresh)
    written = _or(price.cache_write_usd_per_million, fresh)
    kept = _or(price.cache_write_1h_usd_per_million, written)
    input_usd = rounded(
        (
            (counts.fresh_input or 0) * fresh
            + (counts.cache_read or 0) * cached
            + (counts.cache_write or 0) * written
            + (counts.cache_write_1h or 0) * kept
        )
        / MILLION
    )
    output_usd = rounded(counts.output_tokens * price.output_usd_per_million / MILLION)
    return Cost(input_usd, output_usd, input_usd + output_usd)


def _or(usd: Decimal | None, otherwise: Decimal) -> Decimal:
    return otherwise if usd is None else usd


def rounded(usd: Decimal) -> Decimal:
    """To twelve places, half to even. Prices have six places a million, so what comes out of one is exact already."""
    return usd.quantize(PLACES, rounding=ROUND_HALF_EVEN)
