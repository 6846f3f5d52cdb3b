"""`manage.py correct_charges MODEL --since 2026-11-01 --until 2026-11-20 --input-rate 50 --output-rate 50` lists what replies
were charged too much by a wrong rate; with `--apply` it gives that back."""

from datetime import date
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from aleph import ids, recharging
from aleph.accounts.models import User
from aleph.problems import Problem
from billing import corrections
from billing.models import Correction
from chat.models import HIGHEST_RATE, ChatModel


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
        parser.add_argument("--second", default="", help="address of who approves what is above the limit")
        parser.add_argument("--reason", default="", help="stands in the history of each person")

    def handle(self, *args: Any, **options: Any) -> None:
        rates = _rates(options)
        reason = options["reason"].strip()
        author, second = _staff(options["author"]), _staff(options["second"])
        if options["apply"] and (author is None or not 0 < len(reason) <= 200):
            raise CommandError("To give something back, name one of the staff as --author, and a --reason.")
        if options["second"] and second is None:
            raise CommandError("Whoever is named as --second is one of the staff.")
        try:
            found = recharging.review(rates)
            self._list(found)
            if options["apply"] and author is not None and found.tokens:
                self._apply(rates, author, second, reason)
        except Problem as problem:
            raise CommandError(str(problem.message)) from problem
        if found.put_right_otherwise:
            raise CommandError(
                f"{found.put_right_otherwise} replies were put right at another rate, and stay so."
            )

    def _list(self, found: recharging.Review) -> None:
        people = User.objects.in_bulk(found.too_much)
        for user_id, tokens in found.by_person.most_common():
            differences = found.too_much[user_id]
            self.stdout.write(
                f"{people[user_id].email}: {tokens} tokens too much in {len(differences)} replies"
            )
            for difference in differences:
                self.stdout.write(f"  {difference.reply_id}: {difference.charged} → {difference.right}")
        self.stdout.write(
            f"{found.tokens} tokens of {len(found.too_much)} people; {found.too_little} replies were charged too little and"
            f" stay as they are, {found.put_right} were put right before, {found.without_counts} have no counts any more."
        )

    def _apply(self, rates: recharging.Rates, author: User, second: User | None, reason: str) -> None:
        made = recharging.propose(rates=rates, author=author, reason=reason, key=ids.new("key"))
        correction = made.correction
        if correction.state == Correction.State.PROPOSED and second is not None:
            made.correction = corrections.approve(correction_id=correction.pk, by=second)
        elif correction.state == Correction.State.PROPOSED:
            raise CommandError(
                f"{correction.pk} is above the limit: it waits until somebody else approves it in the administration."
            )
        self.stdout.write(f"{made.correction_id}: {recharging.give_back(made)} tokens given back")


def _rates(options: dict[str, Any]) -> recharging.Rates:
    model = ChatModel.objects.filter(slug=options["model"]).first()
    if model is None:
        raise CommandError("There is no model with this slug.")
    if not all(0 <= options[name] <= HIGHEST_RATE for name in ("input_rate", "output_rate")):
        raise CommandError(f"A rate is from 0 to {HIGHEST_RATE}.")
    if options["until"] < options["since"]:
        raise CommandError("The last day comes before the first.")
    return recharging.Rates.of_days(
        model=model,
        first=options["since"],
        last=options["until"],
        input_rate=options["input_rate"],
        output_rate=options["output_rate"],
    )


def _staff(email: str) -> User | None:
    return User.objects.filter(email__iexact=email, is_staff=True, is_active=True).first() if email else None
