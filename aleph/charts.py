"""Drawings that the server makes: scales, ticks, stacked bars, lines, rings. For every app; knows none of them, and no model.

A drawing is measured here and becomes SVG in `templates/charts/`. Across, everything is in per cent, and down, in px: the
plot is as wide as its place and its text keeps its size. Measures are strings, because a template would write numbers
in the reader's language, and SVG has none.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.utils.formats import number_format
from django.utils.translation import gettext as _

from aleph.amounts import count as counted
from aleph.amounts import rupiah, usd

SLOTS = 6
"""Colours of the palette (`series-1` to `series-6`); the last one is grey, for what is left over."""

HEIGHT, TOP, BASE = 300, 8, 276
INTERVALS = 4
"""Steps of the scale at most."""

STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
BAR_SHARE, WIDEST_BAR = 0.64, 6.0
LABELS = 7
COUNT, MICRO_USD, IDR = "count", "micro_usd", "idr"
"""What values are: numbers, millionths of a dollar, rupiah."""
GAP = 0.8
"""Per cent of a ring that stay free between two parts of it."""
TIP_WIDTH, TIP_LINE, DIGIT, LETTER = 208, 18, 6.9, 6.4
"""The box of a tooltip (the stylesheet knows its width, too), and about how wide its text runs, in px."""


@dataclass(frozen=True, slots=True)
class Column:
    """One place on the axis: its name, where its link leads, and below the axis a shorter name, where there is one."""

    label: str
    href: str
    mark: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of the stacks: `slot` of the palette (1 to `SLOTS`), one whole number for each column."""

    name: str
    slot: int
    values: Sequence[int]


