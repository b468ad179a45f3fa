"""Recognisers in ONNX files, each with a JSON card in the same folder.

The card contains the task, how the input is made from an image, and the names of the classes;
docs/recognition.md shows one of each task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vrdir.errors import MissingFileError, RecogniserError, require
from vrdir.evaluation.recognition.recognisers.resizing import Resizing, read_resizing
from vrdir.evaluation.user_functions import Pixels
from vrdir.images.folders import ForeignPaths
from vrdir.regular_files import refuse_pointer
from vrdir.text_files import read_json, read_names

FACTS = ("licence", "source", "trained_on")
"""What reports show of a card."""


@dataclass(frozen=True)
class OnnxNetwork:
    """An open ONNX file with its card.

    Attributes:
        path: the file.
        name: its name in reports.
        facts: licence and source if the card has them, the file's name and SHA-256.
        card: the card's content.
        session: of onnxruntime.
        resizing: how the input is made.
        outputs: the names of the outputs that the task needs.
    """

    path: Path
    name: str
    facts: Mapping[str, str]
    card: Mapping[str, Any]
    session: Any
    resizing: Resizing
    outputs: Sequence[str]

    def run(self, inputs: Sequence[Image.Image]) -> list[NDArray[Any]]:
        """Return the outputs for a batch of resized images."""
        arrays = [np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in inputs]
        return self.session.run(list(self.outputs), {"image": np.stack(arrays)})

    def run_batch(self, images: Sequence[Pixels]) -> NDArray[Any]:
        """Return the first output for a list of images; one by one if the file takes one only."""
        resized = [self.resizing.apply(Image.fromarray(image))[0] for image in images]
        if self.session.get_inputs()[0].shape[0] == 1:
            return np.concatenate([self.run([image])[0] for image in resized])
        return self.run(resized)[0]

    def run_scaled(self, image: Pixels) -> tuple[list[NDArray[Any]], float]:
        """Return all outputs for one image, and the factor by which it was resized."""
        resized, scale = self.resizing.apply(Image.fromarray(image))
        return self.run([resized]), scale

    def class_names(self) -> list[str]:
        """Return the names of the classes: the card's list, or the lines of the file it names.

        Raises:
            MissingFileError: the file is not there.
            RecogniserError: the card names no classes, or another number of them.
        """
        beside = self.path.with_suffix(".json")
        classes = self.card.get("classes") or {}
        names = classes.get("names") if isinstance(classes, dict) else classes
        if isinstance(names, str):
            file = ForeignPaths().find(self.path.parent, names)
            if not file.is_file():
                raise MissingFileError(
                    f"{beside} names its classes in {names}, which does not exist"
                )
            names = read_names(file)
        if not isinstance(names, list) or not names:
            raise RecogniserError(f"{beside} contains no class names")
        count = classes.get("count", len(names)) if isinstance(classes, dict) else len(names)
        if count != len(names):
            raise RecogniserError(f"{beside}: {count} classes, but {len(names)} names")
        return [str(name) for name in names]

    def output_shape(self, name: str) -> Sequence[int | str | None]:
        """Return the shape of an output; sizes that vary are text or None."""
        return next(one.shape for one in self.session.get_outputs() if one.name == name)


def open_onnx(path: Path, task: str, outputs: Mapping[str, int], mode: str) -> OnnxNetwork:
    """Open an ONNX file and its card.

    Args:
        path: the ONNX file.
        task: the task's name, which the card must have.
        outputs: name -> number of dimensions of each output that the task needs.
        mode: the card's `resize.mode` that the task needs.

    Raises:
        MissingFileError: the file or its card is not there.
        RecogniserError: file or card do not follow the task's contract.
        MissingPackageError: onnxruntime is not installed.
    """
    # Here, so that `--help` does not wait for torch.
    from vrdir.export.onnx_runtime import onnx_session
    from vrdir.weights.bundled import sha256

    runtime = require("onnxruntime", "evaluate", "an ONNX file needs onnxruntime")
    card = _read_card(path, task, sha256)
    session = onnx_session(runtime, path)
    size = _input_size(session, path)
    _check_outputs(session, path, task, outputs)
    facts = {key.replace("_", " "): str(card[key]) for key in FACTS if card.get(key)}
    if card.get("non_commercial"):
        facts["licence"] = f"{facts.get('licence', '')} (non-commercial use only)".strip()
    return OnnxNetwork(
        path=path,
        name=str(card.get("name", path.stem)),
        facts=facts | {"sha256": sha256(path), "file": path.name},
        card=card,
        session=session,
        resizing=read_resizing(card, path, task, mode, size),
        outputs=list(outputs),
    )


def _read_card(path: Path, task: str, sha256: Any) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"recogniser {path} does not exist")
    refuse_pointer(path)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise MissingFileError(
            f"{path} needs a card {beside.name} next to it, with task, resize and classes"
        )
    card = read_json(beside)
    if not isinstance(card, dict) or not isinstance(card.get("resize"), dict):
        raise RecogniserError(
            f"{beside} has no `resize`, which describes how the recogniser's input is made"
        )
    if card.get("task") != task:
        raise RecogniserError(f"{beside}: task {card.get('task')!r}, but {task!r} is needed")
    if card.get("sha256") not in (None, sha256(path)):
        raise RecogniserError(
            f"{beside} describes another file than {path.name}: the sha256 differs; download both "
            "again"
        )
    return card


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    inputs = session.get_inputs()
    found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    names, kind, shape = [one.name for one in inputs], inputs[0].type, inputs[0].shape
    if names != ["image"] or kind != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        raise RecogniserError(
            f"{path} has the inputs {found}; it must have one, image tensor(float) (B, 3, H, W)"
        )
    if not all(isinstance(side, int) for side in shape[2:]):
        raise RecogniserError(f"{path} accepts images of any size, {shape}; H and W must be fixed")
    return int(shape[2]), int(shape[3])


def _check_outputs(session: Any, path: Path, task: str, outputs: Mapping[str, int]) -> None:
    found = {one.name: len(one.shape) for one in session.get_outputs()}
    missing = [
        f"{name} of {rank} dimensions" for name, rank in outputs.items() if found.get(name) != rank
    ]
    if missing:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in session.get_outputs())
        raise RecogniserError(f"{path} returns {shapes}; {task} needs {', '.join(missing)}")
