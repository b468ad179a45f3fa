"""The result of a set in words and in cells of tables."""

from __future__ import annotations

from collections.abc import Sequence

from vrdir.evaluation.restoration.metrics import MAIN, PSNR_CEILING, SUMMARISED, Scores
from vrdir.evaluation.restoration.protocol import Measured, SetResult
from vrdir.evaluation.restoration.restorers import pair_name

CLEARLY_DB = 0.5
"""A loss in dB below which an image counts as unchanged."""
BLACK_SHARE = 0.05
"""A share of pixels driven into black, in %, from which the result in words names it."""


def verdict(result: SetResult) -> str:
    """Return the result of a set in a few sentences."""
    excluded = len(result.excluded)
    sentences = [f"{excluded} of {_pairs(len(result.rows))} excluded."] if excluded else []
    if result.degraded is None or result.restored is None:
        return " ".join([*sentences, "Nothing was measured."])
    before, after, count = result.degraded[MAIN.key], result.restored[MAIN.key], len(result.images)
    over = "RGB, one image" if count == 1 else f"RGB, mean of {count} images"
    if before == PSNR_CEILING:
        worst = result.examples["worst"]
        at_worst = f"{worst.restored[MAIN.key]:.2f} dB at worst ({pair_name(worst.pair)})"
        sentences += [
            "The inputs are the clean images themselves.",
            f"Restoring leaves {after:.2f} dB ({over}), {at_worst}.",
            *_blackened(result.degraded, result.restored),
        ]
        return " ".join(sentences)
    change = f"{'rises' if after > before else 'falls'} from {before:.2f} to"
    if f"{before:.2f}" == f"{after:.2f}":
        change = "stays at"
    sentences += [f"PSNR {change} {after:.2f} dB ({over}).", _harm(result.worse, count)]
    identical = sum(
        PSNR_CEILING in (image.degraded[MAIN.key], image.restored[MAIN.key])
        for image in result.images
    )
    if identical:
        sentences.append(
            f"In {identical} of {count} the degraded or the restored image is the clean one "
            "itself, which counts as 100 dB."
        )
    return " ".join([*sentences, *_blackened(result.degraded, result.restored)])


def _blackened(degraded: Scores, restored: Scores) -> list[str]:
    """Return a sentence on the pixels that restoring drove into black, if they are many."""
    share = degraded["not_black"] - restored["not_black"]
    return [f"{share:.2f} % of the pixels were driven into black."] if share >= BLACK_SHARE else []


def _harm(worse: Sequence[Measured], count: int) -> str:
    """Return how many of `count` images got worse, and by how much."""
    if not worse:
        return "No image got worse."
    most, name = f"{-worse[0].gain:.2f} dB", pair_name(worse[0].pair)
    if len(worse) == 1:
        return f"1 of {count} got worse, by {most} ({name})."
    clearly = f"{clearly_worse(worse)} of them by more than {CLEARLY_DB} dB"
    mean = f"{mean_loss(worse):.2f} dB on average"
    return f"{len(worse)} of {count} got worse, {clearly}; {mean}, {most} at most ({name})."


def badge(result: SetResult) -> str:
    """Return whether a set is synthetic, or how many pairs are; "" for a set of files."""
    synthetic, pairs = result.synthetic, len(result.rows)
    if not synthetic:
        return ""
    return "synthetic" if synthetic == pairs else f"{synthetic} of {pairs} synthetic"


def set_label(result: SetResult) -> str:
    """Return a set's name in tables, with its `badge`."""
    return f"{result.name} ({badge(result)})" if badge(result) else result.name


def by_set(results: Sequence[SetResult]) -> list[list[SetResult]]:
    """Return the results of each set, one per restorer."""
    sets: dict[str, list[SetResult]] = {}
    for result in results:
        sets.setdefault(result.name, []).append(result)
    return list(sets.values())


def comparisons(results: Sequence[SetResult]) -> list[str]:
    """Return a sentence on each further restorer of a set against the first, image by image."""
    first, *others = results
    sentences = []
    for other in others:
        changes = [
            b.restored[MAIN.key] - a.restored[MAIN.key]
            for a, b in zip(first.images, other.images, strict=True)
        ]
        if changes:
            better = sum(change > 0 for change in changes)
            worse = sum(change < 0 for change in changes)
            mean = f"{sum(changes) / len(changes):+.2f} dB on average (RGB)"
            counts = f"better in {better} of {len(changes)}, worse in {worse}"
            sentences.append(f"{other.restorer} against {first.restorer}: {mean}, {counts}.")
    return sentences


def mean_cells(results: Sequence[SetResult]) -> dict[str, list[str]]:
    """Return metric -> its mean over the degraded images of a set, and of each restorer."""
    scores = [results[0].degraded, *(result.restored for result in results)]
    return {
        metric.key: [metric.shown(one[metric.key] if one else None) for one in scores]
        for metric in SUMMARISED
    }


def clearly_worse(worse: Sequence[Measured]) -> int:
    """Return how many images lost more than 0.5 dB."""
    return sum(-image.gain > CLEARLY_DB for image in worse)


def mean_loss(worse: Sequence[Measured]) -> float:
    """Return how much the images that got worse lost on average in dB; 0 if there are none."""
    return -sum(image.gain for image in worse) / len(worse) if worse else 0.0


def _pairs(count: int) -> str:
    return f"{count} pair{'s' * (count != 1)}"
