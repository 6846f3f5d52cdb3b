"""`manage.py seed_usage --rows 10000000` fills a development database with a year of plausible calls, to look at reports
and to measure them. Nobody was charged for them: they have no transfers, and no replies belong to them."""

import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User, open_user
from usage import pricing, rollups
from usage.counts import Counts
from usage.models import TokenUsage

MODELS = (
    ("openai", "gpt-4o", "GPT-4o", 150, 20),
    ("openai", "gpt-4o-mini", "GPT-4o Mini", 30, 30),
    ("anthropic", "claude-sonnet-5-5", "Claude 3.5 Sonnet", 200, 15),
    ("deepseek", "deepseek-flash", "DeepSeek Chat", 20, 20),
    ("gemini", "gemini-3.8-flash", "Gemini Flash", 25, 10),
    ("huggingface", "meta-llama/Llama-3.3-70B-Instruct", "Llama 3.3 70B Instruct", 0, 40),
)
"""Provider, id, name for people, Aleph tokens for 1,000, and how often it is asked."""
BUSY = (1, 1, 1, 1, 1, 2, 4, 7, 10, 12, 12, 10, 9, 11, 12, 11, 10, 8, 7, 8, 9, 7, 4, 2)
"""How much is asked in each hour of a day in Jakarta."""
OPERATIONS = ("chat_message", "title", "editor_assist", "training", "auto_response")
OFTEN = (80, 9, 7, 2, 2)
VALUE_IDR_PER_1K = 4762
KINDS = 20_000
"""Different calls that are drawn."""
BATCH = 20_000
DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = [high + low for high in DIGITS for low in DIGITS]


