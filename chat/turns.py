"""A turn: somebody says something, and a reply to it is admitted, held for and queued. One transaction.

The queued row is the queue; Celery is only rung. A turn carries an id that the composer was drawn with, so a double
click, a second tab and a repeated request are one turn.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from django.db import IntegrityError, OperationalError, transaction
from django.db.models.functions import Now
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from aleph import ids
from aleph.accounts.models import User
from aleph.failpoints import reach
from aleph.prepared import insert
from aleph.problems import Conflict, IdempotencyMismatch, InvalidRequest, NotFound, Problem
from billing import ledger
from chat import attachments as attached
from chat import branches, catalogue, prompts, replies, reuse, sessions, temperatures
from chat.catalogue import Offer
from chat.models import Attachment, ChatModel, Message, Session
from usage import budgets

MAX_TEXT = 100_000
"""Characters of one message. More than any model of the catalogue makes good use of."""
USEFUL_OUTPUT = 64
"""LLM tokens of output below which a reply is not worth starting (X1)."""
PARAGRAPH, PAGE = 100, 500
"""LLM tokens of a short reply and of a long one; most are between."""
TITLE = 60
CEILING = "@"
"""Stands between the price and the most that a message may cost, in the terms that a page has shown."""


class EmptyText(InvalidRequest):
    text = _("There is nothing to send yet.")


class TextTooLong(InvalidRequest):
    text = _("This message is too long for the model. Shorten it, or choose a model with a larger context.")


class ModelUnavailable(Problem):
    code = "AI_SERVICE_UNAVAILABLE"
    status = 503
    text = _("The AI service is not available at the moment. Please try again later.")


class ImagesNotTaken(InvalidRequest):
    code = "IMAGES_NOT_TAKEN"
    text = _("This model takes no images. Choose one that does, or leave the images out.")


class TemperatureNotTaken(InvalidRequest):
    code = "TEMPERATURE_NOT_TAKEN"
    text = _("This model takes no temperature. Choose one that does, or send none.")


class ModelBusy(ModelUnavailable):
    """A provider that says, or is known to be, too busy for `seconds`."""

    def __init__(self, seconds: int, data: dict[str, Any]) -> None:
        text = ngettext(
            "The AI service is busy. Please try again in %(count)s second.",
            "The AI service is busy. Please try again in %(count)s seconds.",
            seconds,
        )
        super().__init__(text % {"count": seconds}, data=data, retry_after_s=seconds)


class PriceChanged(Conflict):
    text = _("The price of this model has just changed. Look at what it can cost now, and try again.")


class ModelFollowed(PriceChanged):
    """What was shown was the price of a model that is retired by now; another one answers in its place."""

    def __init__(self, retired: ChatModel, model: ChatModel) -> None:
        text = _(
            "%(retired)s has been retired, and %(model)s answers in its place."
            " Look at what it can cost now, and try again."
        )
        super().__init__(text % {"retired": retired.name, "model": model.name})


class CostsMore(Conflict):
    text = _("This can cost more than you agreed to. Look at what it can cost now, and try again.")


class NothingToGoOn(InvalidRequest):
    text = _("This reply has nothing to go on with.")


class StillWriting(Conflict):
    text = _("A reply is still being written in this chat. Stop it, or wait until it is done.")


@dataclass(frozen=True, slots=True)
class Turn:
    """`budget`: what is left of the tightest budget that the reply falls under, where it began just now."""

    session: Session
    message: Message
    reply: Message
    budget: budgets.Left | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a sender agreed to: the `terms` that he was shown, and the `most` that he says himself."""

    terms: str | None
    most: int | None


@dataclass(frozen=True, slots=True)
class Wish:
    """How a reply is wanted: at which `temperature` (None: that of the chat), whether the chat keeps it (`is_kept`), and
    whether an earlier answer to the same request will do (`may_reuse`)."""

    temperature: Decimal | None = None
    is_kept: bool = False
    may_reuse: bool = False

    def at(self, model: ChatModel, *others: Decimal | None) -> Decimal | None:
        """The temperature that `model` is asked at. Raises `TemperatureNotTaken` where it was said for this reply alone."""
        if self.temperature is not None and not self.is_kept and not model.takes_temperature:
            raise TemperatureNotTaken
        return temperatures.of(model, self.temperature, *others)

    def to_keep(self, session: Session | None) -> Decimal | None:
        """What the chat keeps as its temperature."""
        if self.temperature is not None and self.is_kept:
            return temperatures.to_keep(self.temperature)
        return temperatures.kept(session)


