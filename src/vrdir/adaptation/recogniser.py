"""The user's frozen recogniser. It takes images in [0, 1], and gradients pass through it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.adaptation.answers import TASKS, AnswerKind, kind_of, tidied
from vrdir.adaptation.layers import check_layers, find_layers, tapped
from vrdir.adaptation.onnx_recogniser import OnnxRecogniser, open_recogniser
from vrdir.errors import InputError, RecogniserError, first_line
from vrdir.evaluation.recognition.recognisers.packages import (
    load_timm,
    load_torchvision,
    load_transformers,
)
from vrdir.evaluation.user_functions import load_function
from vrdir.frontend.normalisation import Normalisation
from vrdir.frontend.preprocessing import find_normalisation, is_declared

logger = logging.getLogger(__name__)

SIZE_PX = 224
"""The side of a recogniser's input, in pixels, if it cannot be found."""
KINDS = {
    "classification": "AutoModelForImageClassification",
    "detection": "AutoModelForObjectDetection",
    "reid": "AutoModel",
}
"""The class of the package transformers for each task."""


@dataclass(frozen=True)
class InputFormat:
    """The input of a recogniser, as declared by the user. None means: find it automatically.

    Attributes:
        size: height and width of the input in pixels, or one number for both.
        mean: the mean that is subtracted, as for `vrdir.restore_before`.
        std: the standard deviation, by which the image is divided, as for `vrdir.restore_before`.
        range: the value of white, or those of black and white, as for `vrdir.restore_before`.
        channels: "rgb" or "bgr".
    """

    size: int | tuple[int, int] | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    range: float | Sequence[float] | None = None
    channels: str | None = None

    def normalisation(self, module: Any, preprocessing: Any) -> Normalisation:
        """Return the normalisation; log a warning if it is unknown and RGB in [0, 1] is assumed."""
        if not is_declared(module, self.mean, self.std, self.range, preprocessing):
            logger.warning(
                "the normalisation of the recogniser's input is unknown, so RGB in [0, 1] is "
                "assumed; declare it with mean, std, range and channels"
            )
        return find_normalisation(
            module,
            preprocessing,
            mean=self.mean,
            std=self.std,
            range=self.range,
            channels=self.channels,
        )

    def normalisation_of_onnx(self) -> Normalisation:
        """Return the normalisation for an ONNX file: RGB in [0, 1] if nothing is declared."""
        return find_normalisation(
            None, mean=self.mean, std=self.std, range=self.range, channels=self.channels
        )

    def sides(self, module: Any, preprocessing: Any) -> tuple[int, int]:
        """Return height and width of the input in pixels: declared, found, or 224 x 224."""
        if self.size is not None:
            return (self.size, self.size) if isinstance(self.size, int) else self.size
        described = getattr(module, "pretrained_cfg", None) or {}
        shape = described.get("input_size") if isinstance(described, Mapping) else None
        if shape:
            return int(shape[-2]), int(shape[-1])
        size = getattr(preprocessing, "crop_size", None) or getattr(preprocessing, "size", None)
        if isinstance(size, Mapping):
            found = [size.get(key) for key in ("height", "width", "shortest_edge")]
            high, wide = found[0] or found[2], found[1] or found[2]
            return (int(high), int(wide)) if high and wide else (SIZE_PX, SIZE_PX)
        if isinstance(size, (int, list, tuple)):
            sides = [size] if isinstance(size, int) else list(size)
            return int(sides[0]), int(sides[-1])
        return SIZE_PX, SIZE_PX


class Seen(NamedTuple):
    """The output of a recogniser for a batch.

    Attributes:
        answers: its answers, of the kind `Recogniser.kind`.
        features: the features of its layers, (B, C, h, w) or (B, C, n) each.
    """

    answers: Any
    features: list[Tensor]


@dataclass
class Recogniser:
    """A frozen recogniser.

    Attributes:
        name: its name in reports.
        module: the PyTorch module; gradients pass through it.
        size: height and width of its input in pixels.
        normalisation: the normalisation of its input.
        layers: the names of the layers whose features are compared.
        kind: the kind of its answers; None until it was called.
        facts: its licence and source, if known.
        classes: the names of its classes, if known.
    """

    name: str
    module: nn.Module
    size: tuple[int, int]
    normalisation: Normalisation = field(default_factory=Normalisation)
    layers: Sequence[str] = ()
    kind: AnswerKind | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    classes: Sequence[str] = ()

    def see(self, image: Tensor) -> Seen:
        """Resize RGB images (B, 3, H, W) in [0, 1] to `size`; return their answers and features."""
        if image.shape[-2:] != self.size:
            # Half precision, as in training with bf16, cannot be resized with antialiasing on CPUs.
            image = functional.interpolate(
                image.float(), self.size, mode="bilinear", align_corners=False, antialias=True
            )
        values = self.normalisation.redo(image)
        if isinstance(self.module, OnnxRecogniser):
            answers, found = self.module(values)
            return Seen(tidied(answers), found)
        with tapped(self.module, self.layers) as features:
            return Seen(tidied(call(self.module, values)), features)

    def answers(self, image: Tensor) -> Any:
        """Return the answers for images, without features and gradients; see `see`."""
        with torch.no_grad():
            return self.see(image).answers

    def to(self, device: torch.device) -> None:
        """Move the module to a device."""
        self.module.to(device)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the names and values of its weights, as hexadecimal digits."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.module.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()


