"""What billing and chat tell the usage pages (`usage.neighbours`)."""

from collections.abc import Collection

from aleph.accounts.models import User
from aleph.problems import NotFound
from billing.ledger import balance_of
from chat import prompts, replies, sessions, stream
from chat.models import Message, Session
from usage.neighbours import Prompt, Writing

__all__ = ["balance_of", "being_written", "prompt_of", "titles"]


def being_written(user: User) -> list[Writing]:
    found = Message.objects.filter(user=user, state__in=Message.OPEN).select_related("model").order_by("pk")
    return [_writing(reply) for reply in found]


def titles(user: User, session_ids: Collection[str]) -> dict[str, str]:
    return dict(Session.objects.filter(user=user, pk__in=session_ids).values_list("pk", "title"))


def prompt_of(user: User, operation_id: str) -> Prompt | None:
    try:
        reply = sessions.reply(user, operation_id)
    except NotFound:
        return None
    spoken = prompts.Conversation(reply.session_id, tip=reply.parent_id).asking(reply.parent_id)
    if reply.model is None or not spoken:
        return None
    try:
        whole = prompts.draft(reply.model, spoken)
        alone = prompts.draft(reply.model, spoken[-1:])
    except prompts.DoesNotFit:
        return None
    earlier = max(0, whole.likely - alone.likely)
    # Without the system's words.
    return Prompt(
        reply.session_id, reply.session.title, len(whole.messages) - 1, 100 * earlier // max(1, whole.likely)
    )


def _writing(reply: Message) -> Writing:
    text = max(reply.content, stream.text(reply.pk, reply.epoch), key=len)
    is_asked = reply.state == Message.State.STREAMING
    return Writing(
        name=reply.model.name if reply.model else "",
        provider=reply.provider if is_asked else "",
        model=reply.answered_by if is_asked else "",
        input_tokens=reply.estimated_input_tokens if is_asked else 0,
        output_tokens=replies.written_so_far(reply, text),
    )
