"""The proof that replies, transfers and usage rows say the same. For `manage.py check_usage`.

Three passes in the order of ids, a batch at a time, so that it needs the same memory however much there is: over replies,
over the holds that were made for replies, and over usage rows. The caller sees to it that all of them see one moment
(`billing.audit.one_moment`). A fourth pass holds the rollups of usage rows against the rows,
a fifth the counters of budgets against the calls, a sixth what corrections of rates gave back against its transfers.

Where rows are not kept any more (`usage.retention`), replies and transfers are held against each other only, and what was
charged for the rows that are gone is taken from the rollups.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import BooleanField, ExpressionWrapper, Model, Q, QuerySet, Sum

from aleph import ids
from billing.models import Transfer
from chat import prompts
from chat.models import Message, RateCorrection
from usage import budgets, costs, meter, pricing, recosting, rollups
from usage.models import ModelPrice, TokenUsage

BATCH = 1000
RETURNED = "recharge:"
"""How the key of a transfer begins that gives back what a reply was charged too much; its id follows."""
CHARGED = (Message.State.COMPLETE, Message.State.STOPPED)
NEVER_CALLED = frozenset({"unreachable", "internal", "resting"})
"""How a reply may end that a worker began, before it asked the provider."""
REPLY_COLUMNS = (
    "state",
    "attempts",
    "tokens_used",
    "held_tokens",
    "hold_id",
    "input_rate",
    "output_rate",
    "error_kind",
    "reused_from",
)
TRANSFER_COLUMNS = ("phase", "kind", "amount", "reference", "pending")


class Difference(NamedTuple):
    """Which rule is broken, the id of the row that it was seen at, and how."""

    rule: str
    subject: str
    detail: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.subject}: {self.detail}"


@dataclass(slots=True)
class Line:
    """A line of the table: how many there are, and the tokens that were charged in them."""

    rows: int = 0
    tokens: int = 0

    def add(self, tokens: int) -> None:
        self.rows += 1
        self.tokens += tokens


class Reconciliation:
    """`differences` goes through everything once; the lines are complete when it is through."""

    def __init__(self) -> None:
        self.replies = Line()
        self.gone = Line()
        """Replies that were deleted with their chats, as their transfers tell of them."""
        self.holds = Line()
        self.posts = Line()
        self.calls = Line()
        self.paid_calls = Line()
        self.charged_in_months_gone = 0
        self.rows_from = rollups.mark().rows_from

    def differences(self) -> Iterator[Difference]:
        for pass_ in (
            self._replies,
            self._holds,
            self._calls,
            self._rollups,
            self._budgets,
            self._returns,
        ):
            yield from pass_()
        self.charged_in_months_gone = rollups.charged_before(self.rows_from) if self.rows_from else 0
        charged = self.paid_calls.tokens + self.charged_in_months_gone
        sums = (self.replies.tokens + self.gone.tokens, self.posts.tokens, charged)
        if len(set(sums)) > 1:
            yield Difference("sums", "all", "replies {}, transfers {}, usage rows {}".format(*sums))

    def _has_rows(self, public_id: str) -> bool:
        """Whether the calls for what has this id are still kept."""
        return self.rows_from is None or ids.moment_of(public_id) >= self.rows_from

    def _replies(self) -> Iterator[Difference]:
        has_text = ExpressionWrapper(~Q(content=""), output_field=BooleanField())
        all_replies = Message.objects.filter(role=Message.Role.ASSISTANT).annotate(has_text=has_text)
        for replies in batches(all_replies.only(*REPLY_COLUMNS)):
            holds = transfers().in_bulk([reply.hold_id for reply in replies if reply.hold_id])
            resolutions = resolutions_of(holds)
            calls = calls_of(reply.pk for reply in replies)
            for reply in replies:
                self.replies.add(reply.tokens_used)
                resolution = resolutions.get(reply.hold_id)
                yield from _hold_of_reply(reply, holds.get(reply.hold_id), resolution)
                yield from _taken_for_reply(reply, resolution)
                if self._has_rows(reply.pk):
                    yield from _calls_of_reply(reply, calls[reply.pk])
                    yield from _charge_of_reply(reply, resolution, calls[reply.pk])
                    yield from _reuse_of_reply(reply, calls[reply.pk])

    def _holds(self) -> Iterator[Difference]:
        all_holds = transfers().filter(kind=Transfer.Kind.REPLY, phase=Transfer.Phase.PENDING)
        for holds in batches(all_holds):
            resolutions = resolutions_of(hold.pk for hold in holds)
            references = {hold.reference for hold in holds}
            calls = calls_of(references)
            owners = dict(Message.objects.filter(pk__in=references).values_list("pk", "hold_id"))
            for hold in holds:
                resolution = resolutions.get(hold.pk)
                taken = taken_by(resolution)
                self.holds.add(0)
                if taken:
                    self.posts.add(taken)
                if (owner := owners.get(hold.reference)) is None:
                    self.gone.add(taken)
                    if resolution is None:
                        yield Difference(
                            "nothing is held for what is over",
                            hold.pk,
                            f"{hold.amount} for {hold.reference}, which is gone",
                        )
                    paid = [call for call in calls[hold.reference] if call.transfer_id]
                    wanted = [call for call in paid if resolution_paid(resolution, call)]
                    if self._has_rows(hold.pk) and (len(wanted) != bool(taken) or paid != wanted):
                        yield Difference(
                            "one usage row for what was paid",
                            hold.pk,
                            f"{taken} taken for {hold.reference}, which is gone, and paid by it: {listed(paid)}",
                        )
                elif owner != hold.pk:
                    yield Difference(
                        "a hold has its reply",
                        hold.pk,
                        f"{hold.reference} names {owner or 'none'} as its hold",
                    )

    def _calls(self) -> Iterator[Difference]:
        corrections = recosting.by_wrong_price()
        all_calls = costs.told(TokenUsage.objects.select_related("price").defer("metadata"))
        for calls in batches(all_calls):
            posts = transfers().in_bulk([call.transfer_id for call in calls if call.transfer_id])
            for call in calls:
                self.calls.add(0)
                yield from _sums_of_call(call)
                yield from _cost_of_call(call)
                yield from _corrected_cost_of_call(call, *recosting.right_price(call, corrections))
                if not call.transfer_id:
                    continue
                post = posts.get(call.transfer_id)
                if self.rows_from is None or call.created_at >= self.rows_from:
                    self.paid_calls.add(taken_by(post))
                if not taken_by(post) or post is None or post.reference != call.operation_id:
                    yield Difference(
                        "a paid call has its transfer",
                        call.pk,
                        f"{call.transfer_id} is no transfer that took tokens for {call.operation_id}",
                    )
                elif call.charged_tokens != post.amount:
                    yield Difference(
                        "a call says what was charged for it",
                        call.pk,
                        f"says {call.charged_tokens}, and {call.transfer_id} took {post.amount}",
                    )

    def _rollups(self) -> Iterator[Difference]:
        for line in rollups.differences():
            yield Difference("rollups say what the rows say", "rollups", line)

    def _budgets(self) -> Iterator[Difference]:
        for line in budgets.differences():
            yield Difference("budgets count what replies cost", "budgets", line)
        reserved = budgets.open_references()
        still_open = Message.objects.filter(pk__in=reserved, state__in=Message.OPEN)
        for reference in sorted(reserved - set(still_open.values_list("pk", flat=True))):
            detail = "budgets still reserve for it, and it is not open"
            yield Difference("no budget reserves for what is over", reference, detail)

    def _returns(self) -> Iterator[Difference]:
        """A transfer that gives something back is known by its key, and by who gives it and why."""
        told = RateCorrection.objects.values_list("correction__author", "correction__reason").annotate(
            approved=Sum("correction__amount"), given=Sum("given_back")
        )
        moved: dict[tuple[int | None, str], int] = {}
        if told:
            sums = Transfer.objects.filter(key__startswith=RETURNED).values_list("author", "reason")
            moved = {(author, reason): sum_ for author, reason, sum_ in sums.annotate(sum=Sum("amount"))}
        for author, reason, approved, given in told:
            gone = moved.get((author, reason), 0)
            if given > approved or given != gone:
                detail = f"{given} of {approved} given back, and transfers moved {gone}"
                yield Difference("what goes back has its transfers", reason, detail)


def _calls_of_reply(reply: Any, calls: list[TokenUsage]) -> Iterator[Difference]:
    """A call is recorded when it is over: of an open reply the one that runs is still to come."""
    made = [call.attempt for call in calls]
    over = reply.attempts - (reply.state == Message.State.STREAMING)
    expected = [*range(1, over + 1)]
    was_never_called = (
        not reply.is_open
        and not reply.has_text
        and reply.error_kind in NEVER_CALLED
        and expected[:-1] == made
    )
    if made != expected and not was_never_called:
        detail = f"is {reply.state} after {over} calls, and has rows of {listed(made)}"
        yield Difference("one usage row for each call", reply.pk, detail)


def _hold_of_reply(reply: Any, hold: Transfer | None, resolution: Transfer | None) -> Iterator[Difference]:
    if reply.hold_id or reply.held_tokens:
        fits = hold is not None and (hold.phase, hold.reference, hold.amount) == (
            Transfer.Phase.PENDING,
            reply.pk,
            reply.held_tokens,
        )
        if not fits:
            told = f"{hold.phase} of {hold.amount} for {hold.reference}" if hold else "none"
            detail = f"holds {reply.held_tokens} by {reply.hold_id or 'none'}, which is {told}"
            yield Difference("a reply has its hold", reply.pk, detail)
    if hold is not None and reply.is_open and resolution is not None:
        detail = f"is {reply.state}, and {hold.pk} was resolved by {resolution.pk}"
        yield Difference("what is open keeps its hold", reply.pk, detail)
    if hold is not None and not reply.is_open and resolution is None:
        detail = f"is {reply.state}, and {hold.pk} holds {hold.amount}"
        yield Difference("nothing is held for what is over", reply.pk, detail)


def _taken_for_reply(reply: Any, resolution: Transfer | None) -> Iterator[Difference]:
    taken = taken_by(resolution)
    if reply.tokens_used != taken:
        detail = f"was charged {reply.tokens_used}, and the books took {taken}"
        yield Difference("charged what the books took", reply.pk, detail)


def _charge_of_reply(
    reply: Any, resolution: Transfer | None, calls: list[TokenUsage]
) -> Iterator[Difference]:
    taken = taken_by(resolution)
    last = calls[-1] if calls else None
    used = 0
    if last is not None and reply.hold_id and reply.state in CHARGED and reply.has_text:
        used = prompts.cost(reply, input_tokens=last.input_tokens, output_tokens=last.output_tokens)
        used = min(used, reply.held_tokens)
    if reply.tokens_used != used:
        detail = f"was charged {reply.tokens_used}, and its counts and rates make {used}"
        yield Difference("charged what was used", reply.pk, detail)
    paid = [call for call in calls if call.transfer_id]
    wanted = [last] if taken else []
    if paid != wanted or not all(resolution_paid(resolution, call) for call in paid):
        detail = f"{taken} taken by {resolution.pk if resolution else 'none'}, and paid by it: {listed(paid)}"
        yield Difference("one usage row for what was paid", reply.pk, detail)


def _reuse_of_reply(reply: Any, calls: list[TokenUsage]) -> Iterator[Difference]:
    """A reply that is an earlier one asked nobody, and every other one did."""
    reused = [call for call in calls if call.source == TokenUsage.Source.REUSED]
    if reused != (calls if reply.reused_from else []):
        detail = f"is from {reply.reused_from or 'nowhere else'}, and has reused rows {listed(reused)}"
        yield Difference("a reused reply says so in its usage row", reply.pk, detail)
    for call in reused:
        if call.total_tokens or call.total_cost_usd or call.transfer_id or call.charged_tokens:
            detail = (
                f"counts {call.total_tokens}, costs {call.total_cost_usd} USD, charged {call.charged_tokens}"
            )
            yield Difference("a reused reply costs nothing", call.pk, detail)


def _sums_of_call(call: TokenUsage) -> Iterator[Difference]:
    counts = meter.counts_of(call)
    sums = (counts.input_tokens, counts.output_tokens, counts.input_tokens + counts.output_tokens)
    told = (call.input_tokens, call.output_tokens, call.total_tokens)
    if told != sums:
        detail = "input, output, total are {} {} {}, and the classes make {} {} {}".format(*told, *sums)
        yield Difference("totals are the sum of the classes", call.pk, detail)


def _cost_of_call(call: TokenUsage) -> Iterator[Difference]:
    right = _cost_at(call.price, call)
    told = (call.input_cost_usd, call.output_cost_usd, call.total_cost_usd)
    if not all(map(_same, told, right)):
        detail = "input, output, total are {} {} {} USD, and the price makes {} {} {}".format(*told, *right)
        yield Difference("costs are counts by price", call.pk, detail)


def _corrected_cost_of_call(
    call: TokenUsage, right_price: ModelPrice | None, is_written: bool
) -> Iterator[Difference]:
    right = _cost_at(right_price, call)
    told = (call.input_usd, call.output_usd, call.cost_usd)
    is_corrected = right_price != call.price or call.corrected_usd or call.corrected_input_usd
    if is_written and is_corrected and not all(map(_same, told, right)):
        detail = "corrected they are {} {} {} USD, and the right price makes {} {} {}".format(*told, *right)
        yield Difference("corrections make costs right", call.pk, detail)


def _cost_at(price: ModelPrice | None, call: TokenUsage) -> tuple[Decimal | None, ...]:
    cost = pricing.cost(price, meter.counts_of(call))
    return cost.input_usd, cost.output_usd, cost.total_usd


def _same(stored: Decimal | None, right: Decimal | None) -> bool:
    if stored is None or right is None:
        return stored is right
    # SQLite has no decimals and keeps fifteen digits.
    tolerance = right * Decimal("1E-14") if connection.vendor == "sqlite" else Decimal(0)
    return abs(stored - right) <= tolerance


def batches(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    """All rows in the order of their ids, `BATCH` at a time."""
    after, is_more = "", True
    while is_more:
        batch: list[Model] = list(rows.filter(pk__gt=after).order_by("pk")[:BATCH])
        if batch:
            yield batch
            after = batch[-1].pk
        is_more = len(batch) == BATCH


def transfers() -> QuerySet[Transfer]:
    return Transfer.objects.only(*TRANSFER_COLUMNS)


def resolutions_of(hold_ids: Iterable[str]) -> dict[str, Transfer]:
    """What posted, voided or expired holds, by the hold's id."""
    found = transfers().filter(pending__in=list(hold_ids))
    return {str(transfer.pending_id): transfer for transfer in found}


def calls_of(operation_ids: Iterable[str]) -> dict[str, list[TokenUsage]]:
    """Usage rows by operation, in the order of their attempts."""
    calls: dict[str, list[TokenUsage]] = defaultdict(list)
    found = TokenUsage.objects.filter(operation_id__in=list(operation_ids)).defer("metadata")
    for call in found.order_by("operation_id", "attempt"):
        calls[call.operation_id].append(call)
    return calls


def taken_by(transfer: Transfer | None) -> int:
    """The tokens that a transfer took for a reply; a void or an expiry takes none."""
    is_charge = transfer is not None and (transfer.phase, transfer.kind) == ("post", "reply")
    return transfer.amount if transfer is not None and is_charge else 0


def resolution_paid(resolution: Transfer | None, call: TokenUsage) -> bool:
    return resolution is not None and taken_by(resolution) > 0 and call.transfer_id == resolution.pk


def listed(items: Iterable[object]) -> str:
    return ", ".join(map(str, items)) or "none"
