"""What stories about usage are told with: prices, and calls that happened some time ago."""

from datetime import UTC, datetime
from typing import Any

from aleph import ids
from aleph.accounts.models import User
from usage import meter
from usage.models import ModelPrice, TokenUsage
from usage.price_list import Listing

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def price_of(
    provider: str,
    model: str,
    figures: str,
    valid_from: datetime = LONG_AGO,
    valid_to: datetime | None = None,
    **which_calls: Any,
) -> ModelPrice:
    """A stored price; `figures` is "input cached-input cache-write output", "-" for none of its own."""
    row = Listing(provider, model, figures, "test", valid_from, valid_to, **which_calls).row()
    row.save()
    row.refresh_from_db()
    return row


def call_of(person: User | None, *, at: datetime | None = None, **differences: Any) -> TokenUsage:
    """One recorded call: 1,000 tokens in, 200 out, of GPT-4o, unless told otherwise. `at`: when it was recorded."""
    said: dict[str, Any] = {
        "user_id": person.pk if person else None,
        "operation": "chat_message",
        "operation_id": ids.new("msg"),
        "attempt": 1,
        "provider": "openai",
        "model": "gpt-4o-2024-08-06",
        "requested_model": "gpt-4o",
        "counts": meter.Counts(fresh_input=1000, visible_output=200),
        "source": meter.Source.REPORTED,
        "status": meter.Status.COMPLETE,
        "started_at": at or datetime.now(UTC),
        "first_token_ms": 420,
        "latency_ms": 3100,
    }
    row = meter.record(**(said | differences))
    if at:
        usage_id = f"use_{ids.at(at)}"
        TokenUsage.objects.filter(pk=row.pk).update(id=usage_id, created_at=at)
        row = TokenUsage.objects.get(pk=usage_id)
    return row
