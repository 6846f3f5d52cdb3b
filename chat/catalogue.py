"""Which models are on offer, and which route answers for each of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from aleph.problems import InvalidRequest
from chat import providers
from chat.models import ChatModel, Route
from chat.providers.base import Provider


class UnknownModel(InvalidRequest):
    text = _("There is no such model.")


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it can be chosen now. `route` is what answers; without one `reason` says why."""

    model: ChatModel
    route: Route | None
    reason: str | Promise

    @property
    def is_available(self) -> bool:
        return self.route is not None


@cache
def connected() -> dict[str, Provider]:
    """The providers that the environment gives a key or an address for, by name. Read once per process."""
    return providers.configure(settings.PROVIDER_ENV)


def offers() -> list[Offer]:
    """Every model on offer, free ones first, in the staff's order."""
    models = ChatModel.objects.filter(is_offered=True).order_by("-is_free", "position", "name")
    return [_offer(model, model.routes.all()) for model in models.prefetch_related("routes")]


def find(slug: str) -> Offer:
    """The offer of one model. Raises `UnknownModel`; a model that is not connected is known, but not available."""
    if "\x00" in slug:
        raise UnknownModel
    routes = list(Route.objects.filter(model__slug=slug, model__is_offered=True).select_related("model"))
    if routes:
        return _offer(routes[0].model, routes)
    model = ChatModel.objects.filter(slug=slug, is_offered=True).first()
    if model is None:
        raise UnknownModel
    return _offer(model, [])


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


def _offer(model: ChatModel, routes: Iterable[Route]) -> Offer:
    ready = connected()
    known = sorted(
        (route for route in routes if route.is_enabled), key=lambda route: (route.position, route.pk)
    )
    for route in known:
        if route.provider in ready:
            return Offer(model, route, "")
    if not known:
        return Offer(model, None, _("No provider is set up for it yet."))
    name = known[0].provider
    label = providers.LABELS.get(name, model.maker)
    missing = providers.missing(name) if name in providers.LABELS else ()
    if missing:
        reason = _("%(provider)s is not connected: %(setting)s is not set.")
        return Offer(model, None, reason % {"provider": label, "setting": missing[0]})
    return Offer(model, None, _("%(provider)s is not connected yet.") % {"provider": label})
