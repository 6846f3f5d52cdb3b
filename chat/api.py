"""The JSON API of chat and tokens below /api/v1/chat/: the eight endpoints of source S0, and what a reply needs besides:
to come back to it, to have another in its place, to have its rest, to stop it.

Who depends on it: programs of our users, with an API key or a session. Bodies and field names are binding; errors:

    UNAUTHENTICATED 401   NOT_FOUND 404   INVALID_REQUEST 400   CONFLICT 409   IDEMPOTENCY_MISMATCH 422
    INSUFFICIENT_TOKENS 402   INSUFFICIENT_WALLET 402   ACCOUNT_FROZEN 423   RATE_LIMITED 429   PROMO_REFUSED 400
    AI_SERVICE_UNAVAILABLE 503   SERVICE_UNAVAILABLE 503   IMAGES_NOT_TAKEN 400   TEMPERATURE_NOT_TAKEN 400
    BUDGET_EXCEEDED 429
"""

import json
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from asgiref.sync import async_to_sync
from django.db import connection
from django.http import HttpRequest, HttpResponseBase, JsonResponse
from django.utils import translation
from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.parsers import MultiPartParser
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api, ids, rates
from aleph.accounts.models import User
from aleph.api import (
    IDEMPOTENCY_KEY,
    REQUIRED_KEY,
    checked,
    enveloped,
    errors,
    idempotency_key,
    user_of,
)
from aleph.problems import InvalidRequest, NotFound, Problem
from aleph.threads import in_thread
from billing import ledger, purchases, receipts
from chat import attachments, catalogue, live, sessions, turns, viewers
from chat.models import HIGHEST_TEMPERATURE, Attachment, ChatModel, Message, Session
from usage import budgets

encoded = json.JSONEncoder(ensure_ascii=False).encode
FREE, PAID = "huggingface", "external_llm"
MAX_PAGE = 100
MOST_IMAGES = attachments.MOST
ASKED_AT = "That a reply was asked at. Null: its model takes none."
REUSED = "Whether the reply is an earlier one of yours to the same request. It cost nothing then."
REUSED_FROM = "The earlier reply. It may be deleted by now."


# What goes in and out. Serializers check input and describe both for the OpenAPI document.


def temperature_field(**how: Any) -> serializers.DecimalField:
    return serializers.DecimalField(
        max_digits=3,
        decimal_places=2,
        min_value=0,
        max_value=HIGHEST_TEMPERATURE,
        coerce_to_string=False,
        allow_null=True,
        **how,
    )


class QuantityDiscountBody(serializers.Serializer[Any]):
    fromQuantity = serializers.IntegerField()
    percent = serializers.IntegerField(help_text="Off the list price of all of them.")


class PackageBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    tokens = serializers.IntegerField()
    bonus = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    price = serializers.IntegerField(help_text="Rupiah.")
    quantityDiscounts = QuantityDiscountBody(many=True)


class BalanceBody(serializers.Serializer[Any]):
    tokens = serializers.IntegerField(help_text="What can be spent: balance minus held.")
    balance = serializers.IntegerField()
    bonus = serializers.IntegerField(help_text="What of the balance was given away. It is used first.")
    held = serializers.IntegerField(help_text="Reserved for replies in progress.")
    walletBalance = serializers.IntegerField(help_text="Rupiah.")


class PurchaseRequest(serializers.Serializer[Any]):
    packageId = serializers.CharField(max_length=40)
    quantity = serializers.IntegerField(
        min_value=1, max_value=purchases.MAX_QUANTITY, required=False, default=1
    )
    promoCode = serializers.CharField(max_length=60, required=False, allow_blank=True, default="")
    maxPrice = serializers.IntegerField(
        min_value=1,
        max_value=2**53,
        required=False,
        allow_null=True,
        default=None,
        help_text="Rupiah. If it would cost more, nothing is bought: 409.",
    )


class ReceiptLineBody(serializers.Serializer[Any]):
    text = serializers.CharField(help_text="In the language of Accept-Language.")
    tokens = serializers.IntegerField(allow_null=True)
    price = serializers.IntegerField(help_text="Rupiah; discounts are below zero.")


