"""Figures of the monthly statement, written on the page as they are in its PDF."""

from collections.abc import Sequence

from django import template

from aleph import monthly

register = template.Library()


@register.filter
def as_cells(row: monthly.Row) -> Sequence[str]:
    return monthly.cells(row)
