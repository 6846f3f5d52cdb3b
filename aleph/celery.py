"""The Celery application: worker processes that call providers, a small one for housekeeping, and the clock (beat)."""

import os

from celery import Celery
from celery.signals import worker_ready

from aleph import collector

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "aleph.settings")

app = Celery("aleph")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()


@worker_ready.connect
def settle_memory(**_: object) -> None:
    collector.settle()