class ReceiptBody(serializers.Serializer[Any]):
    """What was bought, as the receipt says it. It never changes."""

    number = serializers.CharField()
    packageId = serializers.CharField()
    quantity = serializers.IntegerField()
    listPrice = serializers.IntegerField()
    quantityDiscount = serializers.IntegerField()
    promoCode = serializers.CharField(allow_blank=True)
    promoDiscount = serializers.IntegerField()
    price = serializers.IntegerField(help_text="Rupiah that were paid.")
    tokens = serializers.IntegerField()
    bonus = serializers.IntegerField()
    walletBefore = serializers.IntegerField()
    walletAfter = serializers.IntegerField()
    tokensBefore = serializers.IntegerField()
    tokensAfter = serializers.IntegerField()
    lines = ReceiptLineBody(many=True)
    createdAt = serializers.DateTimeField()


class PurchaseBody(serializers.Serializer[Any]):
    purchaseId = serializers.CharField()
    receiptNumber = serializers.CharField()
    tokensAdded = serializers.IntegerField()
    balance = serializers.IntegerField()
    walletBalance = serializers.IntegerField()
    receipt = ReceiptBody()


class SessionRequest(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=120, required=False, allow_blank=True, default="")
    serviceType = serializers.ChoiceField([FREE, PAID], default=FREE)
    model = serializers.CharField(max_length=60, allow_null=True, required=False, default=None)
    temperature = temperature_field(
        required=False,
        default=None,
        help_text="Of all replies that say nothing else. Null: the usual one, 0.7.",
    )


class SessionBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    userId = serializers.IntegerField()
    title = serializers.CharField()
    serviceType = serializers.ChoiceField([FREE, PAID])
    model = serializers.CharField(allow_null=True)
    temperature = temperature_field(help_text="Null: the usual one, 0.7.")
    messageCount = serializers.IntegerField()
    totalTokensUsed = serializers.IntegerField()
    lastMessageAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()


class AttachmentRequest(serializers.Serializer[Any]):
    image = serializers.FileField(help_text="PNG, JPEG or WebP, at most 10 MB and 50 million pixels.")


class AttachmentBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    name = serializers.CharField()
    mediaType = serializers.ChoiceField(["image/png", "image/jpeg"])
    width = serializers.IntegerField()
    height = serializers.IntegerField()
    sizeBytes = serializers.IntegerField()
    expiresAt = serializers.DateTimeField(allow_null=True, help_text="Of a draft; null once it was sent.")


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
    temperature = temperature_field(required=False, help_text=ASKED_AT)
    reused = serializers.BooleanField(required=False, help_text=REUSED)
    reusedFrom = serializers.CharField(required=False, help_text=REUSED_FROM)
    attachments = AttachmentBody(many=True, required=False, help_text="Images of a message of yours.")


