"""What somebody sees whose message waits for tokens: the packages, as his wallet and this message need them."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing import purchases as shop


@dataclass(frozen=True, slots=True)
class Choice:
    """A package as a row: what it would cost and bring, what it saves per token against the first one in per cent, and what
    is left in the wallet."""

    quote: shop.Quote
    saving_percent: int
    wallet_after_idr: int

    @property
    def package(self) -> "shop.Package":
        return self.quote.package

    @property
    def is_affordable(self) -> bool:
        return self.wallet_after_idr >= 0


@dataclass(frozen=True, slots=True)
class Checkout:
    """All packages on offer, and the one to begin with: what was wanted already, else the smallest that lets the message
    go out, as far as the wallet pays for it. None where the wallet pays for none. `missing_idr` is what the wallet lacks
    for the smallest package that lets the message go out; 0 where it lacks nothing."""

    choices: list[Choice]
    selected: Choice | None
    missing_idr: int


def of(quotes: Sequence[shop.Quote], *, wallet_idr: int, missing_tokens: int, wanted: str = "") -> Checkout:
    """`wanted` is the slug of the package that was chosen before, if one was."""
    choices = [
        Choice(
            quote,
            shop.saving_percent(quote.package, against=quotes[0].package),
            wallet_idr - quote.price_idr,
        )
        for quote in quotes
    ]
    affordable = [choice for choice in choices if choice.is_affordable]
    enough = [choice for choice in affordable if choice.quote.total_tokens >= missing_tokens]
    chosen = [choice for choice in affordable if choice.package.slug == wanted]
    sufficient = [choice for choice in choices if choice.package.total_tokens >= missing_tokens] or choices[
        -1:
    ]
    missing_idr = max(0, -sufficient[0].wallet_after_idr) if sufficient else 0
    return Checkout(choices, next(iter(chosen or enough or affordable), None), missing_idr)
