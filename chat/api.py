"""The JSON API of chat and tokens (source S0): eight endpoints below /api/v1/chat/, and one to come back to a reply.

Who depends on it: programs of our users, with an API key or a session. Bodies and field names are binding; errors:

    UNAUTHENTICATED 401   NOT_FOUND 404   INVALID_REQUEST 400   CONFLICT 409   IDEMPOTENCY_MISMATCH 422
    INSUFFICIENT_TOKENS 402   INSUFFICIENT_WALLET 402   ACCOUNT_FROZEN 423   RATE_LIMITED 429
    AI_SERVICE_UNAVAILABLE 503   SERVICE_UNAVAILABLE 503
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connection
from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.utils import translation
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api, ids, rates
from aleph.accounts.models import User
from aleph.problems import InvalidRequest, NotFound, Problem
from aleph.threads import in_thread
from billing import ledger, purchases
from chat import catalogue, live, sessions, turns, viewers
from chat.models import ChatModel, Message, Session

encoded = json.JSONEncoder(ensure_ascii=False).encode
FREE, PAID = "huggingface", "external_llm"
MAX_PAGE = 100


# What goes in and out. Serializers check input and describe both for the OpenAPI document.


class PackageBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    tokens = serializers.IntegerField()
    bonus = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    price = serializers.IntegerField(help_text="Rupiah.")


class BalanceBody(serializers.Serializer[Any]):
    tokens = serializers.IntegerField(help_text="What can be spent: balance minus held.")
    balance = serializers.IntegerField()
    held = serializers.IntegerField(help_text="Reserved for replies in progress.")
    walletBalance = serializers.IntegerField(help_text="Rupiah.")


class PurchaseRequest(serializers.Serializer[Any]):
    packageId = serializers.CharField(max_length=40)


class PurchaseBody(serializers.Serializer[Any]):
    purchaseId = serializers.CharField()
    receiptNumber = serializers.CharField()
    tokensAdded = serializers.IntegerField()
    balance = serializers.IntegerField()
    walletBalance = serializers.IntegerField()


class SessionRequest(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    serviceType = serializers.ChoiceField([FREE, PAID], default=FREE)
    model = serializers.CharField(max_length=60, allow_null=True, required=False, default=None)


class SessionBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    userId = serializers.IntegerField()
    title = serializers.CharField()
    serviceType = serializers.ChoiceField([FREE, PAID])
    model = serializers.CharField(allow_null=True)
    messageCount = serializers.IntegerField()
    totalTokensUsed = serializers.IntegerField()
    lastMessageAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()


class MessageBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    parentId = serializers.CharField(
        allow_null=True,
        help_text="What it was said to. Messages of one parent are branches; a reply to a reply goes on with its text.",
    )
    role = serializers.ChoiceField(["user", "assistant"])
    content = serializers.CharField()
    tokensUsed = serializers.IntegerField()
    createdAt = serializers.DateTimeField()
    state = serializers.CharField(required=False, help_text="Of replies.")
    model = serializers.CharField(required=False)


class SessionsBody(serializers.Serializer[Any]):
    sessions = SessionBody(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class SessionDetailBody(SessionBody):
    messages = MessageBody(many=True)
    earlierCursor = serializers.CharField(allow_null=True)


class DeletionBody(serializers.Serializer[Any]):
    id = serializers.CharField()


class MessageRequest(serializers.Serializer[Any]):
    content = serializers.CharField(max_length=turns.MAX_TEXT, trim_whitespace=False)
    model = serializers.CharField(max_length=60, required=False, help_text="Switches the session's model.")
    parentId = serializers.CharField(
        max_length=ids.LENGTH,
        required=False,
        help_text="The reply that this is said to, by default the newest. An earlier one begins another branch.",
    )


class ReplyBody(serializers.Serializer[Any]):
    messageId = serializers.CharField()
    parentId = serializers.CharField(help_text="The message that it answers.")
    content = serializers.CharField()
    tokensUsed = serializers.IntegerField()
    remainingBalance = serializers.IntegerField()
    state = serializers.ChoiceField(["queued", "streaming", "complete", "stopped", "failed", "interrupted"])
    finishReason = serializers.CharField()
    model = serializers.CharField()
    provider = serializers.CharField()
    answeredBy = serializers.CharField(help_text="The provider's id of the model that really answered.")


class ErrorBody(serializers.Serializer[Any]):
    success = serializers.BooleanField(default=False)
    error = serializers.CharField(help_text="For people, in the language of Accept-Language.")
    code = serializers.CharField(help_text="For programs.")
    data = serializers.DictField()  # type: ignore[assignment]


@cache
def enveloped(body: type[serializers.Serializer[Any]], *, many: bool = False) -> OpenApiResponse:
    name = body.__name__.removesuffix("Body") + ("ListAnswer" if many else "Answer")
    fields = {"success": serializers.BooleanField(default=True), "data": body(many=many)}
    return OpenApiResponse(type(name, (serializers.Serializer,), fields))


def errors(*statuses: int) -> dict[int, type[ErrorBody]]:
    return dict.fromkeys((401, *statuses), ErrorBody)


KEY = {"type": "string", "minLength": 1, "maxLength": 64}
ONCE = "The same key does the same thing once."
IDEMPOTENCY_KEY = OpenApiParameter("Idempotency-Key", KEY, OpenApiParameter.HEADER, description=ONCE)
REQUIRED_KEY = OpenApiParameter(
    "Idempotency-Key", KEY, OpenApiParameter.HEADER, required=True, description=ONCE
)
LIMIT = OpenApiParameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": sessions.PAGE}
)
CURSOR = OpenApiParameter("cursor", str, description="`nextCursor` of the page before.")
AT = OpenApiParameter(
    "at",
    str,
    description="A message: of the branches that it stands on the newest. By default the newest of all.",
)


class BalanceView(APIView):
    @extend_schema(
        operation_id="token_balance", responses={200: enveloped(BalanceBody), **errors()}, tags=["tokens"]
    )
    def get(self, request: Request) -> Response:
        """What you have: tokens and wallet."""
        return api.ok(balance_body(ledger.balance_of(user_of(request))))


class PackagesView(APIView):
    @extend_schema(
        operation_id="token_packages",
        responses={200: enveloped(PackageBody, many=True), **errors()},
        tags=["tokens"],
    )
    def get(self, request: Request) -> Response:
        """Packages of tokens that can be bought."""
        return api.ok(
            [
                {
                    "id": package.slug,
                    "name": package.name,
                    "tokens": package.tokens,
                    "bonus": package.bonus_tokens,
                    "totalTokens": package.total_tokens,
                    "price": package.price_idr,
                }
                for package in purchases.packages()
            ]
        )


class PurchaseView(APIView):
    @extend_schema(
        operation_id="token_purchase",
        request=PurchaseRequest,
        parameters=[REQUIRED_KEY],
        responses={200: enveloped(PurchaseBody), **errors(400, 402, 404, 422, 423, 429, 503)},
        tags=["tokens"],
    )
    def post(self, request: Request) -> Response:
        """Buy a package from the wallet. The header `Idempotency-Key` is required; a repeated key buys once."""
        key = idempotency_key(request)
        if not key:
            raise InvalidRequest(_("Send an Idempotency-Key header, so that a repeated request buys once."))
        wanted = checked(PurchaseRequest, request)
        left = rates.take(request, "purchase")
        purchase = purchases.buy(user=user_of(request), package_slug=wanted["packageId"], key=key)
        now = ledger.balance_of(user_of(request))
        response = api.ok(
            {
                "purchaseId": purchase.pk,
                "receiptNumber": purchase.number,
                "tokensAdded": purchase.total_tokens,
                "balance": now.tokens,
                "walletBalance": now.wallet_idr,
            }
        )
        return rates.noted(response, left)


class SessionsView(APIView):
    @extend_schema(
        operation_id="sessions_list",
        parameters=[LIMIT, CURSOR],
        responses={200: enveloped(SessionsBody), **errors(400)},
        tags=["sessions"],
    )
    def get(self, request: Request) -> Response:
        """Your conversations, newest first."""
        limit = limit_of(request)
        found = sessions.recent(user_of(request), limit=limit + 1, before=cursor_of(request))
        page = found[:limit]
        following = cursor_after(page[-1]) if len(found) > limit else None
        return api.ok({"sessions": [session_body(session) for session in page], "nextCursor": following})

    @extend_schema(
        operation_id="sessions_create",
        request=SessionRequest,
        responses={201: enveloped(SessionBody), **errors(400)},
        tags=["sessions"],
    )
    def post(self, request: Request) -> Response:
        """Begin a conversation. `model` null and `serviceType` huggingface: the free tier."""
        wanted = checked(SessionRequest, request)
        model = chosen_model(wanted["serviceType"], wanted["model"])
        session = sessions.create(user=user_of(request), title=wanted["title"], model=model)
        return api.ok(session_body(session), status=201)


class SessionView(APIView):
    @extend_schema(
        operation_id="sessions_detail",
        parameters=[LIMIT, CURSOR, AT],
        responses={200: enveloped(SessionDetailBody), **errors(400, 404)},
        tags=["sessions"],
    )
    def get(self, request: Request, session_id: str) -> Response:
        """A conversation with the newest messages of a branch, oldest first; `cursor` takes `earlierCursor` for those
        before."""
        session = sessions.get(user_of(request), session_id)
        before = request.query_params.get("cursor") or None
        if before is not None and not ids.is_one(before, "msg"):
            raise InvalidRequest(_("This cursor is not one of ours."))
        at = request.query_params.get("at") or None
        thread = sessions.thread(session, at=at, before=before, limit=limit_of(request))
        return api.ok(
            session_body(session)
            | {"messages": [message_body(m) for m in thread.messages], "earlierCursor": thread.earlier}
        )

    @extend_schema(
        operation_id="sessions_delete",
        responses={200: enveloped(DeletionBody), **errors(404, 409)},
        tags=["sessions"],
    )
    def delete(self, request: Request, session_id: str) -> Response:
        """Delete a conversation and its messages, at once and for good."""
        sessions.delete(sessions.get(user_of(request), session_id))
        return api.ok({"id": session_id})


class EventStreamRenderer(BaseRenderer):
    """Lets `Accept: text/event-stream` through; the stream itself is written by `streamed`."""

    media_type = "text/event-stream"
    format = "stream"

    def render(self, data: Any, *_args: Any) -> bytes:
        return JSONRenderer().render(data)


@dataclass(frozen=True, slots=True)
class Pending:
    """A reply whose answer is awaited: as a stream, or whole; and what is left of the sender's limits. A stream of a
    reply that is over needs no seat."""

    reply: Message
    session: Session
    user: User
    as_stream: bool
    seat: viewers.Seat | None = None
    left: rates.Allowance | None = None


class MessagesView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_create",
        request=MessageRequest,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: enveloped(ReplyBody), **errors(400, 402, 404, 409, 422, 423, 429, 503)},
        tags=["messages"],
    )
    def post(self, request: Request, session_id: str) -> Response:
        """Say something and get the reply: when it is finished, or, with `Accept: text/event-stream`, as events:
        `start`, `delta` (`{"offset", "text"}`: from that character on the text is this one), and at last `done` or
        `error`."""
        wanted = checked(MessageRequest, request)
        user = user_of(request)
        # One question to Redis, before anything is written: whoever is refused has sent nothing.
        seat = viewers.admit(request, "message") if wants_stream(request) else None
        left = seat.left if seat else rates.take(request, "message")
        try:
            turn = turns.start(
                user=user,
                session=sessions.get(user, session_id),
                text=wanted["content"],
                model_slug=wanted.get("model"),
                parent=wanted.get("parentId"),
                turn=idempotency_key(request) or ids.new("trn"),
            )
        except BaseException:
            if seat:
                seat.close()
            raise
        return pending(request, turn.reply, turn.session, seat=seat, left=left)


class MessageView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_detail",
        responses={200: enveloped(ReplyBody), **errors(404, 429)},
        tags=["messages"],
    )
    def get(self, request: Request, session_id: str, message_id: str) -> Response:
        """A reply as it stands; with `Accept: text/event-stream`, from its beginning on, followed to its end."""
        reply = sessions.reply(user_of(request), message_id)
        if reply.session_id != session_id:
            raise NotFound
        if wants_stream(request):
            seat = viewers.admit(request) if reply.is_open else None
            return pending(request, reply, reply.session, seat=seat, left=seat.left if seat else None)
        return api.ok(reply_body(reply, ledger.balance_of(user_of(request)).available))


def pending(
    request: Request,
    reply: Message,
    session: Session,
    *,
    seat: viewers.Seat | None = None,
    left: rates.Allowance | None = None,
) -> Response:
    response = Response()
    waiting = Pending(reply, session, user_of(request), wants_stream(request), seat, left)
    response.pending = waiting  # type: ignore[attr-defined]
    return response


def answer(request: HttpRequest, waiting: Pending) -> HttpResponseBase:
    """The answer to a sent message, as the sender asked for it. An answer that is no stream holds the request's thread
    until it is there, and no database connection."""
    if waiting.as_stream:
        events: AsyncIterable[str] = streamed(waiting)
        if waiting.seat is not None:
            events = viewers.Watched(waiting.seat, waiting.reply.pk, events, farewell=farewell())
        response = StreamingHttpResponse(events, content_type="text/event-stream")
        response["Cache-Control"] = "no-cache"
        response["X-Accel-Buffering"] = "no"
        return rates.noted(response, waiting.left)
    connection.close()
    status, body = async_to_sync(whole)(waiting)
    return rates.noted(JsonResponse(body, status=status), waiting.left)


async def streamed(waiting: Pending) -> AsyncIterator[str]:
    """Server-sent events of a reply: its text exactly once, from the beginning, and how it ended.

    Where text was sent that was lost with its worker, a delta goes back to where it parted from what is stored.
    """
    start = {"sessionId": waiting.session.pk, "messageId": waiting.reply.pk}
    sent = ""
    yield live.event("start", json.dumps(start))
    async with aclosing(live.watch(waiting.reply)) as moments:
        async for moment in moments:
            if moment is None:
                yield ": still here\n\n"
                continue
            if moment.text != sent:
                same = alike(sent, moment.text)
                delta = {"offset": same, "text": moment.text[same:]}
                sent = moment.text
                yield live.event("delta", encoded(delta))
            if moment.is_over:
                _status, body = await outcome(waiting.user, moment.row)
                yield live.event("done" if body["success"] else "error", json.dumps(body, default=str))


def alike(before: str, after: str) -> int:
    """How many characters two texts have in common from their beginning."""
    if after.startswith(before):
        return len(before)
    pairs = enumerate(zip(before, after, strict=False))
    return next((at for at, (one, other) in pairs if one != other), len(after))


def farewell() -> Callable[[Problem], str]:
    """How a stream says that its reader may not go on."""
    language = translation.get_language()

    def said(problem: Problem) -> str:
        with translation.override(language):
            return live.event("error", json.dumps(api.body_of(problem), default=str))

    return said


async def whole(waiting: Pending) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for a reply, once it is over."""
    async with aclosing(live.watch(waiting.reply)) as moments:
        async for moment in moments:
            if moment is not None and moment.is_over:
                return await outcome(waiting.user, moment.row)
    raise AssertionError("a watch ends with the end of the reply")


