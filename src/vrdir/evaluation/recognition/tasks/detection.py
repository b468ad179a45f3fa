"""Detection of objects: mean average precision as COCO defines it."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vrdir.errors import DataError
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.average_precision import (
    average_precisions,
    coco_package,
    rank_detections,
    resampled_precisions,
)
from vrdir.evaluation.recognition.box_matching import Matches, Objects, keep_classes, match
from vrdir.evaluation.recognition.image_files import Exclusion, nothing_left
from vrdir.evaluation.recognition.labels.boxes import Truth
from vrdir.evaluation.recognition.labels.classes import class_numbers
from vrdir.evaluation.recognition.labels.detection import read_detection
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.recognisers.contracts import Detections, Detector
from vrdir.evaluation.recognition.recognisers.onnx_network import OnnxNetwork
from vrdir.evaluation.recognition.recognisers.packages import (
    LEAST_SCORE,
    class_names,
    load_torchvision,
    load_transformers,
)
from vrdir.evaluation.recognition.scoring import Description, Scores
from vrdir.evaluation.recognition.statistics import (
    Figure,
    Resampling,
    bootstrap_weights,
    random_swaps,
    randomisation_p_value,
)
from vrdir.evaluation.recognition.task import RecognitionTask, classes_of
from vrdir.evaluation.user_functions import Pixels

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.protocol import Answers
    from vrdir.evaluation.recognition.variants import Variant

SHOWN_SCORE = 0.3
"""Detections from this score on are shown, and counted for choosing examples."""


class ImageObjects(NamedTuple):
    """The label of an image.

    Attributes:
        objects: its objects.
        classes: (C,), the classes that any image of the data set has.
    """

    objects: Objects
    classes: NDArray[Any]


class Found(NamedTuple):
    """A detector's output for the classes that the data set has, and which of it is right."""

    detections: Detections
    matches: Matches


