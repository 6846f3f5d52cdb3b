"""Images that people attach: taking them in, showing them to their owner, making them part of a message, throwing them away.

A draft belongs to its owner alone and expires; sent, it belongs to its chat. Every query starts from the owner. The files
are in the storage "attachments"; nobody reads or writes there while a transaction is open.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import timedelta
from uuid import uuid4

import structlog
from django.conf import settings
from django.core.files.base import ContentFile
from django.core.files.storage import storages
from django.core.files.uploadedfile import UploadedFile
from django.db import transaction
from django.db.models import Q, QuerySet, Sum
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import InvalidRequest, NotFound, Problem
from chat import pictures
from chat.models import Attached, Attachment, Message, Session

log = structlog.get_logger(__name__)

MOST = 4
"""Images of one message."""
DRAFT_LIVES = timedelta(hours=24)
GRACE = timedelta(minutes=5)
"""Between what nobody sees any more and its end, so that whoever is just sending it is done."""
BATCH = 500


class NothingUploaded(InvalidRequest):
    text = _("There is no image in this request.")


class TooManyImages(InvalidRequest):
    def __init__(self) -> None:
        text = ngettext(
            "A message takes at most %(count)d image.", "A message takes at most %(count)d images.", MOST
        )
        super().__init__(text % {"count": MOST}, data={"limit": MOST})


class ImageGone(Problem):
    """Not the chat is missing, but something that was to go into it."""

    code = "NOT_FOUND"
    status = 404
    text = _("One of the images is not there any more. Take it out, or attach it again.")


class NoMoreRoom(InvalidRequest):
    text = _(
        "Your images take up all the room that you have. Delete chats with images that you no longer need."
    )


def add(*, user: User, upload: UploadedFile | None) -> Attachment:
    """Take in an image as a draft of the user's. Raises `NothingUploaded`, `NoMoreRoom`, and as `pictures.rewritten`."""
    if upload is None:
        raise NothingUploaded
    if (upload.size or 0) > pictures.MOST_BYTES:
        raise pictures.ImageTooLarge
    picture = pictures.rewritten(upload.read())
    attachment = Attachment(
        id=ids.new("att"),
        user=user,
        path=_random_path(),
        name=_name(upload.name or ""),
        media_type=picture.media_type,
        width=picture.width,
        height=picture.height,
        size_bytes=len(picture.data),
        hash=salted_hmac("chat.attachments", picture.data, algorithm="sha256").hexdigest(),
        expires_at=timezone.now() + DRAFT_LIVES,
    )
    with transaction.atomic():
        # One at a time for each user, so that many at once do not take more room than there is.
        User.objects.select_for_update().filter(pk=user.pk).first()
        taken = _seen(user).aggregate(sum=Sum("size_bytes"))["sum"] or 0
        if taken + attachment.size_bytes > settings.MAX_ATTACHED_MB * 1024 * 1024:
            raise NoMoreRoom
        attachment.save(force_insert=True)
    # The row is first: a file that nobody knows of would stay for ever.
    try:
        storages["attachments"].save(attachment.path, ContentFile(picture.data))
    except Exception:
        _expire(Attachment.objects.filter(pk=attachment.pk))
        raise
    return attachment


def get(user: User, attachment_id: str) -> Attachment:
    """Raises `NotFound`, for what belongs to others and what has expired, too."""
    return _own(user, [attachment_id])[0]


def read(attachment: Attachment) -> bytes:
    """The bytes of its file. Raises what its storage raises where it is not to be had."""
    with storages["attachments"].open(attachment.path) as file:
        return bytes(file.read())


def drafts(user: User, attachment_ids: Iterable[str]) -> list[Attachment]:
    """Those of these that are drafts of the user's still, in their order."""
    wanted = [given for given in attachment_ids if ids.is_one(given, "att")][: 2 * MOST]
    found = _seen(user).filter(session=None).in_bulk(wanted)
    return [found[given] for given in wanted if given in found]


