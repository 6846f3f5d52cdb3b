"""Finding a conversation by its title or by what was said in it. Every query starts from its owner."""

import re
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from aleph.accounts.models import User
from chat.models import Message, Session

PAGE = 25
LAST = 10_000
"""Pages that can be asked for: a database takes no offset of any size."""
AROUND = 90
"""Characters of a message that are shown on each side of what was found."""


@dataclass(frozen=True, slots=True)
class Excerpt:
    """What was found, with what stands around it."""

    before: str
    found: str
    after: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A conversation that was found, and the id of the message that says it; both others are None where only its title
    matched."""

    session: Session
    excerpt: Excerpt | None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of hits, newest conversation first; `number` counts from 1."""

    hits: list[Hit]
    number: int
    has_more: bool


def find(*, user: User, words: str, number: int = 1) -> Page:
    """The user's conversations that contain `words` in this order, in any case; without words all of them."""
    words = " ".join(words.replace("\x00", " ").split())
    number = min(max(1, number), LAST)
    found = Session.objects.filter(user=user)
    if words:
        said = Message.objects.filter(session=OuterRef("pk"), content__icontains=words)
        found = found.filter(Q(title__icontains=words) | Exists(said))
        found = found.annotate(said=Subquery(said.order_by("-id").values("pk")[:1]))
    found = found.order_by(Coalesce("last_message_at", "created_at").desc(), "-id")
    start = (number - 1) * PAGE
    sessions = list(found[start : start + PAGE + 1])
    places: dict[str, str] = {session.pk: getattr(session, "said", "") or "" for session in sessions[:PAGE]}
    told = Message.objects.filter(pk__in=filter(None, places.values())).values_list("pk", "content")
    texts = dict(told)
    hits = [
        Hit(session, excerpt(texts.get(places[session.pk], ""), words), places[session.pk] or None)
        for session in sessions[:PAGE]
    ]
    return Page(hits, number, len(sessions) > PAGE)


def excerpt(text: str, words: str) -> Excerpt | None:
    """The first place of `words` in `text`; None where it has none."""
    place = re.search(re.escape(words), text, re.IGNORECASE) if words else None
    if place is None:
        return None
    start, end = place.span()
    before, after = text[max(0, start - AROUND) : start], text[end : end + AROUND]
    return Excerpt(
        ("…" if start > AROUND else "") + before.lstrip(),
        place[0],
        after.rstrip() + ("…" if end + AROUND < len(text) else ""),
    )
