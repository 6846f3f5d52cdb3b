"""Prices that others publish: genai-prices, a development dependency. For `usage.proposals` only.

Its data lies in the package, so nothing is fetched. It is no authority: `STALE` names what it has wrong.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, time
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from usage.models import MIDNIGHT, PRICE_PLACES, ModelPrice

try:
    import genai_prices
    from genai_prices import data_snapshot
    from genai_prices.types import ConditionalPrice, TieredPrices, TimeOfDateConstraint
except ImportError:
    genai_prices = None  # type: ignore[assignment]

PROVIDERS = {
    "openai": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "deepseek": "deepseek",
    "together": "together",
    "cerebras": "cerebras",
    "openrouter": "openrouter",
}
ROUTED = "huggingface"
"""Its model ids end in who answers; genai-prices has a provider for each."""

STALE = {
    ("deepseek", "deepseek-chat"): "an older price than the last one before the name was retired",
    ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"): "0.88; Together asked 1.04 to the end",
}
FIGURES = {
    "input_usd_per_million": "input_mtok",
    "cached_input_usd_per_million": "cache_read_mtok",
    "cache_write_usd_per_million": "cache_write_mtok",
    "cache_write_1h_usd_per_million": "cache_write_1h_mtok",
    "output_usd_per_million": "output_mtok",
}
SMALLEST = Decimal(1).scaleb(-PRICE_PLACES)


@dataclass(frozen=True, slots=True)
class Published:
    """A price for prompts above a size and in a window of the day; `figures` by the columns of `ModelPrice`, without those
    that are not said."""

    above_input_tokens: int
    from_utc: time
    to_utc: time
    figures: dict[str, Decimal]


def is_installed() -> bool:
    return genai_prices is not None


def source() -> str:
    return f"genai-prices {genai_prices.__version__}" if is_installed() else ""


def prices_of(provider: str, model: str, at: datetime) -> list[Published]:
    """What is published for a model on a day; nothing where it is not known, or known to be wrong."""
    name, _colon, router = model.partition(":") if provider == ROUTED else (model, "", "")
    published_by = f"{ROUTED}_{router}" if router else PROVIDERS.get(provider)
    if published_by is None or (provider, model) in STALE:
        return []
    try:
        _provider, found = data_snapshot.get_snapshot().find_provider_model(name, None, published_by, None)
    except LookupError:
        return []
    windows = list(_windows(found.prices))
    days = [at.astimezone(UTC).replace(hour=hour, minute=0) for hour in range(24)]
    usual = next(hour for hour in days if not any(_is_in(hour, window) for window in windows))
    lanes = list(_by_size(found.get_prices(usual), MIDNIGHT, MIDNIGHT))
    for start, end in windows:
        lanes += _by_size(found.get_prices(usual.replace(hour=start.hour, minute=start.minute)), start, end)
    return lanes


def _windows(prices: Any) -> Iterator[tuple[time, time]]:
    for price in prices if isinstance(prices, list) else ():
        if isinstance(price, ConditionalPrice) and isinstance(price.constraint, TimeOfDateConstraint):
            yield (
                price.constraint.start_time.replace(tzinfo=None),
                price.constraint.end_time.replace(tzinfo=None),
            )


def _is_in(moment: datetime, window: tuple[time, time]) -> bool:
    return window[0] <= moment.time() < window[1]


def _by_size(prices: Any, start: time, end: time) -> Iterator[Published]:
    said = {column: getattr(prices, name, None) for column, name in FIGURES.items()}
    sizes = {0} | {
        tier.start for each in said.values() if isinstance(each, TieredPrices) for tier in each.tiers
    }
    for size in sorted(sizes):
        figures = {column: _at_size(each, size) for column, each in said.items() if each is not None}
        if "input_usd_per_million" in figures:
            figures.setdefault("output_usd_per_million", Decimal(0))
            yield Published(size, start, end, figures)


def _at_size(price: Any, size: int) -> Decimal:
    if isinstance(price, TieredPrices):
        reached = [tier.price for tier in price.tiers if tier.start <= size] if size else []
        price = reached[-1] if reached else price.base
    return Decimal(price).quantize(SMALLEST, rounding=ROUND_HALF_EVEN)


def differences(ours: ModelPrice, published: Published) -> dict[str, Decimal]:
    """The figures that are published otherwise than ours. What is not published says nothing."""
    return {column: usd for column, usd in published.figures.items() if _known(ours, column) != usd}


def _known(ours: ModelPrice, column: str) -> Decimal | None:
    """What a class costs by our row: without a figure of its own what fresh input costs."""
    usd: Decimal | None = getattr(ours, column)
    return ours.input_usd_per_million if usd is None and "cache" in column else usd
