"""Unusual use is told of when it is unusual, and hardly ever when it is not."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest

from aleph.accounts.models import User
from tests import people
from tests.stories_of_usage import call_of
from usage import meter, rollups, unusual
from usage.models import UnusualUse, UsageDay

FIRST = date(2025, 1, 1)
YEAR = 365
HOLIDAYS = {date(2025, 3, 28) + timedelta(days=nth) for nth in range(11)} | {
    date(2025, 12, 24) + timedelta(days=nth) for nth in range(8)
}


class Person(NamedTuple):
    """How somebody uses it: tokens of a usual day, how much his days vary, what the days of the week do, how he grows in
    a year, how likely he is there at all, and when he begins and is away."""

    usual: float
    varies: float
    week: tuple[float, ...]
    growth: float
    is_there: float
    begins: int
    away: range
    has_holidays: bool


def crowd(number: int, seed: int) -> Iterator[tuple[Person, random.Random]]:
    dice = random.Random(seed)
    office, steady, weekend = (1, 1.1, 1, 1, 0.8, 0.15, 0.1), (1,) * 7, (0.6, 0.6, 0.6, 0.6, 1, 1.6, 1.5)
    weekly = (6.0, 1, 1, 1, 1, 0.2, 0.2)  # a report each Monday
    for _each in range(number):
        away = dice.randrange(YEAR)
        yield (
            Person(
                usual=math.exp(dice.gauss(math.log(150_000), 1.4)),
                varies=dice.uniform(0.2, 0.7),
                week=dice.choices([office, steady, weekend, weekly], [6, 2, 1, 1])[0],
                growth=math.exp(dice.gauss(0.3, 0.6)),
                is_there=dice.choice([0.3, 0.7, 0.9, 1.0]),
                begins=dice.choice([0, 0, 0, dice.randrange(200)]),
                away=range(away, away + dice.randrange(8, 30)),
                has_holidays=dice.random() < 0.7,
            ),
            random.Random(dice.random()),
        )


def year_of(person: Person, dice: random.Random) -> dict[date, int]:
    """Tokens of each day of a year on which he was there."""
    used = {}
    for nth in range(person.begins, YEAR):
        on = FIRST + timedelta(days=nth)
        is_off = nth in person.away or (person.has_holidays and on in HOLIDAYS)
        factor = person.week[on.weekday()] * person.growth ** (nth / YEAR)
        if not is_off and dice.random() < person.is_there:
            used[on] = int(person.usual * factor * math.exp(dice.gauss(0, person.varies)))
    return used


def history_before(year: dict[date, int], on: date) -> dict[date, int]:
    days = (on - timedelta(days=back) for back in range(1, unusual.DAYS + 1))
    return {day: year[day] for day in days if day in year}


def test_a_year_of_ordinary_use_is_hardly_ever_called_unusual() -> None:
    """Each alarm is counted, also those of a level that was told of the day before."""
    days = alarms = measured = 0
    for person, dice in crowd(200, seed=1):
        year = year_of(person, dice)
        for on, tokens in year.items():
            known = unusual.bounds(history_before(year, on), on)
            days += 1
            measured += known is not None
            alarms += known is not None and tokens >= known[1]
    assert measured > 20_000
    assert alarms / measured < 0.01


@pytest.mark.parametrize(("times", "found_at_least"), [(10, 0.9), (30, 0.99), (100, 1.0)])
def test_a_leaked_key_is_found(times: int, found_at_least: float) -> None:
    """On top of what he uses himself, somebody else uses so many times what is usual for him."""
    found = spikes = 0
    for person, dice in crowd(200, seed=2):
        year = year_of(person, dice)
        for on in sorted(year)[60::20]:
            known = unusual.bounds(history_before(year, on), on)
            usual = person.usual * person.growth ** ((on - FIRST).days / YEAR)
            if known is None or usual * times < unusual.FLOOR:
                continue
            spikes += 1
            found += year[on] + usual * times >= known[1]
    assert spikes > 1000
    assert found / spikes >= found_at_least


# In the database


NOON = datetime(2025, 6, 18, 12, tzinfo=UTC)
TODAY = NOON.date()


def used_to(person: User, tokens: int = 150_000, days: int = 20) -> None:
    """He used as many tokens on each of these days."""
    zeros = dict.fromkeys((*rollups.COUNTERS, *rollups.COUNTED), 0)
    UsageDay.objects.bulk_create(
        UsageDay(
            **zeros | {"calls": 10, "total_tokens": tokens},
            user=person,
            day=TODAY - timedelta(days=back),
            total_cost_usd=0,
        )
        for back in range(1, days + 1)
    )


def uses(person: User, tokens: int, at: datetime, model: str = "GPT-4o") -> None:
    call_of(person, at=at, label=model, counts=meter.Counts(fresh_input=tokens, visible_output=0))


def test_what_is_unusual_is_said_with_when_and_what(db: None) -> None:
    alice, bob = people.alice(), people.bob()
    for person in (alice, bob):
        used_to(person)
        uses(person, 100_000, NOON - timedelta(hours=6), "Claude")
    uses(alice, 900_000, NOON - timedelta(hours=2))
    uses(alice, 1_000_000, NOON)
    assert unusual.look(NOON) == 1
    found = UnusualUse.objects.get(user=alice)
    assert (found.day, found.tokens, found.usual_tokens) == (TODAY, 2_000_000, 150_000)
    assert found.since == NOON - timedelta(hours=2)
    assert (found.model, found.model_percent) == ("GPT-4o", 95)


def test_a_level_is_told_of_once(db: None) -> None:
    alice = people.alice()
    used_to(alice)
    uses(alice, 2_000_000, NOON)
    assert unusual.look(NOON) == 1
    assert unusual.look(NOON) == 0, "once a day"
    tomorrow = NOON + timedelta(days=1)
    uses(alice, 2_500_000, tomorrow)
    assert unusual.look(tomorrow) == 0, "he knows of that"
    uses(alice, 2_500_000, tomorrow)
    assert unusual.look(tomorrow) == 1, "twice as much is news"


def test_who_is_not_known_or_uses_little_is_left_alone(db: None) -> None:
    fresh, small, alice = people.carol(), people.carol(), people.alice()
    used_to(fresh, days=unusual.LEAST_DAYS - 1)
    used_to(small, tokens=1_000)
    used_to(alice)
    uses(fresh, 9_000_000, NOON)
    uses(small, unusual.FLOOR - 1, NOON)
    uses(alice, 9_000_000, NOON - timedelta(days=1))
    assert unusual.look(NOON) == 0


def test_a_mondays_work_is_usual_on_mondays() -> None:
    days = {TODAY - timedelta(days=back): 100_000 for back in range(1, 29)}
    days |= {day: 600_000 for day in days if day.weekday() == 0}
    monday = TODAY + timedelta(days=5)
    assert monday.weekday() == 0
    on_monday, on_tuesday = unusual.bounds(days, monday), unusual.bounds(days, monday + timedelta(days=1))
    assert on_monday
    assert on_tuesday
    assert on_monday[0] > 3 * on_tuesday[0]


def test_a_few_odd_days_do_not_move_what_is_usual() -> None:
    days = {TODAY - timedelta(days=back): 100_000 for back in range(1, 29)}
    ordinary = unusual.bounds(days, TODAY)
    days |= {TODAY - timedelta(days=back): 50_000_000 for back in (3, 4, 5)}
    odd = unusual.bounds(days, TODAY)
    assert ordinary
    assert odd
    assert odd[0] == ordinary[0]
