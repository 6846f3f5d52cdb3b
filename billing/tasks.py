"""Celery's side of the books: shells around `billing.rounds`, `billing.notices`, `billing.mailing`, `billing.refills`,
`billing.topups` and `billing.sandbox`. Harmless when run twice."""

from celery import shared_task

from billing import mailing, notices, refills, rounds, sandbox, topups


@shared_task(name="billing.tasks.audit")
def audit() -> None:
    rounds.run()


@shared_task(name="billing.tasks.mail_notice")
def mail_notice(notice_id: str) -> None:
    mailing.send(notice_id)


@shared_task(name="billing.tasks.watch")
def watch() -> None:
    notices.watch()
    mailing.send_due()


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
