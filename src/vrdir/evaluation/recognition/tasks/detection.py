"""Detection in clean, degraded and restored images: mean average precision as COCO defines it."""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from vrdir.evaluation.recognition.average_precision import (
    MOST,
    Array,
    Matches,
    Objects,
    average_precisions,
    coco_package,
    coco_scores,
    match,
    rank,
)
from vrdir.evaluation.recognition.labels.classification import class_numbers
from vrdir.evaluation.recognition.labels.detection import DetectionData
from vrdir.evaluation.recognition.protocol import (
    RecognitionResult,
    Said,
    ask,
    cases_of,
    nothing_left,
    result_of,
)
from vrdir.evaluation.recognition.recognisers.contracts import Detections, Detector
from vrdir.evaluation.recognition.statistics import (
    Figure,
    bootstrap_weights,
    randomisation_p_value,
    sign_flips,
)
from vrdir.evaluation.recognition.variants import (
    Condition,
    Exclusion,
    Item,
    Pixels,
    Restore,
    Source,
    Variant,
)
from vrdir.restoring.restorer import Restorer

logger = logging.getLogger(__name__)

METRICS = {
    "map": "mAP: average precision in % over the classes, mean of the IoU thresholds .5 to .95 in steps of .05 (COCO)",
    "map50": "mAP@.5: average precision in % over the classes, at an IoU of .5",
}
SHOWN_SCORE = 0.3  # from which on a detection is shown, and counted in the cases


class Found(NamedTuple):
    """A detector's answer, of the classes that the data set has, and what of it is right."""

    detections: Detections
    matches: Matches


