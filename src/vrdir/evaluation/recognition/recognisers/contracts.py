"""Recognisers, and checks that their output follows the contract of their task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import InputError, RecogniserError, first_line
from vrdir.evaluation.user_functions import Pixels


class Detections(NamedTuple):
    """The objects that a detector found in an image.

    Attributes:
        boxes: (N, 4), x0, y0, x1, y1 in the image's pixels.
        scores: (N,).
        labels: (N,), class numbers.
    """

    boxes: NDArray[Any]
    scores: NDArray[Any]
    labels: NDArray[Any]


@dataclass(frozen=True)
class Classifier:
    """A recogniser that names the class of an image.

    Attributes:
        name: its name in reports.
        facts: licence, source and the like, where known.
        classes: the name of each class.
        run: list of B images -> scores (B, C), higher for likelier classes.
    """

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    run: Callable[[Sequence[Pixels]], Any]

    def __call__(self, images: Sequence[Pixels]) -> NDArray[Any]:
        """Return scores (B, C).

        Raises:
            RecogniserError: the recogniser returned anything else.
            InputError: a score is not finite.
        """
        shape = (len(images), len(self.classes))
        return checked_array(self.name, "scores", self.run(images), shape)


@dataclass(frozen=True)
class Detector:
    """A recogniser that finds objects.

    Attributes:
        name: its name in reports.
        facts: licence, source and the like, where known.
        classes: the name of each class.
        run: image -> boxes (N, 4), scores (N,), labels (N,).
    """

    name: str
    facts: Mapping[str, str]
    classes: Sequence[str]
    run: Callable[[Pixels], Any]

    def __call__(self, image: Pixels) -> Detections:
        """Return the objects in an image.

        Raises:
            RecogniserError: the recogniser returned anything else, or a label that is not a class.
            InputError: a value is not finite.
        """
        output = self.run(image)
        try:
            boxes, scores, labels = map(_as_array, output)
        except (TypeError, ValueError) as error:
            raise RecogniserError(
                f"{self.name} does not return boxes, scores and labels ({first_line(error)})"
            ) from error
        count = len(np.atleast_1d(scores))
        boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
        labels = checked_array(self.name, "labels", labels, (count,)).astype(np.int64)
        if count and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise RecogniserError(
                f"{self.name} returned labels from {labels.min()} to {labels.max()}, but has the "
                f"classes 0 to {len(self.classes) - 1}"
            )
        boxes = checked_array(self.name, "boxes", boxes, (count, 4)).astype(np.float64)
        scores = checked_array(self.name, "scores", scores, (count,)).astype(np.float64)
        return Detections(boxes, scores, labels)


@dataclass(frozen=True)
class Embedder:
    """A recogniser that turns an image of a person into a vector.

    Attributes:
        name: its name in reports.
        facts: licence, source and the like, where known.
        run: list of B images -> vectors (B, D).
    """

    name: str
    facts: Mapping[str, str]
    run: Callable[[Sequence[Pixels]], Any]

    def __call__(self, images: Sequence[Pixels]) -> NDArray[Any]:
        """Return vectors of unit length, (B, D).

        Raises:
            RecogniserError: the recogniser returned anything else.
            InputError: a value is not finite, or a vector is zero.
        """
        vectors = checked_array(self.name, "vectors", self.run(images), (len(images), -1))
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (lengths > 0).all():
            raise InputError(f"{self.name} returned a vector of zeros, which has no direction")
        unit: NDArray[Any] = vectors / lengths
        return unit


def checked_array(name: str, what: str, values: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return a recogniser's output as floating-point numbers.

    Args:
        name: the recogniser's name, for errors.
        what: what the values are, for errors, such as "scores".
        values: a torch tensor, or anything that NumPy takes.
        shape: the expected shape; -1 for any size but 0.

    Raises:
        RecogniserError: the shape or type is wrong.
        InputError: a value is NaN or infinite.
    """
    array = _as_array(values)
    fits = array.ndim == len(shape) and all(
        size == wanted or (wanted == -1 and size)
        for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        expected = ", ".join("D" if size == -1 else str(size) for size in shape)
        raise RecogniserError(
            f"{name} returned {what} of shape {array.shape} and type {array.dtype}; "
            f"expected numbers of shape ({expected})"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{name} returned {what} that are not finite (NaN or infinity)")
    return array.astype(np.float32 if array.dtype == np.float32 else np.float64)


def _as_array(values: Any) -> NDArray[Any]:
    import torch  # here, so that `--help` does not wait for it

    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
