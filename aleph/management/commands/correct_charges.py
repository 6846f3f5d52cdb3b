"""`manage.py correct_charges MODEL --since 2026-11-01 --until 2026-11-20 --input-rate 50 --output-rate 50` lists what replies
were charged too much by a wrong rate; with `--apply` it gives that back."""

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph.accounts.models import User
from aleph.problems import Problem
from aleph.recharging import Rates, give_back, review


class Command(BaseCommand):
    help = "List what was charged too much at a wrong rate, and give it back with --apply. Takes nothing from anybody."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", help="The model's slug.")
        parser.add_argument("--since", type=date.fromisoformat, required=True, help="first day in UTC")
        parser.add_argument("--until", type=date.fromisoformat, required=True, help="last day in UTC")
        parser.add_argument("--input-rate", type=int, required=True, help="the right one, tokens for 1,000")
        parser.add_argument("--output-rate", type=int, required=True)
        parser.add_argument("--apply", action="store_true", help="give it back; without it, only list")
        parser.add_argument("--author", default="", help="address of who is responsible")
        parser.add_argument("--reason", default="", help="stands in the history of each person")

    def handle(self, *args: Any, **options: Any) -> None:
        if min(options["input_rate"], options["output_rate"]) < 0:
            raise CommandError("A rate is 0 or more.")
        rates = Rates(
            options["model"],
            _midnight(options["since"]),
            _midnight(options["until"] + timedelta(days=1)),
            options["input_rate"],
            options["output_rate"],
        )
        author = User.objects.filter(email__iexact=options["author"], is_staff=True).first()
        reason = options["reason"].strip()
        if options["apply"] and (author is None or not 0 < len(reason) <= 200):
            raise CommandError("To give something back, name one of the staff as --author, and a --reason.")
        found = review(rates)
        people = User.objects.in_bulk(found.too_much)
        refused = 0
        for user_id, differences in found.too_much.items():
            user, whole = people[user_id], sum(difference.too_much for difference in differences)
            said = f"{user.email}: {whole} tokens too much in {len(differences)} replies"
            if options["apply"] and author is not None:
                try:
                    give_back(user, differences, rates=rates, author=author, reason=reason)
                    said += ", given back"
                except Problem as problem:
                    refused += 1
                    said += f", not given back: {problem}"
            self.stdout.write(said)
            for difference in differences:
                self.stdout.write(f"  {difference.reply_id}: {difference.charged} → {difference.right}")
        self.stdout.write(
            f"{len(found.too_much)} people; {found.too_little} replies were charged too little and stay as they are,"
            f" {found.without_counts} have no counts any more."
        )
        if refused:
            raise CommandError(f"{refused} people were not given anything back.")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)
