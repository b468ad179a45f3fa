"""Classification of clean, degraded and restored images: top-1 and top-5 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vrdir.evaluation.recognition.labels.classification import ClassificationData, class_numbers
from vrdir.evaluation.recognition.protocol import (
    RecognitionResult,
    Said,
    ask,
    cases_of,
    nothing_left,
    result_of,
)
from vrdir.evaluation.recognition.recognisers.contracts import Classifier
from vrdir.evaluation.recognition.statistics import bootstrap_weights, mcnemar, mean_figure
from vrdir.evaluation.recognition.variants import (
    Condition,
    Exclusion,
    Item,
    Pixels,
    Restore,
    Source,
    Variant,
)
from vrdir.restoring.restorer import Restorer

Array = np.ndarray[Any, np.dtype[Any]]

METRICS = {
    "top1": "Top-1: % of images whose likeliest class is the right one",
    "top5": "Top-5: % of images whose right class is among the five likeliest",
}


class Named(NamedTuple):
    """A classifier's answer: the likeliest classes, at most five, the likeliest first, and how sure it is of that one, 0 to 1."""

    classes: Array
    confidence: float


def evaluate_classification(
    data: ClassificationData,
    recogniser: Classifier,
    conditions: Sequence[Condition],
    restorers: Mapping[str, Restore | Restorer],
    *,
    seed: int = 0,
    bootstrap: int = 1000,
    progress: Callable[[str], None] | None = None,
) -> RecognitionResult:
    """What a classifier makes of clean, degraded and restored images.

    Args:
        data: from `labels.read_classification`.
        recogniser: from `recognisers.load_recogniser`.
        conditions: the degradations.
        restorers: by name.
        seed: of the synthesis and of the resamples.
        bootstrap: how many resamples of the images the intervals are taken from.
        progress: called with the name of each image that was dealt with.

    Returns:
        Accuracies over the images that could be measured in every variant; tests are McNemar's, exact. Top-5 is left out
        where there are only five classes.

    Raises:
        ValueError: no label is one of the recogniser's classes, the recogniser breaks its contract, or nothing can be measured.
    """
    numbers, problems = class_numbers(data.labels, recogniser.classes)
    right = {
        item.name: numbers[label]
        for item, label in zip(data.items, data.labels, strict=True)
        if label in numbers
    }
    excluded = list(data.excluded)
    excluded += [
        Exclusion(item.name, problems[label])
        for item, label in zip(data.items, data.labels, strict=True)
        if label in problems
    ]
    items = [item for item in data.items if item.name in right]
    if not items:
        raise ValueError(nothing_left(excluded))
    source = Source(conditions, restorers, seed)

    def recognise(item: Item, image: Pixels) -> Named:
        return likeliest(recogniser([image])[0])

    answered = ask(items, source, recognise, excluded, data.set_aside, progress)
    truth = np.array([right[item.name] for item in answered.items])
    metrics = {
        key: label for key, label in METRICS.items() if key == "top1" or len(recogniser.classes) > 5
    }
    hits = {
        variant: {
            key: np.array(
                [
                    number in answer.classes[: int(key[3:])]
                    for number, answer in zip(truth, answers, strict=True)
                ]
            )
            for key in metrics
        }
        for variant, answers in answered.answers.items()
    }
    weights = bootstrap_weights(len(truth), bootstrap, seed)

    def say(variant: Variant, i: int) -> Said:
        answer = answered.answers[variant][i]
        return Said(f"{recogniser.classes[answer.classes[0]]} {100 * answer.confidence:.0f} %")

    return result_of(
        task="classification",
        recogniser=recogniser.name,
        facts={
            **recogniser.facts,
            "data": f"{len(truth)} images of {len(set(truth.tolist()))} classes",
        },
        metrics=metrics,
        images=len(truth),
        excluded=answered.excluded,
        source=source,
        figures={
            variant: {key: mean_figure(hit, weights) for key, hit in by_key.items()}
            for variant, by_key in hits.items()
        },
        test=lambda metric, before, after: mcnemar(hits[before][metric], hits[after][metric]),
        cases=cases_of(
            source,
            answered.items,
            {variant: by_key["top1"].astype(float).tolist() for variant, by_key in hits.items()},
            say,
            lambda i: recogniser.classes[truth[i]],
        ),
    )


def likeliest(scores: Array) -> Named:
    """The likeliest classes by scores (C,); of equal ones the first. Scores that are no probabilities are taken for logits."""
    order = np.argsort(-scores, kind="stable")[:5]
    is_probability = scores.min() >= 0 and abs(scores.sum() - 1) < 1e-3
    confidence = scores[order[0]] if is_probability else 1 / np.exp(scores - scores[order[0]]).sum()
    return Named(order.astype(np.int32), float(confidence))
