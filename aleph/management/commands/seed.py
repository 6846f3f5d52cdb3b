"""`manage.py seed` adds what a new shop needs: packages, models and provider prices. It never changes what is there."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph import demo_people
from billing import package_list
from chat import model_list
from usage import currency, price_list


class Command(BaseCommand):
    help = "Add missing packages, models and provider prices. What is there stays as the staff left it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--demo", action="store_true", help="also the demo people (development only)")

    def handle(self, *args: Any, demo: bool, **options: Any) -> None:
        if demo and not settings.DEVELOPMENT:
            raise CommandError("Demo people have known addresses and live in development only.")
        package_list.seed()
        price_list.seed()
        currency.seed()
        model_list.seed()  # last: rates are set from cost
        if demo:
            demo_people.move_in()
