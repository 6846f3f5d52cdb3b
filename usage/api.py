"""The JSON API of usage: what sources S2, S3 and S4 ask for, about the asker's own calls.

Bodies and field names are the sources' and are not wrapped; errors have the envelope of all our errors. Costs are numbers
of US dollars as the sources show them, rounded to a millionth, with the exact decimals beside them as texts.
"""

from collections.abc import Iterable
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django.utils.dateparse import parse_date
from django.utils.translation import gettext_lazy as _
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph.accounts.models import User
from aleph.api import errors, user_of
from aleph.problems import InvalidRequest, NotFound
from usage import history
from usage.history import Tally, Wanted
from usage.models import TokenUsage

MAX_PAGE = 100
USUAL_PAGE = 50
SPANS = {"day": 1, "week": 7, "month": 30}
TIMEFRAMES = {**SPANS, "quarter": 90, "year": 365, "all": None}
LONGEST_SPAN = 366
DAY_LENGTH = len("2026-11-22")
MILLIONTH = Decimal("0.000001")
STATUSES = list(TokenUsage.Status.values)
KINDS = list(history.LOGGED)


# What goes out


class OperationStatsBody(serializers.Serializer[Any]):
    operation = serializers.CharField()
    count = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    totalCost = serializers.FloatField()
    totalCostExact = serializers.CharField()


class ModelStatsBody(serializers.Serializer[Any]):
    provider = serializers.CharField()
    model = serializers.CharField()
    count = serializers.IntegerField()
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    totalCost = serializers.FloatField()
    totalCostExact = serializers.CharField()


class TokenStatsBody(serializers.Serializer[Any]):
    userId = serializers.IntegerField()
    totalInputTokens = serializers.IntegerField()
    totalOutputTokens = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    totalCost = serializers.FloatField(help_text="US dollars.")
    totalCostExact = serializers.CharField()
    unpricedCalls = serializers.IntegerField(
        help_text="Calls that the costs lack: nobody knows their price yet."
    )
    byOperation = OperationStatsBody(many=True)
    byModel = ModelStatsBody(many=True)


class CallBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    userId = serializers.IntegerField()
    operation = serializers.CharField()
    operationId = serializers.CharField(allow_null=True)
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    cachedTokens = serializers.IntegerField(
        allow_null=True, help_text="Part of the input. Null: nobody said."
    )
    reasoningTokens = serializers.IntegerField(allow_null=True, help_text="Part of the output.")
    totalTokens = serializers.IntegerField()
    modelProvider = serializers.CharField()
    modelId = serializers.CharField(help_text="The id that the provider answered with.")
    inputCost = serializers.FloatField(allow_null=True)
    outputCost = serializers.FloatField(allow_null=True)
    totalCost = serializers.FloatField(allow_null=True)
    cost = serializers.FloatField(
        allow_null=True, help_text="The same as totalCost. Null: its price is not known."
    )
    costExact = serializers.CharField(allow_null=True)
    tokensCharged = serializers.IntegerField(help_text="Prepaid tokens that were taken for it.")
    status = serializers.ChoiceField(STATUSES)
    estimated = serializers.BooleanField()
    latencyMs = serializers.IntegerField(allow_null=True)
    timeToFirstTokenMs = serializers.IntegerField(allow_null=True)
    metadata = serializers.DictField()
    createdAt = serializers.DateTimeField()


class HistoryBody(serializers.Serializer[Any]):
    usage = CallBody(many=True)
    nextCursor = serializers.CharField(allow_null=True)


class PeriodBody(serializers.Serializer[Any]):
    date = serializers.DateField()
    tokens = serializers.IntegerField()
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    calls = serializers.IntegerField()
    cost = serializers.FloatField()
    costExact = serializers.CharField()


class PeriodsBody(serializers.Serializer[Any]):
    period = serializers.ChoiceField(list(SPANS))
    data = PeriodBody(many=True)  # type: ignore[assignment]


class TotalsBody(serializers.Serializer[Any]):
    calls = serializers.IntegerField()
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    cachedTokens = serializers.IntegerField()
    reasoningTokens = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    cost = serializers.FloatField()
    costExact = serializers.CharField()
    unpricedCalls = serializers.IntegerField()


