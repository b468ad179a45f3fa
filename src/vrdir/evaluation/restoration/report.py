"""The result of sets as a page with plots and pictures."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vrdir.data.pairs import open_pair
from vrdir.errors import first_line
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.report.charts import sorted_bars
from vrdir.evaluation.report.page import Page, PictureRow, Section, Table, render
from vrdir.evaluation.report.pictures import error_map, worst_window, zoomed_picture
from vrdir.evaluation.restoration.metrics import MAIN, METRICS, SUMMARISED, Scores
from vrdir.evaluation.restoration.protocol import Measured, SetResult
from vrdir.evaluation.restoration.restorers import RestorePair, pair_name
from vrdir.evaluation.restoration.summary import (
    badge,
    by_set,
    comparisons,
    mean_cells,
    set_label,
    verdict,
)

logger = logging.getLogger(__name__)
ERROR_GAIN = 8
PICTURES_NOTE = (
    "reduced and compressed for this page; the figures are those of the whole images. "
    "The frame is where the restored image differs most from the clean one; the window below shows "
    "it pixel by pixel. Error: the mean difference of the channels; black is none, white is "
    f"{255 / ERROR_GAIN:.0f} of 255 levels or more."
)


def as_page(
    results: Sequence[SetResult],
    facts: Mapping[str, str],
    restorers: Mapping[str, RestorePair],
) -> str:
    """Return the page as HTML. The images that it shows are opened and restored again.

    Args:
        results: one per set and restorer.
        facts: such as versions and weights.
        restorers: by name.
    """
    sets = by_set(results)
    sections = [_section(one, restorers[one.restorer], of_set) for of_set in sets for one in of_set]
    notes = {metric.heading: metric.definition for metric in METRICS} | {"Pictures": PICTURES_NOTE}
    overview = _overview(sets) if len(results) > 1 else None
    return render(Page("How well images are restored", facts, overview, sections, notes))


def _overview(sets: Sequence[Sequence[SetResult]]) -> Table:
    restorers = [result.restorer for result in sets[0]] if len(sets[0]) > 1 else ["out"]
    columns = [f"{_short(metric)} {which}" for metric in SUMMARISED for which in ("in", *restorers)]
    rows = [
        (
            set_label(of_set[0]),
            str(len(of_set[0].images)),
            str(len(of_set[0].excluded)),
            *(cell for cells in mean_cells(of_set).values() for cell in cells),
        )
        for of_set in sets
    ]
    return Table(("set", "images", "excluded", *columns), rows)


def _short(metric: Metric[Any]) -> str:
    """Return a metric's name for narrow columns: "PSNR" for RGB, "PSNR-Y" for other channels."""
    name, _, channels = metric.label.partition(", ")
    return name if channels in ("", "RGB") else f"{name}-{channels}"


def _section(result: SetResult, restore: RestorePair, of_set: Sequence[SetResult]) -> Section:
    title = f"{result.name}, {result.restorer}" if len(of_set) > 1 else result.name
    excluded = [
        f"line {row.pair.line}, {pair_name(row.pair)}: {row.reason}" for row in result.excluded
    ]
    if result.degraded is None or result.restored is None:
        return Section(title, badge(result), verdict(result), excluded=excluded)
    gains = {
        f"line {image.pair.line}, {pair_name(image.pair)}": image.gain for image in result.images
    }
    caption = "What restoring changes in the PSNR of each image (RGB, dB), sorted."
    return Section(
        title,
        badge(result),
        verdict(result),
        [_means(result.degraded, result.restored)],
        [sorted_bars(gains, "dB", caption)],
        _picture_rows(result, restore),
        excluded,
        _details(result),
        points=comparisons(of_set) if result is of_set[0] else [],
    )


def _means(degraded: Scores, restored: Scores) -> Table:
    rows = []
    for metric in METRICS:
        before, after = degraded[metric.key], restored[metric.key]
        change = metric.shown(after - before, sign="+")
        rows.append((metric.heading, metric.shown(before), metric.shown(after), change))
    return Table(("mean", "in", "out", "change"), rows)


def _details(result: SetResult) -> Table:
    columns = [f"{_short(metric)} {which}" for metric in METRICS for which in ("in", "out")]
    rows = [
        (
            pair_name(image.pair),
            f"{image.width} x {image.height}",
            *(
                metric.shown(scores[metric.key])
                for metric in METRICS
                for scores in (image.degraded, image.restored)
            ),
        )
        for image in result.images
    ]
    return Table(("image", "pixels", *columns), rows)


def _picture_rows(result: SetResult, restore: RestorePair) -> list[PictureRow]:
    """Return each example once; one that is several kinds of example has all their names."""
    titles: dict[int, list[str]] = {}
    images = {id(image): image for image in result.examples.values()}
    for title, image in result.examples.items():
        titles.setdefault(id(image), []).append(title)
    return [
        _picture_row(" and ".join(titles[key]).capitalize(), image, restore)
        for key, image in images.items()
    ]


def _picture_row(title: str, image: Measured, restore: RestorePair) -> PictureRow:
    size = f"{image.width} x {image.height} pixels"
    caption = f"{pair_name(image.pair)}, {size}, {image.gain:+.2f} dB"
    try:
        degraded, clean = open_pair(image.pair)
        restored = restore(image.pair, degraded)
    # A file may be gone by now: the figures stay valid, and the page shows what it can.
    except Exception as error:
        logger.debug("%s", pair_name(image.pair), exc_info=True)
        return PictureRow(title, f"{caption}; no pictures: {first_line(error)}", [])
    window = worst_window(restored[0], clean[0])
    difference = error_map(restored[0], clean[0], ERROR_GAIN)
    parts = [
        ("clean", "as it should be", clean[0]),
        ("degraded", _caption(image.degraded), degraded[0]),
        ("restored", _caption(image.restored), restored[0]),
        ("error of restored", f"x {ERROR_GAIN}, black is none", difference),
    ]
    pictures = [zoomed_picture(name, below, pixels, window) for name, below, pixels in parts]
    return PictureRow(title, caption, pictures)


def _caption(scores: Scores) -> str:
    """Return the figures of RGB, as in "24.10 dB, SSIM 0.8123"."""
    parts = [f"{MAIN.shown(scores[MAIN.key])} {MAIN.unit}"]
    for metric in SUMMARISED[1:]:
        name, _, channels = metric.label.partition(", ")
        if channels in ("", "RGB"):
            parts.append(f"{name} {metric.shown(scores[metric.key])}")
    return ", ".join(parts)
