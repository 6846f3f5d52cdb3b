"""What was used and what it cost, for people about themselves. A door of this app; reads only.

Everything starts from the user, and days are days of his own time zone. Tokens are LLM tokens, as providers count
them; money is USD, what the calls cost us.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db.models import Q, QuerySet
from django.utils.translation import gettext_lazy

from aleph.accounts.models import User
from aleph.problems import InvalidRequest
from usage import costs, retention
from usage.models import TokenUsage, name_for_people

Call = TokenUsage
"""One recorded call, for reading."""

SKEW = timedelta(hours=1)
"""How far the moment of a call may be from that of the transfer which paid for it: another clock wrote it."""

NAMED = 5
"""Models that a report by day tells apart; the rest is one sum."""

CURSOR = re.compile(r"(\d{1,16})-(\w{0,40})", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class InvalidCursor(InvalidRequest):
    text = gettext_lazy("This page of the list does not exist.")


@dataclass(frozen=True, slots=True)
class Page:
    """Calls, newest first. `older` is the cursor of the next page, "" on the last one."""

    calls: Sequence[Call]
    older: str


def recent(user: User, *, before: str = "", limit: int = 25) -> Page:
    """A page of the user's calls, from the newest or from what the cursor `before` says. Raises `InvalidCursor`."""
    return page(_calls_of(user).defer("metadata"), before=before, limit=limit)


def page(calls: QuerySet[Call], *, before: str, limit: int) -> Page:
    """A page of some calls, newest first, from what the cursor `before` says on. Raises `InvalidCursor`."""
    if before:
        moment, call_id = read_cursor(before)
        calls = calls.filter(Q(created_at__lt=moment) | Q(created_at=moment, id__lt=call_id))
        # Says the same once more, in words that an index on (user, created_at) understands.
        calls = calls.filter(created_at__lte=moment)
    found = list(costs.told(calls).order_by("-created_at", "-id")[: limit + 1])
    shown = found[:limit]
    return Page(shown, cursor_of(shown[-1].created_at, shown[-1].id) if len(found) > limit else "")


def call_of(user: User, operation_id: str) -> Call | None:
    """The user's last call for this operation, with the price it was made at; None where there was none."""
    calls = costs.told(_calls_of(user).filter(operation_id=operation_id)).select_related("price")
    return calls.order_by("-attempt").first()


def is_past_keeping(moment: datetime) -> bool:
    """Whether the single calls of a moment are not kept any more."""
    rows_from = retention.kept_from()
    return rows_from is not None and moment < rows_from


def models_by_transfer(user: User, *, since: datetime, until: datetime) -> dict[str, str]:
    """Which model, as people know it, wrote what each transfer paid for; for those of the user's calls that were paid
    between two moments. One query."""
    calls = _calls_of(user).filter(created_at__gte=since - SKEW, created_at__lt=until + SKEW)
    paid = calls.exclude(transfer_id="").values_list("transfer_id", "label", "requested_model")
    return {transfer: name_for_people(label, model) for transfer, label, model in paid}


def _calls_of(user: User) -> QuerySet[Call]:
    return Call.objects.filter(user=user)


def cursor_of(moment: datetime, call_id: str) -> str:
    return f"{(moment - EPOCH) // timedelta(microseconds=1)}-{call_id}"


def read_cursor(cursor: str) -> tuple[datetime, str]:
    match = CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidCursor
    return EPOCH + timedelta(microseconds=int(match[1])), match[2]
