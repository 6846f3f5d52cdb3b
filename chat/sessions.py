"""Conversations of one person: finding, listing, naming and deleting them. Every query starts from its owner."""

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.prepared import Given, Rows, Update
from aleph.problems import Conflict, InvalidRequest, NotFound, RateLimited
from chat import attachments, branches, replies
from chat.models import ChatModel, Message, Session
from usage import budgets

PAGE = 50
FULL_WAIT_S = 5
DELETE_ATTEMPTS = 5
NO_LIMIT = 2**31 - 1

OF_OWNER = Rows(lambda: Session.objects.filter(user=Given("user"), pk=Given("id")).select_related("model"))
HAS_ROOM = RawSQL(
    "(SELECT COUNT(*) FROM chat_message WHERE user_id = %s AND state IN ('queued', 'streaming')) <= %s",
    (Given("user"), Given("most")),
    output_field=BooleanField(),
)
"""In the statement that is sent anyway. Turns that hold tokens come one after the other, by the lock of the account; of
free ones that begin in the same moment there may be a few more."""
COUNT: dict[str, Any] = {
    "message_count": F("message_count") + Given("messages"),
    "last_message_at": Now(),
    "model": Given("model"),
    "temperature": Given("temperature"),
}
COUNTED = Update(lambda: Session.objects.filter(HAS_ROOM, pk=Given("id")), **COUNT)
COUNTED_AND_NAMED = Update(
    lambda: Session.objects.filter(HAS_ROOM, pk=Given("id")), **COUNT, title=Given("title")
)


class TooManyOpen(RateLimited):
    """Nobody may fill the queue for all others; also where the rates of messages cannot be counted."""

    text = _("You have many replies in progress. Wait until one of them is done, or stop one.")

    def __init__(self) -> None:
        super().__init__(data={"limit": "open_replies"}, retry_after_s=FULL_WAIT_S)


@dataclass(frozen=True, slots=True)
class Thread:
    """A stretch of one branch, oldest first; `earlier` is the id to ask for what came before, or None. `tip` is the reply
    that the branch ends with, None where that is further on. `writing` is the open reply of the conversation, on this
    branch or another."""

    messages: list[Message]
    earlier: str | None
    tip: Message | None
    writing: Message | None

    @property
    def open_reply(self) -> Message | None:
        return self.tip if self.tip is not None and self.tip.is_open else None

    @property
    def writing_elsewhere(self) -> Message | None:
        """The open reply, where this is the end of another branch."""
        return self.writing if self.tip is not None and self.writing != self.tip else None

    def from_question(self) -> "Thread":
        """Without the replies at the beginning, where somebody says something after them: what they answer, or go on
        with, is not here."""
        first = next((at for at, message in enumerate(self.messages) if not message.is_reply), 0)
        kept = self.messages[first:]
        return replace(self, messages=kept, earlier=kept[0].pk) if first and self.earlier else self


def create(
    *, user: User, title: str = "", model: ChatModel | None = None, temperature: Decimal | None = None
) -> Session:
    return Session.objects.create(
        id=ids.new("cht"),
        user=user,
        title=_title(title),
        model=model,
        temperature=temperature,
        last_message_at=timezone.now(),
    )


def get(user: User, session_id: str) -> Session:
    """Raises `NotFound`, for what belongs to others, too."""
    if not ids.is_one(session_id, "cht"):
        raise NotFound
    session = OF_OWNER.first(user=user.pk, id=session_id)
    if session is None:
        raise NotFound
    return session


def seen(user: User, session_id: str) -> Session:
    """As `get`, for whoever looks at it: with `worth_thousandths`, what its charges are worth in thousandths of a rupiah
    by what was last paid for tokens at each; None where nothing was charged or nobody knows."""
    if not ids.is_one(session_id, "cht"):
        raise NotFound
    charged = Message.objects.filter(session=OuterRef("pk"), tokens_used__gt=0).order_by()
    worth = (
        charged.values("session").annotate(sum=Sum(F("tokens_used") * F("value_idr_per_1k"))).values("sum")
    )
    found = Session.objects.filter(user=user, pk=session_id).select_related("model")
    session = found.annotate(worth_thousandths=Subquery(worth)).first()
    if session is None:
        raise NotFound
    return session


def reply(user: User, reply_id: str) -> Message:
    """A reply of the user's, with its session, model and the message it answers. Raises `NotFound`."""
    if not ids.is_one(reply_id, "msg"):
        raise NotFound
    found = (
        Message.objects.filter(user=user, pk=reply_id, role=Message.Role.ASSISTANT)
        .select_related("session", "session__model", "model", "parent")
        .first()
    )
    if found is None:
        raise NotFound
    return found


def message(user: User, message_id: str) -> Message:
    """Something that the user said, with its session and that one's model. Raises `NotFound`."""
    if not ids.is_one(message_id, "msg"):
        raise NotFound
    said = Message.objects.filter(user=user, pk=message_id, role=Message.Role.USER)
    found = said.select_related("session", "session__model").first()
    if found is None:
        raise NotFound
    return found


