"""What the page of a conversation shows as one: a message of a person, or a reply with all that it goes on from.

For the views, the live page and their templates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chat import attachments, branches
from chat.branches import Pager
from chat.models import Attachment, Message


@dataclass(frozen=True, slots=True)
class Part:
    """One message, its place among its branches, None where there is no other, and its images."""

    message: Message
    pager: Pager | None
    images: tuple[Attachment, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """The parts are one message; or a reply that was cut off, and then one reply after another that goes on with it."""

    parts: tuple[Part, ...]

    @property
    def last(self) -> Part:
        return self.parts[-1]

    @property
    def message(self) -> Message:
        return self.last.message

    @property
    def earlier(self) -> tuple[Part, ...]:
        return self.parts[:-1]

    @property
    def text(self) -> str:
        return "".join(part.message.content for part in self.parts)


def of(messages: Sequence[Message]) -> list[Entry]:
    """The entries of a stretch of one branch."""
    pagers, images = branches.pagers(messages), attachments.of(messages)
    entries: list[Entry] = []
    for message in messages:
        part = Part(message, pagers.get(message.pk), images.get(message.pk, ()))
        if message.is_reply and entries and entries[-1].message.is_reply:
            entries[-1] = Entry((*entries[-1].parts, part))
        else:
            entries.append(Entry((part,)))
    return entries


def of_reply(reply: Message, *, goes_on_from: Iterable[Message]) -> Entry:
    """One reply, with what it goes on from (`branches.before_in_text`)."""
    return of([*goes_on_from, reply])[0]
