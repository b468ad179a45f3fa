"""What a recogniser makes of clean, degraded and restored images: how it is asked, and the results.

The recogniser resizes what it is shown. One image is held at a time. An image that fails anywhere is excluded everywhere, by name, so
all figures of a result have one denominator.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from vrdir.errors import RecogniserError, first_line
from vrdir.evaluation.recognition.statistics import Estimate, Figure, estimate, recovered_share
from vrdir.evaluation.recognition.variants import CLEAN, Exclusion, Item, Pixels, Source, Variant

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
CASES = 4  # that were won, and that were lost, are shown per restorer and condition


@dataclass(frozen=True)
class Case:
    """One image whose answer changed when it was restored.

    Attributes:
        name: the image, as its data set calls it.
        condition, restorer: where.
        won: wrong or worse degraded, right or better restored; False for the reverse.
        pictures: "clean", if there is one, "degraded" and "restored" -> the image (3, H, W) in [0, 1], made anew when called.
        said: the recogniser's answer to each, such as "tabby cat 83 %".
        truth: what would be right.
        boxes: in detection what was found in each, (x0, y0, x1, y1, label and score) in pixels; otherwise empty.
    """

    name: str
    condition: str
    restorer: str
    won: bool
    pictures: Mapping[str, Callable[[], Tensor]]
    said: Mapping[str, str]
    truth: str
    boxes: Mapping[str, Sequence[tuple[float, float, float, float, str]]] = field(
        default_factory=dict
    )


@dataclass(frozen=True)
class ConditionResult:
    """What came of one degradation. Estimates are in per cent with 95 % intervals.

    Attributes:
        name: such as "haze:severity=3", or what the folder is called.
        synthetic: the degraded images were synthesised.
        degraded: metric -> estimate.
        restored: restorer -> metric -> estimate.
        recovered: restorer -> metric -> share, 1 for all of what was lost; None where nothing was, see `recovered_share`, or where
            there are no clean images.
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
    """What came of one recogniser on one data set. Estimates are in per cent with 95 % intervals.

    Attributes:
        task: "classification", "detection" or "reid".
        recogniser: its name.
        facts: licence, sha256 and source where known, and what the data consisted of.
        metrics: key -> label with definition, the main one first: "top1", "map" or "rank1".
        images: what every figure is taken over: images, or in re-identification queries.
        excluded: what counts in no figure.
        clean: metric -> estimate; empty, as the next two, where the images have no clean twins.
        clean_restored: restorer -> metric -> estimate: what restoring does to clean images.
        clean_p_value: restorer -> metric -> two-sided paired test of that against clean.
        conditions: the degradations, or the one that is called "as taken".
        cases: a few won and a few lost per restorer and condition.
    """

    task: str
    recogniser: str
    facts: Mapping[str, str]
    metrics: Mapping[str, str]
    images: int
    excluded: Sequence[Exclusion]
    clean: Mapping[str, Estimate]
    clean_restored: Mapping[str, Mapping[str, Estimate]]
    clean_p_value: Mapping[str, Mapping[str, float]]
    conditions: Sequence[ConditionResult]
    cases: Sequence[Case]

    @property
    def restorers(self) -> list[str]:
        """By name, in order."""
        return list(self.clean_restored or self.conditions[0].restored)


@dataclass(frozen=True)
class Answered(Generic[Answer]):
    """The images that could be measured in every variant, the recogniser's answer to each, and what was excluded."""

    items: list[Item]
    answers: dict[Variant, list[Answer]]
    excluded: list[Exclusion]


