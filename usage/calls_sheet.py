"""A person's calls as a table for spreadsheets, a page at a time."""

from dataclasses import replace

from aleph.accounts.models import User
from aleph.sheets import Row
from usage import currency, overview
from usage.currency import Rates
from usage.models import TokenUsage
from usage.wishes import NEWEST, Wish

PAGE = 1000
HEAD: Row = (
    "createdAt",
    "id",
    "operation",
    "operationId",
    "provider",
    "model",
    "answeredBy",
    "status",
    "inputTokens",
    "cachedTokens",
    "outputTokens",
    "reasoningTokens",
    "totalTokens",
    "chargedTokens",
    "costUsd",
    "costIdr",
    "countedBy",
    "latencyMs",
)


def rows(user: User, wish: Wish, cursor: str | None) -> tuple[list[Row], str | None]:
    """The calls behind a cursor, newest first, and the cursor of those that follow; moments in the user's time zone."""
    page = overview.calls(user, replace(wish, sort=NEWEST), before=cursor or "", limit=PAGE)
    rates = currency.rates_until(wish.last)
    return [_row(call, wish, rates) for call in page.calls], page.older or None


def _row(call: TokenUsage, wish: Wish, rates: Rates) -> Row:
    at = call.created_at.astimezone(wish.zone)
    usd = call.cost_usd
    return (
        at,
        call.id,
        call.operation,
        call.operation_id,
        call.provider,
        call.model_name,
        call.model,
        call.status,
        call.input_tokens,
        call.cache_read_tokens,
        call.output_tokens,
        call.reasoning_tokens,
        call.total_tokens,
        call.charged_tokens,
        usd,
        None if usd is None else currency.in_idr(usd, rates.on(at.date())),
        call.source,
        call.latency_ms,
    )
