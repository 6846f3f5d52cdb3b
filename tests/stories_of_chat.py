"""What stories about chats are told with: models that a simulator answers, turns, and workers that can be looked at."""

import json
import threading
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

from django.conf import settings
from django.db import connection, connections, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext

from aleph import ids
from aleph.accounts.models import User
from billing import audit, ledger
from billing.models import Transfer
from chat import replies, stream, turns
from chat.keeper import LEASE
from chat.models import ChatModel, Message, Session
from chat.turns import Turn
from tests.product import simulated_model
from usage.models import TokenUsage


def ask(
    person: User,
    text: str = "Tell me a story",
    *,
    script: str = "sim-words-5",
    rate: int = 100,
    session: Session | None = None,
    turn: str = "",
) -> Turn:
    """`person` sends `text` to a model that is answered as `script` says; nobody has begun to answer yet."""
    slug = simulated_model(script, rate=rate)
    return turns.start(user=person, session=session, text=text, model_slug=slug, turn=turn or ids.new("trn"))


def answered(turn: Turn) -> Message:
    """The reply, after a worker in this thread has written it."""
    replies.generate(turn.reply.pk)
    return fresh(turn.reply)


def told(
    person: User, text: str = "Tell me a story", *, script: str = "sim-words-5", rate: int = 100
) -> Message:
    """`person` asks, and the reply is written."""
    return answered(ask(person, text, script=script, rate=rate))


def orphaned(person: User, **how: Any) -> Message:
    """A reply whose worker has died just now: nobody writes it, and its lease still lasts."""
    with transaction.atomic():
        reply = ask(person, **how).reply
        Message.objects.filter(pk=reply.pk).update(
            state=Message.State.STREAMING, epoch=1, attempts=1, started_at=Now(), lease_until=Now() + LEASE
        )
    return fresh(reply)


@contextmanager
def worker(turn: Turn) -> Iterator[threading.Thread]:
    """A worker that writes the reply in a thread of its own; it has ended when the block is left."""

    def work() -> None:
        try:
            replies.generate(turn.reply.pk)
        finally:
            connections.close_all()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
        assert not thread.is_alive(), "the worker still writes"


def fresh(reply: Message) -> Message:
    return Message.objects.select_related("session", "model", "parent", "user").get(pk=reply.pk)


def available(person: User) -> int:
    return ledger.balance_of(person).available


def held(person: User) -> int:
    return ledger.balance_of(person).held


def ending_of(reply: Message) -> str:
    """How the hold of a reply ended: post, void, expire, or "open"; "" where nothing was held."""
    if not reply.hold_id:
        return ""
    resolution = Transfer.objects.filter(pending=reply.hold_id).first()
    return resolution.phase if resolution else "open"


def calls_of(reply: Message) -> list[TokenUsage]:
    return list(TokenUsage.objects.filter(operation_id=reply.pk).order_by("attempt"))


def special_model(slug: str, *, script: str = "sim-words-5", **fields: object) -> ChatModel:
    """A simulated model with figures of its own."""
    model = ChatModel.objects.get(slug=simulated_model(script))
    route = model.routes.get()
    model.pk, route.pk = None, None
    model.slug = slug
    for name, value in fields.items():
        setattr(model, name, value)
    model.save(force_insert=True)
    route.model = model
    route.save(force_insert=True)
    return model


def assert_books_are_right() -> None:
    assert list(audit.check()) == []


@contextmanager
def statements() -> Iterator[list[str]]:
    """The statements that this thread sends to the database in the block, those that begin and end a transaction
    included."""
    sent: list[str] = []
    ledger.house("consumed")  # asked for once in the life of a process
    with CaptureQueriesContext(connection) as captured:
        yield sent
    sent += [query["sql"] or "(unknown)" for query in captured]


def at_most(number: int) -> int:
    """A limit of statements on this database: SQLite takes two for a move in the ledger where PostgreSQL takes one."""
    return number + (connection.vendor == "sqlite")


def until(condition: Callable[[], object], *, within_s: float = 30) -> float:
    """Wait until `condition` holds; the seconds that it took. A test that waits in vain fails."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "waited in vain"
        time.sleep(0.01)
    return time.monotonic() - began


def bells_for(reply: Message) -> int:
    """How often workers were told of a reply and have not heard it yet."""
    waiting = cast(list[bytes], stream.client().lrange(f"{settings.REDIS_PREFIX}replies", 0, -1))
    return sum(reply.pk in str(b64decode(json.loads(message)["body"])) for message in waiting)
