"""Models on offer, and how much people talk, in the administration. What they say is nobody's business: messages are
not registered, and of a session only its figures are shown, never its title."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from aleph.staff import LongList, by_period
from chat import breakers, catalogue, local_models, providers, rates_from_cost
from chat.models import ChatModel, Route, Session
from usage import pricing


class ChatModelForm(forms.ModelForm):
    class Meta:
        model = ChatModel
        fields = "__all__"  # noqa: DJ007  the fieldsets say which
        help_texts = {
            "slug": _("What programs call it. It cannot be changed later."),
            "note": _("A sentence under its name in the list of models."),
            "margin_percent": _(
                "Fill this in to have both rates set from what the dearest route costs, with so much on top: 50 for half"
                " as much again. Leave it empty to set the rates yourself."
            ),
            "context_tokens": _(
                "Prompt and reply together. Up to the size at which a provider charges more."
            ),
            "max_output_tokens": _(
                "A hold is for a reply of this length, so a longer one needs a larger balance."
            ),
            "takes_temperature": _("Not ticked: none is sent. Many models that think refuse one."),
            "thinks": _("Its thoughts count as output and are charged like it."),
            "position": _("Small numbers come first; free models stand above all others."),
            "retires_on": _(
                "From this day on it is not offered any more, and chats with it go on with the successor."
            ),
            "successor": _("Named before sending, with its price. Of a free model it must be free."),
        }

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        self._check_rates(data)
        if (data.get("max_output_tokens") or 64) < 64:
            self.add_error("max_output_tokens", _("Below 64 tokens a reply is of no use."))
        self._check_successor(data)
        return data

    def _check_rates(self, data: dict[str, Any]) -> None:
        """Rates that somebody types hold, and the margin that they had then is no longer said. A margin that somebody
        types sets the rates, once the routes are known (`RouteFormSet`)."""
        changed = set(self.changed_data)
        if "margin_percent" not in changed and changed & {"input_rate", "output_rate"}:
            data["margin_percent"] = None
        rates = (data.get("input_rate"), data.get("output_rate"))
        has_margin = data.get("margin_percent") is not None
        if has_margin and data.get("is_free"):
            self.add_error("margin_percent", _("A free model has no margin."))
        if None in rates:
            return
        if data.get("is_free") and any(rates):
            self.add_error("is_free", _("A free model has no rates."))
        zeros = [field for field in ("input_rate", "output_rate") if data[field] == 0]
        for field in zeros if not data.get("is_free") else ():
            if has_margin:
                data[field] = 1
                continue
            self.add_error(
                field,
                _(
                    "0 gives this away. If the model is to be free, tick “free” and set both rates to 0; if not, enter"
                    " at least 1."
                ),
            )

    def _check_successor(self, data: dict[str, Any]) -> None:
        following = data.get("successor")
        if following is not None and data.get("is_free") and not following.is_free:
            self.add_error("successor", _("Who chose a free model must not be led to one that costs."))
        line: list[ChatModel] = []
        while following is not None and following not in line:
            line.append(following)
            if following.pk == self.instance.pk and self.instance.pk is not None:
                names = " → ".join(model.name for model in (self.instance, *line))
                self.add_error("successor", _("This leads round in a circle: %(names)s") % {"names": names})
                return
            following = following.successor


class RouteForm(forms.ModelForm):
    """The providers to choose from are those that we speak to, and the one that stands there already."""

    class Meta:
        model = Route
        fields = (
            "provider",
            "upstream_model",
            "position",
            "is_enabled",
            "connect_s",
            "first_byte_s",
            "idle_s",
            "total_s",
        )
        help_texts = {
            "position": _("Asked in this order; where one fails before its first word, the next is asked."),
            "total_s": _(
                "For how long to wait: for a connection, for the first sign of a reply, between two"
                " signs, and for all of it."
            ),
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own = self.instance.provider
        choices = {**providers.LABELS, **({own: providers.LABELS.get(own, own)} if own else {})}
        self.fields["provider"] = forms.ChoiceField(
            label=capfirst(Route._meta.get_field("provider").verbose_name), choices=list(choices.items())
        )


class RouteFormSet(forms.BaseInlineFormSet):
    """The routes of a model: each with a price, and with them, where a margin was said, its rates."""

    def clean(self) -> None:
        super().clean()
        if any(self.errors):
            return
        kept = [form for form in self.forms if form.cleaned_data and not form.cleaned_data.get("DELETE")]
        enabled = [form for form in kept if form.cleaned_data["is_enabled"]]
        model = self.instance
        for form in enabled if not model.is_free else ():
            self._check_price(form)
        if not any(self.errors) and self._is_to_be_priced(model):
            _set_rates(
                model,
                [(form.cleaned_data["provider"], form.cleaned_data["upstream_model"]) for form in enabled],
            )

    def _check_price(self, form: forms.BaseForm) -> None:
        provider, upstream = form.cleaned_data["provider"], form.cleaned_data["upstream_model"]
        is_new = bool({"provider", "upstream_model", "is_enabled"} & set(form.changed_data))
        if (
            is_new
            and provider not in catalogue.GATEWAYS
            and not pricing.price_at(provider, upstream, timezone.now())
        ):
            form.add_error(
                "upstream_model",
                _(
                    "There is no price for this today. Add one under “Prices” first, so that it is known what replies cost."
                ),
            )

    def _is_to_be_priced(self, model: ChatModel) -> bool:
        if model.margin_percent is None or model.is_free:
            return False
        stored = ChatModel.objects.filter(pk=model.pk).first()
        same = ("margin_percent", "context_tokens")
        return self.has_changed() or any(getattr(stored, name, None) != getattr(model, name) for name in same)


def _set_rates(model: ChatModel, ways: list[tuple[str, str]]) -> None:
    """The rates of a model whose margin is said. Raises `ValidationError` where they cannot be known."""
    direct = [way for way in ways if way[0] not in catalogue.GATEWAYS]
    try:
        model.input_rate, model.output_rate = rates_from_cost.of(
            direct, context_tokens=model.context_tokens, margin_percent=model.margin_percent or 0
        )
    except rates_from_cost.NoPrice as missing:
        raise forms.ValidationError(
            _("The rates cannot be set from cost: a price is missing (%(what)s).")
            % {"what": missing.what or _("of a route, of tokens, or of a dollar in rupiah")}
        ) from missing


class RouteInline(admin.StackedInline):
    model = Route
    form = RouteForm
    formset = RouteFormSet
    extra = 0
    ordering = ("position", "id")
    fields = (
        ("provider", "upstream_model"),
        ("position", "is_enabled"),
        ("connect_s", "first_byte_s", "idle_s", "total_s"),
        "condition",
    )
    readonly_fields = ("condition",)

    @admin.display(description=_("condition"))
    def condition(self, route: Route) -> str | Promise:
        return _condition(route) if route.pk else _("Known once it is saved.")


WHY = {
    "auth": _("It refuses our key."),
    "credit": _("Our account there is empty."),
    "not_found": _("It does not know this id."),
}


def _condition(route: Route) -> str | Promise:
    """Whether a route is connected, and whether it has failed lately."""
    if not route.is_enabled:
        return _("Switched off.")
    if route.provider not in catalogue.connected():
        missing = providers.missing(route.provider) if route.provider in providers.LABELS else ()
        return (
            _("Not connected: %(setting)s is not set.") % {"setting": missing[0]}
            if missing
            else _("Not connected.")
        )
    if route.is_absent:
        return _("Connected, but its model was not found there.")
    (health,) = breakers.health([str(route)])
    return " ".join(filter(None, (str(_state(health)), str(WHY.get(health.kind, "")))))


def _state(health: breakers.Health) -> str | Promise:
    if health.state == "open":
        text = ngettext(
            "Left alone for %(count)d more second, because it kept failing.",
            "Left alone for %(count)d more seconds, because it kept failing.",
            health.open_s,
        )
        return text % {"count": health.open_s}
    if health.state == "half-open":
        return _("Has kept failing; the next reply tries it again.")
    if health.failures:
        text = ngettext(
            "Connected. The last call failed.", "Connected. The last %(count)d calls failed.", health.failures
        )
        return text % {"count": health.failures}
    return _("Connected, no failures of late.")


@admin.register(ChatModel)
class ChatModelAdmin(admin.ModelAdmin):
    form = ChatModelForm
    list_display = (
        "name",
        "is_offered",
        "answers",
        "input_rate",
        "output_rate",
        "retires_on",
        "position",
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
                "fields": ("is_free", "margin_percent", ("input_rate", "output_rate")),
            },
        ),
        (_("Limits"), {"fields": ("context_tokens", "max_output_tokens")}),
        (_("Capabilities"), {"fields": ("takes_temperature", "takes_images", "thinks")}),
        (_("Offer"), {"fields": ("position", "is_offered", "retires_on", "successor")}),
    )

    actions = ("set_rates_from_cost",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ChatModel]:
        return super().get_queryset(request).prefetch_related("routes")

    @admin.display(description=_("answered by"))
    def answers(self, model: ChatModel) -> str | Promise:
        offer = catalogue.offer_of(model)
        if offer.route is None:
            return offer.reason
        return ", ".join(dict.fromkeys(providers.LABELS[route.provider] for route in offer.routes))

    @admin.action(description=_("Set the rates from cost, for models with a margin"), permissions=["change"])
    def set_rates_from_cost(self, request: HttpRequest, chosen: QuerySet[ChatModel]) -> None:
        for model in chosen.filter(margin_percent__isnull=False):
            ways = [
                (route.provider, route.upstream_model) for route in model.routes.all() if route.is_enabled
            ]
            try:
                _set_rates(model, ways)
            except forms.ValidationError as error:
                messages.error(request, f"{model}: {error.messages[0]}")
                continue
            ChatModel.objects.filter(pk=model.pk).update(
                input_rate=model.input_rate, output_rate=model.output_rate
            )
            rates = {"model": model, "input": model.input_rate, "output": model.output_rate}
            self.log_change(request, model, _("Rates set from cost: %(input)s / %(output)s") % rates)
            messages.success(request, _("%(model)s: %(input)s in, %(output)s out, per 1K.") % rates)

    def get_readonly_fields(self, request: HttpRequest, obj: ChatModel | None = None) -> tuple[str, ...]:
        """Programs know a model by its id."""
        return () if obj is None else ("slug",)

    def get_urls(self) -> list[URLPattern]:
        look = self.admin_site.admin_view(require_POST(self.look_for_local_models))
        return [path("look/", look, name="chat_look_for_local_models"), *super().get_urls()]

    def look_for_local_models(self, request: HttpRequest) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        found = local_models.look()
        text = ngettext("%(count)d local model was found.", "%(count)d local models were found.", found)
        messages.info(request, text % {"count": found})
        return redirect("admin:chat_chatmodel_changelist")


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
