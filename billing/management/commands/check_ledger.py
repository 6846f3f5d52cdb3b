"""`manage.py check_ledger` proves from the transfers that every balance is right. Exit code 1 if one is not.

With `--freeze` it also freezes the accounts whose balance or holds are wrong, and tells the staff.
"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from billing import audit, freezing, rounds


class Command(BaseCommand):
    help = "Compute all balances and holds again from the ledger and report whatever differs."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--freeze", action="store_true", help="Freeze accounts that disagree, and tell the staff."
        )

    def handle(self, *args: Any, freeze: bool, **options: Any) -> None:
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
        if freeze:
            self._freeze()
        if drifts:
            raise CommandError(f"The books are wrong in {len(drifts)} places.")
        self.stdout.write("The books are right.")

    def _freeze(self) -> None:
        with freezing.telling_staff() as freeze:
            for account in rounds.everybody():
                if not account.agrees and (line := freeze(account)):
                    self.stdout.write(f"frozen: {line}")
