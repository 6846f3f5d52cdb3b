"""Celery's side of the roof: shells, harmless when run twice."""

from celery import shared_task

from aleph import alerts


@shared_task(name="aleph.tasks.tell_of_use")
def tell_of_use() -> None:
    alerts.run()
