"""The page: self-contained, escaped and complete."""

import base64
import io
import re

import pytest
import torch
from PIL import Image

from vrdir.evaluation.report.charts import MOST_BARS, sorted_bars
from vrdir.evaluation.report.page import Page, PictureRow, Section, Table, render
from vrdir.evaluation.report.pictures import (
    PICTURE_PX,
    Picture,
    error_map,
    worst_window,
    zoomed_picture,
)


def opened(uri: str) -> Image.Image:
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def test_all_text_of_a_page_is_escaped() -> None:
    bad = "<script>&\"'"
    table = Table((bad,), ((bad,),))
    row = PictureRow(bad, bad, [Picture(bad, bad, "data:,", "data:,")])
    section = Section(
        bad, bad, bad, [table], [sorted_bars({bad: 1.0}, bad, bad)], [row], [bad], table
    )
    html = render(Page(bad, {bad: bad}, table, [section], {bad: bad}))
    assert "<script" not in html
    assert "&\"'" not in html
    assert html.count("&lt;script&gt;") >= 20


def test_minimal_page_is_complete() -> None:
    html = render(Page("Title", {}, None, [Section("set", "", "Nothing was measured.")], {}))
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert "Nothing was measured." in html
    assert not re.search(r"<(script|link|iframe)|url\(|@import|https?://", html)


def test_bars_are_sorted_and_start_at_zero() -> None:
    plot = sorted_bars({"up": 3.0, "down": -1.5, "none": 0.0}, "dB", "gain")
    assert [bar.label for bar in plot.bars] == ["down: -1.50 dB", "none: +0.00 dB", "up: +3.00 dB"]
    down, none, up = plot.bars
    assert down.x < none.x < up.x
    assert down.y == plot.zero  # hangs from zero
    assert up.y + up.height == pytest.approx(plot.zero)  # is on it
    assert up.height == pytest.approx(2 * down.height, abs=0.02)
    assert none.height == 0
    assert [bar.rises for bar in plot.bars] == [False, True, True]
    heights = [y for y, _ in plot.ticks]
    assert heights == sorted(heights, reverse=True)
    assert (plot.zero, "0") in plot.ticks


@pytest.mark.parametrize(
    "values", [[0.0], [-3.0], [5.0, 5.0], [1e-4, 2e-4], [-60.0, 40.0], [0.0, 0.0, 0.0], [-1e-4]]
)
def test_bars_stay_inside_the_plot(values: list[float]) -> None:
    plot = sorted_bars({str(i): value for i, value in enumerate(values)}, "dB", "")
    for bar in plot.bars:
        assert 34 <= bar.x <= bar.x + bar.width <= 396
        assert 8 <= bar.y <= bar.y + bar.height <= 168.01
    assert 2 <= len(plot.ticks) <= 9
    assert len({label for _, label in plot.ticks}) == len(plot.ticks)


def test_bars_are_thinned_and_keep_both_ends() -> None:
    plot = sorted_bars({str(i): float(i) for i in range(3000)}, "dB", "")
    assert len(plot.bars) == MOST_BARS
    assert plot.bars[0].label == "0: +0.00 dB"
    assert plot.bars[-1].label == "2999: +2999.00 dB"


def test_pictures_are_reduced_and_show_the_window_pixel_by_pixel() -> None:
    torch.manual_seed(0)
    image = (torch.rand(3, 700, 1200) * 255).round() / 255
    shown = zoomed_picture("title", "caption", image, (300, 500, 96))
    assert opened(shown.whole).size == (PICTURE_PX, 280)
    zoom = (
        torch.frombuffer(bytearray(opened(shown.zoom).convert("RGB").tobytes()), dtype=torch.uint8)
        .view(96, 96, 3)
        .permute(2, 0, 1)
    )
    assert torch.equal(zoom / 255, image[:, 300:396, 500:596])


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (96, 96), (11, 4000)])
def test_pictures_of_any_size_are_reduced(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size)
    window = worst_window(image, torch.zeros_like(image))
    assert window[0] + window[2] <= size[0]
    assert window[1] + window[2] <= size[1]
    assert max(opened(zoomed_picture("", "", image, window).whole).size) == min(
        PICTURE_PX, max(size)
    )


def test_window_is_at_the_largest_error() -> None:
    clean = torch.zeros(3, 300, 400)
    image = clean.clone()
    image[:, 250:260, 20:30] = 0.1
    top, left, side = worst_window(image, clean)
    assert top <= 250 <= 259 < top + side
    assert left <= 20 <= 29 < left + side
    errors = error_map(image, clean, 8)
    assert errors[0, 255, 25] == pytest.approx(0.8)
    assert errors.sum() == pytest.approx(0.8 * 3 * 100, rel=1e-4)
