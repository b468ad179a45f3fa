"""Charts of figures with their intervals, as the numbers an SVG is made of; `report.html.jinja` draws them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

WIDTH = 400  # of every chart, in its own units; the page scales it
LEFT, RIGHT, TOP = 34, 396, 10
ROW, LABEL = 15, 17  # of a forest: the height of a series' row, and of the text above a group

Interval = tuple[float, float, float]  # value, low, high


class Mark(NamedTuple):
    """A figure: its shape and its interval's bar as SVG paths, the number of its series, and what it is in words."""

    shape: str
    bar: str
    series: int
    label: str


class Text(NamedTuple):
    """Text in a chart. `anchor` is what (x, y) is of it: start, middle or end."""

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
        lines: series and path of what joins them.
        grid: the path of the grid.
        texts: at the axes and beside the marks.
        reference: the band of a figure to compare with as (x, y, width, height), and the path of the line in it.
        legend: the series by name with a sample of each shape; the reference's name comes first, with none.
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


def forest(
    groups: Mapping[str, Mapping[str, Interval]],
    reference: tuple[str, Interval] | None,
    series: Sequence[str],
    caption: str,
) -> Chart:
    """Groups of figures below each other, values to the right, each with its number beside it.

    Args:
        groups: by the group's label, figures by series.
        reference: what to compare with: name and figure.
        series: their names in order; a series keeps shape and colour over all charts of a page.
        caption: what is shown.
    """
    left, right = 8, 356
    ticks = _ticks(
        [
            *(i for figures in groups.values() for i in figures.values()),
            *([reference[1]] if reference else []),
        ]
    )
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> float:
        return round(left + (value - low) / (high - low) * (right - left), 2)

    marks, texts, y = [], [], float(TOP)
    for label, figures in groups.items():
        texts.append(Text(left, y + 8, "start", label, strong=True))
        y += LABEL
        for name, figure in figures.items():
            marks.append(
                _mark(
                    series.index(name),
                    at(figure[0]),
                    y + 4,
                    (at(figure[1]), at(figure[2])),
                    True,
                    f"{label}, {name}",
                    figure,
                )
            )
            texts.append(Text(RIGHT, y + 8, "end", f"{figure[0]:.1f}"))
            y += ROW
        y += 5
    texts += [Text(at(tick), y + 13, "middle", f"{tick:g}") for tick in ticks]
    grid = "".join(f"M{at(tick)} {TOP - 4}V{y}" for tick in ticks)
    band = None
    if reference:
        x, x0, x1 = (at(edge) for edge in reference[1])
        band = ((x0, TOP - 4, round(x1 - x0, 2), y - TOP + 4), f"M{x} {TOP - 4}V{y}")
    return Chart(
        y + 20, marks, [], grid, texts, band, _legend(series, reference, groups.values()), caption
    )


def curves(
    xs: Sequence[str],
    figures: Mapping[str, Sequence[Interval]],
    reference: tuple[str, Interval] | None,
    series: Sequence[str],
    caption: str,
) -> Chart:
    """A line a series over a few steps, values upwards.

    Args:
        xs: labels of the steps.
        figures: by series, a figure for each step.
        reference, series, caption: as of `forest`.
    """
    bottom = 196
    ticks = _ticks(
        [*(i for line in figures.values() for i in line), *([reference[1]] if reference else [])]
    )
    low, high = ticks[0], ticks[-1]

    def at(value: float) -> float:
        return round(bottom - (value - low) / (high - low) * (bottom - TOP), 2)

    slot = (RIGHT - LEFT) / len(xs)
    aside = min(
        7.0, slot / (len(figures) + 1)
    )  # series stand beside each other, so that their intervals can be told apart
    marks, lines = [], []
    for order, (name, line) in enumerate(figures.items()):
        points = []
        for i, figure in enumerate(line):
            x = round(LEFT + (i + 0.5) * slot + (order - (len(figures) - 1) / 2) * aside, 2)
            points.append((x, at(figure[0])))
            marks.append(
                _mark(
                    series.index(name),
                    *points[-1],
                    (at(figure[1]), at(figure[2])),
                    False,
                    f"{xs[i]}, {name}",
                    figure,
                )
            )
        lines.append((series.index(name), "M" + "L".join(f"{x} {y}" for x, y in points)))
    texts = [Text(LEFT - 5, at(tick) + 4, "end", f"{tick:g}") for tick in ticks]
    texts += [
        Text(round(LEFT + (i + 0.5) * slot, 2), bottom + 15, "middle", x) for i, x in enumerate(xs)
    ]
    grid = "".join(f"M{LEFT} {at(tick)}H{RIGHT}" for tick in ticks)
    band = None
    if reference:
        y, y0, y1 = (at(edge) for edge in reference[1])
        band = ((LEFT, y1, RIGHT - LEFT, round(y0 - y1, 2)), f"M{LEFT} {y}H{RIGHT}")
    return Chart(
        bottom + 22, marks, lines, grid, texts, band, _legend(series, reference, [figures]), caption
    )


def _legend(
    series: Sequence[str],
    reference: tuple[str, Interval] | None,
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
    """A path around (x, y), another for each of five series: round, round, square, triangle, diamond."""
    size = 4.2
    if series < 2:
        return f"M{x - size:.2f} {y}a{size} {size} 0 1 0 {2 * size} 0a{size} {size} 0 1 0 {-2 * size} 0z"
    corners = {
        2: ((-3.8, -3.8), (3.8, -3.8), (3.8, 3.8), (-3.8, 3.8)),
        0: ((0, -5), (4.8, 3.6), (-4.8, 3.6)),
        1: ((0, -5.4), (5.4, 0), (0, 5.4), (-5.4, 0)),
    }
    return "M" + "L".join(f"{x + dx:.2f} {y + dy:.2f}" for dx, dy in corners[series % 3]) + "z"


def _ticks(figures: Iterable[Interval]) -> list[float]:
    """Round values, evenly spaced, that enclose the figures and their intervals."""
    edges = [edge for figure in figures for edge in figure if math.isfinite(edge)] or [0.0, 100.0]
    low, high = min(edges), max(edges)
    step = round_step((high - low) or 1)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def round_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that three to six steps make up the span."""
    power = 10 ** math.floor(math.log10(span / 3))
    return next(power * factor for factor in (5, 2, 1) if power * factor <= span / 3)
