"""Matching of detected boxes with labelled ones, as COCO defines it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.evaluation.recognition.recognisers.contracts import Detections

THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""Thresholds of intersection over union: 0.5, 0.55 to 0.95."""
MOST_DETECTIONS = 100
"""How many detections count per image and class, those of the highest scores."""


class Objects(NamedTuple):
    """The labelled objects of an image.

    Attributes:
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        labels: (N,), class numbers.
        ignored: (N,), whether the object is ignored: finding or missing it does not count.
    """

    boxes: NDArray[Any]
    labels: NDArray[Any]
    ignored: NDArray[Any]

    @property
    def wanted(self) -> int:
        """The number of objects that should be found."""
        return int((~self.ignored).sum())


class Matches(NamedTuple):
    """The detections of an image, matched with its objects.

    Attributes:
        scores: (D,), within a class the highest first.
        labels: (D,), class numbers.
        right: (10, D), whether the detection finds an object of its class, at each threshold.
        ignored: (10, D), whether it finds an ignored object.
    """

    scores: NDArray[Any]
    labels: NDArray[Any]
    right: NDArray[Any]
    ignored: NDArray[Any]


def keep_classes(found: Detections, classes: NDArray[Any]) -> Detections:
    """Return the detections of some classes, of each at most 100, those of the highest scores."""
    order = np.argsort(-found.scores, kind="stable")
    kept = [order[found.labels[order] == number][:MOST_DETECTIONS] for number in classes]
    indices = np.sort(np.concatenate(kept))
    return Detections(found.boxes[indices], found.scores[indices], found.labels[indices])


def match(found: Detections, objects: Objects) -> Matches:
    """Match detections with the objects of their class at ten thresholds.

    Each detection, the highest score first, is matched with the unmatched object that it overlaps
    most. One that only overlaps an ignored object counts nowhere.
    """
    parts = []
    for label in np.unique(found.labels):
        of_class = np.flatnonzero(found.labels == label)
        of_class = of_class[np.argsort(-found.scores[of_class], kind="stable")][:MOST_DETECTIONS]
        wanted = np.flatnonzero(objects.labels == label)
        ignored_last = np.argsort(objects.ignored[wanted], kind="stable")
        wanted = wanted[ignored_last]
        crowd = objects.ignored[wanted]
        overlaps = overlap(found.boxes[of_class], objects.boxes[wanted], crowd)
        right, ignored = _match_class(overlaps, crowd)
        parts.append((found.scores[of_class], np.full(len(of_class), label), right, ignored))
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


def overlap(boxes: NDArray[Any], others: NDArray[Any], crowd: NDArray[Any]) -> NDArray[Any]:
    """Return the intersection over union of boxes (N, 4) and others (M, 4), (N, M).

    Where `crowd`, (M,), is true, it is the intersection over the area of the first box.
    """
    starts = np.maximum(boxes[:, None, :2], others[None, :, :2])
    ends = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = (ends - starts).clip(0).prod(2)
    area, other_area = (
        (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) for box in (boxes, others)
    )
    union = area[:, None] + np.where(crowd, 0, other_area - common)
    overlaps: NDArray[Any] = common / np.where(union > 0, union, 1)
    return overlaps


def _match_class(overlaps: NDArray[Any], crowd: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return which detections find an object and which an ignored one, (10, N) each.

    Args:
        overlaps: (N, M) of detections, the highest score first, and objects, ignored ones last.
        crowd: (M,), which objects are ignored.
    """
    right = np.zeros((len(THRESHOLDS), len(overlaps)), bool)
    ignored = np.zeros_like(right)
    if not len(crowd):
        return right, ignored
    for t, threshold in enumerate(THRESHOLDS):
        free = np.ones(len(crowd), bool)
        for row in np.flatnonzero((overlaps >= threshold - 1e-10).any(1)):
            able = free & (overlaps[row] >= min(threshold, 1 - 1e-10))
            if not able.any():
                continue
            real = able & ~crowd
            candidates = real if real.any() else able
            # Of equal overlaps the last, as in pycocotools.
            reversed_overlaps = np.where(candidates, overlaps[row], -1)[::-1]
            best = len(crowd) - 1 - int(np.argmax(reversed_overlaps))
            right[t, row], ignored[t, row] = not crowd[best], crowd[best]
            free[best] = crowd[best]  # a crowd may be found again
    return right, ignored
