"""The pages of budgets: how each stands, a form for another one, and one page for each with its terms and its history."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, cast

from django import forms
from django.contrib import messages
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from aleph.accounts.models import ApiKey, User
from aleph.pages import page
from aleph.problems import Problem
from usage import budget_terms, budgets, limit_field
from usage.budgets import Action, Every, Scope, Unit
from usage.limit_field import LimitField
from usage.models import Budget, BudgetPeriod

PERIODS_SHOWN = 12
NEARLY = 80
"""Percent of a limit from which on its meter warns."""
MINE = "me"


@dataclass(frozen=True, slots=True)
class Meter:
    """How far a limit is used up, in percent of the width: what is spent, and with that what is held. `marks` are the
    thresholds below the limit; `tone` is "", warn or bad."""

    spent: str
    taken: str
    spent_percent: int
    held_percent: int
    marks: list[int]
    tone: str


@dataclass(frozen=True, slots=True)
class Sheet:
    """A budget as it stands, in words."""

    budget: Budget
    title: str
    whose: str
    spent: str
    limit: str
    left: str
    held: str
    meter: Meter
    action: str
    renews_at: datetime
    ends_at: datetime | None
    later: str
    passed: int | None
    can_change: bool


def sheet_of(budget: Budget, now: datetime) -> Sheet:
    period = budget_terms.standing_of(budget, now)
    limit = budgets.limit_at(budget, now)
    reached = [percent for percent in budget.thresholds if period.spent * 100 >= percent * limit]
    return Sheet(
        budget=budget,
        title=str(TITLES[Every(budget.every)]),
        whose=_whose(budget),
        spent=_amount(budget, period.spent),
        limit=budgets.spoken(budget, limit),
        left=budgets.spoken(budget, max(0, limit - period.spent - period.reserved)),
        held=budgets.spoken(budget, period.reserved) if period.reserved else "",
        meter=_meter(period, limit, budget.thresholds),
        action=str(ACTIONS[Action(budgets.action_at(budget, now))]),
        renews_at=period.ends_at,
        ends_at=budget.ended_at,
        later=_later(budget, now),
        passed=max(reached, default=None),
        can_change=not budget.is_by_staff and (budget.ended_at is None or budget.ended_at > now),
    )


def sheets_of(user: User) -> list[Sheet]:
    """All budgets that a person manages or may see, as they stand."""
    now = timezone.now()
    return [sheet_of(budget, now) for budget in budget_terms.of(user, now)]


TITLES = {
    Every.DAY: gettext_lazy("Today"),
    Every.WEEK: gettext_lazy("This week"),
    Every.MONTH: gettext_lazy("This month"),
}
ACTIONS = {
    Action.WARN: gettext_lazy("You are told, and replies go on."),
    Action.THROTTLE: gettext_lazy("At the limit, two replies a minute may begin."),
    Action.BLOCK: gettext_lazy("At the limit, no reply begins."),
}
CHOICES_OF_ACTION = [
    (Action.BLOCK, gettext_lazy("Stop: no reply begins")),
    (Action.THROTTLE, gettext_lazy("Slow down: two replies a minute")),
    (Action.WARN, gettext_lazy("Only tell me")),
]
CHOICES_OF_PERIOD = [
    (Every.DAY, gettext_lazy("a day")),
    (Every.WEEK, gettext_lazy("a week, from Monday")),
    (Every.MONTH, gettext_lazy("a month")),
]
CHOICES_OF_UNIT = [
    (Unit.TOKEN, gettext_lazy("tokens")),
    (Unit.USD, gettext_lazy("US dollars, what the calls cost")),
]


class Percents(forms.CharField):
    """Whole percentages with commas or spaces between."""

    def to_python(self, value: Any) -> Any:
        words = str(value or "").replace(",", " ").replace("%", " ").replace(";", " ").split()
        if not all(word.isascii() and word.isdigit() and len(word) <= 3 for word in words):
            raise forms.ValidationError(_("Write whole percentages, such as 50, 80, 100."))
        return [int(word) for word in words]

    def validate(self, value: Any) -> None:
        """An empty list is one, too."""


class TermsForm(forms.Form):
    """What may be changed of a budget."""

    limit = LimitField(label=gettext_lazy("Limit"), min_value=Decimal(0))
    action = forms.ChoiceField(label=gettext_lazy("At the limit"), choices=CHOICES_OF_ACTION)
    thresholds = Percents(label=gettext_lazy("Tell me at, percent"), required=False)


class BudgetForm(TermsForm):
    scope = forms.ChoiceField(label=gettext_lazy("For"))
    unit = forms.ChoiceField(label=gettext_lazy("Counted in"), choices=CHOICES_OF_UNIT)
    every = forms.ChoiceField(label=gettext_lazy("In"), choices=CHOICES_OF_PERIOD)

    def __init__(self, user: User, *given: Any, **how: Any) -> None:
        super().__init__(*given, **how)
        keys = ApiKey.objects.filter(user=user, revoked_at=None).order_by("pk")
        choices = [(MINE, _("everything that I do"))]
        choices += [(f"key:{key.pk}", _("the API key %(name)s") % {"name": _key_name(key)}) for key in keys]
        choices += [
            (
                f"company:{company.pk}",
                _("all members of %(company)s together") % {"company": company.name},
            )
            for company in budget_terms.administered(user)
        ]
        cast(forms.ChoiceField, self.fields["scope"]).choices = choices

    def create(self, user: User) -> Budget:
        """Raises `Problem`."""
        said = self.cleaned_data
        kind, _colon, number = said["scope"].partition(":")
        return budget_terms.create(
            author=user,
            unit=said["unit"],
            every=said["every"],
            limit=budget_terms.amount_of(said["unit"], said["limit"]),
            action=said["action"],
            thresholds=said["thresholds"],
            api_key=budget_terms.key_of(user, int(number)) if kind == "key" else None,
            company=budget_terms.company_of(user, int(number)) if kind == "company" else None,
        )


@require_safe
@page
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "usage/budgets.html", {"sheets": sheets_of(cast(User, request.user))})


@require_http_methods(["GET", "HEAD", "POST"])
@page
def add(request: HttpRequest) -> HttpResponse:
    user = cast(User, request.user)
    usual = {"thresholds": _percents(budget_terms.USUAL_THRESHOLDS), "every": Every.MONTH}
    form = BudgetForm(user, request.POST if request.method == "POST" else None, initial=usual)
    if form.is_valid():
        try:
            form.create(user)
        except Problem as problem:
            form.add_error(None, str(problem.message))
        else:
            messages.success(request, _("The budget holds from now on."))
            return redirect("usage:budgets")
    return render(request, "usage/budget_form.html", {"form": form}, status=422 if form.errors else 200)


@require_http_methods(["GET", "HEAD", "POST"])
@page
def budget(request: HttpRequest, budget_id: str) -> HttpResponse:
    """GET shows a budget with its terms and its history, POST changes the terms."""
    found = budget_terms.get(cast(User, request.user), budget_id)
    is_change = request.method == "POST"
    form = TermsForm(request.POST if is_change else None, initial=_terms_of(found))
    if is_change and form.is_valid():
        said = form.cleaned_data
        try:
            changed = budget_terms.change(
                found,
                limit=budget_terms.amount_of(found.unit, said["limit"]),
                action=said["action"],
                thresholds=said["thresholds"],
            )
        except Problem as problem:
            form.add_error(None, str(problem.message))
        else:
            loosens = changed.later_at is not None
            messages.success(request, _("Saved. What loosens waits.") if loosens else _("Saved."))
            return redirect("usage:budget", budget_id=found.pk)
    history = Paginator(
        BudgetPeriod.objects.filter(budget=found).order_by("-starts_at"), PERIODS_SHOWN
    ).get_page(request.GET.get("page"))
    context = {
        "sheet": sheet_of(found, timezone.now()),
        "form": form,
        "history": history,
        "periods": [_past(found, period) for period in history],
        "next_day": budget_terms.next_day(found, timezone.now()),
    }
    return render(request, "usage/budget.html", context, status=422 if form.errors else 200)


@require_POST
@page
def end(request: HttpRequest, budget_id: str) -> HttpResponse:
    found = budget_terms.get(cast(User, request.user), budget_id)
    ending = budget_terms.end(found)
    assert ending.ended_at is not None
    at = date_format(ending.ended_at.astimezone(budgets.zone_of(ending)), "j F, H:i")
    messages.success(request, _("The budget ends on %(moment)s.") % {"moment": at})
    return redirect("usage:budget", budget_id=found.pk)


@require_POST
@page
def keep(request: HttpRequest, budget_id: str) -> HttpResponse:
    found = budget_terms.get(cast(User, request.user), budget_id)
    budget_terms.keep(found)
    messages.success(request, _("The budget goes on."))
    return redirect("usage:budget", budget_id=found.pk)


def _whose(budget: Budget) -> str:
    if budget.scope == Scope.KEY and budget.api_key is not None:
        return _("API key %(name)s") % {"name": _key_name(budget.api_key)}
    if budget.company is not None:
        return budget.company.name
    return ""


def _key_name(key: ApiKey) -> str:
    return key.name or f"{key.hint}…"


def _amount(budget: Budget, amount: int) -> str:
    """Without its unit where the limit beside it says that."""
    if budget.unit == Unit.USD:
        return budgets.spoken(budget, amount)
    return number_format(amount, force_grouping=True)


def _meter(period: BudgetPeriod, limit: int, thresholds: list[int]) -> Meter:
    spent, taken = period.spent, period.spent + period.reserved
    tone = "bad" if taken >= limit else "warn" if taken * 100 >= NEARLY * limit else ""
    return Meter(
        spent=_width(spent, limit),
        taken=_width(taken, limit),
        spent_percent=spent * 100 // limit,
        held_percent=period.reserved * 100 // limit,
        marks=[percent for percent in thresholds if percent < 100],
        tone=tone,
    )


def _width(amount: int, limit: int) -> str:
    """Percent with one place, for an attribute of a drawing; at most all of it."""
    permille = min(1000, amount * 1000 // limit)
    return f"{permille // 10}.{permille % 10}%"


def _later(budget: Budget, now: datetime) -> str:
    """What changes on the next day; "" for nothing."""
    if budget.later_at is None or budget.later_at <= now:
        return ""
    on = date_format(budget.later_at.astimezone(budgets.zone_of(budget)), "j F")
    limit = f"{budgets.spoken(budget, budget.later_limit)}." if budget.later_limit else ""
    action = str(ACTIONS[Action(budget.later_action)]) if budget.later_action else ""
    return _("From %(day)s on: %(terms)s") % {"day": on, "terms": " ".join(filter(None, (limit, action)))}


def _terms_of(budget: Budget) -> dict[str, Any]:
    """What was wanted last, which may hold from the next day on."""
    return {
        "limit": limit_field.shown(budget, budget.later_limit or budget.limit),
        "action": budget.later_action or budget.action,
        "thresholds": _percents(budget.thresholds),
    }


def _percents(thresholds: Any) -> str:
    return ", ".join(map(str, thresholds))


def _past(budget: Budget, period: BudgetPeriod) -> dict[str, Any]:
    zone = budgets.zone_of(budget)
    last = period.ends_at.astimezone(zone) - timedelta(microseconds=1)
    return {
        "first": period.starts_at.astimezone(zone).date(),
        "last": last.date(),
        "spent": budgets.spoken(budget, period.spent),
        "limit": budgets.spoken(budget, period.limit),
        "percent": period.spent * 100 // period.limit,
    }