@dataclass(frozen=True, slots=True)
class Tick:
    y: str
    label: str
    is_base: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A name below the axis. `is_fine`: left out where the plot is narrow."""

    x: str
    label: str
    is_last: bool
    is_fine: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """One series in one column, of a plot that is 100 wide."""

    slot: int
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Line:
    """One series in a tooltip. `short` fits beside its number, which is also there as it is `said`."""

    slot: int
    name: str
    short: str
    value: int
    said: str
    y: int


@dataclass(frozen=True, slots=True)
class Stack:
    """One column: its bars, and the link over them with its tooltip, which lists from the top what is not 0.

    Numbers are written out once, though they stand in several places: `said` is the total, `label` what the link is
    called, `cells` what the table says.

    `tip_shift` keeps the tooltip within the plot; where there is room, it stands beside the column instead, to the left
    where it `opens_left`.
    """

    column: Column
    total: int
    x: str
    width: str
    center: str
    bars: Sequence[Bar]
    lines: Sequence[Line]
    values: Sequence[int]
    said: str
    label: str
    cells: Sequence[str]
    tip_shift: str
    opens_left: bool

    @property
    def tip_height(self) -> int:
        return 34 + TIP_LINE * len(self.lines)


@dataclass(frozen=True, slots=True)
class Path:
    """The bars of one colour, or one series as a line, in a plot that is 100 wide: one element of the page, of which there
    would be hundreds otherwise."""

    slot: int
    points: str


@dataclass(frozen=True, slots=True)
class Arc:
    """A part of a ring whose way round is 100 long: `dash` how long it is and what follows, `offset` where it begins."""

    slot: int
    dash: str
    offset: str


@dataclass(frozen=True, slots=True)
class Bars:
    """Stacked bars, ready to be drawn; `element_id` is unique on its page. `measure` says what the values are. Where
    `are_lines`, the totals of the stacks mean nothing."""

    element_id: str
    title: str
    description: str
    series: Sequence[Series]
    ticks: Sequence[Tick]
    marks: Sequence[Mark]
    stacks: Sequence[Stack]
    paths: Sequence[Path]
    measure: str = COUNT
    are_lines: bool = False
    height: int = HEIGHT
    base: int = BASE
    tip_width: int = TIP_WIDTH

    @property
    def hit_height(self) -> int:
        return BASE - TOP + 4

    @property
    def latest_first(self) -> list[Stack]:
        return list(reversed(self.stacks))


def stacked_bars(
    *,
    element_id: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    series: Sequence[Series],
    measure: str = COUNT,
) -> Bars:
    """One stack for each column, the first series at the bottom."""
    totals = [sum(part.values[place] for part in series) for place in range(len(columns))]
    scale = nice_scale(max(totals, default=0))
    stacks = [
        _stack(column, place, len(columns), totals[place], series, scale, measure)
        for place, column in enumerate(columns)
    ]
    return Bars(
        element_id=element_id,
        title=title,
        description=description,
        series=series,
        ticks=_ticks(scale, measure),
        marks=list(_marks(columns)),
        stacks=stacks,
        paths=_colours([bar for stack in stacks for bar in stack.bars]),
        measure=measure,
    )


def lines(
    *,
    element_id: str,
    title: str,
    description: str,
    columns: Sequence[Column],
    series: Sequence[Series],
    measure: str = COUNT,
) -> Bars:
    """A line for each series, with a point in the middle of each column."""
    scale = nice_scale(max((value for part in series for value in part.values), default=0))
    count = len(columns)
    return Bars(
        element_id=element_id,
        title=title,
        description=description,
        series=series,
        ticks=_ticks(scale, measure),
        marks=list(_marks(columns)),
        stacks=[
            _stack(column, place, count, None, series, scale, measure) for place, column in enumerate(columns)
        ],
        measure=measure,
        are_lines=True,
        paths=[
            Path(
                part.slot,
                " ".join(
                    f"{(place + 0.5) * 100 / count:.2f},{BASE - _rise(value, scale):.1f}"
                    for place, value in enumerate(part.values)
                ),
            )
            for part in series
        ],
    )


def ring(values: Sequence[int]) -> list[Arc]:
    """Parts of a whole, clockwise from the top; the first `SLOTS` - 1 have colours of their own."""
    whole, parts = sum(values), [value for value in values if value]
    arcs, begun = [], 0.0
    for slot, value in enumerate(values, 1):
        if not value:
            continue
        share = 100 * value / whole
        length = share if len(parts) == 1 else max(share - GAP, share / 2)
        arcs.append(Arc(min(slot, SLOTS), f"{length:.2f} {100 - length:.2f}", f"{25 - begun:.2f}"))
        begun += share
    return arcs


def _ticks(scale: Sequence[int], measure: str) -> list[Tick]:
    return [
        Tick(
            _px(BASE - _rise(value, scale)),
            compact_usd(value) if measure == MICRO_USD else compact(value),
            value == 0,
        )
        for value in scale
    ]


def nice_scale(most: int) -> list[int]:
    """Round, evenly spaced whole numbers from 0 up to at least `most`: three to six of them, or just 0 and 1."""
    if most <= 1:
        return [0, 1]
    power = Decimal(10) ** (len(str(most)) - 2)
    step = next(
        int(candidate)
        for candidate in (power * factor * nice for factor in (1, 10) for nice in STEPS)
        if candidate * INTERVALS >= most and candidate == int(candidate)
    )
    return list(range(0, most + step, step))


def compact(value: int) -> str:
    """A number for an axis, in the reader's language: 950, 1.5K, 20M."""
    for size, text in ((10**9, _("%(number)sB")), (10**6, _("%(number)sM")), (10**3, _("%(number)sK"))):
        if value >= size:
            number = (Decimal(value) / size).normalize()
            return text % {"number": number_format(f"{number:f}", use_l10n=True)}
    return str(value)


def rounded(value: int) -> str:
    """A number of any size in a few letters: 950, 12.3K, 2.14M."""
    places = len(str(value)) - 3
    return compact(value if places <= 0 else round(value, -places))


