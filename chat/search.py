"""Finding a conversation by its title or by what was said in it. Every query starts from its owner."""

import re
from dataclasses import dataclass

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce

from aleph.accounts.models import User
from chat.models import Message, Session

PAGE = 25
LAST = 10_000
"""Pages that can be asked for: a database takes no offset of any size."""
MOST_READ = 10_000
"""Encrypted messages, or titles, of one person that one search reads; about a quarter of a second's work."""
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
    """The user's conversations that contain `words` in this order, in any case; without words all of them. Of encrypted
    messages the newest `MOST_READ` are looked through."""
    words = " ".join(words.replace("\x00", " ").split())
    number = min(max(1, number), LAST)
    found = Session.objects.filter(user=user)
    if words and settings.ENCRYPT_MESSAGES:
        said, titled = _read_through(user, words.casefold())
        found = found.filter(pk__in={*said, *titled})
    elif words:
        messages = Message.objects.filter(session=OuterRef("pk"), content__icontains=words)
        found = found.filter(Q(title__icontains=words) | Exists(messages))
        found = found.annotate(said=Subquery(messages.order_by("-id").values("pk")[:1]))
        said = {}
    else:
        said = {}
    found = found.order_by(Coalesce("last_message_at", "created_at").desc(), "-id")
    start = (number - 1) * PAGE
    sessions = list(found[start : start + PAGE + 1])
    places: dict[str, str] = {
        session.pk: said.get(session.pk) or getattr(session, "said", "") or "" for session in sessions[:PAGE]
    }
    told = Message.objects.filter(pk__in=filter(None, places.values())).values_list("pk", "content")
    texts = dict(told)
    hits = [
        Hit(session, excerpt(texts.get(places[session.pk], ""), words), places[session.pk] or None)
        for session in sessions[:PAGE]
    ]
    return Page(hits, number, len(sessions) > PAGE)


def _read_through(user: User, words: str) -> tuple[dict[str, str], set[str]]:
    """Where a database cannot look for words, because it cannot read them: conversations with the newest of their messages
    that says `words`, and those whose title does."""
    messages = Message.objects.filter(session__user=user).order_by("-id")
    said: dict[str, str] = {}
    for message, session, content in messages.values_list("pk", "session_id", "content")[
        :MOST_READ
    ].iterator():
        if session not in said and words in content.casefold():
            said[session] = message
    titles = Session.objects.filter(user=user).order_by("-id").values_list("pk", "title")[:MOST_READ]
    return said, {session for session, title in titles.iterator() if words in title.casefold()}


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
