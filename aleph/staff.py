"""What the lists of the administration share: rows that nobody edits, periods, counts that do not scan.

For the `admin` modules of all apps. Public ids sort by time, so a period is a range of the primary key.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from aleph import ids
from aleph.accounts.models import User


class ReadOnlyAdmin(admin.ModelAdmin):
    """Rows that staff may look at; nobody adds, changes or deletes them here."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class CappedPaginator(Paginator):
    """Counts to `MOST` and no further: a list of millions has pages for its newest rows, and filters for the rest."""

    MOST = 10_000

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Model] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[: self.MOST].count()


class LongList(ReadOnlyAdmin):
    """Rows that may be many: found by what an index answers at once, counted only so far."""

    list_per_page = 50
    sortable_by = ()
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    search_fields = ("id",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """A term with an @ is a person's whole address, any other one an id."""
        term = search_term.strip()
        if "@" in term:
            return self.of_people(queryset, User.objects.filter(email__iexact=term)), False
        if term:
            return self.by_id(queryset, term), False
        return queryset, False

    def of_people(self, queryset: QuerySet[Any], people: QuerySet[User]) -> QuerySet[Any]:
        return queryset.filter(user__in=people)

    def by_id(self, queryset: QuerySet[Any], term: str) -> QuerySet[Any]:
        return queryset.filter(id=term)


class PeriodFilter(admin.SimpleListFilter):
    """The last days, or a month. Without a choice it is the last 30 days, so that no list begins with a scan; who
    searches for something wants it from whenever it is."""

    title = _("time")
    parameter_name = "period"
    prefix = ""
    DEFAULT = "30"
    MONTHS = 12

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self.usual = "all" if request.GET.get("q", "").strip() else self.DEFAULT
        super().__init__(request, *args)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        days = [("1", _("Today")), ("7", _("Last 7 days")), ("30", _("Last 30 days"))]
        months = [
            (f"{month:%Y-%m}", date_format(month, "YEAR_MONTH_FORMAT"))
            for month in recent_months(self.MONTHS)
        ]
        return [*days, *months, ("all", _("All"))]

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        for value, label in self.lookup_choices:
            yield {
                "selected": (self.value() or self.usual) == value,
                "query_string": changelist.get_query_string({self.parameter_name: value}),
                "display": label,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        since, until = period(self.value() or self.usual)
        if since is not None:
            queryset = queryset.filter(id__gte=ids.first(self.prefix, since))
        if until is not None:
            queryset = queryset.filter(id__lt=ids.first(self.prefix, until))
        return queryset


def by_period(prefix: str) -> type[PeriodFilter]:
    """A filter for rows whose ids were made by ``ids.new(prefix)``."""
    return type("PeriodFilter", (PeriodFilter,), {"prefix": prefix})


def period(value: str) -> tuple[datetime | None, datetime | None]:
    """The first moment of a period and the first one after it, in the reader's time zone; None where it is open."""
    today = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    if value.isdigit() and len(value) <= 3:
        return today - timedelta(days=int(value) - 1), None
    for month in recent_months(PeriodFilter.MONTHS):
        if value == f"{month:%Y-%m}":
            return month, (month + timedelta(days=31)).replace(day=1)
    return None, None


def recent_months(number: int) -> list[datetime]:
    """The first moments of the last months, newest first."""
    month = timezone.localtime().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    months = [month]
    while len(months) < number:
        month = (month - timedelta(days=1)).replace(day=1)
        months.append(month)
    return months
