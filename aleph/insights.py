"""What staff see of the whole house: use, cost, charge and margin, who came and who came back. Reads only.

Everything about calls comes from the rollups and the calls since (`usage.rollups`), so that it costs the same however
many calls there are. Money is what was charged, valued at what its owner had last paid for his tokens, beside what the
providers ask, in rupiah by the day's rate.
"""

import heapq
import zoneinfo
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Avg, Count, Exists, OuterRef, QuerySet, Sum
from django.db.models.functions import TruncDate, TruncWeek
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from billing import purchases
from billing.models import AuditRound, Purchase
from chat.models import Message, Session
from usage import calibration, currency, rollups
from usage.models import UsageDay, name_for_people
from usage.overview import Column, columns_between, places_of
from usage.wishes import DAY, WEEK

WEEKS = 6
"""Weeks of sign-up that are followed."""
TOP = 10
MOST_COLUMNS = 92
"""Days that a chart tells apart; of a longer time it tells weeks."""
SKEW = timedelta(hours=1)
"""How far the moment in an id may be from the one that is stored: another clock wrote it."""
HEATS = 5
"""Steps of colour; the last one begins at 64 per cent."""
TOLD_IN_ALL = (
    "calls",
    "failed",
    "unpriced",
    "total_tokens",
    "charged_tokens",
    "charged_idr_thousandths",
    "total_cost_usd",
)
TOLD_OF_PROVIDERS = (
    "calls",
    "failed",
    "first_token_ms",
    "first_token_calls",
    "latency_ms",
    "latency_calls",
)
TOLD = tuple({*TOLD_IN_ALL, *TOLD_OF_PROVIDERS})
"""The sums of calls that are shown. Each costs as much as a column more to read."""
Rows = Sequence[dict[str, Any]]
SLOW_MS, FAILING_PERCENT, SILENT_PERCENT = 10_000, 2, 10


@dataclass(frozen=True, slots=True)
class Books:
    """The state of the books: `drifted` accounts in the last audit round that ended, replies that wait."""

    audited_at: datetime | None
    drifted: int
    open_holds: int
    queued: int


@dataclass(frozen=True, slots=True)
class Totals:
    """One period. `charged_idr` values the tokens that were charged; `cost_idr` is None without an exchange rate."""

    calls: int
    failed: int
    unpriced: int
    tokens: int
    charged_tokens: int
    charged_idr: int
    cost_usd: Decimal
    cost_idr: int | None

    @property
    def margin_percent(self) -> Decimal | None:
        """What is left of the charge, in per cent; None where nothing was charged."""
        return margin_percent(self.charged_idr, self.cost_idr)


@dataclass(frozen=True, slots=True)
class ModelLine:
    """One model. Widths are per cent of the longest bar, as SVG wants them. The costs are None where none of its calls has a
    price, so that what is not known does not look like a margin of all."""

    name: str
    calls: int
    tokens: int
    charged_tokens: int
    charged_idr: int
    cost_usd: Decimal | None
    cost_idr: int | None
    bar: str
    cost_bar: str

    @property
    def margin_percent(self) -> Decimal | None:
        return margin_percent(self.charged_idr, self.cost_idr)


@dataclass(frozen=True, slots=True)
class ProviderLine:
    """One provider; means in milliseconds, None where no call had one. `state` is how he does lately: ``silent``,
    ``failing``, ``slow``, ``fine``, or ``idle`` where nobody asked him."""

    name: str
    calls: int
    failed: int
    first_token_ms: int | None
    latency_ms: int | None
    state: str

    @property
    def failed_percent(self) -> Decimal:
        return Decimal(100 * self.failed) / self.calls

    @property
    def trouble(self) -> str:
        """What these calls say of him."""
        if self.failed_percent > SILENT_PERCENT:
            return "silent"
        if self.failed_percent > FAILING_PERCENT:
            return "failing"
        return "slow" if (self.first_token_ms or 0) > SLOW_MS else "fine"


@dataclass(frozen=True, slots=True)
class Person:
    email: str
    user_id: int
    calls: int
    tokens: int
    charged_tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class People:
    """Who used anything: `active` people, those of them who paid for something, who signed up meanwhile."""

    active: int
    paid: int
    signed_up: int
    top: Sequence[Person]