async def outcome(user: User, reply: Message | None) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for a reply that is over; None for one that was deleted meanwhile."""
    language = translation.get_language()

    def body() -> tuple[int, dict[str, Any]]:
        with translation.override(language):
            if reply is None:
                return 404, api.body_of(NotFound())
            data = reply_body(reply, ledger.balance_of(user).available)
            if reply.state in (Message.State.FAILED, Message.State.INTERRUPTED):
                return 503, api.body_of(turns.ModelUnavailable(data=data))
            return 200, {"success": True, "data": data}

    return await in_thread(body)


# Shapes


def balance_body(balance: ledger.Balance) -> dict[str, int]:
    return {
        "tokens": balance.available,
        "balance": balance.tokens,
        "held": balance.held,
        "walletBalance": balance.wallet_idr,
    }


def session_body(session: Session) -> dict[str, Any]:
    model = session.model
    return {
        "id": session.pk,
        "userId": session.user_id,
        "title": session.title,
        "serviceType": FREE if model is None or model.is_free else PAID,
        "model": model.slug if model else None,
        "messageCount": session.message_count,
        "totalTokensUsed": session.total_tokens_used,
        "lastMessageAt": session.last_message_at if session.message_count else None,
        "createdAt": session.created_at,
    }


def message_body(message: Message) -> dict[str, Any]:
    body = {
        "id": message.pk,
        "parentId": message.parent_id,
        "role": message.role,
        "content": message.content,
        "tokensUsed": message.tokens_used,
        "createdAt": message.created_at,
    }
    if message.is_reply:
        body |= {"state": message.state, "model": message.model.slug if message.model else ""}
    return body


def reply_body(reply: Message, remaining: int) -> dict[str, Any]:
    return {
        "messageId": reply.pk,
        "parentId": reply.parent_id,
        "content": reply.content,
        "tokensUsed": reply.tokens_used,
        "remainingBalance": remaining,
        "state": reply.state,
        "finishReason": reply.finish_reason,
        "model": reply.model.slug if reply.model else "",
        "provider": reply.provider,
        "answeredBy": reply.answered_by,
    }


# Reading requests


def user_of(request: Request) -> User:
    assert isinstance(request.user, User)
    return request.user


def checked(body: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
    serializer = body(data=request.data)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


def wants_stream(request: Request) -> bool:
    renderer = getattr(request, "accepted_renderer", None)
    return renderer is not None and renderer.media_type == EventStreamRenderer.media_type


def idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "").strip()
    if len(key) > 64 or not key.isprintable():
        raise InvalidRequest(_("An Idempotency-Key has at most 64 printable characters."))
    return key


def chosen_model(service_type: str, slug: str | None) -> ChatModel | None:
    """The model that a new session asks for; the service type must fit it."""
    if slug is None:
        if service_type == PAID:
            raise InvalidRequest(_("Choose a model for serviceType external_llm."))
        return None
    model = catalogue.find(slug).model
    if model.is_free != (service_type == FREE):
        raise InvalidRequest(_("This model belongs to the other serviceType."))
    return model


def limit_of(request: Request) -> int:
    raw = request.query_params.get("limit", str(sessions.PAGE))
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 3 and 1 <= int(raw) <= MAX_PAGE):
        raise InvalidRequest(_("The limit is a number from 1 to %(most)d.") % {"most": MAX_PAGE})
    return int(raw)


def cursor_after(session: Session) -> str:
    assert session.last_message_at is not None
    return f"{session.last_message_at.isoformat()}~{session.pk}"


def cursor_of(request: Request) -> tuple[datetime, str] | None:
    raw = request.query_params.get("cursor")
    if not raw:
        return None
    moment, separator, session_id = raw.replace(" ", "+").partition("~")
    try:
        parsed = parse_datetime(moment)
        in_utc = parsed.astimezone(UTC) if parsed is not None and parsed.tzinfo is not None else None
    except (ValueError, OverflowError):
        in_utc = None
    if not separator or in_utc is None or not ids.is_one(session_id, "cht"):
        raise InvalidRequest(_("This cursor is not one of ours."))
    return in_utc, session_id
