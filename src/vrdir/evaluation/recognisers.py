"""What an evaluated recogniser is, and where one comes from: an ONNX file, a Python function, timm, torchvision, transformers.

A function `module:function` follows the task's convention; images are (H, W, 3), uint8, RGB:

- classification: list of B images -> scores (B, C), the higher the likelier; logits or probabilities
- detection: image -> boxes (N, 4) as x0, y0, x1, y1 in its pixels, scores (N,), labels (N,) of 0 to C - 1
- re-identification: list of B images -> vectors (B, D), compared by cosine similarity

The C class names stand in the function's attribute `classes`, or in its module's `CLASSES`.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import torch
from PIL import Image

from vrdir.evaluation.recognition import RecogniserError
from vrdir.evaluation.variants import Pixels, load_function
from vrdir.image_files.whole_files import first_line
from vrdir.weights.bundled import sha256

Array = np.ndarray[Any, np.dtype[Any]]
Task = Literal["classification", "detection", "reid"]

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "lanczos": Image.Resampling.LANCZOS}
OUTPUTS = {"classification": {"logits": 2}, "detection": {"boxes": 2, "scores": 1, "labels": 1}, "reid": {"embedding": 2}}
RESIZING = {"classification": "shorter_side_centre_crop", "detection": "letterbox", "reid": "stretch"}
LEAST_SCORE = 0.01  # of boxes asked from torchvision and transformers: a precision-recall curve needs the doubtful ones too


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
            boxes, scores, labels = answer
        except (TypeError, ValueError) as error:
            raise RecogniserError(f"{self.name} does not return boxes, scores and labels ({first_line(error)})") from error
        count = len(np.atleast_1d(scores))
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4) if count == 0 else boxes
        labels = _checked(self.name, "labels", labels, (count,)).astype(np.int64)
        if count and not (labels.min() >= 0 and labels.max() < len(self.classes)):
            raise RecogniserError(
                f"{self.name} returned label {labels.max()} (least {labels.min()}), but has the classes 0 to {len(self.classes) - 1}"
            )
        boxes = _checked(self.name, "boxes", boxes, (count, 4)).astype(np.float64)
        return Detections(boxes, _checked(self.name, "scores", scores, (count,)).astype(np.float64), labels)


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
        return _by_onnx(Path(spec), task)
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
    classes = getattr(function, "classes", None) or getattr(sys.modules[spec.partition(":")[0]], "CLASSES", None)
    if not classes or isinstance(classes, str) or not all(isinstance(name, str) for name in classes):
        raise ValueError(
            f"{spec} does not say its classes; give the function an attribute `classes`, or its module CLASSES: a list of names"
        )
    return Classifier(spec, facts, classes, function) if task == "classification" else Detector(spec, facts, classes, function)


def _by_onnx(path: Path, task: Task) -> Classifier | Detector | Embedder:
    """By a file and its card."""
    try:
        import onnxruntime
    except ModuleNotFoundError:
        raise ValueError("an ONNX file needs onnxruntime: pip install 'vrdir[evaluate]'") from None
    card = _card(path, task)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own, undocumented ones
        raise ValueError(f"{path} is no ONNX file that onnxruntime can open ({first_line(error)})") from None
    height, width = _input_size(session, path)
    _check_outputs(session, path, task)
    resize = _resizing(card, path, task, (height, width))
    facts = _facts(card) | {"sha256": sha256(path), "file": path.name}
    name = str(card.get("name", path.stem))

    def run(images: Sequence[Image.Image]) -> list[Array]:
        batch = np.stack([np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in images])
        return session.run(list(OUTPUTS[task]), {"image": batch})

    if task == "detection":

        def detect(image: Pixels) -> tuple[Array, Array, Array]:
            canvas, scale = letterboxed(Image.fromarray(image), height, int(resize.get("pad", 114)), _filter(resize))
            boxes, scores, labels = run([canvas])
            return boxes / np.float64(scale), scores, labels

        return Detector(name, facts, _class_names(card, path), detect)
    one_by_one = session.get_inputs()[0].shape[0] == 1

    def batched(images: Sequence[Pixels]) -> Array:
        resized = [_resized(Image.fromarray(image), resize, (height, width)) for image in images]
        return np.concatenate([run([image])[0] for image in resized]) if one_by_one else run(resized)[0]

    if task == "reid":
        return Embedder(name, facts, batched)
    classes = _class_names(card, path)
    count = session.get_outputs()[[output.name for output in session.get_outputs()].index("logits")].shape[1]
    if isinstance(count, int) and count != len(classes):
        raise ValueError(f"{path} has {count} classes, its card names {len(classes)}")
    return Classifier(name, facts, classes, batched)


def letterboxed(image: Image.Image, side: int, pad: int, resampling: Image.Resampling) -> tuple[Image.Image, float]:
    """Resize the longer side to `side` and place the picture at the top left of a square, the rest grey.

    Returns:
        The square, and the factor by which it was resized.
    """
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    canvas = Image.new("RGB", (side, side), (pad, pad, pad))
    canvas.paste(image.resize(size, resampling), (0, 0))
    return canvas, scale


def centre_cropped(image: Image.Image, shorter: int, side: int, resampling: Image.Resampling) -> Image.Image:
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
    beside = path.with_suffix(".json")
    if not beside.is_file():
        raise FileNotFoundError(f"{path} needs a card {beside.name} beside it that says its task, resizing and classes")
    try:
        card = json.loads(beside.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{beside} is no JSON ({first_line(error)})") from None
    if not isinstance(card, dict) or not isinstance(card.get("resize"), dict):
        raise ValueError(f"{beside} says no `resize`: how the recogniser's input is made")
    if card.get("task") != task:
        raise ValueError(f"{beside}: task {card.get('task')!r}, but {task!r} is wanted")
    if card.get("sha256") not in (None, sha256(path)):
        raise ValueError(f"{beside} describes another file than {path.name}: their sha256 differ; get both again")
    return card


def _input_size(session: Any, path: Path) -> tuple[int, int]:
    inputs = session.get_inputs()
    found = ", ".join(f"{one.name} {one.type} {one.shape}" for one in inputs)
    shape = inputs[0].shape
    if [one.name for one in inputs] != ["image"] or inputs[0].type != "tensor(float)" or len(shape) != 4 or shape[1] != 3:
        raise ValueError(f"{path} takes {found}; the connector knows one input, image tensor(float) (B, 3, H, W)")
    if not all(isinstance(side, int) for side in shape[2:]):
        raise ValueError(f"{path} takes images of any size, {shape}; the connector needs a fixed H and W")
    return int(shape[2]), int(shape[3])


def _check_outputs(session: Any, path: Path, task: Task) -> None:
    outputs = {one.name: len(one.shape) for one in session.get_outputs()}
    missing = [f"{name} of {rank} dimensions" for name, rank in OUTPUTS[task].items() if outputs.get(name) != rank]
    if missing:
        found = ", ".join(f"{one.name} {one.shape}" for one in session.get_outputs())
        raise ValueError(f"{path} gives {found}; for {task} the connector needs {', '.join(missing)}")


def _resizing(card: Mapping[str, Any], path: Path, task: Task, size: tuple[int, int]) -> Mapping[str, Any]:
    """The card's rule, if the connector can follow it and it ends at the network's input size."""
    resize, beside = card["resize"], path.with_suffix(".json")
    if resize.get("mode") != RESIZING[task]:
        raise ValueError(f"{beside}: resize.mode {resize.get('mode')!r}; for {task} the connector knows {RESIZING[task]!r}")
    if resize.get("filter") not in FILTERS or not resize.get("antialias", True):
        raise ValueError(f"{beside}: resize.filter {resize.get('filter')!r}; the connector knows antialiased {', '.join(FILTERS)}")
    crop = resize.get("crop")
    wanted = resize.get("size") if crop is None else [crop, crop]
    if wanted != list(size) or (task == "detection" and size[0] != size[1]) or (crop is not None and "shorter_side" not in resize):
        raise ValueError(f"{beside}: resize ends at {wanted} (H, W), but {path.name} takes {list(size)}")
    if resize.get("align", "top-left") != "top-left":
        raise ValueError(f"{beside}: resize.align {resize['align']!r}; the connector knows 'top-left'")
    return resize


def _class_names(card: Mapping[str, Any], path: Path) -> list[str]:
    """From the text file that the card names, one name a line, or the card's list."""
    classes = card.get("classes") or {}
    names = classes.get("names") if isinstance(classes, dict) else classes
    if isinstance(names, str):
        file = path.parent / names
        if not file.is_file():
            raise FileNotFoundError(f"{path.with_suffix('.json')} names its classes in {names}, which is not there")
        names = file.read_text(encoding="utf-8").splitlines()
    if not names:
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


