"""Models of timm, torchvision and transformers, with their own preprocessing.

Each function loads a model for any task; the tasks wrap it as a recogniser.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vrdir.errors import MissingPackageError, RecogniserError, first_line
from vrdir.evaluation.user_functions import Pixels

LEAST_SCORE = 0.01
"""The score limit of boxes that a detector returns: a precision-recall curve needs the uncertain
ones, too."""


@dataclass(frozen=True)
class PackageModel:
    """A loaded model.

    Attributes:
        name: its name in reports, such as "timm:resnet18".
        facts: source, and licence where known.
        model: the torch module, in evaluation mode.
        transform: makes one image's input tensor; None for transformers.
        processor: the image processor of transformers; None for the others.
        weights: the weights of torchvision; None for the others.
    """

    name: str
    facts: Mapping[str, str]
    model: Any
    transform: Any = None
    processor: Any = None
    weights: Any = None

    def run(self, images: Sequence[Pixels]) -> Any:
        """Return the model's output for a batch of images."""
        import torch

        pictures = [Image.fromarray(image) for image in images]
        with torch.no_grad():
            if self.processor is not None:
                return self.model(**self.processor(images=pictures, return_tensors="pt"))
            return self.model(torch.stack([self.transform(picture) for picture in pictures]))

    def run_list(self, image: Pixels) -> Any:
        """Return the output of a model of torchvision that takes a list of images, for one."""
        import torch

        with torch.no_grad():
            return self.model([self.transform(Image.fromarray(image))])[0]


def load_timm(name: str, **options: Any) -> PackageModel:
    """Load a model of timm.

    Args:
        name: the model's name in timm.
        options: for timm.create_model, such as num_classes=0 for the features.

    Raises:
        MissingPackageError: timm is not installed.
        RecogniserError: timm has no such model, or its weights are not available.
    """
    timm, data = import_package("timm"), import_package("timm.data")
    spec = f"timm:{name}"
    with _loading(spec):
        model = timm.create_model(name, pretrained=True, **options).eval()
        config = data.resolve_model_data_config(model)
        transform = data.create_transform(**config, is_training=False)
    facts = {"source": f"timm {timm.__version__}, {name}"}
    licence = str(model.pretrained_cfg.get("license", ""))
    if licence:
        facts["licence"] = licence
    return PackageModel(spec, facts, model, transform)


def load_torchvision(name: str) -> PackageModel:
    """Load a model of torchvision with its best weights. Raises as `load_timm`."""
    torchvision, models = import_package("torchvision"), import_package("torchvision.models")
    spec = f"torchvision:{name}"
    with _loading(spec):
        weights = models.get_model_weights(name).DEFAULT
        model = models.get_model(name, weights=weights).eval()
        transform = weights.transforms()
    facts = {"source": f"torchvision {torchvision.__version__}, {weights}"}
    return PackageModel(spec, facts, model, transform, weights=weights)


def load_transformers(name: str, kind: str, task: str) -> PackageModel:
    """Load a model of the Hugging Face hub, or a folder of one.

    Args:
        name: the model's name, or the folder.
        kind: the class of transformers, such as "AutoModelForObjectDetection".
        task: the task's name, for errors.

    Raises:
        MissingPackageError: transformers is not installed.
        RecogniserError: there is no such model, or it was not trained for the task.
    """
    transformers = import_package("transformers")
    spec = f"transformers:{name}"
    with _loading(spec):
        processor = transformers.AutoImageProcessor.from_pretrained(name)
        auto = getattr(transformers, kind)
        model, loaded = auto.from_pretrained(name, output_loading_info=True)
    model.eval()
    missing = sorted(loaded["missing_keys"])
    if missing:  # transformers would fill them with random numbers
        raise RecogniserError(
            f"{spec} contains no weights for {missing[0]} ({len(missing)} missing): "
            f"it was not trained for {task}"
        )
    facts = {"source": f"transformers {transformers.__version__}, {name}"}
    return PackageModel(spec, facts, model, processor=processor)


def class_names(loaded: PackageModel) -> list[str]:
    """Return the class names of a model of torchvision or transformers."""
    if loaded.weights is not None:
        return list(loaded.weights.meta["categories"])
    names = loaded.model.config.id2label
    return [str(names[number]) for number in range(len(names))]


def import_package(name: str) -> Any:
    """Import a package, or a module of one.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        needed_by = "" if missing == name.partition(".")[0] else f", which {name} needs,"
        raise MissingPackageError(
            f"{missing}{needed_by} is not installed; install it with: pip install {missing}"
        ) from None
    # torchvision raises RuntimeError if its build and torch's do not fit.
    except Exception as error:
        raise MissingPackageError(
            f"{name} is installed but cannot be imported here ({first_line(error)})"
        ) from None


@contextmanager
def _loading(spec: str) -> Iterator[None]:
    """Convert an exception of a package that cannot load a model into a RecogniserError."""
    try:
        yield
    except Exception as error:  # an unknown name, a missing folder, no internet connection
        raise RecogniserError(
            f"{spec} cannot be loaded ({first_line(error)}); use the name of a model in the package"
        ) from None
