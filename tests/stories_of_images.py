"""What stories about images are told with."""

from django.core.files.uploadedfile import SimpleUploadedFile

from aleph import ids
from aleph.accounts.models import User
from chat import attachments, turns
from chat.models import Attachment, Session
from chat.turns import Turn
from tests import images
from tests.stories_of_chat import special_model


def seeing_model(family: str = "sim", *, script: str = "sim-words-3", **fields: object) -> str:
    """The slug of a simulated model that takes images, and counts them as its family does."""
    slug = f"{family}-{ids.new('see').lower()}"
    return special_model(slug, script=script, takes_images=True, **fields).slug


def upload(data: bytes | None = None, name: str = "kawah.png") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, images.picture() if data is None else data)


def draft_of(person: User, data: bytes | None = None, name: str = "kawah.png") -> Attachment:
    return attachments.add(user=person, upload=upload(data, name))


def show(
    person: User,
    *shown: Attachment,
    model: str,
    session: Session | None = None,
    text: str = "What is this?",
    turn: str = "",
) -> Turn:
    """`person` sends a message with these images."""
    return turns.start(
        user=person,
        session=session,
        text=text,
        model_slug=model,
        turn=turn or ids.new("trn"),
        attachments=[each.pk for each in shown],
    )
