"""Answers that somebody got before, for the same request: found here, and never anybody else's (ADR 0023).

Only for those who asked for it (`User.reuses_replies`), at temperature 0, and only whole answers that ended by themselves: so
it does not matter how long each of the two was allowed to be. What was asked is kept as a hash under the secret of the
server: whoever has a copy of the database cannot try words on it.
"""

import json
from datetime import timedelta
from decimal import Decimal

from django.utils import timezone
from django.utils.crypto import salted_hmac

from aleph.accounts.models import User
from chat import temperatures
from chat.models import ChatModel, Message
from chat.prompts import Draft

KEPT = timedelta(days=30)
"""How old an answer may be."""


def request_hash(user: User, model: ChatModel, draft: Draft, temperature: Decimal | None) -> str | None:
    """What stands for everything that is sent for a reply; None where its answer is not to be used again."""
    if temperature != temperatures.EXACT or not user.reuses_replies:
        return None
    spoken = [
        (role, content, [image.hash or image.pk for image in images])
        for role, content, images in draft.messages
    ]
    asked = json.dumps([user.pk, model.slug, str(temperatures.TOP_P), spoken])
    return salted_hmac("chat.reuse", asked, algorithm="sha256").hexdigest()


def earlier(user: User, request: str | None) -> Message | None:
    """The newest answer that the user got to this request and has not deleted; None where there is none."""
    if request is None:
        return None
    answers = Message.objects.filter(
        user=user,
        request_hash=request,
        state=Message.State.COMPLETE,
        finish_reason="stop",
        reused_from="",
        created_at__gte=timezone.now() - KEPT,
    )
    return answers.exclude(content="").order_by("-pk").first()
