"""US dollars in rupiah, by the rate of a day. A door of this app. For display only: nothing is charged by it.

Rates are rows that staff add (`ExchangeRate`); the last one holds until the next. Without one, amounts stand in dollars
alone.
"""

from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal

from usage.models import ExchangeRate

OPENING = ExchangeRate(
    valid_on=date(2024, 1, 1), idr_per_usd=Decimal(16_500), source="a round figure; staff enter the bank's"
)


def seed() -> None:
    """The rate a shop opens with, where there is none."""
    if not ExchangeRate.objects.exists():
        ExchangeRate.objects.create(
            valid_on=OPENING.valid_on, idr_per_usd=OPENING.idr_per_usd, source=OPENING.source
        )


def rate_on(day: date) -> ExchangeRate | None:
    """What held on a day; None before the first rate."""
    return ExchangeRate.objects.filter(valid_on__lte=day).order_by("-valid_on").first()


def in_idr(usd: Decimal, rate: ExchangeRate | None) -> int | None:
    """Whole rupiah, half to even; None without a rate."""
    return None if rate is None else int((usd * rate.idr_per_usd).quantize(Decimal(1), ROUND_HALF_EVEN))
