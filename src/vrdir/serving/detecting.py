"""The boxes that a detector finds in an image, which the page draws before and after restoring."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vrdir.evaluation.recognition.registry import find_task
from vrdir.images.reading import decode
from vrdir.serving.batching import Job
from vrdir.serving.images import NAME

LEAST_SCORE = 0.3  # boxes with a lower score are not returned


class BoxFinder:
    """A detector from an ONNX file and its card. Several threads may use it.

    Args:
        path: the ONNX file, with a JSON card in the same folder (docs/recognition.md).

    Raises:
        VrdirError: the file or its card cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._detector = find_task("detection").load(str(path))
        self._lock = threading.Lock()
        self.name = self._detector.name

    def find(self, content: bytes) -> dict[str, Any]:
        """Find the objects in an encoded image.

        Returns:
            JSON values: `detector` (its name), `width` and `height` of the image in pixels, and
            `boxes`, with the highest score first. Each box has its corners `x0`, `y0`, `x1`, `y1`
            in pixels of the image, its `score` from 0.3 to 1, and the name of its class as `label`.

        Raises:
            ImageError: the image cannot be read.
        """
        picture = decode(content, NAME)
        shown = picture if not hasattr(picture, "reduced") else picture.reduced()
        pixels = np.asarray(shown.convert("RGB"))
        with self._lock:
            found = self._detector(pixels)
        boxes: list[dict[str, Any]] = [
            {
                **dict(zip(("x0", "y0", "x1", "y1"), map(float, box), strict=True)),
                "score": float(score),
                "label": self._detector.classes[int(label)],
            }
            for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True)
            if score >= LEAST_SCORE
        ]
        boxes.sort(key=lambda box: -box["score"])
        height, width = pixels.shape[:2]
        return {"detector": self.name, "width": width, "height": height, "boxes": boxes}

    def find_in_batch(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        """Return the boxes of each job's image, as `find` does; the queue calls this."""
        return [self.find(job.payload) for job in jobs]
