"""Prices and calls in the administration. A call is never changed, and neither is a price that a call was charged at: where
it was wrong, a correction stands beside both."""

from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User, validate_time_zone
from aleph.problems import Problem
from aleph.staff import LongList, ReadOnlyAdmin, by_period
from aleph.templatetags.aleph import signed_usd
from usage import budget_terms, budgets, calibration, limit_field, proposals, recosting
from usage.limit_field import LimitField
from usage.models import (
    Budget,
    Calibration,
    ExchangeRate,
    ModelPrice,
    PriceCorrection,
    PriceProposal,
    ReportedCall,
    TokenUsage,
)
from usage.price_forms import PriceCorrectionForm, PriceForm

FIGURES = ModelPrice.FIGURES


@admin.register(ModelPrice)
class ModelPriceAdmin(admin.ModelAdmin):
    form = PriceForm
    change_form_template = "admin/usage/modelprice/change_form.html"
    list_display = (
        "provider",
        "model",
        "input_usd_per_million",
        "cached_input_usd_per_million",
        "cache_write_usd_per_million",
        "output_usd_per_million",
        "above_input_tokens",
        "window",
        "valid_from",
        "valid_to",
    )
    list_display_links = ("provider", "model")
    list_filter = ("provider", ("valid_to", admin.EmptyFieldListFilter))
    search_fields = ("provider", "model")
    ordering = ("provider", "model", "above_input_tokens", "-valid_from")
    fieldsets = (
        (None, {"fields": ("provider", "model")}),
        (
            _("US dollars for one million LLM tokens"),
            {
                "description": _(
                    "Not for one thousand, and not in rupiah: 0.15 means 15 cents for a million. An empty cache price"
                    " means the price of fresh input. What a call cost is kept with the call and never computed anew."
                ),
                "fields": (*FIGURES, "zero_is_meant"),
            },
        ),
        (
            _("Which calls"),
            {
                "description": _(
                    "A price for long prompts, or for hours of the week, is a row of its own beside the usual one. Of"
                    " several that fit a call the narrowest holds, for the whole call."
                ),
                "fields": ("above_input_tokens", "weekdays", "from_utc", "to_utc"),
            },
        ),
        (
            _("Validity"),
            {
                "description": _(
                    "Once calls were charged at a price, its figures can no longer change. Where the price has changed, end"
                    " it, and add a new one that begins at the same moment; where it was wrong, correct it."
                ),
                "fields": ("valid_from", "valid_to", "source"),
            },
        ),
    )

    @admin.display(description=_("hours"))
    def window(self, price: ModelPrice) -> str:
        return price.hours

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **how: Any
    ) -> HttpResponse:
        price: ModelPrice | None = how.get("obj")
        if price is not None:
            may = request.user.has_perm("usage.add_pricecorrection")
            context |= {
                "may_correct": may and not price.is_replaced and recosting.is_charged(price),
                "corrections": price.corrections.select_related("right").order_by("pk"),
            }
        return super().render_change_form(request, context, *args, **how)


