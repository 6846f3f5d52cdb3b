"""Packages and what makes them cheaper, accounts, transfers, purchases and top-ups in the administration. Only offers are
edited: the books are read, an account that was frozen is taken back into use, and money moves only by a correction with a
reason.
"""

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db.models import Field, Max, Model, PositiveBigIntegerField, QuerySet
from django.http import HttpRequest
from django.shortcuts import redirect
from django.utils.formats import number_format
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User
from aleph.problems import Problem
from aleph.staff import CappedPaginator, LongList, ReadOnlyAdmin, by_period
from aleph.templatetags.aleph import rupiah, signed
from billing import corrections, freezing, offers, rounds, topups
from billing.amounts import AmountField
from billing.correction_forms import AdjustmentForm, DecisionForm, RefundForm, would_refund
from billing.gateways.base import GatewayError
from billing.models import (
    Account,
    AuditRound,
    Correction,
    FirstPurchaseBonus,
    GatewayEvent,
    Package,
    PromoCode,
    Purchase,
    QuantityDiscount,
    Redemption,
    Refill,
    TopUp,
    Transfer,
)

MOST_ASKED = 20
"""Top-ups that one action of staff takes up: each may wait for a gateway."""
REFUSAL = "_refusal_of_correction"
AMOUNTS: dict[type[Field], dict[str, Any]] = {
    PositiveBigIntegerField: {"form_class": AmountField, "widget": AdminTextInputWidget}
}
"""Tokens and rupiah are typed as people write them."""


class QuantityDiscountInline(admin.TabularInline):
    model = QuantityDiscount
    extra = 0
    ordering = ("from_quantity",)


class PackageForm(forms.ModelForm):
    def clean_tokens(self) -> int:
        tokens: int = self.cleaned_data["tokens"]
        if not tokens:
            raise forms.ValidationError(_("A package without tokens is none. Enter at least 1."))
        return tokens

    def clean_price_idr(self) -> int:
        price: int = self.cleaned_data["price_idr"]
        if not price:
            raise forms.ValidationError(
                _("A package cannot be free. Enter at least Rp 1; tokens are given away by an adjustment.")
            )
        return price


