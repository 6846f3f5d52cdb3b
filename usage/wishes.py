"""What somebody wants to see of his calls, as the address of a page says it: which days, drawn by what, of which calls."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from django.db.models import Q
from django.utils import timezone
from django.utils.dateparse import parse_date

from aleph.accounts.models import User
from usage.models import TokenUsage

PRESETS = (7, 30, 90)
USUAL = 30
MOST_DAYS = 366
MOST_COLUMNS = 62
"""Days that a chart tells apart unless more are wished for; of a longer time it tells weeks."""
LONGEST = 120
"""Letters of a name that a wish may have."""
DAY, WEEK, MONTH = "day", "week", "month"
GRAINS = (DAY, WEEK, MONTH)
TOKENS, COST = "tokens", "cost"
NEWEST, DEAREST = "", "cost"


@dataclass(frozen=True, slots=True)
class Wish:
    """The days from `first` to `last`, both included, of the time zone `zone`. "" is no wish. `days` is the preset that
    was picked, 0 where the days were; `is_cut` where more were wanted than are shown."""

    zone: ZoneInfo
    today: date
    first: date
    last: date
    days: int = USUAL
    by: str = ""
    show: str = TOKENS
    operation: str = ""
    model: str = ""
    status: str = ""
    session: str = ""
    sort: str = NEWEST
    is_cut: bool = False

    @classmethod
    def read(cls, user: User, said: Mapping[str, str]) -> "Wish":
        """What makes no sense is taken as usual."""
        zone = ZoneInfo(user.time_zone)
        today = timezone.localdate(timezone=zone)
        days = next((days for days in PRESETS if str(days) == said.get("days")), USUAL)
        first, last, is_cut = today - timedelta(days=days - 1), today, False
        ends = sorted(filter(None, (_day_in(said.get("from", "")), _day_in(said.get("to", "")))))
        if ends:
            last = min(today, ends[-1] if len(ends) == 2 else today)
            first = min(ends[0], last)
            days = 0
            if (last - first).days >= MOST_DAYS:
                first, is_cut = last - timedelta(days=MOST_DAYS - 1), True
        return cls(
            zone=zone,
            today=today,
            first=first,
            last=last,
            days=days,
            by=_one_of(GRAINS, said.get("by")),
            show=_one_of((COST,), said.get("show")) or TOKENS,
            operation=_name(said.get("operation")),
            model=_name(said.get("model")),
            status=_one_of(TokenUsage.Status.values, said.get("status")),
            session=_name(said.get("session")),
            sort=_one_of((DEAREST,), said.get("sort")),
            is_cut=is_cut,
        )

    @property
    def grain(self) -> str:
        """What a column of the chart is: as wished, else as many as one can tell apart."""
        return self.by or (DAY if self.length <= MOST_COLUMNS else WEEK)

    @property
    def length(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def since(self) -> datetime:
        return self.midnight(self.first)

    @property
    def until(self) -> datetime:
        """The moment after the last day. Of today's it is tomorrow's midnight."""
        return self.midnight(self.last + timedelta(days=1))

    @property
    def first_before(self) -> date:
        """The first of as many days up to `first`, to compare with."""
        return self.first - timedelta(days=self.length)

    @property
    def is_narrow(self) -> bool:
        """Whether it is about some calls of these days only."""
        return bool(self.operation or self.model or self.status or self.session)

    @property
    def narrowing(self) -> Q:
        """Which of the calls of these days. A model goes by the name that people know."""
        wanted = Q()
        if self.operation:
            wanted &= Q(operation=self.operation)
        if self.model:
            unnamed = Q(requested_model=self.model) | Q(requested_model__endswith=f"/{self.model}")
            wanted &= Q(label=self.model) | (Q(label="") & unnamed)
        if self.status:
            wanted &= Q(status=self.status)
        if self.session:
            wanted &= Q(session=self.session)
        return wanted

    @property
    def places(self) -> dict[str, str]:
        """What of an address says the same, without what is usual."""
        said: dict[str, Any] = {"days": "" if self.days == USUAL else self.days or ""}
        if not self.days:
            said |= {"from": self.first.isoformat(), "to": self.last.isoformat()}
        said |= {"by": self.by, "show": "" if self.show == TOKENS else self.show}
        said |= {name: getattr(self, name) for name in ("operation", "model", "status", "session", "sort")}
        return {name: str(value) for name, value in said.items() if value}

    def query(self, **changes: object) -> str:
        """The address of this wish with some changes: ``?days=7&by=week``. `days` and `first` exclude each other."""
        said = self.places
        if changes.keys() & {"days", "from"}:
            said = {name: value for name, value in said.items() if name not in ("days", "from", "to")}
        said |= {name: str(value) for name, value in changes.items()}
        return "?" + urlencode({name: value for name, value in said.items() if value})

    def midnight(self, day: date) -> datetime:
        return datetime.combine(day, time.min, tzinfo=self.zone)


def _day_in(text: str) -> date | None:
    try:
        day = parse_date(text)
    except ValueError:
        return None
    return day if day is not None and 2000 <= day.year < 2200 else None


def _one_of(values: Any, wish: str | None) -> str:
    return wish if wish is not None and wish in values else ""


def _name(wish: str | None) -> str:
    return wish if wish and len(wish) <= LONGEST and wish.isprintable() else ""
