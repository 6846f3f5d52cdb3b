"""Drawings of the server: round scales, measures that SVG understands, words in the reader's language."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from django.template.loader import render_to_string
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from aleph import charts


def week(*series: charts.Series, count: int = 7) -> charts.Bars:
    columns = [charts.Column(f"{day} Nov", f"?day={day}") for day in range(1, count + 1)]
    return charts.stacked_bars(
        element_id="by-day", title="Tokens", description="By day", columns=columns, series=series
    )


# Scales


@pytest.mark.parametrize(
    ("most", "scale"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (7, [0, 2, 4, 6, 8]),
        (11, [0, 5, 10, 15]),
        (100, [0, 25, 50, 75, 100]),
        (101, [0, 50, 100, 150]),
        (18_458, [0, 5_000, 10_000, 15_000, 20_000]),
    ],
)
def test_a_scale_has_round_numbers_up_to_the_most(most: int, scale: list[int]) -> None:
    assert charts.nice_scale(most) == scale


@given(st.integers(min_value=0, max_value=10**15))
def test_a_scale_is_even_covers_the_most_and_wastes_less_than_a_step(most: int) -> None:
    scale = charts.nice_scale(most)
    steps = {upper - lower for lower, upper in pairwise(scale)}
    assert len(steps) == 1
    assert 2 <= len(scale) <= charts.INTERVALS + 1
    assert scale[0] == 0
    assert scale[-1] - max(most, 1) < steps.pop()
    assert scale[-1] >= most


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (950, "950"), (1_500, "1.5K"), (20_000, "20K"), (2_500_000, "2.5M"), (10**9, "1B")],
)
def test_numbers_on_an_axis_are_short(value: int, shown: str) -> None:
    with translation.override("en"):
        assert charts.compact(value) == shown


def test_numbers_on_an_axis_are_written_as_the_reader_writes_them() -> None:
    with translation.override("id"):
        assert charts.compact(2_500_000).startswith("2,5")


# Bars


def test_bars_stand_on_each_other_and_reach_what_their_sum_is_worth() -> None:
    chart = week(
        charts.Series("a", 1, [50, 0, 0, 0, 0, 0, 0]), charts.Series("b", 2, [50, 0, 0, 0, 0, 0, 100])
    )
    lower, upper = chart.stacks[0].bars
    assert (lower.slot, lower.y, lower.height) == (1, 142, 134)
    assert (upper.slot, upper.y, upper.height) == (2, 8, 133)
    assert upper.y + upper.height < lower.y
    assert chart.stacks[6].bars[0].y == 8


def test_all_bars_of_a_colour_are_one_element() -> None:
    chart = week(
        charts.Series("a", 1, [50, 0, 0, 0, 0, 0, 50]),
        charts.Series("b", charts.SLOTS, [50, 0, 0, 0, 0, 0, 0]),
        charts.Series("c", charts.SLOTS, [0, 0, 0, 0, 0, 0, 50]),
    )
    first, last = chart.stacks[0].bars[0], chart.stacks[6].bars[0]
    assert [(path.slot, path.points.count("M")) for path in chart.paths] == [(1, 2), (charts.SLOTS, 2)]
    assert chart.paths[0].points == "".join(
        f"M{bar.x:.2f} 142.0h{bar.width:.2f}v134.0h-{bar.width:.2f}z" for bar in (first, last)
    )


def test_a_day_without_tokens_has_a_link_and_no_bar() -> None:
    quiet = week(charts.Series("a", 1, [9, 0, 9, 9, 9, 9, 9])).stacks[1]
    assert (quiet.total, quiet.bars, quiet.lines) == (0, [], [])
    assert quiet.column.href == "?day=2"


def test_what_is_too_little_to_be_seen_is_drawn_all_the_same() -> None:
    chart = week(
        charts.Series("a", 1, [10**6, *[0] * 6]),
        charts.Series("b", 2, [1000, *[0] * 6]),
    )
    assert float(f"{chart.stacks[0].bars[1].height:.1f}") > 0


def test_columns_share_the_width_and_links_cover_all_of_it() -> None:
    for count in (7, 30, 90):
        chart = week(charts.Series("a", 1, [5] * count), count=count)
        edges = [float(stack.x.rstrip("%")) for stack in chart.stacks]
        assert edges[0] == 0
        assert edges[-1] + float(chart.stacks[-1].width.rstrip("%")) == pytest.approx(100, abs=0.02)
        assert all(stack.bars[0].width <= charts.WIDEST_BAR for stack in chart.stacks)


def test_a_tooltip_lists_from_the_top_what_is_not_nothing() -> None:
    stack = week(
        charts.Series("below", 1, [3, *[0] * 6]),
        charts.Series("none", 2, [0] * 7),
        charts.Series("above", 3, [4, *[0] * 6]),
    ).stacks[0]
    assert [(line.name, line.value) for line in stack.lines] == [("above", 4), ("below", 3)]
    assert stack.values == [3, 0, 4]


def test_a_tooltip_never_leaves_the_plot() -> None:
    narrowest = 260
    for stack in week(charts.Series("a", 1, [1] * 90), count=90).stacks:
        left = float(stack.center.rstrip("%")) / 100 * narrowest + float(stack.tip_shift)
        assert -1 <= left <= narrowest - charts.TIP_WIDTH + 1


def test_a_long_name_is_cut_in_the_tooltip_and_whole_in_the_label() -> None:
    name = "an-endlessly-long-name-of-a-model"
    line = week(charts.Series(name, 1, [1_234_567] * 7)).stacks[0].lines[0]
    assert line.short.endswith("…")
    assert line.name == name


def test_few_columns_are_all_named_and_many_only_now_and_then() -> None:
    seven = week(charts.Series("a", 1, [1] * 7)).marks
    assert len(seven) == 7
    assert not any(mark.is_last for mark in seven)
    many = week(charts.Series("a", 1, [1] * 30), count=30).marks
    assert len(many) <= charts.LABELS
    assert (many[0].label, many[0].x, many[0].is_last) == ("30 Nov", "100%", True)


# The drawing


@pytest.mark.parametrize("language", ["en", "id"])
def test_the_drawing_is_well_formed_and_its_measures_are_not_translated(language: str) -> None:
    with translation.override(language):
        chart = week(
            charts.Series("<b>a</b>", 1, [1_234_567, *[1] * 6]), charts.Series("b", 6, [333_333, *[0] * 6])
        )
        drawn = render_to_string("charts/_bars.html", {"chart": chart})
    plot = ElementTree.fromstring(f"<div>{drawn}</div>")
    assert "<b>" not in drawn
    for element in plot.iter():
        for measure in ("x", "y", "x1", "x2", "y1", "y2", "width", "height"):
            float(element.get(measure, "0").rstrip("%"))
    assert len(plot.findall(".//a")) == 7
    shown = "1,567,900" if language == "en" else "1.567.900"
    assert f"1 Nov: {shown}, b" in drawn
