"""What chats keep about a person: all that was said, and the images."""

from collections.abc import Iterator

from aleph.accounts.models import User
from aleph.personal import Kept
from chat import attachments, sessions
from chat.models import Attached, Attachment, Message, Session

TABLES = [
    Kept("chats", Session, erased="deleted"),
    Kept(
        "messages",
        Message,
        by=("session__user",),
        without=frozenset({"request_hash"}),
        erased="deleted",
    ),
    Kept("images", Attachment, without=frozenset({"path", "hash"}), erased="deleted"),
    Kept("images_of_messages", Attached, by=("attachment__user",), erased="deleted"),
]


def files(user: User) -> Iterator[tuple[str, bytes]]:
    """The images, by what they are called in an export."""
    for image in Attachment.objects.filter(user=user).order_by("pk").iterator():
        yield f"{image.pk}.{image.media_type.rpartition('/')[2]}", attachments.read(image)


def erase(user: User) -> None:
    """End replies that are being written, without a charge beyond what was shown, and delete all chats and images."""
    for session in Session.objects.filter(user=user).order_by("pk"):
        sessions.delete(session)
    attachments.forget(user)
