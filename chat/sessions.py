"""Conversations of one person: finding, listing, naming and deleting them. Every query starts from its owner."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import BooleanField, Exists, F, OuterRef, QuerySet
from django.db.models.expressions import RawSQL
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Conflict, InvalidRequest, NotFound, RateLimited
from chat import replies
from chat.models import ChatModel, Message, Session

PAGE = 50
FULL_WAIT_S = 5
DELETE_ATTEMPTS = 5


class TooManyOpen(RateLimited):
    """Nobody may fill the queue for all others; also where the rates of messages cannot be counted."""

    text = _("You have many replies in progress. Wait until one of them is done, or stop one.")

    def __init__(self) -> None:
        super().__init__(data={"limit": "open_replies"}, retry_after_s=FULL_WAIT_S)


@dataclass(frozen=True, slots=True)
class Thread:
    """A stretch of one branch, oldest first; `earlier` is the id to ask for what came before, or None. `tip` is the reply
    that the conversation ends with, None where that is further on."""

    messages: list[Message]
    earlier: str | None
    tip: Message | None

    @property
    def open_reply(self) -> Message | None:
        return self.tip if self.tip is not None and self.tip.is_open else None


def create(*, user: User, title: str = "", model: ChatModel | None = None) -> Session:
    return Session.objects.create(
        id=ids.new("cht"), user=user, title=_title(title), model=model, last_message_at=timezone.now()
    )


def get(user: User, session_id: str) -> Session:
    """Raises `NotFound`, for what belongs to others, too."""
    if not ids.is_one(session_id, "cht"):
        raise NotFound
    session = Session.objects.filter(user=user, pk=session_id).select_related("model").first()
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


def recent(user: User, *, limit: int = PAGE, before: tuple[datetime, str] | None = None) -> list[Session]:
    """The newest conversations, each with `is_open` (a reply is being written); from `before` (moment, id) on."""
    found = _of(user)
    if before is not None:
        found = found.filter(last_message_at__lte=before[0]).exclude(
            last_message_at=before[0], pk__gte=before[1]
        )
    return list(found[:limit])


def _of(user: User) -> QuerySet[Session]:
    writing = Message.objects.filter(session=OuterRef("pk"), state__in=Message.OPEN)
    return (
        Session.objects.filter(user=user)
        .annotate(is_open=Exists(writing))
        .select_related("model")
        .order_by("-last_message_at", "-id")
    )


def thread(session: Session, *, before: str | None = None, limit: int = PAGE) -> Thread:
    """The newest branch, or what of it comes before the message `before`. Raises `NotFound` if that is not in it."""
    if before is not None and not ids.is_one(before, "msg"):
        raise NotFound
    found = session.messages.select_related("model").order_by("-id")
    upto = found if before is None else found.filter(id__lte=before)
    known = {message.pk: message for message in upto[: limit * 2]}
    if before is None:
        at = next((message.pk for message in known.values() if message.is_reply), None)
    elif before in known:
        at = known[before].parent_id
    else:
        raise NotFound
    path: list[Message] = []
    while at is not None and len(path) < limit:
        if at not in known:  # other branches stand in between
            known |= {message.pk: message for message in found.filter(id__lte=at)[: limit * 2]}
        path.append(known[at])
        at = known[at].parent_id
    path.reverse()
    earlier = path[0].pk if path and path[0].parent_id else None
    return Thread(path, earlier, tip=path[-1] if path and before is None else None)


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
    open_replies = Message.objects.filter(session=session, state__in=Message.OPEN)
    for _attempt in range(DELETE_ATTEMPTS):
        for open_reply in open_replies.select_related("model"):
            replies.close_for_owner(open_reply)
        with transaction.atomic():
            # Turns count their messages on this row, so while it is locked none adds a reply between the look and the
            # deletion. Whoever closes a reply locks its row first and this one later: a reply that still looks open is
            # left to the next attempt, never waited for.
            Session.objects.select_for_update().filter(pk=session.pk).first()
            if not open_replies.exists():
                session.delete()
                return
    raise Conflict


def touch(session: Session, *, messages: int, title: str = "", model: ChatModel | None = None) -> None:
    """Count messages that were just added; name the session if it has no name. Raises `NotFound` when it was deleted
    meanwhile, `TooManyOpen` when its owner has too many open replies now; the messages must not be kept then."""
    changes: dict[str, object] = {
        "message_count": F("message_count") + messages,
        "last_message_at": Now(),
        "model": model,
    }
    if title and not session.title:
        session.title = title
        changes["title"] = title
    same = admitted = Session.objects.filter(pk=session.pk)
    if settings.MAX_OPEN_REPLIES:
        # In the statement that is sent anyway. Turns that hold tokens come one after the other, by the lock of the account;
        # of free ones that begin in the same moment there may be a few more.
        has_room = RawSQL(
            "(SELECT COUNT(*) FROM chat_message WHERE user_id = %s AND state IN ('queued', 'streaming')) <= %s",
            (session.user_id, settings.MAX_OPEN_REPLIES),
            output_field=BooleanField(),
        )
        admitted = same.filter(has_room)
    if not admitted.update(**changes):
        raise TooManyOpen if same.exists() else NotFound


def _title(title: str) -> str:
    return " ".join(title.replace("\x00", "").split())[:120]
