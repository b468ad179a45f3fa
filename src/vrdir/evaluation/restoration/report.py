"""What `vrdir.evaluation.restoration.protocol` found, as JSON, CSV and a page with pictures."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vrdir.data.pairs import open_pair
from vrdir.errors import first_line
from vrdir.evaluation.report.page import (
    Case,
    Page,
    Section,
    Table,
    error_map,
    picture,
    render,
    sorted_bars,
    worst_window,
)
from vrdir.evaluation.restoration.metrics import DEFINITIONS, PSNR_CEILING, Scores
from vrdir.evaluation.restoration.protocol import Excluded, Measured, Restore, SetResult, name_of

logger = logging.getLogger(__name__)

LABELS = {
    "psnr_rgb": "PSNR, RGB, dB",
    "psnr_y": "PSNR, Y, dB",
    "ssim_rgb": "SSIM, RGB",
    "ssim_y": "SSIM, Y",
}
SHORT = (
    "PSNR",
    "SSIM",
    "PSNR-Y",
    "SSIM-Y",
)  # what heads call the figures, in the order of `Scores`
ERROR_GAIN = 8
CLEARLY_DB = 0.5  # an image that lost less has hardly changed


def as_json(results: Sequence[SetResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything, for machines. `facts` (versions, weights) come first."""
    return {
        **facts,
        "definitions": DEFINITIONS,
        "sets": [_set_as_json(result) for result in results],
    }


def _set_as_json(result: SetResult) -> dict[str, Any]:
    degraded, restored, worse = result.degraded, result.restored, result.worse
    return {
        "name": result.name,
        "restorer": result.restorer,
        "pairs": str(result.source),
        "synthetic": result.synthetic,
        "count": len(result.images),
        "excluded": len(result.excluded),
        "degraded": degraded and degraded._asdict(),
        "restored": restored and restored._asdict(),
        "worse": {
            "count": len(worse),
            f"count_over_{CLEARLY_DB}_db": _clearly(worse),
            "mean_db": _mean_loss(worse),
            "most_db": -worse[0].gain if worse else 0.0,
        },
        "cases": {case: _row(image) for case, image in result.cases.items()},
        "images": [_row(image) for image in result.images],
        "exclusions": [_row(excluded) for excluded in result.excluded],
    }


def _row(row: Measured | Excluded) -> dict[str, Any]:
    pair = row.pair
    place = {
        "line": pair.line,
        "name": name_of(pair),
        "degraded_file": str(pair.degraded or ""),
        "clean_file": str(pair.clean),
    }
    place["synthesis"] = pair.synthesis
    if isinstance(row, Excluded):
        return {**place, "reason": row.reason}
    return {
        **place,
        "width": row.width,
        "height": row.height,
        "degraded": row.degraded._asdict(),
        "restored": row.restored._asdict(),
    }


