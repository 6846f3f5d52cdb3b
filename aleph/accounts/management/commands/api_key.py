"""`manage.py api_key EMAIL` prints a fresh API key of that person and nothing else."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph.accounts.models import ApiKey, User


class Command(BaseCommand):
    help = "Print a fresh API key for a user. It is stored hashed and cannot be shown again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("email")
        parser.add_argument("--name", default="")

    def handle(self, *args: Any, email: str, name: str, **options: Any) -> None:
        user = User.objects.filter(email__iexact=email).first()
        if user is None:
            raise CommandError(f"Nobody here has the address {email}.")
        self.stdout.write(ApiKey.issue(user=user, name=name))
