"""Charts of figures with their intervals, as the numbers that an SVG is made of.

`report.html.jinja` draws them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

WIDTH = 400
"""The width of every chart in its own units; the page scales it."""
LEFT, RIGHT, TOP = 34, 396, 10
FOREST_LEFT, FOREST_RIGHT = 8, 356
CURVES_BOTTOM = 196
ROW = 15
"""The height of a series' row in a forest."""
LABEL = 17
"""The height of the text above a group in a forest."""
MOST_BARS = 400
BARS_TOP, BARS_BOTTOM = 8, 168

Interval = tuple[float, float, float]
"""A value with the ends of its interval: value, low, high."""
Reference = tuple[str, Interval]
"""What to compare with: its name and figure."""


class Mark(NamedTuple):
    """A figure in a chart.

    Attributes:
        shape: its shape as an SVG path.
        bar: its interval as an SVG path.
        series: the number of its series.
        label: the figure in words.
    """

    shape: str
    bar: str
    series: int
    label: str


class Text(NamedTuple):
    """Text in a chart; `anchor` is the part of it at (x, y): start, middle or end."""

    x: float
    y: float
    anchor: str
    text: str
    strong: bool = False


class Chart(NamedTuple):
    """A chart, 400 units wide.

    Attributes:
        height: in the same units.
        marks: the figures.
        lines: the number of a series, and the path that joins its figures.
        grid: the path of the grid.
        texts: at the axes and beside the marks.
        reference: the band of a figure to compare with as (x, y, width, height), and the path of
            the line in it.
        legend: the number, name and a sample of the shape of each series; the reference comes
            first.
        caption: what is shown.
    """

    height: float
    marks: Sequence[Mark]
    lines: Sequence[tuple[int, str]]
    grid: str
    texts: Sequence[Text]
    reference: tuple[tuple[float, float, float, float], str] | None
    legend: Sequence[tuple[int, str, str]]
    caption: str


class Bar(NamedTuple):
    """A bar of a bar chart, in its 400 x 180 units."""

    x: float
    y: float
    width: float
    height: float
    rises: bool
    label: str


class BarChart(NamedTuple):
    """Bars up and down from zero; `ticks` are (y, label)."""

    bars: Sequence[Bar]
    ticks: Sequence[tuple[float, str]]
    zero: float
    caption: str


class _Axis:
    """Puts values between two ends of an axis, in a chart's units."""

    def __init__(self, figures: Iterable[Interval], start: float, end: float) -> None:
        self.ticks = _ticks(figures)
        self.start, self.end = start, end

    def at(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 2)

    def ends(self, figure: Interval) -> tuple[float, float]:
        return self.at(figure[1]), self.at(figure[2])


def forest(
    groups: Mapping[str, Mapping[str, Interval]],
    reference: Reference | None,
    series: Sequence[str],
    caption: str,
) -> Chart:
    """Return a chart of groups of figures below each other, values to the right.

    Args:
        groups: by the group's label, figures by series.
        reference: what to compare with, or None.
        series: the names of all series in order; a series has one shape and colour in all charts
            of a page.
        caption: what is shown.
    """
    figures = [figure for group in groups.values() for figure in group.values()]
    axis = _Axis(_with(figures, reference), FOREST_LEFT, FOREST_RIGHT)
    marks, texts, y = [], [], float(TOP)
    for label, group in groups.items():
        texts.append(Text(FOREST_LEFT, y + 8, "start", label, strong=True))
        y += LABEL
        for name, figure in group.items():
            x, shape = axis.at(figure[0]), series.index(name)
            marks.append(
                _mark(shape, x, y + 4, axis.ends(figure), True, f"{label}, {name}", figure)
            )
            texts.append(Text(RIGHT, y + 8, "end", f"{figure[0]:.1f}"))
            y += ROW
        y += 5
    texts += [Text(axis.at(tick), y + 13, "middle", f"{tick:g}") for tick in axis.ticks]
    grid = "".join(f"M{axis.at(tick)} {TOP - 4}V{y}" for tick in axis.ticks)
    band = None
    if reference:
        x, x0, x1 = (axis.at(edge) for edge in reference[1])
        band = ((x0, TOP - 4, round(x1 - x0, 2), y - TOP + 4), f"M{x} {TOP - 4}V{y}")
    legend = _legend(series, reference, groups.values())
    return Chart(y + 20, marks, [], grid, texts, band, legend, caption)


