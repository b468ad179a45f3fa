"""Scores: what a task computes from a recogniser's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.image_files import Exclusion, ImageFile
from vrdir.evaluation.recognition.statistics import (
    Figure,
    Resampling,
    bootstrap_weights,
    mcnemar,
    mean_figure,
    paired_mean_test,
)

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.variants import Variant

Box = tuple[float, float, float, float, str]
"""A box to draw: x0, y0, x1, y1 in pixels of the image, and the text beside it."""
Outcomes = TypeVar("Outcomes")


class Description(NamedTuple):
    """An answer as a report shows it: a text such as "tabby cat 83 %", and boxes to draw."""

    text: str
    boxes: Sequence[Box] = ()


@dataclass(frozen=True)
class Scores:
    """The scores of a recogniser's answers to all variants of all images.

    Attributes:
        metrics: the metrics, the main one first.
        count: the number of images (or queries) of every figure.
        data: what the data consists of, such as "60 images of 4 classes".
        excluded: everything that is excluded from all figures.
        figures: variant -> key of a metric -> figure.
        p_value: (key of a metric, variant before, variant after) -> p-value of a paired test.
        images: the images that examples are chosen from.
        quality: variant -> how good the answer to each of `images` is; for choosing examples.
        describe: (variant, index in `images`) -> the answer as text.
        truth: index in `images` -> the right answer as text.
    """

    metrics: Sequence[Metric[Any]]
    count: int
    data: str
    excluded: Sequence[Exclusion]
    figures: Mapping[Variant, Mapping[str, Figure]]
    p_value: Callable[[str, Variant, Variant], float]
    images: Sequence[ImageFile]
    quality: Mapping[Variant, Sequence[float] | NDArray[Any]]
    describe: Callable[[Variant, int], Description]
    truth: Callable[[int], str]


def score_samples(
    metrics: Sequence[Metric[Callable[[Outcomes], NDArray[Any]]]],
    outcomes: Mapping[Variant, Outcomes],
    resampling: Resampling,
    *,
    images: Sequence[ImageFile],
    excluded: Sequence[Exclusion],
    data: str,
    describe: Callable[[Variant, int], Description],
    truth: Callable[[int], str],
) -> Scores:
    """Return the scores of metrics that are means of one value per image (or query).

    Tests are exact McNemar tests of metrics whose values are right or wrong, and by randomisation
    of the others. Examples are chosen by the main metric.

    Args:
        metrics: their functions take the outcomes of a variant and return a value in [0, 1] per
            image, (images,); bool for right or wrong.
        outcomes: variant -> what the functions take.
        resampling: of the intervals and tests.
        images: the images (or queries) that the values are of.
        excluded: as in `Scores`.
        data: as in `Scores`.
        describe: as in `Scores`.
        truth: as in `Scores`.
    """
    values = {
        variant: {metric.key: metric.function(outcome) for metric in metrics}
        for variant, outcome in outcomes.items()
    }
    weights = bootstrap_weights(len(images), resampling)

    def p_value(metric: str, before: Variant, after: Variant) -> float:
        first, second = values[before][metric], values[after][metric]
        if first.dtype == np.bool_:
            return mcnemar(first, second)
        return paired_mean_test(first, second, resampling)

    main = metrics[0].key
    return Scores(
        metrics=metrics,
        count=len(images),
        data=data,
        excluded=excluded,
        figures={
            variant: {key: mean_figure(value, weights) for key, value in by_key.items()}
            for variant, by_key in values.items()
        },
        p_value=p_value,
        images=images,
        quality={variant: by_key[main].astype(float) for variant, by_key in values.items()},
        describe=describe,
        truth=truth,
    )
