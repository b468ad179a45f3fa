"""Charts: figures are at their values and inside the chart."""

import re

import pytest

from vrdir.evaluation.report.charts import RIGHT, WIDTH, Interval, curves, forest

SERIES = ["nothing", "vrdir", "peer"]


def numbers(path: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.?\d*", path)]


def test_forest_draws_each_figure_at_its_value() -> None:
    groups = {"haze": {"nothing": (20.0, 10.0, 30.0), "peer": (60.0, 50.0, 80.0)}}
    chart = forest(groups, ("clean", (90.0, 85.0, 95.0)), SERIES, "caption")
    ticks = {float(text.text): text.x for text in chart.texts if text.anchor == "middle"}
    step = (ticks[100] - ticks[0]) / 100
    for mark, (value, low, high) in zip(chart.marks, groups["haze"].values(), strict=True):
        start, _, end, *_ = numbers(mark.bar)
        assert start == pytest.approx(ticks[0] + low * step, abs=0.02)
        assert end == pytest.approx(ticks[0] + high * step, abs=0.02)
        assert f"{value:.1f} % ({low:.1f} to {high:.1f})" in mark.label
    assert [mark.series for mark in chart.marks] == [0, 2]
    assert [name for _, name, _ in chart.legend] == ["clean", "nothing", "peer"]  # no vrdir here
    assert [text.text for text in chart.texts if text.x == RIGHT] == ["20.0", "60.0"]
    assert chart.reference is not None
    (x, _, width, _), line = chart.reference
    assert (x, x + width) == pytest.approx((ticks[0] + 85 * step, ticks[0] + 95 * step), abs=0.05)
    assert numbers(line)[0] == pytest.approx(ticks[0] + 90 * step, abs=0.02)


def test_curves_rise_with_their_values() -> None:
    lines = {
        "nothing": [(80.0, 70.0, 90.0), (40.0, 30.0, 50.0)],
        "vrdir": [(85.0, 80.0, 90.0), (75.0, 70.0, 80.0)],
    }
    chart = curves(["1", "2"], lines, ("clean", (90.0, 88.0, 92.0)), SERIES, "caption")
    heights = {float(text.text): text.y - 4 for text in chart.texts if text.anchor == "end"}
    step = (heights[20] - heights[100]) / 80
    assert step > 0  # y points down
    (_, first), (_, second) = chart.lines
    x0, y0, x1, y1 = numbers(first)
    assert (y0, y1) == pytest.approx((heights[100] + 20 * step, heights[100] + 60 * step), abs=0.1)
    assert x0 < x1
    assert numbers(second)[0] > x0  # beside it, not on it
    assert [mark.label.split(":")[0] for mark in chart.marks] == [
        "1, nothing",
        "2, nothing",
        "1, vrdir",
        "2, vrdir",
    ]


@pytest.mark.parametrize(
    "figure",
    [(0.0, 0.0, 0.0), (100.0, 100.0, 100.0), (50.0, 0.0, 100.0), (3.0, float("nan"), float("nan"))],
)
def test_marks_are_finite_and_inside_the_chart(figure: Interval) -> None:
    for chart in (
        forest({"haze": dict.fromkeys(SERIES, figure)}, None, SERIES, ""),
        curves(["1", "2", "3"], {name: [figure] * 3 for name in SERIES}, None, SERIES, ""),
    ):
        assert chart.reference is None
        for mark in chart.marks:
            assert "nan" not in mark.bar + mark.shape
            x, y = numbers(mark.shape)[:2]
            assert 0 <= x <= WIDTH
            assert 0 <= y <= chart.height
        shapes = {mark.series: mark.shape.split("a")[0].count("L") for mark in chart.marks}
        assert len(shapes) == 3
