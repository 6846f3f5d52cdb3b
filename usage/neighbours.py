"""What other apps know about somebody's calls. Usage imports none of them: `settings.USAGE_NEIGHBOURS` names the module
of the roof that asks them, which has the functions of `Neighbours`."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Protocol, cast

from django.conf import settings

from aleph.accounts.models import User


@dataclass(frozen=True, slots=True)
class Writing:
    """A reply that is being written: LLM tokens by estimate. `provider` and `model` are "" until somebody is asked."""

    name: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a call was asked: in which chat, and how much of it were earlier messages, in per cent, by estimate."""

    session_id: str
    title: str
    messages: int
    earlier_percent: int


class Balance(Protocol):
    """What billing tells of somebody's account, as every page shows it."""

    @property
    def available(self) -> int:
        """Aleph tokens that can be spent."""


class Neighbours(Protocol):
    def balance_of(self, user: User) -> Balance:
        """The user's balance."""

    def being_written(self, user: User) -> list[Writing]:
        """The user's open replies."""

    def titles(self, user: User, session_ids: Collection[str]) -> dict[str, str]:
        """The titles of those of the user's chats that are still there."""

    def prompt_of(self, user: User, operation_id: str) -> Prompt | None:
        """What a reply was asked; None where it was deleted, or was no reply."""


@cache
def ask() -> Neighbours:
    return cast(Neighbours, import_module(settings.USAGE_NEIGHBOURS))