@admin.register(PriceCorrection)
class PriceCorrectionAdmin(ReadOnlyAdmin):
    """Made from the page of the price that was wrong, and never taken back: what is wrong with it is corrected once more."""

    list_display = (
        "right",
        "since",
        "until",
        "calls",
        "difference",
        "ended_at",
        "author",
        "created_at",
        "reason",
    )
    list_select_related = ("right", "author")
    list_filter = (("ended_at", admin.EmptyFieldListFilter),)
    search_fields = ("right__provider", "right__model")
    ordering = ("-id",)
    exclude = ("upto", "difference_usd")
    readonly_fields = ("difference",)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("usage.add_pricecorrection")

    @admin.display(description=_("difference in USD"))
    def difference(self, correction: PriceCorrection) -> str:
        return signed_usd(correction.difference_usd)

    def add_view(self, request: HttpRequest, *args: Any, **how: Any) -> HttpResponse:
        if _price_of(request) is None:
            messages.info(request, _("Choose the price that was wrong, and correct it from its page."))
            return redirect("admin:usage_modelprice_changelist")
        how["extra_context"] = {
            "title": _("Correct a price"),
            "show_save_and_add_another": False,
            "show_save_and_continue": False,
        }
        return super().add_view(request, *args, **how)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        price = _price_of(request)
        assert price is not None
        figures = {name: getattr(price, name) for name in FIGURES}
        return figures | {"price": price.pk, "since": price.valid_from}

    def get_fieldsets(
        self, request: HttpRequest, obj: PriceCorrection | None = None
    ) -> list[tuple[Any, Any]]:
        price = _price_of(request)
        if obj is not None or price is None:
            return list(super().get_fieldsets(request, obj))
        holds = _("%(price)s, valid since %(since)s.") % {
            "price": price,
            "since": date_format(timezone.localtime(price.valid_from), "j M Y, H:i"),
        }
        words = _(
            "Say what it should have been. Calls of that time keep their rows, and each gets an entry beside it with the"
            " difference; sums and pages count it within some minutes. Nobody’s balance changes."
        )
        return [
            (_("Which calls"), {"description": f"{holds} {words}", "fields": ("price", "since")}),
            (_("The right US dollars for one million LLM tokens"), {"fields": (*FIGURES, "zero_is_meant")}),
            (_("Why"), {"fields": ("reason",)}),
        ]

    def get_form(
        self, request: HttpRequest, obj: PriceCorrection | None = None, change: bool = False, **how: Any
    ) -> Any:
        if obj is None:
            how |= {"form": PriceCorrectionForm, "fields": ()}
        return super().get_form(request, obj, change, **how)

    def get_readonly_fields(
        self, request: HttpRequest, obj: PriceCorrection | None = None
    ) -> tuple[str, ...]:
        return () if obj is None else tuple(self.readonly_fields)

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **how: Any
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, *args, **how)
        except Problem as problem:
            messages.error(request, str(problem.message))
            return redirect(request.get_full_path())

    def save_model(
        self, request: HttpRequest, obj: PriceCorrection, form: PriceCorrectionForm, change: bool
    ) -> None:
        assert isinstance(request.user, User)
        said = form.cleaned_data
        made = recosting.correct(
            price_id=said["price"].pk,
            figures=form.figures,
            since=said["since"],
            reason=said["reason"],
            author=request.user,
        )
        obj.pk, obj.right = made.pk, made.right


def _price_of(request: HttpRequest) -> ModelPrice | None:
    """The price that a form is about."""
    said = request.POST.get("price") or request.GET.get("price", "")
    if not (said.isascii() and said.isdigit() and len(said) < 19):
        return None
    return ModelPrice.objects.filter(pk=said).first()


class ProviderFilter(admin.SimpleListFilter):
    """Providers by their prices: asking the calls themselves which providers there are would read every one of them."""

    title = _("provider")
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = ModelPrice.objects.values_list("provider", flat=True).distinct().order_by("provider")
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenUsage]) -> QuerySet[TokenUsage]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


class IsPriced(admin.SimpleListFilter):
    """Calls that nobody could price, to add what is missing and run `manage.py reprice`."""

    title = _("price")
    parameter_name = "priced"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("no", _("without a price"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenUsage]) -> QuerySet[TokenUsage]:
        return queryset.filter(price=None) if self.value() == "no" else queryset


