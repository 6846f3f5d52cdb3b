"""What people are told about their money and their use: an inbox in the page, mail and webhooks, by kind as they want
it. A door of this app.

Whoever changes the state of money calls `tell` in the same transaction, so that there is a notice exactly where there
is a change. Words and mail are `billing.mailing`'s; a mail that cannot be sent never undoes anything.
"""

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import structlog
from celery import current_app
from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet
from django.db.models.functions import Now
from django.utils import timezone

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import NotFound
from billing import hooks
from billing.models import Account, Notice, NoticeWishes, Unit

log = structlog.get_logger(__name__)

Kind = Notice.Kind
PREFIX = "ntc"
PAGE = 25
MANY = 99
"""Unread notices that the bell counts; above it says that there are more."""
GRACE = timedelta(minutes=1)
"""How long a mail is left to its bell before the clock sends it."""
LEASE = timedelta(minutes=5)
"""Longer than sending a mail takes: after this whoever sent it is not there any more, and somebody else does."""
WATCHED = 500
"""Balances that one look finds low or recovered; the others wait for the next look."""


def tell(
    *,
    user: User,
    kind: str,
    key: str,
    amount: int | None = None,
    unit: str = "",
    reference: str = "",
    detail: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Put a notice into the user's inbox, once for each `key` of his, and have it mailed and sent to his webhooks where he
    wants that.

    `amount` is in `unit` (`Unit.IDR` or `Unit.TOKEN`); `reference` is the id of what it is about; `detail` a name or a
    reason, as it was written; `facts` what only its kind has, as JSON takes it. Call it inside the transaction that it tells of.
    """
    wishes = wishes_of(user)
    in_page = kind not in Notice.OPTIONAL or kind not in wishes.without_page
    notice = Notice(
        id=ids.new(PREFIX),
        user=user,
        kind=kind,
        key=key,
        amount=amount,
        unit=unit,
        reference=reference,
        detail=detail[:200],
        facts=dict(facts or {}),
        in_page=in_page,
        read_at=None if in_page else timezone.now(),
        mail=Notice.Mail.UNWANTED if kind in wishes.without_mail else Notice.Mail.DUE,
    )
    # Who tells twice adds nothing, and does not break the transaction that he is in.
    Notice.objects.bulk_create([notice], ignore_conflicts=True)
    if notice.mail == Notice.Mail.DUE:
        transaction.on_commit(lambda: ring(notice.pk), robust=True)
    hooks.queue(notice)


def ring(notice_id: str) -> None:
    """Tell a worker that a mail is due. Losing this is harmless: the clock rings again."""
    try:
        current_app.send_task("billing.tasks.mail_notice", args=[notice_id], queue="house", retry=False)
    except Exception as error:
        log.warning(
            "the bell was not heard; the clock will ring again", notice_id=notice_id, error=str(error)
        )


def inbox(user: User, *, before: str = "") -> list[Notice]:
    """The user's notices from the newest, or from behind the notice `before`; at most one more than a page."""
    found = Notice.objects.filter(user=user, in_page=True)
    if ids.is_one(before, PREFIX):
        found = found.filter(pk__lt=before)
    return list(found.order_by("-pk")[: PAGE + 1])


def unread(user: User) -> int:
    """How many notices were not read, counted to one above `MANY`."""
    return Notice.objects.filter(user=user, read_at=None)[: MANY + 1].count()


def read(user: User, notice_id: str) -> None:
    """Mark one notice as read. Raises `NotFound`, also for those of others."""
    if not ids.is_one(notice_id, PREFIX) or not Notice.objects.filter(user=user, pk=notice_id).exists():
        raise NotFound
    Notice.objects.filter(user=user, pk=notice_id, read_at=None).update(read_at=Now())


def read_all(user: User, *, up_to: str) -> None:
    """Mark everything as read that was there when the page was drawn: `up_to` is its newest notice."""
    if ids.is_one(up_to, PREFIX):
        Notice.objects.filter(user=user, pk__lte=up_to, read_at=None).update(read_at=Now())


def wishes_of(user: User) -> NoticeWishes:
    return NoticeWishes.objects.filter(user=user).first() or NoticeWishes(user=user)


def wish(
    *, user: User, low_below: int | None, without_mail: Collection[str], without_page: Collection[str] = ()
) -> None:
    """Keep what the user wants to be told. Another threshold counts from the balance as it is at the next look."""
    kept = wishes_of(user)
    is_armed = kept.is_armed and kept.low_below == low_below
    NoticeWishes.objects.update_or_create(
        user=user,
        defaults={
            "low_below": low_below,
            "without_mail": sorted(set(without_mail) & set(Kind.values)),
            "without_page": sorted(set(without_page) & set(Notice.OPTIONAL)),
            "is_armed": is_armed,
        },
    )


def watch() -> int:
    """Tell those whose tokens have fallen below what they chose, once, until they have had as much again; how many.

    Counts what is held as still there: most of it comes back when the reply is done.
    """
    _arm()
    below = (
        Account.objects.filter(
            name=Account.TOKENS,
            user__notice_wishes__is_armed=True,
            balance__lt=F("user__notice_wishes__low_below"),
        )
        .select_related("user")
        .order_by("pk")[:WATCHED]
    )
    return sum(_tell_low(account) for account in below)


def _arm() -> None:
    """Note whose balance is above what he chose, so that its fall is news."""
    tokens = Account.objects.filter(name=Account.TOKENS)
    recovered = tokens.filter(user=OuterRef("user"), balance__gte=OuterRef("low_below"))
    NoticeWishes.objects.filter(Exists(recovered), is_armed=False).update(is_armed=True)
    unknown = tokens.filter(
        user__isnull=False, user__notice_wishes=None, balance__gte=NoticeWishes.LOW_BELOW
    ).values_list("user", flat=True)[:WATCHED]
    NoticeWishes.objects.bulk_create(
        [NoticeWishes(user_id=user_id, is_armed=True) for user_id in unknown if user_id],
        ignore_conflicts=True,
    )


def _tell_low(account: Account) -> bool:
    assert account.user is not None
    with transaction.atomic():
        fell = NoticeWishes.objects.filter(user=account.user, is_armed=True).update(is_armed=False)
        if fell:
            tell(
                user=account.user,
                kind=Kind.LOW_BALANCE,
                key=ids.new("low"),
                amount=account.balance,
                unit=Unit.TOKEN,
            )
    return bool(fell)


def due(*, limit: int) -> QuerySet[Notice]:
    """Notices whose mail has waited for longer than `GRACE`, or whose sender has gone, oldest first."""
    since = ids.first(PREFIX, timezone.now() - GRACE)
    return Notice.objects.filter(_free(), pk__lt=since).order_by("pk")[:limit]


def claim_mail(notice_id: str) -> Notice | None:
    """The notice, if its mail is to be sent; for the time of a `LEASE` nobody else sends it."""
    if not Notice.objects.filter(_free(), pk=notice_id).update(
        mail=Notice.Mail.SENDING, mail_tries=F("mail_tries") + 1, mail_until=Now() + LEASE
    ):
        return None
    return Notice.objects.select_related("user").get(pk=notice_id)


def close_mail(notice: Notice, state: str) -> None:
    """What became of a mail that was claimed. A claim whose lease is over says nothing any more."""
    mine = Notice.objects.filter(pk=notice.pk, mail=Notice.Mail.SENDING, mail_tries=notice.mail_tries)
    mine.update(mail=state, mail_until=None)


def _free() -> Q:
    return Q(mail=Notice.Mail.DUE) | Q(mail=Notice.Mail.SENDING, mail_until__lt=Now())