@dataclass(frozen=True, slots=True)
class Cohort:
    """Who signed up in the week from `week` on: how many, and the per cent of them who used anything in each week after."""

    week: date
    people: int
    came_back_percent: Sequence[int]

    @property
    def cells(self) -> list[tuple[int, int]]:
        """Per cent and heat, 1 to `HEATS`, of each week."""
        return [(percent, min(HEATS, 1 + percent * HEATS // 80)) for percent in self.came_back_percent]


@dataclass(frozen=True, slots=True)
class Conversations:
    """Chats that were begun; `tokens_each` is what one was charged on average."""

    begun: int
    tokens_each: int


@dataclass(frozen=True, slots=True)
class OverTime:
    """A number for each of `columns`, which are days, or weeks where there are many: LLM tokens of the most used `models`
    and, under the name "", of the rest; what was charged and what it cost, in rupiah (None: a day has no rate), and the
    Aleph tokens that were charged."""

    columns: Sequence[Column]
    models: Sequence[tuple[str, Sequence[int]]]
    charged_idr: Sequence[int]
    cost_idr: Sequence[int] | None
    charged_tokens: Sequence[int]


@dataclass(frozen=True, slots=True)
class PackageLine:
    """What was sold of one package; `tokens` with its bonus."""

    name: str
    purchases: int
    tokens: int
    revenue_idr: int
    bar: str


@dataclass(frozen=True, slots=True)
class Sales:
    """What packages were sold for: all of it, by package (dearest first), and over time, by package in the same order."""

    revenue_idr: int
    purchases: int
    tokens: int
    packages: Sequence[PackageLine]
    revenue_over_time: Sequence[Sequence[int]]
    tokens_over_time: Sequence[int]


@dataclass(frozen=True, slots=True)
class Period:
    """`days` days of `zone`, the last of them `ends`, or today; `before` is as long and ends where it begins."""

    days: int
    zone: zoneinfo.ZoneInfo
    ends: date | None = None

    @property
    def last(self) -> date:
        return self.ends or timezone.localdate(timezone=self.zone)

    @property
    def first(self) -> date:
        return self.last - timedelta(days=self.days - 1)

    @property
    def since(self) -> datetime:
        return self._midnight(self.first)

    @property
    def until(self) -> datetime:
        return min(timezone.now(), self._midnight(self.last + timedelta(days=1)))

    @property
    def before(self) -> tuple[datetime, datetime]:
        return self._midnight(self.first - timedelta(days=self.days)), self.since

    @property
    def columns(self) -> list[Column]:
        return columns_between(self.first, self.last, DAY if self.days <= MOST_COLUMNS else WEEK)

    def _midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, tzinfo=self.zone)


def margin_percent(charged_idr: int, cost_idr: int | None) -> Decimal | None:
    if not charged_idr or cost_idr is None:
        return None
    return Decimal(100 * (charged_idr - cost_idr)) / charged_idr


def books() -> Books:
    last = AuditRound.objects.filter(ended_at__isnull=False).order_by("-pk").first()
    open_replies = Message.objects.filter(state__in=Message.OPEN).values("state").annotate(n=Count("id"))
    waiting = {row["state"]: row["n"] for row in open_replies}
    return Books(
        audited_at=last.ended_at if last else None,
        drifted=last.drifted if last else 0,
        open_holds=last.open_holds if last else 0,
        queued=waiting.get(Message.State.QUEUED, 0),
    )


def read(period: Period) -> Rows:
    """The calls of a period by day, provider and model: one pass over the hours for all that a page says of it."""
    return rollups.totals(
        since=period.since,
        until=period.until,
        by=("day", "provider", "label", "model"),
        zone=period.zone,
        only=TOLD,
    )


def totals(since: datetime, until: datetime, rows: Rows | None = None) -> Totals:
    """Of the `rows` of this time where they have been read."""
    if rows is None:
        rows = rollups.totals(since=since, until=until, by=(), only=TOLD_IN_ALL)
    row: dict[str, Any] = next(iter(_summed(rows, (), TOLD_IN_ALL)), defaultdict(int))
    return Totals(
        calls=row["calls"],
        failed=row["failed"],
        unpriced=row["unpriced"],
        tokens=row["total_tokens"],
        charged_tokens=row["charged_tokens"],
        charged_idr=row["charged_idr_thousandths"] // 1000,
        cost_usd=Decimal(row["total_cost_usd"]),
        cost_idr=currency.in_idr(Decimal(row["total_cost_usd"]), currency.rate_on(until.date())),
    )


def by_model(period: Period, rows: Rows | None = None) -> list[ModelLine]:
    """Most charged first, then most used."""
    rate = currency.rate_on(period.last)
    sums: dict[str, dict[str, Any]] = {}
    told = (
        "calls",
        "unpriced",
        "total_tokens",
        "charged_tokens",
        "charged_idr_thousandths",
        "total_cost_usd",
    )
    by = ("label", "model")
    if rows is None:
        rows = rollups.totals(since=period.since, until=period.until, by=by, only=told)
    for row in _summed(rows, by, told):
        line = sums.setdefault(name_for_people(row["label"], row["model"]), defaultdict(int))
        for name in told:
            line[name] += row[name]
    unpriced = {name for name, line in sums.items() if line["unpriced"] == line["calls"]}
    costs = {
        name: None if name in unpriced else currency.in_idr(line["total_cost_usd"], rate)
        for name, line in sums.items()
    }
    longest = max(
        [1, *(max(line["charged_idr_thousandths"] // 1000, costs[name] or 0) for name, line in sums.items())]
    )
    lines = [
        ModelLine(
            name=name,
            calls=line["calls"],
            tokens=line["total_tokens"],
            charged_tokens=line["charged_tokens"],
            charged_idr=line["charged_idr_thousandths"] // 1000,
            cost_usd=None if name in unpriced else line["total_cost_usd"],
            cost_idr=costs[name],
            bar=_share(line["charged_idr_thousandths"] // 1000, longest),
            cost_bar=_share(costs[name] or 0, longest),
        )
        for name, line in sums.items()
    ]
    return sorted(lines, key=lambda line: (-line.charged_idr, -line.tokens, line.name))


def over_time(period: Period, rows: Rows, *, named: int) -> OverTime:
    """The `named` most used models, and all others as one."""
    columns = period.columns
    place = places_of(columns)
    rates = currency.rates_until(period.last)
    tokens: dict[str, list[int]] = defaultdict(lambda: [0] * len(columns))
    charged_thousandths, charged_tokens = [0] * len(columns), [0] * len(columns)
    costs: list[list[tuple[date, Decimal]]] = [[] for _column in columns]
    for row in rows:
        at = place.get(row["day"])
        if at is None:
            continue
        tokens[name_for_people(row["label"], row["model"])][at] += row["total_tokens"]
        charged_thousandths[at] += row["charged_idr_thousandths"]
        charged_tokens[at] += row["charged_tokens"]
        costs[at].append((row["day"], row["total_cost_usd"]))
    in_idr = [rates.in_idr(column) for column in costs]
    order = sorted(tokens, key=lambda name: (-sum(tokens[name]), name))
    rest = [sum(numbers) for numbers in zip(*(tokens[name] for name in order[named:]), strict=True)]
    return OverTime(
        columns,
        [*((name, tokens[name]) for name in order[:named]), *([("", rest)] if rest else [])],
        charged_idr=[thousandths // 1000 for thousandths in charged_thousandths],
        cost_idr=[idr for idr in in_idr if idr is not None] if None not in in_idr else None,
        charged_tokens=charged_tokens,
    )


def sales(period: Period) -> Sales:
    """What was sold; refunds stand among the figures of billing, in the time in which they were made."""
    columns = period.columns
    place = places_of(columns)
    revenue: dict[str, list[int]] = defaultdict(lambda: [0] * len(columns))
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    tokens_over_time = [0] * len(columns)
    rows = (
        bought(period.since, period.until)
        .annotate(day=TruncDate("created_at", tzinfo=period.zone))
        .values_list("day", "package_name")
        .annotate(Count("pk"), Sum("tokens"), Sum("bonus_tokens"), Sum("price_idr"))
    )
    for day, name, number, tokens, bonus, price_idr in rows:
        revenue[name][place[day]] += price_idr
        tokens_over_time[place[day]] += tokens + bonus
        sums[name][0] += number
        sums[name][1] += tokens + bonus
    order = sorted(revenue, key=lambda name: (-sum(revenue[name]), name))
    dearest = max([1, *(sum(numbers) for numbers in revenue.values())])
    return Sales(
        revenue_idr=sum(map(sum, revenue.values())),
        purchases=sum(number for number, _tokens in sums.values()),
        tokens=sum(tokens_over_time),
        packages=[
            PackageLine(
                name=name,
                purchases=sums[name][0],
                tokens=sums[name][1],
                revenue_idr=sum(revenue[name]),
                bar=_share(sum(revenue[name]), dearest),
            )
            for name in order
        ],
        revenue_over_time=[revenue[name] for name in order],
        tokens_over_time=tokens_over_time,
    )


def revenue_idr(since: datetime, until: datetime) -> int:
    return bought(since, until).aggregate(sum=Sum("price_idr", default=0))["sum"]


def bought(since: datetime, until: datetime) -> QuerySet[Purchase]:
    """Purchases of some time, found by their ids, which begin with the moment they were made at."""
    return Purchase.objects.filter(
        created_at__gte=since,
        created_at__lt=until,
        pk__gte=ids.first(purchases.PREFIX, since - SKEW),
        pk__lt=ids.first(purchases.PREFIX, until + SKEW),
    )


def accuracies() -> list[calibration.Accuracy]:
    """How far estimates are off, of the models that are used most."""
    return calibration.accuracies(most=TOP)


def by_provider(period: Period, rows: Rows) -> list[ProviderLine]:
    """The calls of the period, slowest first; each provider's state is that of the last 24 hours."""
    now = timezone.now()
    lately = {
        row["provider"]: _provider(row, "")
        for row in rollups.totals(
            since=now - timedelta(days=1), until=now, by=("provider",), only=TOLD_OF_PROVIDERS
        )
    }
    lines = [
        _provider(row, lately[row["provider"]].trouble if row["provider"] in lately else "idle")
        for row in _summed(rows, ("provider",), TOLD_OF_PROVIDERS)
    ]
    return sorted(lines, key=lambda line: (-(line.first_token_ms or 0), line.name))


def _summed(rows: Rows, by: Sequence[str], told: Sequence[str]) -> list[dict[str, Any]]:
    """Rows added up to one for each combination of `by`."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        place = tuple(row[name] for name in by)
        line = found.setdefault(place, dict(zip(by, place, strict=True)) | dict.fromkeys(told, 0))
        for name in told:
            line[name] += row[name]
    return list(found.values())


def _provider(row: dict[str, Any], state: str) -> ProviderLine:
    return ProviderLine(
        name=row["provider"],
        calls=row["calls"],
        failed=row["failed"],
        first_token_ms=row["first_token_ms"] // row["first_token_calls"]
        if row["first_token_calls"]
        else None,
        latency_ms=row["latency_ms"] // row["latency_calls"] if row["latency_calls"] else None,
        state=state,
    )


def people(period: Period) -> People:
    last = period.until - timedelta(microseconds=1)
    used = rollups.people(period.since.astimezone(UTC).date(), last.astimezone(UTC).date())
    top = heapq.nsmallest(TOP, used, key=lambda person: (-person.charged_tokens, -person.total_tokens))
    emails = dict(User.objects.filter(pk__in=[person.user_id for person in top]).values_list("pk", "email"))
    return People(
        active=len(used),
        paid=sum(person.charged_tokens > 0 for person in used),
        signed_up=User.objects.filter(date_joined__gte=period.since, date_joined__lt=period.until).count(),
        top=[
            Person(
                email=emails.get(person.user_id, ""),
                user_id=person.user_id,
                calls=person.calls,
                tokens=person.total_tokens,
                charged_tokens=person.charged_tokens,
                cost_usd=person.total_cost_usd,
            )
            for person in top
        ],
    )


def retention(today: date) -> list[Cohort]:
    """The last `WEEKS` whole weeks of sign-up, oldest first; a week begins on Monday, in UTC."""
    this_week = today - timedelta(days=today.weekday())
    first = this_week - timedelta(weeks=WEEKS)
    joined = datetime.combine(first, time.min, tzinfo=UTC)
    weeks = [first + timedelta(weeks=nth) for nth in range(WEEKS)]
    # Whether somebody came in a week is looked up; to count different people would read all their days.
    came = {
        f"came_{nth}": Count(
            "pk",
            filter=Exists(
                UsageDay.objects.filter(user=OuterRef("pk"), day__gte=week, day__lt=week + timedelta(weeks=1))
            ),
        )
        for nth, week in enumerate(weeks)
    }
    found: dict[date, dict[str, Any]] = {
        row["week"].date(): dict(row)
        for row in User.objects.filter(date_joined__gte=joined)
        .annotate(week=TruncWeek("date_joined", tzinfo=UTC))
        .values("week")
        .annotate(people=Count("pk"), **came)
    }
    return [
        Cohort(
            week,
            found[week]["people"],
            [
                round(100 * found[week][f"came_{later}"] / found[week]["people"])
                for later in range(nth + 1, WEEKS)
            ],
        )
        for nth, week in enumerate(weeks)
        if week in found
    ]


def conversations(period: Period) -> Conversations:
    found = Session.objects.filter(
        pk__gte=ids.first("cht", period.since), pk__lt=ids.first("cht", period.until)
    ).aggregate(begun=Count("id"), each=Avg("total_tokens_used"))
    return Conversations(found["begun"], round(found["each"] or 0))


def _share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%"
