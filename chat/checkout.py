"""What somebody sees whose message waits for tokens: the packages, as his wallet and this message need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from aleph.accounts.models import User
from aleph.problems import InvalidRequest
from billing import purchases as shop


@dataclass(frozen=True, slots=True)
class Order:
    """What the dialog asks for. `package` is "" where none was chosen yet, `quantity` None where none was said, and 0 where
    it is none that anybody sells. `Order()` is what nobody has asked for yet."""

    package: str = ""
    quantity: int | None = None
    promo_code: str = ""

    @classmethod
    def of(cls, form: Mapping[str, str]) -> Self:
        quantity = form.get("quantity", "")
        is_number = quantity.isascii() and quantity.isdecimal() and len(quantity) < 6
        count = None if "quantity" not in form else int(quantity) if is_number else 0
        return cls(form.get("package", ""), count, form.get("promo", "").strip())


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
    for the smallest package that lets the message go out; 0 where it lacks nothing. `problem` is what of the order does
    not hold: it was left out."""

    choices: list[Choice]
    selected: Choice | None
    missing_idr: int
    quantity: int
    promo_code: str
    problem: shop.PromoRefused | InvalidRequest | None = None

    @property
    def is_code_for_some(self) -> bool:
        """Whether the code counts for some packages and not for others, so that each has to say."""
        return len({choice.quote.promo_code for choice in self.choices}) > 1


def of(
    user: User, order: Order, *, wallet_idr: int, missing_tokens: int, remembered_code: str = ""
) -> Checkout:
    """Where nothing was said yet, it is one package; or several of one, if no single one that the wallet pays for lets the
    message go out. `remembered_code` counted the last time: it is used as long as it still does, and no word is said
    of it where it does not."""
    if order == Order() and counts(user, remembered_code):
        order = Order(promo_code=remembered_code)
    quantity = 1 if order.quantity is None else order.quantity
    code = order.promo_code
    problem: shop.PromoRefused | InvalidRequest | None = None
    try:
        quotes = shop.quotes(user, quantity=quantity, promo_code=code)
    except InvalidRequest as refused:
        problem, quantity, code = refused, 1, ""
        quotes = shop.quotes(user)
    except shop.PromoRefused as refused:
        problem, code = refused, ""
        quotes = shop.quotes(user, quantity=quantity)
    wanted = order.package
    is_first_look = not order.package and order.quantity is None
    if is_first_look and (several := _several(quotes, wallet_idr, missing_tokens)):
        wanted, quantity = several
        quotes = shop.quotes(user, quantity=quantity, promo_code=code)
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
    sufficient = [choice for choice in choices if choice.quote.total_tokens >= missing_tokens] or choices[-1:]
    return Checkout(
        choices=choices,
        selected=next(iter(chosen or enough or affordable), None),
        missing_idr=max(0, -sufficient[0].wallet_after_idr) if sufficient else 0,
        quantity=quantity,
        promo_code=code,
        problem=problem,
    )


def counts(user: User, code: str) -> bool:
    """Whether a promo code makes any package cheaper, or larger, for `user` now."""
    try:
        return bool(code) and bool(shop.quotes(user, promo_code=code))
    except shop.PromoRefused:
        return False


def _several(quotes: Sequence[shop.Quote], wallet_idr: int, missing_tokens: int) -> tuple[str, int] | None:
    """The cheapest way to let the message go out with several of one package, its slug and how many; None where one of some
    package does, or nothing does that the wallet pays for."""
    if any(quote.total_tokens >= missing_tokens and quote.price_idr <= wallet_idr for quote in quotes):
        return None
    ways = [(quote.package, -(-missing_tokens // quote.package.total_tokens)) for quote in quotes]
    possible = [
        (package.price_idr * number, package.slug, number)
        for package, number in ways
        if number <= shop.MAX_QUANTITY and package.price_idr * number <= wallet_idr
    ]
    return min(possible)[1:] if possible else None
