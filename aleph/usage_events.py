"""`POST /api/v1/usage/events`: other software reports its calls, with counts or with the raw answer of a provider.

It stands in the roof because it wires two rooms: the adapters' readers of counts (`chat.providers.counts`) and the log of
usage (`usage.events`). Each item is answered for itself. One that has an id is never dropped: what cannot be read becomes
a dead letter that staff see.
"""

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext as _
from drf_spectacular.utils import PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api, rates
from aleph.api import enveloped, errors, user_of
from aleph.problems import InvalidRequest
from chat.providers import counts as readers
from chat.providers.base import Counts
from usage import events, meter
from usage.events import Call, Event

MOST = 1000
MOST_TOKENS = readers.MOST_TOKENS
LONGEST_ID = 128
LONGEST_METADATA = 4096
COUNTS = ("inputTokens", "outputTokens")

Reader = Callable[[Mapping[str, Any]], Counts | None]


def _openai(answer: Mapping[str, Any]) -> Counts | None:
    return readers.read(answer.get("usage"))


def _anthropic(answer: Mapping[str, Any]) -> Counts | None:
    message = answer.get("message")
    return readers.read_anthropic((message if isinstance(message, dict) else answer).get("usage"))


def _gemini(answer: Mapping[str, Any]) -> Counts | None:
    return readers.read_gemini(answer.get("usageMetadata"))


def _n8n(answer: Mapping[str, Any]) -> Counts | None:
    return readers.read_any(answer.get("usage"))


FORMATS: dict[str, Reader] = {
    **dict.fromkeys(
        ("openai", "deepseek", "cerebras", "together", "openrouter", "huggingface", "compatible"), _openai
    ),
    "anthropic": _anthropic,
    "gemini": _gemini,
    "ollama": lambda answer: readers.read_ollama(answer),
    "tgi": lambda answer: readers.read_tgi(answer.get("details")),
    "n8n": _n8n,
}


class EventRequest(serializers.Serializer[Any]):
    id = serializers.CharField(max_length=LONGEST_ID, help_text="Yours. The same id counts once.")
    operation = serializers.RegexField(r"^[a-z][a-z0-9_]{0,39}$", help_text="Such as presentation_generate.")
    operationId = serializers.CharField(max_length=64, required=False, default="", allow_blank=True)
    provider = serializers.CharField(max_length=40)
    model = serializers.CharField(
        max_length=120, required=False, help_text="By default that of the response."
    )
    inputTokens = serializers.IntegerField(
        min_value=0, max_value=MOST_TOKENS, required=False, help_text="All of them, cached ones included."
    )
    outputTokens = serializers.IntegerField(
        min_value=0, max_value=MOST_TOKENS, required=False, help_text="All of them, reasoning included."
    )
    cachedTokens = serializers.IntegerField(min_value=0, max_value=MOST_TOKENS, required=False)
    reasoningTokens = serializers.IntegerField(min_value=0, max_value=MOST_TOKENS, required=False)
    response = serializers.DictField(
        required=False, help_text="In the place of counts: the provider's whole answer, or its last event."
    )
    format = serializers.CharField(
        max_length=40,
        required=False,
        help_text=f"Whose answer it is, by default the provider's: {', '.join(FORMATS)}.",
    )
    estimated = serializers.BooleanField(required=False, default=False)
    status = serializers.ChoiceField(meter.Status.values, required=False, default="complete")
    latencyMs = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False)
    timeToFirstTokenMs = serializers.IntegerField(min_value=0, max_value=2**31 - 1, required=False)
    createdAt = serializers.DateTimeField(
        required=False, help_text="When it happened: it is priced as of then."
    )
    metadata = serializers.DictField(required=False, help_text="Yours. Put no words of a prompt there.")


class EventsRequest(serializers.Serializer[Any]):
    events = EventRequest(many=True, help_text=f"At most {MOST}.")


class EventResultBody(serializers.Serializer[Any]):
    id = serializers.CharField(allow_null=True)
    status = serializers.ChoiceField(["recorded", "duplicate", "mismatch", "dead_lettered", "rejected"])
    usageId = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)


class EventsBody(serializers.Serializer[Any]):
    recorded = serializers.IntegerField()
    duplicates = serializers.IntegerField()
    mismatches = serializers.IntegerField(help_text="The id was used before, for something else.")
    deadLettered = serializers.IntegerField(
        help_text="Kept for people to look at. May be sent again, mended."
    )
    rejected = serializers.IntegerField(help_text="Without an id nothing can be kept.")
    results = EventResultBody(many=True)


class EventsView(APIView):
    @extend_schema(
        operation_id="usage_events",
        request=PolymorphicProxySerializer(
            component_name="ReportedCalls",
            serializers=[EventRequest, EventsRequest],
            resource_type_field_name=None,
        ),
        responses={200: enveloped(EventsBody), **errors(400, 413, 415, 429)},
        tags=["usage"],
    )
    def post(self, request: Request) -> Response:
        """Report calls that your software made elsewhere: one event, or `{"events": [...]}` with at most 1,000. An event has `id`,
        `operation`, `provider`, `model`, and either `inputTokens` and `outputTokens` or the provider's `response`. Each is
        answered for itself, in their order."""
        items = items_of(request.data)
        left = rates.take(request, "event")
        read = [event_of(item) for item in items]
        kept = iter(
            events.record(user=user_of(request), events=[event for event in read if isinstance(event, Event)])
        )
        results = [result_body(next(kept)) if isinstance(event, Event) else rejected(event) for event in read]
        count = [result["status"] for result in results].count
        return rates.noted(
            api.ok(
                {
                    "recorded": count("recorded"),
                    "duplicates": count("duplicate"),
                    "mismatches": count("mismatch"),
                    "deadLettered": count("dead_lettered"),
                    "rejected": count("rejected"),
                    "results": results,
                }
            ),
            left,
        )


