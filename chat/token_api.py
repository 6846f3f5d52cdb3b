"""What a prompt would have in LLM tokens and cost us in USD, and what is known of a model: the two endpoints of source S1.

Who depends on it: programs that ask before they call. Bodies are S1's, without the envelope of the other endpoints, and
errors are the envelope's. S1 knew one model, `gemini-1.5-flash`; its figures stay as S1 has them, and it is what is
meant where no model is named. Every other one is a model of the catalogue, with the estimate that learns.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, ClassVar

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.fields import empty
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph.api import checked, errors
from chat import catalogue, turns
from usage import calibration, estimate, pricing

MODEL = "gemini-1.5-flash"
CHARACTERS_PER_TOKEN = 4
INSTRUCTIONS_TOKENS, REFERENCE_TOKENS = 32, 125
"""What S1's service adds to a prompt: instructions of about 128 characters, and references of about 500 each."""

USD_PLACES = Decimal("1E-6")
METHOD = f"~{CHARACTERS_PER_TOKEN} characters per token"
LEARNT_METHOD = "kind of text, learnt from earlier calls"
NOTE = "Pricing dan limits bersifat approximate"


class AsTyped:
    """Takes no other type of JSON for its own: REST framework would read 0 as a text, and "1" as a number."""

    types: ClassVar[tuple[type, ...]]

    def run_validation(self, data: Any = empty) -> Any:
        if data is not empty and type(data) not in self.types:
            self.fail("invalid")  # type: ignore[attr-defined]
        return super().run_validation(data)  # type: ignore[misc]


class Text(AsTyped, serializers.CharField):
    types = (str,)


class YesOrNo(AsTyped, serializers.BooleanField):
    types = (bool,)


class Share(AsTyped, serializers.FloatField):
    types = (int, float)


class Number(AsTyped, serializers.IntegerField):
    types = (int,)


class EstimateRequest(serializers.Serializer[Any]):
    prompt = Text(max_length=turns.MAX_TEXT, trim_whitespace=False)
    context = Text(  # type: ignore[assignment]
        max_length=turns.MAX_TEXT, trim_whitespace=False, required=False, allow_blank=True, default=""
    )
    useRAG = YesOrNo(required=False, default=False)
    ragSimilarityThreshold = Share(min_value=0, max_value=1, required=False, default=0.7)
    maxRAGReferences = Number(min_value=0, max_value=50, required=False, default=3)
    model = Text(max_length=60, required=False, default=MODEL)


class EstimateBody(serializers.Serializer[Any]):
    estimated_input_tokens = serializers.IntegerField()
    estimated_cost_usd = serializers.FloatField(
        allow_null=True, help_text="USD, to six places; null where the model has no price."
    )
    model_name = serializers.CharField()
    note = serializers.CharField()


class PricingBody(serializers.Serializer[Any]):
    input_tokens_per_1k = serializers.CharField(allow_null=True, help_text="For example $0.00015.")
    output_tokens_per_1k = serializers.CharField(allow_null=True)
    currency = serializers.CharField()


class LimitsBody(serializers.Serializer[Any]):
    max_input_tokens = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField()


class InfoBody(serializers.Serializer[Any]):
    model = serializers.CharField()
    pricing = PricingBody()
    limits = LimitsBody()
    estimation_method = serializers.CharField()
    note = serializers.CharField()


class PlainNumbersRenderer(JSONRenderer):
    """Writes the cost as a number in the way that people write it: 0.000064, and not 6.4e-05."""

    COST = re.compile(rb'"estimated_cost_usd":"([\d.]+)"')

    def render(self, data: Any, *args: Any, **kwargs: Any) -> bytes:
        return self.COST.sub(rb'"estimated_cost_usd":\1', super().render(data, *args, **kwargs))


@dataclass(frozen=True, slots=True)
class Known:
    """A model as these endpoints tell of it. Prices in USD for a million LLM tokens, None where nobody knows them."""

    name: str
    input_usd: Decimal | None
    output_usd: Decimal | None
    max_input_tokens: int
    max_output_tokens: int
    method: str


OF_S1 = Known(MODEL, Decimal("0.15"), Decimal("0.60"), 1_048_576, 8_192, METHOD)


class EstimateView(APIView):
    renderer_classes = [PlainNumbersRenderer]

    @extend_schema(
        operation_id="estimate_tokens",
        request=EstimateRequest,
        responses={200: EstimateBody, **errors(400)},
        tags=["tokens"],
    )
    def post(self, request: Request) -> Response:
        """What a prompt would have in LLM tokens, and cost at the provider. Calls nobody and charges nothing."""
        wanted = checked(EstimateRequest, request)
        texts = [wanted["prompt"], wanted["context"]]
        tokens = INSTRUCTIONS_TOKENS
        if wanted["useRAG"]:
            tokens += REFERENCE_TOKENS * wanted["maxRAGReferences"]
        if wanted["model"] == MODEL:
            tokens += -(-sum(map(len, texts)) // CHARACTERS_PER_TOKEN)
        else:
            sizes = estimate.together(estimate.sizes(text) for text in texts)
            tokens += calibration.measure_of(wanted["model"]).likely(sizes)
        known = known_as(wanted["model"], input_tokens=tokens)
        cost = None if known.input_usd is None else known.input_usd * tokens / pricing.MILLION
        return Response(
            {
                "estimated_input_tokens": tokens,
                "estimated_cost_usd": None
                if cost is None
                else f"{cost.quantize(USD_PLACES, ROUND_HALF_UP):f}",
                "model_name": known.name,
                "note": f"Estimation based on {known.method}. Actual usage may vary.",
            }
        )


class InfoView(APIView):
    @extend_schema(
        operation_id="token_info",
        parameters=[OpenApiParameter("model", str, description=f"By default {MODEL}.")],
        responses={200: InfoBody, **errors(400)},
        tags=["tokens"],
    )
    def get(self, request: Request) -> Response:
        """What a model costs at the provider, and how much it takes and writes."""
        known = known_as(request.query_params.get("model") or MODEL)
        return Response(
            {
                "model": known.name,
                "pricing": {
                    "input_tokens_per_1k": per_1k(known.input_usd),
                    "output_tokens_per_1k": per_1k(known.output_usd),
                    "currency": "USD",
                },
                "limits": {
                    "max_input_tokens": known.max_input_tokens,
                    "max_output_tokens": known.max_output_tokens,
                },
                "estimation_method": known.method,
                "note": NOTE,
            }
        )


def known_as(name: str, *, input_tokens: int = 0) -> Known:
    """A model by its name in the catalogue, at the price of now for a prompt of this size: that of the first provider that
    has one, of those that would be asked, or would be if they were connected. Raises `UnknownModel`."""
    if name == MODEL:
        return OF_S1
    offer = catalogue.find(name)
    model = offer.model
    routes = offer.routes or model.routes.filter(is_enabled=True).order_by("position", "pk")
    now = timezone.now()
    prices = (
        pricing.price_at(route.provider, route.upstream_model, now, input_tokens=input_tokens)
        for route in routes
    )
    price = next(filter(None, prices), None)
    return Known(
        name=model.slug,
        input_usd=price.input_usd_per_million if price else None,
        output_usd=price.output_usd_per_million if price else None,
        max_input_tokens=model.context_tokens - model.max_output_tokens,
        max_output_tokens=model.max_output_tokens,
        method=LEARNT_METHOD,
    )


def per_1k(usd_per_million: Decimal | None) -> str | None:
    return None if usd_per_million is None else f"${(usd_per_million / 1000).normalize():f}"