class SessionsBody(serializers.Serializer[Any]):
    sessions = SessionBody(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class SessionDetailBody(SessionBody):
    messages = MessageBody(many=True)
    earlierCursor = serializers.CharField(allow_null=True)


class DeletionBody(serializers.Serializer[Any]):
    id = serializers.CharField()


class AgainRequest(serializers.Serializer[Any]):
    model = serializers.CharField(
        max_length=60, required=False, help_text="Switches the session's model. By default that of the reply."
    )
    terms = serializers.CharField(
        max_length=120,
        required=False,
        help_text=(
            "The price that you know of the model: `id:input rate:output rate`, in tokens per 1,000. At another one"
            " nothing begins, and the answer is CONFLICT."
        ),
    )
    maxCost = serializers.IntegerField(
        min_value=1,
        max_value=2**53,
        required=False,
        allow_null=True,
        help_text=(
            "Tokens that the reply may cost. No more is held or charged, and the reply is cut off there; where that is too"
            " little for a useful one, nothing begins, and the answer is CONFLICT."
        ),
    )
    temperature = temperature_field(
        required=False,
        default=None,
        help_text=(
            "For this reply only; by default the session’s, and of another reply, or the rest of one, that of the reply. To a"
            " model that takes none the answer is TEMPERATURE_NOT_TAKEN."
        ),
    )


class EditRequest(AgainRequest):
    content = serializers.CharField(
        max_length=turns.MAX_TEXT,
        trim_whitespace=False,
        allow_blank=True,
        help_text="May be empty where an image goes with it.",
    )
    model = serializers.CharField(max_length=60, required=False, help_text="Switches the session's model.")
    attachments = serializers.ListField(
        child=serializers.CharField(max_length=ids.LENGTH),
        max_length=MOST_IMAGES,
        required=False,
        help_text="Ids of images that were uploaded. To a model that takes none the answer is IMAGES_NOT_TAKEN.",
    )
    reuse = serializers.BooleanField(
        required=False,
        default=True,
        help_text=(
            "At temperature 0, where you have turned on “Reuse my own answers” in your settings, the reply to a request that"
            " you have made before is the earlier one, at no cost. False: the model is asked."
        ),
    )


class MessageRequest(EditRequest):
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
    temperature = temperature_field(help_text=ASKED_AT)
    reused = serializers.BooleanField(help_text=REUSED)
    reusedFrom = serializers.CharField(required=False, help_text=REUSED_FROM)
    retryAfter = serializers.IntegerField(
        required=False, help_text="Seconds until a provider that was too busy wants to be tried again."
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
        offered = purchases.packages()
        steps = purchases.steps(offered)
        return api.ok(
            [
                {
                    "id": package.slug,
                    "name": package.name,
                    "tokens": package.tokens,
                    "bonus": package.bonus_tokens,
                    "totalTokens": package.total_tokens,
                    "price": package.price_idr,
                    "quantityDiscounts": [
                        {"fromQuantity": step.from_quantity, "percent": step.percent}
                        for step in steps.get(package.pk, [])
                    ],
                }
                for package in offered
            ]
        )


class PurchaseView(APIView):
    @extend_schema(
        operation_id="token_purchase",
        request=PurchaseRequest,
        parameters=[REQUIRED_KEY],
        responses={200: enveloped(PurchaseBody), **errors(400, 402, 404, 409, 422, 423, 429, 503)},
        tags=["tokens"],
    )
    def post(self, request: Request) -> Response:
        """Buy a package, or several of it, from the wallet. The header `Idempotency-Key` is required; a repeated key buys
        once. A promo code that does not hold buys nothing: 400 `PROMO_REFUSED`, and `data.reason` says why."""
        key = idempotency_key(request)
        if not key:
            raise InvalidRequest(_("Send an Idempotency-Key header, so that a repeated request buys once."))
        wanted = checked(PurchaseRequest, request)
        left = rates.take(request, "purchase")
        purchase = purchases.buy(
            user=user_of(request),
            package_slug=wanted["packageId"],
            quantity=wanted["quantity"],
            promo_code=wanted["promoCode"],
            most_idr=wanted["maxPrice"],
            key=key,
        )
        now = ledger.balance_of(user_of(request))
        response = api.ok(
            {
                "purchaseId": purchase.pk,
                "receiptNumber": purchase.number,
                "tokensAdded": purchase.total_tokens,
                "balance": now.tokens,
                "walletBalance": now.wallet_idr,
                "receipt": receipt_body(purchase, wanted["packageId"]),
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
        session = sessions.create(
            user=user_of(request),
            title=wanted["title"],
            model=model,
            temperature=wanted["temperature"],
        )
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
        images = attachments.of(thread.messages)
        return api.ok(
            session_body(session)
            | {
                "messages": [message_body(m, images.get(m.pk, ())) for m in thread.messages],
                "earlierCursor": thread.earlier,
            }
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


class AttachmentsView(APIView):
    parser_classes = [MultiPartParser]

    @extend_schema(
        operation_id="attachments_create",
        request={"multipart/form-data": AttachmentRequest},
        responses={201: enveloped(AttachmentBody), **errors(400, 413, 415, 429, 503)},
        tags=["attachments"],
    )
    def post(self, request: Request) -> Response:
        """Upload an image to send with a message. It is written anew, without anything but its pixels, and waits for a day;
        of an animation the first picture is kept."""
        left = rates.take(request, "upload")
        upload = request.FILES.get("image")
        image = attachments.add(user=user_of(request), upload=upload)
        return rates.noted(api.ok(attachment_body(image), status=201), left)


class AttachmentView(APIView):
    @extend_schema(
        operation_id="attachments_detail",
        responses={200: enveloped(AttachmentBody), **errors(404)},
        tags=["attachments"],
    )
    def get(self, request: Request, attachment_id: str) -> Response:
        """An image of yours."""
        return api.ok(attachment_body(attachments.get(user_of(request), attachment_id)))

    @extend_schema(
        operation_id="attachments_delete",
        responses={200: enveloped(DeletionBody), **errors(404)},
        tags=["attachments"],
    )
    def delete(self, request: Request, attachment_id: str) -> Response:
        """Throw away an image that was not sent. What was sent goes with its conversation."""
        image = attachments.get(user_of(request), attachment_id)
        if image.session_id is not None:
            raise NotFound
        attachments.remove(user_of(request), attachment_id)
        return api.ok({"id": attachment_id})


class EventStreamRenderer(BaseRenderer):
    """Lets `Accept: text/event-stream` through; the stream itself is written by `streamed`."""

    media_type = "text/event-stream"
    format = "stream"

    def render(self, data: Any, *_args: Any) -> bytes:
        return JSONRenderer().render(data)


@dataclass(frozen=True, slots=True)
class Pending:
    """A reply whose answer is awaited: as a stream, or whole; and what is left of the sender's limits. A stream of a
    reply that is over needs no seat. `budget` is what the tightest one has left, where the reply began just now."""

    reply: Message
    session: Session
    user: User
    as_stream: bool
    seat: viewers.Seat | None = None
    left: rates.Allowance | None = None
    budget: budgets.Left | None = None


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
        return begun(
            request,
            lambda turn: turns.start(
                user=user,
                session=sessions.get(user, session_id),
                text=wanted["content"],
                model_slug=wanted.get("model"),
                terms=wanted.get("terms"),
                most=wanted.get("maxCost"),
                parent=wanted.get("parentId"),
                attachments=wanted.get("attachments", ()),
                temperature=wanted["temperature"],
                may_reuse=wanted["reuse"],
                turn=turn,
                key_id=key_id_of(request),
            ),
        )


class MessageView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_detail",
        responses={200: enveloped(ReplyBody), **errors(404, 429)},
        tags=["messages"],
    )
    def get(self, request: Request, session_id: str, message_id: str) -> Response:
        """A reply as it stands; with `Accept: text/event-stream`, from its beginning on, followed to its end."""
        reply = reply_in(session_id, message_id, request)
        if wants_stream(request):
            seat = viewers.admit(request) if reply.is_open else None
            return pending(request, reply, reply.session, seat=seat, left=seat.left if seat else None)
        return api.ok(reply_body(reply, ledger.balance_of(user_of(request)).available))


class EditsView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_edit",
        request=EditRequest,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: enveloped(ReplyBody), **errors(400, 402, 404, 409, 422, 423, 429, 503)},
        tags=["messages"],
    )
    def post(self, request: Request, session_id: str, message_id: str) -> Response:
        """Say something else in the place of a message of yours, the first one included, and get the reply, as for a message.
        What was said before stays, as a branch."""
        wanted = checked(EditRequest, request)
        user = user_of(request)
        old = sessions.message(user, message_id)
        if old.session_id != session_id:
            raise NotFound
        return begun(
            request,
            lambda turn: turns.edit(
                user=user,
                message_id=old.pk,
                text=wanted["content"],
                model_slug=wanted.get("model"),
                terms=wanted.get("terms"),
                most=wanted.get("maxCost"),
                attachments=wanted.get("attachments"),
                temperature=wanted["temperature"],
                may_reuse=wanted["reuse"],
                turn=turn,
                key_id=key_id_of(request),
            ),
        )


class RetriesView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_retry",
        request=AgainRequest,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: enveloped(ReplyBody), **errors(400, 402, 404, 409, 422, 423, 429, 503)},
        tags=["messages"],
    )
    def post(self, request: Request, session_id: str, message_id: str) -> Response:
        """Another reply in the place of this one, by the same model or another; this one stays, as a branch."""
        return asked_again(request, session_id, message_id, turns.retry)


