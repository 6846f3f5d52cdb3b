"""The monthly statement: what billing says of somebody's balances, with the models that usage says were used.

One list of rows is the page, the PDF and the CSV, so that all three say the same.
"""

import zoneinfo
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple, cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from aleph import paper, rates, sheets
from aleph.accounts.models import User
from aleph.pages import page as guarded
from aleph.problems import NotFound
from aleph.templatetags.aleph import count, rupiah, signed
from billing import monthly
from billing.models import Transfer
from usage import reports

Kind = Transfer.Kind


class Row(NamedTuple):
    """A line of a table. `tokens` is None in the wallet's; both figures are signed, of a balance they are what is there."""

    label: str
    number: int | None
    tokens: int | None
    value_idr: int
    is_balance: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """A month, as it is read. `bonus` is what of the closing tokens was given away; `is_open` while the month runs."""

    user: User
    month: monthly.Month
    tokens: list[Row]
    wallet: list[Row]
    is_open: bool

    @property
    def number(self) -> str:
        return f"{self.month.first:%Y-%m}"

    @property
    def last(self) -> date:
        return date.fromordinal(monthly.following(self.month.first).toordinal() - 1)


def of(user: User, number: str) -> Statement:
    """The statement of a month such as ``2026-08``, in the user's time zone; "" for the current one.

    Raises `NotFound` for what is no month, and for months before he came and after today.
    """
    zone = zoneinfo.ZoneInfo(user.time_zone)
    first, earliest, latest = _first_of(number, user, zone)
    if not earliest <= first <= latest:
        raise NotFound
    month = monthly.month(user, first=first, zone=zone)
    return Statement(user, month, _token_rows(user, month), _wallet_rows(month), is_open=first == latest)


def neighbours(statement: Statement) -> tuple[str, str]:
    """The months before and after, "" where there is no statement."""
    zone = zoneinfo.ZoneInfo(statement.user.time_zone)
    first, earliest, latest = _first_of(statement.number, statement.user, zone)
    before = date(first.year - (first.month == 1), (first.month - 2) % 12 + 1, 1)
    after = monthly.following(first)
    return (
        f"{before:%Y-%m}" if before >= earliest else "",
        f"{after:%Y-%m}" if after <= latest else "",
    )


def _first_of(number: str, user: User, zone: zoneinfo.ZoneInfo) -> tuple[date, date, date]:
    earliest = timezone.localtime(user.date_joined, zone).date().replace(day=1)
    latest = timezone.localdate(timezone=zone).replace(day=1)
    if not number:
        return latest, earliest, latest
    try:
        first = datetime.strptime(number, "%Y-%m").date()  # noqa: DTZ007  # a month has no zone
    except ValueError:
        raise NotFound from None
    if f"{first:%Y-%m}" != number:
        raise NotFound
    return first, earliest, latest


def _token_rows(user: User, month: monthly.Month) -> list[Row]:
    came = [_row(line) for line in month.lines if line.is_in]
    went = [_row(line) for line in month.lines if not line.is_in]
    opening, closing = month.opening, month.closing
    return [
        Row(_("Opening balance"), None, opening.tokens, opening.value_idr, is_balance=True),
        *came,
        *_uses(user, month),
        *went,
        Row(_("Closing balance"), None, closing.tokens, closing.value_idr, is_balance=True),
    ]


def _wallet_rows(month: monthly.Month) -> list[Row]:
    return [
        Row(_("Opening balance"), None, None, month.wallet_opening_idr, is_balance=True),
        *(_row(line)._replace(tokens=None) for line in month.wallet_lines),
        Row(_("Closing balance"), None, None, month.wallet_closing_idr, is_balance=True),
    ]


