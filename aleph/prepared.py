"""Statements of the ORM that are put together once in a process and run many times.

To build a queryset and compile it costs several times what it costs to run it, and the words come out the same. What
every message has to ask is therefore built once, at its first use, with a `Given` wherever a value goes:

    OF_OWNER = Rows(lambda: Session.objects.filter(user=Given("user"), pk=Given("id")).select_related("model"))
    session = OF_OWNER.first(user=user.pk, id=session_id)

All else stays with the ORM. A filter compares with a value, never with None, and a list keeps its length.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache, cached_property
from typing import Any, Generic, TypeVar, cast

from django.db import connection, models
from django.db.models.expressions import Expression, RawSQL
from django.db.models.query import get_related_populators
from django.db.models.sql import UpdateQuery
from django.db.models.sql.compiler import SQLCompiler


@contextmanager
def planned_anew() -> Iterator[None]:
    """Statements in here, or in a function that has this for a decorator, are planned for the values that they come with.

    PostgreSQL keeps a plan that suits everybody once it has seen a statement a few times, which saves half the time of a
    short one. Who has a thousand times as many rows as others would have them all sorted to see the newest."""
    if connection.vendor != "postgresql":
        yield
        return
    connection.ensure_connection()
    client = connection.connection
    threshold, client.prepare_threshold = client.prepare_threshold, None
    try:
        yield
    finally:
        client.prepare_threshold = threshold


M = TypeVar("M", bound=models.Model)
Statement = tuple[str, Sequence[Any]]


class Given(Expression):
    """The place of a value that comes with each call, by its name. With a `field` it is stored as that field stores it."""

    def __init__(self, name: str, field: "models.Field[Any, Any] | None" = None) -> None:
        super().__init__(output_field=field)
        self.name, self.stored_by = name, field

    def as_sql(self, *_: Any, **__: Any) -> Any:
        return "%s", [self]

    def of(self, given: dict[str, Any]) -> Any:
        """The value, in the database's form."""
        value = given[self.name]
        if self.stored_by is not None:
            return self.stored_by.get_db_prep_save(value, connection)
        return connection.ops.adapt_datetimefield_value(value) if isinstance(value, datetime) else value


class Rows(Generic[M]):
    """The rows of a queryset, with what it selects and annotates."""

    def __init__(self, build: Callable[[], models.QuerySet[M]]) -> None:
        self._build = build

    def all(self, **given: Any) -> list[M]:
        statement, read = self._prepared
        with connection.cursor() as cursor:
            _run(cursor, statement, given)
            return [read(row) for row in cursor.fetchall()]

    def first(self, **given: Any) -> M | None:
        return next(iter(self.all(**given)), None)

    @cached_property
    def _prepared(self) -> tuple[Statement, Callable[[Sequence[Any]], M]]:
        compiler = self._build().query.get_compiler(connection=connection)
        statement = compiler.as_sql()
        info = cast(dict[str, Any], compiler.klass_info)
        columns = [column for column, _sql, _alias in compiler.select]
        own = slice(info["select_fields"][0], info["select_fields"][-1] + 1)
        names = [column.target.attname for column in columns[own]]
        annotations = list((compiler.annotation_col_map or {}).items())
        related = get_related_populators(info, compiler.select, connection.alias)  # type: ignore[call-arg]
        convert = _converter(compiler, columns)

        def read(found: Sequence[Any]) -> M:
            row = convert(found)
            instance: M = info["model"].from_db(connection.alias, names, row[own])
            for populator in related:
                populator.populate(row, instance)
            for name, at in annotations:
                setattr(instance, name, row[at])
            return instance

        return statement, read


class Update(Generic[M]):
    """The change of the rows of a queryset, as its `update` makes it. A `Given` in `changes` is stored as its field stores it."""

    def __init__(self, build: Callable[[], models.QuerySet[M]], **changes: Any) -> None:
        self._build, self._changes = build, changes

    def __call__(self, **given: Any) -> int:
        """How many rows there were to change."""
        (statement, _fields, _convert) = self._prepared
        with connection.cursor() as cursor:
            _run(cursor, statement, given)
            return int(cursor.rowcount)

    def returning(self, **given: Any) -> list[M]:
        """The rows that were changed, as they stand afterwards."""
        (sql, params), fields, convert = self._prepared
        names = ", ".join(connection.ops.quote_name(field.column) for field in fields)
        with connection.cursor() as cursor:
            _run(cursor, (f"{sql} RETURNING {names}", params), given)
            return [
                fields[0].model.from_db(connection.alias, [field.attname for field in fields], convert(row))
                for row in cursor.fetchall()
            ]

    def asking(self, question: RawSQL, **given: Any) -> list[bool]:
        """For each row that was changed the answer to `question`."""
        (sql, params), *_ = self._prepared
        with connection.cursor() as cursor:
            _run(cursor, (f"{sql} RETURNING {question.sql}", (*params, *question.params)), given)
            return [bool(answer) for (answer,) in cursor.fetchall()]

    @cached_property
    def _prepared(self) -> tuple[Statement, Sequence[Any], Callable[[Sequence[Any]], Sequence[Any]]]:
        found = self._build()
        meta = found.model._meta
        query = cast(UpdateQuery, found.query.chain(UpdateQuery))
        query.add_update_values(
            {
                name: Given(value.name, cast("models.Field[Any, Any]", meta.get_field(name)))
                if isinstance(value, Given)
                else value
                for name, value in self._changes.items()
            }
        )
        compiler = query.get_compiler(connection=connection)
        fields = meta.concrete_fields
        columns = [field.get_col(meta.db_table) for field in fields]
        return compiler.as_sql(), fields, _converter(compiler, columns)


def insert(*rows: models.Model, unless_there: bool = False) -> int:
    """Write rows of one model, which bring their keys, in one statement; how many were written. With `unless_there` a row
    is left out where a unique index holds the same already; the ORM's `ignore_conflicts` swallows broken constraints on SQLite,
    too, and does not say what was written."""
    fields = rows[0]._meta.concrete_fields
    values = [
        field.get_db_prep_save(field.pre_save(row, add=True), connection) for row in rows for field in fields
    ]
    with connection.cursor() as cursor:
        cursor.execute(_insertion(type(rows[0]), len(rows), unless_there), values)
        for row in rows:
            row._state.adding, row._state.db = False, connection.alias
        return int(cursor.rowcount)


@cache
def _insertion(model: type[models.Model], number: int, unless_there: bool) -> str:
    quoted = connection.ops.quote_name
    fields = model._meta.concrete_fields
    columns = ", ".join(quoted(str(field.column)) for field in fields)
    marks = ", ".join(["(" + ", ".join(["%s"] * len(fields)) + ")"] * number)
    # Without the columns: on PostgreSQL the index that holds a call once is that of its month.
    conflict = " ON CONFLICT DO NOTHING" if unless_there else ""
    return f"INSERT INTO {quoted(model._meta.db_table)} ({columns}) VALUES {marks}{conflict}"  # noqa: S608


def _run(cursor: Any, statement: Statement, given: dict[str, Any]) -> None:
    sql, params = statement
    cursor.execute(sql, [param.of(given) if isinstance(param, Given) else param for param in params])


def _converter(compiler: SQLCompiler, columns: list[Any]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """What makes of a row of the database's values one of Python's."""
    converters = list(compiler.get_converters(columns).items())

    def convert(found: Sequence[Any]) -> Sequence[Any]:
        row = list(found)
        for at, (steps, column) in converters:
            for step in steps:
                row[at] = step(row[at], column, connection)
        return row

    return convert if converters else lambda found: found