@admin.register(Package)
class PackageAdmin(admin.ModelAdmin):
    """Packages are withdrawn and never deleted, because purchases name them."""

    form = PackageForm
    formfield_overrides = AMOUNTS
    inlines = (QuantityDiscountInline,)
    list_display = (
        "name",
        "slug",
        "tokens",
        "bonus_tokens",
        "price",
        "per_1k",
        "position",
        "is_offered",
        "is_recommended",
    )
    list_filter = ("is_offered",)
    ordering = ("position", "price_idr")
    fieldsets = (
        (None, {"fields": ("name", "slug", "position", "is_offered", "is_recommended")}),
        (
            _("What is sold"),
            {
                "description": _("Holds for purchases from now on. Past purchases keep their own figures."),
                "fields": ("tokens", "bonus_tokens", "price_idr"),
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: Package | None = None) -> list[str]:
        """The id stands in links and in requests of programs."""
        return ["slug"] if obj else []

    def has_delete_permission(self, request: HttpRequest, obj: Package | None = None) -> bool:
        return False

    @admin.display(description=_("price"), ordering="price_idr")
    def price(self, package: Package) -> str:
        return rupiah(package.price_idr)

    @admin.display(description=_("per 1,000"))
    def per_1k(self, package: Package) -> str:
        return rupiah(package.idr_per_1k)


class PromoCodeForm(forms.ModelForm):
    def clean_code(self) -> str:
        code = offers.normalised(self.cleaned_data["code"])
        if not offers.is_possible(code):
            raise forms.ValidationError(
                _("Letters, digits, hyphens and underscores, beginning with a letter or digit.")
            )
        if PromoCode.objects.filter(code=code).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError(_("There is such a code already."))
        return code

    def clean(self) -> dict[str, Any] | None:
        given = super().clean() or {}
        starts_at, ends_at = given.get("starts_at"), given.get("ends_at")
        if starts_at and ends_at and ends_at <= starts_at:
            self.add_error("ends_at", _("It ends before it begins."))
        return given


@admin.register(PromoCode)
class PromoCodeAdmin(admin.ModelAdmin):
    """Codes are switched off and never deleted, because purchases name them. An edit holds for purchases from then on."""

    form = PromoCodeForm
    formfield_overrides = AMOUNTS
    list_display = (
        "code",
        "brings",
        "uses",
        "total_limit",
        "user_limit",
        "starts_at",
        "ends_at",
        "is_active",
    )
    list_filter = ("is_active", "kind")
    search_fields = ("code", "note")
    ordering = ("-id",)
    fieldsets = (
        (None, {"fields": ("code", "is_active", "note")}),
        (_("What it brings"), {"fields": ("kind", "amount")}),
        (_("What it is for"), {"fields": ("packages", "minimum_idr", "starts_at", "ends_at")}),
        (_("How often"), {"fields": ("total_limit", "user_limit")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[PromoCode]:
        return super().get_queryset(request).annotate(used=Max("redemptions__place"))

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **how: Any) -> Any:
        how["widget"] = forms.CheckboxSelectMultiple()
        return super().formfield_for_manytomany(db_field, request, **how)

    def has_delete_permission(self, request: HttpRequest, obj: PromoCode | None = None) -> bool:
        return False

    @admin.display(description=_("brings"))
    def brings(self, promo: PromoCode) -> str:
        if promo.kind == PromoCode.Kind.PERCENT:
            return f"−{promo.amount}%"
        if promo.kind == PromoCode.Kind.RUPIAH:
            return rupiah(-promo.amount)
        return gettext("%(tokens)s bonus tokens") % {"tokens": number_format(promo.amount)}

    @admin.display(description=_("uses"), ordering="used")
    def uses(self, promo: PromoCode) -> int:
        return getattr(promo, "used", None) or 0


@admin.register(Redemption)
class RedemptionAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "promo", "user", "purchase", "place", "user_place")
    list_select_related = ("promo", "user", "purchase")
    search_fields = ("promo__code", "user__email", "purchase__number")
    ordering = ("-id",)
    sortable_by = ()
    paginator = CappedPaginator
    show_full_result_count = False


@admin.register(FirstPurchaseBonus)
class FirstPurchaseBonusAdmin(admin.ModelAdmin):
    """Of those that hold, somebody gets the largest, once."""

    formfield_overrides = AMOUNTS
    list_display = ("name", "bonus_tokens", "minimum_idr", "starts_at", "ends_at", "is_active")
    list_filter = ("is_active",)
    ordering = ("-id",)


@admin.register(Refill)
class RefillAdmin(ReadOnlyAdmin):
    """What people let be bought by itself. They set it themselves."""

    list_display = (
        "user",
        "package",
        "below_tokens",
        "monthly_limit_idr",
        "is_on",
        "paused_for",
        "changed_at",
    )
    list_filter = ("is_on", "paused_for")
    list_select_related = ("user", "package")
    search_fields = ("user__email",)
    ordering = ("-id",)
    paginator = CappedPaginator
    show_full_result_count = False


class UnfreezeForm(forms.ModelForm):
    """What lets a frozen account spend again; there is nothing else to change on an account."""

    unfreeze = forms.BooleanField(label=_("Let it spend again"))
    reason = forms.CharField(
        label=capfirst(_("reason")),
        max_length=200,
        widget=AdminTextInputWidget,
        help_text=_("It is kept in the history of this account."),
    )

    class Meta:
        model = Account
        fields = ()

    def clean(self) -> dict[str, Any] | None:
        found = rounds.compare_one(self.instance.pk)
        if found is not None and not found.agrees:
            raise forms.ValidationError(
                _("This account still disagrees with its transfers. The next audit would freeze it again.")
            )
        return super().clean()


@admin.register(Account)
class AccountAdmin(LongList):
    """Read only, unless an account is frozen: then whoever may change accounts can take that back, with a reason."""

    list_display = ("id", "user", "name", "unit", "balance", "held", "available", "frozen_at", "created_at")
    list_filter = ("unit", ("user", admin.EmptyFieldListFilter), ("frozen_at", admin.EmptyFieldListFilter))
    list_select_related = ("user",)
    ordering = ("-id",)
    search_help_text = _("An id, or a person's whole address.")
    fields = (
        "user",
        "name",
        "unit",
        "balance",
        "held",
        "available",
        "value_idr_per_1k",
        "created_at",
        "frozen_at",
    )

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_frozen = isinstance(obj, Account) and obj.frozen_at is not None
        return is_frozen and request.user.has_perm("billing.change_account")

    def get_readonly_fields(self, request: HttpRequest, obj: Account | None = None) -> tuple[str, ...]:
        return (*self.fields, "transfers_say")

    def get_fieldsets(self, request: HttpRequest, obj: Account | None = None) -> list[tuple[Any, Any]]:
        if obj is None or obj.frozen_at is None:
            return [(None, {"fields": self.fields})]
        own = [(None, {"fields": (*self.fields, "transfers_say")})]
        if not self.has_change_permission(request, obj):
            return own
        words = _(
            "It was frozen because its figures were not those of its transfers, or because its owner owes money that went"
            " back after it was spent."
        )
        return [*own, (_("Unfreeze"), {"description": words, "fields": ("unfreeze", "reason")})]

    def get_form(
        self, request: HttpRequest, obj: Account | None = None, change: bool = False, **how: Any
    ) -> Any:
        if self.has_change_permission(request, obj):
            how |= {"form": UnfreezeForm, "fields": ()}
        return super().get_form(request, obj, change, **how)

    def save_model(self, request: HttpRequest, obj: Account, form: forms.ModelForm, change: bool) -> None:
        freezing.unfreeze(obj)

    def construct_change_message(  # type: ignore[override]  # a log entry takes words as well
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> str:
        return f"Unfrozen: {form.cleaned_data['reason']}"

    @admin.display(description=_("its transfers say"))
    def transfers_say(self, account: Account) -> str:
        found = rounds.compare_one(account.pk)
        if found is None or found.agrees:
            return gettext("the same")
        return gettext("balance %(balance)s, held %(held)s") % {
            "balance": number_format(found.moved),
            "held": number_format(found.pending),
        }

    def by_id(self, queryset: QuerySet[Account], term: str) -> QuerySet[Account]:
        return queryset.filter(id=int(term)) if term.isdecimal() and len(term) < 19 else queryset.none()

    @admin.display(description=_("available"))
    def available(self, account: Account) -> str:
        return number_format(account.balance - account.held)


@admin.register(Transfer)
class TransferAdmin(LongList):
    list_display = (
        "created_at",
        "person",
        "kind",
        "phase",
        "amount",
        "unit",
        "balance_after",
        "accounts",
        "id",
    )
    list_filter = (by_period("trf"), "phase", "kind", "unit")
    list_select_related = ("debit__user", "credit__user")
    ordering = ("-id",)
    search_help_text = _("The id or key of a transfer, or a person's whole address.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Transfer]:
        return super().get_queryset(request).select_related("debit__user", "credit__user", "author")

    def of_people(self, queryset: QuerySet[Transfer], people: QuerySet[User]) -> QuerySet[Transfer]:
        accounts = list(Account.objects.filter(user__in=people).values_list("pk", flat=True))
        return queryset.filter(debit__in=accounts) | queryset.filter(credit__in=accounts)

    def by_id(self, queryset: QuerySet[Transfer], term: str) -> QuerySet[Transfer]:
        return queryset.filter(id=term) | queryset.filter(key=term) | queryset.filter(pending=term)

    @admin.display(description=_("person"))
    def person(self, transfer: Transfer) -> str:
        return str(transfer.debit.user or transfer.credit.user)

    @admin.display(description=_("from and to"))
    def accounts(self, transfer: Transfer) -> str:
        return f"{transfer.debit.name} → {transfer.credit.name}"


class Correcting(LongList):
    """A page that corrects something says what is in the way, and leaves everything as it was, what was typed included."""

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, *args: Any, **how: Any
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, *args, **how)
        except Problem as problem:
            if object_id and not self.has_change_permission(request, self.get_object(request, object_id)):
                # Somebody else was quicker, and the page has no form any more.
                messages.error(request, str(problem.message))
                return redirect(request.get_full_path())
            setattr(request, REFUSAL, problem)
            return super().changeform_view(request, object_id, *args, **how)

    def get_form(self, request: HttpRequest, obj: Any | None = None, change: bool = False, **how: Any) -> Any:
        made: Any = super().get_form(request, obj, change, **how)
        made.refusal = getattr(request, REFUSAL, None)
        return made


def _say_what_waits(request: HttpRequest, made: Correction) -> None:
    """Beside Django's words, by which it was added or changed with success."""
    if made.needs_second:
        words = _("It is above your limit: nothing is moved until somebody else approves it.")
        messages.warning(request, words)


@admin.register(Purchase)
class PurchaseAdmin(Correcting):
    list_display = (
        "number",
        "created_at",
        "user",
        "package_name",
        "quantity",
        "tokens",
        "bonus_tokens",
        "promo_code",
        "price",
    )
    list_filter = (by_period("buy"), "package")
    list_select_related = ("user",)
    ordering = ("-id",)
    exclude = ("key", "package")
    search_help_text = _("The id or number of a purchase, or a person's whole address.")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Purchase]:
        return super().get_queryset(request).select_related("user", "package")

    def by_id(self, queryset: QuerySet[Purchase], term: str) -> QuerySet[Purchase]:
        return queryset.filter(id=term) | queryset.filter(number=term)

    @admin.display(description=_("price"))
    def price(self, purchase: Purchase) -> str:
        return rupiah(purchase.price_idr)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """To change a purchase is to refund it."""
        if not isinstance(obj, Purchase) or not request.user.has_perm("billing.add_correction"):
            return False
        return not corrections.of(obj).exists()

    def get_readonly_fields(self, request: HttpRequest, obj: Purchase | None = None) -> tuple[str, ...]:
        return tuple(field.name for field in Purchase._meta.fields if field.name not in self.exclude)

    def get_fieldsets(self, request: HttpRequest, obj: Purchase | None = None) -> list[tuple[Any, Any]]:
        own = [(None, {"fields": self.get_readonly_fields(request, obj)})]
        if obj is None or not self.has_change_permission(request, obj):
            return own
        words = would_refund(obj)
        return [*own, (_("Refund"), {"description": words, "fields": ("reason", "key")})]

    def get_form(
        self, request: HttpRequest, obj: Purchase | None = None, change: bool = False, **how: Any
    ) -> Any:
        if self.has_change_permission(request, obj):
            how |= {"form": RefundForm, "fields": ()}
        return super().get_form(request, obj, change, **how)

    def save_model(self, request: HttpRequest, obj: Purchase, form: forms.ModelForm, change: bool) -> None:
        made = corrections.refund(
            author=cast(User, request.user),
            purchase=obj,
            reason=form.cleaned_data["reason"],
            key=form.cleaned_data["key"],
        )
        _say_what_waits(request, made)

    def construct_change_message(  # type: ignore[override]  # a log entry takes words as well
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> str:
        return f"Refund: {form.cleaned_data['reason']}"


@admin.register(Correction)
class CorrectionAdmin(Correcting):
    """Adjustments are made here, refunds on the page of their purchase; both are decided here."""

    list_display = ("created_at", "user", "kind", "change_said", "state", "author", "decided_by", "reason")
    list_filter = (by_period("cor"), "state", "kind", "account")
    list_select_related = ("user", "author", "decided_by")
    ordering = ("-id",)
    exclude = ("key",)
    search_help_text = _("The id of a correction or of its purchase, or a person's whole address.")

    def by_id(self, queryset: QuerySet[Correction], term: str) -> QuerySet[Correction]:
        return queryset.filter(id=term) | queryset.filter(purchase=term)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("billing.add_correction")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        """To change a correction is to decide about it."""
        waits = isinstance(obj, Correction) and obj.state == Correction.State.PROPOSED
        return waits and request.user.has_perm("billing.change_correction")

    def get_readonly_fields(self, request: HttpRequest, obj: Correction | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return tuple(field.name for field in Correction._meta.fields if field.name not in self.exclude)

    def get_fieldsets(self, request: HttpRequest, obj: Correction | None = None) -> list[tuple[Any, Any]]:
        if obj is None:
            words = _("Applied at once; above the limit a second person has to approve it.")
            return [(None, {"description": words, "fields": AdjustmentForm.field_order})]
        own = [(None, {"fields": self.get_readonly_fields(request, obj)})]
        return (
            [*own, (_("Decision"), {"fields": ("decision",)})]
            if self.has_change_permission(request, obj)
            else own
        )

    def get_form(
        self, request: HttpRequest, obj: Correction | None = None, change: bool = False, **how: Any
    ) -> Any:
        if obj is None:
            how |= {"form": AdjustmentForm, "fields": ()}
        elif self.has_change_permission(request, obj):
            how |= {"form": DecisionForm, "fields": ()}
        return super().get_form(request, obj, change, **how)

    def save_model(self, request: HttpRequest, obj: Correction, form: forms.ModelForm, change: bool) -> None:
        said, staff = form.cleaned_data, cast(User, request.user)
        if not change:
            made = corrections.adjust(
                author=staff,
                user=said["email"],
                account=said["account"],
                amount=said["amount"],
                reason=said["reason"],
                key=said["key"],
            )
            obj.pk = made.pk
            _say_what_waits(request, made)
        elif said["decision"] == "approve":
            corrections.approve(correction_id=obj.pk, by=staff)
        else:
            corrections.decline(correction_id=obj.pk, by=staff)

    def construct_change_message(  # type: ignore[override]  # a log entry takes words as well
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> str:
        return str(form.cleaned_data.get("decision") or form.cleaned_data["reason"])

    @admin.display(description=_("change"))
    def change_said(self, correction: Correction) -> str:
        if correction.account == Account.WALLET:
            return rupiah(correction.amount)
        return signed(correction.amount)


@admin.register(AuditRound)
class AuditRoundAdmin(ReadOnlyAdmin):
    list_display = ("began_at", "ended_at", "accounts", "drifted", "open_holds", "held_tokens", "oldest_hold")
    ordering = ("-id",)
    sortable_by = ()
    paginator = CappedPaginator
    show_full_result_count = False


class FlagFilter(admin.SimpleListFilter):
    """Those that need a person."""

    title = _("to be looked at")
    parameter_name = "flagged"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("yes", _("Yes"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> QuerySet[TopUp]:
        return queryset.exclude(flag="") if self.value() == "yes" else queryset


@admin.register(TopUp)
class TopUpAdmin(LongList):
    """Read only; staff may have the gateway asked, have a debt collected, and say that they have looked."""

    list_display = ("created_at", "user", "amount", "gateway", "state", "back", "owed", "flag", "id")
    list_filter = (by_period("top"), "state", "gateway", FlagFilter)
    list_select_related = ("user",)
    ordering = ("-id",)
    exclude = ("key", "return_to", "calling_until", "pay_url")
    search_help_text = _("A reference of ours or of the gateway, or a person's whole address.")
    actions = ("ask_again", "collect_debt", "looked_at")

    def get_queryset(self, request: HttpRequest) -> QuerySet[TopUp]:
        return super().get_queryset(request).select_related("user")

    def by_id(self, queryset: QuerySet[TopUp], term: str) -> QuerySet[TopUp]:
        return queryset.filter(id=term) | queryset.filter(gateway_id=term) | queryset.filter(payment_id=term)

    def has_ask_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_topup")

    @admin.action(description=_("Ask the gateway again"), permissions=["ask"])
    def ask_again(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> None:
        for topup in queryset.select_related("user")[:MOST_ASKED]:
            try:
                outcome = topups.ask(topup)
            except GatewayError as error:
                text = gettext("The gateway does not answer (%(why)s): %(topup)s")
                self.message_user(request, text % {"topup": topup, "why": error.detail}, messages.ERROR)
            else:
                self.message_user(request, f"{outcome}: {topup}")

    @admin.action(description=_("Take what is owed from the wallet"), permissions=["ask"])
    def collect_debt(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> None:
        for topup in queryset.filter(owed_idr__gt=0).select_related("user")[:MOST_ASKED]:
            try:
                taken = topups.collect(topup=topup, author=cast(User, request.user))
            except Problem as problem:
                self.message_user(request, f"{problem.message} {topup}", messages.ERROR)
            else:
                self.log_change(request, topup, f"Collected {taken}")
                self.message_user(request, f"{rupiah(taken)}: {topup}")

    @admin.action(description=_("I have looked at it"), permissions=["ask"])
    def looked_at(self, request: HttpRequest, queryset: QuerySet[TopUp]) -> None:
        for topup in queryset[:MOST_ASKED]:
            if topups.clear_flag(topup):
                self.log_change(request, topup, f"Looked at: {topup.flag}")

    @admin.display(description=_("amount"))
    def amount(self, topup: TopUp) -> str:
        return rupiah(topup.amount_idr)

    @admin.display(description=_("given back"))
    def back(self, topup: TopUp) -> str:
        return rupiah(topup.refunded_idr) if topup.refunded_idr else ""

    @admin.display(description=_("owed"))
    def owed(self, topup: TopUp) -> str:
        return rupiah(topup.owed_idr) if topup.owed_idr else ""


@admin.register(GatewayEvent)
class GatewayEventAdmin(LongList):
    list_display = (
        "received_at",
        "gateway",
        "kind",
        "reference",
        "deliveries",
        "tries",
        "outcome",
        "handled_at",
        "id",
    )
    list_filter = (by_period("gev"), "gateway", ("handled_at", admin.EmptyFieldListFilter))
    ordering = ("-id",)
    search_help_text = _("An id, a reference, or the gateway's id of the event.")

    def of_people(self, queryset: QuerySet[GatewayEvent], people: QuerySet[User]) -> QuerySet[GatewayEvent]:
        return queryset.filter(topup__user__in=people)

    def by_id(self, queryset: QuerySet[GatewayEvent], term: str) -> QuerySet[GatewayEvent]:
        return queryset.filter(id=term) | queryset.filter(reference=term) | queryset.filter(key=term)
