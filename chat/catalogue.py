"""Which models are on offer, and which routes answer for each of them.

Everything but the environment is read from the database each time, so what staff change holds from the next page and the
next message on, in all processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from aleph.prepared import Given, Rows
from aleph.problems import InvalidRequest
from chat import providers
from chat.models import ChatModel, Route
from chat.providers.base import Provider

GATEWAYS = frozenset({"n8n"})
"""Providers without models and prices of their own: they say which of the others they have asked."""
BLIND = frozenset({"n8n", "tgi"})
"""Providers whose protocol has no place for images, and n8n, where a workflow may leave them out and nobody would know."""
ROUTES_OF_SLUG = Rows(lambda: Route.objects.filter(model__slug=Given("slug")).select_related("model"))
ROUTES_OF_MODEL = Rows(lambda: Route.objects.filter(model=Given("model")))
LONGEST_LINE = 20
"""Successors of successors that are followed."""


class UnknownModel(InvalidRequest):
    text = _("There is no such model.")


class ModelRetired(UnknownModel):
    """It was on offer once, and nothing follows it."""

    def __init__(self, model: ChatModel) -> None:
        self.model = model
        super().__init__(_("%(model)s has been retired. Choose another model.") % {"model": model.name})


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be chosen now. `routes` are what can answer, in the staff's order; without any `reason` says why.
    `instead_of`: the retired model that was asked for, and that this one follows."""

    model: ChatModel
    routes: tuple[Route, ...]
    reason: str | Promise = ""
    instead_of: ChatModel | None = None

    @property
    def is_available(self) -> bool:
        return bool(self.routes)

    @property
    def route(self) -> Route | None:
        """What answers where nothing fails."""
        return self.routes[0] if self.routes else None


@cache
def connected() -> dict[str, Provider]:
    """The providers that the environment gives a key or an address for, by name. Read once per process."""
    return providers.configure(settings.PROVIDER_ENV)


def offers() -> list[Offer]:
    """Every model on offer, free ones first, in the staff's order."""
    models = ChatModel.objects.filter(is_offered=True).order_by("-is_free", "position", "name")
    return [
        _offer(model, model.routes.all())
        for model in models.prefetch_related("routes")
        if not model.is_retired
    ]


def offer_of(model: ChatModel) -> Offer:
    """A model as it could be chosen now, whether it is on offer or not."""
    return _offer(model, model.routes.all())


def find(slug: str) -> Offer:
    """The offer of one model, or of what follows it where it is retired. Raises `UnknownModel`, and `ModelRetired` where
    nothing follows; a model that is not connected is known, but not available."""
    if "\x00" in slug:
        raise UnknownModel
    routes = ROUTES_OF_SLUG.all(slug=slug)
    model = routes[0].model if routes else ChatModel.objects.filter(slug=slug).first()
    if model is None:
        raise UnknownModel
    if not model.is_retired:
        if not model.is_offered:
            raise UnknownModel
        return _offer(model, routes)
    heir = _heir(model)
    return _offer(heir, heir.routes.all(), instead_of=model)


def stands_for(slug: str, model: ChatModel) -> bool:
    """Whether somebody who asks for `slug` gets `model`: it is that one, or follows it."""
    if slug == model.slug:
        return True
    asked = ChatModel.objects.filter(slug=slug).first()
    try:
        return asked is not None and asked.is_retired and _heir(asked) == model
    except UnknownModel:
        return False


def free_tier() -> Offer:
    """What people get who choose nothing. Raises `UnknownModel` where nothing free is on offer."""
    free = first_free(offers())
    if free is None:
        raise UnknownModel
    return free


def first_free(offered: Iterable[Offer]) -> Offer | None:
    """The first free offer that is available, else the first free one."""
    free = [offer for offer in offered if offer.model.is_free]
    return next((offer for offer in free if offer.is_available), next(iter(free), None))


def ways_to(model: ChatModel, *, with_images: bool = False) -> list[Route]:
    """The routes that can answer for a model now, in the staff's order; whether it is still on offer or not. Of those
    that see no images none, where there are some to be seen."""
    ready = _ready(ROUTES_OF_MODEL.all(model=model.pk))
    return [route for route in ready if not with_images or route.provider not in BLIND]


def _heir(model: ChatModel) -> ChatModel:
    """What follows a retired model and is on offer. The admin lets no circle in; the count is for what comes past it."""
    following: ChatModel | None = model
    for _step in range(LONGEST_LINE):
        if following is None or not following.is_retired:
            break
        following = following.successor
    if following is None or following.is_retired or not following.is_offered:
        raise ModelRetired(model)
    if model.is_free and not following.is_free:
        raise ModelRetired(model)  # nobody who chose what is free is led to what costs
    return following


def _offer(model: ChatModel, routes: Iterable[Route], *, instead_of: ChatModel | None = None) -> Offer:
    routes = list(routes)
    ready = _ready(routes)
    reason = "" if ready else _reason(model, _in_order(routes))
    return Offer(model, tuple(ready), reason, instead_of)


def _ready(routes: Iterable[Route]) -> list[Route]:
    return [route for route in _in_order(routes) if route.provider in connected() and not route.is_absent]


def _in_order(routes: Iterable[Route]) -> list[Route]:
    enabled = (route for route in routes if route.is_enabled)
    return sorted(enabled, key=lambda route: (route.position, route.pk))


def _reason(model: ChatModel, routes: list[Route]) -> str | Promise:
    """Why none of its routes, of which there may be none, can answer. A gateway is one way among others, and not what
    most shops lack."""
    if not routes:
        return _("No provider is set up for it yet.")
    routes = [route for route in routes if route.provider not in GATEWAYS] or routes
    name = routes[0].provider
    label = providers.LABELS.get(name, model.maker)
    missing = providers.missing(name) if name in providers.LABELS else ()
    if routes[0].is_absent and name in connected():
        return _("%(provider)s does not run at the moment, or has it no more.") % {"provider": label}
    if missing:
        reason = _("%(provider)s is not connected: %(setting)s is not set.")
        return reason % {"provider": label, "setting": missing[0]}
    return _("%(provider)s is not connected yet.") % {"provider": label}
