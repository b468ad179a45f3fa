"""Average precision of a detector as COCO defines it, and its resamples.

Boxes are matched once per image and class; a resample then only weighs the images anew, so a thousand cost little more than one.
The figure itself comes from faster-coco-eval; over the whole set the two agree to rounding (tested).
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from vrdir.evaluation.recognition.recognisers.contracts import Detections

Array = np.ndarray[Any, np.dtype[Any]]

THRESHOLDS = np.linspace(0.5, 0.95, 10)  # of intersection over union
RECALLS = np.linspace(0, 1, 101)
MOST = 100  # detections that count per image and class, the surest
CHUNK = 4_000_000  # numbers held at once


class Objects(NamedTuple):
    """The objects of an image: boxes (N, 4) as x0, y0, x1, y1, labels (N,), and which are ignored (N,)."""

    boxes: Array
    labels: Array
    ignored: Array


class Matches(NamedTuple):
    """The detections of an image, matched.

    Attributes:
        scores, labels: (D,), the surest first within a class.
        right: (10, D) at each threshold, an object of its class was found.
        ignored: (10, D), what was found is ignored.
    """

    scores: Array
    labels: Array
    right: Array
    ignored: Array


def match(found: Detections, objects: Objects) -> Matches:
    """Match detections to the objects of their class at ten thresholds: each, the surest first, takes the free object that it
    overlaps most; one that only overlaps an ignored object counts nowhere.
    """
    parts = []
    for label in np.unique(found.labels):
        mine = np.flatnonzero(found.labels == label)
        mine = mine[np.argsort(-found.scores[mine], kind="stable")][:MOST]
        theirs = np.flatnonzero(objects.labels == label)
        theirs = theirs[np.argsort(objects.ignored[theirs], kind="stable")]  # ignored ones last
        right, ignored = _matched(
            overlap(found.boxes[mine], objects.boxes[theirs], objects.ignored[theirs]),
            objects.ignored[theirs],
        )
        parts.append((found.scores[mine], np.full(len(mine), label), right, ignored))
    if not parts:
        empty = np.zeros((len(THRESHOLDS), 0), bool)
        return Matches(np.zeros(0), np.zeros(0, np.int64), empty, empty)
    scores, labels, rights, ignoreds = zip(*parts, strict=True)
    return Matches(
        np.concatenate(scores),
        np.concatenate(labels),
        np.concatenate(rights, 1),
        np.concatenate(ignoreds, 1),
    )


def overlap(boxes: Array, others: Array, crowd: Array) -> Array:
    """Intersection over union of boxes (N, 4) and others (M, 4), (N, M); over a crowd's box, intersection over the first's area."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], others[None, :, :2]
    )
    common = sides.clip(0).prod(2)
    area, other_area = (
        (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (boxes, others)
    )
    union = area[:, None] + np.where(crowd, 0, other_area - common)
    overlaps: Array = common / np.where(union > 0, union, 1)
    return overlaps


def _matched(overlaps: Array, crowd: Array) -> tuple[Array, Array]:
    """Which detections (rows, the surest first) find an object, and which an ignored one, (10, N) each."""
    right = np.zeros((len(THRESHOLDS), len(overlaps)), bool)
    ignored = np.zeros_like(right)
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(crowd), bool)
        for row in np.flatnonzero((overlaps >= threshold - 1e-10).any(1)) if len(crowd) else ():
            able = free & (overlaps[row] >= min(threshold, 1 - 1e-10))
            if not able.any():
                continue
            real = able & ~crowd
            among = real if real.any() else able
            best = (
                len(among) - 1 - int(np.argmax(np.where(among, overlaps[row], -1)[::-1]))
            )  # of equal ones the last, as pycocotools
            right[t, row], ignored[t, row] = not crowd[best], crowd[best]
            free[best] = crowd[best]  # a crowd may be found again
    return right, ignored


class Ranked(NamedTuple):
    """All detections of a class, the surest first: the image of each (D,), `right` and `ignored` (10, D); and its objects per
    image, (images,).
    """

    images: Array
    right: Array
    ignored: Array
    objects: Array


