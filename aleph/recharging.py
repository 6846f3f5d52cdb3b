"""Replies that were charged at a rate which was wrong: what each would have cost at the right one, and giving back what
was taken too much. For the administration (`aleph.recharging_pages`) and `manage.py correct_charges`.

A reply and its usage row stay as they are. What is given back is a transfer of its own beside the charge, with the reply
as its reference and the reason that its owner reads in his history; a reply is corrected once. To nobody's disadvantage:
where the right rate is higher, the price that was shown before sending stays. ADR 0022.

`propose` makes one correction of it all (`billing.corrections`): within the author's limit it is applied, above it a
second person has to approve it. `run` gives back what is applied, a person at a time; whoever is interrupted goes on the
next time.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import F
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Conflict, IdempotencyMismatch, InvalidRequest
from aleph.reconcile import CHARGED, RETURNED, batches, calls_of
from billing import corrections, ledger, notices
from billing.models import Correction, Transfer
from chat import prompts
from chat.models import ChatModel, Message, RateCorrection

log = structlog.get_logger(__name__)

MOST = 100_000
"""Replies that are looked through at a time, so that nobody waits for long, and no list outgrows a process."""


class NothingToGiveBack(Conflict):
    text = _("Nobody was charged too much, or all of it was given back.")


class TooMany(InvalidRequest):
    text = _("There are more than %(most)d replies in this time. Choose fewer days.")


@dataclass(frozen=True, slots=True)
class Rates:
    """Aleph tokens for 1,000 LLM tokens that replies of a model should have been charged at, from `since` to before
    `until`."""

    model: ChatModel
    since: datetime
    until: datetime
    input_rate: int
    output_rate: int

    @classmethod
    def of_days(
        cls, *, model: ChatModel, first: date, last: date, input_rate: int, output_rate: int
    ) -> "Rates":
        """Those of days of UTC, both included."""
        since, until = (datetime.combine(day, time.min, tzinfo=UTC) for day in (first, last))
        return cls(model, since, until + timedelta(days=1), input_rate, output_rate)


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
    """What was charged too much, by person; and how many replies stay as they are: because they were charged too little,
    because they were put right before, at this rate or at another, or because their counts are not kept any more."""

    too_much: dict[int, list[Difference]] = field(default_factory=lambda: defaultdict(list))
    too_little: int = 0
    put_right: int = 0
    put_right_otherwise: int = 0
    without_counts: int = 0

    @property
    def stay(self) -> int:
        """Replies that nobody can put right."""
        return self.put_right_otherwise + self.without_counts

    @property
    def replies(self) -> int:
        return sum(map(len, self.too_much.values()))

    @property
    def tokens(self) -> int:
        return self.by_person.total()

    @property
    def by_person(self) -> Counter[int]:
        """The tokens that each person gets back."""
        return Counter(
            {user: sum(each.too_much for each in differences) for user, differences in self.too_much.items()}
        )


def review(rates: Rates, *, ended_by: datetime | None = None) -> Review:
    """What differs, of the replies that were over at `ended_by` (None: by now). Changes nothing. Raises `TooMany`."""
    found, seen = Review(), 0
    at_right = Message(input_rate=rates.input_rate, output_rate=rates.output_rate)
    for replies in _charged(rates, ended_by or timezone.now()):
        seen += len(replies)
        if seen > MOST:
            raise TooMany(TooMany.text % {"most": MOST})
        calls = calls_of(reply.pk for reply in replies)
        before = _given_back(reply.pk for reply in replies)
        for reply in replies:
            paid = [call for call in calls[reply.pk] if call.transfer_id]
            if not paid:
                found.without_counts += 1
                continue
            right = prompts.cost(
                at_right, input_tokens=paid[-1].input_tokens, output_tokens=paid[-1].output_tokens
            )
            difference = Difference(reply.pk, reply.tokens_used, right)
            if reply.pk in before and before[reply.pk] == difference.too_much:
                found.put_right += 1
            elif reply.pk in before:
                found.put_right_otherwise += 1
            elif difference.too_much > 0:
                found.too_much[reply.user_id].append(difference)
            elif difference.too_much < 0:
                found.too_little += 1
    return found


def propose(*, rates: Rates, author: User, reason: str, key: str) -> RateCorrection:
    """Give back what a review finds, or propose it where it is above the limit of its author. The same author and key give
    the first one again.

    Raises `NothingToGiveBack`, `TooMany`, and what `corrections.return_tokens` raises.
    """
    first = RateCorrection.objects.filter(correction__author=author, correction__key=key).first()
    if first is not None:
        if rates_of(first) != rates:
            raise IdempotencyMismatch
        return first
    with transaction.atomic():
        now = timezone.now()
        found = review(rates, ended_by=now)
        if not found.tokens:
            raise NothingToGiveBack
        correction = corrections.return_tokens(author=author, amount=found.tokens, reason=reason, key=key)
        made, _is_first = RateCorrection.objects.get_or_create(
            correction=correction,
            defaults={
                **{name: getattr(rates, name) for name in Rates.__slots__},
                "people": len(found.too_much),
                "replies": found.replies,
            },
        )
        transaction.on_commit(_ring, robust=True)
    return made


def run() -> int:
    """Give back what is applied; the tokens."""
    applied = RateCorrection.objects.filter(
        ended_at=None, correction__state=Correction.State.APPLIED
    ).select_related("correction__author", "model")
    return sum(give_back(made) for made in applied.order_by("pk"))


def give_back(made: RateCorrection) -> int:
    """Give everybody back what he was charged too much by a correction that is applied; the tokens. Repeating it gives
    nothing more."""
    found = review(rates_of(made), ended_by=made.correction.created_at)
    people = User.objects.in_bulk(found.too_much)
    whole = sum(_give_back(people[user_id], found.too_much[user_id], made) for user_id in sorted(people))
    RateCorrection.objects.filter(pk=made.pk, ended_at=None).update(ended_at=timezone.now())
    log.info("replies were put right", correction=made.correction_id, tokens=whole)
    return whole


def rates_of(made: RateCorrection) -> Rates:
    return Rates(made.model, made.since, made.until, made.input_rate, made.output_rate)


def _give_back(user: User, differences: list[Difference], made: RateCorrection) -> int:
    """A person's part, all of it or nothing."""
    correction = made.correction
    with transaction.atomic():
        # One at a time: whoever comes second sees what the first has given.
        locked = RateCorrection.objects.select_for_update(no_key=True).get(pk=made.pk)
        before = _given_back(each.reply_id for each in differences)
        left = [each for each in differences if each.reply_id not in before]
        whole = sum(each.too_much for each in left)
        if not whole:
            return 0
        if locked.given_back + whole > correction.amount:
            raise RuntimeError(f"{correction.pk} would give back more than was approved")
        for each in left:
            ledger.receive(
                user=user,
                account=ledger.TOKENS,
                amount=each.too_much,
                source="corrections_token",
                kind=ledger.Kind.ADJUSTMENT,
                reference=each.reply_id,
                key=_key(each.reply_id),
                author=correction.author,
                reason=correction.reason,
            )
        notices.tell(
            user=user,
            kind=notices.Kind.ADJUSTMENT,
            key=correction.pk,
            amount=whole,
            unit=ledger.UNIT_OF[ledger.TOKENS],
            reference=correction.pk,
            detail=correction.reason,
        )
        RateCorrection.objects.filter(pk=made.pk).update(given_back=F("given_back") + whole)
    return whole


def _charged(rates: Rates, ended_by: datetime) -> Iterator[list[Message]]:
    replies = Message.objects.filter(
        role=Message.Role.ASSISTANT,
        state__in=CHARGED,
        tokens_used__gt=0,
        model=rates.model,
        finished_at__lte=ended_by,
        pk__gte=ids.first("msg", rates.since),
        pk__lt=ids.first("msg", rates.until),
    )
    return batches(replies.only("user_id", "tokens_used"))


def _given_back(reply_ids: Iterator[str]) -> dict[str, int]:
    """What was given back for replies before, by reply."""
    keys = [_key(reply_id) for reply_id in reply_ids]
    given = Transfer.objects.filter(key__in=keys).values_list("reference", "amount")
    return dict(given)


def _key(reply_id: str) -> str:
    return f"{RETURNED}{reply_id}"


def _ring() -> None:
    """Tell a worker. Losing this is harmless: the clock comes by."""
    try:
        current_app.send_task("aleph.tasks.give_back", queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the clock will give back", error=str(error))
