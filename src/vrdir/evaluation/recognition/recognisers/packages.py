"""Recognisers from timm, torchvision and transformers, with their own preprocessing."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from PIL import Image

from vrdir.errors import RecogniserError, first_line
from vrdir.evaluation.recognition.recognisers.contracts import Classifier, Detector, Embedder, Task
from vrdir.evaluation.recognition.variants import Pixels

LEAST_SCORE = 0.01  # of boxes asked from torchvision and transformers: a precision-recall curve needs the doubtful ones too


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        needing = "" if missing == name.partition(".")[0] else f", which {name} needs,"
        raise ValueError(
            f"{missing}{needing} is not installed; install it with: pip install {missing}"
        ) from None
    except (
        Exception
    ) as error:  # torchvision raises RuntimeError where its build and torch's do not fit
        raise ValueError(
            f"{name} is installed but cannot be imported here ({first_line(error)})"
        ) from None


@contextmanager
def _loading(spec: str) -> Iterator[None]:
    """Turn whatever a package raises on the way to a model (no such name, no such folder, no network) into a ValueError that names it."""
    try:
        yield
    except Exception as error:
        raise ValueError(
            f"{spec} cannot be loaded ({first_line(error)}); give the name of a model that the package has"
        ) from None


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image)


def _timm(name: str, task: Task) -> Classifier | Detector | Embedder:
    """timm's model with its own preprocessing; in re-identification its features before the classifier."""
    if task == "detection":
        raise ValueError(f"timm:{name} is no detector; timm has classifiers and features only")
    timm = _package("timm")
    data = _package("timm.data")
    with _loading(f"timm:{name}"):
        model = timm.create_model(
            name, pretrained=True, **({"num_classes": 0} if task == "reid" else {})
        ).eval()
        transform = data.create_transform(
            **data.resolve_model_data_config(model), is_training=False
        )

    def run(images: Sequence[Pixels]) -> Any:
        with torch.no_grad():
            return model(torch.stack([transform(_picture(image)) for image in images]))

    facts = {
        "source": f"timm {timm.__version__}, {name}",
        "licence": str(model.pretrained_cfg.get("license", "")),
    }
    facts = {key: value for key, value in facts.items() if value}
    if task == "reid":
        return Embedder(f"timm:{name}", facts, run)
    subset = data.infer_imagenet_subset(model)
    if subset is None:
        raise ValueError(
            f"timm:{name} does not say its classes; give a `module:function` that runs it, with `classes`"
        )
    return Classifier(f"timm:{name}", facts, data.ImageNetInfo(subset).label_descriptions(), run)


def _torchvision(name: str, task: Task) -> Classifier | Detector | Embedder:
    """torchvision's model with its best weights and their own preprocessing."""
    if task == "reid":
        raise ValueError(
            f"torchvision:{name} does not embed persons; give FILE.onnx or module:function"
        )
    torchvision = _package("torchvision")
    models = _package("torchvision.models")
    with _loading(f"torchvision:{name}"):
        weights = models.get_model_weights(name).DEFAULT
        model = models.get_model(name, weights=weights).eval()
        transform, classes = weights.transforms(), list(weights.meta["categories"])
    for part in (
        model,
        getattr(model, "roi_heads", model),
    ):  # of detectors of one stage, and of two
        if hasattr(part, "score_thresh"):
            part.score_thresh = LEAST_SCORE
    facts = {"source": f"torchvision {torchvision.__version__}, {weights}"}

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
    kinds = {
        "classification": "AutoModelForImageClassification",
        "detection": "AutoModelForObjectDetection",
        "reid": "AutoModel",
    }
    with _loading(f"transformers:{name}"):
        processor = transformers.AutoImageProcessor.from_pretrained(name)
        model, loaded = getattr(transformers, kinds[task]).from_pretrained(
            name, output_loading_info=True
        )
    model.eval()
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise ValueError(
            f"transformers:{name} holds no weights for {missing[0]} ({len(missing)} missing): it was not trained for {task}"
        )
    facts = {"source": f"transformers {transformers.__version__}, {name}"}
    spec = f"transformers:{name}"

    def outputs(images: Sequence[Pixels]) -> Any:
        with torch.no_grad():
            return model(
                **processor(images=[_picture(image) for image in images], return_tensors="pt")
            )

    def embed(images: Sequence[Pixels]) -> Any:
        pooled = getattr(outputs(images), "pooler_output", None)
        if pooled is None:
            raise RecogniserError(
                f"{spec} has no pooled output; give a `module:function` that runs it"
            )
        return pooled.flatten(1)

    def detect(image: Pixels) -> Any:
        (found,) = processor.post_process_object_detection(
            outputs([image]), threshold=LEAST_SCORE, target_sizes=[image.shape[:2]]
        )
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
