"""Recognisers from ONNX files, each with a JSON card beside it that says its task, resizing and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vrdir.evaluation.recognition.recognisers.contracts import (
    Array,
    Classifier,
    Detector,
    Embedder,
    Task,
)
from vrdir.evaluation.recognition.variants import Pixels
from vrdir.export.runtimes import onnx_session
from vrdir.images.folders import ForeignPaths
from vrdir.regular_files import refuse_pointer
from vrdir.text_files import read_json, read_names
from vrdir.weights.bundled import sha256

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
OUTPUTS = {
    "classification": {"logits": 2},
    "detection": {"boxes": 2, "scores": 1, "labels": 1},
    "reid": {"embedding": 2},
}
RESIZING = {
    "classification": "shorter_side_centre_crop",
    "detection": "letterbox",
    "reid": "stretch",
}


def from_onnx(path: Path, task: Task) -> Classifier | Detector | Embedder:
    """By a file and its card."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError("an ONNX file needs onnxruntime: pip install 'vrdir[evaluate]'") from None
    card = _card(path, task)
    session = onnx_session(onnxruntime, path)
    height, width = _input_size(session, path)
    _check_outputs(session, path, task)
    resize = _resizing(card, path, task, (height, width))
    facts = _facts(card) | {"sha256": sha256(path), "file": path.name}
    name = str(card.get("name", path.stem))

    def run(images: Sequence[Image.Image]) -> list[Array]:
        batch = np.stack(
            [np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in images]
        )
        return session.run(list(OUTPUTS[task]), {"image": batch})

    if task == "detection":

        def detect(image: Pixels) -> tuple[Array, Array, Array]:
            canvas, scale = letterboxed(
                Image.fromarray(image), height, int(resize.get("pad", 114)), _filter(resize)
            )
            boxes, scores, labels = run([canvas])
            return boxes / np.float64(scale), scores, labels

        return Detector(name, facts, _class_names(card, path), detect)
    one_by_one = session.get_inputs()[0].shape[0] == 1

    def batched(images: Sequence[Pixels]) -> Array:
        resized = [_resized(Image.fromarray(image), resize, (height, width)) for image in images]
        return (
            np.concatenate([run([image])[0] for image in resized])
            if one_by_one
            else run(resized)[0]
        )

    if task == "reid":
        return Embedder(name, facts, batched)
    classes = _class_names(card, path)
    count = session.get_outputs()[
        [output.name for output in session.get_outputs()].index("logits")
    ].shape[1]
    if isinstance(count, int) and count != len(classes):
        raise ValueError(f"{path} has {count} classes, its card names {len(classes)}")
    return Classifier(name, facts, classes, batched)


