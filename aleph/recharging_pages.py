"""Corrections of rates in the administration: what a review finds, giving it back, and what became of it."""

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.utils.text import capfirst
from django.utils.timezone import now
from django.utils.translation import gettext_lazy as _

from aleph import ids, recharging
from aleph.accounts.models import User
from aleph.problems import Problem
from aleph.staff import ReadOnlyAdmin
from billing import corrections
from billing.models import Correction
from chat.models import HIGHEST_RATE, ChatModel, RateCorrection

PAGE = 50
"""People on a page of a review."""


def day_widget() -> forms.DateInput:
    """What the browser sends and wants to have is ISO's form, whatever the reader's language."""
    return forms.DateInput(attrs={"type": "date", "class": "input"}, format="%Y-%m-%d")


class RatesForm(forms.Form):
    """Which replies, and what they should have been charged at."""

    model = forms.ModelChoiceField(
        ChatModel.objects.filter(is_free=False).order_by("name"), label=capfirst(_("model"))
    )
    first = forms.DateField(label=_("First day (UTC)"), widget=day_widget())
    last = forms.DateField(label=_("Last day (UTC)"), widget=day_widget())
    input_rate = forms.IntegerField(
        label=_("Right tokens per 1K of input"), min_value=0, max_value=HIGHEST_RATE
    )
    output_rate = forms.IntegerField(
        label=_("Right tokens per 1K of output"), min_value=0, max_value=HIGHEST_RATE
    )

    def clean_first(self) -> date:
        first: date = self.cleaned_data["first"]
        if not 2020 <= first.year <= now().year:
            raise forms.ValidationError(_("There were no replies at that time."))
        return first

    def clean_last(self) -> date:
        last: date = self.cleaned_data["last"]
        if last < self.cleaned_data.get("first", last):
            raise forms.ValidationError(_("The last day comes before the first."))
        return min(last, now().date())

    @property
    def rates(self) -> recharging.Rates:
        return recharging.Rates.of_days(**self.cleaned_data)


class GivingBackForm(forms.Form):
    """Why; and a key of its own, so that sending it twice does it once."""

    reason = forms.CharField(
        label=capfirst(_("reason")),
        max_length=200,
        widget=AdminTextInputWidget,
        help_text=_("Everybody who gets something back reads it in the history of his balance."),
    )
    key = forms.CharField(max_length=corrections.KEY_LENGTH, widget=forms.HiddenInput)


@dataclass(frozen=True, slots=True)
class Person:
    email: str
    user_id: int
    replies: int
    tokens: int


class RateCorrectionAdmin(ReadOnlyAdmin):
    """Adding one is a review: the address says which replies and rates, the page what differs, and its button gives it
    back. It is never taken back; what is above the limit is decided on the page of its correction."""

    change_form_template = "admin/chat/ratecorrection/change_form.html"
    list_display = (
        "model",
        "since",
        "until",
        "input_rate",
        "output_rate",
        "people",
        "replies",
        "tokens",
        "given_back",
        "state",
        "author",
    )
    list_select_related = ("model", "correction__author")
    list_filter = ("correction__state",)
    search_fields = ("=correction__id", "model__name", "model__slug")
    ordering = ("-id",)
    fields = (
        "model",
        ("since", "until"),
        ("input_rate", "output_rate"),
        ("people", "replies"),
        ("tokens", "given_back"),
        "ended_at",
        "state",
        "author",
        "reason",
        "correction",
    )
    readonly_fields = ("tokens", "state", "author", "reason")

    def get_queryset(self, request: HttpRequest) -> QuerySet[RateCorrection]:
        return super().get_queryset(request).select_related("model", "correction__author")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perms(["chat.add_ratecorrection", "billing.add_correction"])

    @admin.display(description=_("tokens too much"))
    def tokens(self, made: RateCorrection) -> int:
        return made.correction.amount

    @admin.display(description=_("state"))
    def state(self, made: RateCorrection) -> str:
        return made.correction.get_state_display()

    @admin.display(description=_("author"))
    def author(self, made: RateCorrection) -> User:
        return made.correction.author

    @admin.display(description=_("reason"))
    def reason(self, made: RateCorrection) -> str:
        return made.correction.reason

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        rates_form = RatesForm(request.GET or None)
        form = GivingBackForm(request.POST or None, initial={"key": ids.new("key")})
        found = problem = None
        if rates_form.is_valid():
            try:
                if request.method == "POST" and form.is_valid():
                    return self._give_back(request, rates_form.rates, **form.cleaned_data)
                found = recharging.review(rates_form.rates)
            except Problem as expected:
                problem = expected
        context = {
            **self.admin_site.each_context(request),
            "title": _("Correct rates"),
            "opts": self.opts,
            "rates_form": rates_form,
            "form": form,
            "problem": problem,
            "found": found,
            "people": people_of(found, request.GET.get("p", "")) if found else None,
            "query": _without_page(request),
            "limit": settings.CORRECTION_LIMITS["tokens"],
        }
        return TemplateResponse(request, "admin/chat/ratecorrection/review.html", context)

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **how: Any
    ) -> HttpResponse:
        made: RateCorrection = how["obj"]
        said = {
            "model": made.model_id,
            "first": f"{made.since:%Y-%m-%d}",
            "last": f"{made.until - timedelta(days=1):%Y-%m-%d}",
            "input_rate": made.input_rate,
            "output_rate": made.output_rate,
        }
        return super().render_change_form(request, context | {"review_query": urlencode(said)}, *args, **how)

    def _give_back(
        self, request: HttpRequest, rates: recharging.Rates, *, reason: str, key: str
    ) -> HttpResponse:
        made = recharging.propose(rates=rates, author=cast(User, request.user), reason=reason, key=key)
        self.log_addition(request, made, reason)
        if made.correction.state == Correction.State.PROPOSED:
            said = _("It is above the limit, and waits for a second person.")
        else:
            said = _("It is given back now, one person after the other.")
        messages.success(request, said)
        return redirect("admin:chat_ratecorrection_change", made.pk)


def people_of(found: recharging.Review, wanted: str) -> Page:
    """A page of those who get something back, most tokens first."""
    tokens = found.by_person
    order: list[Any] = sorted(tokens, key=lambda user_id: (-tokens[user_id], user_id))
    page = Paginator(order, PAGE).get_page(wanted)
    emails = dict(User.objects.filter(pk__in=list(page)).values_list("pk", "email"))
    page.object_list = [
        Person(emails[user_id], user_id, len(found.too_much[user_id]), tokens[user_id]) for user_id in page
    ]
    return page


def _without_page(request: HttpRequest) -> str:
    said = request.GET.copy()
    said.pop("p", None)
    return said.urlencode()