class UsageBody(serializers.Serializer[Any]):
    timeframe = serializers.ChoiceField(list(TIMEFRAMES))
    first = serializers.DateField(allow_null=True, help_text="The first day, null for all time.")
    last = serializers.DateField()
    totals = TotalsBody()
    byModel = ModelStatsBody(many=True)
    byOperation = OperationStatsBody(many=True)


class UsageLogBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    companyId = serializers.CharField(allow_null=True)
    type = serializers.ChoiceField(KINDS)
    provider = serializers.CharField()
    model = serializers.CharField()
    inputTokens = serializers.IntegerField()
    outputTokens = serializers.IntegerField()
    totalTokens = serializers.IntegerField()
    metadata = serializers.DictField()
    createdAt = serializers.DateTimeField()


class UsageLogStatsBody(serializers.Serializer[Any]):
    total = serializers.IntegerField()
    training = serializers.IntegerField()
    autoResponse = serializers.IntegerField()


class UsageLogsBody(serializers.Serializer[Any]):
    logs = UsageLogBody(many=True)
    stats = UsageLogStatsBody(help_text="Tokens of the whole log, whatever type is asked for.")
    nextCursor = serializers.CharField(allow_null=True)


def text(name: str, description: str = "") -> OpenApiParameter:
    return OpenApiParameter(name, {"type": "string", "maxLength": 120}, description=description)


DAY = {"type": "string", "format": "date"}
LIMIT = OpenApiParameter(
    "limit", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": USUAL_PAGE}
)
CURSOR = OpenApiParameter("cursor", str, description="`nextCursor` of the page before.")
FROM = OpenApiParameter("from", DAY, description="The first day, in your time zone.")
TO = OpenApiParameter("to", DAY, description="The last day, included.")
FILTERS = [
    text("operation"),
    text("model", "The id that answered, or the one that was asked for."),
    text("provider"),
    text("session", "Calls of one chat."),
    OpenApiParameter("status", {"type": "string", "enum": STATUSES}),
    FROM,
    TO,
]


class StatsView(APIView):
    @extend_schema(
        operation_id="tokens_stats",
        parameters=[FROM, TO],
        responses={200: OpenApiResponse(TokenStatsBody), **errors(400)},
        tags=["usage"],
    )
    def get(self, request: Request) -> Response:
        """All that you used, by operation and by model. Single calls are kept for about a year; of days before that, whole
        months are counted."""
        user = user_of(request)
        first, last = days_of(request)
        found = history.tallies(user, first, last)
        whole = found.whole
        return Response(
            {
                "userId": user.pk,
                "totalInputTokens": whole.input_tokens,
                "totalOutputTokens": whole.output_tokens,
                "totalTokens": whole.total_tokens,
                **total_cost(whole),
                "unpricedCalls": whole.unpriced,
                "byOperation": operations_body(found.by_operation),
                "byModel": models_body(found.by_model),
            }
        )


class HistoryView(APIView):
    @extend_schema(
        operation_id="tokens_history",
        parameters=[LIMIT, CURSOR, *FILTERS],
        responses={200: OpenApiResponse(HistoryBody), **errors(400)},
        tags=["usage"],
    )
    def get(self, request: Request) -> Response:
        """Your calls, newest first."""
        user = user_of(request)
        found = history.page(user, wanted_of(request), limit=limit_of(request), before=cursor_of(request))
        return Response(
            {"usage": [call_body(call) for call in found.calls], "nextCursor": found.older or None}
        )


class PeriodsView(APIView):
    @extend_schema(
        operation_id="tokens_usage_by_period",
        parameters=[
            OpenApiParameter("period", {"type": "string", "enum": list(SPANS), "default": "week"}),
            OpenApiParameter(
                "by",
                {"type": "string", "enum": list(SPANS), "default": "day"},
                description="One row for each day, week (its Monday) or month (its first day).",
            ),
            FROM,
            TO,
        ],
        responses={200: OpenApiResponse(PeriodsBody), **errors(400)},
        tags=["usage"],
    )
    def get(self, request: Request) -> Response:
        """What you used on each day of a period that ends today: 1, 7 or 30 days; or of the days from `from` to `to`, at most a
        year. Days without a call are there, too."""
        user = user_of(request)
        period, by = one_of(request, "period", SPANS, "week"), one_of(request, "by", SPANS, "day")
        first, last = days_of(request)
        last = last or history.today(user)
        first = first or last - timedelta(days=SPANS[period] - 1)
        if not 0 <= (last - first).days < LONGEST_SPAN:
            raise InvalidRequest(_("Ask for at most a year, from its first day to its last."))
        days = history.summed(history.by_day(user, first, last), by=by)
        return Response({"period": period, "data": [period_body(day, tally) for day, tally in days]})