@dataclass(frozen=True, slots=True)
class Quote:
    """What a message would cost at most, in Aleph tokens, and whether the balance can pay for a useful reply.
    `is_reused`: an earlier answer would be used again, which costs nothing."""

    at_most: int
    minimum: int
    available: int
    draft: prompts.Draft
    offer: Offer
    is_reused: bool = False

    @property
    def is_free(self) -> bool:
        return self.at_most == 0

    @property
    def is_enough(self) -> bool:
        return self.available >= self.minimum

    @property
    def ceiling(self) -> int:
        """What can really be charged: all that there is, where that is less and still pays for a useful reply."""
        return min(self.at_most, self.available) if self.is_enough else self.at_most

    @property
    def terms(self) -> str:
        """What a page that shows this quote sends back, so that nobody pays another price, or more, unseen."""
        return f"{self.offer.model.terms}{CEILING}{self.ceiling}"

    @property
    def usual(self) -> tuple[int, int]:
        """What a reply of a paragraph costs, and one of a page, by the estimate; never above the ceiling."""
        model, ceiling = self.offer.model, self.ceiling
        short, long = (
            prompts.cost(
                model,
                input_tokens=self.draft.likely,
                output_tokens=min(tokens, model.max_output_tokens),
            )
            for tokens in (PARAGRAPH, PAGE)
        )
        return min(short, ceiling), min(long, ceiling)


def start(
    *,
    user: User,
    session: Session | None,
    text: str,
    model_slug: str | None,
    turn: str,
    terms: str | None = None,
    most: int | None = None,
    parent: str | None = None,
    attachments: Sequence[str] = (),
    temperature: Decimal | None = None,
    keeps_temperature: bool = False,
    may_reuse: bool = True,
    key_id: int | None = None,
) -> Turn:
    """Admit a message and queue its reply. Without a session a new one begins; `model_slug` None keeps the session's
    model (for a new session: the free tier). `terms` are what the sender was shown: the `Quote.terms`, or the
    `ChatModel.terms` alone. `most`: Aleph tokens that it may cost, for a sender who says so himself. `parent` is the id of
    the reply that the message is said to, None for the session's newest; where something was said to it already,
    the message begins another branch. `attachments` are the ids of images to go with it. `temperature`: None for the session's,
    which it becomes with `keeps_temperature`. With `may_reuse` an earlier answer of the user's to the same request is the
    reply where he wants that: it is complete at once and costs nothing. `key_id` is the API key that it came with.

    Raises `EmptyText`, `TextTooLong`, `ImagesNotTaken`, `TemperatureNotTaken`, `attachments.TooManyImages`, `attachments.ImageGone`, `UnknownModel`, `ModelUnavailable`, `PriceChanged`, `CostsMore`, `StillWriting`, `ledger.Insufficient`,
    `ledger.Frozen`, `sessions.TooManyOpen`, `budgets.BudgetExceeded`, and `NotFound` for a parent that is no reply of this session. Nothing is written
    then. A known `turn` gives the first answer again; with other words it is an `IdempotencyMismatch`.
    """
    said, wish = _cleaned(text), Wish(temperature, keeps_temperature, may_reuse)
    admitted = _admitted_once(
        user,
        turn,
        lambda: _start(
            user, session, said, model_slug, turn, Bounds(terms, most), wish, parent, attachments, key_id
        ),
    )
    return _as_asked(admitted, said, session, model_slug, wish, parent, attachments)


def edit(
    *,
    user: User,
    message_id: str,
    text: str,
    turn: str,
    model_slug: str | None = None,
    terms: str | None = None,
    most: int | None = None,
    attachments: Sequence[str] | None = None,
    temperature: Decimal | None = None,
    keeps_temperature: bool = False,
    may_reuse: bool = True,
    key_id: int | None = None,
) -> Turn:
    """Say something else in the place of the user's message `message_id`, which stays as a branch. `attachments`: of its
    images those to keep, and drafts; None keeps all. Raises as `start`."""
    old = sessions.message(user, message_id)
    if attachments is None:
        attachments = [image.pk for image in attached.of([old]).get(old.pk, ())]
    said, parent = _cleaned(text), old.parent_id or branches.FIRST
    wish = Wish(temperature, keeps_temperature, may_reuse)
    admitted = _admitted_once(
        user,
        turn,
        lambda: _start(
            user, old.session, said, model_slug, turn, Bounds(terms, most), wish, parent, attachments, key_id
        ),
    )
    return _as_asked(admitted, said, old.session, model_slug, wish, parent, attachments)


