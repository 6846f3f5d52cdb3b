"""`manage.py reprice` prices the calls that had no price when they were made. It touches no call that has one."""

from typing import Any

from django.core.management.base import BaseCommand

from usage import meter


class Command(BaseCommand):
    help = "Price calls that had no price when they were recorded, as of when they began."

    def handle(self, *args: Any, **options: Any) -> None:
        priced, left = meter.reprice()
        self.stdout.write(f"{priced} priced, {left} still without a price.")