class ContinuationsView(APIView):
    renderer_classes = [JSONRenderer, EventStreamRenderer]

    @extend_schema(
        operation_id="messages_continue",
        request=AgainRequest,
        parameters=[IDEMPOTENCY_KEY],
        responses={200: enveloped(ReplyBody), **errors(400, 402, 404, 409, 422, 423, 429, 503)},
        tags=["messages"],
    )
    def post(self, request: Request, session_id: str, message_id: str) -> Response:
        """The rest of a reply that was cut off or stopped: a reply of its own, whose text follows that of its parent. What
        stands there is read once more, and only the rest is paid as output."""
        return asked_again(request, session_id, message_id, turns.go_on)


class StopsView(APIView):
    @extend_schema(
        operation_id="messages_stop",
        request=None,
        responses={200: enveloped(ReplyBody), **errors(404)},
        tags=["messages"],
    )
    def post(self, request: Request, session_id: str, message_id: str) -> Response:
        """End a reply that is being written; what was written is kept and paid. It ends within a moment; one that is over
        stays as it is."""
        user = user_of(request)
        reply = turns.stop(user=user, reply_id=reply_in(session_id, message_id, request).pk)
        return api.ok(reply_body(reply, ledger.balance_of(user).available))


def asked_again(
    request: Request, session_id: str, message_id: str, act: Callable[..., turns.Turn]
) -> Response:
    wanted = checked(AgainRequest, request)
    old = reply_in(session_id, message_id, request)
    return begun(
        request,
        lambda turn: act(
            user=user_of(request),
            reply_id=old.pk,
            model_slug=wanted.get("model"),
            terms=wanted.get("terms"),
            most=wanted.get("maxCost"),
            temperature=wanted["temperature"],
            turn=turn,
            key_id=key_id_of(request),
        ),
    )


