"""The meter: the only writer of `TokenUsage`. A door of this app.

A row is written in the transaction that charges for the call, on purpose. "A failure to log never fails the call" is a
promise to the reader, whose reply is on his screen by then; the books and the log agree because neither is stored
without the other, and whoever closes the call tries again until both are. So that a provider's oddities cannot hold a
charge up for ever, what he says is made storable here instead of being refused.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import CharField
from django.utils import timezone

from aleph import ids
from aleph.prepared import Given, Rows, insert
from usage import budgets, calibration, partitions, pricing
from usage.calibration import Lesson
from usage.counts import Counts
from usage.models import ModelPrice, TokenUsage

__all__ = ["Counts", "Source", "Status", "record", "reprice"]

log = structlog.get_logger(__name__)

Status = TokenUsage.Status
Source = TokenUsage.Source

AGAIN_WITHIN = timedelta(days=2)
"""How long after its first time an attempt may come to be recorded again."""

DEEPEST = 6
"""Levels of metadata that are kept."""

SAME_ATTEMPT = Rows(
    lambda: TokenUsage.objects.filter(operation_id=Given("operation_id"), attempt=Given("attempt"))
)


def record(
    *,
    user_id: int | None,
    company_id: int | None = None,
    operation: str,
    operation_id: str,
    attempt: int,
    provider: str,
    model: str,
    requested_model: str,
    label: str = "",
    counts: Counts,
    source: str,
    status: str,
    started_at: datetime,
    first_token_ms: int | None,
    latency_ms: int | None,
    session: str = "",
    transfer_id: str = "",
    charged_tokens: int = 0,
    value_idr_per_1k: int | None = None,
    lesson: Lesson | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> TokenUsage:
    """Store one call and return its row; for the same (operation_id, attempt) again, the row of the first time.

    It is priced as of `started_at`; without a price it is stored all the same, with costs null. `label` is what people
    know the model by, `session` the chat that it was made for. `charged_tokens` are what somebody paid for it, worth `value_idr_per_1k` rupiah a thousand.
    `metadata` must hold no words of a prompt or a reply. `lesson` is kept where there is something to
    learn from it: the provider has counted a whole reply. Two statements: the price, the row.
    """
    model, requested_model = _text("model", model), _text("requested_model", requested_model)
    price = pricing.price_at(
        provider, model, started_at, requested=requested_model, input_tokens=counts.input_tokens
    )
    cost = pricing.cost(price, counts)
    now = timezone.now()
    row = TokenUsage(
        id=f"use_{ids.at(now)}",
        user_id=user_id,
        company_id=company_id,
        operation=operation,
        operation_id=operation_id,
        attempt=attempt,
        provider=provider,
        model=model,
        requested_model=requested_model or model,
        label=_text("label", label),
        fresh_input_tokens=counts.fresh_input,
        cache_read_tokens=counts.cache_read,
        cache_write_tokens=counts.cache_write,
        cache_write_1h_tokens=counts.cache_write_1h,
        visible_output_tokens=counts.visible_output,
        reasoning_tokens=counts.reasoning,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        total_tokens=counts.input_tokens + counts.output_tokens,
        price=price,
        unit_prices=price.snapshot if price else None,
        input_cost_usd=cost.input_usd,
        output_cost_usd=cost.output_usd,
        total_cost_usd=cost.total_usd,
        status=status,
        source=source,
        flagged=counts.flagged,
        first_token_ms=first_token_ms,
        latency_ms=latency_ms,
        session=session,
        transfer_id=transfer_id,
        charged_tokens=charged_tokens,
        charged_idr_thousandths=charged_tokens * (value_idr_per_1k or 0),
        metadata=_storable(dict(metadata or {})),
        created_at=now,
    )
    if lesson is not None and calibration.is_counted(row):
        row.metadata["sizes"] = lesson.noted()
    if not _is_of_last_month(row) and insert(row, unless_there=True):
        transaction.on_commit(partial(_say, row), robust=True)
        return row
    return TokenUsage.objects.get(operation_id=operation_id, attempt=attempt)


def reprice(*, batch: int = 500) -> tuple[int, int]:
    """Price the calls that had no price when they were recorded, as of when they began. How many are priced now, and how
    many still are not. What has a price keeps it, also where two do this at once."""
    priced = left = 0
    last = ""
    while True:
        rows = list(
            TokenUsage.objects.filter(price=None, pk__gt=last).defer("metadata").order_by("pk")[:batch]
        )
        for row in rows:
            price = pricing.price_at(
                row.provider,
                row.model,
                began_at(row),
                requested=row.requested_model,
                input_tokens=row.input_tokens,
            )
            if price is not None and _price(row, price):
                priced += 1
            else:
                left += 1
        if len(rows) < batch:
            return priced, left
        last = rows[-1].pk


def began_at(row: TokenUsage) -> datetime:
    """When a stored call began, as far as can be told: it was recorded when it was over."""
    return row.created_at - timedelta(milliseconds=row.latency_ms or 0)


def counts_of(row: TokenUsage) -> Counts:
    """The counts of a stored call."""
    return Counts(
        fresh_input=row.fresh_input_tokens,
        cache_read=row.cache_read_tokens,
        cache_write=row.cache_write_tokens,
        cache_write_1h=row.cache_write_1h_tokens,
        visible_output=row.visible_output_tokens,
        reasoning=row.reasoning_tokens,
        flagged=row.flagged,
    )


def _price(row: TokenUsage, price: ModelPrice) -> bool:
    cost = pricing.cost(price, counts_of(row))
    unpriced = TokenUsage.objects.filter(pk=row.pk, price=None)
    with transaction.atomic():
        is_priced = bool(
            unpriced.update(
                price=price,
                unit_prices=price.snapshot,
                input_cost_usd=cost.input_usd,
                output_cost_usd=cost.output_usd,
                total_cost_usd=cost.total_usd,
            )
        )
        if is_priced:
            budgets.count_again([row.operation_id])
    return is_priced


def _say(row: TokenUsage) -> None:
    """The line of a call that is stored for good. Operators read it by its words, so they stay as they are."""
    log.info(
        f"Token usage - Prompt: {row.input_tokens}, Candidates: {row.output_tokens}, Total: {row.total_tokens}",
        usage_id=row.pk,
        provider=row.provider,
        model=row.model,
        operation=row.operation,
        status=str(row.status),
        source=str(row.source),
    )
    if row.price_id is None and row.total_tokens:
        log.warning("a call has no price", usage_id=row.pk, provider=row.provider, model=row.model)
    if row.flagged:
        log.warning("the counts of a call disagree", usage_id=row.pk, provider=row.provider, model=row.model)


def _is_of_last_month(row: TokenUsage) -> bool:
    """Whether its attempt was recorded just before the month turned. On PostgreSQL the index that holds an attempt once is
    that of one month (`usage.partitions`)."""
    before = row.created_at - AGAIN_WITHIN
    if partitions.month_of(before) == partitions.month_of(row.created_at):
        return False
    # The moments are compared here: asked for recent rows, PostgreSQL may read all of them instead of the few of this id.
    same = SAME_ATTEMPT.all(operation_id=row.operation_id, attempt=row.attempt)
    return any(other.created_at >= before for other in same)


def _text(field: str, value: str) -> str:
    """A text of the provider's, as a column can hold it: no NUL, no half characters, not too long."""
    column = TokenUsage._meta.get_field(field)
    assert isinstance(column, CharField)
    return _clean(value)[: column.max_length]


def _clean(text: str) -> str:
    return text.replace("\x00", "").encode(errors="replace").decode()


def _storable(value: object, depth: int = DEEPEST) -> Any:
    """What JSON columns of both databases take: no NaN, no NUL, no half characters, no bottomless nesting."""
    match value:
        case None | bool() | int():
            return value
        case float():
            return value if math.isfinite(value) else None
        case dict() if depth:
            return {_clean(str(key)): _storable(inner, depth - 1) for key, inner in value.items()}
        case list() | tuple() if depth:
            return [_storable(inner, depth - 1) for inner in value]
        case dict() | list() | tuple():
            return None
        case _:
            return _clean(str(value))
