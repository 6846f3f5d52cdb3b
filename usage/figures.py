"""The figures over the usage page: today, this month, what it will come to, and how long the balance lasts.

One pass over the last weeks tells all that is past; what is being written at the moment is asked of the neighbours
(`usage.neighbours`), and counts in by estimate until it is recorded.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from django.utils import timezone

from aleph.accounts.models import User
from aleph.templatetags.aleph import usd_range
from usage import daily, forecast, neighbours, pricing
from usage.counts import Counts
from usage.currency import Rates, in_idr
from usage.daily import Daily
from usage.models import ExchangeRate, TokenUsage
from usage.neighbours import Writing

SECONDS_OF_A_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Top:
    """The most used model of a month, "" where nothing was used, and its share of the tokens."""

    model: str
    share_percent: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`..._before`: the day or month before, up to the same time of day. `unpriced_month`: calls whose cost nobody knows
    yet, and which the sum lacks. `month_end_usd` is the month's whole cost, None where there is too little to say so;
    `lasts` is None where nothing is charged, or too little is known (`learnt_days` says of how many days it is). `newest`:
    the id of the last call."""

    today: date
    tokens_today: int
    calls_today: int
    tokens_before: int
    cost_month_usd: Decimal
    cost_month_idr: int | None
    calls_month: int
    unpriced_month: int
    cost_before_usd: Decimal
    top: Top
    top_before: Top
    month_end_usd: forecast.Range | None
    lasts: forecast.Lasting | None
    learnt_days: int
    available_tokens: int
    rate: ExchangeRate | None
    writing: Sequence[Writing]
    newest: str

    @property
    def writing_tokens(self) -> int:
        return sum(reply.tokens for reply in self.writing)

    @property
    def is_early(self) -> bool:
        """Whether there are too few days for a forecast."""
        return self.learnt_days < forecast.LEAST_DAYS

    @property
    def month_end_idr(self) -> tuple[int, int] | None:
        if self.month_end_usd is None:
            return None
        low, high = (in_idr(usd, self.rate) for usd in (self.month_end_usd.low, self.month_end_usd.high))
        return None if low is None or high is None else (low, high)

    @property
    def seen(self) -> str:
        """What whoever is shown these has seen."""
        return seen(self.newest, self.today, self.available_tokens, is_writing=bool(self.writing))

    @property
    def month_end_range(self) -> str:
        return usd_range(self.month_end_usd.low, self.month_end_usd.high) if self.month_end_usd else ""


def of(
    user: User,
    *,
    newest: str,
    available_tokens: int,
    rates: Rates,
    calls: Daily | None = None,
    writing: Sequence[Writing] | None = None,
) -> Figures:
    """`calls` where they have been read by `read` here; `writing` where the neighbours have been asked already."""
    zone = ZoneInfo(user.time_zone)
    now = timezone.now()
    today = now.astimezone(zone).date()
    month = today.replace(day=1)
    month_before = (month - timedelta(days=1)).replace(day=1)
    calls = calls or read(user)
    days = _days(calls, today)
    writing = neighbours.ask().being_written(user) if writing is None else writing
    writing_usd = _cost_of(writing, now)
    costs = [(day, row.cost_usd) for day, row in days.items() if day >= month]
    if writing_usd:
        costs.append((today, writing_usd))
    today_row = days.get(today, _Day())
    left_of_today = _left_of(now, zone)
    learnt = _whole_days(days, today)
    pattern = forecast.learnt([(day, days.get(day, _Day()).cost_usd) for day in learnt])
    spending = forecast.learnt([(day, Decimal(days.get(day, _Day()).charged_tokens)) for day in learnt])
    spent = sum((usd for _day, usd in costs), Decimal(0))
    return Figures(
        today=today,
        tokens_today=today_row.tokens.total() + sum(reply.tokens for reply in writing),
        calls_today=today_row.calls,
        tokens_before=days.get(today - timedelta(days=1), _Day()).early_tokens,
        cost_month_usd=spent,
        cost_month_idr=rates.in_idr(costs),
        calls_month=sum(row.calls for day, row in days.items() if day >= month),
        unpriced_month=sum(row.unpriced for day, row in days.items() if day >= month),
        cost_before_usd=sum(
            (row.early_usd for day, row in days.items() if month_before <= day < month), Decimal(0)
        ),
        top=_top(row for day, row in days.items() if day >= month),
        top_before=_top(row for day, row in days.items() if month_before <= day < month),
        month_end_usd=_month_end(pattern, spent, today, left_of_today),
        lasts=forecast.lasting(spending, Decimal(available_tokens), today=today, left_of_today=left_of_today)
        if spending
        else None,
        learnt_days=len(learnt),
        available_tokens=available_tokens,
        rate=rates.on(today),
        writing=writing,
        newest=newest,
    )