def curves(
    steps: Sequence[str],
    figures: Mapping[str, Sequence[Interval]],
    reference: Reference | None,
    series: Sequence[str],
    caption: str,
) -> Chart:
    """Return a chart of a line per series over a few steps, values upwards.

    Args:
        steps: the label of each step.
        figures: by series, a figure for each step.
        reference: what to compare with, or None.
        series: the names of all series in order, as of `forest`.
        caption: what is shown.
    """
    axis = _Axis(
        _with((figure for line in figures.values() for figure in line), reference),
        CURVES_BOTTOM,
        TOP,
    )
    slot = (RIGHT - LEFT) / len(steps)
    # Series are drawn side by side, so that their intervals do not overlap.
    offset = min(7.0, slot / (len(figures) + 1))
    marks, lines = [], []
    for order, (name, line) in enumerate(figures.items()):
        shift = (order - (len(figures) - 1) / 2) * offset
        points = []
        for i, figure in enumerate(line):
            x, y = round(LEFT + (i + 0.5) * slot + shift, 2), axis.at(figure[0])
            points.append(f"{x} {y}")
            label = f"{steps[i]}, {name}"
            marks.append(_mark(series.index(name), x, y, axis.ends(figure), False, label, figure))
        lines.append((series.index(name), "M" + "L".join(points)))
    texts = [Text(LEFT - 5, axis.at(tick) + 4, "end", f"{tick:g}") for tick in axis.ticks]
    texts += [
        Text(round(LEFT + (i + 0.5) * slot, 2), CURVES_BOTTOM + 15, "middle", step)
        for i, step in enumerate(steps)
    ]
    grid = "".join(f"M{LEFT} {axis.at(tick)}H{RIGHT}" for tick in axis.ticks)
    band = None
    if reference:
        y, y0, y1 = (axis.at(edge) for edge in reference[1])
        band = ((LEFT, y1, RIGHT - LEFT, round(y0 - y1, 2)), f"M{LEFT} {y}H{RIGHT}")
    legend = _legend(series, reference, [figures])
    return Chart(CURVES_BOTTOM + 22, marks, lines, grid, texts, band, legend, caption)


def sorted_bars(values: Mapping[str, float], unit: str, caption: str) -> BarChart:
    """Return a chart of one bar per value, sorted, up or down from zero.

    Of more than 400 values, 400 evenly spread over the sorted ones are drawn.

    Args:
        values: by name, at least one.
        unit: such as "dB".
        caption: what is shown.
    """
    ordered = sorted(values.items(), key=lambda item: item[1])
    if len(ordered) > MOST_BARS:
        last = len(ordered) - 1
        ordered = [ordered[round(i * last / (MOST_BARS - 1))] for i in range(MOST_BARS)]
    low, high = min(0.0, ordered[0][1]), max(0.0, ordered[-1][1])
    step = round_step((high - low) or 1)
    low = math.floor(low / step) * step
    high = max(math.ceil(high / step), 1 if low == 0 else 0) * step

    def height_of(value: float) -> float:
        return round(BARS_TOP + (high - value) / (high - low) * (BARS_BOTTOM - BARS_TOP), 2)

    slot = (RIGHT - LEFT) / len(ordered)
    width = round(min(slot * 0.86, 28), 3)
    zero = height_of(0)
    bars = []
    for i, (name, value) in enumerate(ordered):
        y, x = height_of(value), round(LEFT + (i + 0.5) * slot - width / 2, 2)
        label = f"{name}: {value:+.2f} {unit}"
        bars.append(Bar(x, min(y, zero), width, abs(round(y - zero, 2)), value >= 0, label))
    numbers = range(round(low / step), round(high / step) + 1)
    ticks = [(height_of(i * step), f"{i * step:g}") for i in numbers]
    return BarChart(bars, ticks, zero, caption)


def _with(figures: Iterable[Interval], reference: Reference | None) -> list[Interval]:
    return [*figures, *([reference[1]] if reference else [])]


def _legend(
    series: Sequence[str],
    reference: Reference | None,
    used: Iterable[Mapping[str, object]],
) -> list[tuple[int, str, str]]:
    names = {name for figures in used for name in figures}
    entries = [(i, name, _shape(i, 7, 7)) for i, name in enumerate(series) if name in names]
    return [(-1, reference[0], "M1 7H13"), *entries] if reference else entries


def _mark(
    series: int,
    x: float,
    y: float,
    ends: tuple[float, float],
    across: bool,
    name: str,
    figure: Interval,
) -> Mark:
    if not all(map(math.isfinite, ends)):
        return Mark(_shape(series, x, y), "", series, f"{name}: {figure[0]:.1f} %, no interval")
    bar = f"M{ends[0]} {y}H{ends[1]}" if across else f"M{x} {ends[0]}V{ends[1]}"
    caps = "".join(f"M{end} {y - 3}v6" if across else f"M{x - 3:.2f} {end}h6" for end in ends)
    return Mark(
        _shape(series, x, y),
        bar + caps,
        series,
        f"{name}: {figure[0]:.1f} % ({figure[1]:.1f} to {figure[2]:.1f})",
    )


def _shape(series: int, x: float, y: float) -> str:
    """Return a path around (x, y), which differs for five series.

    It is a circle for the first two, then a square, a triangle and a diamond.
    """
    size = 4.2
    if series < 2:
        half = f"a{size} {size} 0 1 0"
        return f"M{x - size:.2f} {y}{half} {2 * size} 0{half} {-2 * size} 0z"
    corners = {
        2: ((-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)),
        0: ((0, -5), (4.8, 3.6), (-4.8, 3.6)),
        1: ((0, -5.4), (5.4, 0), (0, 5.4), (-5.4, 0)),
    }
    return "M" + "L".join(f"{x + dx:.2f} {y + dy:.2f}" for dx, dy in corners[series % 3]) + "z"


def _ticks(figures: Iterable[Interval]) -> list[float]:
    """Return round values, evenly spaced, that enclose the figures and their intervals."""
    edges = [edge for figure in figures for edge in figure if math.isfinite(edge)] or [0.0, 100.0]
    low, high = min(edges), max(edges)
    step = round_step((high - low) or 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def round_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that three to six steps make up the span."""
    power = 10 ** math.floor(math.log10(span / 3))
    return next(power * factor for factor in (5, 2, 1) if power * factor <= span / 3)
