"""Whole amounts as people write them, for the forms of this app.

A number field of a browser sends ``75.000``, which Indonesians write for 75 thousand, and Django takes that for 75. So
amounts are typed into text fields, and read here.
"""

import re
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.translation import gettext_lazy as _

WRITTEN = re.compile(
    r"(?P<sign>[-+−]?)\s*(?:Rp\.?\s*)?"  # a real minus sign
    r"(?P<whole>\d{1,30}|\d{1,3}(?P<by>[., ])\d{3}(?:(?P=by)\d{3}){0,9})(?:[.,](?:00?|-))?",
    re.ASCII | re.IGNORECASE,
)


def whole_in(text: str) -> int | None:
    """``75000``, ``75.000``, ``Rp 75,000``, ``75.000,00`` and ``75.000,-`` alike. None for what could mean another amount,
    too: nobody pays a hundred times as much because of a comma."""
    found = WRITTEN.fullmatch(text.strip())
    if found is None:
        return None
    whole = int(re.sub(r"\D", "", found["whole"]))
    return -whole if found["sign"] in ("-", "−") else whole


class AmountField(forms.IntegerField):
    """A whole number of tokens or rupiah."""

    widget = forms.TextInput
    default_error_messages = {"invalid": _("Please write a whole number, such as 75.000.")}  # as Django's

    def to_python(self, value: Any) -> int | None:
        if value in self.empty_values:
            return None
        whole = whole_in(str(value))
        if whole is None:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return whole

    def widget_attrs(self, widget: forms.Widget) -> dict[str, Any]:
        """The keyboard of numbers, which on some phones has no minus."""
        least = self.min_value
        can_be_negative = not isinstance(least, int) or least < 0
        return {**super().widget_attrs(widget), **({} if can_be_negative else {"inputmode": "numeric"})}
