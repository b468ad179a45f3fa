"""What an evaluated recogniser is: classifiers, detectors, embedders, each with checks of what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from vrdir.errors import RecogniserError, first_line
from vrdir.evaluation.recognition.variants import Pixels

Array = np.ndarray[Any, np.dtype[Any]]
Task = Literal["classification", "detection", "reid"]


class Detections(NamedTuple):
    """What a detector found: boxes (N, 4) as x0, y0, x1, y1 in the image's pixels, scores (N,), labels (N,)."""

    boxes: Array
    scores: Array
    labels: Array


@dataclass(frozen=True)
class Classifier:
    """Names an image's class.

    Attributes:
        name: what it is called.
        facts: licence, source and the like, where known.
        classes: the name of each.
        run: list of B images -> scores (B, C).
    """

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    run: Callable[[Sequence[Pixels]], Any]

    def __call__(self, images: Sequence[Pixels]) -> Array:
        """Scores (B, C). Raises RecogniserError if the recogniser returns anything else, ValueError for NaN."""
        return _checked(self.name, "scores", self.run(images), (len(images), len(self.classes)))


@dataclass(frozen=True)
class Detector:
    """Finds objects; as `Classifier`, with `run`: image -> boxes, scores, labels."""

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    run: Callable[[Pixels], Any]

    def __call__(self, image: Pixels) -> Detections:
        """What it finds. Raises RecogniserError if the recogniser returns anything else, or a label that is no class."""
        answer = self.run(image)
        try:
            boxes, scores, labels = map(_numbers, answer)
        except (TypeError, ValueError) as error:
            raise RecogniserError(
                f"{self.name} does not return boxes, scores and labels ({first_line(error)})"
            ) from error
        count = len(np.atleast_1d(scores))
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        labels = _checked(self.name, "labels", labels, (count,)).astype(np.int64)
        if count and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise RecogniserError(
                f"{self.name} returned label {labels.max()} (least {labels.min()}), but has the classes 0 to {len(self.classes) - 1}"
            )
        boxes = _checked(self.name, "boxes", boxes, (count, 4)).astype(np.float64)
        return Detections(
            boxes, _checked(self.name, "scores", scores, (count,)).astype(np.float64), labels
        )


@dataclass(frozen=True)
class Embedder:
    """Turns an image of a person into a vector; as `Classifier`, with `run`: list of B images -> (B, D)."""

    name: str
    facts: Mapping[str, str]
    run: Callable[[Sequence[Pixels]], Any]

    def __call__(self, images: Sequence[Pixels]) -> Array:
        """Vectors of unit length, (B, D). Raises RecogniserError if the recogniser returns anything else, ValueError for NaN or zeros."""
        vectors = _checked(self.name, "vectors", self.run(images), (len(images), -1))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise ValueError(f"{self.name} returned a vector of zeros, which is like nothing")
        unit: Array = vectors / lengths
        return unit


def _numbers(values: Any) -> Array:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)


def _checked(name: str, what: str, values: Any, shape: tuple[int, ...]) -> Array:
    """An answer as floating-point numbers; -1 in the shape stands for any size but 0."""
    array = _numbers(values)
    fits = array.ndim == len(shape) and all(
        size == wanted or (wanted == -1 and size)
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        wanted = ", ".join("D" if size == -1 else str(size) for size in shape)
        raise RecogniserError(
            f"{name} returned {what} of shape {array.shape} and type {array.dtype}; expected numbers of shape ({wanted})"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{name} returned {what} that are not finite (NaN or infinity)")
    return array.astype(np.float32 if array.dtype == np.float32 else np.float64)
