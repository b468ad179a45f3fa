"""Images labelled with boxes, as collected from label files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import ImageError
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.images.headers import image_size

TOLERANCE_PX = 2
"""The number of pixels by which a box may extend beyond its image: labels are rounded, and some
count pixels from 1."""


class LabelledBox(NamedTuple):
    """One labelled object.

    Attributes:
        edges: x0, y0, x1, y1 in pixels.
        label: its class, by name or number.
        ignored: whether it is ignored: finding or missing it does not count: a crowd, or what VOC
            calls difficult.
    """

    edges: tuple[float, float, float, float]
    label: str
    ignored: bool


class Truth(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        labels: the class of each, by name or number as the data set gives it.
        ignored: (N,), whether it is ignored: finding or missing it does not count.
    """

    boxes: NDArray[Any]
    labels: Sequence[str]
    ignored: NDArray[Any]


class BoxCollector:
    """Collects images and their boxes; inconsistent entries are excluded by name."""

    def __init__(self) -> None:
        self.images: list[ImageFile] = []
        self.truths: list[Truth] = []
        self.excluded: list[Exclusion] = []
        self.repeated = 0

    def exclude(self, name: str, reason: str) -> None:
        """Exclude an image or file."""
        self.excluded.append(Exclusion(name, reason))

    def add(self, image: ImageFile, boxes: Sequence[LabelledBox], size: tuple[int, int]) -> None:
        """Add an image, or exclude it if one of its boxes is wrong.

        A correct detection at a wrong box would count as false. A box given twice
        counts once.

        Args:
            image: the image.
            boxes: all its boxes.
            size: the width and height that the labels are for; 0 if they do not say.
        """
        try:
            actual = image_size(image.path)
        except ImageError as error:
            self.exclude(image.name, str(error))
            return
        problem = next((text for box in boxes if (text := _problem(box.edges, actual))), "")
        if any(side and side != real for side, real in zip(size, actual, strict=True)):
            problem = (
                f"the labels are for {size[0]} x {size[1]} pixels, "
                f"the image has {actual[0]} x {actual[1]}"
            )
        if problem:
            self.exclude(image.name, problem)
            return
        different = list(dict.fromkeys(boxes))
        self.repeated += len(boxes) - len(different)
        self.images.append(image)
        edges = np.array([box.edges for box in different], np.float64).reshape(-1, 4)
        ignored = np.array([box.ignored for box in different], bool)
        self.truths.append(Truth(edges, [box.label for box in different], ignored))

    def data(self) -> LabelledImages[Truth]:
        """Return everything collected."""
        if self.repeated:
            name, reason = f"{self.repeated} boxes", "listed twice: each counts once"
            self.excluded.append(Exclusion(name, reason, by_protocol=True))
        ignored = sum(int(truth.ignored.sum()) for truth in self.truths)
        if ignored:
            name, reason = (
                f"{ignored} boxes",
                "crowds or difficult: ignored, so finding or missing them does not count",
            )
            self.excluded.append(Exclusion(name, reason, by_protocol=True))
        return LabelledImages(self.images, self.truths, self.excluded)


def side_length(value: Any) -> int:
    """Return an image's width or height, given as a number or text; 0 if it is unknown."""
    try:
        return max(0, round(float(value)))
    except (ValueError, TypeError, OverflowError):
        return 0


def _problem(box: Sequence[float], size: tuple[int, int]) -> str:
    """Return the problem of a box in an image of this width and height; "" if it is valid."""
    x0, y0, x1, y1 = box
    shown = ", ".join(f"{edge:.4g}" for edge in box)
    if not all(math.isfinite(edge) for edge in box) or x1 <= x0 or y1 <= y0:
        return f"the box {shown} (x0, y0, x1, y1) has no area"
    beyond = max(-x0, -y0, x1 - size[0], y1 - size[1])
    if beyond > TOLERANCE_PX:
        return (
            f"the box {shown} (x0, y0, x1, y1) reaches out of its image "
            f"of {size[0]} x {size[1]} pixels"
        )
    return ""
