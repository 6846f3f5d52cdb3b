"""What a model has to cost in Aleph tokens, so that it earns a stated margin over what its providers take.

    tokens per 1K = ⌈ USD per million ÷ 1,000 × rupiah per USD × (100 + margin) ÷ 100 ÷ rupiah per Aleph token ⌉, at least 1

Each part is taken at its least favourable, so that the margin is a floor and not an average:

- USD per million: the highest that any of the model's routes costs from now until `AHEAD` from now, at any hour of the
  week, for a prompt as long as the model's context; a cache write counts as input. Cached input, which costs less,
  comes on top of the margin.
- rupiah per USD: the rate of today (`usage.currency`).
- rupiah per Aleph token: what the cheapest package on offer takes for one, its bonus included, before discounts.

The list of models (`chat.model_list`) and the administration set rates by it; a rate that is set stays until somebody
sets it again.
"""

from collections.abc import Iterable
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from django.utils import timezone

from billing import purchases
from chat.models import HIGHEST_RATE
from usage import currency, pricing

AHEAD = timedelta(days=60)
"""Changes of price that are announced for this time are in the rates already."""


class Rates(NamedTuple):
    """Aleph tokens per 1K LLM tokens."""

    input: int
    output: int


class NoPrice(Exception):
    """A price is missing, so that nobody can say what the model costs. `what` is the route, "" for rupiah."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


def of(routes: Iterable[tuple[str, str]], *, context_tokens: int, margin_percent: int) -> Rates:
    """The rates of a model that these routes, (provider, the provider's id), answer for. Raises `NoPrice`."""
    now = timezone.now()
    asked = []
    for provider, model in routes:
        dearest = pricing.dearest_between(provider, model, now, now + AHEAD, input_tokens=context_tokens)
        if dearest is None:
            raise NoPrice(f"{provider}/{model}")
        asked.append(dearest)
    rupiah = currency.rate_on(timezone.localdate())
    idr_per_1k = min((package.idr_per_1k for package in purchases.packages()), default=0)
    if not asked or rupiah is None or not idr_per_1k:
        raise NoPrice("")
    factor = rupiah.idr_per_usd * (100 + margin_percent) / 100 / idr_per_1k
    return Rates(*(_rounded(max(usd) * factor) for usd in zip(*asked, strict=True)))


def _rounded(tokens: Decimal) -> int:
    """Up, and nothing is given away. `tokens` per million at rupiah per 1,000 are tokens per 1,000 at rupiah each."""
    return min(HIGHEST_RATE, max(1, int(tokens.to_integral_value(rounding=ROUND_CEILING))))