def begun(request: Request, admit: Callable[[str], turns.Turn]) -> Response:
    """Admit a turn under the id that the request brings, or one of its own; its reply is awaited."""
    # One question to Redis, before anything is written: whoever is refused has sent nothing.
    seat = viewers.admit(request, "message") if wants_stream(request) else None
    left = seat.left if seat else rates.take(request, "message")
    try:
        turn = admit(idempotency_key(request) or ids.new("trn"))
    except BaseException:
        if seat:
            seat.close()
        raise
    return pending(request, turn.reply, turn.session, seat=seat, left=left, budget=turn.budget)


def pending(
    request: Request,
    reply: Message,
    session: Session,
    *,
    seat: viewers.Seat | None = None,
    left: rates.Allowance | None = None,
    budget: budgets.Left | None = None,
) -> Response:
    response = Response()
    waiting = Pending(reply, session, user_of(request), wants_stream(request), seat, left, budget)
    response.pending = waiting  # type: ignore[attr-defined]
    return response


def answer(request: HttpRequest, waiting: Pending) -> HttpResponseBase:
    """The answer to a sent message, as the sender asked for it. An answer that is no stream holds the request's thread
    until it is there, and no database connection."""
    if waiting.as_stream:
        events: AsyncIterable[str] = streamed(waiting)
        if waiting.seat is not None:
            events = viewers.Watched(waiting.seat, waiting.reply.pk, events, farewell=farewell())
        response = live.EventStream(events)
        return budgets.noted(rates.noted(response, waiting.left), waiting.budget)
    connection.close()
    status, body = async_to_sync(whole)(waiting)
    whole_answer = JsonResponse(body, status=status)
    if wait_s := body["data"].get("retryAfter"):
        whole_answer["Retry-After"] = str(wait_s)
    return budgets.noted(rates.noted(whole_answer, waiting.left), waiting.budget)


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
                wait_s = reply.retry_in_s
                busy = turns.ModelBusy(wait_s, data) if wait_s else turns.ModelUnavailable(data=data)
                return busy.status, api.body_of(busy)
            return 200, {"success": True, "data": data}

    return await in_thread(body)


