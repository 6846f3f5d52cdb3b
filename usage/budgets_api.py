"""Budgets for programs, below /api/v1/budgets: one's own, those of one's keys, and those of companies that one administers.

Errors: UNAUTHENTICATED 401, NOT_FOUND 404, INVALID_REQUEST 400, CONFLICT 409 for one too many, FORBIDDEN 403 for what
staff have set.
"""

from decimal import Decimal
from typing import Any

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from aleph import api
from aleph.api import checked, enveloped, errors, user_of
from usage import budget_terms, budgets
from usage.budget_terms import HIGHEST_THRESHOLD, MOST_THRESHOLDS, USUAL_THRESHOLDS
from usage.budgets import Action, Every, Unit
from usage.models import Budget

LATER = "What loosens holds from the next day on, in the budget's time zone."


class TermsRequest(serializers.Serializer[Any]):
    limit = serializers.DecimalField(
        max_digits=30,
        decimal_places=12,
        max_value=Decimal(10**18),
        min_value=Decimal("1E-12"),
        required=False,
        help_text="Aleph tokens, or US dollars of what calls cost.",
    )
    action = serializers.ChoiceField(Action.values, required=False)
    thresholds = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=HIGHEST_THRESHOLD),
        max_length=MOST_THRESHOLDS,
        required=False,
        help_text="Percent of the limit at which you are told.",
    )


class BudgetRequest(TermsRequest):
    unit = serializers.ChoiceField(Unit.values)
    period = serializers.ChoiceField(Every.values)
    limit = serializers.DecimalField(
        max_digits=30,
        decimal_places=12,
        max_value=Decimal(10**18),
        min_value=Decimal("1E-12"),
        help_text="Aleph tokens, or US dollars of what calls cost.",
    )
    action = serializers.ChoiceField(Action.values, default=Action.BLOCK)
    apiKeyId = serializers.IntegerField(
        min_value=1, max_value=2**53, required=False, help_text="For what comes with this key of yours."
    )
    companyId = serializers.IntegerField(
        min_value=1,
        max_value=2**53,
        required=False,
        help_text="For all members of a company that you administer.",
    )


class BudgetBody(serializers.Serializer[Any]):
    id = serializers.CharField()
    scope = serializers.ChoiceField(["user", "key", "company"])
    apiKeyId = serializers.IntegerField(allow_null=True)
    companyId = serializers.IntegerField(allow_null=True)
    unit = serializers.ChoiceField(Unit.values)
    period = serializers.ChoiceField(Every.values)
    limit = serializers.CharField(help_text="An exact decimal, like all amounts here.")
    spent = serializers.CharField()
    reserved = serializers.CharField(help_text="What replies in progress can cost.")
    remaining = serializers.CharField()
    periodStart = serializers.DateTimeField()
    periodEnd = serializers.DateTimeField()
    action = serializers.ChoiceField(Action.values, help_text="What happens at the limit.")
    thresholds = serializers.ListField(child=serializers.IntegerField())
    nextLimit = serializers.CharField(allow_null=True)
    nextAction = serializers.CharField(allow_null=True)
    nextFrom = serializers.DateTimeField(allow_null=True, help_text=LATER)
    endsAt = serializers.DateTimeField(allow_null=True)
    setByStaff = serializers.BooleanField(help_text="You cannot change it then.")


class BudgetsView(APIView):
    @extend_schema(
        operation_id="budgets_list",
        responses={200: enveloped(BudgetBody, many=True), **errors()},
        tags=["budgets"],
    )
    def get(self, request: Request) -> Response:
        """Your budgets, those of your keys, and those of companies that you administer."""
        return api.ok([body_of(budget) for budget in budget_terms.of(user_of(request), timezone.now())])

    @extend_schema(
        operation_id="budgets_create",
        request=BudgetRequest,
        responses={201: enveloped(BudgetBody), **errors(400, 404, 409)},
        tags=["budgets"],
    )
    def post(self, request: Request) -> Response:
        """Set a budget, which holds at once. Without `apiKeyId` and `companyId` it is for everything that you do."""
        wanted = checked(BudgetRequest, request)
        user = user_of(request)
        key_id, company_id = wanted.get("apiKeyId"), wanted.get("companyId")
        budget = budget_terms.create(
            author=user,
            unit=wanted["unit"],
            every=wanted["period"],
            limit=budget_terms.amount_of(wanted["unit"], wanted["limit"]),
            action=wanted["action"],
            thresholds=wanted.get("thresholds", USUAL_THRESHOLDS),
            api_key=budget_terms.key_of(user, key_id) if key_id else None,
            company=budget_terms.company_of(user, company_id) if company_id else None,
        )
        return api.ok(body_of(budget), status=201)


class BudgetView(APIView):
    @extend_schema(
        operation_id="budgets_detail",
        responses={200: enveloped(BudgetBody), **errors(404)},
        tags=["budgets"],
    )
    def get(self, request: Request, budget_id: str) -> Response:
        """A budget, and how its current period stands."""
        return api.ok(body_of(budget_terms.get(user_of(request), budget_id)))

    @extend_schema(
        operation_id="budgets_update",
        request=TermsRequest,
        responses={200: enveloped(BudgetBody), **errors(400, 403, 404)},
        tags=["budgets"],
        description=f"Change what is given. What tightens holds at once. {LATER}",
    )
    def patch(self, request: Request, budget_id: str) -> Response:
        wanted = checked(TermsRequest, request)
        budget = budget_terms.get(user_of(request), budget_id)
        limit = wanted.get("limit")
        changed = budget_terms.change(
            budget,
            limit=None if limit is None else budget_terms.amount_of(budget.unit, limit),
            action=wanted.get("action"),
            thresholds=wanted.get("thresholds"),
        )
        return api.ok(body_of(changed))

    @extend_schema(
        operation_id="budgets_end",
        responses={200: enveloped(BudgetBody), **errors(403, 404)},
        tags=["budgets"],
        description="End a budget with this day.",
    )
    def delete(self, request: Request, budget_id: str) -> Response:
        return api.ok(body_of(budget_terms.end(budget_terms.get(user_of(request), budget_id))))


def body_of(budget: Budget) -> dict[str, Any]:
    """How it stands; where its period is over and nothing has begun since, as the next one will begin."""
    now = timezone.now()
    standing = budget_terms.standing_of(budget, now)
    limit = budgets.limit_at(budget, now)
    waits = budget.later_at is not None and budget.later_at > now
    return {
        "id": budget.pk,
        "scope": budget.scope,
        "apiKeyId": budget.api_key_id,
        "companyId": budget.company_id,
        "unit": budget.unit,
        "period": budget.every,
        "limit": budgets.plain(budget, limit),
        "spent": budgets.plain(budget, standing.spent),
        "reserved": budgets.plain(budget, standing.reserved),
        "remaining": budgets.plain(budget, max(0, limit - standing.spent - standing.reserved)),
        "periodStart": standing.starts_at,
        "periodEnd": standing.ends_at,
        "action": budgets.action_at(budget, now),
        "thresholds": budget.thresholds,
        "nextLimit": budgets.plain(budget, budget.later_limit) if waits and budget.later_limit else None,
        "nextAction": budget.later_action or None if waits else None,
        "nextFrom": budget.later_at if waits else None,
        "endsAt": budget.ended_at,
        "setByStaff": budget.is_by_staff,
    }
