"""`manage.py reseal` brings what is stored in encrypted columns to one state: the newest key, or none where a column is
not encrypted any more. It may be stopped and begun again, and the product may run meanwhile."""

from typing import Any

from django.apps import apps
from django.core.management.base import BaseCommand

from aleph.sealed import SealedTextField, is_current, sealed_fields, stored

BATCH = 500


class Command(BaseCommand):
    help = "Encrypt stored values with the first key of FIELD_KEYS, or decrypt those of columns that are not encrypted any more."

    def handle(self, *args: Any, **options: Any) -> None:
        for field in sealed_fields(apps.get_models()):
            self.stdout.write(f"{field.place}: {reseal(field)} written")


def reseal(field: SealedTextField) -> int:
    """How many values were written. One that changes meanwhile is written as it should be by whoever changes it."""
    rows = field.model._base_manager.annotate(kept=stored(field.name)).order_by("pk")
    written, last = 0, None
    while True:
        behind = rows if last is None else rows.filter(pk__gt=last)
        batch = list(behind.values_list("pk", "kept", field.name)[:BATCH])
        for pk, kept, text in batch:
            if kept is not None and not is_current(kept, field):
                written += rows.filter(pk=pk, kept=kept).update(**{field.name: text})
        if not batch:
            return written
        last = batch[-1][0]
