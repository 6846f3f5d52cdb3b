"""Erasing a person: he is gone at once, what he said within moments, and the books keep a number.

`begin` is one transaction: nobody can sign in any more, programs are refused, and the name is taken off. A worker does the
rest, and may be killed at any point of it. Money records stay, as accounts must (Art. 17(3)(b) GDPR); who the number was is
kept sealed in `Erasure` until its time is over.
"""

import json
from datetime import timedelta

import structlog
from celery import current_app
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType
from django.db import transaction
from django.utils import timezone

from aleph import exports, ids, personal
from aleph.accounts.models import ApiKey, Erasure, User

log = structlog.get_logger(__name__)

BATCH = 20
YEAR = timedelta(days=365.25)


def begin(user: User, *, subject: str = "") -> Erasure:
    """Close the account and take the person off it. Harmless when repeated."""
    with transaction.atomic():
        person = User.objects.select_for_update().get(pk=user.pk)
        known = Erasure.objects.filter(user=person).first()
        if known is not None:
            return known
        now = timezone.now()
        erasure = Erasure.objects.create(
            subject=subject or ids.new("sub"),
            user=person,
            identity=json.dumps({"email": person.email, "name": person.name}, ensure_ascii=False),
            erased_at=now,
            keep_until=now + YEAR * settings.IDENTITY_KEPT_YEARS,
        )
        person.email = f"{erasure.subject}@erased.invalid".lower()
        person.name, person.language, person.time_zone = "", "", settings.TIME_ZONE
        person.is_active = person.is_staff = person.is_superuser = False
        person.last_login = None
        person.set_unusable_password()
        person.save()
        person.groups.clear()
        person.user_permissions.clear()
        ApiKey.objects.filter(user=person).delete()
        _table("email_addresses").of(person).delete()
        transaction.on_commit(lambda: ring(erasure.subject), robust=True)
    log.info("a person was erased", user_id=user.pk, subject=erasure.subject)
    return erasure


def ring(subject: str) -> None:
    """Tell a worker. Losing this is harmless: the sweep goes on with it."""
    try:
        current_app.send_task("aleph.tasks.erase", args=[subject], queue="house", retry=False)
    except Exception as error:
        log.warning("the bell was not heard; the sweep will erase", subject=subject, error=str(error))


def finish(subject: str) -> None:
    """Delete what can go. Harmless when repeated."""
    erasure = Erasure.objects.select_related("user").filter(subject=subject, done_at=None).first()
    if erasure is None:
        return
    person = erasure.user
    for module in personal.modules():
        if hasattr(module, "erase"):
            module.erase(person)
    exports.forget(person)
    for kept in personal.tables():
        if kept.erased == "deleted":
            kept.of(person).delete()
        elif kept.blanked:
            kept.of(person).update(**kept.blanked)
    # The administration's log calls people by their addresses.
    LogEntry.objects.filter(
        content_type=ContentType.objects.get_for_model(User), object_id=str(person.pk)
    ).update(object_repr=erasure.subject)
    Erasure.objects.filter(pk=subject).update(done_at=timezone.now())


def sweep() -> None:
    """Go on with what was begun, and forget who it was where the time is over."""
    for subject in Erasure.objects.filter(done_at=None).values_list("pk", flat=True)[:BATCH]:
        try:
            finish(subject)
        except Exception:
            log.exception("an erasure is not done yet", subject=subject)
    Erasure.objects.filter(keep_until__lt=timezone.now()).exclude(identity="").update(identity="")


def _table(name: str) -> personal.Kept:
    return next(kept for kept in personal.tables() if kept.name == name)
