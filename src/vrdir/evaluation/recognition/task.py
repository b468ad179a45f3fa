"""A recognition task: the class that every file in `tasks/` derives from."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from vrdir.errors import RecogniserError
from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.image_files import ImageFile
from vrdir.evaluation.recognition.labels.labelled import LabelledImages
from vrdir.evaluation.recognition.recognisers.onnx_network import OnnxNetwork, open_onnx
from vrdir.evaluation.recognition.scoring import Scores
from vrdir.evaluation.recognition.statistics import Resampling
from vrdir.evaluation.user_functions import Pixels, load_function

if TYPE_CHECKING:  # they import torch, which `--help` need not wait for
    from vrdir.evaluation.recognition.conditions import Condition
    from vrdir.evaluation.recognition.protocol import AnswerImage, AnswerImages, Answers
    from vrdir.evaluation.recognition.restorers import RestoreImage
    from vrdir.evaluation.recognition.results import RecognitionResult
    from vrdir.restoring.restorer import Restorer

Label = TypeVar("Label")
Recogniser = TypeVar("Recogniser", bound="NamedRecogniser")
Answer = TypeVar("Answer")


class NamedRecogniser(Protocol):
    """Properties of every recogniser: a name for reports, and facts such as its licence."""

    @property
    def name(self) -> str:
        """The name in reports."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Licence, source and the like, where known."""


PACKAGES = ("timm", "torchvision", "transformers")


