"""Use that is far above what the same person uses otherwise: a key that leaked, a program that runs wild.

Each person is measured by his own last `DAYS` days, in logarithms, because use varies by factors. The median says what is
usual and the median deviation how much it varies; neither moves for a few odd days. Weekdays on which he does more than
on others are known as such. What a day is called unusual for lies beyond `DEVIATIONS` of that, is at least `TIMES` what
is usual and above all that these days have seen, and is no small matter (`FLOOR`).

Nobody is measured who has used it on fewer than `LEAST_DAYS` of these days, and nobody is told again of a level that he
was told of within `KNOWN_FOR`. Days are days of UTC, as the rollups have them. How often this is wrong about a year of
ordinary use, and what it finds, stands in tests/test_unusual.py.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta
from statistics import median

from django.db.models import Sum
from django.db.models.functions import TruncHour
from django.utils import timezone

from usage import rollups
from usage.models import TokenUsage, UnusualUse, UsageDay, name_for_people

DAYS = 28
LEAST_DAYS = 10
FLOOR = 100_000
"""LLM tokens of a day, below which nothing is worth a word."""
DEVIATIONS = 2.7
LEAST_DEVIATION = 0.4
"""Who is the same every day may still do half as much again."""
TIMES = 4
KNOWN_FOR = timedelta(days=7)
KNOWN_TIMES = 2
NORMAL = 1.4826
"""What a median deviation is multiplied by to be a standard deviation."""


def bounds(history: Mapping[date, int], day: date) -> tuple[int, int] | None:
    """(what is usual, what is unusual from there on) on `day`, in tokens; None for whoever is not known well enough.
    `history` has the tokens of the days before it on which there were any."""
    logs = {on: math.log(tokens) for on, tokens in history.items() if tokens > 0}
    if len(logs) < LEAST_DAYS:
        return None
    centre = median(logs.values())
    effects = {weekday: _effect(logs, weekday, centre) for weekday in range(7)}
    deviation = median(abs(log - centre - effects[on.weekday()]) for on, log in logs.items())
    reach = DEVIATIONS * max(NORMAL * deviation, LEAST_DEVIATION)
    usual = math.exp(centre + effects[day.weekday()])
    limit = max(
        math.exp(centre + effects[day.weekday()] + reach),
        TIMES * usual,
        max(history.values()),
        FLOOR,
    )
    return round(usual), math.ceil(limit)


def look(now: datetime | None = None) -> int:
    """Write down who has used unusually much today so far, once a day; how many that are."""
    now = now or timezone.now()
    start = rollups.day_of(now)
    today = start.date()
    calls = TokenUsage.objects.filter(created_at__gte=start, created_at__lte=now, user__isnull=False)
    sums = calls.values("user_id").annotate(tokens=Sum("total_tokens")).filter(tokens__gte=FLOOR)
    used = dict(sums.values_list("user_id", "tokens"))
    for user_id, tokens in UnusualUse.objects.filter(
        user__in=used, day__gt=today - KNOWN_FOR, day__lte=today
    ).values_list("user_id", "tokens"):
        if user_id in used and used[user_id] < KNOWN_TIMES * tokens:
            del used[user_id]
    found: dict[int, int] = {}
    for user_id, history in _histories(used, today).items():
        known = bounds(history, today)
        if known is not None and used[user_id] >= known[1]:
            found[user_id] = known[0]
    if not found:
        return 0
    by_hour = (
        calls.filter(user__in=found)
        .annotate(hour=TruncHour("created_at", tzinfo=start.tzinfo))
        .values("user_id", "hour", "label", "requested_model")
        .annotate(tokens=Sum("total_tokens"))
        .order_by("hour")
    )
    hours: dict[int, list[tuple[datetime, str, int]]] = defaultdict(list)
    for row in by_hour:
        model = name_for_people(row["label"], row["requested_model"])
        hours[row["user_id"]].append((row["hour"], model, row["tokens"]))
    rows = [_row(user_id, today, usual, hours[user_id]) for user_id, usual in found.items()]
    UnusualUse.objects.bulk_create(rows, ignore_conflicts=True)
    return len(rows)


def _effect(logs: Mapping[date, float], weekday: int, centre: float) -> float:
    """How much more than usual a weekday brings, 0 where it brings less; the fewer of them there were, the less they
    say."""
    same = [log for on, log in logs.items() if on.weekday() == weekday]
    return max(0.0, (median(same) - centre) * len(same) / (len(same) + 1)) if same else 0.0


def _histories(people: Iterable[int], today: date) -> dict[int, dict[date, int]]:
    histories: dict[int, dict[date, int]] = defaultdict(dict)
    days = UsageDay.objects.filter(day__gte=today - timedelta(days=DAYS), day__lt=today, user__in=people)
    for user_id, day, tokens in days.values_list("user_id", "day", "total_tokens"):
        if user_id is not None:
            histories[user_id][day] = tokens
    return histories


def _row(user_id: int, day: date, usual: int, hours: list[tuple[datetime, str, int]]) -> UnusualUse:
    total, since = 0, hours[0][0]
    by_model: dict[str, int] = defaultdict(int)
    for hour, model, tokens in hours:
        if total <= usual:
            since = hour
        total += tokens
        by_model[model] += tokens
    model = max(by_model, key=lambda name: by_model[name])
    return UnusualUse(
        user_id=user_id,
        day=day,
        tokens=total,
        usual_tokens=usual,
        since=since,
        model=model[:120],
        model_percent=100 * by_model[model] // total,
    )
