"""What is kept about a person: each app names its tables in its `personal` module, and the roof exports and erases them
(`aleph.exports`, `aleph.erasure`). `settings.PERSONAL_DATA` names the modules."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any, Literal

from django.conf import settings
from django.db.models import Field, Model, Q, QuerySet

from aleph.accounts.models import User

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kept:
    """A table with rows about a person. `by` are the lookups that lead from a row to him, any of them.

    `without` are columns that are not his to read: secrets, and what the product needs only for itself. After his erasure
    the rows are ``kept`` (he is a number in them then), ``deleted``, or kept with the columns of `blanked` set anew.
    """

    name: str
    model: type[Model]
    by: Sequence[str] = ("user",)
    without: frozenset[str] = frozenset()
    erased: Literal["kept", "deleted"] = "kept"
    blanked: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, user: User) -> QuerySet[Model]:
        wanted = Q()
        for lookup in self.by:
            wanted |= Q(**{lookup: user.pk})
        return self.model._base_manager.filter(wanted).order_by("pk")

    @property
    def columns(self) -> list["Field[Any, Any]"]:
        return [column for column in self.model._meta.concrete_fields if column.name not in self.without]

    def rows(self, user: User) -> Iterator[Row]:
        """A dict a row, its columns by the names that the database has."""
        names = [column.attname for column in self.columns]
        for values in self.of(user).values_list(*names).iterator(chunk_size=500):
            yield dict(zip(names, values, strict=True))


def modules() -> list[ModuleType]:
    return [import_module(path) for path in settings.PERSONAL_DATA]


def tables() -> list[Kept]:
    return [kept for module in modules() for kept in module.TABLES]
