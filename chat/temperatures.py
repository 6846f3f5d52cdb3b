"""How freely a model chooses its words: the temperature of a reply, from 0 (nearly the same answer each time) to 2.

A reply is pinned to the one that it was asked at. A chat keeps what its owner chose for it, None for the usual one.
"""

from decimal import Decimal, InvalidOperation
from typing import NamedTuple

from django.utils.formats import number_format
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from chat.models import HIGHEST_TEMPERATURE, ChatModel, Session

EXACT, USUAL = Decimal(0), Decimal("0.7")
TOP_P = Decimal("0.9")
"""The likelihood of the words that are chosen from, beside every temperature."""
PLACES = Decimal("0.01")


class Step(NamedTuple):
    """A temperature to choose; without a name, one that a program chose."""

    value: Decimal
    name: str | Promise

    @property
    def mark(self) -> str:
        """What the composer says of it: nothing of the usual one."""
        return "" if self.value == USUAL else str(self.name) or shown(self.value)


STEPS = (Step(EXACT, _("Exact")), Step(USUAL, _("Balanced")), Step(Decimal(1), _("Creative")))


def steps(chosen: Decimal) -> list[Step]:
    """What a page offers, and `chosen` among it."""
    others = [] if any(step.value == chosen for step in STEPS) else [Step(chosen, "")]
    return sorted([*STEPS, *others])


def of(model: ChatModel, *wishes: Decimal | None) -> Decimal | None:
    """The temperature that `model` is asked at: the first that somebody wished. None where it takes none."""
    if not model.takes_temperature:
        return None
    return next((wish for wish in wishes if wish is not None), USUAL)


def kept(session: Session | None) -> Decimal | None:
    return session.temperature if session is not None else None


def to_keep(temperature: Decimal) -> Decimal | None:
    """As a chat keeps it."""
    return None if temperature == USUAL else temperature


def shown(temperature: Decimal) -> str:
    """For people: without zeros that say nothing."""
    return number_format(temperature.normalize())


def read(text: str) -> Decimal | None:
    """What a form says; None for no temperature."""
    try:
        value = Decimal(text[:8])
    except InvalidOperation:
        return None
    if not value.is_finite() or not 0 <= value <= HIGHEST_TEMPERATURE:
        return None
    return value.quantize(PLACES)
