"""Telling the staff of a provider that refuses us for a reason which no second call mends: a key, an empty account, an id that
is not known there any more. By mail to `STAFF_EMAIL`, once in a while for each route and reason, and never while somebody
waits for a reply."""

from datetime import timedelta

import structlog
from celery import current_app
from django.conf import settings
from django.core.cache import cache
from django.core.mail import mail_admins
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from chat.providers.base import Kind

log = structlog.get_logger(__name__)

NEEDS_STAFF: dict[Kind, Promise] = {
    "auth": gettext_lazy("our key is refused"),
    "credit": gettext_lazy("our account is empty"),
    "not_found": gettext_lazy("the id of the model is not known"),
}
TELL_AGAIN = timedelta(hours=12)


def ring(route: str, kind: Kind) -> None:
    """Have the house tell the staff. Where that is lost the next failure rings again."""
    try:
        current_app.send_task("chat.tasks.tell_of_refusal", args=[route, kind], retry=False)
    except Exception as error:
        log.warning("the staff were not rung for", route=route, kind=kind, error=str(error))


def tell(route: str, kind: Kind) -> None:
    """Mail the staff that `route` fails, unless they were told so of late."""
    told = f"refusal:{route}:{kind}"
    if not cache.add(told, True, timeout=int(TELL_AGAIN.total_seconds())):
        return
    with translation.override(settings.LANGUAGE_CODE):
        subject = _("A route fails: %(route)s, %(why)s") % {"route": route, "why": NEEDS_STAFF[kind]}
        body = _(
            "Replies go by the next route of their model, where it has one. Without another they fail, and cost nothing.\n\n"
            "What to do then stands in docs/operations.md, under “Models and routes”."
        )
    try:
        mail_admins(subject, body)
    except Exception:
        cache.delete(told)
        raise
