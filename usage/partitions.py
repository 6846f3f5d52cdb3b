"""Calls by month, on PostgreSQL: `usage_tokenusage` is partitioned by the id of a call, which begins with its time.

Every month of UTC has a partition, made ahead of it; what fits none stands in the one for the rest, and moves when its
month is made. Ids and `created_at` tell the same month: a check of each partition says so, which lets the planner leave
out months by either. SQLite has one table and nothing to do here. ADR 0019.
"""

from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.utils import timezone

from aleph import ids

TABLE = "usage_tokenusage"
REST = "usage_calls_rest"
PREFIX = "usage_calls_"
AHEAD = 3
"""Months that are made before they begin."""
SKEW = timedelta(days=1)
"""How far `created_at` may be out of the month of the id."""


def prepare() -> list[date]:
    """Make the months that are missing, from this one to `AHEAD` later; those that were made."""
    if connection.vendor != "postgresql":
        return []
    month = month_of(timezone.now())
    wanted = [month]
    while len(wanted) <= AHEAD:
        wanted.append(after(wanted[-1]))
    known = months()
    return [month for month in wanted if month not in known and make(month)]


def make(month: date) -> bool:
    """Give a month its partition, with the calls of it that stood in the rest; False where it has one."""
    name, since, until = name_of(month), _midnight(month), _midnight(after(month))
    low, high = ids.first("use", since), ids.first("use", until)
    with transaction.atomic(), connection.cursor() as cursor:
        # Attached and not created in place, which would lock the whole table against readers, too.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [PREFIX])
        if month in months():
            return False
        cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        cursor.execute(
            f"ALTER TABLE {name} ADD CONSTRAINT {name}_is_of_its_month"
            f" CHECK (created_at >= '{since - SKEW}' AND created_at < '{until + SKEW}')"
        )
        once(name)
        cursor.execute(
            f"WITH moved AS (DELETE FROM {REST} WHERE id >= '{low}' AND id < '{high}' RETURNING *)"  # noqa: S608
            f" INSERT INTO {name} SELECT * FROM moved"
        )
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{low}') TO ('{high}')")
    return True


def once(name: str) -> None:
    """Let a partition hold each attempt of an operation once. A unique index of all of them would have to contain the id;
    that no attempt is recorded in two months is the statement's work that records it (`usage.meter`)."""
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE UNIQUE INDEX {name}_once ON {name} (operation_id, attempt)")


def drop(month: date) -> None:
    """Take a month away, with all its calls. Needs the whole table for a moment: raises `OperationalError` where somebody
    uses it for long, before those who come after him are kept waiting."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL lock_timeout = '1s'")
        cursor.execute(f"DROP TABLE IF EXISTS {name_of(month)}")


def months() -> list[date]:
    """The months that have a partition, oldest first."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid WHERE inhparent = %s::regclass",
            [TABLE],
        )
        names = [name for (name,) in cursor.fetchall() if name != REST]
    return sorted(
        datetime.strptime(name, f"{PREFIX}%Y_%m").replace(tzinfo=UTC).date()
        for name in names
        if name.startswith(PREFIX)
    )


def name_of(month: date) -> str:
    return f"{PREFIX}{month:%Y_%m}"


def month_of(moment: datetime) -> date:
    """The first day of a moment's month, in UTC."""
    return moment.astimezone(UTC).date().replace(day=1)


def after(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
