"""Celery's side of the roof: shells, harmless when run twice."""

from celery import shared_task

from aleph import alerts, erasure, exports, recharging


@shared_task(name="aleph.tasks.tell_of_use")
def tell_of_use() -> None:
    alerts.run()


@shared_task(name="aleph.tasks.give_back")
def give_back() -> None:
    recharging.run()


@shared_task(name="aleph.tasks.export")
def export(export_id: str) -> None:
    exports.make(export_id)


@shared_task(name="aleph.tasks.erase")
def erase(subject: str) -> None:
    erasure.finish(subject)


@shared_task(name="aleph.tasks.sweep_personal")
def sweep_personal() -> None:
    exports.sweep()
    erasure.sweep()