def _checked(name: str, what: str, values: Any, shape: tuple[int, ...]) -> Array:
    """An answer as floating-point numbers; -1 in the shape stands for any size but 0."""
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    fits = array.ndim == len(shape) and all(
        size == wanted or (wanted == -1 and size) for size, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiub":
        wanted = ", ".join("D" if size == -1 else str(size) for size in shape)
        raise RecogniserError(f"{name} returned {what} of shape {array.shape} and type {array.dtype}; expected numbers of shape ({wanted})")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} returned {what} that are not finite (NaN or infinity)")
    return array.astype(np.float32 if array.dtype == np.float32 else np.float64)


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        needing = "" if missing == name.partition(".")[0] else f", which {name} needs,"
        raise ValueError(f"{missing}{needing} is not installed; install it with: pip install {missing}") from None
    except Exception as error:  # torchvision raises RuntimeError where its build and torch's do not fit
        raise ValueError(f"{name} is installed but cannot be imported here ({first_line(error)})") from None


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image)


def _timm(name: str, task: Task) -> Classifier | Detector | Embedder:
    """timm's model with its own preprocessing; in re-identification its features before the classifier."""
    if task == "detection":
        raise ValueError(f"timm:{name} is no detector; timm has classifiers and features only")
    timm = _package("timm")
    data = _package("timm.data")
    model = timm.create_model(name, pretrained=True, **({"num_classes": 0} if task == "reid" else {})).eval()
    transform = data.create_transform(**data.resolve_model_data_config(model), is_training=False)

    def run(images: Sequence[Pixels]) -> Any:
        with torch.no_grad():
            return model(torch.stack([transform(_picture(image)) for image in images]))

    facts = {"source": f"timm {timm.__version__}, {name}", "licence": str(model.pretrained_cfg.get("license", ""))}
    facts = {key: value for key, value in facts.items() if value}
    if task == "reid":
        return Embedder(f"timm:{name}", facts, run)
    subset = data.infer_imagenet_subset(model)
    if subset is None:
        raise ValueError(f"timm:{name} does not say its classes; give a `module:function` that runs it, with `classes`")
    return Classifier(f"timm:{name}", facts, data.ImageNetInfo(subset).label_descriptions(), run)


