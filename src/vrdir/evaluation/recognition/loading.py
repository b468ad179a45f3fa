"""A recogniser by text: an ONNX file, a Python function, timm, torchvision, transformers.

A function `module:function` follows the task's convention; images are (H, W, 3), uint8, RGB:

- classification: list of B images -> scores (B, C), the higher the likelier; logits or probabilities
- detection: image -> boxes (N, 4) as x0, y0, x1, y1 in its pixels, scores (N,), labels (N,) of 0 to C - 1
- re-identification: list of B images -> vectors (B, D), compared by cosine similarity

The C class names stand in the function's attribute `classes`, or in its module's `CLASSES`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, overload

from vrdir.evaluation.recognition.recognisers.contracts import Classifier, Detector, Embedder, Task
from vrdir.evaluation.recognition.recognisers.onnx_network import from_onnx
from vrdir.evaluation.recognition.recognisers.packages import PACKAGES
from vrdir.evaluation.recognition.variants import load_function


@overload
def load_recogniser(spec: str, task: Literal["classification"]) -> Classifier: ...
@overload
def load_recogniser(spec: str, task: Literal["detection"]) -> Detector: ...
@overload
def load_recogniser(spec: str, task: Literal["reid"]) -> Embedder: ...
def load_recogniser(spec: str, task: Task) -> Classifier | Detector | Embedder:
    """A recogniser by text.

    Args:
        spec: FILE.onnx, with its FILE.json beside it; `module:function`, see above; `timm:NAME`, `torchvision:NAME` or
            `transformers:NAME`, for which the package must be installed (and weights are downloaded if they are not there).
        task: what it is for.

    Raises:
        FileNotFoundError: there is no such file, or no card beside it.
        ValueError: the package is missing, or file, card or function do not keep the task's contract.
    """
    if spec.lower().endswith(".onnx"):
        return from_onnx(Path(spec), task)
    origin, colon, name = spec.partition(":")
    if origin in PACKAGES and colon:
        return PACKAGES[origin](name, task)
    if not colon:
        names = ", ".join(f"{package}:NAME" for package in PACKAGES)
        raise ValueError(f"{spec!r} is no recogniser; give FILE.onnx, module:function, {names}")
    return _by_function(spec, task)


def _by_function(spec: str, task: Task) -> Classifier | Detector | Embedder:
    function = load_function(spec)
    facts = {"source": spec}
    if task == "reid":
        return Embedder(spec, facts, function)
    classes = getattr(function, "classes", None) or getattr(
        sys.modules[spec.partition(":")[0]], "CLASSES", None
    )
    if (
        not classes
        or isinstance(classes, str)
        or not all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(
            f"{spec} does not say its classes; give the function an attribute `classes`, or its module CLASSES: a list of names"
        )
    return (
        Classifier(spec, facts, classes, function)
        if task == "classification"
        else Detector(spec, facts, classes, function)
    )
