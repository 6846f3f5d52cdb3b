"""What somebody sees whose message waits for tokens: the packages, as his wallet and this message need them."""

from collections.abc import Sequence
from dataclasses import dataclass

from billing import purchases as shop


@dataclass(frozen=True, slots=True)
class Choice:
    """A package as a row: what it saves per token against the first one in per cent, and what is left in the wallet."""

    package: "shop.Package"
    saving_percent: int
    wallet_after_idr: int

    @property
    def is_affordable(self) -> bool:
        return self.wallet_after_idr >= 0


@dataclass(frozen=True, slots=True)
class Checkout:
    """All packages on offer, and the one to begin with: what was wanted already, else the smallest that lets the message
    go out, as far as the wallet pays for it. None where the wallet pays for none."""

    choices: list[Choice]
    selected: Choice | None


def of(
    packages: "Sequence[shop.Package]", *, wallet_idr: int, missing_tokens: int, wanted: str = ""
) -> Checkout:
    """`wanted` is the slug of the package that was chosen before, if one was."""
    choices = [
        Choice(package, shop.saving_percent(package, against=packages[0]), wallet_idr - package.price_idr)
        for package in packages
    ]
    affordable = [choice for choice in choices if choice.is_affordable]
    enough = [choice for choice in affordable if choice.package.total_tokens >= missing_tokens]
    chosen = [choice for choice in affordable if choice.package.slug == wanted]
    return Checkout(choices, next(iter(chosen or enough or affordable), None))