def retry(
    *,
    user: User,
    reply_id: str,
    turn: str,
    model_slug: str | None = None,
    terms: str | None = None,
    most: int | None = None,
    temperature: Decimal | None = None,
    key_id: int | None = None,
) -> Turn:
    """Queue another reply to the message that `reply_id` answered; the old reply stays as a branch. It is always asked for,
    and by default at the temperature of the old one. Raises as `start`."""
    old = sessions.reply(user, reply_id)
    asked = old.parent
    if asked is None:
        raise NotFound
    return _answer_once(user, asked, old, turn, model_slug, Bounds(terms, most), Wish(temperature), key_id)


def go_on(
    *,
    user: User,
    reply_id: str,
    turn: str,
    model_slug: str | None = None,
    terms: str | None = None,
    most: int | None = None,
    temperature: Decimal | None = None,
    key_id: int | None = None,
) -> Turn:
    """Queue a reply that goes on where `reply_id` was cut off. It is a turn of its own, with a hold and a charge of its
    own: for what was said, the text so far included, and for what is written from there on. Raises `NothingToGoOn`,
    and as `start`."""
    old = sessions.reply(user, reply_id)
    if old.is_open:
        raise StillWriting
    if not old.is_cut_off:
        raise NothingToGoOn
    return _answer_once(user, old, old, turn, model_slug, Bounds(terms, most), Wish(temperature), key_id)


def stop(*, user: User, reply_id: str) -> Message:
    """Ask the worker to end a reply; one that nobody has begun ends at once. Harmless when it is over. Raises NotFound."""
    reply = sessions.reply(user, reply_id)
    if reply.is_open:
        Message.objects.filter(pk=reply.pk, state__in=Message.OPEN, stop_requested_at=None).update(
            stop_requested_at=Now()
        )
        replies.close_queued(reply.pk, Message.State.STOPPED)
        reply = sessions.reply(user, reply_id)  # the chat may be deleted by now
    return reply


def quote(
    *,
    user: User,
    session: Session | None,
    text: str,
    model_slug: str | None,
    parent: str | None = None,
    attachments: Sequence[str] = (),
    temperature: Decimal | None = None,
) -> Quote:
    """What `text` would cost at most, said to `parent`, at `temperature` (None: the session's). Raises `UnknownModel`, `TextTooLong`, `ImagesNotTaken`, `NotFound`."""
    offer = _offer(session, model_slug)
    images = attached.to_send(user, attachments, session)
    draft = _draft(offer, _conversation(session, parent), text, images)
    available = 0 if offer.model.is_free else ledger.balance_of(user).available
    asked_at = temperatures.of(offer.model, temperature, temperatures.kept(session))
    quote = _quote(offer, draft, available)
    if reuse.earlier(user, reuse.request_hash(user, offer.model, draft, asked_at)) is not None:
        return replace(quote, at_most=0, minimum=0, is_reused=True)
    return quote


def quote_of_edit(
    *,
    user: User,
    message_id: str,
    text: str,
    model_slug: str | None,
    attachments: Sequence[str] = (),
    temperature: Decimal | None = None,
) -> Quote:
    """What `text` would cost at most in the place of the user's message. Raises as `quote`."""
    old = sessions.message(user, message_id)
    parent = old.parent_id or branches.FIRST
    return quote(
        user=user,
        session=old.session,
        text=text,
        model_slug=model_slug,
        parent=parent,
        attachments=attachments,
        temperature=temperature,
    )


def quotes_of_answers(
    conversation: prompts.Conversation, parent: str | None, offers: Iterable[Offer], *, available: int
) -> list[Quote]:
    """What an answer to the message `parent` would cost at most by each of the offers (where it is a reply: its rest),
    where `available` tokens are left; without those that cannot give one."""
    spoken = conversation.asking(parent)
    quotes = []
    for offer in offers:
        with suppress(TextTooLong, ImagesNotTaken):
            quotes.append(_quote(offer, _fit(offer, spoken), available))
    return quotes


