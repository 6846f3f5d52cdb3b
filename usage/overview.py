"""What the usage page says of somebody's calls in some days: sums by time, model, operation and chat, and the calls.

Everything starts from the user and his time zone. Each function asks once. Tokens are LLM tokens; money is USD, and rupiah by the rate of each day.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal

from django.db.models import Count, F, QuerySet, Sum

from aleph.accounts.models import User
from aleph.prepared import planned_anew
from usage import costs, daily, reports
from usage.currency import Rates
from usage.daily import Daily, Row
from usage.models import OPERATIONS, TokenUsage
from usage.reports import Page
from usage.wishes import DEAREST, MONTH, WEEK, Wish

NAMED = 5
"""Models that a chart tells apart; the rest is one sum."""
CHATS = 6
PAGE = 25


@dataclass(slots=True)
class Sums:
    """Sums of some calls. `cost_by_day` is what they cost on each day, to be valued at its rate."""

    calls: int = 0
    tokens: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal = Decimal(0)
    unpriced: int = 0
    cost_by_day: dict[date, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    def add(self, row: Row) -> None:
        self.calls += row.calls
        self.tokens += row.tokens
        self.input_tokens += row.input_tokens
        self.output_tokens += row.output_tokens
        self.cost_usd += row.cost_usd
        self.unpriced += row.unpriced
        self.cost_by_day[row.day] += row.cost_usd

    def take_in(self, part: "Sums") -> None:
        self.calls += part.calls
        self.tokens += part.tokens
        self.input_tokens += part.input_tokens
        self.output_tokens += part.output_tokens
        self.cost_usd += part.cost_usd
        self.unpriced += part.unpriced
        for day, usd in part.cost_by_day.items():
            self.cost_by_day[day] += usd

    def cost_idr(self, rates: Rates) -> int | None:
        return rates.in_idr(self.cost_by_day.items())


@dataclass(frozen=True, slots=True)
class Before:
    """The days before, as many, to compare with."""

    calls: int
    tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True)
class Line:
    """One of several that make a whole: what it is called, what picks it in an address, its sums and its share of the
    tokens, in per cent. `is_rest`: all that have no line of their own."""

    name: str
    key: str
    sums: Sums
    cost_idr: int | None
    share_percent: int
    is_rest: bool = False

    @property
    def is_unpriced(self) -> bool:
        """Whether nobody knows what any of these calls cost."""
        return self.sums.calls > 0 and self.sums.unpriced == self.sums.calls


@dataclass(frozen=True, slots=True)
class Column:
    """A day, week or month, as far as it is wanted: from `first` to `last`, both included."""

    first: date
    last: date


@dataclass(frozen=True, slots=True)
class Series:
    """One model over time, a value for each column: tokens, and cost in millionths of a dollar."""

    name: str
    tokens: Sequence[int]
    cost_micro_usd: Sequence[int]
    is_rest: bool


@dataclass(frozen=True, slots=True)
class Overview:
    """`models` and `operations` are those of all calls of these days, to choose from."""

    whole: Sums
    cost_idr: int | None
    before: Before
    columns: Sequence[Column]
    series: Sequence[Series]
    by_model: Sequence[Line]
    by_operation: Sequence[Line]
    models: Sequence[str]
    operations: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Chat:
    """What the calls of one chat took."""

    session_id: str
    calls: int
    tokens: int
    cost_usd: Decimal
    charged_tokens: int


def of(user: User, wish: Wish, rates: Rates, calls: Daily | None = None) -> Overview:
    """`calls` where they have been read, for these days at least and for every model and operation."""
    calls = calls or read(user, wish)
    found = [row for row in calls.rows if wish.first <= row.day <= wish.last]
    wanted = _wanted(found, wish)
    whole = Sums()
    by_model: dict[str, Sums] = defaultdict(Sums)
    by_operation: dict[str, Sums] = defaultdict(Sums)
    columns = columns_between(wish.first, wish.last, wish.grain)
    place = places_of(columns)
    tokens: dict[str, list[int]] = defaultdict(lambda: [0] * len(columns))
    costs: dict[str, list[Decimal]] = defaultdict(lambda: [Decimal(0)] * len(columns))
    parts: dict[tuple[str, str], Sums] = defaultdict(Sums)
    for row in wanted:
        parts[row.name, row.operation].add(row)
        tokens[row.name][place[row.day]] += row.tokens
        costs[row.name][place[row.day]] += row.cost_usd
    for (name, operation), part in parts.items():
        for sums in (whole, by_model[name], by_operation[operation]):
            sums.take_in(part)
    order = sorted(by_model, key=lambda name: (-by_model[name].tokens, name))
    return Overview(
        whole=whole,
        cost_idr=whole.cost_idr(rates),
        before=_before(user, wish, calls),
        columns=columns,
        series=_series(order, tokens, costs),
        by_model=_lines({name: (name, sums) for name, sums in by_model.items()}, whole, rates),
        by_operation=_lines(
            {key: (operation_name(key), sums) for key, sums in by_operation.items()}, whole, rates
        ),
        models=sorted({row.name for row in found} | ({wish.model} - {""})),
        operations=sorted(
            (
                (key, operation_name(key))
                for key in {row.operation for row in found} | ({wish.operation} - {""})
            ),
            key=lambda pair: pair[1],
        ),
    )


@planned_anew()
def chats(user: User, wish: Wish) -> list[Chat]:
    """The chats that cost most."""
    rows = costs.sums(
        calls_of(user, wish).exclude(session=""),
        "session",
        costs={"cost": None},
        others={
            "number": Count("*"),
            "tokens": Sum(F("input_tokens") + F("output_tokens")),
            "charged": Sum("charged_tokens"),
        },
    )
    found: dict[str, Chat] = {}
    for row in rows:
        so_far = found.get(row["session"]) or Chat(row["session"], 0, 0, Decimal(0), 0)
        found[row["session"]] = replace(
            so_far,
            calls=so_far.calls + row["number"],
            tokens=so_far.tokens + row["tokens"],
            cost_usd=so_far.cost_usd + row["cost"],
            charged_tokens=so_far.charged_tokens + row["charged"],
        )
    return sorted(found.values(), key=lambda chat: (-chat.cost_usd, -chat.tokens, chat.session_id))[:CHATS]


@planned_anew()
def calls(user: User, wish: Wish, *, before: str = "", limit: int = PAGE) -> Page:
    """A page of the calls, newest first from what the cursor `before` says on; or the dearest ones, on one page. Raises
    `reports.InvalidCursor`."""
    found = calls_of(user, wish)
    if wish.sort == DEAREST:
        cost = F("total_cost_usd") + F("corrected_usd")
        dearest = costs.told(found).order_by(cost.desc(nulls_last=True), "-created_at", "-id")
        return Page(list(dearest.defer("metadata")[:limit]), "")
    return reports.page(found.defer("metadata"), before=before, limit=limit)


def calls_of(user: User, wish: Wish) -> QuerySet[TokenUsage]:
    return TokenUsage.objects.filter(
        wish.narrowing, user=user, created_at__gte=wish.since, created_at__lt=wish.until
    )


def operation_name(operation: str) -> str:
    """An operation for people."""
    return str(OPERATIONS.get(operation) or operation.replace("_", " ").capitalize())


def read(user: User, wish: Wish) -> Daily:
    """The calls of these days, of all models and operations, so that these can be chosen."""
    wide = replace(wish, model="", operation="")
    return daily.read(user, first=wish.first, last=wish.last, narrowing=wide.narrowing)


def _wanted(rows: Sequence[Row], wish: Wish) -> list[Row]:
    return [row for row in rows if wish.operation in ("", row.operation) and wish.model in ("", row.name)]


def _before(user: User, wish: Wish, calls: Daily) -> Before:
    """Of the calls that have been read where they go so far back."""
    if calls.first > wish.first_before:
        return _read_before(user, wish)
    rows = _wanted([row for row in calls.rows if wish.first_before <= row.day < wish.first], wish)
    return Before(
        calls=sum(row.calls for row in rows),
        tokens=sum(row.tokens for row in rows),
        cost_usd=sum((row.cost_usd for row in rows), Decimal(0)),
    )


@planned_anew()
def _read_before(user: User, wish: Wish) -> Before:
    since = wish.midnight(wish.first_before)
    calls = TokenUsage.objects.filter(
        wish.narrowing, user=user, created_at__gte=since, created_at__lt=wish.since
    )
    tokens = Sum(F("input_tokens") + F("output_tokens"))
    rows = list(
        costs.sums(calls, "user_id", costs={"cost": None}, others={"number": Count("*"), "tokens": tokens})
    )
    return Before(
        calls=sum(row["number"] for row in rows),
        tokens=sum(row["tokens"] for row in rows),
        cost_usd=sum((row["cost"] for row in rows), Decimal(0)),
    )


def columns_between(first: date, last: date, grain: str) -> list[Column]:
    """The days, weeks or months between two days, as far as they lie between them; a week begins on Monday."""
    columns = []
    while first <= last:
        following = _following(first, grain)
        columns.append(Column(first, min(last, following - timedelta(days=1))))
        first = following
    return columns


def places_of(columns: Sequence[Column]) -> dict[date, int]:
    """At which column each day stands."""
    return {
        column.first + timedelta(days=nth): place
        for place, column in enumerate(columns)
        for nth in range((column.last - column.first).days + 1)
    }


def _following(day: date, grain: str) -> date:
    """The first day of the next day, week (they begin on Monday) or month."""
    if grain == MONTH:
        return date(day.year + day.month // 12, day.month % 12 + 1, 1)
    if grain == WEEK:
        return day + timedelta(days=7 - day.weekday())
    return day + timedelta(days=1)


def _series(
    order: Sequence[str], tokens: dict[str, list[int]], costs: dict[str, list[Decimal]]
) -> list[Series]:
    """The most used models, and the others as one; unless the others are one anyway."""
    named = order if len(order) <= NAMED + 1 else order[:NAMED]
    series = [Series(name, tokens[name], [_micro(usd) for usd in costs[name]], False) for name in named]
    if rest := order[len(named) :]:
        rest_tokens = [sum(numbers) for numbers in zip(*(tokens[name] for name in rest), strict=True)]
        rest_costs = [
            _micro(sum(usd, Decimal(0))) for usd in zip(*(costs[name] for name in rest), strict=True)
        ]
        series.append(Series("", rest_tokens, rest_costs, True))
    return series


def _micro(usd: Decimal) -> int:
    return int((usd * 1_000_000).to_integral_value())


def _lines(parts: dict[str, tuple[str, Sums]], whole: Sums, rates: Rates) -> list[Line]:
    """The parts, most tokens first."""
    lines = [
        Line(name, key, sums, sums.cost_idr(rates), _percent(sums.tokens, whole.tokens))
        for key, (name, sums) in parts.items()
    ]
    return sorted(lines, key=lambda line: (-line.sums.tokens, line.name))


def _percent(part: int, whole: int) -> int:
    return (200 * part + whole) // (2 * whole) if whole else 0
