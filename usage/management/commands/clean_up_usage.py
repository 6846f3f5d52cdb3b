"""`manage.py clean_up_usage` deletes the calls that are kept no longer, as the clock does; what they add up to stays."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from usage import retention


class Command(BaseCommand):
    help = "Delete the calls of months that have been over for USAGE_RETENTION_DAYS, once they are added up."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--seconds", type=float, default=600.0, help="how long it may take, about")

    def handle(self, *args: Any, **options: Any) -> None:
        gone = retention.clean_up(budget_s=options["seconds"])
        kept_from = retention.kept_from()
        if kept_from is None:
            self.stdout.write("All calls are kept.")
        else:
            self.stdout.write(
                f"Calls are kept from {kept_from:%Y-%m-%d} on; {gone} calls or months of them went."
            )