def _row(line: monthly.Line) -> Row:
    labels = {
        (Kind.TOPUP, True): _("Top-ups"),
        (Kind.PURCHASE, True): _("Bought"),
        (Kind.PURCHASE, False): _("Paid for packages"),
        (Kind.BONUS, True): _("Bonus"),
        (Kind.REFUND, True): _("Refunds received"),
        (Kind.REFUND, False): _("Given back for refunds"),
        (Kind.ADJUSTMENT, True): _("Adjustments in your favour"),
        (Kind.ADJUSTMENT, False): _("Other adjustments"),
    }
    label = labels.get((Kind(line.kind), line.is_in), _("Other changes"))
    return Row(label, line.number, line.tokens, line.value_idr)


def _uses(user: User, month: monthly.Month) -> list[Row]:
    """Use by model, the dearest first. What was recorded nowhere is a line of its own, and never left out."""
    names = reports.models_by_transfer(user, since=month.start, until=month.end)
    sums: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    for use in month.uses:
        for place, more in enumerate((1, use.tokens, use.value_idr)):
            sums[names.get(use.transfer_id, "")][place] += more
    ranked = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))
    return [
        Row(
            _("Used by %(model)s") % {"model": model} if model else _("Used, model not recorded"),
            number,
            -tokens,
            -value_idr,
        )
        for model, (number, tokens, value_idr) in ranked
    ]


# The page, the CSV and the PDF


@require_safe
@guarded
def page(request: HttpRequest, month: str = "") -> HttpResponse:
    statement = of(cast(User, request.user), month)
    before, after = neighbours(statement)
    return render(
        request, "billing/statement.html", {"statement": statement, "before": before, "after": after}
    )


@require_safe
@guarded
def as_csv(request: HttpRequest, month: str) -> HttpResponse:
    rates.take(request, "export")
    statement = of(cast(User, request.user), month)
    return sheets.whole(f"aleph-statement-{statement.number}.csv", csv_rows(statement))


@require_safe
@guarded
def as_pdf(request: HttpRequest, month: str) -> HttpResponse:
    rates.take(request, "export")
    statement = of(cast(User, request.user), month)
    return paper.answered(f"aleph-statement-{statement.number}.pdf", pdf(statement))


def csv_rows(statement: Statement) -> Iterator[sheets.Row]:
    yield _("Balance"), _("What"), _("Number"), _("Tokens"), _("Rupiah")
    for name, rows in ((_("Tokens"), statement.tokens), (_("Wallet"), statement.wallet)):
        for row in rows:
            yield name, row.label, row.number, row.tokens, row.value_idr


def pdf(statement: Statement) -> bytes:
    month, user = statement.month, statement.user
    sheet = paper.Paper(
        title=_("Statement"),
        number=date_format(month.first, "F Y"),
        language=translation.get_language() or "id",
    )
    period = (
        f"{date_format(month.first, 'j F Y')} – {date_format(statement.last, 'j F Y')} ({user.time_zone})"
    )
    sheet.facts([(_("For"), f"{user.name}\n{user.email}".strip()), (_("Period"), period)])
    head = [_("Tokens"), _("Number"), _("Tokens"), _("Rupiah")]
    sheet.table(head, [cells(row) for row in statement.tokens], widths=(8, 2, 4, 4), total=True)
    head = [_("Wallet"), _("Number"), _("Rupiah")]
    rows = [[label, number, value] for label, number, _tokens, value in map(cells, statement.wallet)]
    sheet.table(head, rows, widths=(8, 2, 4), total=True)
    sheet.small(explained(statement))
    return sheet.as_bytes(at=month.end)


def cells(row: Row) -> Sequence[str]:
    """A row as people write its figures."""
    tokens = "" if row.tokens is None else count(row.tokens) if row.is_balance else signed(row.tokens)
    plus = "+" if row.value_idr > 0 and not row.is_balance else ""
    return row.label, count(row.number), tokens, plus + rupiah(row.value_idr)


def explained(statement: Statement) -> str:
    """How tokens are valued, in words for their owner."""
    words = _(
        "Tokens are valued at what was paid for them: the oldest are used first, bonus before all others and worth"
        " nothing. Every figure is whole, and the lines add up to the closing balance."
    )
    if statement.is_open:
        words += " " + _("This month is not over: the closing balance is that of this moment.")
    return words
