"""The models of a local Ollama: found by themselves, offered free, withdrawn while it is gone.

`look` is called by the clock (`chat.tasks`), when a worker starts, and by staff; never while a page is drawn, which reads
what was written down the last time. It touches nothing but what it made: staff may rename, move or withdraw these
models, and no row is ever deleted.
"""

import hashlib
import re

import structlog
from django.db import IntegrityError, transaction
from django.utils.translation import gettext_noop

from chat import catalogue
from chat.models import ChatModel, Route
from chat.providers import ollama
from chat.providers.base import ProviderError

log = structlog.get_logger(__name__)

PROVIDER = ollama.SPEC.name
LONGEST_REPLY = 2048
LEAST_CONTEXT = 1024
BEFORE_THE_DEMO = 1
"""The position of what was found: who has a model that thinks gets it before Aleph Demo."""


def look() -> int:
    """Ask the local server what it has, and write it down. The number of ways to its models that can be used now; 0 where
    it does not answer."""
    names = _installed()
    ours = Route.objects.filter(provider=PROVIDER)
    known = {pk: _tagged(name) for pk, name in ours.values_list("pk", "upstream_model")}
    present = [pk for pk, name in known.items() if name in names]
    found = ours.filter(pk__in=present, is_absent=True).update(is_absent=False)
    gone = ours.exclude(pk__in=present).filter(is_absent=False).update(is_absent=True)
    for name in sorted(names.difference(known.values())):
        found += _offer(name)
    if found or gone:
        log.info("the local models have changed", found=found, gone=gone)
    return ours.filter(is_absent=False).count()


def _installed() -> set[str]:
    server = _server()
    if server is None:
        return set()
    try:
        return {_tagged(name) for name in server.installed()}
    except ProviderError as problem:
        if problem.kind != "unreachable":  # that is the usual case: there is none
            log.warning("the local server does not say what it has", kind=problem.kind, detail=problem.detail)
        return set()


def _server() -> ollama.Ollama | None:
    server = catalogue.connected().get(PROVIDER)
    return server if isinstance(server, ollama.Ollama) else None


def _offer(name: str) -> bool:
    """Put a model that nobody has seen before on offer. False if it is none that one can talk with."""
    server = _server()
    assert server is not None
    try:
        described = server.describe(name)
    except ProviderError as problem:
        log.warning("a local model could not be looked at", model=name, kind=problem.kind)
        return False
    context_tokens = min(server.num_ctx, described.context_tokens or server.num_ctx)
    if not described.can_chat or context_tokens < LEAST_CONTEXT:
        return False
    try:
        with transaction.atomic():
            model, _ = ChatModel.objects.get_or_create(
                slug=_slug(name),
                defaults={
                    "name": name.removesuffix(":latest")[:80],
                    "maker": "Ollama",
                    "is_free": True,
                    "context_tokens": context_tokens,
                    "max_output_tokens": min(LONGEST_REPLY, context_tokens // 2),
                    "takes_images": described.takes_images,
                    "note": gettext_noop("Runs on our own machine, with Ollama."),
                    "position": BEFORE_THE_DEMO,
                },
            )
            Route.objects.get_or_create(model=model, provider=PROVIDER, upstream_model=name)
    except IntegrityError:  # another process has just found it, too
        return False
    return True


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _slug(name: str) -> str:
    """An id that is the name's alone: what an id cannot hold is told apart by a few digits of a hash."""
    short = name.removesuffix(":latest")
    plain = re.sub(r"[^a-z0-9._:-]", "-", short.lower())
    if plain != short or len(plain) > 50:
        plain = f"{plain[:44]}-{hashlib.sha256(short.encode()).hexdigest()[:6]}"
    return f"ollama-{plain}"
