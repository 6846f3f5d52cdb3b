"""Who really wrote a reply: the model and the provider, as far as they are not what its name says. Reads no database."""

import re
from dataclasses import dataclass

from chat import providers
from chat.models import Message

NOT_IN_IDS = re.compile(r"[^a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Source:
    """`model`: the provider's id of it, `provider`: his name, `behind`: whom he asked in turn, as a router does; each "" where
    it is the one that people expect."""

    model: str
    provider: str
    behind: str


def of(reply: Message) -> Source:
    model, answered = reply.model, _short(reply.answered_by)
    provider = provider_name(reply.provider)
    if model is None:
        return Source(answered, provider, reply.served_by)
    is_known = any(_is_version(_spelled(answered), _spelled(name)) for name in (model.slug, model.name))
    is_maker = provider == model.maker or provider.startswith(f"{model.maker} ")
    return Source("" if is_known else answered, "" if is_maker else provider, reply.served_by)


def provider_name(name: str) -> str:
    """A provider as people know him."""
    return providers.LABELS.get(name, name)


def _is_version(answered: str, asked: str) -> bool:
    """Makers answer with a dated name (gpt-4o-2024-08-06), and people leave out what goes without saying."""
    return answered == asked or answered.startswith(f"{asked}-") or asked.endswith(f"-{answered}")


def _short(model: str) -> str:
    """An id without the organisation that owns it."""
    return model.rpartition("/")[2]


def _spelled(name: str) -> str:
    return NOT_IN_IDS.sub("-", name.lower()).strip("-")
