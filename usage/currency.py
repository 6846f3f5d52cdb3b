"""US dollars in rupiah, by the rate of a day. A door of this app. For display only: nothing is charged by it.

Rates are rows that staff add (`ExchangeRate`); the last one holds until the next. Without one, amounts stand in dollars
alone.
"""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Rates:
    """Every rate up to a day, oldest first, to value many days at once."""

    rows: list[ExchangeRate]

    def on(self, day: date) -> ExchangeRate | None:
        """What held on a day; None before the first rate."""
        place = bisect_right(self.rows, day, key=lambda row: row.valid_on)
        return self.rows[place - 1] if place else None

    def in_idr(self, costs: Iterable[tuple[date, Decimal]]) -> int | None:
        """US dollars of several days, each at its own rate, in whole rupiah; None where a day has no rate."""
        whole = Decimal(0)
        for day, usd in costs:
            rate = self.on(day)
            if rate is not None:
                whole += usd * rate.idr_per_usd
            elif usd:
                return None
        return int(whole.quantize(Decimal(1), ROUND_HALF_EVEN)) if self.rows else None


def rates_until(day: date) -> Rates:
    return Rates(list(ExchangeRate.objects.filter(valid_on__lte=day).order_by("valid_on")))


def in_idr(usd: Decimal, rate: ExchangeRate | None) -> int | None:
    """Whole rupiah, half to even; None without a rate."""
    return None if rate is None else int((usd * rate.idr_per_usd).quantize(Decimal(1), ROUND_HALF_EVEN))