def evaluate_detection(
    data: DetectionData,
    recogniser: Detector,
    conditions: Sequence[Condition],
    restorers: Mapping[str, Restore | Restorer],
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> RecognitionResult:
    """What a detector finds in clean, degraded and restored images.

    Args:
        data: from `labels.read_detection`.
        recogniser: from `recognisers.load_recogniser`.
        conditions: the degradations.
        restorers: by name.
        seed: of the synthesis and of the resamples.
        bootstrap: how many resamples of the images the intervals are taken from, and swaps the tests.
        progress: called with the name of each image that was dealt with.

    Returns:
        Average precisions over the images that could be measured in every variant; tests are by randomisation: the two
        answers to each image are swapped at random. In the cases an image became better where F1 rose, at an IoU of .5 and
        scores from 0.3.

    Raises:
        ValueError: no label is one of the recogniser's classes, the recogniser breaks its contract, or nothing can be measured.
    """
    coco_package()  # to be missed before the work, not after
    objects, excluded = objects_of(data, recogniser.classes)
    source = Source(conditions, restorers, seed)
    kinds = np.unique(np.concatenate([one.labels for one in objects.values()]))

    def recognise(item: Item, image: Pixels) -> Found:
        found = among(recogniser(image), kinds)
        return Found(found, match(found, objects[item.name]))

    answered = ask(data.items, source, recognise, excluded, data.set_aside, progress)
    truth = [objects[item.name] for item in answered.items]
    if not any(map(_real, truth)):
        raise ValueError(
            f"none of the {len(truth)} images that could be measured has an object; {nothing_left(answered.excluded)}"
        )
    weights = bootstrap_weights(len(truth), bootstrap, seed)
    figures = {
        variant: _figures(answers, truth, weights) for variant, answers in answered.answers.items()
    }
    swaps = sign_flips(len(truth), bootstrap, seed)

    @functools.cache
    def tests(before: Variant, after: Variant) -> dict[str, float]:
        first, second = (
            [answer.matches for answer in answered.answers[variant]] for variant in (before, after)
        )
        return swap_test(first, second, truth, swaps)

    def say(variant: Variant, i: int) -> Said:
        found, matches = answered.answers[variant][i]
        right, false = _counts(matches)
        shown = [
            (
                float(x0),
                float(y0),
                float(x1),
                float(y1),
                f"{recogniser.classes[label]} {100 * score:.0f} %",
            )
            for (x0, y0, x1, y1), score, label in zip(*found, strict=True)
            if score >= SHOWN_SCORE
        ]
        return Said(f"{right} of {_real(truth[i])} found, {false} false", shown)

    def names(i: int) -> str:
        counts = Counter(recogniser.classes[label] for label in truth[i].labels[~truth[i].ignored])
        return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no object"

    number = sum(map(_real, truth))
    return result_of(
        task="detection",
        recogniser=recogniser.name,
        facts={
            **recogniser.facts,
            "data": f"{len(truth)} images, {number} objects of {len(kinds)} classes",
        },
        metrics=METRICS,
        images=len(truth),
        excluded=answered.excluded,
        source=source,
        figures=figures,
        test=lambda metric, before, after: tests(before, after)[metric],
        cases=cases_of(
            source,
            answered.items,
            {
                variant: [f1(*one) for one in zip((a.matches for a in answers), truth, strict=True)]
                for variant, answers in answered.answers.items()
            },
            say,
            names,
        ),
    )


def objects_of(
    data: DetectionData, classes: Sequence[str]
) -> tuple[dict[str, Objects], list[Exclusion]]:
    """The objects of each image by the recogniser's class numbers, and all exclusions: a class that it cannot name is left out.

    Raises:
        ValueError: it can name none.
    """
    numbers, problems = class_numbers(
        (label for truth in data.truths for label in truth.labels), classes
    )
    counts = Counter(label for truth in data.truths for label in truth.labels)
    excluded = [
        *data.excluded,
        *(
            Exclusion(f"class {label} ({counts[label]} boxes)", problem)
            for label, problem in problems.items()
        ),
    ]
    objects = {}
    for item, truth in zip(data.items, data.truths, strict=True):
        mine = np.array([label in numbers for label in truth.labels], bool)
        labels = np.array([numbers[label] for label in truth.labels if label in numbers], np.int64)
        objects[item.name] = Objects(truth.boxes[mine], labels, truth.ignored[mine])
    if not any(map(_real, objects.values())):
        raise ValueError(f"there is no object to find; {nothing_left(excluded)}")
    return objects, excluded


def among(found: Detections, kinds: Array) -> Detections:
    """The detections of some classes, at most 100 of each, the surest: no others count."""
    order = np.argsort(-found.scores, kind="stable")
    kept = [order[found.labels[order] == kind][:MOST] for kind in kinds]
    places = np.sort(np.concatenate(kept))
    return Detections(found.boxes[places], found.scores[places], found.labels[places])


def swap_test(
    before: Sequence[Matches], after: Sequence[Matches], objects: Sequence[Objects], swaps: Array
) -> dict[str, float]:
    """Metric -> two-sided p-value of after against before: the two answers to each image are swapped at random (Noreen 1989).

    Args:
        before, after: of each image.
        objects: of each image.
        swaps: (R, images), from `sign_flips`.
    """
    both = rank([*before, *after], [*objects, *objects])
    none = np.zeros((1, len(objects)), bool)
    swapped = np.concatenate([none, swaps])  # the observed difference first
    one, other = (
        average_precisions(both, np.concatenate(halves, 1))
        for halves in ((~swapped, swapped), (swapped, ~swapped))
    )
    return {
        metric: randomisation_p_value(float(differences[0]), differences[1:])
        for metric, differences in (("map", (other - one).mean(1)), ("map50", (other - one)[:, 0]))
    }


def f1(matches: Matches, objects: Objects) -> float:
    """Harmonic mean of precision and recall in one image, at an IoU of .5 and scores from 0.3; 1 where there is nothing to find or say."""
    right, false = _counts(matches)
    total = right + false + _real(objects)
    return 2 * right / total if total else 1.0


def _counts(matches: Matches) -> tuple[int, int]:
    shown = matches.scores >= SHOWN_SCORE
    right = matches.right[0]
    return int((shown & right).sum()), int((shown & ~right & ~matches.ignored[0]).sum())


def _real(objects: Objects) -> int:
    return int((~objects.ignored).sum())


def _figures(
    answers: Sequence[Found], objects: Sequence[Objects], weights: Array
) -> dict[str, Figure]:
    whole, half = coco_scores([answer.detections for answer in answers], objects)
    ranked = rank([answer.matches for answer in answers], objects)
    once = average_precisions(ranked, np.ones((1, len(objects))))
    if abs(once.mean() - whole) > 1e-6:  # on a set of which it is known to hold, see the tests
        logger.warning(
            "faster-coco-eval finds a mAP of %.6f, the resamples' own count %.6f: the intervals may be off",
            whole,
            once.mean(),
        )
    draws = average_precisions(ranked, weights)
    return {
        "map": Figure(100 * whole, 100 * draws.mean(1)),
        "map50": Figure(100 * half, 100 * draws[:, 0]),
    }