class Detection(RecognitionTask[ImageObjects, Detector, Found]):
    """Detection of objects.

    The functions of the metrics take average precisions in [0, 1] at ten thresholds of
    intersection over union, 0.5 to 0.95, (R, 10), and return one value per row. Tests are by
    randomisation: the two answers to each image are swapped at random. An image is an example of
    an improvement if its F1 rose (at a threshold of 0.5, scores from 0.3).
    """

    name = "detection"
    title = "detection"
    help = "Measure mean average precision of detectors on clean, degraded and restored images."
    data_help = "A COCO JSON file; or a folder with YOLO text or VOC XML files next to its "
    "images, or in labels/ next to images/."
    metrics = (
        Metric(
            "map",
            "mAP",
            1,
            "mean over the classes of average precision, "
            "mean of the IoU thresholds .5 to .95 in steps of .05 (COCO)",
            lambda precisions: precisions.mean(1),
            unit="%",
        ),
        Metric(
            "map50",
            "mAP@.5",
            1,
            "mean over the classes of average precision, at an IoU of .5",
            lambda precisions: precisions[:, 0],
            unit="%",
        ),
    )
    large_pictures = True
    onnx_outputs: ClassVar[Mapping[str, int]] = {"boxes": 2, "scores": 1, "labels": 1}
    onnx_resizing = "letterbox"

    def check_packages(self) -> None:
        """Import faster-coco-eval."""
        coco_package()

    def read(self, path: Path, images: Path | None = None) -> LabelledImages[Truth]:
        """Read images labelled with boxes; see `read_detection`."""
        return read_detection(path, images)

    def match_labels(
        self, data: LabelledImages[Truth], recogniser: Detector
    ) -> LabelledImages[ImageObjects]:
        """Return the data with class numbers; classes that the detector lacks are excluded.

        Raises:
            DataError: no object is left.
        """
        counts = Counter(label for truth in data.labels for label in truth.labels)
        numbers, problems = class_numbers(counts, recogniser.classes)
        excluded = [
            *data.excluded,
            *(
                Exclusion(f"class {label} ({counts[label]} boxes)", problem)
                for label, problem in problems.items()
            ),
        ]
        objects = [_objects(truth, numbers) for truth in data.labels]
        if not any(one.wanted for one in objects):
            raise DataError(f"no labelled object is left; {nothing_left(excluded)}")
        classes = np.unique(np.concatenate([one.labels for one in objects]))
        labels = [ImageObjects(one, classes) for one in objects]
        return LabelledImages(data.images, labels, excluded, data.set_aside)

    def from_function(self, spec: str, function: Callable[..., Any]) -> Detector:
        """Return a detector that calls a function: image -> boxes, scores, labels."""
        return Detector(spec, {"source": spec}, classes_of(spec, function), function)

    def from_onnx(self, network: OnnxNetwork) -> Detector:
        """Return a detector that runs an ONNX file; its boxes are scaled to the image's pixels."""

        def run(image: Pixels) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
            (boxes, scores, labels), scale = network.run_scaled(image)
            return boxes / np.float64(scale), scores, labels

        return Detector(network.name, network.facts, network.class_names(), run)

    def packages(self) -> Mapping[str, Callable[[str], Detector]]:
        """Return package -> a function that loads one of its detectors."""
        return {"torchvision": _from_torchvision, "transformers": _from_transformers}

    def call(self, recogniser: Detector, image: Pixels) -> Detections:
        """Return the objects that the detector finds in an image."""
        return recogniser(image)

    def keep(self, output: Detections, label: ImageObjects) -> Found:
        """Return the detections that count, matched with the objects."""
        detections = keep_classes(output, label.classes)
        return Found(detections, match(detections, label.objects))

    def score(
        self,
        recogniser: Detector,
        labels: Sequence[ImageObjects],
        answers: Answers[Found],
        resampling: Resampling,
    ) -> Scores:
        """Return average precisions.

        Raises:
            DataError: no image that could be measured has an object.
        """
        objects = [label.objects for label in labels]
        number = sum(one.wanted for one in objects)
        if not number:
            raise DataError(
                f"none of the {len(objects)} images that could be measured has an object; "
                f"{nothing_left(answers.excluded)}"
            )
        matches = {
            variant: [one.matches for one in by_image]
            for variant, by_image in answers.by_variant.items()
        }
        classes = recogniser.classes
        return Scores(
            metrics=self.metrics,
            count=len(objects),
            data=f"{len(objects)} images, {number} objects of {len(labels[0].classes)} classes",
            excluded=answers.excluded,
            figures=self._figures(answers, objects, resampling),
            p_value=self._tests(matches, objects, resampling),
            images=answers.images,
            quality={
                variant: [f1(one, truth) for one, truth in zip(by_image, objects, strict=True)]
                for variant, by_image in matches.items()
            },
            describe=lambda variant, index: _describe(
                answers.by_variant[variant][index], objects[index], classes
            ),
            truth=lambda index: _names(objects[index], classes),
        )

    def _figures(
        self, answers: Answers[Found], objects: Sequence[Objects], resampling: Resampling
    ) -> dict[Variant, dict[str, Figure]]:
        weights = bootstrap_weights(len(objects), resampling)
        figures = {}
        for variant, by_image in answers.by_variant.items():
            whole, resampled = resampled_precisions(
                [one.detections for one in by_image],
                [one.matches for one in by_image],
                objects,
                weights,
            )
            figures[variant] = {
                metric.key: Figure(
                    100 * float(metric.function(whole[None])[0]), 100 * metric.function(resampled)
                )
                for metric in self.metrics
            }
        return figures

    def _tests(
        self,
        matches: Mapping[Variant, Sequence[Matches]],
        objects: Sequence[Objects],
        resampling: Resampling,
    ) -> Callable[[str, Variant, Variant], float]:
        swaps = random_swaps(len(objects), resampling)

        @functools.cache
        def p_values(before: Variant, after: Variant) -> dict[str, float]:
            return swap_test(self.metrics, matches[before], matches[after], objects, swaps)

        return lambda metric, before, after: p_values(before, after)[metric]


