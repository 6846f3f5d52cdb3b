"""The pages of the chat. Each view reads the request, makes one call into the domain and draws the answer.

By htmx the answer is a fragment; without JavaScript the same forms post, and the answer is a redirect or the whole
page. Nothing that somebody typed is lost by an error: by htmx it stays where it stands, else it is drawn again.
"""

from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import partial, wraps
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import number_format
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language, pgettext
from django.utils.translation import gettext as _
from django_htmx.http import replace_url, reswap, retarget

from aleph import rates
from aleph.problems import IdempotencyMismatch, NotFound, Problem, RateLimited, noting_delay
from billing import ledger, topups
from billing import purchases as shop
from chat import (
    attachments,
    branches,
    catalogue,
    checkout,
    entries,
    live,
    picker,
    receipts,
    search,
    sessions,
    temperatures,
    turns,
    viewers,
)
from chat.checkout import Order
from chat.models import Message, Session
from chat.pages import Request, View, fragment, moved, page
from chat.turns import Quote, Turn
from usage import budgets

NOTICE = "#composer-notice"
DIALOGS = "#dialogs"
YEAR_S = 365 * 24 * 3600
PROMO = "promo_code"
"""Where a visit remembers the code that counted in the dialog: somebody may have to top up before he buys with it."""
MODEL_COOKIE = "model"


@dataclass(frozen=True, slots=True)
class Said:
    """What the composer sends: the text, the model to answer it (None: as before), the id of the turn, the terms that it
    showed (None: it showed none), and the reply that it stood below (None: the newest). `edited` is the message in the
    place of which this is said, `images` the ids of those that go with it, `temperature` what the chat is asked at from
    here on (None: as before)."""

    text: str
    model: str | None
    turn: str
    terms: str | None
    parent: str | None
    edited: str | None
    images: tuple[str, ...] = ()
    temperature: Decimal | None = None

    @classmethod
    def of(cls, request: Request) -> "Said":
        post = request.POST
        model, terms, parent, edited = (
            post.get(name) or None for name in ("model", "terms", "parent", "edited")
        )
        images = tuple(post.getlist("attachment"))[: 2 * attachments.MOST]
        temperature = temperatures.read(post.get("temperature", ""))
        return cls(
            post.get("text", ""), model, post.get("turn", ""), terms, parent, edited, images, temperature
        )