class UsageView(APIView):
    @extend_schema(
        operation_id="usage", responses={200: OpenApiResponse(UsageBody), **errors()}, tags=["usage"]
    )
    def get(self, request: Request) -> Response:
        """What you used in the last 30 days, and what it cost, by model and by operation."""
        return usage_of(user_of(request), "month")


class TimeframeView(APIView):
    @extend_schema(
        operation_id="usage_timeframe",
        parameters=[
            OpenApiParameter("timeframe", {"type": "string", "enum": list(TIMEFRAMES)}, OpenApiParameter.PATH)
        ],
        responses={200: OpenApiResponse(UsageBody), **errors(404)},
        tags=["usage"],
    )
    def get(self, request: Request, timeframe: str) -> Response:
        """What you used today, in the last 7, 30, 90 or 365 days, or ever."""
        if timeframe not in TIMEFRAMES:
            raise NotFound
        return usage_of(user_of(request), timeframe)


class UsageLogsView(APIView):
    @extend_schema(
        operation_id="usage_logs",
        parameters=[OpenApiParameter("type", {"type": "string", "enum": KINDS}), CURSOR],
        responses={200: OpenApiResponse(UsageLogsBody), **errors(400)},
        tags=["usage"],
    )
    def get(self, request: Request) -> Response:
        """Calls that trained on documents or answered by themselves, newest first, 50 a page: yours, and all of the companies
        that you administer."""
        found = history.log(
            user_of(request),
            kind=one_of(request, "type", history.LOGGED, ""),
            before=cursor_of(request),
        )
        training, answers = found.tokens["TRAINING"], found.tokens["AUTO_RESPONSE"]
        return Response(
            {
                "logs": [log_body(call) for call in found.page.calls],
                "stats": {"total": training + answers, "training": training, "autoResponse": answers},
                "nextCursor": found.page.older or None,
            }
        )


def usage_of(user: User, timeframe: str) -> Response:
    days, last = TIMEFRAMES[timeframe], history.today(user)
    first = None if days is None else last - timedelta(days=days - 1)
    found = history.tallies(user, first)
    whole = found.whole
    totals = {
        "calls": whole.calls,
        "inputTokens": whole.input_tokens,
        "outputTokens": whole.output_tokens,
        "cachedTokens": whole.cached_tokens,
        "reasoningTokens": whole.reasoning_tokens,
        "totalTokens": whole.total_tokens,
        "cost": number(whole.cost_usd),
        "costExact": exact(whole.cost_usd),
        "unpricedCalls": whole.unpriced,
    }
    return Response(
        {
            "timeframe": timeframe,
            "first": first,
            "last": last,
            "totals": totals,
            "byModel": models_body(found.by_model),
            "byOperation": operations_body(found.by_operation),
        }
    )


# Shapes


def number(usd: Decimal | None) -> float | None:
    """For display only, as the sources have it: whoever calculates takes the text beside it."""
    return None if usd is None else float(usd.quantize(MILLIONTH))


def exact(usd: Decimal | None) -> str | None:
    return None if usd is None else f"{usd.normalize():f}"


def total_cost(tally: Tally) -> dict[str, Any]:
    return {"totalCost": number(tally.cost_usd), "totalCostExact": exact(tally.cost_usd)}


def operations_body(tallies: Iterable[tuple[str, Tally]]) -> list[dict[str, Any]]:
    return [
        {
            "operation": operation,
            "count": tally.calls,
            "totalTokens": tally.total_tokens,
            **total_cost(tally),
        }
        for operation, tally in tallies
    ]


def models_body(tallies: Iterable[tuple[tuple[str, str], Tally]]) -> list[dict[str, Any]]:
    return [
        {
            "provider": provider,
            "model": model,
            "count": tally.calls,
            "inputTokens": tally.input_tokens,
            "outputTokens": tally.output_tokens,
            "totalTokens": tally.total_tokens,
            **total_cost(tally),
        }
        for (provider, model), tally in tallies
    ]


