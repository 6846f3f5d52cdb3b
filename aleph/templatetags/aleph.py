"""What every template has at hand: amounts as people write them, icons, fresh ids."""

from decimal import Decimal

from django import template
from django.utils.formats import number_format

from aleph import ids
from aleph.amounts import MINUS, count, rupiah, usd

__all__ = ["count", "rupiah", "signed", "usd", "usd_range"]

register = template.Library()
for amount in (count, rupiah, usd):
    register.filter(amount)


@register.filter
def signed(value: int) -> str:
    """A change: with its sign, always."""
    return count(value) if value < 0 else f"+{count(value)}"


@register.filter
def signed_usd(value: Decimal) -> str:
    """A change in US dollars: ``+$0.0021``."""
    return f"{MINUS if value < 0 else '+'}{usd(abs(value))}"


def usd_range(low: Decimal, high: Decimal) -> str:
    """``$12–18``, ``$0.14–0.21``: two significant digits, for what is not known better; never less than a cent apart."""
    places = 0 if high >= 20 else 2 if high >= Decimal("0.1") else 4
    ends = [
        number_format(value, decimal_pos=places, use_l10n=True, force_grouping=True) for value in (low, high)
    ]
    return f"${ends[0]}" if ends[0] == ends[1] else f"${ends[0]}–{ends[1]}"


@register.filter
def thousandths(value: int) -> str:
    """Thousandths as per cent: ``4.2%``."""
    return f"{number_format(Decimal(value) / 10, decimal_pos=1, use_l10n=True)}%"


@register.filter
def context_size(tokens: int) -> str:
    """``128K``, ``1M``."""
    return f"{tokens // 1_000_000}M" if tokens >= 1_000_000 else f"{tokens // 1000}K"


@register.inclusion_tag("shell/_icon.html")
def icon(name: str, size: str = "") -> dict[str, str]:
    """A drawing of the sprite; `size` is ``small`` or another variant of the class ``icon``."""
    return {"name": name, "size": size}


@register.simple_tag
def fresh_id(prefix: str) -> str:
    """A new public id, for forms that must be carried out once however often they are sent."""
    return ids.new(prefix)