def remove(user: User, attachment_id: str) -> None:
    """Throw away a draft. Harmless where it is none any more."""
    _expire(Attachment.objects.filter(user=user, pk__in=[attachment_id], session=None))


def to_send(user: User, attachment_ids: Sequence[str], session: Session | None) -> tuple[Attachment, ...]:
    """What a message in `session` (None: in a new one) is to show: drafts, and what the chat shows already. Raises
    `TooManyImages`, and `ImageGone` for everything else."""
    wanted = list(dict.fromkeys(attachment_ids))
    if len(wanted) > MOST:
        raise TooManyImages
    try:
        found = _own(user, wanted)
    except NotFound as error:
        raise ImageGone from error
    if any(each.session_id not in (None, session.pk if session else None) for each in found):
        raise ImageGone
    return tuple(found)


def attach(message: Message, attachments: Sequence[Attachment]) -> None:
    """Make images part of a message that was just written, in its transaction. Raises `ImageGone` where one has been sent
    elsewhere, or has expired, meanwhile."""
    if not attachments:
        return
    fresh = [each.pk for each in attachments if each.session_id is None]
    claimed = _seen(message.user).filter(pk__in=fresh, session=None)
    if claimed.update(session=message.session, expires_at=None) != len(fresh):
        raise ImageGone
    Attached.objects.bulk_create(
        Attached(message=message, attachment=each, position=at) for at, each in enumerate(attachments)
    )


def of(messages: Iterable[Message]) -> dict[str, tuple[Attachment, ...]]:
    """The images of those of the messages that have any, by the id of the message. Asks only where there are some."""
    with_images = [message.pk for message in messages if message.image_count]
    shown: dict[str, list[Attachment]] = defaultdict(list)
    if with_images:
        links = Attached.objects.filter(message__in=with_images, attachment__expires_at=None)
        for link in links.select_related("attachment").order_by("message", "position"):
            shown[link.message_id].append(link.attachment)
    return {pk: tuple(images) for pk, images in shown.items()}


def leave(session: Session) -> None:
    """What a chat that is being deleted showed is seen by nobody from now on. In the transaction of the deletion."""
    _expire(Attachment.objects.filter(session=session))


def sweep() -> None:
    """Delete what has expired, file first. Any number of sweeps may run at once; one that dies is gone on with."""
    over = Q(expires_at__lt=timezone.now() - GRACE) | Q(user=None) | Q(session=None, expires_at=None)
    _delete(Attachment.objects.filter(over).order_by("expires_at")[:BATCH])


def forget(user: User) -> None:
    """Delete all images of the user at once. What its storage does not delete is left to the sweeps."""
    _expire(Attachment.objects.filter(user=user))
    _delete(Attachment.objects.filter(user=user))


def _delete(attachments: QuerySet[Attachment]) -> None:
    for attachment in attachments:
        try:
            storages["attachments"].delete(attachment.path)
        except Exception:  # each storage has errors of its own; the next sweep tries again
            log.exception("a file could not be deleted", attachment_id=attachment.pk)
            continue
        attachment.delete()


def _seen(user: User) -> QuerySet[Attachment]:
    return Attachment.objects.filter(
        Q(expires_at=None, session__isnull=False) | Q(expires_at__gt=timezone.now()), user=user
    )


def _own(user: User, attachment_ids: Sequence[str]) -> list[Attachment]:
    if not all(ids.is_one(given, "att") for given in attachment_ids):
        raise NotFound
    found = _seen(user).in_bulk(attachment_ids) if attachment_ids else {}
    if len(found) != len(attachment_ids):
        raise NotFound
    return [found[given] for given in attachment_ids]


def _expire(attachments: QuerySet[Attachment]) -> None:
    attachments.update(expires_at=timezone.now())


def _random_path() -> str:
    """Says nothing of whose it is, what it shows or what it is called."""
    name = uuid4().hex
    return f"{name[:2]}/{name[2:]}"


def _name(given: str) -> str:
    """What people called it, to tell it by; never a path to anything."""
    last = given.replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(char for char in last if char.isprintable()).strip()[:80]
