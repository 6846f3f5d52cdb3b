"""Numbers as people write them. Counts follow the page's language; rupiah is always written the Indonesian way."""

from decimal import ROUND_HALF_UP, Decimal

from django.utils.formats import get_format, number_format

MINUS = "\u2212"


def count(value: int | None) -> str:
    """A whole number with the language's separators and a real minus sign."""
    if value is None:
        return ""
    text = f"{abs(int(value)):,}".replace(",", get_format("THOUSAND_SEPARATOR", use_l10n=True))
    return MINUS + text if value < 0 else text


def rupiah(value: int | Decimal | None) -> str:
    """``Rp 50.000`` in every language."""
    if value is None:
        return ""
    whole = int(Decimal(value).quantize(Decimal(1), rounding=ROUND_HALF_UP))
    text = f"Rp {abs(whole):,}".replace(",", ".")
    return MINUS + text if whole < 0 else text


def usd(value: Decimal | None) -> str:
    """US dollars for display: two places from one dollar on, enough places to see something below."""
    if value is None:
        return ""
    places = 2 if value == 0 or abs(value) >= 1 else 4 if abs(value) >= Decimal("0.001") else 6
    return f"${number_format(value, decimal_pos=places, use_l10n=True)}"
