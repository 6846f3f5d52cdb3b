"""What a call costs us in USD: the price that was valid when it began, and the sum. A door of this app.

Prices are rows that staff edit (`usage.price_list` holds the first ones). A call keeps the row it was priced with.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal

from django.db.models import Q

from usage.counts import Counts
from usage.models import ModelPrice

ANY_MODEL = "*"
MILLION = Decimal(1_000_000)
PLACES = Decimal("1E-12")
SNAPSHOT = re.compile(r"-(?:\d{8}|\d{4}-\d{2}-\d{2})$")
"""OpenAI and Anthropic answer with the dated name of what was asked for: gpt-4o-2024-08-06."""


@dataclass(frozen=True, slots=True)
class Cost:
    """USD, each to twelve places; all None where nobody knows the price."""

    input_usd: Decimal | None
    output_usd: Decimal | None
    total_usd: Decimal | None


def price_at(provider: str, model: str, at: datetime, *, requested: str = "") -> ModelPrice | None:
    """The price of `model` at a moment: its own, else that of its undated name, else that of the model that was
    `requested`, else the provider's `*`. None where there is no price."""
    names = [name for name in (model, SNAPSHOT.sub("", model), requested, ANY_MODEL) if name]
    valid = ModelPrice.objects.filter(
        Q(valid_to=None) | Q(valid_to__gt=at), provider=provider, model__in=set(names), valid_from__lte=at
    ).order_by("-valid_from")
    return min(valid, key=lambda price: names.index(price.model), default=None)


def cost(price: ModelPrice | None, counts: Counts) -> Cost:
    """What these tokens cost at this price. A class that is not known costs nothing; a class without a price of its
    own costs what fresh input costs."""
    if price is None:
        return Cost(None, None, None)
    fresh = price.input_usd_per_million
    cached = price.cached_input_usd_per_million
    written = price.cache_write_usd_per_million
    input_usd = rounded(
        (
            (counts.fresh_input or 0) * fresh
            + (counts.cache_read or 0) * (fresh if cached is None else cached)
            + (counts.cache_write or 0) * (fresh if written is None else written)
        )
        / MILLION
    )
    output_usd = rounded(counts.output_tokens * price.output_usd_per_million / MILLION)
    return Cost(input_usd, output_usd, input_usd + output_usd)


def rounded(usd: Decimal) -> Decimal:
    """To twelve places, half to even. Prices have six places a million, so what comes out of one is exact already."""
    return usd.quantize(PLACES, rounding=ROUND_HALF_EVEN)
