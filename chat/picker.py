"""What people choose models from: the picker, the tiers on the welcome page, and what to try when a model fails."""

from dataclasses import dataclass

from chat import catalogue
from chat.catalogue import Offer
from chat.models import ChatModel


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


def instead_of(model: ChatModel | None) -> ChatModel | None:
    """An available model to try where `model` fails: one that costs like it (free or not), else a free one. Never one
    that costs in place of one that does not: beside the button no price is said."""
    others = [offer.model for offer in catalogue.offers() if offer.is_available]
    others = [other for other in others if model is None or other.pk != model.pk]
    alike = [other for other in others if model is not None and other.is_free == model.is_free]
    free = [other for other in others if other.is_free]
    return next(iter(alike or free), None)
