"""Emptying the queue of webhooks: claim a message, sign it as Standard Webhooks says, send it, note what came of it.

A message may arrive twice, where whoever sent it died before he could note that; it has the same id then.
"""

import base64
import hmac
import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from time import monotonic

import structlog
from django.db import connection, transaction
from django.db.models import F
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from aleph import outbound
from billing import hooks, notices
from billing.models import Notice, WebhookAttempt, WebhookDelivery, WebhookEndpoint

log = structlog.get_logger(__name__)

State = WebhookDelivery.State
THREADS = 12
EACH = 2
"""Messages that are sent to endpoints of one person at once, so that slow ones of his hold up nobody."""
ROUND_S = 20.0
JITTER = 0.2
LONGEST_WAIT_S = 24 * 3600
DISABLED_AFTER = timedelta(days=3)
"""An endpoint that has failed for this long is turned off with the next message that is given up."""
GONE = 410
_round = threading.Lock()


def run() -> None:
    """Send what is due, for about `ROUND_S` seconds. One round at a time in a process: it has other work."""
    if not _round.acquire(blocking=False):
        return
    try:
        until = monotonic() + ROUND_S
        with ThreadPoolExecutor(THREADS, thread_name_prefix="webhook") as threads:
            while monotonic() < until and (due := _due()):
                list(threads.map(_in_thread, due))
    finally:
        _round.release()


def send(delivery_id: str) -> None:
    """Send a message if it is due. Harmless when run twice, also at once."""
    claimed = _claim(delivery_id)
    if claimed is None:
        return
    delivery, attempt = claimed
    if not connection.in_atomic_block:
        connection.close()  # others can use it while a stranger is waited for
    began = monotonic()
    answer, problem = None, ""
    try:
        body = delivery.body.encode()
        headers = {"Content-Type": "application/json", "User-Agent": "Aleph-Webhooks/1"}
        answer = outbound.post(delivery.endpoint.url, body=body, headers=headers | signed(delivery, body))
    except outbound.NotDelivered as error:
        problem = error.code
    attempt.took_ms = round((monotonic() - began) * 1000)
    attempt.problem = problem
    if answer is not None:
        attempt.status, attempt.excerpt = answer.status, _excerpt(answer.body)
    _close(delivery, attempt, answer)


def _in_thread(delivery_id: str) -> None:
    try:
        send(delivery_id)
    except Exception:
        # Such as a secret whose key is gone. It is looked at again later, and does not hold up the others.
        log.exception("a webhook could not be sent", delivery_id=delivery_id)
        waiting = WebhookDelivery.objects.filter(pk=delivery_id, state=State.DUE)
        waiting.update(due_at=timezone.now() + 4 * hooks.LEASE)
    finally:
        connection.close()


def signed(delivery: WebhookDelivery, body: bytes) -> dict[str, str]:
    """The headers of Standard Webhooks: one signature for each secret that holds."""
    endpoint, now = delivery.endpoint, timezone.now()
    secrets = [endpoint.secret]
    if endpoint.previous_until and endpoint.previous_until > now:
        secrets.append(endpoint.previous_secret)
    timestamp = str(int(now.timestamp()))
    content = f"{delivery.message_id}.{timestamp}.".encode() + body
    return {
        "webhook-id": delivery.message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{_signature(secret, content)}" for secret in secrets),
    }


def _signature(secret: str, content: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.digest(key, content, "sha256")).decode()


def _due() -> list[str]:
    """What is sent next, the longest due first, a few of each person's."""
    rows = WebhookDelivery.objects.filter(state=State.DUE, due_at__lte=timezone.now()).order_by("due_at")
    chosen: list[str] = []
    by_person: Counter[int] = Counter()
    for delivery_id, user_id in rows.values_list("pk", "endpoint__user_id")[: THREADS * 20]:
        by_person[user_id] += 1
        if by_person[user_id] <= EACH and len(chosen) < THREADS:
            chosen.append(delivery_id)
    return chosen


def _claim(delivery_id: str) -> tuple[WebhookDelivery, WebhookAttempt] | None:
    now = timezone.now()
    with transaction.atomic():
        due = WebhookDelivery.objects.filter(pk=delivery_id, state=State.DUE, due_at__lte=now)
        if not due.update(due_at=now + hooks.LEASE, attempts=F("attempts") + 1):
            return None
        delivery = WebhookDelivery.objects.select_related("endpoint__user").get(pk=delivery_id)
        return delivery, WebhookAttempt.objects.create(
            delivery=delivery, number=delivery.attempts, started_at=now
        )


def _close(delivery: WebhookDelivery, attempt: WebhookAttempt, answer: outbound.Answer | None) -> None:
    endpoint = WebhookEndpoint.objects.filter(pk=delivery.endpoint_id)
    # What is still this attempt's; somebody else may have taken it on, or its owner may have turned the endpoint off.
    mine = WebhookDelivery.objects.filter(pk=delivery.pk, attempts=attempt.number, state=State.DUE)
    with transaction.atomic():
        # The owner may have removed the endpoint with all its log.
        if not WebhookAttempt.objects.filter(pk=attempt.pk).update(
            took_ms=attempt.took_ms,
            status=attempt.status,
            problem=attempt.problem,
            excerpt=attempt.excerpt,
        ):
            return
        if answer is not None and 200 <= answer.status < 300:
            mine.update(state=State.DONE)
            endpoint.update(failing_since=None)
            return
        endpoint.update(failing_since=Coalesce("failing_since", Now()))
        is_gone = answer is not None and answer.status == GONE
        if delivery.retries_left and not is_gone:
            mine.update(retries_left=F("retries_left") - 1, due_at=timezone.now() + _wait(delivery, answer))
            return
        mine.update(state=State.FAILED)
        if delivery.kind != hooks.TEST:
            _turn_off_if_dead(delivery, is_gone=is_gone)
    log.info(
        "a webhook was given up",
        user_id=delivery.endpoint.user_id,
        delivery_id=delivery.pk,
        status=attempt.status,
        problem=attempt.problem,
    )


def _turn_off_if_dead(delivery: WebhookDelivery, *, is_gone: bool) -> None:
    dead = WebhookEndpoint.objects.filter(pk=delivery.endpoint_id, is_on=True)
    if not is_gone:
        dead = dead.filter(failing_since__lte=timezone.now() - DISABLED_AFTER)
    if dead.update(is_on=False):
        hooks.give_up(delivery.endpoint)
        notices.tell(
            user=delivery.endpoint.user,
            kind=Notice.Kind.WEBHOOK,
            key=f"{delivery.pk}:{delivery.attempts}",
            reference=delivery.endpoint_id,
            detail=delivery.endpoint.host,
        )


def _wait(delivery: WebhookDelivery, answer: outbound.Answer | None) -> timedelta:
    wait: float = hooks.DELAYS_S[len(hooks.DELAYS_S) - delivery.retries_left]
    wait *= random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    asked = answer.retry_after_s if answer is not None and answer.retry_after_s else 0
    return timedelta(seconds=max(wait, min(asked, LONGEST_WAIT_S)))


def _excerpt(body: bytes) -> str:
    """The beginning of an answer as a line of text; PostgreSQL takes no NUL, and nobody sees the other controls."""
    text = body[:2000].decode(errors="replace")
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())[:500]
