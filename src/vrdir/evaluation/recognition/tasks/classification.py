"""Classification of images: top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import DataError, RecogniserError
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.image_files import Exclusion, nothing_left
from vrdir.evaluation.recognition.labels.classes import class_numbers
from vrdir.evaluation.recognition.labels.classification import read_classification
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.recognisers.contracts import Classifier
from vrdir.evaluation.recognition.recognisers.onnx_network import OnnxNetwork
from vrdir.evaluation.recognition.recognisers.packages import (
    class_names,
    import_package,
    load_timm,
    load_torchvision,
    load_transformers,
)
from vrdir.evaluation.recognition.scoring import Description, Scores, score_samples
from vrdir.evaluation.recognition.statistics import Resampling
from vrdir.evaluation.recognition.task import RecognitionTask, classes_of
from vrdir.evaluation.user_functions import Pixels

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.protocol import Answers
    from vrdir.evaluation.recognition.variants import Variant


class ClassRanking(NamedTuple):
    """The answer of a classifier.

    Attributes:
        likeliest: the number of the likeliest class.
        confidence: its probability, 0 to 1.
        place: the place of the right class among all, the likeliest first, from 0.
    """

    likeliest: int
    confidence: float
    place: int


class Classification(RecognitionTask[int, Classifier, ClassRanking]):
    """Classification of images.

    The functions of the metrics take the places of the right classes, from 0, (images,), and
    return whether each image counts as right. Tests are exact McNemar tests.
    """

    name = "classification"
    title = "classification"
    help = "Measure top-1 and top-5 accuracy of classifiers on clean, degraded and restored images."
    data_help = (
        "A folder with a folder per class; or a CSV file with the columns file and label. "
        "A label is a class's name or number."
    )
    metrics = (
        Metric(
            "top1",
            "Top-1",
            1,
            "share of images whose likeliest class is the right one",
            lambda places: places < 1,
            unit="%",
        ),
        Metric(
            "top5",
            "Top-5",
            1,
            "share of images whose right class is among the five likeliest",
            lambda places: places < 5,
            unit="%",
        ),
    )
    onnx_outputs: ClassVar[Mapping[str, int]] = {"logits": 2}
    onnx_resizing = "shorter_side_centre_crop"

    def read(self, path: Path, images: Path | None = None) -> LabelledImages[str]:
        """Read images labelled with a class; see `read_classification`."""
        return read_classification(path, images)

    def match_labels(
        self, data: LabelledImages[str], recogniser: Classifier
    ) -> LabelledImages[int]:
        """Return the data with class numbers; labels that are not classes are excluded."""
        numbers, problems = class_numbers(data.labels, recogniser.classes)
        pairs = list(zip(data.images, data.labels, strict=True))
        known = [(image, numbers[label]) for image, label in pairs if label in numbers]
        excluded = [
            *data.excluded,
            *(
                Exclusion(image.name, problems[label])
                for image, label in pairs
                if label in problems
            ),
        ]
        if not known:
            raise DataError(nothing_left(excluded))
        images, labels = zip(*known, strict=True)
        return LabelledImages(images, labels, excluded, data.set_aside)

    def from_function(self, spec: str, function: Callable[..., Any]) -> Classifier:
        """Return a classifier that calls a function: list of B images -> scores (B, C)."""
        return Classifier(spec, {"source": spec}, classes_of(spec, function), function)

    def from_onnx(self, network: OnnxNetwork) -> Classifier:
        """Return a classifier that runs an ONNX file.

        Raises:
            RecogniserError: the card names another number of classes than there are logits.
        """
        classes = network.class_names()
        count = network.output_shape("logits")[1]
        if isinstance(count, int) and count != len(classes):
            raise RecogniserError(
                f"{network.path} has {count} classes, but its card names {len(classes)}"
            )
        return Classifier(network.name, network.facts, classes, network.run_batch)

    def packages(self) -> Mapping[str, Callable[[str], Classifier]]:
        """Return package -> a function that loads one of its classifiers."""
        return {
            "timm": _from_timm,
            "torchvision": _from_torchvision,
            "transformers": _from_transformers,
        }

    def call(self, recogniser: Classifier, image: Pixels) -> NDArray[Any]:
        """Return the scores of one image, (C,)."""
        scores: NDArray[Any] = recogniser([image])[0]
        return scores

    def keep(self, output: NDArray[Any], label: int) -> ClassRanking:
        """Return the likeliest class and the place of the right one."""
        return rank_classes(output, label)

    def score(
        self,
        recogniser: Classifier,
        labels: Sequence[int],
        answers: Answers[ClassRanking],
        resampling: Resampling,
    ) -> Scores:
        """Return accuracies, except for metrics that accept any answer: top-5 of 5 classes."""
        main, *others = self.metrics
        last_place = np.array([len(recogniser.classes) - 1])
        metrics = [main, *(one for one in others if not one.function(last_place).all())]
        places = {
            variant: np.array([answer.place for answer in by_image])
            for variant, by_image in answers.by_variant.items()
        }

        def describe(variant: Variant, index: int) -> Description:
            answer = answers.by_variant[variant][index]
            name = recogniser.classes[answer.likeliest]
            return Description(f"{name} {100 * answer.confidence:.0f} %")

        return score_samples(
            metrics,
            places,
            resampling,
            images=answers.images,
            excluded=answers.excluded,
            data=f"{len(labels)} images of {len(set(labels))} classes",
            describe=describe,
            truth=lambda index: recogniser.classes[labels[index]],
        )


def rank_classes(scores: NDArray[Any], label: int) -> ClassRanking:
    """Return the likeliest class by scores (C,), and the place of the right one; ties in order.

    Scores that are not probabilities are treated as logits.
    """
    order = np.argsort(-scores, kind="stable")
    best = scores[order[0]]
    is_probability = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3
    confidence = best if is_probability else 1 / np.exp(scores - best).sum()
    place = int(np.flatnonzero(order == label)[0])
    return ClassRanking(int(order[0]), float(confidence), place)


def _from_timm(name: str) -> Classifier:
    loaded = load_timm(name)
    data = import_package("timm.data")
    subset = data.infer_imagenet_subset(loaded.model)
    if subset is None:
        raise RecogniserError(
            f"{loaded.name} has no class names; use a `module:function` that runs it, with "
            "`classes`"
        )
    classes = data.ImageNetInfo(subset).label_descriptions()
    return Classifier(loaded.name, loaded.facts, classes, loaded.run)


def _from_torchvision(name: str) -> Classifier:
    loaded = load_torchvision(name)
    return Classifier(loaded.name, loaded.facts, class_names(loaded), loaded.run)


def _from_transformers(name: str) -> Classifier:
    loaded = load_transformers(name, "AutoModelForImageClassification", "classification")

    def run(images: Sequence[Pixels]) -> Any:
        return loaded.run(images).logits

    return Classifier(loaded.name, loaded.facts, class_names(loaded), run)