def _objects(truth: Truth, numbers: Mapping[str, int]) -> Objects:
    """Return the objects of an image whose classes have numbers."""
    known = np.array([label in numbers for label in truth.labels], bool)
    labels = np.array([numbers[label] for label in truth.labels if label in numbers], np.int64)
    return Objects(truth.boxes[known], labels, truth.ignored[known])


def swap_test(
    metrics: Sequence[Metric[Callable[[NDArray[Any]], NDArray[Any]]]],
    before: Sequence[Matches],
    after: Sequence[Matches],
    objects: Sequence[Objects],
    swaps: NDArray[np.bool_],
) -> dict[str, float]:
    """Return metric -> two-sided p-value of after against before (Noreen 1989).

    The two answers to each image are swapped at random.

    Args:
        metrics: as of `Detection`.
        before: of each image.
        after: of each image.
        objects: of each image.
        swaps: (R, images), from `random_swaps`.
    """
    both = rank_detections([*before, *after], [*objects, *objects])
    unswapped = np.zeros((1, len(objects)), bool)
    swapped = np.concatenate([unswapped, swaps])  # the observed difference first
    first, second = (
        average_precisions(both, np.concatenate(halves, 1))
        for halves in ((~swapped, swapped), (swapped, ~swapped))
    )
    differences = {
        metric.key: metric.function(second) - metric.function(first) for metric in metrics
    }
    return {
        key: randomisation_p_value(float(values[0]), values[1:])
        for key, values in differences.items()
    }


def f1(matches: Matches, objects: Objects) -> float:
    """Return the harmonic mean of precision and recall in one image.

    It is taken at an IoU of .5 and scores from 0.3, and 1 if nothing is there and nothing found.
    """
    right, false = _counts(matches)
    total = right + false + objects.wanted
    return 2 * right / total if total else 1.0


def _counts(matches: Matches) -> tuple[int, int]:
    """Return how many of the shown detections are right, and how many are false."""
    shown = matches.scores >= SHOWN_SCORE
    right, ignored = matches.right[0], matches.ignored[0]
    return int((shown & right).sum()), int((shown & ~right & ~ignored).sum())


def _describe(found: Found, objects: Objects, classes: Sequence[str]) -> Description:
    right, false = _counts(found.matches)
    shown = [
        (float(x0), float(y0), float(x1), float(y1), f"{classes[label]} {100 * score:.0f} %")
        for (x0, y0, x1, y1), score, label in zip(*found.detections, strict=True)
        if score >= SHOWN_SCORE
    ]
    return Description(f"{right} of {objects.wanted} found, {false} false", shown)


def _names(objects: Objects, classes: Sequence[str]) -> str:
    """Return the objects that should be found as text, such as "2 car, 1 person"."""
    counts = Counter(classes[label] for label in objects.labels[~objects.ignored])
    return ", ".join(f"{count} {name}" for name, count in counts.most_common()) or "no object"


def _from_torchvision(name: str) -> Detector:
    loaded = load_torchvision(name)
    # Detectors of one stage, and of two.
    for part in (loaded.model, getattr(loaded.model, "roi_heads", loaded.model)):
        if hasattr(part, "score_thresh"):
            part.score_thresh = LEAST_SCORE

    def run(image: Pixels) -> Any:
        found = loaded.run_list(image)
        return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()

    return Detector(loaded.name, loaded.facts, class_names(loaded), run)


def _from_transformers(name: str) -> Detector:
    loaded = load_transformers(name, "AutoModelForObjectDetection", "detection")

    def run(image: Pixels) -> Any:
        (found,) = loaded.processor.post_process_object_detection(
            loaded.run([image]), threshold=LEAST_SCORE, target_sizes=[image.shape[:2]]
        )
        return found["boxes"].numpy(), found["scores"].numpy(), found["labels"].numpy()

    return Detector(loaded.name, loaded.facts, class_names(loaded), run)
