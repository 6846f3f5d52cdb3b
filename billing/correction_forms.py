"""What staff fill in to correct something: an adjustment, a refund, and the decision about what somebody proposed."""

from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminTextInputWidget
from django.utils.formats import number_format
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User
from aleph.problems import Problem
from aleph.templatetags.aleph import rupiah
from billing import corrections
from billing.amounts import AmountField
from billing.models import Account, Correction, Purchase


def reason_field() -> forms.CharField:
    return forms.CharField(
        label=capfirst(_("reason")),
        max_length=200,
        widget=AdminTextInputWidget,
        help_text=_("The person reads it in the history of his balance."),
    )


class RefusableForm(forms.ModelForm):
    """Says why what it asked for cannot be, with all that was typed still in it. The administration sets `refusal`."""

    refusal: Problem | None = None

    def clean(self) -> dict[str, Any] | None:
        given = super().clean()
        if self.refusal is not None:
            raise forms.ValidationError(str(self.refusal.message))
        return given


class KeyedForm(RefusableForm):
    """Carries a key of its own, so that sending it twice does it once."""

    reason = reason_field()
    key = forms.CharField(max_length=corrections.KEY_LENGTH, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["key"] = ids.new("key")

    def _post_clean(self) -> None:
        """The row is made by `billing.corrections`; what stands in this form is no row to be validated."""


class AdjustmentForm(KeyedForm):
    email = forms.CharField(label=_("Address of the person"), widget=AdminTextInputWidget, max_length=254)
    account = forms.ChoiceField(
        label=capfirst(_("account")),
        choices=[(Account.WALLET, _("wallet, in rupiah")), (Account.TOKENS, _("tokens"))],
    )
    amount = AmountField(
        label=capfirst(_("amount")),
        min_value=-corrections.MOST,
        max_value=corrections.MOST,
        widget=AdminTextInputWidget,
        help_text=_("Whole rupiah or whole tokens. With a minus it is taken."),
    )

    class Meta:
        model = Correction
        fields = ()

    field_order = ["email", "account", "amount", "reason", "key"]

    def clean_email(self) -> User:
        found = User.objects.filter(email__iexact=self.cleaned_data["email"].strip()).first()
        if found is None:
            raise forms.ValidationError(_("Nobody here has this address."))
        return found

    def clean_amount(self) -> int:
        amount: int = self.cleaned_data["amount"]
        if not amount:
            raise forms.ValidationError(_("An adjustment of 0 changes nothing."))
        return amount


class RefundForm(KeyedForm):
    class Meta:
        model = Purchase
        fields = ()


class DecisionForm(RefusableForm):
    decision = forms.ChoiceField(
        label=_("Decision"),
        choices=[("approve", _("Approve: apply it now")), ("decline", _("Decline: nothing is moved"))],
        widget=forms.RadioSelect,
    )

    class Meta:
        model = Correction
        fields = ()


def would_refund(purchase: Purchase) -> str:
    """What a refund would do at the moment, or why there can be none, in words for staff."""
    try:
        left = corrections.refundable(purchase)
    except Problem as problem:
        return str(problem.message)
    return _(
        "%(amount)s goes back to the wallet; %(tokens)s tokens are taken back, of which %(bonus)s bonus."
    ) % {
        "amount": rupiah(left.amount_idr),
        "tokens": number_format(left.tokens, force_grouping=True),
        "bonus": number_format(left.bonus, force_grouping=True),
    }
