"""What people choose models from: the picker, the tiers on the welcome page, and what to try when a model fails."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

from chat import catalogue, prompts, temperatures, turns
from chat.catalogue import Offer, UnknownModel
from chat.models import ChatModel, Message
from chat.turns import Quote


@dataclass(frozen=True, slots=True)
class Picker:
    """All offers, and the one that the next message goes to; None where nothing is on offer at all. `instead_of`: the
    retired model in the place of which it does. `temperature`: the one that it is asked at."""

    offers: list[Offer]
    chosen: Offer | None
    instead_of: ChatModel | None = None
    temperature: Decimal = temperatures.USUAL

    @property
    def steps(self) -> list[temperatures.Step]:
        return temperatures.steps(self.temperature)

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


def of(slug: str | None, temperature: Decimal | None = None) -> Picker:
    """The picker with `slug` chosen, or what follows it where it is retired; else the free tier. `temperature`: None for
    the usual one."""
    picker = Picker(catalogue.offers(), None)
    chosen = next((offer for offer in picker.offers if offer.model.slug == slug), None)
    retired = None
    if chosen is None and slug:
        retired, chosen = _following(slug, picker.offers)
    asked_at = temperatures.USUAL if temperature is None else temperature
    return Picker(picker.offers, chosen or picker.free_tier, retired, asked_at)


def _following(slug: str, offers: Iterable[Offer]) -> tuple[ChatModel | None, Offer | None]:
    """A model that is retired, and the offer that follows it; None where it is not, and where nothing does."""
    try:
        found = catalogue.find(slug)
    except catalogue.ModelRetired as gone:
        return gone.model, None
    except catalogue.UnknownModel:
        return None, None
    return found.instead_of, next((offer for offer in offers if offer.model == found.model), None)


@dataclass(frozen=True, slots=True)
class Tries:
    """What may be done about a reply that the conversation ends with, each with what it would cost at most: to have its
    rest, and to have another one in its place."""

    go_on: Quote | None
    again: list[Quote]


def tries(reply: Message, offers: Iterable[Offer], *, available: int) -> Tries:
    """The rest of a reply that was cut off, by its own model or what follows it, else by another one. In the place of one
    that did not come about its own model again, and after a failure another one; where it was too much for its own, only
    one that takes more. `available`: the tokens that its reader can spend."""
    ready = [offer for offer in offers if offer.is_available]
    if reply.is_too_long:
        ready = _larger(reply.model, ready)
    own = _own(reply.model, ready)
    instead = instead_of(reply.model, ready)
    other = instead if reply.state == Message.State.FAILED or not own else None
    conversation = prompts.Conversation(reply.session_id, tip=reply.pk)
    quotes = partial(turns.quotes_of_answers, conversation, available=available)
    either = [*own, *([other] if other and other not in own else [])]
    go_on = quotes(reply.pk, either[:1]) if reply.is_cut_off else []
    again = either if reply.state != Message.State.COMPLETE else []
    return Tries(next(iter(go_on), None), quotes(reply.parent_id, again) if again else [])


def _larger(model: ChatModel | None, offers: Iterable[Offer]) -> list[Offer]:
    """Those whose window is larger than that of `model`."""
    least = model.context_tokens if model else 0
    return [offer for offer in offers if offer.model.context_tokens > least]


def _own(model: ChatModel | None, ready: list[Offer]) -> list[Offer]:
    """The offer of a model, or of what follows it where it is retired; nothing where neither can answer."""
    own = [offer for offer in ready if offer.model == model]
    if own or model is None:
        return own
    with suppress(UnknownModel):
        heir = catalogue.find(model.slug).model
        return [offer for offer in ready if offer.model == heir]
    return []


def others(reply: Message, offers: Iterable[Offer], *, available: int) -> list[Quote]:
    """What another reply in the place of this one would cost at most: by its own model first, then by any other."""
    ready = sorted(
        (offer for offer in offers if offer.is_available), key=lambda offer: offer.model != reply.model
    )
    conversation = prompts.Conversation(reply.session_id, tip=reply.parent_id)
    return turns.quotes_of_answers(conversation, reply.parent_id, ready, available=available)


def instead_of(model: ChatModel | None, offers: Iterable[Offer]) -> Offer | None:
    """The offer to try where `model` fails: one that costs like it (free or not), else a free one. Never one that costs
    in place of one that does not."""
    others = [offer for offer in offers if offer.model != model]
    alike = [offer for offer in others if model is not None and offer.model.is_free == model.is_free]
    free = [offer for offer in others if offer.model.is_free]
    return next(iter(alike or free), None)