# Shapes


def receipt_body(purchase: "purchases.Purchase", package_id: str) -> dict[str, Any]:
    return {
        "number": purchase.number,
        "packageId": package_id,
        "quantity": purchase.quantity,
        "listPrice": purchase.list_price_idr,
        "quantityDiscount": purchase.quantity_discount_idr,
        "promoCode": purchase.promo_code,
        "promoDiscount": purchase.promo_discount_idr,
        "price": purchase.price_idr,
        "tokens": purchase.tokens,
        "bonus": purchase.bonus_tokens,
        "walletBefore": purchase.wallet_before_idr,
        "walletAfter": purchase.wallet_after_idr,
        "tokensBefore": purchase.tokens_before,
        "tokensAfter": purchase.tokens_after,
        "lines": [
            {"text": line.label, "tokens": line.tokens, "price": line.price_idr}
            for line in receipts.lines_of(purchase)
        ],
        "createdAt": purchase.created_at,
    }


def balance_body(balance: ledger.Balance) -> dict[str, int]:
    return {
        "tokens": balance.available,
        "balance": balance.tokens,
        "held": balance.held,
        "bonus": balance.bonus,
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
        "temperature": number(session.temperature),
        "messageCount": session.message_count,
        "totalTokensUsed": session.total_tokens_used,
        "lastMessageAt": session.last_message_at if session.message_count else None,
        "createdAt": session.created_at,
    }


def attachment_body(attachment: Attachment) -> dict[str, Any]:
    return {
        "id": attachment.pk,
        "name": attachment.name,
        "mediaType": attachment.media_type,
        "width": attachment.width,
        "height": attachment.height,
        "sizeBytes": attachment.size_bytes,
        "expiresAt": attachment.expires_at,
    }


def message_body(message: Message, images: Sequence[Attachment] = ()) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": message.pk,
        "parentId": message.parent_id,
        "role": message.role,
        "content": message.content,
        "tokensUsed": message.tokens_used,
        "createdAt": message.created_at,
    }
    if message.is_reply:
        body |= {"state": message.state, "model": message.model.slug if message.model else ""}
        body |= asked_body(message)
    elif images:
        body |= {"attachments": [attachment_body(image) for image in images]}
    return body


def reply_body(reply: Message, remaining: int) -> dict[str, Any]:
    wait = {"retryAfter": reply.retry_in_s} if reply.retry_in_s else {}
    return wait | {
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
        **asked_body(reply),
    }


def asked_body(reply: Message) -> dict[str, Any]:
    """At which temperature a reply was asked for, or that it was not."""
    earlier = {"reusedFrom": reply.reused_from} if reply.reused_from else {}
    return {"temperature": number(reply.temperature), "reused": bool(reply.reused_from), **earlier}


def number(temperature: Decimal | None) -> float | None:
    """As JSON has numbers, and as providers take it."""
    return None if temperature is None else float(temperature)


# Reading requests


def reply_in(session_id: str, message_id: str, request: Request) -> Message:
    """A reply of the asker's in this session. Raises `NotFound`."""
    reply = sessions.reply(user_of(request), message_id)
    if reply.session_id != session_id:
        raise NotFound
    return reply


def key_id_of(request: Request) -> int | None:
    """The API key that a request came with, by which budgets of keys count."""
    key = api.key_of(request)
    return key.pk if key else None


def wants_stream(request: Request) -> bool:
    renderer = getattr(request, "accepted_renderer", None)
    return renderer is not None and renderer.media_type == EventStreamRenderer.media_type


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
