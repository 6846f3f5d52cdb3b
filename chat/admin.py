"""Models on offer, and how much people talk, in the administration. What they say is nobody's business: messages are
not registered, and of a session only its figures are shown, never its title."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from aleph.staff import LongList, by_period
from chat import providers
from chat.models import ChatModel, Route, Session


class ChatModelForm(forms.ModelForm):
    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        rates = (data.get("input_rate"), data.get("output_rate"))
        if None not in rates:
            if data.get("is_free") and any(rates):
                self.add_error("is_free", _("A free model has no rates."))
            zeros = [field for field in ("input_rate", "output_rate") if data[field] == 0]
            for field in zeros if not data.get("is_free") else ():
                self.add_error(
                    field,
                    _(
                        "0 gives this away. If the model is to be free, tick “free” and set both rates to 0; if not, enter"
                        " at least 1."
                    ),
                )
        if (data.get("max_output_tokens") or 64) < 64:
            self.add_error("max_output_tokens", _("Below 64 tokens a reply is of no use."))
        return data


class RouteForm(forms.ModelForm):
    """The providers to choose from are those that we speak to, and the one that stands there already."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = self.instance.provider
        choices = {**providers.LABELS, **({own: providers.LABELS.get(own, own)} if own else {})}
        self.fields["provider"] = forms.ChoiceField(
            label=Route._meta.get_field("provider").verbose_name, choices=list(choices.items())
        )


class RouteInline(admin.TabularInline):
    model = Route
    form = RouteForm
    extra = 0
    ordering = ("position", "id")


@admin.register(ChatModel)
class ChatModelAdmin(admin.ModelAdmin):
    form = ChatModelForm
    list_display = (
        "name",
        "slug",
        "maker",
        "is_free",
        "input_rate",
        "output_rate",
        "context_tokens",
        "position",
        "is_offered",
    )
    list_filter = ("is_offered", "is_free", "maker")
    search_fields = ("name", "slug", "maker")
    ordering = ("position", "name")
    inlines = (RouteInline,)
    fieldsets = (
        (None, {"fields": ("name", "slug", "maker", "note")}),
        (
            _("Price in Aleph tokens"),
            {
                "description": _(
                    "New rates hold from the next message on; replies keep the rates they began with. A model is free only"
                    " where “free” is ticked, and then both rates are 0."
                ),
                "fields": ("is_free", ("input_rate", "output_rate")),
            },
        ),
        (_("Limits"), {"fields": ("context_tokens", "max_output_tokens", "takes_temperature")}),
        (_("Offer"), {"fields": ("position", "is_offered")}),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: ChatModel | None = None) -> tuple[str, ...]:
        """Programs know a model by its id."""
        return () if obj is None else ("slug",)


@admin.register(Session)
class SessionAdmin(LongList):
    list_display = (
        "id",
        "user",
        "model",
        "message_count",
        "total_tokens_used",
        "created_at",
        "last_message_at",
    )
    fields = ("id", "user", "model", "message_count", "total_tokens_used", "created_at", "last_message_at")
    list_filter = (by_period("cht"),)
    list_select_related = ("user", "model")
    ordering = ("-id",)
    search_help_text = _("The id of a session, or a person's whole address.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Session]:
        """Without the title, so that nothing can show it by accident."""
        return super().get_queryset(request).defer("title")

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest) -> bool:
        """Django filters by any column that an address names, and so would tell a title letter by letter."""
        return not lookup.startswith("title") and super().lookup_allowed(lookup, value, request)
