"""`manage.py rebuild_rollups --since 2026-01-01 --until 2026-02-01` adds the calls of a time up anew."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from usage import rollups


class Command(BaseCommand):
    help = "Add up anew what the rollups tell of a time, from the calls that are kept."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", type=date.fromisoformat, help="first day in UTC; without it, the first of all"
        )
        parser.add_argument("--until", type=date.fromisoformat, help="last day in UTC; without it, today")

    def handle(self, *args: Any, **options: Any) -> None:
        since = _midnight(options["since"]) if options["since"] else rollups.BEGINNING
        until = _midnight(options["until"] + timedelta(days=1)) if options["until"] else timezone.now()
        hours = rollups.rebuild(since=since, until=until)
        self.stdout.write(f"{hours} hours were added up anew, as far as they are over.")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
