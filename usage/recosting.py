"""Calls that were priced at a price which was wrong: the right one takes its place, and what it adds to the cost of each
call is written beside the call. The calls and the wrong price stay as they are. ADR 0022.

`correct` says that a price is wrong, in one transaction, and from then on no call is priced at it, however long ago it
began. `run` writes what past calls differ by, a batch at a time; whoever is interrupted goes on the next time. One
correction after the other, so that each adds to what those before it have made of a cost.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import structlog
from celery import current_app
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Conflict, InvalidRequest
from usage import budgets, costs, meter, pricing, rollups
from usage.models import CostCorrection, ModelPrice, PriceCorrection, TokenUsage
from usage.pricing import Cost

log = structlog.get_logger(__name__)

BATCH = 500
BUDGET_S = 20.0


class NeverCharged(Conflict):
    text = _("No call was priced at this price in that time. Change its figures, or end it.")


class NothingDiffers(InvalidRequest):
    text = _("These are the figures that the price has.")


class OutOfItsTime(InvalidRequest):
    text = _("The price was not valid at that moment.")


class Taken(Conflict):
    text = _("Somebody has corrected this price at the same moment. Look at it again.")


def correct(
    *, price_id: int, figures: Mapping[str, Decimal | None], since: datetime, reason: str, author: User
) -> PriceCorrection:
    """Put the price right from `since` on: `figures` are the right ones, by the names of `ModelPrice.FIGURES`. Raises
    `NeverCharged`, `NothingDiffers`, `OutOfItsTime`, `Taken`."""
    try:
        with transaction.atomic():
            made = _correct(price_id, figures, since, reason, author)
    except IntegrityError as error:
        raise Taken from error
    log.info("a price was corrected", correction=made.pk, price=made.wrong_id, author_id=author.pk)
    return made


def _correct(
    price_id: int, figures: Mapping[str, Decimal | None], since: datetime, reason: str, author: User
) -> PriceCorrection:
    wrong = ModelPrice.objects.select_for_update(no_key=True).get(pk=price_id)
    until = wrong.valid_to
    check(wrong, figures=figures, since=since)
    # First, so that the two do not hold at once.
    ModelPrice.objects.filter(pk=wrong.pk).update(valid_to=since)
    right = ModelPrice.objects.create(
        **{name: getattr(wrong, name) for name in ModelPrice.LANE},
        **{name: figures[name] for name in ModelPrice.FIGURES},
        source=reason,
        valid_from=since,
        valid_to=until,
    )
    made = PriceCorrection.objects.create(
        wrong=wrong, right=right, since=since, until=until, reason=reason, author=author
    )
    transaction.on_commit(_ring, robust=True)
    return made


def check(wrong: ModelPrice, *, figures: Mapping[str, Decimal | None], since: datetime) -> None:
    """Raise what `correct` would raise."""
    if since < wrong.valid_from or (wrong.valid_to is not None and since >= wrong.valid_to):
        raise OutOfItsTime
    if all(figures[name] == getattr(wrong, name) for name in ModelPrice.FIGURES):
        raise NothingDiffers
    if not is_charged(wrong, since=since):
        raise NeverCharged


def is_charged(price: ModelPrice, *, since: datetime | None = None) -> bool:
    """Whether calls are priced at it: when they were recorded, or by a correction."""
    calls = TokenUsage.objects.filter(price__in=_line(price))
    if since is not None:
        calls = calls.filter(created_at__gte=since)
    return calls.exists()


def run(*, budget_s: float = BUDGET_S) -> int:
    """Write what is due, for about `budget_s` seconds; how many calls were corrected."""
    until, done = time.monotonic() + budget_s, 0
    while (began := time.monotonic()) < until and (corrected := _step()) is not None:
        done += corrected
        # SQLite has one writer at a time, and people want to be it, too.
        time.sleep(min(time.monotonic() - began, 0.2))
    return done


def by_wrong_price() -> dict[int, list[PriceCorrection]]:
    """All corrections there are, by the price that they put right."""
    found: dict[int, list[PriceCorrection]] = defaultdict(list)
    for correction in PriceCorrection.objects.select_related("right"):
        found[correction.wrong_id].append(correction)
    return found


def right_price(
    call: TokenUsage, corrections: Mapping[int, Sequence[PriceCorrection]]
) -> tuple[ModelPrice | None, bool]:
    """The price that a call should have had, by all `corrections` (`by_wrong_price`), and whether those which concern it
    have ended, so that its cost is that of this price."""
    price, are_over = call.price, True
    while price is not None:
        following = next((each for each in corrections.get(price.pk, ()) if _is_concerned(call, each)), None)
        if following is None:
            break
        price, are_over = following.right, are_over and following.ended_at is not None
    return price, are_over


def waits_before(moment: datetime) -> bool:
    """Whether calls of before a moment still wait for their entries."""
    return PriceCorrection.objects.filter(ended_at=None, since__lt=moment).exists()


def forget(moment: datetime) -> None:
    """Delete the entries of calls from before a moment, which are not kept any more."""
    CostCorrection.objects.filter(usage_id__lt=ids.first("use", moment)).delete()


def _step() -> int | None:
    """A batch of the oldest correction, and how many calls it has corrected; None where nothing is to be done."""
    with transaction.atomic():
        # Locked by one and passed over by nobody: the next one adds to what this one makes.
        waiting = PriceCorrection.objects.select_for_update(of=("self",)).select_related("wrong", "right")
        correction = waiting.filter(ended_at=None).order_by("pk").first()
        if correction is None:
            return None
        # Calls whose transactions had begun when the price was corrected are over by then.
        stop = correction.created_at + rollups.LAG
        start = correction.upto or ids.first("use", _beginning(correction))
        end = ids.first("use", min(stop, timezone.now() - rollups.LAG))
        if start >= ids.first("use", stop):
            correction.ended_at = timezone.now()
            correction.save(update_fields=["ended_at"])
            return 0
        if start >= end:
            return None
        calls = TokenUsage.objects.filter(price__in=_line(correction.wrong), pk__gte=start, pk__lt=end)
        batch = list(costs.told(calls).defer("metadata").order_by("pk")[:BATCH])
        entries = _entries(correction, batch)
        CostCorrection.objects.bulk_create(entries)
        rollups.due(call.created_at for call in batch)
        # "0" sorts before what every id goes on with, and after its end.
        correction.upto = f"{batch[-1].pk}0" if len(batch) == BATCH else end
        correction.calls += len(entries)
        correction.difference_usd += sum((entry.total_cost_usd for entry in entries), Decimal(0))
        correction.save(update_fields=["upto", "calls", "difference_usd"])
        # Last, as whoever reserves needs the same rows.
        budgets.count_again([entry.usage.operation_id for entry in entries])
        return len(entries)


def _beginning(correction: PriceCorrection) -> datetime:
    return max(correction.since, rollups.mark().rows_from or rollups.BEGINNING)


def _line(price: ModelPrice) -> list[int]:
    """The price and those that were corrected to it, from the first: the calls of all of them are priced at it now."""
    line, before = [], [price.pk]
    while before:
        line += before
        before = list(PriceCorrection.objects.filter(right__in=before).values_list("wrong", flat=True))
    return line


def _entries(correction: PriceCorrection, calls: Iterable[TokenUsage]) -> list[CostCorrection]:
    entries = []
    for call in calls:
        if not _is_concerned(call, correction):
            continue
        right = pricing.cost(correction.right, meter.counts_of(call))
        now = Cost(call.input_usd, call.output_usd, call.cost_usd)
        entry = CostCorrection(
            usage=call,
            correction=correction,
            input_cost_usd=_less(right.input_usd, now.input_usd),
            output_cost_usd=_less(right.output_usd, now.output_usd),
            total_cost_usd=_less(right.total_usd, now.total_usd),
        )
        if entry.input_cost_usd or entry.output_cost_usd:
            entries.append(entry)
    return entries


def _less(right: Decimal | None, now: Decimal | None) -> Decimal:
    return pricing.rounded((right or Decimal(0)) - (now or Decimal(0)))


def _is_concerned(call: TokenUsage, correction: PriceCorrection) -> bool:
    """Whether a call began in the time for which the price was wrong."""
    began = meter.began_at(call)
    return correction.since <= began and (correction.until is None or began < correction.until)


def _ring() -> None:
    """Tell a worker. Losing this is harmless: the clock comes by."""
    try:
        current_app.send_task("usage.tasks.correct_costs", queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the clock will correct costs", error=str(error))
