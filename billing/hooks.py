"""Webhooks that people are told their notices by: their addresses, what is queued for them, and the log of it.

Messages are those of Standard Webhooks (docs/webhooks.md). A message is queued in the transaction of its notice; the row
is the queue, and `billing.delivering` empties it.
"""

import base64
import json
import secrets
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any

import structlog
from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from aleph import ids, outbound, sealed
from aleph.accounts.models import User
from aleph.problems import Conflict, InvalidRequest, NotFound
from billing.models import Notice, WebhookDelivery, WebhookEndpoint

log = structlog.get_logger(__name__)

Kind = Notice.Kind
EVENTS: dict[str, str] = {
    Kind.LOW_BALANCE: "balance.low",
    Kind.BUDGET: "budget.reached",
    Kind.UNUSUAL: "usage.unusual",
    Kind.TOPUP: "topup.paid",
    Kind.TOPUP_FAILED: "topup.failed",
    Kind.PURCHASE: "purchase.made",
    Kind.REFUND: "refund.made",
    Kind.ADJUSTMENT: "balance.adjusted",
    Kind.REFILL: "refill.paused",
}
"""What each kind is called on the wire. That a webhook was turned off is not told by webhook."""
TEST = "webhook.test"

PREFIX, DELIVERY, MESSAGE = "whe", "whd", "tst"
MOST = 5
"""Endpoints that one person may have."""
PAGE = 20
LEASE = timedelta(seconds=90)
"""For how long a message belongs to whoever has claimed it; longer than looking up a name and sending can take."""
DELAYS_S = (5, 5 * 60, 30 * 60, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600)
"""How long is waited after each failure, more or less; after the last one it is given up, in about 32 hours."""
BOTH_SECRETS = timedelta(hours=24)
"""How long the secret before the current one goes on signing."""
KEPT = timedelta(days=30)
"""How long the log is kept."""


class InvalidAddress(InvalidRequest):
    text = _("Enter an https:// address that can be reached from the internet.")


class TooMany(Conflict):
    text = _("You have as many webhooks as there may be. Remove one that you do not use.")


def endpoints_of(user: User) -> list[WebhookEndpoint]:
    return list(_without_secrets(user).order_by("pk"))


def get(user: User, endpoint_id: str) -> WebhookEndpoint:
    """Raises `NotFound`, also for those of others."""
    if ids.is_one(endpoint_id, PREFIX):
        endpoint = _without_secrets(user).filter(pk=endpoint_id).first()
        if endpoint is not None:
            return endpoint
    raise NotFound


def add(user: User, *, url: str, kinds: Collection[str]) -> WebhookEndpoint:
    """Raises `InvalidAddress`, `TooMany`. Its secret is for its owner to see now, and never again."""
    try:
        outbound.check(url)
    except outbound.NotDelivered:
        raise InvalidAddress from None
    with transaction.atomic():
        # One at a time of one person's, so that two tabs do not make one too many.
        User.objects.select_for_update().get(pk=user.pk)
        if WebhookEndpoint.objects.filter(user=user).count() >= MOST:
            raise TooMany
        return WebhookEndpoint.objects.create(
            id=ids.new(PREFIX), user=user, url=url, kinds=_known(kinds), secret=_fresh_secret()
        )


def choose(user: User, endpoint_id: str, *, kinds: Collection[str], is_on: bool) -> WebhookEndpoint:
    """Change what an endpoint is told. One that is turned on begins anew, one that is turned off is sent nothing more."""
    endpoint = get(user, endpoint_id)
    if is_on and not endpoint.is_on:
        endpoint.failing_since = None
    elif endpoint.is_on and not is_on:
        give_up(endpoint)
    endpoint.kinds, endpoint.is_on = _known(kinds), is_on
    endpoint.save(update_fields=["kinds", "is_on", "failing_since"])
    return endpoint


def rotate(user: User, endpoint_id: str) -> WebhookEndpoint:
    """Give it another secret; both sign for `BOTH_SECRETS`."""
    endpoint = get(user, endpoint_id)
    try:
        endpoint.previous_secret = endpoint.secret
    except sealed.Unreadable:
        endpoint.previous_secret = ""  # its key is lost, and another secret is the way out
    endpoint.secret = _fresh_secret()
    endpoint.previous_until = timezone.now() + BOTH_SECRETS
    endpoint.save(update_fields=["previous_secret", "secret", "previous_until"])
    return endpoint


def remove(user: User, endpoint_id: str) -> None:
    get(user, endpoint_id).delete()