def recent(user: User, *, limit: int = PAGE, before: tuple[datetime, str] | None = None) -> list[Session]:
    """The newest conversations, each with `is_open` (a reply is being written); from `before` (moment, id) on."""
    found = _of(user)
    if before is not None:
        found = found.filter(last_message_at__lte=before[0]).exclude(
            last_message_at=before[0], pk__gte=before[1]
        )
    return list(found[:limit])


def _of(user: User) -> QuerySet[Session]:
    # In words of our own: SQLite finds the index of open replies only where their states stand in the statement.
    is_open = RawSQL(
        "EXISTS (SELECT 1 FROM chat_message WHERE session_id = chat_session.id AND state IN ('queued', 'streaming'))",
        (),
        output_field=BooleanField(),
    )
    return (
        Session.objects.filter(user=user)
        .annotate(is_open=is_open)
        .select_related("model")
        .order_by("-last_message_at", "-id")
    )


def thread(
    session: Session, *, at: str | None = None, before: str | None = None, limit: int = PAGE
) -> Thread:
    """The branch that the message `at` stands on, to its newest end; without one the newest branch; or what comes before
    the message `before`. Raises `NotFound` for messages that are not in this session."""
    if not all(ids.is_one(given, "msg") for given in (at, before) if given is not None):
        raise NotFound
    if before is not None:
        place = branches.exactly(session.pk, before)
    else:
        place = branches.newest(session.pk) if at is None else branches.newest_below(session.pk, at)
    # One more than is shown: whoever is asked for what comes before a message has read that message, too.
    found = branches.ending_in(place, limit=limit + 1, found=Message.objects.select_related("model"))
    if found.tip is None and (at is not None or before is not None):
        raise NotFound
    messages = found.messages[:-1] if before is not None else found.messages[-limit:]
    earlier = messages[0].pk if messages and messages[0].parent_id else None
    return Thread(messages, earlier, None if before is not None else found.tip, found.writing)


def end_of(session: Session, *, at: str | None = None) -> str | None:
    """The id of the message that ends the branch which `at` stands on; without one the newest branch."""
    if at is not None and not ids.is_one(at, "msg"):
        raise NotFound
    place = branches.newest(session.pk) if at is None else branches.newest_below(session.pk, at)
    tip = branches.ending_in(place, limit=1, found=Message.objects.only("id", "state", "parent_id")).tip
    return tip.pk if tip else None


def rename(session: Session, title: str) -> None:
    """Raises `InvalidRequest` for an empty title, `NotFound` when the session was deleted meanwhile."""
    session.title = _title(title)
    if not session.title:
        raise InvalidRequest(_("A chat needs a title."))
    if not Session.objects.filter(pk=session.pk).update(title=session.title):
        raise NotFound


def delete(session: Session) -> None:
    """Delete a conversation and its messages at once. A reply in progress ends first, as if it had been stopped: no
    row may go while it has a hold. Raises `Conflict` where new replies keep beginning."""
    ended: list[Message] = []
    try:
        _delete(session, ended)
    finally:
        for reply in ended:
            replies.tell_end(reply)


def _delete(session: Session, ended: list[Message]) -> None:
    """Adds to `ended` the replies that end for it, of which nobody is told yet."""
    open_replies = Message.objects.filter(session=session, state__in=Message.OPEN)
    for _attempt in range(DELETE_ATTEMPTS):
        # One by one, so that none is forgotten where a later one fails.
        ended.extend(
            reply for reply in open_replies.select_related("model") if replies.close_for_owner(reply)
        )
        with transaction.atomic():
            # Turns count their messages on this row, so while it is locked none adds a reply between the look and the
            # deletion. Whoever closes a reply locks its row first and this one later: a reply that still looks open is
            # left to the next attempt, never waited for.
            Session.objects.select_for_update().filter(pk=session.pk).first()
            if not open_replies.exists():
                attachments.leave(session)
                session.delete()
                return
    raise Conflict


def touch(
    session: Session,
    *,
    messages: int,
    title: str = "",
    model: ChatModel | None = None,
    temperature: Decimal | None = None,
    key_id: int | None = None,
) -> bool:
    """Count messages that were just added, and keep what was chosen for the session: its `model`, its `temperature`, a name
    if it has none. Whether a reply among them, asked for with
    the API key `key_id`, falls under a budget. Raises `NotFound` when the session was deleted meanwhile, `TooManyOpen` when
    its owner has too many open replies now; the messages must not be kept then."""
    count = COUNTED
    if title and not session.title:
        session.title = title
        count = COUNTED_AND_NAMED
    # Asked in the same statement, too: it comes after everything that may be refused for another reason.
    touched = count.asking(
        budgets.applying(session.user_id, key_id),
        id=session.pk,
        user=session.user_id,
        most=settings.MAX_OPEN_REPLIES or NO_LIMIT,
        messages=messages,
        model=model and model.pk,
        temperature=temperature,
        title=title,
    )
    if not touched:
        raise TooManyOpen if Session.objects.filter(pk=session.pk).exists() else NotFound
    return touched[0]


def _title(title: str) -> str:
    return " ".join(title.replace("\x00", "").split())[:120]
