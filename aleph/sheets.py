"""Tables as CSV that is safe to open in a spreadsheet. For every app.

A text that begins like a formula gets an apostrophe in front, decided by type: numbers stay numbers, so −500 of a ledger
can be added up. The file begins with a byte order mark, without which Excel takes UTF-8 for something else; programs read
it as ``utf-8-sig``, or the API instead.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal

from django.http import HttpResponse, StreamingHttpResponse

from aleph.threads import in_thread

BOM = "\ufeff"
TYPE = "text/csv; charset=utf-8"
FORMULA = re.compile(r"\s*[=+\-@\t\r\n\x00]|[\t\r\n\x00]")
"""How a text begins that a spreadsheet would run, also behind spaces."""

Cell = str | int | Decimal | date | datetime | None
Row = Sequence[Cell]


def rows_as_csv(rows: Iterable[Row]) -> str:
    """Lines as RFC 4180 has them."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows([safe(cell) for cell in row] for row in rows)
    return text.getvalue()


def safe(cell: Cell) -> str | int:
    if cell is None:
        return ""
    if isinstance(cell, int):
        return int(cell)
    if isinstance(cell, datetime):
        return cell.isoformat(timespec="seconds")
    if isinstance(cell, date | Decimal):
        return str(cell)
    text = cell.replace("\x00", "")
    return f"'{text}" if FORMULA.match(cell) else text


def whole(name: str, rows: Iterable[Row]) -> HttpResponse:
    """A short table as a file."""
    return HttpResponse(BOM + rows_as_csv(rows), headers=headers(name))


def streamed(
    name: str, head: Row, following: Callable[[str | None], tuple[list[Row], str | None]]
) -> StreamingHttpResponse:
    """A table of any length as a file. `following` gives the rows behind a cursor and the next cursor, None at the end;
    it runs in a thread, and no connection is held between two calls."""

    async def parts() -> AsyncIterator[str]:
        yield BOM + rows_as_csv([head])
        cursor: str | None = ""
        while cursor is not None:
            begin = cursor
            rows, cursor = await in_thread(lambda begin=begin: following(begin or None))  # type: ignore[misc]
            yield rows_as_csv(rows)

    return StreamingHttpResponse(parts(), headers=headers(name))


def headers(name: str) -> dict[str, str]:
    """`name` is one of ours: letters, digits, dots and hyphens."""
    return {"Content-Type": TYPE, "Content-Disposition": f'attachment; filename="{name}"'}