@admin.register(TokenUsage)
class TokenUsageAdmin(LongList):
    list_display = (
        "created_at",
        "user",
        "operation",
        "provider",
        "model",
        "input_tokens",
        "output_tokens",
        "cost",
        "status",
        "source",
        "flagged",
        "first_token_ms",
    )
    list_filter = (by_period("use"), ProviderFilter, "status", "source", "flagged", IsPriced)
    list_select_related = ("user",)
    ordering = ("-id",)
    search_help_text = _("The id of a call or of what it was made for, or a person's whole address.")
    readonly_fields = ("corrected",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[TokenUsage]:
        calls = super().get_queryset(request).select_related("user", "company", "price")
        return calls.prefetch_related("corrections__correction")

    @admin.display(description=_("total cost"))
    def cost(self, call: TokenUsage) -> Decimal | None:
        """With what corrections add."""
        if call.total_cost_usd is None:
            return None
        return call.total_cost_usd + sum(entry.total_cost_usd for entry in call.corrections.all())

    @admin.display(description=_("corrections"))
    def corrected(self, call: TokenUsage) -> str:
        return "\n".join(
            f"{signed_usd(entry.total_cost_usd)}: {entry.correction.reason}"
            for entry in call.corrections.all()
        )

    def by_id(self, queryset: QuerySet[TokenUsage], term: str) -> QuerySet[TokenUsage]:
        return queryset.filter(id=term) | queryset.filter(operation_id=term)


@admin.register(ReportedCall)
class ReportedCallAdmin(LongList):
    """Dead letters come first to the eye: they wait for somebody who finds out what was meant."""

    list_display = ("received_at", "user", "event_id", "state", "reason")
    list_filter = (by_period("evt"), "state")
    list_select_related = ("user",)
    ordering = ("-id",)
    search_help_text = _("The id of an event, or a person's whole address.")

    def by_id(self, queryset: QuerySet[ReportedCall], term: str) -> QuerySet[ReportedCall]:
        return queryset.filter(id=term) | queryset.filter(event_id=term)


@admin.register(ExchangeRate)
class ExchangeRateAdmin(admin.ModelAdmin):
    list_display = ("valid_on", "idr_per_usd", "source")
    ordering = ("-valid_on",)


@admin.register(PriceProposal)
class PriceProposalAdmin(ReadOnlyAdmin):
    """Decided with two clicks: the proposal, and a button."""

    change_form_template = "admin/usage/priceproposal/change_form.html"
    list_display = (
        "provider",
        "model",
        "above_input_tokens",
        "window",
        "input_to",
        "output_to",
        "source",
        "state",
        "found_at",
        "decided_by",
        "decided_at",
    )
    list_display_links = ("provider", "model")
    list_filter = ("state", "provider")
    list_select_related = ("current", "decided_by")
    search_fields = ("provider", "model")
    ordering = ("-state", "provider", "model", "above_input_tokens")
    fieldsets = (
        (None, {"fields": ("provider", "model", "above_input_tokens", "window", "source")}),
        (
            _("US dollars for one million LLM tokens"),
            {
                "description": _(
                    "Ours now, and as published. Accepting writes a price that is valid from that moment on; ours"
                    " before and the calls charged at it stay."
                ),
                "fields": ("input_to", "cached_input_to", "cache_write_to", "cache_write_1h_to", "output_to"),
            },
        ),
        (_("Decision"), {"fields": ("state", "found_at", "decided_by", "decided_at", "price")}),
    )
    readonly_fields = (
        "window",
        "input_to",
        "cached_input_to",
        "cache_write_to",
        "cache_write_1h_to",
        "output_to",
    )

    @admin.display(description=_("hours"))
    def window(self, proposal: PriceProposal) -> str:
        return proposal.hours

    @admin.display(description=_("input"))
    def input_to(self, proposal: PriceProposal) -> str:
        return _step(proposal, "input_usd_per_million")

    @admin.display(description=_("cached input"))
    def cached_input_to(self, proposal: PriceProposal) -> str:
        return _step(proposal, "cached_input_usd_per_million")

    @admin.display(description=_("cache write"))
    def cache_write_to(self, proposal: PriceProposal) -> str:
        return _step(proposal, "cache_write_usd_per_million")

    @admin.display(description=_("cache write for an hour"))
    def cache_write_1h_to(self, proposal: PriceProposal) -> str:
        return _step(proposal, "cache_write_1h_usd_per_million")

    @admin.display(description=_("output"))
    def output_to(self, proposal: PriceProposal) -> str:
        return _step(proposal, "output_usd_per_million")

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "<int:proposal_id>/decision",
            self.admin_site.admin_view(self.decide),
            name="usage_priceproposal_decision",
        )
        return [own, *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        return super().render_change_form(
            request, context | {"may_decide": may_decide(request)}, *args, **kwargs
        )

    def decide(self, request: HttpRequest, proposal_id: int) -> HttpResponse:
        if request.method != "POST":
            return redirect("admin:usage_priceproposal_change", proposal_id)
        if not may_decide(request):
            raise PermissionDenied
        proposal = PriceProposal.objects.filter(pk=proposal_id).first()
        assert isinstance(request.user, User)
        try:
            if proposal is None:
                raise proposals.Decided
            if request.POST.get("decision") == "accept":
                proposals.accept(proposal_id=proposal_id, by=request.user)
                said = _("The price holds from now on.")
            else:
                proposals.refuse(proposal_id=proposal_id, by=request.user)
                said = _("The price stays as it is.")
            self.log_change(request, proposal, str(said))
            messages.success(request, said)
        except proposals.Decided as problem:
            messages.warning(request, str(problem.message))
        return redirect(f"{reverse('admin:usage_priceproposal_changelist')}?state__exact=open")


def may_decide(request: HttpRequest) -> bool:
    return request.user.has_perms(["usage.change_priceproposal", "usage.add_modelprice"])


def _step(proposal: PriceProposal, name: str) -> str:
    """A figure as it is and as it would be: 2 → 2.5."""
    ours, theirs = (
        "–" if usd is None else f"{usd.normalize():f}"
        for usd in (getattr(proposal.current, name, None), getattr(proposal, name))
    )
    return theirs if ours == theirs else f"{ours} → {theirs}"


@admin.register(Calibration)
class CalibrationAdmin(ReadOnlyAdmin):
    """How well estimates do: by model and kind of text, of the newest observations."""

    list_display = (
        "model",
        "kind",
        "observations",
        "median_error",
        "p95_error",
        "times",
        "held",
        "above",
        "updated_at",
    )
    list_display_links = ("model",)
    list_filter = ("kind",)
    search_fields = ("model",)
    ordering = ("model", "kind")
    fields = (
        "model",
        "kind",
        "observations",
        "median_error",
        "p95_error",
        "times",
        "held",
        "above",
        "updated_at",
    )
    readonly_fields = ("median_error", "p95_error", "times", "held", "above")

    @admin.display(description=_("median error"))
    def median_error(self, row: Calibration) -> str:
        return _percent(calibration.accuracy_of(row).median)

    @admin.display(description=_("95 % within"))
    def p95_error(self, row: Calibration) -> str:
        return _percent(calibration.accuracy_of(row).p95)

    @admin.display(description=_("factor"))
    def times(self, row: Calibration) -> str:
        return f"× {number_format(Decimal(row.factor) / 1000, 3)}"

    @admin.display(description=_("held beyond the estimate"))
    def held(self, row: Calibration) -> str:
        return _percent(row.reserve - 1000)

    @admin.display(description=_("above what was held"))
    def above(self, row: Calibration) -> str:
        return _percent(row.exceeded * 1000 // max(1, row.observations))


class BudgetForm(forms.ModelForm):
    """A budget of staff's. What it is for and counted in stays; its terms may change at any time."""

    amount = LimitField(label=_("limit"), help_text=_("In tokens, or in US dollars of what calls cost us."))
    told_at = forms.CharField(
        label=_("tell at, percent"),
        required=False,
        initial="50, 80, 100",
        help_text=_("With commas between."),
    )
    ends_now = forms.BooleanField(label=_("ends now"), required=False)

    class Meta:
        model = Budget
        fields = ("scope", "user", "api_key", "company", "unit", "every", "action", "time_zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.fields["amount"].initial = limit_field.shown(self.instance, self.instance.limit)
            self.fields["told_at"].initial = ", ".join(map(str, self.instance.thresholds))

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        unit = data.get("unit") or self.instance.unit
        try:
            if unit and data.get("amount") is not None:
                data["limit"] = budget_terms.amount_of(unit, data["amount"])
        except Problem as problem:
            self.add_error("amount", str(problem.message))
        try:
            words = data.get("told_at", "").replace(",", " ").split()
            data["thresholds"] = budget_terms.checked_thresholds(map(int, words))
        except ValueError:
            self.add_error("told_at", _("Write whole percentages, such as 50, 80, 100."))
        except Problem as problem:
            self.add_error("told_at", str(problem.message))
        key = data.get("api_key")
        if key is not None and data.get("scope") == Budget.Scope.KEY:
            data["user"] = key.user
        return data

    def clean_time_zone(self) -> str:
        name = str(self.cleaned_data["time_zone"])
        if name:
            validate_time_zone(name)
        return name


@admin.register(Budget)
class BudgetAdmin(LongList):
    """All budgets as they stand. Staff set budgets for everyone together, a company, a person or a key, which only staff
    change and end; those that people set themselves are to be looked at."""

    form = BudgetForm
    list_display = (
        "id",
        "whose",
        "every",
        "limit_shown",
        "spent",
        "reserved",
        "action",
        "is_by_staff",
        "ended_at",
    )
    list_filter = ("scope", "is_by_staff", "unit", "every")
    list_select_related = ("user", "api_key", "company", "current")
    ordering = ("-id",)
    autocomplete_fields = ("user", "api_key", "company")
    fields = (
        "scope",
        "user",
        "api_key",
        "company",
        "unit",
        "every",
        "amount",
        "action",
        "told_at",
        "time_zone",
    )
    FIXED = ("scope", "user", "api_key", "company", "unit", "every", "time_zone")
    STANDING = ("spent", "reserved", "is_by_staff", "created_at", "ended_at")

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return admin.ModelAdmin.has_add_permission(self, request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        is_changeable = obj is None or (obj.is_by_staff and obj.ended_at is None)
        return is_changeable and admin.ModelAdmin.has_change_permission(self, request, obj)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.fields
        if self.has_change_permission(request, obj):
            return (*self.FIXED, "amount", "action", "told_at", "ends_now", *self.STANDING)
        return (*self.FIXED, "limit_shown", "action", "thresholds", *self.STANDING)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return () if obj is None else (*self.FIXED, "limit_shown", "thresholds", *self.STANDING)

    def save_model(self, request: HttpRequest, obj: Budget, form: Any, change: bool) -> None:
        said = form.cleaned_data
        if not change:
            obj.is_by_staff, obj.limit, obj.thresholds = True, said["limit"], said["thresholds"]
            budget_terms.begin(obj, timezone.now())
        elif said["ends_now"]:
            budget_terms.end(obj, by_staff=True)
        else:
            budget_terms.change(
                obj, limit=said["limit"], action=obj.action, thresholds=said["thresholds"], by_staff=True
            )

    @admin.display(description=_("for"))
    def whose(self, budget: Budget) -> str:
        return str(budget.api_key or budget.company or budget.user or budget.get_scope_display())

    @admin.display(description=_("limit"))
    def limit_shown(self, budget: Budget) -> str:
        return budgets.spoken(budget, budgets.limit_at(budget, timezone.now()))

    @admin.display(description=_("spent"))
    def spent(self, budget: Budget) -> str:
        return budgets.spoken(budget, budget_terms.standing_of(budget, timezone.now()).spent)

    @admin.display(description=_("reserved"))
    def reserved(self, budget: Budget) -> str:
        return budgets.spoken(budget, budget_terms.standing_of(budget, timezone.now()).reserved)


def _percent(thousandths: int) -> str:
    return f"{number_format(Decimal(thousandths) / 10, 1)} %"
