"""Packages, accounts, transfers and purchases in the administration. Only packages are edited: the books are read, and an
account that was frozen is taken back into use.
"""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.widgets import AdminTextInputWidget
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from aleph.accounts.models import User
from aleph.staff import CappedPaginator, LongList, ReadOnlyAdmin, by_period
from aleph.templatetags.aleph import rupiah
from billing import freezing, rounds
from billing.models import Account, AuditRound, Package, Purchase, Transfer


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
        words = _("It was frozen because its figures were not those of its transfers.")
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


@admin.register(Purchase)
class PurchaseAdmin(LongList):
    list_display = ("number", "created_at", "user", "package_name", "tokens", "bonus_tokens", "price")
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


@admin.register(AuditRound)
class AuditRoundAdmin(ReadOnlyAdmin):
    list_display = ("began_at", "ended_at", "accounts", "drifted", "open_holds", "held_tokens", "oldest_hold")
    ordering = ("-id",)
    sortable_by = ()
    paginator = CappedPaginator
    show_full_result_count = False
