"""What a reply cost, and why. Follows the ids from the reply to its usage row, the price row that was valid then, and
the transfer that paid (X6)."""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

from django.db.models import F, Sum

from aleph.accounts.models import User
from aleph.problems import NotFound
from billing import ledger, statements
from chat import sessions
from chat.models import Message, Session
from usage import reports


@dataclass(frozen=True, slots=True)
class Line:
    """One class of LLM tokens: how many (None: nobody said), the rate per 1K, and what they come to in Aleph tokens."""

    name: str
    tokens: int | None
    rate: int

    @property
    def amount(self) -> Decimal:
        return Decimal((self.tokens or 0) * self.rate) / 1000


@dataclass(frozen=True, slots=True)
class Receipt:
    """`call` is the usage row (with its price row) and `transfer` what resolved the hold; None where there is none.
    `is_past_keeping`: there was a call, and its counts are not kept any more. `earlier` is the reply that was used again, where
    it is still there."""

    reply: Message
    call: "reports.Call | None"
    transfer: "ledger.Transfer | None"
    is_past_keeping: bool = False
    earlier: Message | None = None

    @property
    def lines(self) -> list[Line]:
        if self.call is None:
            return []
        reply, call = self.reply, self.call
        return [
            Line("fresh_input", call.fresh_input_tokens, reply.input_rate),
            Line("cache_read", call.cache_read_tokens, reply.input_rate),
            Line("cache_write", call.cache_write_tokens, reply.input_rate),
            Line("cache_write_1h", call.cache_write_1h_tokens, reply.input_rate),
            Line("visible_output", call.visible_output_tokens, reply.output_rate),
            Line("reasoning", call.reasoning_tokens, reply.output_rate),
        ]

    @property
    def unit_prices(self) -> dict[str, Decimal]:
        """What the provider took for a million LLM tokens of each class, in USD, as the call has kept it."""
        kept = (self.call.unit_prices if self.call else None) or {}
        classes = ("input", "cached_input", "cache_write", "cache_write_1h", "output")
        return {name: Decimal(kept[name]) for name in classes if name in kept}

    @property
    def sum(self) -> Decimal:
        return sum((line.amount for line in self.lines), Decimal(0))

    @property
    def given_back(self) -> int:
        return self.reply.held_tokens - self.reply.tokens_used

    @property
    def balance_before(self) -> int | None:
        after = self.balance_after
        return None if after is None else after + self.reply.tokens_used

    @property
    def balance_after(self) -> int | None:
        return self.transfer.balance_after if self.transfer else None


def of_reply(user: User, reply_id: str) -> Receipt:
    """The receipt of one of the user's replies. Raises `NotFound`."""
    reply = sessions.reply(user, reply_id)
    call = reports.call_of(user, reply.pk)
    is_gone = call is None and reports.is_past_keeping(reply.created_at)
    earlier = None
    if reply.reused_from:
        with suppress(NotFound):
            earlier = sessions.reply(user, reply.reused_from)
    return Receipt(reply, call, ledger.resolution_of(reply.hold_id), is_gone, earlier)


def subjects(user: User, reply_ids: Collection[str]) -> dict[str, statements.Subject]:
    """Which chat each of the user's replies stands in, and which model wrote it; nothing for those that were deleted."""
    found = Message.objects.filter(user=user, pk__in=reply_ids, role=Message.Role.ASSISTANT).values_list(
        "pk", "session_id", "session__title", "model__name"
    )
    return {pk: statements.Subject(session, title, model or "") for pk, session, title, model in found}


def rupiah(reply: Message) -> int | None:
    """What the charge is worth by what the reader last paid for his tokens; None where he never bought any."""
    if reply.value_idr_per_1k is None:
        return None
    return (reply.tokens_used * reply.value_idr_per_1k + 500) // 1000


def rupiah_of(session: Session) -> int:
    """What all charges in a chat are worth, as `rupiah` values each; those that nobody knows the worth of are left out.
    Asks, unless it is one of `sessions.seen`."""
    if not hasattr(session, "worth_thousandths"):
        thousandths = F("tokens_used") * F("value_idr_per_1k")
        charged = Message.objects.filter(session=session, tokens_used__gt=0)
        return int((charged.aggregate(sum=Sum(thousandths))["sum"] or 0) + 500) // 1000
    return int((session.worth_thousandths or 0) + 500) // 1000