def ask(
    items: Sequence[Item],
    source: Source,
    recognise: Callable[[Item, Pixels], Answer],
    excluded: Sequence[Exclusion],
    set_aside: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> Answered[Answer]:
    """Show a recogniser every variant of every image.

    Args:
        items: the clean images.
        source: makes the variants.
        recognise: what is kept of the answer to a variant of an image; it should be small.
        excluded: what the data set left out already.
        set_aside: names of images that nobody asked for; to have degraded versions of them is no mistake.
        progress: called with the name of each image that was dealt with.

    Raises:
        RecogniserError: the recogniser's answer is none.
        ValueError: nothing could be measured, or two sets of images have no name in common.
    """
    left_out = list(excluded)
    for folder in source.folders:
        left_out += folder.compare(items, [*set_aside, *(one.name for one in excluded)])
    kept: list[Item] = []
    answers: dict[Variant, list[Answer]] = {variant: [] for variant in source.variants}
    for item in items:
        try:
            row = [(variant, recognise(item, pixels)) for variant, pixels in source.images(item)]
        except RecogniserError:
            raise
        except Exception as error:  # whatever it is, the next image is another
            logger.debug("%s", item.path, exc_info=True)
            left_out.append(Exclusion(item.name, first_line(error)))
        else:
            kept.append(item)
            for variant, answer in row:
                answers[variant].append(answer)
        if progress is not None:
            progress(item.name)
    if not kept:
        raise ValueError(nothing_left(left_out))
    return Answered(kept, answers, left_out)


def nothing_left(excluded: Sequence[Exclusion]) -> str:
    """What to say where nothing can be measured."""
    if not excluded:
        return "there is no image to measure"
    return f"nothing is left to measure: {len(excluded)} exclusions, such as {excluded[-1].name}: {excluded[-1].reason}"


Figures = Mapping[Variant, Mapping[str, Figure]]  # variant -> metric -> figure
Test = Callable[[str, Variant, Variant], float]  # the p-value of a metric, before and after


def condition_results(source: Source, figures: Figures, test: Test) -> list[ConditionResult]:
    """A result per condition."""
    return [
        ConditionResult(
            name=name,
            synthetic=condition.synthetic,
            degraded=estimates(figures[Variant(name, "")]),
            restored=restored_estimates(source, figures, name),
            recovered={
                restorer: {
                    metric: _recovered(figures, metric, name, restorer)
                    for metric in figures[Variant(name, "")]
                }
                for restorer in source.restorers
            },
            p_value=p_values(source, figures, test, name),
        )
        for name, condition in source.conditions.items()
    ]


def _recovered(figures: Figures, metric: str, condition: str, restorer: str) -> Estimate | None:
    clean = figures.get(Variant(CLEAN, ""))
    before, after = (figures[Variant(condition, one)][metric] for one in ("", restorer))
    return recovered_share(clean[metric], before, after) if clean is not None else None


def estimates(figures: Mapping[str, Figure]) -> dict[str, Estimate]:
    """Metric -> estimate."""
    return {metric: estimate(figure) for metric, figure in figures.items()}


def restored_estimates(
    source: Source, figures: Figures, condition: str
) -> dict[str, dict[str, Estimate]]:
    """Restorer -> metric -> estimate, for one condition."""
    return {
        restorer: estimates(figures[Variant(condition, restorer)]) for restorer in source.restorers
    }


def p_values(
    source: Source, figures: Figures, test: Test, condition: str
) -> dict[str, dict[str, float]]:
    """Restorer -> metric -> p-value of restored against not restored, for one condition."""
    before = Variant(condition, "")
    return {
        restorer: {
            metric: test(metric, before, Variant(condition, restorer)) for metric in figures[before]
        }
        for restorer in source.restorers
    }


def result_of(
    task: str,
    recogniser: str,
    facts: Mapping[str, str],
    metrics: Mapping[str, str],
    images: int,
    excluded: Sequence[Exclusion],
    source: Source,
    figures: Figures,
    test: Test,
    cases: Sequence[Case],
) -> RecognitionResult:
    """The result of an evaluation, from the figures of every variant."""
    has_clean = CLEAN in source.shown
    return RecognitionResult(
        task=task,
        recogniser=recogniser,
        facts=facts,
        metrics=metrics,
        images=images,
        excluded=excluded,
        clean=estimates(figures[Variant(CLEAN, "")]) if has_clean else {},
        clean_restored=restored_estimates(source, figures, CLEAN) if has_clean else {},
        clean_p_value=p_values(source, figures, test, CLEAN) if has_clean else {},
        conditions=condition_results(source, figures, test),
        cases=cases,
    )


class Said(NamedTuple):
    """An answer to a picture, as a report shows it, and what was found in it."""

    text: str
    boxes: Sequence[tuple[float, float, float, float, str]] = ()


def cases_of(
    source: Source,
    items: Sequence[Item],
    quality: Mapping[Variant, Sequence[float]],
    say: Callable[[Variant, int], Said],
    truth: Callable[[int], str],
) -> list[Case]:
    """A few images whose answer became better or worse by restoring, spread evenly over all such images, not the most flattering ones.

    Args:
        source: makes the pictures.
        items: the images.
        quality: variant -> how good the answer to each image is.
        say: the answer to a variant of an image, by its place in `items`.
        truth: what would be right for an image.
    """
    cases = []
    for condition in source.conditions:
        for restorer in source.restorers:
            change = np.subtract(
                quality[Variant(condition, restorer)], quality[Variant(condition, "")]
            )
            shown = {"degraded": Variant(condition, ""), "restored": Variant(condition, restorer)}
            if CLEAN in source.shown:
                shown = {"clean": Variant(CLEAN, ""), **shown}
            for won, chosen in (
                (True, np.flatnonzero(change > 0)),
                (False, np.flatnonzero(change < 0)),
            ):
                for i in _spread(chosen.tolist()):
                    said = {key: say(variant, i) for key, variant in shown.items()}
                    cases.append(
                        Case(
                            name=items[i].name,
                            condition=condition,
                            restorer=restorer,
                            won=won,
                            pictures={
                                key: _picture(source, items[i], variant)
                                for key, variant in shown.items()
                            },
                            said={key: one.text for key, one in said.items()},
                            truth=truth(i),
                            boxes={key: one.boxes for key, one in said.items() if one.boxes},
                        )
                    )
    return cases


def _spread(places: Sequence[int]) -> list[int]:
    """At most CASES of them, evenly spread."""
    count = min(CASES, len(places))
    return [places[i * len(places) // count] for i in range(count)]


def _picture(source: Source, item: Item, variant: Variant) -> Callable[[], Tensor]:
    return lambda: source.picture(item, variant)
