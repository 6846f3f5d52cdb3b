"""`manage.py reconcile_topups` asks the gateways about payments whose notice may never have come."""

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from billing import topups


class Command(BaseCommand):
    help = "Ask the gateways about top-ups that are due, as the clock does every few seconds. Harmless when run twice."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--open",
            action="store_true",
            dest="everything",
            help="All that are open, also those not due yet.",
        )
        parser.add_argument("--limit", type=int, default=1000, help="How many at most.")
        parser.add_argument("--seconds", type=float, default=300.0, help="How long at most.")

    def handle(self, *args: Any, everything: bool, limit: int, seconds: float, **options: Any) -> None:
        looked = topups.reconcile(limit=limit, budget_s=seconds, everything=everything)
        self.stdout.write(
            f"{looked.asked} asked, {looked.changed} changed, {looked.failed} without an answer."
        )