def call(module: nn.Module, values: Tensor) -> Any:
    """Call a module on a batch (B, 3, H, W), with the argument that its package expects."""
    if type(module).__module__.startswith("torchvision.models.detection"):
        return module(list(values))
    if hasattr(module, "config") and hasattr(module, "main_input_name"):
        return module(**{str(module.main_input_name): values})
    return module(values)


def load_recogniser(
    given: Any,
    task: str | None = None,
    input_format: InputFormat | None = None,
    layers: Sequence[str] = (),
    device: torch.device | str = "cpu",
) -> Recogniser:
    """Load a recogniser, freeze it, and call it once to find its kind of answers and its layers.

    Args:
        given: a `torch.nn.Module`; or a text: `module:name` of such a module or of a function that
            returns one without arguments, `timm:NAME`, `torchvision:NAME`, `transformers:NAME`, or
            the path of an ONNX file.
        task: "classification", "detection" or "reid"; None finds it by the answers.
        input_format: the size and normalisation of its input; None to find them.
        layers: the names of the layers whose features are compared; empty to choose a few.
        device: where it runs.

    Raises:
        RecogniserError: it cannot be loaded, or cannot be used for adaptation.
        MissingFileError, MissingPackageError: a file or package is missing.
        InputError: the task, size or normalisation is wrong.
    """
    if task is not None and task not in TASKS:
        raise InputError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
    described = input_format or InputFormat()
    found = _loaded(given, task, described, layers)
    found.module.requires_grad_(False).eval().to(device)
    try:
        seen = found.see(torch.full((2, 3, *found.size), 0.5, device=device))
    except Exception as error:
        raise RecogniserError(
            f"{found.name} cannot be called with images of {found.size[0]} x {found.size[1]} "
            f"pixels ({first_line(error)}); pass the size of its input"
        ) from error
    number = getattr(getattr(found.module, "config", None), "num_labels", None)
    found.kind = kind_of(seen.answers, task, number)
    if isinstance(found.module, OnnxRecogniser):
        found.layers = found.module.features
    elif layers:
        check_layers(found.module, layers)
        found.layers = list(layers)
    else:
        image = torch.rand(1, 3, *found.size, device=device)
        found.layers = find_layers(found.module, lambda: found.see(image), found.size[0])
    return found


def _loaded(
    given: Any, task: str | None, described: InputFormat, layers: Sequence[str]
) -> Recogniser:
    if isinstance(given, nn.Module):
        return _of_module(given, type(given).__name__, described)
    spec = str(given)
    if spec.lower().endswith(".onnx"):
        module = open_recogniser(Path(spec), layers)
        size = module.size if described.size is None else described.sides(None, None)
        facts = {"file": Path(spec).name}
        return Recogniser(
            Path(spec).name, module, size, described.normalisation_of_onnx(), facts=facts
        )
    origin, colon, name = spec.partition(":")
    if not colon or not name:
        raise RecogniserError(
            f"{spec!r} is not a recogniser; use a PyTorch module as module:function, timm:NAME, "
            "torchvision:NAME, transformers:NAME, or FILE.onnx"
        )
    if origin == "timm":
        package = load_timm(name, **({"num_classes": 0} if task == "reid" else {}))
    elif origin == "torchvision":
        package = load_torchvision(name)
    elif origin == "transformers":
        package = load_transformers(name, KINDS[task or "classification"], task or "classification")
    else:
        return _of_module(module_of(spec), spec, described)
    preprocessing = package.processor or (
        package.weights.transforms() if package.weights is not None else None
    )
    found = _of_module(package.model, package.name, described, preprocessing)
    found.facts = package.facts
    return found


def _of_module(
    module: nn.Module, name: str, described: InputFormat, preprocessing: Any = None
) -> Recogniser:
    return Recogniser(
        name,
        module,
        described.sides(module, preprocessing),
        described.normalisation(module, preprocessing),
    )


def module_of(spec: str) -> nn.Module:
    """Return the PyTorch module `module:name`, or the one that the function of this name returns.

    Raises:
        InputError: the Python module cannot be imported, or does not have this name.
        RecogniserError: the object is not a PyTorch module and does not return one.
    """
    found = load_function(spec)
    if isinstance(found, nn.Module):
        return found
    try:
        made = found()
    except Exception as error:  # the user's function may raise anything
        raise RecogniserError(
            f"{spec} cannot be called without arguments ({first_line(error)}); it must be a "
            "PyTorch module, or a function that returns one"
        ) from error
    if not isinstance(made, nn.Module):
        raise RecogniserError(
            f"{spec} returns a {type(made).__name__}; adaptation needs gradients, so it must be or "
            "return a PyTorch module (torch.nn.Module)"
        )
    return made
