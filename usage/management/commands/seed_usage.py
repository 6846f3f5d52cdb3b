"""`manage.py seed_usage --rows 10000000` fills a development database with a year of plausible calls, to look at reports
and to measure them. Nobody was charged for them: they have no transfers, and no replies belong to them."""

import itertools
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
VALUE_IDR_PER_1K = 4762
BATCH = 20_000


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
        began = time.monotonic()
        dice = random.Random(options["seed"])  # noqa: S311
        people = self._people(dice, options["people"], options["days"])
        moments = self._moments(dice, options["rows"], options["days"])
        rows = self._rows(dice, people, moments)
        written = 0
        while batch := list(itertools.islice(rows, BATCH)):
            insert(batch)
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
        share = Decimal(0)
        for hour, weight in hours:
            before, share = int(share), share + Decimal(rows * weight) / whole
            calls = int(share) - before
            yield from sorted(hour + timedelta(seconds=dice.random() * 3600) for _nth in range(calls))

    def _rows(
        self, dice: random.Random, people: list[int], moments: Iterator[datetime]
    ) -> Iterator[TokenUsage]:
        at = datetime.now(UTC)
        prices = {model[1]: pricing.price_at(model[0], model[1], at) for model in MODELS}
        often = [model[-1] for model in MODELS]
        for nth, moment in enumerate(moments):
            provider, model, label, rate, _often = dice.choices(MODELS, often)[0]
            counts = Counts(
                fresh_input=int(dice.lognormvariate(6, 1)) + 8,
                cache_read=int(dice.lognormvariate(6, 1)) if dice.random() < 0.3 else 0,
                visible_output=int(dice.lognormvariate(5.5, 0.9)) + 1,
            )
            cost = pricing.cost(prices[model], counts)
            is_failed = dice.random() < 0.01
            charged = 0 if is_failed else -(-(counts.input_tokens + counts.output_tokens) * rate // 1000)
            first_ms = int(dice.lognormvariate(6.5, 0.5))
            yield TokenUsage(
                id=f"use_{ids.at(moment)}",
                # The first ones of a list are the ones who come every day.
                user_id=people[int(len(people) * dice.random() ** 2)],
                operation="chat_message",
                operation_id=f"seed_{nth}_{ids.at(moment)}",
                provider=provider,
                model=model,
                requested_model=model,
                label=label,
                fresh_input_tokens=counts.fresh_input,
                cache_read_tokens=counts.cache_read,
                visible_output_tokens=counts.visible_output,
                input_tokens=counts.input_tokens,
                output_tokens=counts.output_tokens,
                total_tokens=counts.input_tokens + counts.output_tokens,
                price=prices[model],
                input_cost_usd=cost.input_usd,
                output_cost_usd=cost.output_usd,
                total_cost_usd=cost.total_usd,
                charged_tokens=charged,
                charged_idr_thousandths=charged * VALUE_IDR_PER_1K,
                status=TokenUsage.Status.FAILED if is_failed else TokenUsage.Status.COMPLETE,
                source=TokenUsage.Source.REPORTED,
                first_token_ms=first_ms,
                latency_ms=first_ms + counts.output_tokens * 12,
                created_at=moment,
            )


def insert(rows: list[TokenUsage]) -> None:
    """As quickly as the database takes them: COPY on PostgreSQL."""
    if connection.vendor != "postgresql":
        TokenUsage.objects.bulk_create(rows)
        return
    fields = TokenUsage._meta.concrete_fields
    names = ", ".join(f'"{field.column}"' for field in fields)
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {TokenUsage._meta.db_table} ({names}) FROM STDIN") as copy,
    ):
        for row in rows:
            copy.write_row(
                [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields]
            )
