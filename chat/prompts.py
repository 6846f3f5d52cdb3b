"""What a model is sent for a reply: the system's words, as much of the conversation as fits, and its size."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from chat import branches
from chat.models import ChatModel, Message
from usage import estimate

SYSTEM = "You are Aleph, a helpful assistant. Answer in the language of the question. Write Markdown; formulas in LaTeX."
HISTORY = 200
"""Messages of a conversation that are read at most; older ones are beyond any useful context."""

Spoken = tuple[str, str]
"""Who (`system`, `user`, `assistant`) and what."""

GO_ON: Spoken = (
    "user",
    "Your last message was cut off. Go on exactly where it ends, in the same language and format, as if it had never been"
    " interrupted. Repeat nothing, announce nothing, and begin with a space or a line break if one belongs there.",
)
"""How a reply that was cut off is asked for its rest: not every provider takes the beginning of an answer."""


@dataclass(frozen=True, slots=True)
class Draft:
    """The messages to send, and the LLM tokens that they are estimated at (`likely`) and reserved for (`at_most`)."""

    messages: tuple[Spoken, ...]
    likely: int
    at_most: int


class DoesNotFit(Exception):
    """Not even the last message fits into the model's context."""


def draft(model: ChatModel, conversation: Sequence[Spoken]) -> Draft:
    """The newest messages that fit beside a full-length reply; a reply that is to go on is among them. Raises `DoesNotFit`."""
    factor = estimate.factor_of(estimate.family_of(model.slug))
    room = model.context_tokens - model.max_output_tokens
    system: Spoken = ("system", SYSTEM)
    sizes = [estimate.prompt_tokens([spoken], factor=factor) for spoken in conversation]
    used, first = estimate.prompt_tokens([system], factor=factor), len(conversation)
    while first > 0 and used + sizes[first - 1] <= room:
        first -= 1
        used += sizes[first]
    if conversation and len(conversation) - first < (2 if is_continuation(conversation) else 1):
        raise DoesNotFit
    at_most = int((used * estimate.RESERVE).to_integral_value(rounding=ROUND_CEILING))
    return Draft((system, *conversation[first:]), used, at_most)


def is_continuation(conversation: Sequence[Spoken]) -> bool:
    """Whether the last message asks for no more than the rest of the reply before it."""
    return len(conversation) > 1 and conversation[-1] == GO_ON


class Conversation:
    """The end of one branch of a session, read in one query: of the newest, or of that which ends in the message `tip`
    (`branches.FIRST`: of none); on demand `with_models` that wrote the replies."""

    COLUMNS = ("id", "parent_id", "role", "content", "state", "session_id")
    COLUMNS_OF_MODEL = (
        "model__slug",
        "model__context_tokens",
        "model__max_output_tokens",
        "model__takes_temperature",
    )

    def __init__(self, session_id: str | None, *, tip: str | None = None, with_models: bool = False) -> None:
        branch = branches.Branch([], None)
        if session_id is not None:
            found = Message.objects.only(*self.COLUMNS)
            if with_models:
                found = found.select_related("model").only(*self.COLUMNS, *self.COLUMNS_OF_MODEL)
            place = branches.newest(session_id) if tip is None else branches.exactly(session_id, tip)
            branch = branches.ending_in(place, limit=HISTORY, found=found)
        self.messages = branch.messages
        self.tip = branch.tip
        self.writing = branch.writing
        """The open reply of the session, on this branch or another."""

    def upto(self, last: str | None) -> list[Spoken]:
        """What was said on this branch as far as the message `last`, oldest first. Replies that wrote nothing are left
        out, and replies that go on with one another are one."""
        spoken: list[Spoken] = []
        for message in self.messages if last else ():
            if message.content and message.is_reply and spoken and spoken[-1][0] == message.role:
                spoken[-1] = (message.role, spoken[-1][1] + message.content)
            elif message.content:
                spoken.append((message.role, message.content))
            if message.pk == last:
                break
        return spoken

    def asking(self, last: str | None) -> list[Spoken]:
        """What is sent for an answer to the message `last`; where that is a reply, it is asked to go on."""
        spoken = self.upto(last)
        return [*spoken, GO_ON] if spoken and spoken[-1][0] == Message.Role.ASSISTANT else spoken


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
