"""`manage.py rebuild_rollups --since 2026-01-01 --until 2026-02-01` adds the calls of a time up anew."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from usage import rollups


class Command(BaseCommand):
    help = "Add up anew what the rollups tell of a time, from the calls that are kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", type=date.fromisoformat, help="first day in UTC; without it, the first that is kept"
        )
        parser.add_argument("--until", type=date.fromisoformat, help="last day in UTC; without it, today")

    def handle(self, *args: Any, **options: Any) -> None:
        since = _midnight(options["since"]) if options["since"] else None
        until = _midnight(options["until"] + timedelta(days=1)) if options["until"] else timezone.now()
        try:
            hours = rollups.rebuild(since=since, until=until)
        except rollups.RowsGone as gone:
            raise CommandError(
                f"Calls are kept from {gone.args[0]:%Y-%m-%d} on. What is added up of those before is all that is left of them,"
                " so it stays as it is."
            ) from gone
        self.stdout.write(f"{hours} hours were added up anew, as far as they are over.")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
