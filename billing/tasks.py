"""Celery's side of the books: a shell around `billing.rounds`. Harmless when run twice."""

from celery import shared_task

from billing import rounds


@shared_task(name="billing.tasks.audit")
def audit() -> None:
    rounds.run()