def as_csv(results: Sequence[SetResult]) -> str:
    """A line per pair and restorer, in the order of the lists; an excluded pair has no figures, and its reason in the last column."""
    figures = [
        f"{which}_{metric}" for which in ("degraded", "restored") for metric in Scores._fields
    ]
    places = [
        "set",
        "line",
        "name",
        "restorer",
        "degraded_file",
        "clean_file",
        "synthesis",
        "width",
        "height",
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(
        buffer, [*places, *figures, "excluded"], restval="", lineterminator="\n"
    )
    writer.writeheader()
    for result in results:
        for row in result.rows:
            cells = {"set": result.name, "restorer": result.restorer, **_row(row)}
            for which in ("degraded", "restored"):
                cells |= {
                    f"{which}_{metric}": f"{value:.6f}"
                    for metric, value in cells.pop(which, {}).items()
                }
            cells["excluded"] = cells.pop("reason", "")
            writer.writerow(cells)
    return buffer.getvalue()


def verdict(result: SetResult) -> str:
    """What came out, in a few sentences."""
    sentences = (
        [f"{len(result.excluded)} of {_pairs(len(result.rows))} excluded."]
        if result.excluded
        else []
    )
    if result.degraded is None or result.restored is None:
        return " ".join([*sentences, "Nothing was measured."])
    before, after, count = result.degraded.psnr_rgb, result.restored.psnr_rgb, len(result.images)
    of = "RGB, one image" if count == 1 else f"RGB, mean of {count} images"
    if before == PSNR_CEILING:
        worst = result.cases["worst"]
        at_worst = f"{worst.restored.psnr_rgb:.2f} dB at worst ({name_of(worst.pair)})"
        sentences += [
            "The inputs are the clean images themselves.",
            f"Restoring leaves {after:.2f} dB ({of}), {at_worst}.",
        ]
        return " ".join(sentences)
    moves = (
        "stays at"
        if f"{before:.2f}" == f"{after:.2f}"
        else f"{'rises' if after > before else 'falls'} from {before:.2f} to"
    )
    sentences += [f"PSNR {moves} {after:.2f} dB ({of}).", _harm(result.worse, count)]
    identical = sum(
        PSNR_CEILING in (image.degraded.psnr_rgb, image.restored.psnr_rgb)
        for image in result.images
    )
    if identical:
        sentences.append(
            f"In {identical} of {count} the degraded or the restored image is the clean one itself, which counts as 100 dB."
        )
    return " ".join(sentences)


def _harm(worse: Sequence[Measured], count: int) -> str:
    """How many of `count` images got worse, and by how much."""
    if not worse:
        return "No image got worse."
    most, name = f"{-worse[0].gain:.2f} dB", name_of(worse[0].pair)
    if len(worse) == 1:
        return f"1 of {count} got worse, by {most} ({name})."
    clearly = f"{_clearly(worse)} of them by more than {CLEARLY_DB} dB"
    return f"{len(worse)} of {count} got worse, {clearly}; {_mean_loss(worse):.2f} dB on average, {most} at most ({name})."


def badge(result: SetResult) -> str:
    """Whether, or how much of, a set is synthetic; "" for one of files."""
    synthetic, pairs = result.synthetic, len(result.rows)
    return (
        ""
        if not synthetic
        else "synthetic"
        if synthetic == pairs
        else f"{synthetic} of {pairs} synthetic"
    )


def called(result: SetResult) -> str:
    """A set's name in tables, with its `badge`."""
    return f"{result.name} ({badge(result)})" if badge(result) else result.name


def by_set(results: Sequence[SetResult]) -> list[list[SetResult]]:
    """The results of each set, a restorer each."""
    sets: dict[str, list[SetResult]] = {}
    for result in results:
        sets.setdefault(result.name, []).append(result)
    return list(sets.values())


def comparisons(results: Sequence[SetResult]) -> list[str]:
    """How each further restorer of a set does against the first, image by image, in a sentence each."""
    first, *others = results
    told = []
    for other in others:
        changes = [
            b.restored.psnr_rgb - a.restored.psnr_rgb
            for a, b in zip(first.images, other.images, strict=True)
        ]
        if changes:
            better, worse = (
                sum(change > 0 for change in changes),
                sum(change < 0 for change in changes),
            )
            counts = f"better in {better} of {len(changes)}, worse in {worse}"
            told.append(
                f"{other.restorer} against {first.restorer}: {sum(changes) / len(changes):+.2f} dB on average (RGB), {counts}."
            )
    return told


def as_page(
    results: Sequence[SetResult], facts: Mapping[str, str], restorers: Mapping[str, Restore]
) -> str:
    """The page. The images that it shows are opened and restored once more, so that no others need be kept."""
    sets = by_set(results)
    rows = [
        (
            called(of[0]),
            str(len(of[0].images)),
            str(len(of[0].excluded)),
            *(cell for cells in figures_of(of).values() for cell in cells),
        )
        for of in sets
    ]
    names = [result.restorer for result in sets[0]] if len(sets[0]) > 1 else ["out"]
    head = (
        "set",
        "images",
        "excluded",
        *(f"{label} {which}" for label in SHORT for which in ("in", *names)),
    )
    sections = [_section(result, restorers[result.restorer], of) for of in sets for result in of]
    notes = {LABELS[metric]: text for metric, text in DEFINITIONS.items()}
    notes["Pictures"] = (
        "reduced and compressed for this page; the figures are those of the whole images. "
        "The frame is where the restored image is furthest from the clean one, shown below pixel by pixel. "
        f"Error: the mean difference of the channels, black for none, white from {255 / ERROR_GAIN:.0f} of 255 levels up."
    )
    return render(
        Page(
            "How well images are restored",
            facts,
            Table(head, rows) if len(results) > 1 else None,
            sections,
            notes,
        )
    )


def figures_of(results: Sequence[SetResult]) -> dict[str, list[str]]:
    """Metric -> its mean over the degraded images of a set, and over those that each restorer made."""
    scores = [results[0].degraded, *(result.restored for result in results)]
    return {
        metric: [shown(metric, one and getattr(one, metric)) for one in scores]
        for metric in Scores._fields
    }


def _section(result: SetResult, restore: Restore, beside: Sequence[SetResult]) -> Section:
    title = f"{result.name}, {result.restorer}" if len(beside) > 1 else result.name
    excluded = [
        f"line {row.pair.line}, {name_of(row.pair)}: {row.reason}" for row in result.excluded
    ]
    if result.degraded is None or result.restored is None:
        return Section(title, badge(result), verdict(result), excluded=excluded)
    rows = []
    for metric, label in LABELS.items():
        before, after = getattr(result.degraded, metric), getattr(result.restored, metric)
        rows.append(
            (
                label,
                shown(metric, before),
                shown(metric, after),
                shown(metric, after - before, sign="+"),
            )
        )
    gains = {
        f"line {image.pair.line}, {name_of(image.pair)}": image.gain for image in result.images
    }
    bars = sorted_bars(
        gains, "dB", "What restoring changes in the PSNR of each image (RGB, dB), sorted."
    )
    details = [
        (name_of(image.pair), f"{image.width} x {image.height}", *_figures(image))
        for image in result.images
    ]
    cases = _cases(result, restore)
    table = Table(("mean", "in", "out", "change"), rows)
    listed = Table(
        ("image", "pixels", *(f"{label} {which}" for label in SHORT for which in ("in", "out"))),
        details,
    )
    points = comparisons(beside) if result is beside[0] else []
    return Section(
        title,
        badge(result),
        verdict(result),
        [table],
        [bars],
        cases,
        excluded,
        listed,
        points=points,
    )


def _figures(of: Measured) -> list[str]:
    """Every figure of an image, before and after."""
    return [
        shown(metric, getattr(scores, metric))
        for metric in Scores._fields
        for scores in (of.degraded, of.restored)
    ]


def _cases(result: SetResult, restore: Restore) -> list[Case]:
    """Each image once, under all that it is."""
    titles: dict[int, list[str]] = {}
    images = {id(image): image for image in result.cases.values()}
    for title, image in result.cases.items():
        titles.setdefault(id(image), []).append(title)
    return [
        _case(" and ".join(titles[key]).capitalize(), image, restore)
        for key, image in images.items()
    ]


def _case(title: str, image: Measured, restore: Restore) -> Case:
    caption = f"{name_of(image.pair)}, {image.width} x {image.height} pixels, {image.gain:+.2f} dB"
    try:
        degraded, clean = open_pair(image.pair)
        restored = restore(image.pair, degraded)
    except (
        Exception
    ) as error:  # a file that went away since: the figures stand, and the page shows what it can
        logger.debug("%s", name_of(image.pair), exc_info=True)
        return Case(title, f"{caption}; no pictures: {first_line(error)}", [])
    window = worst_window(restored[0], clean[0])
    parts = [
        ("clean", "what it should be", clean[0]),
        ("degraded", _caption(image.degraded), degraded[0]),
        ("restored", _caption(image.restored), restored[0]),
        (
            "error of restored",
            f"x {ERROR_GAIN}, black for none",
            error_map(restored[0], clean[0], ERROR_GAIN),
        ),
    ]
    return Case(
        title, caption, [picture(name, below, pixels, window) for name, below, pixels in parts]
    )


def _caption(scores: Scores) -> str:
    return f"{shown('psnr_rgb', scores.psnr_rgb)} dB, SSIM {shown('ssim_rgb', scores.ssim_rgb)}"


def shown(metric: str, value: float | None, sign: str = "") -> str:
    """A figure as tables show it: dB with two digits, SSIM with four, "-" for none."""
    return (
        "-" if value is None else format(value, f"{sign}.{2 if metric.startswith('psnr') else 4}f")
    )


def _clearly(worse: Sequence[Measured]) -> int:
    return sum(-image.gain > CLEARLY_DB for image in worse)


def _mean_loss(worse: Sequence[Measured]) -> float:
    """How much the images that got worse lost on average, dB; 0 if there are none."""
    return -sum(image.gain for image in worse) / len(worse) if worse else 0.0


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"
