"""What a model is sent for a reply: the system's words, as much of the conversation as fits, and its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from chat.models import ChatModel, Message
from usage import estimate

SYSTEM = "You are Aleph, a helpful assistant. Answer in the language of the question. Write Markdown; formulas in LaTeX."
HISTORY = 200
"""Messages of a conversation that are read at most; older ones are beyond any useful context."""

Spoken = tuple[str, str]
"""Who (`system`, `user`, `assistant`) and what."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The messages to send, and the LLM tokens that they are estimated at (`likely`) and reserved for (`at_most`)."""

    messages: tuple[Spoken, ...]
    likely: int
    at_most: int


class DoesNotFit(Exception):
    """Not even the last message fits into the model's context."""


def draft(model: ChatModel, conversation: Sequence[Spoken]) -> Draft:
    """The newest messages that fit beside a full-length reply. Raises `DoesNotFit`."""
    factor = estimate.factor_of(estimate.family_of(model.slug))
    room = model.context_tokens - model.max_output_tokens
    system: Spoken = ("system", SYSTEM)
    sizes = [estimate.prompt_tokens([spoken], factor=factor) for spoken in conversation]
    used, first = estimate.prompt_tokens([system], factor=factor), len(conversation)
    while first > 0 and used + sizes[first - 1] <= room:
        first -= 1
        used += sizes[first]
    if first == len(conversation) and conversation:
        raise DoesNotFit
    at_most = int((used * estimate.RESERVE).to_integral_value(rounding=ROUND_CEILING))
    return Draft((system, *conversation[first:]), used, at_most)


class Conversation:
    """The newest messages of a session, or the newest up to the message `until`, read in one query; on demand `with_models`
    that wrote the replies among them."""

    COLUMNS = ("id", "parent_id", "role", "content", "state", "session_id")
    COLUMNS_OF_MODEL = (
        "model__slug",
        "model__name",
        "model__context_tokens",
        "model__max_output_tokens",
        "model__takes_temperature",
    )

    def __init__(
        self, session_id: str | None, *, until: str | None = None, with_models: bool = False
    ) -> None:
        newest: list[Message] = []
        if session_id is not None:
            found = Message.objects.filter(session=session_id).order_by("-id").only(*self.COLUMNS)
            if until is not None:
                found = found.filter(id__lte=until)
            if with_models:
                found = found.select_related("model").only(*self.COLUMNS, *self.COLUMNS_OF_MODEL)
            newest = list(found[:HISTORY])
        self.known = {message.pk: message for message in newest}
        self.tip = next((message for message in newest if message.is_reply), None)
        """The newest reply: where the conversation goes on."""

    def path_to(self, tip_id: str | None) -> list[Spoken]:
        """What was said on the branch that ends in `tip_id`, oldest first. Replies that wrote nothing are left out."""
        path: list[Message] = []
        while tip_id in self.known:
            path.append(self.known[tip_id])
            tip_id = self.known[tip_id].parent_id
        return [(message.role, message.content) for message in reversed(path) if message.content]


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
    factor: Decimal = estimate.factor_of(estimate.family_of(model.slug))
    return int((estimate.tokens(text) * factor).to_integral_value(rounding=ROUND_CEILING))
