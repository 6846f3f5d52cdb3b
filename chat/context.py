"""What the frame of every page shows of the chats."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _

from chat import sessions
from chat.models import Session

SHOWN = 40
"""Chats in the sidebar; the others are on the search page."""


@dataclass(frozen=True, slots=True)
class Group:
    """Chats of one stretch of time, newest first."""

    label: str
    chats: list[Session]


@dataclass(frozen=True, slots=True)
class Sidebar:
    groups: list[Group]
    has_more: bool

    @property
    def chat_ids(self) -> set[str]:
        return {chat.pk for group in self.groups for chat in group.chats}


def sidebar(request: HttpRequest) -> dict[str, Any]:
    """`sidebar` is a `Sidebar`, read when a template asks for it; nothing for guests."""
    user = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {}
    return {"sidebar": SimpleLazyObject(lambda: _sidebar(sessions.recent(user, limit=SHOWN + 1)))}


def _sidebar(chats: list[Session]) -> Sidebar:
    return Sidebar(grouped(chats[:SHOWN], today=timezone.localdate()), has_more=len(chats) > SHOWN)


def grouped(chats: Iterable[Session], *, today: date) -> list[Group]:
    """Chats, newest first, under the words that people use for their days."""
    return [
        Group(label, list(group)) for label, group in groupby(chats, key=lambda chat: _label(chat, today))
    ]


def _label(chat: Session, today: date) -> str:
    day = timezone.localdate(chat.last_message_at or chat.created_at)
    if day >= today:
        return _("Today")
    if day == today - timedelta(days=1):
        return _("Yesterday")
    if day >= today - timedelta(days=7):
        return _("Previous 7 days")
    return date_format(day, "F" if day.year == today.year else "F Y")
