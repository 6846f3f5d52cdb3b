"""Numbers as people write them. Counts follow the page's language; rupiah is always written the Indonesian way."""

from decimal import ROUND_HALF_UP, Decimal

from django import template
from django.utils.formats import number_format

from aleph import charts, ids

register = template.Library()
MINUS = "\u2212"


@register.filter
def count(value: int | None) -> str:
    """A whole number with the language's separators and a real minus sign."""
    if value is None:
        return ""
    text = number_format(abs(int(value)), use_l10n=True, force_grouping=True)
    return MINUS + text if value < 0 else text


@register.filter
def signed(value: int) -> str:
    """A change: with its sign, always."""
    return count(value) if value < 0 else f"+{count(value)}"


@register.filter
def rupiah(value: int | Decimal | None) -> str:
    """``Rp 50.000`` in every language."""
    if value is None:
        return ""
    whole = int(Decimal(value).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    text = f"Rp {abs(whole):,}".replace(",", ".")
    return MINUS + text if whole < 0 else text


@register.filter
def usd(value: Decimal | None) -> str:
    """US dollars for display: two places from one dollar on, enough places to see something below."""
    if value is None:
        return ""
    places = 2 if value == 0 or abs(value) >= 1 else 4 if abs(value) >= Decimal("0.001") else 6
    return f"${number_format(value, decimal_pos=places, use_l10n=True)}"


@register.filter
def signed_usd(value: Decimal) -> str:
    """A change in US dollars: ``+$0.0021``."""
    return f"{'−' if value < 0 else '+'}{usd(abs(value))}"


@register.filter
def measured(value: int, measure: str) -> str:
    """A value of a chart: a count, millionths of a dollar, or rupiah."""
    if measure == charts.MICRO_USD:
        return usd(Decimal(value) / 1_000_000)
    return rupiah(value) if measure == charts.IDR else count(value)


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