class Command(BaseCommand):
    help = "Add many made-up calls of the last year (development only)."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rows", type=int, default=100_000)
        parser.add_argument("--days", type=int, default=365)
        parser.add_argument(
            "--people", type=int, default=200, help="made-up people to add, besides those there are"
        )
        parser.add_argument("--seed", type=int, default=1)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.DEVELOPMENT:
            raise CommandError("Made-up calls live in development only.")
        if options["rows"] < 0 or options["people"] < 0 or options["days"] < 1:
            raise CommandError("Rows and people are not negative, and a day is the least.")
        began = time.monotonic()
        dice = random.Random(options["seed"])  # noqa: S311
        people = self._people(dice, options["people"], options["days"])
        moments = self._moments(dice, options["rows"], options["days"])
        write = writer(self._kinds(dice))
        calls = self._calls(dice, people, moments)
        written = 0
        while batch := list(itertools.islice(calls, BATCH)):
            write(batch)
            written += len(batch)
        now = timezone.now()
        rollups.due(now - timedelta(hours=back) for back in range((options["days"] + 1) * 24))
        self.stdout.write(f"{written:,} calls of {len(people):,} people in {time.monotonic() - began:.0f} s.")

    def _people(self, dice: random.Random, number: int, days: int) -> list[int]:
        for nth in range(number):
            person = User(email=f"{ids.new('use').lower()}@aleph.test", name=f"Person {nth + 1}")
            person.date_joined = timezone.now() - timedelta(days=days * dice.random() ** 2)
            person.set_unusable_password()
            open_user(person)
        return list(User.objects.order_by("pk").values_list("pk", flat=True))

    def _moments(self, dice: random.Random, rows: int, days: int) -> Iterator[datetime]:
        """So many moments, oldest first, more of them lately and in the daytime."""
        today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        hours = [
            (today - timedelta(days=back) + timedelta(hours=hour), BUSY[(hour + 7) % 24] * (2 * days - back))
            for back in range(days, 0, -1)
            for hour in range(24)
        ]
        whole = sum(weight for _hour, weight in hours)
        reached = 0
        for hour, weight in hours:
            before, reached = rows * reached // whole, reached + weight
            calls = rows * reached // whole - before
            yield from sorted(hour + timedelta(seconds=dice.random() * 3600) for _nth in range(calls))

    def _calls(
        self, dice: random.Random, people: list[int], moments: Iterator[datetime]
    ) -> Iterator[tuple[str, int, str, datetime, int]]:
        """Id, person, operation, moment, and which kind of call it is: to draw every one of millions by itself takes longer
        than the database needs to store them."""
        number = len(people)
        for nth, moment in enumerate(moments):
            stamp = f"{time_of_ulid(moment)}{dice.getrandbits(64):016X}"
            # The first ones of a list are the ones who come every day.
            user_id = people[int(number * dice.random() ** 2)]
            yield f"use_{stamp}", user_id, f"seed_{nth}_{stamp}", moment, int(dice.random() * KINDS)

    def _kinds(self, dice: random.Random) -> list[dict[str, Any]]:
        """What calls have in common, drawn so often that nobody sees it."""
        at = datetime.now(UTC)
        prices = {model[1]: pricing.price_at(model[0], model[1], at) for model in MODELS}
        often = [model[-1] for model in MODELS]
        kinds = []
        for _nth in range(KINDS):
            provider, model, label, rate, _often = dice.choices(MODELS, often)[0]
            price = prices[model]
            counts = Counts(
                fresh_input=int(dice.lognormvariate(6, 1)) + 8,
                cache_read=int(dice.lognormvariate(6, 1)) if dice.random() < 0.3 else 0,
                visible_output=int(dice.lognormvariate(5.5, 0.9)) + 1,
            )
            cost = pricing.cost(price, counts)
            is_failed = dice.random() < 0.01
            charged = 0 if is_failed else -(-(counts.input_tokens + counts.output_tokens) * rate // 1000)
            first_ms = int(dice.lognormvariate(6.5, 0.5))
            kinds.append(
                {
                    "operation": dice.choices(list(OPERATIONS), OFTEN)[0],
                    "attempt": 1,
                    "provider": provider,
                    "model": model,
                    "requested_model": model,
                    "label": label,
                    "fresh_input_tokens": counts.fresh_input,
                    "cache_read_tokens": counts.cache_read,
                    "visible_output_tokens": counts.visible_output,
                    "input_tokens": counts.input_tokens,
                    "output_tokens": counts.output_tokens,
                    "total_tokens": counts.input_tokens + counts.output_tokens,
                    "price_id": price.pk if price else None,
                    "unit_prices": price.snapshot if price else None,
                    "input_cost_usd": cost.input_usd,
                    "output_cost_usd": cost.output_usd,
                    "total_cost_usd": cost.total_usd,
                    "charged_tokens": charged,
                    "charged_idr_thousandths": charged * VALUE_IDR_PER_1K,
                    "status": TokenUsage.Status.FAILED if is_failed else TokenUsage.Status.COMPLETE,
                    "source": TokenUsage.Source.ESTIMATED
                    if dice.random() < 0.03
                    else TokenUsage.Source.REPORTED,
                    "flagged": dice.random() < 0.001,
                    "first_token_ms": first_ms,
                    "latency_ms": first_ms + counts.output_tokens * 12,
                    "session": "",
                    "transfer_id": "",
                    "metadata": {},
                }
            )
        return kinds


def writer(kinds: list[dict[str, Any]]) -> Callable[[list[tuple[str, int, str, datetime, int]]], None]:
    """What stores calls as quickly as the database takes them: COPY on PostgreSQL, of lines whose ends are known."""

    def insert(calls: list[tuple[str, int, str, datetime, int]]) -> None:
        TokenUsage.objects.bulk_create(
            TokenUsage(id=pk, user_id=user, operation_id=operation, created_at=at, **kinds[kind])
            for pk, user, operation, at, kind in calls
        )

    def copy(calls: list[tuple[str, int, str, datetime, int]]) -> None:
        lines = [
            f"{pk}\t{user}\t{operation}\t{at.isoformat()}\t{ends[kind]}\n"
            for pk, user, operation, at, kind in calls
        ]
        with connection.cursor() as cursor, cursor.copy(statement) as copying:
            copying.write("".join(lines))

    if connection.vendor != "postgresql":
        return insert
    shared = list(kinds[0])
    names = ", ".join(f'"{name}"' for name in ("id", "user_id", "operation_id", "created_at", *shared))
    statement = f"COPY {TokenUsage._meta.db_table} ({names}) FROM STDIN"
    ends = ["\t".join(_spelled(kind[name]) for name in shared) for kind in kinds]
    return copy


def time_of_ulid(moment: datetime) -> str:
    """The first ten characters of a ULID of this moment."""
    rest, said = int(moment.timestamp() * 1000), ""
    for _nth in range(5):
        rest, pair = divmod(rest, 1024)
        said = PAIRS[pair] + said
    return said


def _spelled(value: Any) -> str:
    """A value as COPY reads it."""
    match value:
        case None:
            return "\\N"
        case dict():
            return json.dumps(value)
        case _:
            return str(value)
