"""What a model is sent for a reply: the system's words, as much of the conversation as fits, and its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from django.db.models import QuerySet

from aleph.prepared import Given, Rows
from chat import attachments, branches, image_tokens
from chat.models import Attachment, ChatModel, Message
from usage import calibration, estimate

SYSTEM = "You are Aleph, a helpful assistant. Answer in the language of the question. Write Markdown; formulas in LaTeX."
HISTORY = 200
"""Messages of a conversation that are read at most; older ones are beyond any useful context."""

MOST_IMAGES = 10
MOST_IMAGE_BYTES = 12 * 1024 * 1024
"""Of a conversation the newest images are sent, as many as every provider takes in one request."""
UNSEEN = "[There was an image here that you cannot see.]"


class Spoken(NamedTuple):
    """Who (`system`, `user`, `assistant`), what, and the images with it."""

    role: str
    content: str
    images: tuple[Attachment, ...] = ()


GO_ON = Spoken(
    "user",
    "Your last message was cut off. Go on exactly where it ends, in the same language and format, as if it had never been"
    " interrupted. Repeat nothing, announce nothing, and begin with a space or a line break if one belongs there.",
)
"""How a reply that was cut off is asked for its rest: not every provider takes the beginning of an answer."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The messages to send, the LLM tokens that they are estimated at (`likely`) and reserved for (`at_most`), and what
    there is to learn from their count (`lesson`)."""

    messages: tuple[Spoken, ...]
    likely: int
    at_most: int
    lesson: calibration.Lesson

    @property
    def texts(self) -> tuple[tuple[str, str], ...]:
        return tuple((role, content) for role, content, _images in self.messages)

    @property
    def images(self) -> dict[int, tuple[Attachment, ...]]:
        """By the place of their message."""
        return {at: spoken.images for at, spoken in enumerate(self.messages) if spoken.images}


class DoesNotFit(Exception):
    """Not even the last message fits into the model's context."""


def draft(model: ChatModel, conversation: Sequence[Spoken]) -> Draft:
    """The newest messages that fit beside a full-length reply; a reply that is to go on is among them. Raises `DoesNotFit`."""
    measure = calibration.measure_of(model.slug)
    room = model.context_tokens - model.max_output_tokens
    system = Spoken("system", SYSTEM)
    conversation = seen_by(model, conversation)
    texts = [estimate.sizes(content) for _role, content, _images in conversation]
    shown = [
        sum(image_tokens.of(model.slug, width=image.width, height=image.height) for image in images)
        for _role, _content, images in conversation
    ]
    sizes = [
        measure.likely(text) + estimate.PER_MESSAGE + looked_at
        for text, looked_at in zip(texts, shown, strict=True)
    ]
    own = estimate.sizes(SYSTEM)
    used, first = measure.likely(own) + estimate.format_tokens(1), len(conversation)
    while first > 0 and used + sizes[first - 1] <= room:
        first -= 1
        used += sizes[first]
    if conversation and len(conversation) - first < (2 if is_continuation(conversation) else 1):
        raise DoesNotFit
    whole = estimate.together([own, *texts[first:]])
    messages = len(conversation) - first + 1
    looked_at = sum(shown[first:])
    return Draft(
        messages=(system, *conversation[first:]),
        likely=measure.likely(whole) + estimate.format_tokens(messages) + looked_at,
        at_most=measure.at_most(whole) + estimate.format_at_most(messages) + _reserved(looked_at),
        # Of a count that images are part of, nobody knows what was for the words.
        lesson=calibration.Lesson(model.slug, {} if looked_at else whole, messages),
    )


def _ending_in(place: branches.Place, *more: str) -> QuerySet[Message]:
    columns = ("id", "parent_id", "role", "content", "state", "session_id", "image_count", *more)
    found = Message.objects.select_related("model") if more else Message.objects.all()
    return branches.rows(place, limit=HISTORY, found=found.only(*columns))


