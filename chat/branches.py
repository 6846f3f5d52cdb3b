"""The tree of a conversation: what was said before a message, how it went on below, and what else was said in its place.

The parent of a message is what it was said to. What has the same parent are branches: several replies to a message, a
message and what it was edited to. A reply whose parent is a reply goes on with that one's text.

For `chat.sessions`, `chat.prompts` and `chat.entries`. Each function asks the database once, however long a conversation
is and however often it branches.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from django.db.models import BooleanField, Q, QuerySet
from django.db.models.expressions import RawSQL

from aleph.prepared import Given
from chat.models import Message

FIRST = ""
"""In the place of a parent's id: before everything that was said."""
MOST_PARTS = 200


@dataclass(frozen=True, slots=True)
class Place:
    """A message of a conversation, for the database to find."""

    session_id: str | Given
    sql: str
    params: tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Branch:
    """The end of a branch, oldest message first. `writing` is the open reply of its conversation, wherever it is."""

    messages: list[Message]
    writing: Message | None

    @property
    def tip(self) -> Message | None:
        return self.messages[-1] if self.messages else None


@dataclass(frozen=True, slots=True)
class Pager:
    """The place of a message among its branches, counted from 1, and the ids of its neighbours, None at the ends."""

    position: int
    count: int
    previous: str | None
    following: str | None


def newest(session_id: str | Given) -> Place:
    """The newest reply."""
    sql = "SELECT id FROM chat_message WHERE session_id = %s AND role = 'assistant' ORDER BY id DESC LIMIT 1"
    return Place(session_id, sql, (session_id,))


def exactly(session_id: str | Given, message_id: str | Given) -> Place:
    return Place(
        session_id, "SELECT id FROM chat_message WHERE session_id = %s AND id = %s", (session_id, message_id)
    )


def newest_below(session_id: str, message_id: str) -> Place:
    """The newest of a message and everything that it led to."""
    sql = """
        WITH RECURSIVE below(id) AS (
            SELECT id FROM chat_message WHERE session_id = %s AND id = %s
            UNION ALL
            SELECT further.id FROM below JOIN chat_message further ON further.parent_id = below.id
        ) SELECT MAX(id) FROM below
    """
    return Place(session_id, sql, (session_id, message_id))


def nowhere(session_id: str) -> Place:
    return Place(session_id, "SELECT NULL", ())


def ending_in(place: Place, *, limit: int, found: "QuerySet[Message] | None" = None) -> Branch:
    """The branch that ends in `place`, its last `limit` messages; empty where there is no such message. `found` says
    which columns are read."""
    return of(rows(place, limit=limit, found=Message.objects.all() if found is None else found), limit=limit)


def rows(place: Place, *, limit: int, found: QuerySet[Message]) -> QuerySet[Message]:
    """What `of` makes a branch of: the messages on it, and the open reply of the conversation."""
    path = RawSQL(  # noqa: S611 - put together from the constants above
        f"""
        WITH RECURSIVE path(id, parent_id, length) AS (
            SELECT id, parent_id, 1 FROM chat_message WHERE id = ({place.sql})
            UNION ALL
            SELECT said.id, said.parent_id, path.length + 1
            FROM path JOIN chat_message said ON said.id = path.parent_id WHERE path.length < %s
        )
        SELECT id FROM path
        UNION SELECT id FROM chat_message WHERE session_id = %s AND state IN ('queued', 'streaming')
        """,  # noqa: S608
        (*place.params, limit, place.session_id),
    )
    is_end = RawSQL(  # noqa: S611
        f"chat_message.id = ({place.sql})", place.params, output_field=BooleanField()
    )
    return found.annotate(is_end=is_end).filter(pk__in=path)


def of(found: Iterable[Message], *, limit: int) -> Branch:
    """The branch that is made of `rows`."""
    by_id = {row.pk: row for row in found}
    messages: list[Message] = []
    at: Message | None = next((row for row in by_id.values() if getattr(row, "is_end", False)), None)
    while at is not None and len(messages) < limit:
        messages.append(at)
        at = by_id.get(at.parent_id) if at.parent_id else None
    writing = next((row for row in by_id.values() if row.is_open), None)
    return Branch(messages[::-1], writing)


def before_in_text(reply: Message) -> list[Message]:
    """The replies whose text this one goes on with, oldest first. Asks only where its parent is a reply."""
    if reply.parent is None or not reply.parent.is_reply:
        return []
    parts = RawSQL(
        """
        WITH RECURSIVE part(id, parent_id, length) AS (
            SELECT id, parent_id, 1 FROM chat_message WHERE id = %s
            UNION ALL
            SELECT said.id, said.parent_id, part.length + 1
            FROM part JOIN chat_message said ON said.id = part.parent_id
            WHERE said.role = 'assistant' AND part.length < %s
        ) SELECT id FROM part
        """,
        (reply.parent_id, MOST_PARTS),
    )
    return list(Message.objects.filter(pk__in=parts).select_related("model").order_by("id"))


def pagers(messages: Iterable[Message]) -> dict[str, Pager]:
    """Of those of the messages, all of one conversation, that have others in their place, by id."""
    asked = {message.pk: message for message in messages}
    if not asked:
        return {}
    session_id = next(iter(asked.values())).session_id
    parents = {message.parent_id for message in asked.values()}
    is_beside = Q(parent__in=parents - {None}) | (Q(parent=None) if None in parents else Q())
    found = Message.objects.filter(is_beside, session=session_id).order_by("parent", "id")
    pagers = {}
    for _parent, same in groupby(found.values_list("parent", "pk"), key=lambda row: row[0]):
        beside = [pk for _, pk in same]
        for at, pk in enumerate(beside):
            if len(beside) > 1 and pk in asked:
                neighbours = (
                    beside[at - 1] if at else None,
                    beside[at + 1] if at + 1 < len(beside) else None,
                )
                pagers[pk] = Pager(at + 1, len(beside), *neighbours)
    return pagers
