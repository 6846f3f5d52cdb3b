"""Celery's side of usage: shells, harmless when run twice."""

from celery import shared_task

from usage import calibration, partitions, recosting, retention, rollups, unusual


@shared_task(name="usage.tasks.add_up")
def add_up() -> None:
    rollups.run()


@shared_task(name="usage.tasks.learn")
def learn() -> None:
    calibration.learn()


@shared_task(name="usage.tasks.correct_costs")
def correct_costs() -> None:
    recosting.run()


@shared_task(name="usage.tasks.look_for_unusual_use")
def look_for_unusual_use() -> None:
    unusual.look()


@shared_task(name="usage.tasks.keep_months")
def keep_months() -> None:
    partitions.prepare()
    retention.clean_up()
