"""Prices and calls in the administration. A call is never changed, and neither is a price that a call was charged at."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from aleph.staff import LongList, by_period
from usage.models import ModelPrice, TokenUsage

FIGURES = (
    "input_usd_per_million",
    "cached_input_usd_per_million",
    "cache_write_usd_per_million",
    "output_usd_per_million",
)


class PriceForm(forms.ModelForm):
    """A price may be ended at any time; its figures may change only until the first call was charged at them. A figure
    of 0 must be meant."""

    ALWAYS_EDITABLE = frozenset({"valid_to", "source", "zero_is_meant"})

    zero_is_meant = forms.BooleanField(
        required=False,
        label=_("0 is meant"),
        help_text=_(
            "A price of 0 says that the provider asks nothing, and that such calls cost us $0.00. Where a price is not"
            " known, store none."
        ),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.pk is not None and any(getattr(self.instance, name) == 0 for name in FIGURES)
        self.fields["zero_is_meant"].initial = stored

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        for name in FIGURES:
            if data.get(name) == 0 and not data.get("zero_is_meant"):
                self.add_error(
                    name,
                    _("0 says that this costs us nothing. Tick “0 is meant” below if that is so."),
                )
        starts, ends = data.get("valid_from"), data.get("valid_to")
        if starts and ends and ends <= starts:
            self.add_error("valid_to", _("A price ends after it has begun."))
        if self.instance.pk:
            self.refuse_rewriting_the_past(ends)
        return data

    def refuse_rewriting_the_past(self, ends: Any) -> None:
        charged = TokenUsage.objects.filter(price=self.instance)
        if set(self.changed_data) - self.ALWAYS_EDITABLE and charged.exists():
            raise forms.ValidationError(
                _(
                    "Calls were charged at this price, so its figures stay. End it with “valid to” and add a new price."
                ),
                code="charged",
            )
        if ends and charged.filter(created_at__gte=ends).exists():
            self.add_error("valid_to", _("Calls were charged at this price after that moment."))


@admin.register(ModelPrice)
class ModelPriceAdmin(admin.ModelAdmin):
    form = PriceForm
    list_display = (
        "provider",
        "model",
        "input_usd_per_million",
        "cached_input_usd_per_million",
        "cache_write_usd_per_million",
        "output_usd_per_million",
        "valid_from",
        "valid_to",
    )
    list_display_links = ("provider", "model")
    list_filter = ("provider", ("valid_to", admin.EmptyFieldListFilter))
    search_fields = ("provider", "model")
    ordering = ("provider", "model", "-valid_from")
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
            _("Validity"),
            {
                "description": _(
                    "Once calls were charged at a price, its figures can no longer change. End it, and add a new one"
                    " that begins at the same moment."
                ),
                "fields": ("valid_from", "valid_to", "source"),
            },
        ),
    )


class ProviderFilter(admin.SimpleListFilter):
    """Providers by their prices: asking the calls themselves which providers there are would read every one of them."""

    title = _("provider")
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        names = ModelPrice.objects.values_list("provider", flat=True).distinct().order_by("provider")
        return [(name, name) for name in names]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TokenUsage]) -> QuerySet[TokenUsage]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


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
        "total_cost_usd",
        "status",
        "source",
        "first_token_ms",
    )
    list_filter = (by_period("use"), ProviderFilter, "status", "source", "flagged")
    list_select_related = ("user",)
    ordering = ("-id",)
    search_help_text = _("The id of a call or of what it was made for, or a person's whole address.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TokenUsage]:
        return super().get_queryset(request).select_related("user", "company", "price")

    def by_id(self, queryset: QuerySet[TokenUsage], term: str) -> QuerySet[TokenUsage]:
        return queryset.filter(id=term) | queryset.filter(operation_id=term)
