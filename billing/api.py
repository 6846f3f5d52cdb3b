"""The JSON API of the wallet: top-ups, below /api/v1/wallet/.

Who depends on it: programs of our users, with an API key or a session. A program opens a top-up and leads its user to
`paymentUrl`; whether it was paid is asked for here, and never told by where somebody comes back to. Errors:

    UNAUTHENTICATED 401   NOT_FOUND 404   INVALID_REQUEST 400   IDEMPOTENCY_MISMATCH 422   ACCOUNT_FROZEN 423
    RATE_LIMITED 429   GATEWAY_UNAVAILABLE 503   SERVICE_UNAVAILABLE 503
"""

from typing import Any

from django.conf import settings
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api, rates
from aleph.api import REQUIRED_KEY, checked, enveloped, errors, idempotency_key, user_of
from aleph.problems import InvalidRequest
from billing import topups
from billing.models import TopUp


class TopUpRequest(serializers.Serializer[Any]):
    amount = serializers.IntegerField(min_value=1, max_value=10**12, help_text="Rupiah.")
    method = serializers.CharField(
        max_length=20,
        required=False,
        help_text="Who takes the payment; the first one on offer by default. A wrong one is answered with those on offer.",
    )


class TopUpBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    state = serializers.ChoiceField(TopUp.State.values)
    method = serializers.CharField()
    amount = serializers.IntegerField(help_text="Rupiah.")
    refunded = serializers.IntegerField(help_text="Rupiah that went back to the payer.")
    paymentUrl = serializers.CharField(
        allow_null=True, help_text="Where it is paid, as long as it can be. Null while it is being prepared."
    )
    expiresAt = serializers.DateTimeField()
    paidAt = serializers.DateTimeField(allow_null=True)
    createdAt = serializers.DateTimeField()


class TopUpsBody(serializers.Serializer[Any]):
    topups = TopUpBody(many=True)
    nextCursor = serializers.CharField(allow_null=True)


CURSOR = OpenApiParameter("cursor", str, description="`nextCursor` of the page before.")


class TopUpsView(APIView):
    @extend_schema(
        operation_id="topups_list",
        parameters=[CURSOR],
        responses={200: enveloped(TopUpsBody), **errors()},
        tags=["wallet"],
    )
    def get(self, request: Request) -> Response:
        """Your top-ups, newest first."""
        found = topups.recent(user_of(request), before=request.query_params.get("cursor"))
        return api.ok({"topups": [topup_body(topup) for topup in found.topups], "nextCursor": found.older})

    @extend_schema(
        operation_id="topups_create",
        request=TopUpRequest,
        parameters=[REQUIRED_KEY],
        responses={201: enveloped(TopUpBody), **errors(400, 422, 423, 429, 503)},
        tags=["wallet"],
    )
    def post(self, request: Request) -> Response:
        """Begin a top-up. The header `Idempotency-Key` is required; a repeated key begins one."""
        key = idempotency_key(request)
        if not key:
            raise InvalidRequest(_("Send an Idempotency-Key header, so that a repeated request pays once."))
        wanted = checked(TopUpRequest, request)
        offered = [method.name for method in topups.methods()]
        gateway = wanted.get("method") or next(iter(offered), "")
        if gateway not in offered:
            raise topups.NoSuchMethod(data={"methods": offered})
        left = rates.take(request, "topup")
        begun = topups.start(user=user_of(request), amount_idr=wanted["amount"], gateway=gateway, key=key)
        return rates.noted(api.ok(topup_body(begun), status=201), left)


class TopUpView(APIView):
    @extend_schema(
        operation_id="topups_read",
        responses={200: enveloped(TopUpBody), **errors(404)},
        tags=["wallet"],
    )
    def get(self, request: Request, topup_id: str) -> Response:
        """What became of a top-up."""
        return api.ok(topup_body(topups.get(user_of(request), topup_id)))


def topup_body(topup: TopUp) -> dict[str, Any]:
    url = topup.pay_url if topup.state == TopUp.State.PENDING else ""
    return {
        "id": topup.pk,
        "state": topup.state,
        "method": topup.gateway,
        "amount": topup.amount_idr,
        "refunded": topup.refunded_idr,
        "paymentUrl": (f"{settings.PUBLIC_URL}{url}" if url.startswith("/") else url) or None,
        "expiresAt": topup.expires_at,
        "paidAt": topup.paid_at,
        "createdAt": topup.created_at,
    }
