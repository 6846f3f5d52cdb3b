"""The JSON API of the history: `GET /api/v1/billing/transactions`, the books' transfers of its user, newest first.

Who depends on it: programs of our users, with an API key or a session. Days are days of the user's time zone. Errors:

    UNAUTHENTICATED 401   INVALID_REQUEST 400
"""

import zoneinfo
from typing import Any

from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api, ids
from aleph.api import enveloped, errors, user_of
from aleph.problems import InvalidRequest
from billing import statements
from billing.models import Transfer, Unit

MAX_PAGE = 100
DIRECTIONS = (statements.IN, statements.OUT)


class TransactionBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    kind = serializers.ChoiceField(Transfer.Kind.values)
    unit = serializers.ChoiceField(Unit.values)
    amount = serializers.IntegerField(help_text="Whole tokens or whole rupiah; below zero where they went.")
    balanceAfter = serializers.IntegerField()
    reference = serializers.CharField(help_text="What it was for: the id of a reply, a purchase or a top-up.")
    reason = serializers.CharField(help_text="Of adjustments and refunds.")
    createdAt = serializers.DateTimeField()


class TransactionsBody(serializers.Serializer[Any]):
    transactions = TransactionBody(many=True)
    nextCursor = serializers.CharField(allow_null=True)


DAY = {"type": "string", "format": "date"}
PARAMETERS = [
    OpenApiParameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": statements.PAGE}
    ),
    OpenApiParameter("cursor", str, description="`nextCursor` of the page before."),
    OpenApiParameter("unit", str, enum=Unit.values),
    OpenApiParameter("kind", str, enum=Transfer.Kind.values),
    OpenApiParameter("direction", str, enum=DIRECTIONS),
    OpenApiParameter("from", DAY, description="The first day, in your time zone."),
    OpenApiParameter("to", DAY, description="The last day."),
]


class TransactionsView(APIView):
    @extend_schema(
        operation_id="transactions_list",
        parameters=PARAMETERS,
        responses={200: enveloped(TransactionsBody), **errors(400)},
        tags=["billing"],
    )
    def get(self, request: Request) -> Response:
        """What changed your tokens and your wallet, newest first. What is held is no change yet."""
        said = request.query_params
        user = user_of(request)
        wanted = statements.Filter.read(said.dict(), zoneinfo.ZoneInfo(user.time_zone))
        # A page takes what makes no sense as nothing; a program is told.
        for name, understood in (
            ("unit", wanted.unit),
            ("kind", wanted.kind),
            ("direction", wanted.direction),
            ("from", wanted.since),
            ("to", wanted.until),
        ):
            if name in said and not understood:
                raise InvalidRequest(_("%(name)s is not one that we know.") % {"name": name})
        cursor = said.get("cursor")
        if cursor and not ids.is_one(cursor, "trf"):
            raise InvalidRequest(_("This cursor is not one of ours."))
        found = statements.transactions(user, wanted=wanted, cursor=cursor, limit=limit_of(request))
        return api.ok(
            {"transactions": [body_of(entry) for entry in found.entries], "nextCursor": found.older}
        )


def body_of(entry: statements.Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "kind": entry.kind,
        "unit": entry.unit,
        "amount": entry.amount,
        "balanceAfter": entry.balance_after,
        "reference": entry.reference,
        "reason": entry.reason,
        "createdAt": entry.at,
    }


def limit_of(request: Request) -> int:
    raw = request.query_params.get("limit", str(statements.PAGE))
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 3 and 1 <= int(raw) <= MAX_PAGE):
        raise InvalidRequest(_("The limit is a number from 1 to %(most)d.") % {"most": MAX_PAGE})
    return int(raw)
