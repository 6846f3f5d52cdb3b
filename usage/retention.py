"""How long single calls are kept. A door of this app.

A month of UTC that has been over for `USAGE_RETENTION_DAYS` is forgotten: what it adds up to stays in the rollups for
ever, its calls are deleted. That happens in two steps. The mark is moved first, in one transaction, once everything
before it is added up: from then on every report takes the sums for what lies before it, so that figures are the same
while calls disappear. Then they are deleted, a whole partition at a time on PostgreSQL, a batch at a time elsewhere; who
is interrupted goes on the next time.
"""

import time
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from usage import partitions, recosting, rollups
from usage.models import RollupDue, RollupMark, TokenUsage

log = structlog.get_logger(__name__)

BATCH = 2000
BUDGET_S = 20.0


def kept_from() -> datetime | None:
    """Calls from before this moment are not kept any more; None where all are."""
    return rollups.mark().rows_from


def clean_up(*, budget_s: float = BUDGET_S) -> int:
    """Forget what is over, for about `budget_s` seconds; how many calls, where a partition counts as one."""
    until = time.monotonic() + budget_s
    _move_mark()
    rows_from = kept_from()
    if rows_from is None:
        return 0
    gone = _drop_months(rows_from)
    while (began := time.monotonic()) < until and (deleted := _delete_some(rows_from)):
        gone += deleted
        # SQLite has one writer at a time, and people want to be it, too.
        time.sleep(min(time.monotonic() - began, 0.2))
    recosting.forget(rows_from)
    if gone:
        log.info("calls are not kept any more", gone=gone, kept_from=rows_from.isoformat())
    return gone


def _move_mark() -> None:
    """Note what is not kept any more, as far as it is added up."""
    if not settings.USAGE_RETENTION_DAYS:
        return
    wanted = rollups.month_of(timezone.now() - timedelta(days=settings.USAGE_RETENTION_DAYS))
    with transaction.atomic():
        reached = RollupMark.objects.select_for_update().get(pk=1)
        summed = min(reached.hours_to, reached.days_to, reached.months_to)
        due = RollupDue.objects.filter(hour__lt=wanted).exists() or recosting.waits_before(wanted)
        if wanted <= summed and not due and (reached.rows_from is None or reached.rows_from < wanted):
            reached.rows_from = wanted
            reached.save(update_fields=["rows_from"])


def _drop_months(rows_from: datetime) -> int:
    """On PostgreSQL: whole months. Who reads the table for longer than this waits has his way, and the month its next
    turn."""
    if connection.vendor != "postgresql":
        return 0
    gone = 0
    for month in partitions.months():
        if partitions.after(month) > rows_from.date():
            break
        try:
            partitions.drop(month)
        except OperationalError as error:
            log.info("a month is in use, and goes later", month=f"{month:%Y-%m}", error=str(error))
            break
        gone += 1
    return gone


def _delete_some(rows_from: datetime) -> int:
    """A batch of what has no partition to be dropped with."""
    rows = TokenUsage.objects.filter(created_at__lt=rows_from).order_by("created_at")
    found = list(rows.values_list("pk", flat=True)[:BATCH])
    TokenUsage.objects.filter(pk__in=found)._raw_delete("default")
    return len(found)