def items_of(data: Any) -> list[Any]:
    """The events of a body: its own, or those of its list. Raises `InvalidRequest`."""
    if not isinstance(data, dict):
        raise InvalidRequest(_("Send one event, or a list of them as events."))
    items = data.get("events", [data])
    if not isinstance(items, list) or not 1 <= len(items) <= MOST:
        raise InvalidRequest(_("Send between 1 and %(most)d events.") % {"most": MOST})
    return items


def event_of(item: Any) -> Event | str:
    """An item as an event; without an id to keep it by, why not."""
    given = item.get("id") if isinstance(item, dict) else None
    if not isinstance(given, str) or not 1 <= len(given) <= LONGEST_ID or not given.isprintable():
        return _("An event needs an id of its own, at most 128 printable characters.")
    checked = EventRequest(data=item)
    if not checked.is_valid():
        reason = "; ".join(f"{name}: {_first(wrong)}" for name, wrong in checked.errors.items())
        return Event(given, item, reason=reason)
    told = checked.validated_data
    try:
        return Event(given, item, call=call_of(told))
    except Unreadable as problem:
        return Event(given, item, reason=str(problem))


class Unreadable(Exception):
    """Why an event says nothing that could be counted."""


def call_of(told: dict[str, Any]) -> Call:
    answer = told.get("response")
    counts, is_whole = counts_in(told) if answer is None else counts_of(told, answer)
    model = told.get("model") or (answer and (answer.get("model") or answer.get("modelVersion"))) or ""
    if not isinstance(model, str) or not model:
        raise Unreadable(_("The model is not said."))
    happened_at = told.get("createdAt")
    if happened_at is not None and happened_at > timezone.now() + timedelta(days=1):
        raise Unreadable(_("It has not happened yet."))
    metadata = told.get("metadata", {})
    if len(json.dumps(metadata, default=str)) > LONGEST_METADATA:
        raise Unreadable(_("The metadata is larger than 4 KB."))
    source = meter.Source.REPORTED if is_whole else meter.Source.PARTIAL
    return Call(
        operation=told["operation"],
        operation_id=told["operationId"],
        provider=told["provider"],
        model=model,
        counts=counts,
        source=meter.Source.ESTIMATED if told["estimated"] else source,
        status=told["status"],
        happened_at=happened_at,
        first_token_ms=told.get("timeToFirstTokenMs"),
        latency_ms=told.get("latencyMs"),
        metadata=metadata,
    )


def counts_in(told: dict[str, Any]) -> tuple[meter.Counts, bool]:
    """Counts that are told as such: totals, and the parts of them that are known."""
    if any(name not in told for name in COUNTS):
        raise Unreadable(_("Say inputTokens and outputTokens, or send the response."))
    cached, reasoning = told.get("cachedTokens"), told.get("reasoningTokens")
    fresh, visible = told["inputTokens"] - (cached or 0), told["outputTokens"] - (reasoning or 0)
    if fresh < 0 or visible < 0:
        raise Unreadable(_("A part is larger than the whole."))
    counted = meter.Counts(fresh_input=fresh, cache_read=cached, visible_output=visible, reasoning=reasoning)
    return counted, True


def counts_of(told: dict[str, Any], answer: dict[str, Any]) -> tuple[meter.Counts, bool]:
    """Counts in a provider's own answer, and whether he counted input and output."""
    name = told.get("format") or told["provider"]
    reader = FORMATS.get(name)
    if reader is None:
        raise Unreadable(_("The format %(name)s is not known.") % {"name": name[:40]})
    found = reader(answer)
    if found is None or (found.provider_input is None and found.provider_output is None):
        raise Unreadable(_("There are no counts in this response."))
    counted = meter.Counts(
        fresh_input=found.fresh_input,
        cache_read=found.cache_read,
        cache_write=found.cache_write,
        cache_write_1h=found.cache_write_1h,
        visible_output=found.visible_output,
        reasoning=found.reasoning,
        flagged=found.flagged,
    )
    return counted, found.provider_input is not None and found.provider_output is not None


def result_body(result: events.Result) -> dict[str, Any]:
    error = result.reason
    if result.status == "mismatch":
        error = _("This id was already used for something else.")
    return {
        "id": result.event_id,
        "status": result.status,
        "usageId": result.usage_id or None,
        "error": error or None,
    }


def rejected(reason: str) -> dict[str, Any]:
    return {"id": None, "status": "rejected", "usageId": None, "error": reason}


def _first(wrong: Any) -> str:
    """The first thing that is said of a field, however deep."""
    while isinstance(wrong, list | dict) and wrong:
        wrong = next(iter(wrong.values())) if isinstance(wrong, dict) else wrong[0]
    return str(wrong)
