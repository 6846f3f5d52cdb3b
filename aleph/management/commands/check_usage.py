"""`manage.py check_usage` proves that replies, transfers and usage rows say the same. Exit code 1 if they do not."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from aleph.reconcile import Line, Reconciliation
from billing.audit import one_moment

SHOWN = 20
"""Differences of one kind that are written out."""


class Command(BaseCommand):
    help = "Compare every reply with its hold, its charge and its usage rows, and report whatever differs."

    def handle(self, *args: Any, **options: Any) -> None:
        books = Reconciliation()
        found: Counter[str] = Counter()
        with one_moment():
            for difference in books.differences():
                found[difference.rule] += 1
                if found[difference.rule] <= SHOWN:
                    self.stdout.write(str(difference))
        for rule, number in found.items():
            if number > SHOWN:
                self.stdout.write(f"{rule}: {number - SHOWN} more")
        self._write_table(books)
        if found:
            raise CommandError(f"They differ in {found.total()} places.")
        self.stdout.write("They say the same.")

    def _write_table(self, books: Reconciliation) -> None:
        lines: dict[str, tuple[int, int | None]] = {
            "replies": _figures(books.replies),
            "  deleted with their chats": _figures(books.gone),
            "holds": (books.holds.rows, None),
            "  posted": _figures(books.posts),
            "usage rows": (books.calls.rows, None),
            "  paid": _figures(books.paid_calls),
        }
        if books.rows_from:
            lines[f"  before {books.rows_from:%Y-%m-%d}"] = (0, books.charged_in_months_gone)
        self.stdout.write(f"{'':<26}{'rows':>14}{'tokens':>18}")
        for name, (rows, tokens) in lines.items():
            self.stdout.write(f"{name:<26}{rows:>14,}{'' if tokens is None else f'{tokens:,}':>18}")


def _figures(line: Line) -> tuple[int, int]:
    return line.rows, line.tokens