def queue(notice: Notice) -> None:
    """Queue a notice for those of its reader's endpoints that want its kind. Called in the transaction that wrote it."""
    event = EVENTS.get(notice.kind)
    wanted = _without_secrets(notice.user).filter(is_on=True) if event else ()
    endpoints = [endpoint for endpoint in wanted if notice.kind in endpoint.kinds]
    # Of two who tell the same, only one has written it.
    if not endpoints or not Notice.objects.filter(pk=notice.pk).exists():
        return
    data = {
        "amount": notice.amount,
        "unit": notice.unit,
        "reference": notice.reference,
        "detail": notice.detail,
        **notice.facts,
    }
    body = _body(event or "", notice.created_at.isoformat(), data)
    WebhookDelivery.objects.bulk_create(
        [_delivery(endpoint, notice.pk, event or "", body) for endpoint in endpoints]
    )
    transaction.on_commit(ring, robust=True)


def test(user: User, endpoint_id: str) -> None:
    """Send an example, once."""
    body = _body(TEST, timezone.now().isoformat(), {"message": "This is a test of your webhook."})
    delivery = _delivery(get(user, endpoint_id), ids.new(MESSAGE), TEST, body)
    delivery.retries_left = 0
    delivery.save(force_insert=True)
    transaction.on_commit(ring, robust=True)


def resend(user: User, endpoint_id: str, delivery_id: str) -> None:
    """Send a message of the log again, once; the same message, so that who has had it knows it again."""
    endpoint = get(user, endpoint_id)
    if not ids.is_one(delivery_id, DELIVERY):
        raise NotFound
    mine = WebhookDelivery.objects.filter(endpoint=endpoint, pk=delivery_id)
    if not mine.exists():
        raise NotFound
    now, due = timezone.now(), WebhookDelivery.State.DUE
    mine.exclude(state=due).update(state=due, due_at=now, retries_left=0)
    # One that waits for its next try; one that is under way stays with whoever has it.
    mine.filter(state=due, due_at__gt=now + LEASE).update(due_at=now)
    transaction.on_commit(ring, robust=True)


def deliveries(user: User, endpoint_id: str, *, before: str = "") -> Sequence[WebhookDelivery]:
    """The log of an endpoint from its newest message, or from behind the message `before`, each with its attempts; at most
    one more than a page."""
    found = WebhookDelivery.objects.filter(endpoint=get(user, endpoint_id))
    if ids.is_one(before, DELIVERY):
        found = found.filter(pk__lt=before)
    return list(found.order_by("-pk").prefetch_related("log")[: PAGE + 1])


def give_up(endpoint: WebhookEndpoint) -> None:
    """Whatever waits for this endpoint is not sent any more, unless somebody asks for it."""
    endpoint.deliveries.filter(state=WebhookDelivery.State.DUE).update(state=WebhookDelivery.State.FAILED)


def clean() -> None:
    """Forget messages of long ago, and secrets that do not sign any more; some at a time."""
    old = WebhookDelivery.objects.filter(created_at__lt=timezone.now() - KEPT).order_by("created_at")
    WebhookDelivery.objects.filter(pk__in=[*old.values_list("pk", flat=True)[:500]]).delete()
    outdated = WebhookEndpoint.objects.filter(previous_until__lt=timezone.now())
    outdated.update(previous_secret="", previous_until=None)


def ring() -> None:
    """Tell a worker that something is due. Losing this is harmless: the clock rings again."""
    try:
        current_app.send_task("billing.tasks.deliver", queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the clock will ring again", error=str(error))


def _without_secrets(user: User) -> QuerySet[WebhookEndpoint]:
    """The endpoints of somebody; a secret is decrypted only where it is needed, so that one that cannot be stands in nobody's
    way."""
    return WebhookEndpoint.objects.filter(user=user).defer("secret", "previous_secret")


def _delivery(endpoint: WebhookEndpoint, message_id: str, event: str, body: str) -> WebhookDelivery:
    return WebhookDelivery(
        id=ids.new(DELIVERY),
        endpoint=endpoint,
        message_id=message_id,
        kind=event,
        body=body,
        retries_left=len(DELAYS_S),
    )


def _body(event: str, timestamp: str, data: dict[str, Any]) -> str:
    page = f"{settings.PUBLIC_URL}{reverse('billing:notices')}"
    said = {"type": event, "timestamp": timestamp, "data": {**data, "page": page}}
    return json.dumps(said, separators=(",", ":"))


def _known(kinds: Collection[str]) -> list[str]:
    return [kind for kind in EVENTS if kind in kinds]


def _fresh_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
