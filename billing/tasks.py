"""Celery's side of the books: shells around `billing.rounds`, `billing.notices`, `billing.mailing`,
`billing.delivering`, `billing.hooks`, `billing.refills`, `billing.topups` and `billing.sandbox`. Harmless when run twice."""

import structlog
from celery import shared_task
from django.db import OperationalError

from billing import delivering, hooks, mailing, notices, refills, rounds, sandbox, topups

log = structlog.get_logger(__name__)


@shared_task(name="billing.tasks.audit")
def audit() -> None:
    rounds.run()


@shared_task(name="billing.tasks.mail_notice")
def mail_notice(notice_id: str) -> None:
    try:
        mailing.send(notice_id)
    except OperationalError as error:
        # SQLite has one writer, who may be busy for longer than anybody waits for him.
        log.warning("the database was busy; the clock mails it", notice_id=notice_id, error=str(error))


@shared_task(name="billing.tasks.watch")
def watch() -> None:
    notices.watch()
    mailing.send_due()


@shared_task(name="billing.tasks.deliver")
def deliver() -> None:
    delivering.run()


@shared_task(name="billing.tasks.clean_webhooks")
def clean_webhooks() -> None:
    hooks.clean()


@shared_task(name="billing.tasks.refill")
def refill(user_id: int) -> None:
    refills.run(user_id)


@shared_task(name="billing.tasks.refills")
def sweep_refills() -> None:
    refills.sweep()


@shared_task(name="billing.tasks.handle_event")
def handle_event(event_id: str) -> None:
    topups.handle(event_id)


@shared_task(name="billing.tasks.sweep_topups")
def sweep_topups() -> None:
    topups.sweep()


@shared_task(name="billing.tasks.tell_of_sandbox")
def tell_of_sandbox(reference: str, event: str, times: int) -> None:
    sandbox.tell(reference, event, times=times)
