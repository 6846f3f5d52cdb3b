"""`manage.py check_ledger` proves from the transfers that every balance is right. Exit code 1 if one is not."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

from billing import audit


class Command(BaseCommand):
    help = "Compute all balances and holds again from the ledger and report whatever differs."

    def handle(self, *args: Any, **options: Any) -> None:
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET statement_timeout = 0")
        drifts = audit.check()
        for drift in drifts:
            self.stdout.write(str(drift))
        found = audit.counts()
        self.stdout.write(
            f"{found.accounts} accounts, {found.transfers} transfers, {found.open_holds} open holds,"
            f" {found.purchases} purchases"
        )
        if drifts:
            raise CommandError(f"The books are wrong in {len(drifts)} places.")
        self.stdout.write("The books are right.")
