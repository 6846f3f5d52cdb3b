"""What tokens are worth in rupiah: lots that were bought, used oldest first. For statements, refunds and what is owed.

A lot is what one transfer brought that was not bonus; a purchase is worth what was paid for it, all else nothing. Bonus
leaves first and is worth nothing, so what people have is worth what they would get back for it. A lot's price is split
over its tokens by cumulation (`Lot.worth`), so that whatever is used of it adds up to the price, to the last rupiah.
The decision and its reasons stand in docs/adr.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple


@dataclass(slots=True)
class Lot:
    """`size` tokens for `price_idr`, of which `used` are gone. `purchase_id` is "" where nobody paid."""

    size: int
    price_idr: int
    used: int = 0
    purchase_id: str = ""

    @property
    def left(self) -> int:
        return self.size - self.used

    @property
    def left_idr(self) -> int:
        return self.price_idr - self.worth(self.used)

    def worth(self, used: int) -> int:
        """Rupiah of the first `used` tokens, rounded down; of all of them the price."""
        return self.price_idr * used // self.size

    def use(self, amount: int) -> int:
        """Take `amount` tokens; what they were worth."""
        before = self.worth(self.used)
        self.used += amount
        return self.worth(self.used) - before


class Taken(NamedTuple):
    """What left: how many of the tokens were bonus, and what the others were worth."""

    bonus: int
    value_idr: int


@dataclass(slots=True)
class Pool:
    """The tokens of one account: bonus, and lots from the oldest to the newest."""

    bonus: int = 0
    lots: list[Lot] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.bonus + sum(lot.left for lot in self.lots)

    @property
    def value_idr(self) -> int:
        return sum(lot.left_idr for lot in self.lots)

    def copy(self) -> "Pool":
        return Pool(self.bonus, [replace(lot) for lot in self.lots])

    def give(self, amount: int) -> None:
        """Bonus comes in."""
        self.bonus += amount

    def add(self, amount: int, *, price_idr: int = 0, purchase_id: str = "") -> None:
        """Tokens come in that are no bonus."""
        self.lots.append(Lot(amount, price_idr, purchase_id=purchase_id))

    def take(self, amount: int) -> Taken:
        """Tokens go: bonus first, then the oldest lots."""
        bonus = min(amount, self.bonus)
        self.bonus -= bonus
        left, value_idr = amount - bonus, 0
        for lot in self.lots:
            part = min(left, lot.left)
            if part:
                value_idr += lot.use(part)
                left -= part
            if not left:
                break
        self.lots = [lot for lot in self.lots if lot.left]
        if left:
            raise ValueError(f"{left} of {amount} tokens are not there")
        return Taken(bonus, value_idr)

    def take_back(self, amount: int, purchase_id: str) -> Taken:
        """Tokens go for a refund: bonus first, as always, then what is left of that purchase, then as otherwise."""
        bonus = min(amount, self.bonus)
        self.bonus -= bonus
        left, value_idr = amount - bonus, 0
        for lot in self.lots:
            if lot.purchase_id == purchase_id and left:
                part = min(left, lot.left)
                value_idr += lot.use(part)
                left -= part
        self.lots = [lot for lot in self.lots if lot.left]
        rest = self.take(left) if left else Taken(0, 0)
        return Taken(bonus, value_idr + rest.value_idr)

    def lot_of(self, purchase_id: str) -> Lot | None:
        return next((lot for lot in self.lots if lot.purchase_id == purchase_id), None)


class Inflow(NamedTuple):
    """Tokens that came in and were no bonus; `is_gone` where a refund has taken what was left of them."""

    size: int
    price_idr: int
    purchase_id: str
    is_gone: bool = False


def standing(inflows: Sequence[Inflow], *, bonus: int, paid: int) -> Pool:
    """The pool of an account that has `bonus` tokens and `paid` others, after `inflows`, oldest first.

    What is left is the newest of what came in, as the oldest leaves first.
    """
    lots: list[Lot] = []
    for inflow in reversed(inflows):
        if not paid:
            break
        if inflow.is_gone:
            continue
        left = min(paid, inflow.size)
        lots.append(Lot(inflow.size, inflow.price_idr, inflow.size - left, inflow.purchase_id))
        paid -= left
    if paid:
        raise ValueError(f"{paid} tokens came from nowhere")
    return Pool(bonus, lots[::-1])
