"""Average precision of a detector as COCO defines it, and its resamples.

Boxes are matched once per image and class; a resample only weights the images differently, so a
thousand resamples cost little more than one. The figure itself comes from faster-coco-eval, which
has no resamples; over the whole data set the two agree to rounding (tested).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import require
from vrdir.evaluation.recognition.box_matching import (
    MOST_DETECTIONS,
    THRESHOLDS,
    Matches,
    Objects,
)
from vrdir.evaluation.recognition.recognisers.contracts import Detections

logger = logging.getLogger(__name__)
RECALLS = np.linspace(0, 1, 101)
CHUNK = 4_000_000
"""How many numbers are kept in memory at once."""
SAME = 1e-6
"""Two counts of one average precision that differ by more are not the same."""


class RankedClass(NamedTuple):
    """All detections of a class over a set of images, the highest score first.

    Attributes:
        images: (D,), the image of each detection.
        right: (10, D), as in `Matches`.
        ignored: (10, D), as in `Matches`.
        objects: (images,), how many objects of the class are in each image.
    """

    images: NDArray[Any]
    right: NDArray[Any]
    ignored: NDArray[Any]
    objects: NDArray[Any]


def rank_detections(matches: Sequence[Matches], objects: Sequence[Objects]) -> list[RankedClass]:
    """Return the ranked detections of every class that has objects.

    Args:
        matches: of each image.
        objects: of each image.
    """
    counts = [
        np.bincount(one.labels[~one.ignored]) if len(one.labels) else np.zeros(0, int)
        for one in objects
    ]
    images = np.repeat(np.arange(len(matches)), [len(one.scores) for one in matches])
    scores = np.concatenate([one.scores for one in matches])
    labels = np.concatenate([one.labels for one in matches])
    right = np.concatenate([one.right for one in matches], 1)
    ignored = np.concatenate([one.ignored for one in matches], 1)
    ranked = []
    for label in range(max(map(len, counts), default=0)):
        per_image = np.array([count[label] if label < len(count) else 0 for count in counts])
        if per_image.any():
            of_class = np.flatnonzero(labels == label)
            order = of_class[np.argsort(-scores[of_class], kind="stable")]
            ranked.append(RankedClass(images[order], right[:, order], ignored[:, order], per_image))
    return ranked


def average_precisions(ranked: Sequence[RankedClass], weights: NDArray[Any]) -> NDArray[Any]:
    """Return mean average precision in [0, 1] of weighted sets of images.

    A weight of two counts an image twice. Its detections then have equal scores and follow each
    other in the ranking, and only the end of such a run can decide the precision at any recall.
    That is exact unless an image has two detections of one class and the same score, whose order
    is arbitrary anyway.

    Args:
        ranked: from `rank_detections`.
        weights: (R, images), how often each image counts.

    Returns:
        (R, 10), the mean over the classes that have objects in a resample, at each threshold; NaN
        if no class has.
    """
    width = max([len(weights[0]), *(len(one.images) for one in ranked)])
    step = max(1, CHUNK // width)
    starts = range(0, len(weights), step)
    parts = [_average_precisions(ranked, weights[start : start + step]) for start in starts]
    return np.concatenate(parts)


def _average_precisions(ranked: Sequence[RankedClass], weights: NDArray[Any]) -> NDArray[Any]:
    weights = weights.astype(np.float64)
    total = np.zeros((len(weights), len(THRESHOLDS)))
    classes = np.zeros((len(weights), 1))
    for one in ranked:
        objects = weights @ one.objects  # (R,)
        there = objects > 0
        of_class = weights[:, one.images]  # (R, D)
        seen = np.cumsum(of_class, 1)
        for t in range(len(THRESHOLDS)):
            places = np.flatnonzero(one.right[t])
            if not len(places):
                continue
            found = np.cumsum(of_class[:, places], 1)  # (R, P)
            counted = seen
            if one.ignored[t].any():
                counted = np.cumsum(np.where(one.ignored[t], 0, of_class), 1)
            precision = found / (counted[:, places] + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            recall = found / np.where(there, objects, 1)[:, None]
            reached = np.searchsorted(RECALLS, recall, side="right")
            steps = np.diff(reached, axis=1, prepend=0)
            total[:, t] += there * (precision * steps).sum(1) / len(RECALLS)
        classes[:, 0] += there
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def resampled_precisions(
    found: Sequence[Detections],
    matches: Sequence[Matches],
    objects: Sequence[Objects],
    weights: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return average precisions in [0, 1] of a set of images, and of its resamples.

    Args:
        found: the detections in each image.
        matches: the same, matched.
        objects: of each image.
        weights: (R, images), how often each image counts in a resample.

    Returns:
        (10,) and (R, 10), at each threshold.
    """
    whole = coco_precisions(found, objects)
    ranked = rank_detections(matches, objects)
    own = average_precisions(ranked, np.ones((1, len(objects))))
    if abs(own.mean() - whole.mean()) > SAME:
        logger.warning(
            "faster-coco-eval computes a mAP of %.6f, our resampling %.6f: the intervals may be "
            "wrong",
            whole.mean(),
            own.mean(),
        )
    return whole, average_precisions(ranked, weights)


def coco_package() -> ModuleType:
    """Return faster-coco-eval. Raises MissingPackageError if it is not installed."""
    return require(
        "faster_coco_eval",
        "evaluate",
        "mAP needs more packages (faster_coco_eval is missing)",
    )


def coco_precisions(found: Sequence[Detections], objects: Sequence[Objects]) -> NDArray[Any]:
    """Return mean average precision in [0, 1] at each threshold, (10,), by faster-coco-eval."""
    package = coco_package()
    truth, classes = _coco_truth(package, objects)
    results = [
        {
            "image_id": i,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "score": float(score),
        }
        for i, one in enumerate(found)
        for box, score, label in zip(*one, strict=True)
        if label in classes
    ]
    if not results:
        return np.zeros(len(THRESHOLDS))
    run = package.COCOeval_faster(
        truth, truth.loadRes(results), "bbox", print_function=lambda *_: None
    )
    run.params.maxDets = [MOST_DETECTIONS]
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()
    # Thresholds, recalls, classes; -1 for classes whose objects are all ignored.
    precision = run.eval["precision"][..., 0, 0]
    precision = precision[:, :, (precision > -1).all((0, 1))]
    by_threshold: NDArray[Any] = precision.mean((1, 2))
    return by_threshold


def _coco_truth(package: ModuleType, objects: Sequence[Objects]) -> tuple[Any, set[int]]:
    """Return the labelled objects in faster-coco-eval's form, and their classes."""
    labelled = [
        (i, int(label), _corner_and_size(box), int(ignored))
        for i, one in enumerate(objects)
        for box, label, ignored in zip(one.boxes, one.labels, one.ignored, strict=True)
    ]
    classes = {label for _, label, *_ in labelled}
    annotations = [
        {
            "id": number,
            "image_id": i,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": ignored,
        }
        for number, (i, label, box, ignored) in enumerate(labelled, 1)
    ]
    content = {
        "images": [{"id": i} for i in range(len(objects))],
        "categories": [{"id": number} for number in sorted(classes)],
        "annotations": annotations,
    }
    return package.COCO(content), classes


def _corner_and_size(box: NDArray[Any]) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
