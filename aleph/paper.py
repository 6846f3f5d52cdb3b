"""Sheets of A4 as PDF, for what people file or hand on: receipts and statements. For every app.

Texts are those of the page. The fonts are the ones every reader has, so no file carries one; a letter that they lack is
written by its nearest, or as a question mark.

The library is loaded with the first sheet: with its fonts it takes as much memory as all of Django, and few ask for sheets.
"""

import unicodedata
from collections.abc import Sequence
from datetime import datetime

from django.http import HttpResponse

MARGIN_MM = 18
INK, MUTED, ACCENT, LINE = (28, 25, 23), (110, 104, 98), (146, 84, 40), (214, 208, 202)
FONT = "Helvetica"
# What the fonts lack and is written often enough to be written well.
INSTEAD = str.maketrans(
    {
        "−": "-",
        "–": "-",
        "—": "-",
        "…": "...",
        "’": "'",
        "‘": "'",
        "“": '"',
        "”": '"',
        "\u00a0": " ",
        "\u202f": " ",
    }
)


class Paper:
    """One document, written from top to bottom."""

    def __init__(self, *, title: str, number: str, language: str) -> None:
        import fpdf

        self._pdf = fpdf.FPDF(format="A4")
        self._pdf.set_margins(MARGIN_MM, MARGIN_MM, MARGIN_MM)
        self._pdf.set_auto_page_break(True, margin=MARGIN_MM)
        self._pdf.set_title(_plain(f"{title} {number}"))
        self._pdf.set_creator("Aleph")
        self._pdf.set_lang(language)
        self._pdf.set_draw_color(*LINE)
        self._pdf.add_page()
        top = self._pdf.get_y()
        self._write("Aleph", size=18, bold=True, color=ACCENT)
        self._pdf.set_y(top)
        self._write(title, size=18, bold=True, align="R")
        self._write(number, size=10, color=MUTED, align="R")
        self.gap(8)

    def heading(self, text: str) -> None:
        self._write(text, size=13, bold=True)
        self.gap(3)

    def facts(self, facts: Sequence[tuple[str, str]]) -> None:
        """Labels with what they say, each on lines of its own."""
        for label, text in facts:
            self._write(label, size=9, color=MUTED)
            self._write(text, size=10.5)
            self.gap(2)
        self.gap(4)

    def table(
        self,
        head: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        widths: Sequence[int],
        total: bool = False,
    ) -> None:
        """The first column is text, the others are figures. With `total` the last row is one."""
        from fpdf.fonts import FontFace

        self._font(10)
        with self._pdf.table(
            col_widths=tuple(widths),
            text_align=("LEFT", *["RIGHT"] * (len(head) - 1)),
            borders_layout="HORIZONTAL_LINES",
            headings_style=FontFace(emphasis="", color=MUTED, size_pt=9),
            line_height=6,
            padding=1,
        ) as table:
            for place, cells in enumerate([head, *rows]):
                row = table.row()
                is_total = total and place == len(rows)
                for cell in cells:
                    row.cell(_plain(cell), style=FontFace(emphasis="BOLD", size_pt=12) if is_total else None)
        self.gap(6)

    def small(self, text: str) -> None:
        self._write(text, size=8, color=MUTED)

    def gap(self, height_mm: float) -> None:
        self._pdf.ln(height_mm)

    def as_bytes(self, *, at: datetime) -> bytes:
        """The file, dated `at`, so that the same document is the same bytes."""
        self._pdf.set_creation_date(at)
        return bytes(self._pdf.output())

    def _write(
        self,
        text: str,
        *,
        size: float,
        bold: bool = False,
        color: tuple[int, int, int] = INK,
        align: str = "L",
    ) -> None:
        from fpdf.enums import WrapMode

        self._font(size, bold=bold)
        self._pdf.set_text_color(*color)
        self._pdf.multi_cell(
            0,
            size * 0.5,
            _plain(text),
            align=align,
            new_x="LMARGIN",
            new_y="NEXT",
            wrapmode=WrapMode.WORD if " " in text else WrapMode.CHAR,
        )
        self._pdf.set_text_color(*INK)

    def _font(self, size: float, *, bold: bool = False) -> None:
        self._pdf.set_font(FONT, "B" if bold else "", size)


def answered(name: str, body: bytes) -> HttpResponse:
    """A PDF to be kept under `name`."""
    return HttpResponse(
        body,
        content_type="application/pdf",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
        },
    )


def _plain(text: str) -> str:
    """`text` in the letters of the fonts (Latin-1)."""
    return "".join(map(_letter, text.translate(INSTEAD)))


def _letter(letter: str) -> str:
    if letter.isprintable() or letter == "\n":
        for form in (letter, unicodedata.normalize("NFKD", letter)):
            kept = form.encode("latin-1", "ignore").decode("latin-1")
            if kept:
                return kept
        return "?"
    return " "
