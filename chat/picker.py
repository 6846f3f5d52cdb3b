"""What people choose models from: the picker, the tiers on the welcome page, and what to try when a model fails."""

from collections.abc import Iterable
from dataclasses import dataclass

from chat import catalogue, turns
from chat.catalogue import Offer
from chat.models import ChatModel, Message
from chat.turns import Quote


@dataclass(frozen=True, slots=True)
class Picker:
    """All offers, and the one that the next message goes to; None where nothing is on offer at all."""

    offers: list[Offer]
    chosen: Offer | None

    @property
    def free(self) -> list[Offer]:
        return [offer for offer in self.offers if offer.model.is_free]

    @property
    def premium(self) -> list[Offer]:
        return [offer for offer in self.offers if not offer.model.is_free]

    @property
    def free_tier(self) -> Offer | None:
        return catalogue.first_free(self.offers)

    @property
    def lowest_rate(self) -> int:
        return min(min(offer.model.input_rate, offer.model.output_rate) for offer in self.premium)

    @property
    def highest_rate(self) -> int:
        return max(max(offer.model.input_rate, offer.model.output_rate) for offer in self.premium)


def of(slug: str | None) -> Picker:
    """The picker with `slug` chosen; without one, or with one that is not offered any more, the free tier."""
    picker = Picker(catalogue.offers(), None)
    chosen = next((offer for offer in picker.offers if offer.model.slug == slug), None)
    return Picker(picker.offers, chosen or picker.free_tier)


def tries(reply: Message, offers: Iterable[Offer], *, available: int) -> list[Quote]:
    """What of the offers may be tried in the place of a reply that did not come about: its own model again, and after a
    failure another one, each with what it would cost at most. `available`: the tokens that its reader can spend."""
    ready = [offer for offer in offers if offer.is_available]
    again = [offer for offer in ready if offer.model == reply.model]
    other = instead_of(reply.model, ready) if reply.state == Message.State.FAILED else None
    return turns.quotes_of_retry(reply, [*again, *([other] if other else [])], available=available)


def instead_of(model: ChatModel | None, offers: Iterable[Offer]) -> Offer | None:
    """The offer to try where `model` fails: one that costs like it (free or not), else a free one. Never one that costs
    in place of one that does not."""
    others = [offer for offer in offers if offer.model != model]
    alike = [offer for offer in others if model is not None and offer.model.is_free == model.is_free]
    free = [offer for offer in others if offer.model.is_free]
    return next(iter(alike or free), None)
