"""On PostgreSQL the table of calls becomes one that is partitioned by month (`usage.partitions`). Rows, columns, checks,
foreign keys and indexes stay; in place of the unique index on attempts each partition has one of its own. An index for
LIKE on ids, which nothing asks, is left out.

The rows are written once more: ten million take some minutes, in which nobody else may use the table. SQLite keeps its
table.
"""

from datetime import UTC, date, datetime
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps

from aleph import ids
from usage import partitions
from usage.partitions import REST, TABLE

Cursor = Any
WHOLE = "usage_tokenusage_whole"
UNIQUE = "usage_once_per_attempt"


def split(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        cursor.execute("SET LOCAL maintenance_work_mem = '256MB'")
        keys, indexes = _keys(cursor), _indexes(cursor)
        cursor.execute(f"ALTER TABLE {TABLE} RENAME TO {WHOLE}")
        cursor.execute(
            f"CREATE TABLE {TABLE} (LIKE {WHOLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id)"
        )
        cursor.execute(f"CREATE TABLE {REST} PARTITION OF {TABLE} DEFAULT")
        cursor.execute(f"SELECT DISTINCT date_trunc('month', created_at AT TIME ZONE 'UTC')::date FROM {WHOLE}")  # noqa: S608
        for month in sorted({row[0] for row in cursor.fetchall()} - set(partitions.months())):
            partitions.make(month)
        partitions.prepare()
        for month in partitions.months():
            _tell_one_month(cursor, month)
        cursor.execute(f"INSERT INTO {TABLE} SELECT * FROM {WHOLE}")  # noqa: S608
        cursor.execute(f"DROP TABLE {WHOLE}")
        partitions.once(REST)
        cursor.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {TABLE}_pkey PRIMARY KEY (id)")
        for statement in (*keys, *indexes):
            cursor.execute(statement)
        cursor.execute(f"ANALYZE {TABLE}")


def join(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    if schema_editor.connection.vendor != "postgresql":
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        keys, indexes = _keys(cursor), _indexes(cursor)
        cursor.execute(f"CREATE TABLE {WHOLE} (LIKE {TABLE} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")
        cursor.execute(f"INSERT INTO {WHOLE} SELECT * FROM {TABLE}")  # noqa: S608
        cursor.execute(f"DROP TABLE {TABLE}")
        cursor.execute(f"ALTER TABLE {WHOLE} RENAME TO {TABLE}")
        cursor.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {TABLE}_pkey PRIMARY KEY (id)")
        cursor.execute(f"ALTER TABLE {TABLE} ADD CONSTRAINT {UNIQUE} UNIQUE (operation_id, attempt)")
        for statement in (*keys, *indexes):
            cursor.execute(statement)


def _tell_one_month(cursor: Cursor, month: date) -> None:
    """Calls that were stored long after their ids were made get ids of when they were stored. The meter makes none; nothing
    else refers to a call by its id."""
    since, until = _midnight(month), _midnight(partitions.after(month))
    cursor.execute(
        f"SELECT id, created_at FROM {WHOLE} WHERE id >= %s AND id < %s"  # noqa: S608
        " AND NOT (created_at >= %s AND created_at < %s)",
        [
            ids.first("use", since),
            ids.first("use", until),
            since - partitions.SKEW,
            until + partitions.SKEW,
        ],
    )
    for usage_id, moment in cursor.fetchall():
        cursor.execute(
            f"UPDATE {WHOLE} SET id = %s WHERE id = %s",  # noqa: S608
            [f"use_{ids.at(moment)}", usage_id],
        )


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _keys(cursor: Cursor) -> list[str]:
    """The statements that make the foreign keys of the table."""
    cursor.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conrelid = %s::regclass AND contype = 'f'",
        [TABLE],
    )
    return [f'ALTER TABLE {TABLE} ADD CONSTRAINT "{name}" {made}' for name, made in cursor.fetchall()]


def _indexes(cursor: Cursor) -> list[str]:
    """The statements that make its indexes, but for what keys need and what nothing asks."""
    cursor.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = %s AND indexdef NOT LIKE 'CREATE UNIQUE%%'"
        " AND indexdef NOT LIKE '%%(id varchar_pattern_ops)'",
        [TABLE],
    )
    return [row[0].replace(" ON ONLY ", " ON ") for row in cursor.fetchall()]


class Migration(migrations.Migration):
    dependencies = [("usage", "0009_unusual_use")]

    operations = [migrations.RunPython(split, join)]