EXACT = branches.exactly(Given("session"), Given("tip"))
NEWEST = Rows(lambda: _ending_in(branches.newest(Given("session"))))
EXACTLY = Rows(lambda: _ending_in(EXACT))
EXACTLY_WITH_MODELS = Rows(
    lambda: _ending_in(
        EXACT,
        "model__slug",
        "model__name",
        "model__context_tokens",
        "model__max_output_tokens",
        "model__takes_temperature",
        "model__takes_images",
    )
)


def _reserved(tokens: int) -> int:
    """Three tenths more than the providers' rules say, rounded up."""
    return -(-tokens * 13 // 10)


def seen_by(model: ChatModel, conversation: Sequence[Spoken]) -> list[Spoken]:
    """The conversation with the images that `model` looks at: the newest, none where it takes none. In the place of the
    others it is told that there was one."""
    count = room = 0
    seen: list[Spoken] = []
    for role, content, images in reversed(conversation):
        kept = []
        for image in images:
            count, room = count + 1, room + image.size_bytes
            if model.takes_images and count <= MOST_IMAGES and room <= MOST_IMAGE_BYTES:
                kept.append(image)
        unseen = [UNSEEN] * (len(images) - len(kept))
        words = [content] if content or not unseen else []
        seen.append(Spoken(role, "\n".join([*unseen, *words]), tuple(kept)))
    return seen[::-1]


def is_continuation(conversation: Sequence[Spoken]) -> bool:
    """Whether the last message asks for no more than the rest of the reply before it."""
    return len(conversation) > 1 and conversation[-1] == GO_ON


class Conversation:
    """The end of one branch of a session, read in one query: of the newest, or of that which ends in the message `tip`
    (`branches.FIRST`: of none), then on demand `with_models` that wrote the replies."""

    def __init__(self, session_id: str | None, *, tip: str | None = None, with_models: bool = False) -> None:
        branch = branches.Branch([], None)
        if session_id is not None:
            read = NEWEST if tip is None else EXACTLY_WITH_MODELS if with_models else EXACTLY
            branch = branches.of(read.all(session=session_id, tip=tip), limit=HISTORY)
        self.messages = branch.messages
        self.tip = branch.tip
        self.images = attachments.of(branch.messages)
        self.writing = branch.writing
        """The open reply of the session, on this branch or another."""

    def upto(self, last: str | None) -> list[Spoken]:
        """What was said on this branch as far as the message `last`, oldest first. Replies that wrote nothing are left
        out, and replies that go on with one another are one."""
        spoken: list[Spoken] = []
        for message in self.messages if last else ():
            if message.content and message.is_reply and spoken and spoken[-1][0] == message.role:
                spoken[-1] = Spoken(message.role, spoken[-1].content + message.content)
            elif message.content or message.image_count:
                spoken.append(Spoken(message.role, message.content, self.images.get(message.pk, ())))
            if message.pk == last:
                break
        return spoken

    def asking(self, last: str | None) -> list[Spoken]:
        """What is sent for an answer to the message `last`; where that is a reply, it is asked to go on."""
        spoken = self.upto(last)
        return [*spoken, GO_ON] if spoken and spoken[-1].role == Message.Role.ASSISTANT else spoken


def cost(model: ChatModel | Message, *, input_tokens: int, output_tokens: int) -> int:
    """Aleph tokens for these LLM tokens, by the rates of a model or those pinned on a reply. Rounds up, at least 1;
    0 where both rates are 0."""
    if not model.input_rate and not model.output_rate:
        return 0
    thousandths = input_tokens * model.input_rate + output_tokens * model.output_rate
    return max(1, -(-thousandths // 1000))


def affordable_output(model: ChatModel, *, tokens: int, input_tokens: int) -> int:
    """The LLM tokens of output that `tokens` Aleph tokens pay for, after the input. Rounds down."""
    return max(0, (tokens * 1000 - input_tokens * model.input_rate) // model.output_rate)


def estimated_output(model: ChatModel, text: str) -> int:
    """LLM tokens of a text that `model` wrote, where the provider did not count them."""
    return calibration.measure_of(model.slug).likely(estimate.sizes(text))
