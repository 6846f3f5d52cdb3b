"""The meter: the only writer of `TokenUsage`. A door of this app.

A row is written in the transaction that charges for the call, on purpose. "A failure to log never fails the call" is a
promise to the reader, whose reply is on his screen by then; the books and the log agree because neither is stored
without the other, and whoever closes the call tries again until both are. So that a provider's oddities cannot hold a
charge up for ever, what he says is made storable here instead of being refused.
"""

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.models import CharField
from django.utils import timezone

from aleph import ids
from usage import pricing
from usage.counts import Counts
from usage.models import TokenUsage

__all__ = ["Counts", "Source", "Status", "record"]

Status = TokenUsage.Status
Source = TokenUsage.Source

DEEPEST = 6
"""Levels of metadata that are kept."""


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
    transfer_id: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> TokenUsage:
    """Store one call and return its row; for the same (operation_id, attempt) again, the row of the first time.

    It is priced as of `started_at`; without a price it is stored all the same, with costs null. `label` is what people
    know the model by. `metadata` must hold no words of a prompt or a reply. Two statements: the price, the row.
    """
    model, requested_model = _text("model", model), _text("requested_model", requested_model)
    price = pricing.price_at(provider, model, started_at, requested=requested_model)
    cost = pricing.cost(price, counts)
    row = TokenUsage(
        id=ids.new("use"),
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
        visible_output_tokens=counts.visible_output,
        reasoning_tokens=counts.reasoning,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        total_tokens=counts.input_tokens + counts.output_tokens,
        price=price,
        input_cost_usd=cost.input_usd,
        output_cost_usd=cost.output_usd,
        total_cost_usd=cost.total_usd,
        status=status,
        source=source,
        flagged=counts.flagged,
        first_token_ms=first_token_ms,
        latency_ms=latency_ms,
        transfer_id=transfer_id,
        metadata=_storable(dict(metadata or {})),
        created_at=timezone.now(),
    )
    if _insert_once(row):
        return row
    return TokenUsage.objects.get(operation_id=operation_id, attempt=attempt)


def _insert_once(row: TokenUsage) -> bool:
    """Insert the row unless its attempt is there already; False then, and the caller's transaction lives on.

    The ORM has no such insert: its `ignore_conflicts` swallows broken constraints on SQLite, too, and does not say
    whether a row was written.
    """
    fields = TokenUsage._meta.concrete_fields
    quoted = connection.ops.quote_name
    columns = ", ".join(quoted(str(field.column)) for field in fields)
    marks = ", ".join(["%s"] * len(fields))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {quoted(TokenUsage._meta.db_table)} ({columns}) VALUES ({marks})"  # noqa: S608
            " ON CONFLICT (operation_id, attempt) DO NOTHING",
            [field.get_db_prep_save(getattr(row, field.attname), connection) for field in fields],
        )
        inserted = cursor.rowcount == 1
    row._state.adding = not inserted
    return inserted


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
