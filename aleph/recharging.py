"""Replies that were charged at a rate which was wrong: what each would have cost at the right one, and giving back what
was taken too much. For `manage.py correct_charges`.

A reply and its usage row stay as they are. What is given back is a transfer of its own beside the charge, with the reply
as its reference and the reason that its owner reads in his history; a reply is corrected once. To nobody's disadvantage:
where the right rate is higher, the price that was shown before sending stays. ADR 0022.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction

from aleph import ids
from aleph.accounts.models import User
from aleph.reconcile import CHARGED, batches, calls_of
from billing import ledger, notices
from chat import prompts
from chat.models import Message


@dataclass(frozen=True, slots=True)
class Rates:
    """Aleph tokens for 1,000 LLM tokens that replies of a model should have been charged at, from `since` to before
    `until`."""

    model_slug: str
    since: datetime
    until: datetime
    input_rate: int
    output_rate: int

    @property
    def key(self) -> str:
        span = f"{self.since:%Y%m%d}-{self.until:%Y%m%d}"
        return f"recharge:{self.model_slug}:{span}:{self.input_rate}:{self.output_rate}"[:128]


@dataclass(frozen=True, slots=True)
class Difference:
    """What was charged for a reply, and what the right rate makes."""

    reply_id: str
    charged: int
    right: int

    @property
    def too_much(self) -> int:
        return self.charged - self.right


@dataclass(slots=True)
class Review:
    """What was charged too much, by person; how many replies stay as they are because they were charged too little, and how
    many because their counts are not kept any more."""

    too_much: dict[int, list[Difference]] = field(default_factory=lambda: defaultdict(list))
    too_little: int = 0
    without_counts: int = 0


def review(rates: Rates) -> Review:
    """What differs. Changes nothing."""
    found = Review()
    at_right = Message(input_rate=rates.input_rate, output_rate=rates.output_rate)
    for replies in _charged(rates):
        calls = calls_of(reply.pk for reply in replies)
        for reply in replies:
            paid = [call for call in calls[reply.pk] if call.transfer_id]
            if not paid:
                found.without_counts += 1
                continue
            right = prompts.cost(
                at_right, input_tokens=paid[-1].input_tokens, output_tokens=paid[-1].output_tokens
            )
            if right < reply.tokens_used:
                found.too_much[reply.user_id].append(Difference(reply.pk, reply.tokens_used, right))
            elif right > reply.tokens_used:
                found.too_little += 1
    return found


def give_back(user: User, differences: list[Difference], *, rates: Rates, author: User, reason: str) -> int:
    """Give a person back what he was charged too much, all of it or nothing; the tokens. Repeating it gives nothing more.
    Raises `IdempotencyMismatch` where one of the replies was corrected to another rate before, and what `ledger.receive`
    raises."""
    with transaction.atomic():
        for difference in differences:
            ledger.receive(
                user=user,
                account=ledger.TOKENS,
                amount=difference.too_much,
                source="corrections_token",
                kind=ledger.Kind.ADJUSTMENT,
                reference=difference.reply_id,
                key=f"recharge:{difference.reply_id}",
                author=author,
                reason=reason,
            )
        whole = sum(difference.too_much for difference in differences)
        notices.tell(
            user=user,
            kind=notices.Kind.ADJUSTMENT,
            key=rates.key,
            amount=whole,
            unit=ledger.UNIT_OF[ledger.TOKENS],
            detail=reason,
        )
    return whole


def _charged(rates: Rates) -> Iterator[list[Message]]:
    replies = Message.objects.filter(
        role=Message.Role.ASSISTANT,
        state__in=CHARGED,
        tokens_used__gt=0,
        model__slug=rates.model_slug,
        pk__gte=ids.first("msg", rates.since),
        pk__lt=ids.first("msg", rates.until),
    )
    return batches(replies.only("user_id", "tokens_used"))