def _torchvision(name: str, task: Task) -> Classifier | Detector | Embedder:
    """torchvision's model with its best weights and their own preprocessing."""
    if task == "reid":
        raise ValueError(f"torchvision:{name} does not embed persons; give FILE.onnx or module:function")
    torchvision = _package("torchvision")
    models = _package("torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    model = models.get_model(name, weights=weights).eval()
    transform = weights.transforms()
    facts = {"source": f"torchvision {torchvision.__version__}, {weights}"}
    classes = list(weights.meta["categories"])

    def classify(images: Sequence[Pixels]) -> Any:
        with torch.no_grad():
            return model(torch.stack([transform(_picture(image)) for image in images]))

    def detect(image: Pixels) -> Any:
        with torch.no_grad():
            found = model([transform(_picture(image))])[0]
        return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()

    if task == "detection":
        return Detector(f"torchvision:{name}", facts, classes, detect)
    return Classifier(f"torchvision:{name}", facts, classes, classify)


def _transformers(name: str, task: Task) -> Classifier | Detector | Embedder:
    """A model of the Hugging Face hub, or a folder of one, with its own preprocessing; in re-identification its pooled output."""
    transformers = _package("transformers")
    kinds = {"classification": "AutoModelForImageClassification", "detection": "AutoModelForObjectDetection", "reid": "AutoModel"}
    processor = transformers.AutoImageProcessor.from_pretrained(name)
    model, loaded = getattr(transformers, kinds[task]).from_pretrained(name, output_loading_info=True)
    model.eval()
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ValueError(f"transformers:{name} holds no weights for {missing[0]} ({len(missing)} missing): it was not trained for {task}")
    facts = {"source": f"transformers {transformers.__version__}, {name}"}
    spec = f"transformers:{name}"

    def outputs(images: Sequence[Pixels]) -> Any:
        with torch.no_grad():
            return model(**processor(images=[_picture(image) for image in images], return_tensors="pt"))

    def embed(images: Sequence[Pixels]) -> Any:
        pooled = getattr(outputs(images), "pooler_output", None)
        if pooled is None:
            raise RecogniserError(f"{spec} has no pooled output; give a `module:function` that runs it")
        return pooled.flatten(1)

    def detect(image: Pixels) -> Any:
        (found,) = processor.post_process_object_detection(outputs([image]), threshold=LEAST_SCORE, target_sizes=[image.shape[:2]])
        return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()

    if task == "reid":
        return Embedder(spec, facts, embed)
    classes = [str(model.config.id2label[i]) for i in range(len(model.config.id2label))]
    if task == "detection":
        return Detector(spec, facts, classes, detect)
    return Classifier(spec, facts, classes, lambda images: outputs(images).logits)


PACKAGES: Mapping[str, Callable[[str, Task], Classifier | Detector | Embedder]] = {
    "timm": _timm,
    "torchvision": _torchvision,
    "transformers": _transformers,
}
