"""What staff fill in about providers' prices: a price, and the right figures of one that was wrong."""

from typing import Any

from django import forms
from django.contrib.admin.widgets import AdminSplitDateTime, AdminTextInputWidget
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from aleph.problems import Problem
from usage import pricing, recosting
from usage.models import PLAUSIBLE, ModelPrice, PriceCorrection


def zero_field() -> forms.BooleanField:
    return forms.BooleanField(
        required=False,
        label=_("0 is meant"),
        help_text=_(
            "A price of 0 says that the provider asks nothing, and that such calls cost us $0.00. Where a price is not"
            " known, store none."
        ),
    )


def refuse_unmeant_zeros(form: forms.BaseForm, data: dict[str, Any]) -> None:
    for name in ModelPrice.FIGURES:
        if data.get(name) == 0 and not data.get("zero_is_meant"):
            form.add_error(
                name,
                _("0 says that this costs us nothing. Tick “0 is meant” below if that is so."),
            )


class PriceForm(forms.ModelForm):
    """A price may be ended at any time; its figures may change only until the first call was charged at them. A figure
    of 0 must be meant."""

    ALWAYS_EDITABLE = frozenset({"valid_to", "source", "zero_is_meant"})

    zero_is_meant = zero_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stored = self.instance.pk is not None and any(
            getattr(self.instance, name) == 0 for name in ModelPrice.FIGURES
        )
        self.fields["zero_is_meant"].initial = stored

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        refuse_unmeant_zeros(self, data)
        starts, ends = data.get("valid_from"), data.get("valid_to")
        is_moved = {"valid_from", "valid_to"} & set(self.changed_data)
        if starts and ends and ends <= starts and is_moved:
            self.add_error("valid_to", _("A price ends after it has begun."))
        elif not self.errors:
            self.refuse_two_at_once(data)
        if self.instance.pk:
            self.refuse_rewriting_the_past(ends if "valid_to" in self.changed_data else None)
        return data

    def refuse_two_at_once(self, data: dict[str, Any]) -> None:
        """An open price is followed by one that begins later. Everything else that would be valid together, for prompts of
        the same size and at the same hours, is a slip."""
        said = ModelPrice(**{name: data[name] for name in (*ModelPrice.LANE, "valid_from", "valid_to")})
        for other in pricing.clashes(said, apart_from=self.instance.pk):
            raise forms.ValidationError(
                _("For such calls there is a price at that time already, valid from %(start)s%(hours)s."),
                params={
                    "start": date_format(timezone.localtime(other.valid_from), "SHORT_DATETIME_FORMAT"),
                    "hours": f" ({other.hours})" if other.hours else "",
                },
                code="overlap",
            )

    def refuse_rewriting_the_past(self, ends: Any) -> None:
        if set(self.changed_data) - self.ALWAYS_EDITABLE and recosting.is_charged(self.instance):
            raise forms.ValidationError(
                _(
                    "Calls were charged at this price, so its figures stay. Where the price has changed, end it with “valid"
                    " to” and add a new one; where it was wrong, use “Correct this price”."
                ),
                code="charged",
            )
        if ends and recosting.is_charged(self.instance, since=ends):
            self.add_error("valid_to", _("Calls were charged at this price after that moment."))


class PriceCorrectionForm(forms.ModelForm):
    """The right figures of a price that calls were charged at, and from when on they are right."""

    price = forms.ModelChoiceField(ModelPrice.objects.all(), widget=forms.HiddenInput)
    since = forms.SplitDateTimeField(
        label=_("Wrong since"),
        widget=AdminSplitDateTime,
        help_text=_("By when a call began. The price holds until then, and the right one from then on."),
    )
    zero_is_meant = zero_field()
    reason = forms.CharField(
        label=capfirst(_("reason")),
        max_length=200,
        widget=AdminTextInputWidget,
        help_text=_("People read it with each call whose cost is corrected."),
    )

    class Meta:
        model = PriceCorrection
        fields = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        figures = forms.fields_for_model(ModelPrice, ModelPrice.FIGURES)
        for field in figures.values():
            # What a model checks when its row is stored, before anything is written.
            field.validators = [*field.validators, *PLAUSIBLE]
        self.fields |= figures

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        refuse_unmeant_zeros(self, data)
        if self.errors:
            return data
        try:
            recosting.check(data["price"], figures=self.figures, since=data["since"])
        except recosting.OutOfItsTime as problem:
            self.add_error("since", str(problem.message))
        except Problem as problem:
            self.add_error(None, str(problem.message))
        return data

    @property
    def figures(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ModelPrice.FIGURES}

    def _post_clean(self) -> None:
        """The row is made by `usage.recosting`; what stands in this form is no row to be validated."""