def _start(
    user: User,
    session: Session | None,
    text: str,
    model_slug: str | None,
    turn: str,
    bounds: Bounds,
    wish: Wish,
    parent: str | None,
    attachments: Sequence[str],
    key_id: int | None,
) -> Turn:
    images = attached.to_send(user, attachments, session)
    if not (text or images):
        raise EmptyText
    offer = _available(_offer(session, model_slug))
    most = _agreed(offer, bounds)
    conversation = _conversation(session, parent)
    tip = conversation.tip
    if conversation.writing is not None:
        raise StillWriting
    draft = _draft(offer, conversation, text, images)
    chosen = offer.model if model_slug else (session.model if session else None)
    temperature, to_keep = wish.at(offer.model, temperatures.kept(session)), wish.to_keep(session)
    request = reuse.request_hash(user, offer.model, draft, temperature)
    earlier = reuse.earlier(user, request) if wish.may_reuse else None
    message_id, reply_id = sorted([ids.new("msg"), ids.new("msg")])
    with transaction.atomic():
        session = session or sessions.create(user=user, model=chosen)
        message = Message(
            id=message_id,
            session=session,
            user=user,
            parent_id=tip.pk if tip else None,
            role=Message.Role.USER,
            content=text,
            image_count=len(images),
        )
        reply = _reply(reply_id, message, offer, draft, turn, temperature)
        if earlier is None:
            reply.request_hash = request
            _hold(reply, offer, draft, most)
        else:
            replies.take_over(reply, earlier)
        insert(message, reply)
        attached.attach(message, images)
        is_budgeted = sessions.touch(
            session,
            messages=2,
            title=title_of(text, images),
            model=chosen,
            temperature=to_keep,
            key_id=key_id,
        )
        left = None
        if earlier is None:
            left = _reserved(reply, draft, key_id) if is_budgeted else None
            _ring_on_commit(reply)
    return Turn(session, message, reply, left)


def _as_asked(
    admitted: Turn,
    said: str,
    session: Session | None,
    model_slug: str | None,
    wish: Wish,
    parent: str | None,
    attachments: Sequence[str],
) -> Turn:
    shown = attached.of([admitted.message]).get(admitted.message.pk, ())
    if (
        admitted.message.content != said
        or (session is not None and admitted.session.pk != session.pk)
        or _is_of_another_model(admitted, model_slug)
        or _is_at_another_temperature(admitted, wish)
        or (parent is not None and (admitted.message.parent_id or branches.FIRST) != parent)
        or [image.pk for image in shown] != list(dict.fromkeys(attachments))
    ):
        raise IdempotencyMismatch
    return admitted


def _is_of_another_model(admitted: Turn, model_slug: str | None) -> bool:
    model = admitted.reply.model
    return bool(model_slug) and model is not None and not catalogue.stands_for(model_slug or "", model)


def _is_at_another_temperature(admitted: Turn, wish: Wish) -> bool:
    return wish.temperature is not None and admitted.reply.temperature not in (None, wish.temperature)


def _answer_once(
    user: User,
    asked: Message,
    old: Message,
    turn: str,
    model_slug: str | None,
    bounds: Bounds,
    wish: Wish,
    key_id: int | None,
) -> Turn:
    """Another answer to `asked`, by default by the model of `old` and at its temperature."""
    slug = model_slug or (old.model.slug if old.model else None)

    def answer() -> Turn:
        return _answer(old, asked, slug, turn, bounds, wish, key_id, is_chosen=bool(model_slug))

    admitted = _admitted_once(user, turn, answer)
    is_another = _is_of_another_model(admitted, model_slug) or _is_at_another_temperature(admitted, wish)
    if admitted.message.pk != asked.pk or is_another:
        raise IdempotencyMismatch
    return admitted


def _answer(
    old: Message,
    asked: Message,
    model_slug: str | None,
    turn: str,
    bounds: Bounds,
    wish: Wish,
    key_id: int | None,
    *,
    is_chosen: bool,
) -> Turn:
    session = old.session
    conversation = prompts.Conversation(session.pk, tip=asked.pk)
    if conversation.writing is not None:
        raise StillWriting
    offer = _available(_offer(session, model_slug))
    most = _agreed(offer, bounds)
    draft = _fit(offer, conversation.asking(asked.pk))
    temperature = wish.at(offer.model, old.temperature, session.temperature)
    with transaction.atomic():
        reply = _reply(ids.new("msg"), asked, offer, draft, turn, temperature)
        reply.request_hash = reuse.request_hash(reply.user, offer.model, draft, temperature)
        _hold(reply, offer, draft, most)
        insert(reply)
        chosen = offer.model if is_chosen else session.model
        is_budgeted = sessions.touch(
            session, messages=1, model=chosen, temperature=session.temperature, key_id=key_id
        )
        left = _reserved(reply, draft, key_id) if is_budgeted else None
        _ring_on_commit(reply)
    return Turn(session, asked, reply, left)


