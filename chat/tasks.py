"""Celery's side of chats: shells around `chat.replies` and `chat.attachments`. Ids in, nothing out, harmless when run twice."""

import threading

import structlog
from celery import shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.conf import settings
from django.db import connection

from chat import attachments, local_models, refusals, replies, stream
from chat.keeper import keeper
from chat.providers.base import Kind

log = structlog.get_logger(__name__)


@shared_task(name="chat.tasks.generate")
def generate(reply_id: str) -> None:
    replies.generate(reply_id)


@shared_task(name="chat.tasks.sweep")
def sweep() -> None:
    replies.sweep()
    stream.note_sweep()


@shared_task(name="chat.tasks.sweep_attachments")
def sweep_attachments() -> None:
    attachments.sweep()


@shared_task(name="chat.tasks.look_for_local_models")
def look_for_local_models() -> None:
    local_models.look()


@shared_task(name="chat.tasks.tell_of_refusal")
def tell_of_refusal(route: str, kind: Kind) -> None:
    refusals.tell(route, kind)


@worker_ready.connect
def sweep_at_once(**_: object) -> None:
    """Who starts has often died a moment ago, and the clock or the house with him: nobody waits for them to look."""
    threading.Thread(target=_first_sweep, name="first sweep", daemon=True).start()


def _first_sweep() -> None:
    try:
        sweep()
        local_models.look()
    except Exception:
        log.warning("the first sweep failed; the clock rings for the next", exc_info=True)
    finally:
        connection.close()


@worker_shutting_down.connect
def hand_over(**_: object) -> None:
    """A warm shutdown lets replies finish for a while; then they are handed to other workers or closed."""
    keeper().drain(settings.SHUTDOWN_GRACE_SECONDS)