def letterboxed(
    image: Image.Image, side: int, pad: int, resampling: Image.Resampling
) -> tuple[Image.Image, float]:
    """Resize the longer side to `side` and place the picture at the top left of a square, the rest grey.

    Returns:
        The square, and the factor by which it was resized.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side), (pad, pad, pad))
    canvas.paste(image.resize(size, resampling), (0, 0))
    return canvas, scale


def centre_cropped(
    image: Image.Image, shorter: int, side: int, resampling: Image.Resampling
) -> Image.Image:
    """Resize the shorter side to `shorter` and cut the centre `side` x `side`."""
    scale = shorter / min(image.size)
    resized = image.resize((round(image.width * scale), round(image.height * scale)), resampling)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    return resized.crop((left, top, left + side, top + side))


def _resized(image: Image.Image, resize: Mapping[str, Any], size: tuple[int, int]) -> Image.Image:
    if resize["mode"] == "stretch":
        return image.resize((size[1], size[0]), _filter(resize))
    return centre_cropped(image, int(resize["shorter_side"]), int(resize["crop"]), _filter(resize))


def _filter(resize: Mapping[str, Any]) -> Image.Resampling:
    return FILTERS[resize["filter"]]


def _card(path: Path, task: Task) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no recogniser {path}")
    refuse_pointer(path)
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(
            f"{path} needs a card {beside.name} beside it that says its task, resizing and classes"
        )
    card = read_json(beside)
    if not isinstance(card, dict) or not isinstance(card.get("resize"), dict):
        raise ValueError(f"{beside} says no `resize`: how the recogniser's input is made")
    if card.get("task") != task:
        raise ValueError(f"{beside}: task {card.get('task')!r}, but {task!r} is wanted")
    if card.get("sha256") not in (None, sha256(path)):
        raise ValueError(
            f"{beside} describes another file than {path.name}: their sha256 differ; get both again"
        )
    return card


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    inputs = session.get_inputs()
    found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    shape = inputs[0].shape
    if (
        [one.name for one in inputs] != ["image"]
        or inputs[0].type != "tensor(float)"
        or len(shape) != 4
        or shape[1] != 3
    ):
        raise ValueError(
            f"{path} takes {found}; the connector knows one input, image tensor(float) (B, 3, H, W)"
        )
    if not all(isinstance(side, int) for side in shape[2:]):
        raise ValueError(
            f"{path} takes images of any size, {shape}; the connector needs a fixed H and W"
        )
    return int(shape[2]), int(shape[3])


def _check_outputs(session: Any, path: Path, task: Task) -> None:
    outputs = {one.name: len(one.shape) for one in session.get_outputs()}
    missing = [
        f"{name} of {rank} dimensions"
        for name, rank in OUTPUTS[task].items()
        if outputs.get(name) != rank
    ]
    if missing:
        found = ", ".join(f"{one.name} {one.shape}" for one in session.get_outputs())
        raise ValueError(
            f"{path} gives {found}; for {task} the connector needs {', '.join(missing)}"
        )


def _resizing(
    card: Mapping[str, Any], path: Path, task: Task, size: tuple[int, int]
) -> Mapping[str, Any]:
    """The card's rule, if the connector can follow it and it ends at the network's input size."""
    resize, beside = card["resize"], path.with_suffix(".json")
    if resize.get("mode") != RESIZING[task]:
        raise ValueError(
            f"{beside}: resize.mode {resize.get('mode')!r}; for {task} the connector knows {RESIZING[task]!r}"
        )
    if str(resize.get("filter")) not in FILTERS or not resize.get("antialias", True):
        raise ValueError(
            f"{beside}: resize.filter {resize.get('filter')!r}; the connector knows antialiased {', '.join(FILTERS)}"
        )
    crop = resize.get("crop")
    wanted = resize.get("size") if crop is None else [crop, crop]
    if (
        wanted != list(size)
        or (task == "detection" and size[0] != size[1])
        or (crop is not None and "shorter_side" not in resize)
    ):
        raise ValueError(
            f"{beside}: resize ends at {wanted} (H, W), but {path.name} takes {list(size)}"
        )
    if resize.get("align", "top-left") != "top-left":
        raise ValueError(
            f"{beside}: resize.align {resize['align']!r}; the connector knows 'top-left'"
        )
    return resize


def _class_names(card: Mapping[str, Any], path: Path) -> list[str]:
    """From the text file that the card names, one name a line, or the card's list."""
    classes = card.get("classes") or {}
    names = classes.get("names") if isinstance(classes, dict) else classes
    if isinstance(names, str):
        file = ForeignPaths().find(path.parent, names)
        if not file.is_file():
            raise FileNotFoundError(
                f"{path.with_suffix('.json')} names its classes in {names}, which is not there"
            )
        names = read_names(file)
    if not isinstance(names, list) or not names:
        raise ValueError(f"{path.with_suffix('.json')} does not name its classes")
    count = classes.get("count", len(names)) if isinstance(classes, dict) else len(names)
    if count != len(names):
        raise ValueError(f"{path.with_suffix('.json')}: {count} classes, but {len(names)} names")
    return [str(name) for name in names]


def _facts(card: Mapping[str, Any]) -> dict[str, str]:
    facts = {key: str(card[key]) for key in ("licence", "source", "trained_on") if card.get(key)}
    if card.get("non_commercial"):
        facts["licence"] = f"{facts.get('licence', '')} (non-commercial use only)".strip()
    return {key.replace("_", " "): value for key, value in facts.items()}