def _reply(
    reply_id: str,
    message: Message,
    offer: Offer,
    draft: prompts.Draft,
    turn: str,
    temperature: Decimal | None,
) -> Message:
    """The queued reply, with a snapshot of the rates that it may cost by."""
    model = offer.model
    return Message(
        id=reply_id,
        session=message.session,
        user=message.user,
        parent=message,
        role=Message.Role.ASSISTANT,
        turn=turn,
        state=Message.State.QUEUED,
        rung_at=timezone.now(),
        model=model,
        provider=offer.route.provider if offer.route else "",
        answered_by=offer.route.upstream_model if offer.route else "",
        input_rate=model.input_rate,
        output_rate=model.output_rate,
        estimated_input_tokens=draft.likely,
        temperature=temperature,
        max_output_tokens=model.max_output_tokens,
    )


def _hold(reply: Message, offer: Offer, draft: prompts.Draft, most: int | None) -> None:
    """Hold what the reply may cost. Runs inside the turn's transaction.

    What was shown may be less than what is reckoned now, for what is known of a model's counting changes: then the reply
    may be a little shorter, and `CostsMore` is raised where that would leave nothing useful."""
    model = offer.model
    if model.is_free:
        return
    quote = _quote(offer, draft, 0)
    amount = quote.at_most if most is None else min(most, quote.at_most)
    if amount < quote.minimum:
        raise CostsMore(data={"minimum": quote.minimum})
    try:
        hold = ledger.hold(
            user=reply.user,
            amount=amount,
            minimum=quote.minimum,
            reference=reply.pk,
            key=f"hold:{reply.pk}",
        )
    except ledger.Insufficient as error:
        raise ledger.insufficient_tokens(error.data["currentBalance"], quote.at_most) from error
    reply.hold_id, reply.held_tokens = hold.id, hold.amount
    reply.value_idr_per_1k = hold.value_idr_per_1k
    if hold.amount < quote.at_most:
        reply.is_limited_by_balance = hold.balance == hold.held
        reply.max_output_tokens = prompts.affordable_output(
            model, tokens=hold.amount, input_tokens=draft.at_most
        )


def _reserved(reply: Message, draft: prompts.Draft, key_id: int | None) -> budgets.Left | None:
    """Reserve what the reply can cost in the budgets that it falls under; it gets as much output as they pay for. What is
    left of the tightest. Raises `budgets.BudgetExceeded`."""
    call = budgets.Call(
        reference=reply.pk,
        provider=reply.provider,
        model=reply.answered_by,
        input_tokens=draft.at_most,
        output_tokens=reply.max_output_tokens,
        least_output=min(USEFUL_OUTPUT, reply.max_output_tokens),
        input_rate=reply.input_rate,
        output_rate=reply.output_rate,
    )
    admission = budgets.reserve(call, user_id=reply.user_id, key_id=key_id)
    if admission.output_tokens < reply.max_output_tokens:
        reply.max_output_tokens, reply.is_limited_by_budget = admission.output_tokens, True
        reply.save(update_fields=["max_output_tokens", "is_limited_by_budget"])
    return admission.left


def _quote(offer: Offer, draft: prompts.Draft, available: int) -> Quote:
    model = offer.model
    least = min(USEFUL_OUTPUT, model.max_output_tokens)
    return Quote(
        at_most=prompts.cost(model, input_tokens=draft.at_most, output_tokens=model.max_output_tokens),
        minimum=prompts.cost(model, input_tokens=draft.at_most, output_tokens=least),
        available=available,
        draft=draft,
        offer=offer,
    )