def newest(user: User) -> str:
    """The id of the user's last call, "" where there is none: as long as it stays, the past has not changed."""
    calls = TokenUsage.objects.filter(user=user).order_by("-created_at", "-id")
    return calls.values_list("id", flat=True).first() or ""


def seen(newest: str, today: date, available_tokens: int, *, is_writing: bool) -> str:
    """What the figures go by, beside the time of day: the same means that they are the same, unless something is being
    written. The end of what was written is a change, too, and so is midnight."""
    return f"{newest}.{today}.{available_tokens}{'+' if is_writing else ''}"


def read(user: User, *, since: date | None = None) -> Daily:
    """The calls since the month before, or the first day that a forecast looks at; or since an earlier day. Divided where
    yesterday and the month before are compared up to."""
    zone = ZoneInfo(user.time_zone)
    local = timezone.now().astimezone(zone)
    today = local.date()
    month = today.replace(day=1)
    month_before = (month - timedelta(days=1)).replace(day=1)
    first = min(_first(today), since or today)
    yesterday_now = _at(today - timedelta(days=1), local.time(), zone)
    # Of a shorter month before, all of it is compared.
    month_now = min(
        _at(month, time.min, zone), _at(month_before, local.time(), zone) + timedelta(days=today.day - 1)
    )
    return daily.read(user, first=first, last=today, cuts=(yesterday_now, month_now))


def _first(today: date) -> date:
    month_before = (today.replace(day=1) - timedelta(days=1)).replace(day=1)
    return min(month_before, today - timedelta(weeks=forecast.WEEKS))


class _Day:
    """The calls of one day; `early_...` of those up to the time of day that it is now, or of all, as it is compared."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()
        self.calls = self.unpriced = self.charged_tokens = self.early_tokens = 0
        self.cost_usd = self.early_usd = Decimal(0)


def _days(calls: Daily, today: date) -> dict[date, _Day]:
    yesterday_now, month_now = calls.cuts
    first = _first(today)
    days: dict[date, _Day] = defaultdict(_Day)
    for row in calls.rows:
        if row.day < first:
            continue
        # A clock that runs ahead of this one may have stored a call of tomorrow.
        day = days[min(row.day, today)]
        day.tokens[row.name] += row.tokens
        day.calls += row.calls
        day.unpriced += row.unpriced
        day.charged_tokens += row.charged_tokens
        day.cost_usd += row.cost_usd
        if row.begins < yesterday_now:
            day.early_tokens += row.tokens
        if row.begins < month_now:
            day.early_usd += row.cost_usd
    return days


def _whole_days(days: dict[date, _Day], today: date) -> list[date]:
    """The days that a forecast learns from: from the one after the first with a call up to yesterday."""
    first = max(min(days, default=today) + timedelta(days=1), today - timedelta(weeks=forecast.WEEKS))
    return [first + timedelta(days=nth) for nth in range((today - first).days)]


def _month_end(
    pattern: forecast.Pattern | None, spent: Decimal, today: date, left_of_today: Decimal
) -> forecast.Range | None:
    if pattern is None:
        return None
    rest = forecast.rest(pattern, forecast.to_month_end(today, left_of_today))
    return forecast.Range(spent + rest.low, spent + rest.high)


def _left_of(now: datetime, zone: ZoneInfo) -> Decimal:
    """The part of today that is still to come."""
    local = now.astimezone(zone)
    midnight = _at(local.date() + timedelta(days=1), time.min, zone)
    return max(Decimal(0), Decimal(int((midnight - now).total_seconds())) / SECONDS_OF_A_DAY)


def _top(days: Iterable[_Day]) -> Top:
    used: Counter[str] = sum((day.tokens for day in days), Counter())
    tokens = used.total()
    if not tokens:
        return Top("", 0)
    model = min(used, key=lambda name: (-used[name], name))
    return Top(model, (200 * used[model] + tokens) // (2 * tokens))


def _cost_of(writing: Sequence[Writing], now: datetime) -> Decimal:
    """What the replies that are being written will have cost up to here, where there is a price for them."""
    whole = Decimal(0)
    for reply in writing:
        price = pricing.price_at(reply.provider, reply.model, now, input_tokens=reply.input_tokens)
        if reply.provider and price is not None:
            counts = Counts(fresh_input=reply.input_tokens, visible_output=reply.output_tokens)
            whole += pricing.cost(price, counts).total_usd or Decimal(0)
    return whole


def _at(day: date, moment: time, zone: ZoneInfo) -> datetime:
    return datetime.combine(day, moment.replace(tzinfo=None), tzinfo=zone)
