"""The limit of a budget as people write it, in the separators of their language. For forms."""

import re
from decimal import Decimal
from typing import Any

from django import forms
from django.utils.formats import get_format, number_format, sanitize_separators
from django.utils.translation import gettext as _

from usage import budgets
from usage.models import Budget

THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(/\d{3})+")


class LimitField(forms.DecimalField):
    """Tokens or dollars. Django drops separators of thousands wherever they stand, and so reads the 0,50 of somebody whose
    page is in English as 50; here they stand between thousands, or the number is refused."""

    def __init__(self, **how: Any) -> None:
        super().__init__(max_digits=30, decimal_places=12, localize=True, **how)

    def to_python(self, value: Any) -> Any:
        said = str(value or "").strip()
        whole = said.partition(get_format("DECIMAL_SEPARATOR"))[0]
        separator = get_format("THOUSAND_SEPARATOR")
        is_dropped = separator in whole and separator not in str(sanitize_separators(said))
        if is_dropped and not THOUSANDS.fullmatch(whole.replace(separator, "/")):
            example = number_format(Decimal("1234.5"), force_grouping=True)
            raise forms.ValidationError(_("Write the number as in %(example)s.") % {"example": example})
        return super().to_python(value)


def shown(budget: Budget, limit: int) -> Decimal | int:
    """What stands in the field for a limit: a number and no text, which would not get the separators of the language."""
    amount = budgets.in_unit(budget, limit)
    return amount.normalize() if amount != amount.to_integral_value() else int(amount)
