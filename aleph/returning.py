"""Change rows and read them in one statement, which Django's `update` cannot."""

from typing import Any, TypeVar, cast

from django.db import models
from django.db.models.sql import UpdateQuery

M = TypeVar("M", bound=models.Model)


def update_returning(found: models.QuerySet[M], **changes: Any) -> list[M]:
    """Apply `changes` as `QuerySet.update` does; the rows that it matched, as they stand afterwards."""
    query = cast(UpdateQuery, found.query.chain(UpdateQuery))
    query.add_update_values(changes)
    sql, params = query.get_compiler(found.db).as_sql()
    return list(found.model._default_manager.raw(f"{sql} RETURNING *", params))
