"""The result of evaluating a recogniser, and how it is made from scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.conditions import CLEAN
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile
from vrdir.evaluation.recognition.scoring import Box, Scores
from vrdir.evaluation.recognition.statistics import Estimate, estimate, recovered_share
from vrdir.evaluation.recognition.variants import Variant, Variants

EXAMPLES = 4
"""How many improved and how many worsened images are shown per restorer and condition."""


@dataclass(frozen=True)
class Example:
    """An image whose answer improved or worsened when it was restored.

    Attributes:
        name: the image's name in the data set.
        condition: the condition's name.
        restorer: the restorer's name.
        improved: whether the answer to the restored image is better than to the degraded one.
        pictures: "clean" (if there is one), "degraded", "restored" -> the image (3, H, W) in
            [0, 1], computed when called.
        answers: the same keys -> the recogniser's answer, such as "tabby cat 83 %".
        truth: the right answer.
        boxes: the same keys -> the boxes found; empty in tasks without boxes.
    """

    name: str
    condition: str
    restorer: str
    improved: bool
    pictures: Mapping[str, Callable[[], Tensor]]
    answers: Mapping[str, str]
    truth: str
    boxes: Mapping[str, Sequence[Box]] = field(default_factory=dict)


@dataclass(frozen=True)
class ConditionResult:
    """The result under one condition. Estimates are in per cent with 95 % intervals.

    Attributes:
        name: the condition's name, such as "haze:severity=3".
        synthetic: whether the degraded images were synthesised.
        degraded: metric -> estimate.
        restored: restorer -> metric -> estimate.
        recovered: restorer -> metric -> share of the loss that is recovered, 1 for all of it; None
            if there is no significant loss (see `recovered_share`) or no clean image.
        p_value: restorer -> metric -> two-sided paired test of restored against degraded.
    """

    name: str
    synthetic: bool
    degraded: Mapping[str, Estimate]
    restored: Mapping[str, Mapping[str, Estimate]]
    recovered: Mapping[str, Mapping[str, Estimate | None]]
    p_value: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class RecognitionResult:
    """The result of one recogniser on one data set. Estimates are in per cent, 95 % intervals.

    Attributes:
        task: the task's name, such as "classification".
        recogniser: the recogniser's name.
        facts: licence, sha256 and source where known, and what the data consists of.
        metrics: the metrics, the main one first.
        count: the number of images (or queries) of every figure.
        excluded: what is excluded from all figures.
        clean: metric -> estimate. Empty, like the next two, if there are no clean images.
        clean_restored: restorer -> metric -> estimate: the effect of restoring clean images.
        clean_p_value: restorer -> metric -> two-sided paired test of it against clean.
        conditions: a result per condition.
        examples: a few improved and worsened images per restorer and condition.
        title: the task's name in headings, such as "re-identification".
        unit: what is counted, such as "images" or "queries".
        large_pictures: whether a page shows the pictures of an example over its whole width.
    """

    task: str
    recogniser: str
    facts: Mapping[str, str]
    metrics: Sequence[Metric[Any]]
    count: int
    excluded: Sequence[Exclusion]
    clean: Mapping[str, Estimate]
    clean_restored: Mapping[str, Mapping[str, Estimate]]
    clean_p_value: Mapping[str, Mapping[str, float]]
    conditions: Sequence[ConditionResult]
    examples: Sequence[Example]
    title: str
    unit: str = "images"
    large_pictures: bool = False

    @property
    def restorers(self) -> list[str]:
        """The names of the restorers, in order."""
        return list(self.clean_restored or self.conditions[0].restored)


@dataclass(frozen=True)
class Comparison:
    """Scores of all variants, compared: from which results are computed."""

    variants: Variants
    scores: Scores

    def result(
        self,
        *,
        task: str,
        title: str,
        unit: str,
        large_pictures: bool,
        recogniser: str,
        facts: Mapping[str, str],
    ) -> RecognitionResult:
        """Return the result; the arguments are its attributes."""
        has_clean = self.variants.has_clean
        return RecognitionResult(
            task=task,
            recogniser=recogniser,
            facts=facts,
            metrics=self.scores.metrics,
            count=self.scores.count,
            excluded=self.scores.excluded,
            clean=self.estimates(CLEAN) if has_clean else {},
            clean_restored=self.restored(CLEAN) if has_clean else {},
            clean_p_value=self.p_values(CLEAN) if has_clean else {},
            conditions=self.conditions(),
            examples=self.examples(),
            title=title,
            unit=unit,
            large_pictures=large_pictures,
        )

    def estimates(self, condition: str, restorer: str = "") -> dict[str, Estimate]:
        """Return metric -> estimate of one variant."""
        figures = self.scores.figures[Variant(condition, restorer)]
        return {metric: estimate(figure) for metric, figure in figures.items()}

    def restored(self, condition: str) -> dict[str, dict[str, Estimate]]:
        """Return restorer -> metric -> estimate under one condition."""
        return {name: self.estimates(condition, name) for name in self.variants.restorers}

    def p_values(self, condition: str) -> dict[str, dict[str, float]]:
        """Return restorer -> metric -> p-value of restored against not restored."""
        before = Variant(condition, "")
        return {
            restorer: {
                metric: self.scores.p_value(metric, before, Variant(condition, restorer))
                for metric in self.scores.figures[before]
            }
            for restorer in self.variants.restorers
        }

    def recovered(self, condition: str) -> dict[str, dict[str, Estimate | None]]:
        """Return restorer -> metric -> share of the loss that is recovered."""
        figures = self.scores.figures
        degraded = figures[Variant(condition, "")]
        if not self.variants.has_clean:
            return {name: dict.fromkeys(degraded) for name in self.variants.restorers}
        clean = figures[Variant(CLEAN, "")]
        return {
            name: {
                metric: recovered_share(
                    clean[metric], before, figures[Variant(condition, name)][metric]
                )
                for metric, before in degraded.items()
            }
            for name in self.variants.restorers
        }

    def conditions(self) -> list[ConditionResult]:
        """Return a result per condition."""
        return [
            ConditionResult(
                name=name,
                synthetic=condition.synthetic,
                degraded=self.estimates(name),
                restored=self.restored(name),
                recovered=self.recovered(name),
                p_value=self.p_values(name),
            )
            for name, condition in self.variants.conditions.items()
        ]

    def examples(self) -> list[Example]:
        """Return a few images per restorer and condition whose answer improved or worsened.

        They are spread evenly over all such images, not chosen by looks.
        """
        examples = []
        for condition in self.variants.conditions:
            for restorer in self.variants.restorers:
                quality = self.scores.quality
                change = np.subtract(
                    quality[Variant(condition, restorer)], quality[Variant(condition, "")]
                )
                for improved, chosen in ((True, change > 0), (False, change < 0)):
                    for index in _evenly_spread(np.flatnonzero(chosen).tolist()):
                        examples.append(self._example(condition, restorer, improved, index))
        return examples

    def _example(self, condition: str, restorer: str, improved: bool, index: int) -> Example:
        shown = {"degraded": Variant(condition, ""), "restored": Variant(condition, restorer)}
        if self.variants.has_clean:
            shown = {"clean": Variant(CLEAN, ""), **shown}
        image = self.scores.images[index]
        answers = {key: self.scores.describe(variant, index) for key, variant in shown.items()}
        return Example(
            name=image.name,
            condition=condition,
            restorer=restorer,
            improved=improved,
            pictures={key: self._picture(image, variant) for key, variant in shown.items()},
            answers={key: answer.text for key, answer in answers.items()},
            truth=self.scores.truth(index),
            boxes={key: answer.boxes for key, answer in answers.items() if answer.boxes},
        )

    def _picture(self, image: ImageFile, variant: Variant) -> Callable[[], Tensor]:
        return lambda: self.variants.picture(image, variant)


def _evenly_spread(indices: Sequence[int]) -> list[int]:
    """Return at most EXAMPLES of the indices, evenly spread."""
    count = min(EXAMPLES, len(indices))
    return [indices[i * len(indices) // count] for i in range(count)]