def compact_usd(micro_usd: int) -> str:
    """The same of money: $0.0025, $20, $1.5K."""
    if micro_usd >= 10**9:
        return f"${compact(micro_usd // 10**6)}"
    number = (Decimal(micro_usd) / 10**6).normalize()
    return f"${number_format(f'{number:f}', use_l10n=True)}"


def shortened(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: max(1, letters - 1)].rstrip()}…"


def measured(value: int, measure: str) -> str:
    """A value as people read it: a count, an amount of dollars or of rupiah."""
    if measure == MICRO_USD:
        return usd(Decimal(value) / 1_000_000)
    return rupiah(value) if measure == IDR else counted(value)


def _rise(value: int, scale: Sequence[int]) -> float:
    return (BASE - TOP) * value / scale[-1]


def _marks(columns: Sequence[Column]) -> Iterator[Mark]:
    """Names for some of the columns, evenly from the last one back, so that the last one has its own."""
    count = len(columns)
    every = math.ceil(count / LABELS)
    at_edge = count > LABELS
    for nth, place in enumerate(range(count - 1, 0 if at_edge else -1, -every)):
        is_last = nth == 0 and at_edge
        x = "100%" if is_last else _percent((place + 0.5) * 100 / count)
        if place * 100 / count >= 5 or not at_edge:
            yield Mark(x, columns[place].mark or columns[place].label, is_last, is_fine=nth % 2 == 1)


def _stack(
    column: Column,
    place: int,
    count: int,
    total: int | None,
    series: Sequence[Series],
    scale: Sequence[int],
    measure: str,
) -> Stack:
    """`total` is None where values are not added up."""
    step = 100 / count
    width = min(step * BAR_SHARE, WIDEST_BAR)
    center = (place + 0.5) * step
    bars, below = [], 0
    for part in series:
        value = part.values[place]
        if value:
            bottom, rise = _rise(below, scale), _rise(value, scale)
            # A hair of paper between two colours; what is thinner than that still shows.
            height = rise if not below else max(rise - 1, rise / 2)
            y = BASE - bottom - rise
            bars.append(Bar(part.slot, center - width / 2, y, width, height))
            below += value
    cells = [measured(part.values[place], measure) for part in series]
    parts = [
        (part, part.values[place], said)
        for part, said in zip(reversed(series), reversed(cells), strict=True)
        if part.values[place]
    ]
    said = "" if total is None else measured(total, measure)
    whole = column.label if total is None else f"{column.label}: {said}"
    return Stack(
        column=column,
        total=total or 0,
        x=_percent(place * step),
        width=_percent(step),
        center=_percent(center),
        bars=bars,
        lines=[_line(*part, 40 + TIP_LINE * nth) for nth, part in enumerate(parts)],
        values=[part.values[place] for part in series],
        said=said,
        label=", ".join([whole, *(f"{part.name} {said}" for part, _value, said in parts)]),
        cells=cells if total is None else [*cells, said],
        tip_shift=_px(-center / 100 * TIP_WIDTH),
        opens_left=center >= 50,
    )


def _colours(bars: Sequence[Bar]) -> list[Path]:
    drawn: dict[int, list[str]] = defaultdict(list)
    for bar in bars:
        width, height = f"{bar.width:.2f}", _px(bar.height)
        drawn[bar.slot].append(f"M{bar.x:.2f} {_px(bar.y)}h{width}v{height}h-{width}z")
    return [Path(slot, "".join(drawn[slot])) for slot in sorted(drawn)]


def _line(part: Series, value: int, said: str, y: int) -> Line:
    room = TIP_WIDTH - 28 - 12 - 8 - DIGIT * len(f"{value:,}")
    return Line(part.slot, part.name, shortened(part.name, int(room / LETTER)), value, said, y)


def _percent(value: float) -> str:
    return f"{value:.2f}%"


def _px(value: float) -> str:
    return f"{value:.1f}"
