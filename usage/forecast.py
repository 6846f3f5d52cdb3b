"""What the rest of a month will cost and how long a balance lasts, from the days before. Knows no database.

People use more on some days of the week than on others, so each weekday has a mean of its own, drawn towards the mean of
all days while there are few of it. What is said is a range that holds about four times of five; with less than a week
of days nothing is said. Values are of any unit; a day without use is a day of 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal

WEEKS = 8
"""How far back days are looked at."""
LEAST_DAYS = 7
SURE = Decimal("1.2816")
"""Deviations to either side within which four of five values of a normal distribution lie."""
DRAWN = 2
"""Days that the mean of all counts for in that of a weekday."""
FARTHEST = 366


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a day takes: the mean of each weekday from Monday on, the deviation of a day from it, and how many days say
    so."""

    means: tuple[Decimal, ...]
    deviation: Decimal
    days: int

    def mean_of(self, day: date) -> Decimal:
        return self.means[day.weekday()]

    def margin(self, parts: Sequence[Decimal]) -> Decimal:
        """How far the sum of these parts of days may be from its mean: they scatter, and the means are not exact either."""
        whole = sum(parts, Decimal(0))
        scatter = sum((part * part for part in parts), Decimal(0)) + whole * whole / self.days
        return SURE * self.deviation * scatter.sqrt()


@dataclass(frozen=True, slots=True)
class Range:
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Lasting:
    """The days on which a balance may run out. None: not within a year."""

    earliest: date | None
    likely: date | None
    latest: date | None


def learnt(days: Sequence[tuple[date, Decimal]]) -> Pattern | None:
    """The pattern of whole days; None where they are too few."""
    number = len(days)
    if number < LEAST_DAYS:
        return None
    mean = sum((value for _day, value in days), Decimal(0)) / number
    means = []
    for weekday in range(7):
        own = [value for day, value in days if day.weekday() == weekday]
        means.append((sum(own, Decimal(0)) + DRAWN * mean) / (len(own) + DRAWN))
    squares = sum(((value - means[day.weekday()]) ** 2 for day, value in days), Decimal(0))
    # What the means were fitted to tells less about how far a day is from them.
    deviation = (squares / (number - max(1, min(7, number // 4)))).sqrt()
    return Pattern(tuple(means), deviation, number)


def rest(pattern: Pattern, days: Iterable[tuple[date, Decimal]]) -> Range:
    """What these days will take; each with the part of it that is still to come, 0 to 1."""
    coming = list(days)
    mean = sum((pattern.mean_of(day) * part for day, part in coming), Decimal(0))
    margin = pattern.margin([part for _day, part in coming])
    return Range(max(Decimal(0), mean - margin), mean + margin)


def lasting(pattern: Pattern, amount: Decimal, *, today: date, left_of_today: Decimal) -> Lasting | None:
    """When `amount` will be used up; None where nothing is used of it."""
    if not any(pattern.means):
        return None
    earliest = likely = latest = None
    mean, parts = Decimal(0), []
    for day, part in _from(today, left_of_today):
        mean += pattern.mean_of(day) * part
        parts.append(part)
        margin = pattern.margin(parts)
        earliest = earliest or (day if mean + margin >= amount else None)
        likely = likely or (day if mean >= amount else None)
        if mean - margin >= amount:
            latest = day
            break
    return Lasting(earliest, likely, latest)


def to_month_end(today: date, left_of_today: Decimal) -> list[tuple[date, Decimal]]:
    """The rest of today's month, as `rest` takes it."""
    return [
        (day, part)
        for day, part in _from(today, left_of_today)
        if (day.year, day.month) == (today.year, today.month)
    ]


def _from(today: date, left_of_today: Decimal) -> Iterator[tuple[date, Decimal]]:
    for nth in range(FARTHEST):
        yield today + timedelta(days=nth), Decimal(1) if nth else left_of_today