def rank(matches: Sequence[Matches], objects: Sequence[Objects]) -> list[Ranked]:
    """Every class that has objects, over the images of a set."""
    counts = [
        np.bincount(one.labels[~one.ignored]) if len(one.labels) else np.zeros(0, int)
        for one in objects
    ]
    images = np.repeat(np.arange(len(matches)), [len(one.scores) for one in matches])
    scores, labels = (
        np.concatenate([getattr(one, name) for one in matches]) for name in ("scores", "labels")
    )
    right, ignored = (
        np.concatenate([getattr(one, name) for one in matches], 1) for name in ("right", "ignored")
    )
    ranked = []
    for label in range(max(map(len, counts), default=0)):
        per_image = np.array([count[label] if label < len(count) else 0 for count in counts])
        if per_image.any():
            mine = np.flatnonzero(labels == label)
            mine = mine[np.argsort(-scores[mine], kind="stable")]
            ranked.append(Ranked(images[mine], right[:, mine], ignored[:, mine], per_image))
    return ranked


def average_precisions(ranked: Sequence[Ranked], weights: Array) -> Array:
    """Mean average precision in [0, 1] of weighted sets of images.

    A weight of two counts an image twice: as its detections have the same scores, they stand side by side, and only the end of
    such a run can decide the precision at any recall. That is exact but where one image has two detections of one class and
    the same score, whose order is arbitrary anyway.

    Args:
        ranked: from `rank`.
        weights: (R, images), how often each image counts.

    Returns:
        (R, 10), the mean over the classes that have objects in a resample, at each threshold; NaN where none has.
    """
    step = max(1, CHUNK // max([len(weights[0]), *(len(one.images) for one in ranked)]))
    return np.concatenate(
        [
            _average_precisions(ranked, weights[start : start + step])
            for start in range(0, len(weights), step)
        ]
    )


def _average_precisions(ranked: Sequence[Ranked], weights: Array) -> Array:
    weights = weights.astype(np.float64)
    total, classes = np.zeros((len(weights), len(THRESHOLDS))), np.zeros((len(weights), 1))
    for one in ranked:
        objects = weights @ one.objects  # (R,)
        there = objects > 0
        mine = weights[:, one.images]  # (R, D)
        seen = np.cumsum(mine, 1)
        for t in range(len(THRESHOLDS)):
            places = np.flatnonzero(one.right[t])
            if not len(places):
                continue
            found = np.cumsum(mine[:, places], 1)  # (R, P)
            counted = (
                np.cumsum(np.where(one.ignored[t], 0, mine), 1) if one.ignored[t].any() else seen
            )
            precision = found / (counted[:, places] + np.spacing(1))
            precision = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            reached = np.searchsorted(
                RECALLS, found / np.where(there, objects, 1)[:, None], side="right"
            )
            total[:, t] += (
                there * (precision * np.diff(reached, axis=1, prepend=0)).sum(1) / len(RECALLS)
            )
        classes[:, 0] += there
    return np.divide(total, classes, out=np.full_like(total, np.nan), where=classes > 0)


def coco_package() -> ModuleType:
    """faster-coco-eval. Raises ValueError if it is not installed."""
    try:
        import faster_coco_eval
    except ModuleNotFoundError as error:
        raise ValueError(
            f"mAP needs more packages ({error.name} is missing): pip install 'vrdir[evaluate]'"
        ) from None
    return faster_coco_eval


def coco_scores(found: Sequence[Detections], objects: Sequence[Objects]) -> tuple[float, float]:
    """mAP@[.5:.95] and mAP@.5 in [0, 1] of a set of images by faster-coco-eval."""
    package = coco_package()
    annotations = [
        (i, int(label), _corner_and_size(box), int(ignored))
        for i, one in enumerate(objects)
        for box, label, ignored in zip(one.boxes, one.labels, one.ignored, strict=True)
    ]
    kinds = sorted({label for _, label, *_ in annotations})
    truth = package.COCO(
        {
            "images": [{"id": i} for i in range(len(objects))],
            "categories": [{"id": kind} for kind in kinds],
            "annotations": [
                {
                    "id": number,
                    "image_id": i,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": ignored,
                }
                for number, (i, label, box, ignored) in enumerate(annotations, 1)
            ],
        }
    )
    results = [
        {
            "image_id": i,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "score": float(score),
        }
        for i, one in enumerate(found)
        for box, score, label in zip(*one, strict=True)
        if label in kinds
    ]
    if not results:
        return 0.0, 0.0
    run = package.COCOeval_faster(
        truth, truth.loadRes(results), "bbox", print_function=lambda *_: None
    )
    run.params.maxDets, run.params.areaRng, run.params.areaRngLbl = [MOST], [[0, 1e10]], ["all"]
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][
        ..., 0, 0
    ]  # thresholds, recalls, classes; -1 for classes whose objects are all ignored
    precision = precision[:, :, (precision > -1).all((0, 1))]
    return float(precision.mean()), float(precision[0].mean())


def _corner_and_size(box: Array) -> list[float]:
    return [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])]