def period_body(day: date, tally: Tally) -> dict[str, Any]:
    return {
        "date": day,
        "tokens": tally.total_tokens,
        "inputTokens": tally.input_tokens,
        "outputTokens": tally.output_tokens,
        "calls": tally.calls,
        "cost": number(tally.cost_usd),
        "costExact": exact(tally.cost_usd),
    }


def call_body(call: TokenUsage) -> dict[str, Any]:
    return {
        "id": call.pk,
        "userId": call.user_id,
        "operation": call.operation,
        "operationId": call.metadata.get("operation_id", call.operation_id) or None,
        "inputTokens": call.input_tokens,
        "outputTokens": call.output_tokens,
        "cachedTokens": call.cache_read_tokens,
        "reasoningTokens": call.reasoning_tokens,
        "totalTokens": call.total_tokens,
        "modelProvider": call.provider,
        "modelId": call.model,
        "inputCost": number(call.input_usd),
        "outputCost": number(call.output_usd),
        "totalCost": number(call.cost_usd),
        "cost": number(call.cost_usd),
        "costExact": exact(call.cost_usd),
        "tokensCharged": call.charged_tokens,
        "status": call.status,
        "estimated": call.is_estimated,
        "latencyMs": call.latency_ms,
        "timeToFirstTokenMs": call.first_token_ms,
        "metadata": metadata_body(call),
        "createdAt": call.created_at,
    }


def log_body(call: TokenUsage) -> dict[str, Any]:
    kinds = {operation: kind for kind, operation in history.LOGGED.items()}
    return {
        "id": call.pk,
        "companyId": None if call.company_id is None else str(call.company_id),
        "type": kinds[call.operation],
        "provider": call.provider,
        "model": call.model,
        "inputTokens": call.input_tokens,
        "outputTokens": call.output_tokens,
        "totalTokens": call.total_tokens,
        "metadata": metadata_body(call),
        "createdAt": call.created_at,
    }


def metadata_body(call: TokenUsage) -> dict[str, Any]:
    """What the owner gave with the call, and its chat. The rest is ours: ids and measures of the provider."""
    given = call.metadata.get("given")
    return (given if isinstance(given, dict) else {}) | ({"session": call.session} if call.session else {})


# Reading requests


def wanted_of(request: Request) -> Wanted:
    first, last = days_of(request)
    return Wanted(
        **{name: text_of(request, name) for name in ("operation", "model", "provider", "session")},
        status=one_of(request, "status", STATUSES, ""),
        first=first,
        last=last,
    )


def text_of(request: Request, name: str) -> str:
    given = request.query_params.get(name, "")
    if len(given) > 120 or "\x00" in given:
        raise InvalidRequest(_("The filter %(name)s makes no sense.") % {"name": name})
    return given


def one_of(request: Request, name: str, choices: Iterable[str], usual: str) -> str:
    given = request.query_params.get(name)
    if given is None:
        return usual
    if given not in choices:
        raise InvalidRequest(
            _("%(name)s is one of %(choices)s.") % {"name": name, "choices": ", ".join(choices)}
        )
    return given


def days_of(request: Request) -> tuple[date | None, date | None]:
    first, last = (day_of(request, name) for name in ("from", "to"))
    if first and last and last < first:
        raise InvalidRequest(_("The last day comes before the first."))
    return first, last


def day_of(request: Request, name: str) -> date | None:
    given = request.query_params.get(name)
    if given is None:
        return None
    try:
        day = parse_date(given) if len(given) == DAY_LENGTH else None
    except ValueError:
        day = None
    if day is None or not 2000 <= day.year <= 2200:
        raise InvalidRequest(_("%(name)s is a day like 2026-11-22.") % {"name": name})
    return day


def limit_of(request: Request) -> int:
    given = request.query_params.get("limit", str(USUAL_PAGE))
    if not (given.isascii() and given.isdigit() and len(given) <= 3 and 1 <= int(given) <= MAX_PAGE):
        raise InvalidRequest(_("The limit is a number from 1 to %(most)d.") % {"most": MAX_PAGE})
    return int(given)


def cursor_of(request: Request) -> str:
    return request.query_params.get("cursor", "")
