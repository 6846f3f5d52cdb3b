"""Celery's side of replies: shells around `chat.replies`. Ids in, nothing out, harmless when run twice."""

from celery import shared_task
from celery.signals import worker_shutting_down

from chat import replies
from chat.keeper import keeper

SHUTDOWN_GRACE_S = 6.0


@shared_task(name="chat.tasks.generate")
def generate(reply_id: str) -> None:
    replies.generate(reply_id)


@shared_task(name="chat.tasks.sweep")
def sweep() -> None:
    replies.sweep()


@worker_shutting_down.connect
def hand_over(**_: object) -> None:
    """A warm shutdown lets replies finish for a moment; then they are handed to other workers or closed."""
    keeper().drain(SHUTDOWN_GRACE_S)
