"""Change rows and read them in one statement, which Django's `update` cannot."""

from typing import Any, TypeVar, cast

from django.db import connections, models
from django.db.models.expressions import RawSQL
from django.db.models.sql import UpdateQuery

M = TypeVar("M", bound=models.Model)


def update_returning(found: models.QuerySet[M], **changes: Any) -> list[M]:
    """Apply `changes` as `QuerySet.update` does; the rows that it matched, as they stand afterwards."""
    sql, params = _update(found, changes)
    return list(found.model._default_manager.raw(f"{sql} RETURNING *", params))


def update_asking(found: models.QuerySet[M], question: RawSQL, **changes: Any) -> list[bool]:
    """Apply `changes` as `QuerySet.update` does; for each row that it matched the answer to `question`."""
    sql, params = _update(found, changes)
    with connections[found.db].cursor() as cursor:
        cursor.execute(f"{sql} RETURNING {question.sql}", [*params, *question.params])
        return [bool(answer) for (answer,) in cursor.fetchall()]


def _update(found: models.QuerySet[M], changes: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    query = cast(UpdateQuery, found.query.chain(UpdateQuery))
    query.add_update_values(changes)
    sql, params = query.get_compiler(found.db).as_sql()
    return sql, tuple(params)