class RecognitionTask(ABC, Generic[Label, Recogniser, Answer]):
    """A recognition task: reads labels, loads and calls recognisers, scores their answers.

    A task is one file in `vrdir.evaluation.recognition.tasks`, named as its command, with one
    subclass of this class. `vrdir evaluate NAME` and its help are made from it. Import torch and
    other packages that take long inside methods, so that `--help` does not wait for them.

    Type parameters: `Label`, the label of an image as numbers of the recogniser; `Recogniser`, what
    is evaluated; `Answer`, what is kept of its output for one image.

    Attributes:
        name: the command's name and `task` in the cards of ONNX files, such as "reid".
        title: the name in headings, such as "re-identification".
        help: one sentence for `--help`: what is measured, such as "Measure ...".
        data_help: one or two sentences for `--help`: what `--data` accepts.
        metrics: the metrics, the main one first. Verdicts use the main one.
        unit: what is counted in figures, such as "images" or "queries".
        limit_unit: what `--limit` counts, and in which order.
        large_pictures: whether a page shows the pictures of an example over its whole width.
        onnx_outputs: name -> number of dimensions of the outputs that an ONNX file must have;
            empty for a task that does not support ONNX files.
        onnx_resizing: the `resize.mode` that the card of an ONNX file must have.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str]
    data_help: ClassVar[str]
    metrics: ClassVar[Sequence[Metric[Any]]]
    unit: ClassVar[str] = "images"
    limit_unit: ClassVar[str] = "images by name"
    large_pictures: ClassVar[bool] = False
    onnx_outputs: ClassVar[Mapping[str, int]] = {}
    onnx_resizing: ClassVar[str] = "stretch"

    @abstractmethod
    def read(self, path: Path, images: Path | None = None) -> LabelledImages[Any]:
        """Read the labelled images of `--data`.

        Args:
            path: the data set.
            images: the folder of the images, if they are not in the folder of the labels.

        Raises:
            MissingFileError: there is no such data set.
            DataError: it cannot be used.
        """

    def match_labels(
        self, data: LabelledImages[Any], recogniser: Recogniser
    ) -> LabelledImages[Label]:
        """Return the data with labels as the recogniser's numbers; by default unchanged.

        What the recogniser does not know is excluded by name.

        Raises:
            DataError: nothing is left.
        """
        return data

    @abstractmethod
    def from_function(self, spec: str, function: Callable[..., Any]) -> Recogniser:
        """Return a recogniser that calls a function of the user, given as `module:function`."""

    def from_onnx(self, network: OnnxNetwork) -> Recogniser:
        """Return a recogniser that runs an ONNX file; needed if there are `onnx_outputs`."""
        raise NotImplementedError

    def packages(self) -> Mapping[str, Callable[[str], Recogniser]]:
        """Return package -> a function that loads one of its models by name."""
        return {}

    @abstractmethod
    def call(self, recogniser: Recogniser, image: Pixels) -> Any:
        """Return the recogniser's output for one image.

        Raises:
            RecogniserError: the output breaks the task's contract.
        """

    def keep(self, output: Any, label: Label) -> Answer:
        """Return what is kept of an output, by default all of it.

        It should be small, as it is kept for all images.
        """
        kept: Answer = output
        return kept

    @abstractmethod
    def score(
        self,
        recogniser: Recogniser,
        labels: Sequence[Label],
        answers: Answers[Answer],
        resampling: Resampling,
    ) -> Scores:
        """Return the scores of all answers.

        Args:
            recogniser: gave the answers.
            labels: of the images in `answers`.
            answers: to every variant of every image.
            resampling: of intervals and tests.

        Raises:
            DataError: nothing can be measured.
        """

    def check_packages(self) -> None:
        """Import the packages that scoring needs, so that a missing one is reported early.

        Raises:
            MissingPackageError: one is not installed.
        """

    def limit_key(self, image: ImageFile, label: Any) -> Any:
        """Return what `--limit` counts of an image; None to leave the image out."""
        return image.name

    def limit(
        self, data: LabelledImages[Any], count: int | None
    ) -> tuple[LabelledImages[Any], str]:
        """Return the first part of the data, and a note on it for reports; "" if it is all.

        Args:
            data: from `read`.
            count: how many of `limit_unit`; None for all.
        """
        if count is None:
            return data, ""
        part, total = data.first(count, self.limit_key)
        note = f"the first {count} of {total} {self.limit_unit}" if total > count else ""
        return part, note

    def load(self, spec: str) -> Recogniser:
        """Load a recogniser.

        Args:
            spec: FILE.onnx, with its card FILE.json beside it; `module:function`; or
                `timm:NAME`, `torchvision:NAME`, `transformers:NAME`, for which the package must be
                installed (weights that are not there are downloaded).

        Raises:
            MissingFileError: there is no such file, or no card beside it.
            RecogniserError: file, card, model or function do not follow the task's contract.
            MissingPackageError: a package is not installed.
        """
        if spec.lower().endswith(".onnx"):
            if not self.onnx_outputs:
                raise RecogniserError(f"{spec}: ONNX files cannot be used for {self.title}")
            network = open_onnx(Path(spec), self.name, self.onnx_outputs, self.onnx_resizing)
            return self.from_onnx(network)
        origin, colon, name = spec.partition(":")
        if not colon:
            names = ", ".join(f"{package}:NAME" for package in PACKAGES)
            raise RecogniserError(
                f"{spec!r} is not a recogniser; use FILE.onnx, module:function, {names}"
            )
        if origin not in PACKAGES:
            return self.from_function(spec, load_function(spec))
        if origin not in self.packages():
            raise RecogniserError(
                f"{spec}: models of {origin} cannot be used for {self.title}; use FILE.onnx or "
                "module:function"
            )
        return self.packages()[origin](name)

    def evaluate(
        self,
        data: LabelledImages[Any],
        recogniser: Recogniser,
        conditions: Sequence[Condition],
        restorers: Mapping[str, RestoreImage | Restorer],
        *,
        seed: int = 0,
        bootstrap: int = 1000,
        progress: Callable[[str], None] | None = None,
        answer: AnswerImages[Answer] | None = None,
    ) -> RecognitionResult:
        """Measure a recogniser on clean, degraded and restored images.

        Args:
            data: from `read`.
            recogniser: from `load`.
            conditions: how images are degraded; or `AsTaken` alone.
            restorers: by name.
            seed: the seed of the synthesis and of the resamples.
            bootstrap: how many resamples the intervals and the randomisation tests use.
            progress: called with the name of each image when it is done.
            answer: calls `answer_image` for all images elsewhere; by default it is done here.

        Returns:
            Figures over the images that could be measured in every variant.

        Raises:
            DataError: nothing can be measured.
            RecogniserError: the recogniser breaks its contract.
            MissingPackageError: a package is not installed.
        """
        from vrdir.evaluation.recognition.protocol import collect_answers
        from vrdir.evaluation.recognition.results import Comparison
        from vrdir.evaluation.recognition.variants import Variants

        self.check_packages()
        known = self.match_labels(data, recogniser)
        variants = Variants(conditions, restorers, seed)
        labels = _labels_by_name(known)
        answers = collect_answers(
            known.images,
            variants,
            self._recognise(known, recogniser),
            known.excluded,
            known.set_aside,
            progress,
            None if answer is None else answer(known.images),
        )
        answered = [labels[image.name] for image in answers.images]
        scores = self.score(recogniser, answered, answers, Resampling(bootstrap, seed))
        return Comparison(variants, scores).result(
            task=self.name,
            title=self.title,
            unit=self.unit,
            large_pictures=self.large_pictures,
            recogniser=recogniser.name,
            facts={**recogniser.facts, "data": scores.data},
        )

    def answer_image(
        self,
        data: LabelledImages[Any],
        recogniser: Recogniser,
        conditions: Sequence[Condition],
        restorers: Mapping[str, RestoreImage | Restorer],
        seed: int = 0,
    ) -> AnswerImage[Answer]:
        """Return the function of one image by which `evaluate` measures a recogniser.

        The arguments are those of `evaluate`.
        """
        from vrdir.evaluation.recognition.protocol import answer_image
        from vrdir.evaluation.recognition.variants import Variants

        known = self.match_labels(data, recogniser)
        return partial(
            answer_image,
            variants=Variants(conditions, restorers, seed),
            recognise=self._recognise(known, recogniser),
        )

    def _recognise(
        self, known: LabelledImages[Label], recogniser: Recogniser
    ) -> Callable[[ImageFile, Pixels], Answer]:
        labels = _labels_by_name(known)
        return lambda image, pixels: self.keep(self.call(recogniser, pixels), labels[image.name])


def _labels_by_name(data: LabelledImages[Label]) -> dict[str, Label]:
    return dict(zip((image.name for image in data.images), data.labels, strict=True))


def classes_of(spec: str, function: Callable[..., Any]) -> Sequence[str]:
    """Return the class names of a function of the user.

    They are in its attribute `classes`, or in its module's `CLASSES`.

    Args:
        spec: the function as `module:function`.
        function: the function.

    Raises:
        RecogniserError: neither is a list of names.
    """
    module = sys.modules[spec.partition(":")[0]]
    classes = getattr(function, "classes", None) or getattr(module, "CLASSES", None)
    is_text = isinstance(classes, str)
    if not classes or is_text or not all(isinstance(name, str) for name in classes):
        raise RecogniserError(
            f"{spec} has no class names; add a list of names as the function's attribute `classes` "
            "or as CLASSES in its module"
        )
    return classes
