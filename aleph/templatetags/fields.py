"""How a form's field is drawn, for pages of people (the administration has Django's own way)."""

from typing import Any

from django import template
from django.forms import BoundField, Select

register = template.Library()


@register.inclusion_tag("shell/_field.html")
def field(
    bound: BoundField, label: str = "", note: str = "", aside: str = "", aside_url: str = "", **attrs: Any
) -> dict[str, Any]:
    """Label, control, what is wrong with it, and a note. `aside` is a link at the end of the label's line; `attrs`
    are attributes of the control. Django itself refers the control to its note and its errors."""
    bound.help_text = note
    is_select = isinstance(bound.field.widget, Select)
    # The label says it; text in the control that vanishes while one types says it badly.
    given = {"class": "select" if is_select else "input", "placeholder": False, **attrs}
    return {
        "field": bound,
        "label": label or bound.label,
        "control": bound.as_widget(attrs=given),
        "is_select": is_select,
        "aside": aside,
        "aside_url": aside_url,
    }
