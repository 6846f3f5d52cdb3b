"""`manage.py erasures` prints who was erased, a JSON object a line. Keep it apart from the backups of the database: after one
was restored, `manage.py erasures --apply FILE` erases again whoever had been erased since it was made."""

import argparse
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph import erasure
from aleph.accounts.models import Erasure, User


class Command(BaseCommand):
    help = "Print who was erased, or erase them again after a backup was restored."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", type=argparse.FileType("r"), metavar="FILE")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"] is None:
            for found in Erasure.objects.order_by("erased_at").iterator():
                known = {
                    "subject": found.subject,
                    "user_id": found.user_id,
                    "erased_at": found.erased_at.isoformat(),
                }
                self.stdout.write(json.dumps(known))
            return
        for number, line in enumerate(filter(str.strip, options["apply"]), 1):
            try:
                said = json.loads(line)
                subject, user_id = str(said["subject"]), int(said["user_id"])
            except (ValueError, KeyError, TypeError) as error:
                raise CommandError(f"line {number} is not one of `manage.py erasures`") from error
            person = User.objects.filter(pk=user_id).first()
            if person is None:
                self.stdout.write(f"{subject}: not in this database")
                continue
            erasure.finish(erasure.begin(person, subject=subject).subject)
            self.stdout.write(f"{subject}: erased")