def of_a_chat(view: View) -> View:
    """What is not there any more was deleted with its chat, maybe in another tab: so the page says that was asked from,
    and what is typed there is kept."""

    @wraps(view)
    def guarded(request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return view(request, *args, **kwargs)
        except NotFound:
            if request.htmx or request.method == "POST":
                return _gone(request, Said.of(request))
            raise

    return guarded


@page("GET")
def home(request: Request) -> HttpResponse:
    return _home(request, text=request.GET.get("text", ""), model=request.COOKIES.get(MODEL_COOKIE))


@page("GET", "POST")
@of_a_chat
def session(request: Request, session_id: str) -> HttpResponse:
    """The branch that `at` stands on; by htmx another one in the place of the one that is shown. POST draws the page again
    with what stands in the composer: so one looks again without JavaScript."""
    if request.method == "POST":
        return _drawn_again(request, session_id, Said.of(request))
    found = sessions.seen(request.user, session_id)
    at, before = (request.GET.get(name) or None for name in ("at", "before"))
    if before and request.htmx:
        return render(request, "chat/_thread.html", _thread(found, at=at, before=before))
    if request.htmx and request.htmx.target == "thread":
        return render(request, "chat/_branch.html", _thread(found, at=at))
    return _session(request, found, at=at, before=before)


@page("POST")
def turns_of_new_chat(request: Request) -> HttpResponse:
    return _send(request, None, replace(Said.of(request), parent=None, edited=None))


@page("POST")
@of_a_chat
def session_turns(request: Request, session_id: str) -> HttpResponse:
    return _send(request, sessions.get(request.user, session_id), Said.of(request))


@page("POST")
@of_a_chat
def purchases(request: Request) -> HttpResponse:
    """Buy a package with the wallet, and send the message that waited for it. Twice the same key buys once."""
    said = Said.of(request)
    given = request.POST.get("session")
    found = sessions.get(request.user, given) if given else None
    order = Order.of(request.POST)
    try:
        rates.take(request, "purchase")
        bought = shop.buy(
            user=request.user,
            package_slug=order.package,
            quantity=1 if order.quantity is None else order.quantity,
            promo_code=order.promo_code,
            key=request.POST.get("key", ""),
            terms=request.POST.get(f"terms-{order.package}"),
        )
    except Problem as problem:
        return noting_delay(_not_sent(request, problem, found, said, order=order), problem)
    request.session.pop(PROMO, None)
    tokens = number_format(bought.total_tokens, force_grouping=True)
    messages.success(
        request,
        _("Bought %(tokens)s tokens. Receipt %(number)s.") % {"tokens": tokens, "number": bought.number},
    )
    return _send(request, found, said)


@page("POST")
@of_a_chat
def checkouts(request: Request) -> HttpResponse:
    """The same packages for another quantity or with a promo code. Nothing is bought."""
    said, order = Said.of(request), Order.of(request.POST)
    given = request.POST.get("session")
    found = sessions.get(request.user, given) if given else None
    if order.promo_code:
        try:
            rates.take(request, "promo")
        except Problem as problem:
            # Whoever guesses too often is not told of this one either.
            order = replace(order, promo_code="")
            return noting_delay(_packages(request, problem, found, said, order), problem)
    request.session[PROMO] = order.promo_code if checkout.counts(request.user, order.promo_code) else ""
    return _packages(request, None, found, said, order)


@page("GET", "POST")
@of_a_chat
def edits(request: Request, message_id: str) -> HttpResponse:
    """GET shows a message of one's own to be said otherwise, POST says it."""
    if request.method != "POST":
        message = sessions.message(request.user, message_id)
        model = request.GET.get("model") or None
        temperature = temperatures.read(request.GET.get("temperature", ""))
        return _edit(request, message, text=message.content, model=model, temperature=temperature)
    said = replace(Said.of(request), edited=message_id)
    return _send(request, sessions.message(request.user, message_id).session, said)


@page("GET", "POST")
@of_a_chat
def retries(request: Request, reply_id: str) -> HttpResponse:
    """GET shows what another reply in the place of this one can cost, POST asks for it."""
    if request.method != "POST":
        return _regenerate(request, sessions.reply(request.user, reply_id))
    return _ask_again(request, reply_id, turns.retry)


@page("POST")
@of_a_chat
def continuations(request: Request, reply_id: str) -> HttpResponse:
    """The rest of a reply that was cut off."""
    return _ask_again(request, reply_id, turns.go_on)


@page("POST")
@of_a_chat
def stops(request: Request, reply_id: str) -> HttpResponse:
    """The end of the reply comes through its stream; until then, and a worker that died lets it wait for a while, the
    page says that it is being stopped."""
    reply = turns.stop(user=request.user, reply_id=reply_id)
    if request.htmx and reply.is_open:
        return render(request, "chat/_live.html", {"reply": reply})
    if request.htmx:
        return HttpResponse(status=204)
    said = Said.of(request)
    if said.text:
        return _drawn_again(request, reply.session_id, said)
    return moved(request, reverse("chat:session", args=[reply.session_id]))


@page("POST")
def estimates(request: Request) -> HttpResponse:
    """What the text in the composer would cost at most. It is no place for error pages: a problem is said in its line."""
    said = Said.of(request)
    if not said.text.strip() and not said.images:
        return HttpResponse()
    given = request.POST.get("session")
    try:
        found = sessions.get(request.user, given) if given else None
        quote = _quote(request, found, said)
    except NotFound:
        return render(request, "chat/_estimate.html", {"problem": _("This chat was deleted.")})
    except Problem as problem:
        if isinstance(problem, turns.ImagesNotTaken) and not said.edited:
            return HttpResponse()  # the composer says so beside the images
        return render(request, "chat/_estimate.html", {"problem": problem.message})
    return render(request, "chat/_estimate.html", {"quote": quote})


def stream(request: HttpRequest, reply_id: str) -> HttpResponseBase:
    """The events of one reply, for its owner's page. While it lasts no database connection is held, and it ends when its
    reader may not go on (`chat.viewers`). Whoever has as many open as he may is told to look again from time to time."""
    if (refusal := live.refusal(request)) is not None:
        return refusal
    if not request.user.is_authenticated:
        return HttpResponse(status=404)
    try:
        reply = sessions.reply(request.user, reply_id)
        earlier = branches.before_in_text(reply)
        events: AsyncIterable[str] = live.page_events(reply, request=request, goes_on_from=earlier)
        if reply.is_open:
            seat = viewers.admit(request)
            farewell = partial(_farewell, reply, get_language())
            events = viewers.Watched(seat, reply.pk, events, farewell=farewell, comes_back=True)
        return live.EventStream(events)
    except NotFound:
        return HttpResponse(status=404)
    except RateLimited:
        again = render_to_string("chat/_again.html", {"reply": reply, "is_full": True})
        return HttpResponse(live.event("again", again), headers=live.HEADERS)


@page("GET")
@of_a_chat
def receipt(request: Request, reply_id: str) -> HttpResponse:
    context = {"receipt": receipts.of_reply(request.user, reply_id), "is_popover": bool(request.htmx)}
    return render(request, "chat/_receipt.html" if request.htmx else "chat/receipt.html", context)


@page("GET")
def text(request: Request, reply_id: str) -> HttpResponse:
    """A reply as its model wrote it, with what it goes on from."""
    reply = sessions.reply(request.user, reply_id)
    whole = "".join(part.content for part in (*branches.before_in_text(reply), reply))
    return HttpResponse(whole, content_type="text/plain; charset=utf-8")


@page("GET", "POST")
def title(request: Request, session_id: str) -> HttpResponse:
    found = sessions.get(request.user, session_id)
    if request.method != "POST":
        return _dialog(request, "chat/_rename.html", {"session": found, "title": found.title})
    wish = request.POST.get("title", "")
    try:
        sessions.rename(found, wish)
    except Problem as problem:
        context = {"session": found, "title": wish, "problem": problem}
        return _dialog(request, "chat/_rename.html", context, status=problem.status)
    if request.htmx:
        current = _chat_of(request)
        return render(request, "chat/_renamed.html", {"session": found, "current": current})
    return moved(request, reverse("chat:session", args=[found.pk]))


@page("GET", "POST")
def deletions(request: Request, session_id: str) -> HttpResponse:
    """GET asks, POST deletes."""
    found = sessions.get(request.user, session_id)
    if request.method != "POST":
        return _dialog(request, "chat/_deletion.html", {"session": found})
    sessions.delete(found)
    if request.htmx and _chat_of(request) != session_id:
        return render(request, "chat/_deleted.html", {"session_id": session_id})
    messages.success(request, _("The chat is deleted."))
    return moved(request, reverse("chat:home"))


@page("GET")
def search_page(request: Request) -> HttpResponse:
    words = request.GET.get("q", "")[:200]
    number = request.GET.get("page", "1")
    found = search.find(
        user=request.user, words=words, number=int(number) if number.isdecimal() and len(number) < 7 else 1
    )
    context = {"words": words, "page": found}
    return render(request, "chat/_hits.html" if request.htmx else "chat/search.html", context)


def theme(request: HttpRequest) -> HttpResponse:
    """Light, dark, or as the system has it; for guests, too. Pages with JavaScript set the same cookie themselves."""
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    back = request.POST.get("next", "/")
    if not url_has_allowed_host_and_scheme(back, {request.get_host()}, require_https=request.is_secure()):
        back = "/"
    response = HttpResponse(status=303, headers={"Location": back})
    wish = request.POST.get("theme", "")
    if wish in ("light", "dark"):
        response.set_cookie(
            "theme", wish, max_age=YEAR_S, samesite="Lax", secure=settings.SESSION_COOKIE_SECURE
        )
    else:
        response.delete_cookie("theme", samesite="Lax")
    return response


def _send(request: Request, found: Session | None, said: Said) -> HttpResponse:
    try:
        for file in request.FILES.getlist("images")[: attachments.MOST + 1]:
            # Without a script the images come with the message. One that is refused must not take the others with it.
            rates.take(request, "upload")
            image = attachments.add(user=request.user, upload=file)
            said = replace(said, images=(*said.images, image.pk))
        rates.take(request, "message")
        turn = _turn(request, found, said)
    except NotFound:
        raise
    except Problem as problem:
        return noting_delay(_not_sent(request, problem, found, said), problem)
    if request.htmx and said.edited:
        return _branched(request, turn)
    if request.htmx and found is not None:
        return _answered(request, turn, [turn.message, turn.reply])
    response = moved(request, _place_of(turn))
    if said.model:
        _remember_model(response, said.model)
    return response


def _turn(request: Request, found: Session | None, said: Said) -> Turn:
    user = request.user
    if said.edited:
        return turns.edit(
            user=user,
            message_id=said.edited,
            text=said.text,
            turn=said.turn,
            model_slug=said.model,
            terms=said.terms,
            attachments=said.images,
            temperature=said.temperature,
            keeps_temperature=True,
        )
    return turns.start(
        user=user,
        session=found,
        text=said.text,
        model_slug=said.model,
        turn=said.turn,
        terms=said.terms,
        parent=said.parent,
        attachments=said.images,
        temperature=said.temperature,
        keeps_temperature=True,
    )


def _quote(request: Request, found: Session | None, said: Said) -> Quote:
    what: dict[str, Any] = {
        "user": request.user,
        "text": said.text,
        "model_slug": said.model,
        "attachments": said.images,
        "temperature": said.temperature,
    }
    if said.edited:
        return turns.quote_of_edit(message_id=said.edited, **what)
    return turns.quote(session=found, parent=said.parent, **what)


def _ask_again(request: Request, reply_id: str, act: Callable[..., Turn]) -> HttpResponse:
    """Ask for another reply, or for the rest of one (`act`). What is asked for under the reply that a thread ends with takes
    that one's place; from the menu of any reply, whose place is the thread, the whole branch is drawn."""
    said = Said.of(request)
    is_of_menu = bool(request.htmx) and request.htmx.target == "thread"
    try:
        rates.take(request, "message")
        turn = act(
            user=request.user, reply_id=reply_id, turn=said.turn, model_slug=said.model, terms=said.terms
        )
    except NotFound:
        raise
    except Problem as problem:
        old = sessions.reply(request.user, reply_id)
        if is_of_menu:
            return noting_delay(_regenerate(request, old, problem), problem)
        return noting_delay(_not_sent(request, problem, old.session, said, retried=old), problem)
    if not request.htmx:
        return moved(request, _place_of(turn))
    if is_of_menu:
        return _branched(request, turn)
    return _answered(request, turn, [*branches.before_in_text(turn.reply), turn.reply])


def _answered(request: Request, turn: Turn, messages: Sequence[Message]) -> HttpResponse:
    """What the thread gains by a turn, and everything else on the page that it changes."""
    return _at_newest(
        request, render(request, "chat/_turn.html", {"turn": turn, "entries": entries.of(messages)})
    )


def _branched(request: Request, turn: Turn) -> HttpResponse:
    """The branch that a turn began, in the place of the one that is shown."""
    context = {"turn": turn, **_thread(turn.session, at=turn.reply.pk)}
    response = _at_newest(request, render(request, "chat/_turn.html", context))
    return reswap(retarget(response, "#thread"), "innerHTML")


def _at_newest(request: Request, response: HttpResponse) -> HttpResponse:
    """The page shows the newest branch from now on, and so it does when it is reloaded."""
    path, query, _rest = (request.htmx.current_url_abs_path or "").partition("?")
    return replace_url(response, path) if query else response


def _edit(
    request: Request,
    message: Message,
    *,
    text: str,
    images: Sequence[str] | None = None,
    model: str | None = None,
    temperature: Decimal | None = None,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    """`images`: the ids of those to send; None: those that the message has."""
    shown = attachments.of([message]).get(message.pk, ())
    wanted = [image.pk for image in shown] if images is None else images
    context |= {
        "message": message,
        "session": message.session,
        "text": text,
        "images": [*shown, *attachments.drafts(request.user, wanted)],
        "wanted": wanted,
    }
    try:
        context["quote"] = turns.quote_of_edit(
            user=request.user,
            message_id=message.pk,
            text=text,
            model_slug=model,
            attachments=wanted,
            temperature=temperature,
        )
    except Problem as problem:
        context["problem"] = problem.message
    if request.htmx:
        return fragment(request, "chat/_edit.html", context, into=f"#{message.pk}-edit", status=status)
    return render(request, "chat/edit.html", context, status=status)


def _regenerate(request: Request, reply: Message, problem: Problem | None = None) -> HttpResponse:
    available = ledger.balance_of(request.user).available
    quotes = picker.others(reply, catalogue.offers(), available=available)
    context = {"reply": reply, "quotes": quotes, "problem": problem}
    status = problem.status if problem else 200
    if request.htmx:
        return fragment(
            request, "chat/_regenerate.html", context, into=f"#regenerate-{reply.pk}", status=status
        )
    return render(request, "chat/regenerate.html", context, status=status)


def _drawn_again(request: Request, session_id: str, said: Said) -> HttpResponse:
    found = sessions.get(request.user, session_id)
    kept = attachments.drafts(request.user, said.images)
    return _session(
        request,
        found,
        at=said.parent,
        text=said.text,
        model=said.model,
        temperature=said.temperature,
        images=kept,
    )


def _gone(request: Request, said: Said) -> HttpResponse:
    """The chat was deleted, maybe in another tab. A text that was for it is kept, and can begin a new chat."""
    if request.htmx and said.edited:
        context = {"text": _("This chat was deleted."), "reason": _("Your text is kept.")}
        return fragment(
            request, "chat/_notice.html", context, into=f"#{said.edited}-notice", status=NotFound.status
        )
    if request.htmx:
        return fragment(request, "chat/_gone.html", {"said": said}, into=NOTICE, status=NotFound.status)
    return _home(
        request,
        text=said.text,
        images=attachments.drafts(request.user, said.images),
        model=said.model,
        temperature=said.temperature,
        status=NotFound.status,
        notice=_("This chat was deleted."),
        reason=_("Your text is kept. Send it, and it begins a new chat.") if said.text else "",
    )


def _not_sent(
    request: Request,
    problem: Problem,
    found: Session | None,
    said: Said,
    *,
    retried: Message | None = None,
    order: Order | None = None,
) -> HttpResponse:
    """Why a message did not go out: too few tokens, or an `order` that was refused, open the packages; everything else is
    a notice by the composer. What may be tried in the place of `retried` is drawn anew, with the prices of now."""
    if (said.text or said.images) and (order or isinstance(problem, ledger.Insufficient)):
        return _packages(request, problem, found, said, order)
    context = {
        "notice": problem.message,
        "reason": problem.data.get("reason", ""),
        "needs_tokens": isinstance(problem, ledger.Insufficient),
        "needs_budget": isinstance(problem, budgets.BudgetExceeded),
        "writing_in": found if isinstance(problem, turns.StillWriting) else None,
    }
    if isinstance(problem, IdempotencyMismatch):
        context["notice"] = _("This message has already gone out with other words.")
        context["reason"] = _("Reload the page to see it. To send these words as well, send again.")
    if request.htmx:
        context |= {
            "text": context["notice"],
            "retried": retried,
            "needs_fresh_turn": isinstance(problem, IdempotencyMismatch) and not said.edited,
            "tip_id": said.parent,
        }
        place = f"#{said.edited}-notice" if said.edited else NOTICE
        return fragment(request, "chat/_notice.html", context, into=place, status=problem.status)
    return _page_with(request, found, said, context, status=problem.status, retried=retried)


def _page_with(
    request: Request,
    found: Session | None,
    said: Said,
    context: dict[str, Any],
    *,
    status: int,
    retried: Message | None = None,
) -> HttpResponse:
    """The page that something was said on, whole, with what was typed and what became of it."""
    if said.edited:
        message = sessions.message(request.user, said.edited)
        return _edit(
            request,
            message,
            text=said.text,
            images=said.images,
            model=said.model,
            temperature=said.temperature,
            status=status,
            **context,
        )
    context["images"] = attachments.drafts(request.user, said.images)
    context |= {"text": said.text, "model": said.model, "temperature": said.temperature}
    if found is not None:
        at = retried.pk if retried else said.parent
        return _session(request, found, at=at, status=status, **context)
    return _home(request, status=status, **context)


def _packages(
    request: Request, problem: Problem | None, found: Session | None, said: Said, order: Order | None
) -> HttpResponse:
    """The dialog in which tokens are bought for a message that waits, after a `problem`, or for another `order`."""
    balance = ledger.balance_of(request.user)
    needed = _needed(request, problem)
    if said.terms and problem and problem.data.get("estimatedCost"):
        said = replace(said, terms=turns.terms_up_to(said.terms, needed))
    context = {
        "refusal": problem if order else None,
        "is_wallet": isinstance(problem, ledger.InsufficientWallet),
        "needed": needed,
        # Tokens that were bought in another tab meanwhile.
        "has_enough": 0 < needed <= balance.available,
        "checkout": checkout.of(
            request.user,
            order or Order(),
            remembered_code=request.session.get(PROMO, ""),
            wallet_idr=balance.wallet_idr,
            missing_tokens=needed - balance.available,
        ),
        "typed": order.promo_code if order else "",
        "is_applied": problem is None,
        "most": shop.MAX_QUANTITY,
        "not_enough": True,
        "can_top_up": bool(topups.methods()),
        "balance": balance,
        "session": found,
        "said": said,
        "free_tier": picker.of(said.model).free_tier,
    }
    status = problem.status if problem else 200
    if request.htmx:
        return fragment(request, "billing/_not_enough.html", context, into=DIALOGS, status=status)
    return _page_with(request, found, said, context, status=status)


def _needed(request: Request, problem: Problem | None) -> int:
    """The tokens that the message needs to go out: as it was refused, or as its dialog remembers; 0 for unknown."""
    remembered = request.POST.get("needed", "")
    is_number = remembered.isascii() and remembered.isdecimal() and len(remembered) < 13
    refused: int = problem.data.get("estimatedCost", 0) if problem else 0
    return refused or (int(remembered) if is_number else 0)


def _home(
    request: Request,
    *,
    text: str = "",
    model: str | None = None,
    temperature: Decimal | None = None,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    context |= {
        "text": text,
        "picker": picker.of(model, temperature),
        "greeting": greeting(request.user.name, timezone.localtime()),
        "prompts": prompts(),
    }
    return render(request, "chat/home.html", context, status=status)


def _session(
    request: Request,
    found: Session,
    *,
    at: str | None = None,
    before: str | None = None,
    text: str = "",
    model: str | None = None,
    temperature: Decimal | None = None,
    status: int = 200,
    **context: Any,
) -> HttpResponse:
    slug = model or (found.model.slug if found.model else None)
    asked_at = temperatures.kept(found) if temperature is None else temperature
    context |= {
        **_thread(found, at=at, before=before),
        "is_earlier": bool(before),
        "text": text,
        "picker": picker.of(slug, asked_at),
    }
    return render(request, "chat/session.html", context, status=status)


def _thread(found: Session, *, at: str | None = None, before: str | None = None) -> dict[str, Any]:
    """What the thread is drawn from: one stretch of a branch, and the end of the branch, which is gone on from."""
    thread = sessions.thread(found, at=at, before=before).from_question()
    end = thread.tip.pk if thread.tip else sessions.end_of(found, at=at) if before else None
    return {
        "session": found,
        "thread": thread,
        "entries": entries.of(thread.messages),
        "tip_id": end,
        "at": at,
    }


def _dialog(request: Request, template: str, context: dict[str, Any], status: int = 200) -> HttpResponse:
    if request.htmx:
        return fragment(request, template, context, into=DIALOGS, status=status)
    return render(request, "chat/dialog.html", {**context, "fragment": template}, status=status)


def _place_of(turn: Turn) -> str:
    return reverse("chat:session", args=[turn.session.pk])


def _chat_of(request: Request) -> str:
    """The chat whose page an htmx request comes from; "" from another page."""
    path = (request.htmx.current_url_abs_path or "").split("?")[0]
    return path.removeprefix("/chat/") if path.startswith("/chat/") else ""


def _farewell(reply: Message, language: str, problem: Problem) -> str:
    """How a page learns that it may not go on: that the chat was deleted; that another process goes on, to which its
    browser connects again; or else it looks again, which leads whoever is signed out to sign in."""
    if isinstance(problem, viewers.Leaving):
        return live.event("reconnect", "")
    if isinstance(problem, NotFound):
        return live.event("done", live.gone(reply.session_id, language))
    return live.event("again", render_to_string("chat/_again.html", {"reply": reply}))


def _remember_model(response: HttpResponse, slug: str) -> None:
    response.set_cookie(
        MODEL_COOKIE, slug, max_age=YEAR_S, samesite="Lax", secure=settings.SESSION_COOKIE_SECURE
    )


def greeting(name: str, now: datetime) -> str:
    """A greeting for the time of day where the reader is, with his first name if he gave one."""
    if 4 <= now.hour < 11:
        words = pgettext("4:00 to 11:00", "Good morning")
    elif 11 <= now.hour < 15:
        words = pgettext("11:00 to 15:00", "Good afternoon")
    elif 15 <= now.hour < 18:
        words = pgettext("15:00 to 18:00", "Good afternoon")
    else:
        words = pgettext("18:00 to 4:00", "Good evening")
    first = name.split()[0] if name.split() else ""
    return f"{words}, {first}" if first else words


def prompts() -> Iterable[dict[str, str]]:
    """Examples for an empty chat: what to do, how, and the text that goes into the composer."""
    return (
        {
            "what": _("Explain a contract"),
            "how": _("in plain words"),
            "text": _(
                "Explain this contract to me in plain words, and tell me what I should look out for:\n\n"
            ),
        },
        {
            "what": _("Find the bug"),
            "how": _("in a function that I paste"),
            "text": _("Find the bug in this function, and explain how to fix it:\n\n"),
        },
        {
            "what": _("Plan three days in Yogyakarta"),
            "how": _("with children"),
            "text": _("Plan three days in Yogyakarta with two children of 6 and 10, with little walking."),
        },
        {
            "what": _("Compare two job offers"),
            "how": _("with THR and BPJS"),
            "text": _("Compare these two job offers, with THR and BPJS, in a table:\n\n"),
        },
    )