def _admitted_once(user: User, turn: str, admit: Callable[[], Turn]) -> Turn:
    """Run `admit`; where it fails because this turn was admitted before, give that answer."""
    if not turn or len(turn) > 64 or "\x00" in turn:
        raise InvalidRequest(_("The turn id is missing."))
    for last in (False, False, True):
        try:
            return admit()
        except Problem:
            if (first := _admitted(user, turn)) is not None:
                return first
            raise
        except (IntegrityError, ledger.Raced, OperationalError) as error:
            if (first := _admitted(user, turn)) is not None:
                return first
            if "one_open_reply_per_session" in str(error) or "chat_message.session_id" in str(error):
                raise StillWriting from error
            if last:
                raise
    raise AssertionError("unreachable")


def _admitted(user: User, turn: str) -> Turn | None:
    reply = Message.objects.filter(user=user, turn=turn).select_related("session", "parent", "model").first()
    return None if reply is None or reply.parent is None else Turn(reply.session, reply.parent, reply)


def _offer(session: Session | None, model_slug: str | None) -> Offer:
    if model_slug:
        return catalogue.find(model_slug)
    if session is not None and session.model is not None:
        return catalogue.find(session.model.slug)
    return catalogue.free_tier()


def _available(offer: Offer) -> Offer:
    if not offer.is_available:
        raise ModelUnavailable(data={"reason": str(offer.reason)})
    return offer


def _agreed(offer: Offer, bounds: Bounds) -> int | None:
    """The most that a message to this offer may cost, None where nobody has said. Raises `PriceChanged` where it is not what
    the sender was shown. Terms of another model say nothing of this one; those of a retired one were shown to somebody who
    does not know yet what follows it."""
    price, _at, ceiling = (bounds.terms or "").partition(CEILING)
    shown = price.rsplit(":", 2)[0]
    if price != offer.model.terms:
        if shown and shown == offer.model.slug:
            raise PriceChanged
        if shown and offer.instead_of and shown == offer.instead_of.slug:
            raise ModelFollowed(offer.instead_of, offer.model)
        ceiling = ""
    said = [int(ceiling)] if ceiling.isdecimal() and len(ceiling) < 16 else []
    return min([*said, *([] if bounds.most is None else [bounds.most])], default=None)


def _cleaned(text: str) -> str:
    return text.replace("\x00", "").strip()


def _conversation(session: Session | None, parent: str | None) -> prompts.Conversation:
    """What a message is said to: the branch that ends in the reply `parent`, None for the session's newest."""
    is_given = parent is not None and parent != branches.FIRST
    if is_given and (session is None or not ids.is_one(parent or "", "msg")):
        raise NotFound
    conversation = prompts.Conversation(session.pk if session else None, tip=parent)
    if is_given and (conversation.tip is None or not conversation.tip.is_reply):
        raise NotFound
    return conversation


def _draft(
    offer: Offer, conversation: prompts.Conversation, text: str, images: tuple[Attachment, ...]
) -> prompts.Draft:
    if len(text) > MAX_TEXT:
        raise TextTooLong
    tip = conversation.tip
    said = prompts.Spoken("user", text, images)
    return _fit(offer, [*conversation.upto(tip.pk if tip else None), said])


def _fit(offer: Offer, conversation: list[prompts.Spoken]) -> prompts.Draft:
    """What is sent for an answer. What is answered must be seen whole; of images further up a model is only told."""
    if conversation and conversation[-1].images and not offer.model.takes_images:
        raise ImagesNotTaken
    try:
        return prompts.draft(offer.model, conversation)
    except prompts.DoesNotFit as error:
        raise TextTooLong from error


def _ring_on_commit(reply: Message) -> None:
    reach("K0")

    def ring() -> None:
        reach("K1")
        replies.ring(reply.pk)

    transaction.on_commit(ring, robust=True)


def terms_up_to(terms: str, most: int) -> str:
    """These terms with another ceiling: it was shown later, by somebody who knew no more of the price."""
    return f"{terms.partition(CEILING)[0]}{CEILING}{most}"


def title_of(text: str, images: Sequence[Attachment] = ()) -> str:
    """The first words of a message, as the title of a chat that has none; where there are none, what its image is called."""
    if not text and images:
        text = images[0].name or str(_("Image"))
    line = " ".join(text.split("\n", 1)[0].split()) or " ".join(text.split())
    line = line.lstrip("#>*-` ") or line
    if len(line) <= TITLE:
        return line
    return line[:TITLE].rsplit(" ", 1)[0].rstrip(" ,.;:") + "…"
