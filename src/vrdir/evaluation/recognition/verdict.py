"""What an evaluation of a recogniser says in words, by its main metric: whether restoring helps, how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from vrdir.evaluation.recognition.protocol import ConditionResult, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.recognition.variants import AS_TAKEN

SIGNIFICANT = 0.05
Outcome = Literal["helps", "harms", "neither"]
OUTCOMES: Mapping[Outcome, str] = {
    "helps": "helps",
    "harms": "does harm",
    "neither": "makes no difference that can be told from chance",
}


def verdict(result: RecognitionResult) -> str:
    """All headlines, and how much was left out."""
    left_out = len(result.excluded)
    return " ".join(
        [
            *headlines(result).values(),
            *([f"{left_out} exclusion{'s' * (left_out != 1)}."] if left_out else []),
        ]
    )


def headlines(result: RecognitionResult) -> dict[str, str]:
    """By restorer, what it does under the conditions and to clean images, in two or three sentences."""
    if len(result.conditions) == 1:
        told = {
            one: f"{_front(result, one)} {point(result, result.conditions[0], one)}"
            for one in result.restorers
        }
    else:
        told = {one: _tally(result, one) for one in result.restorers}
    return {
        one: f"{text} {on_clean(result, one)}" if result.clean else text
        for one, text in told.items()
    }


def _front(result: RecognitionResult, restorer: str) -> str:
    return f"{restorer} in front of {result.recogniser}, {named(result.conditions[0])}:"


def _tally(result: RecognitionResult, restorer: str) -> str:
    """Under how many conditions it helps, and what share of the loss it gets back there."""
    metric, counts = main_metric(result), outcomes(result, restorer)
    said = [f"{phrase} under {counts[way]}" for way, phrase in OUTCOMES.items() if counts[way]]
    said[0] += f" of {len(result.conditions)} conditions"
    shares = [
        share.value
        for condition in result.conditions
        if outcome(result, condition, restorer) == "helps"
        and (share := condition.recovered[restorer][metric]) is not None
    ]
    back = ""
    if shares:
        least, most = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
        span = f"{most} %" if least == most else f"{least} to {most} %"
        back = f" Where it helps, {span} of what was lost in {called(result, metric)} comes back."
    return f"{restorer} in front of {result.recogniser} {', '.join(said)}.{back}"


def point(result: RecognitionResult, condition: ConditionResult, restorer: str) -> str:
    """What a restorer does under a condition, in a sentence."""
    metric = main_metric(result)
    before, after = (of[metric].value for of in (condition.degraded, condition.restored[restorer]))
    clean = f"clean {result.clean[metric].value:.1f} %, " if result.clean else ""
    figures = f"{called(result, metric)} {before:.1f} -> {after:.1f} %, {clean}{shown_p(condition.p_value[restorer][metric])}"
    way, share = outcome(result, condition, restorer), condition.recovered[restorer][metric]
    if way == "helps" and share is not None:
        return f"gets back {shown_share(share)} of what was lost ({figures})."
    if way == "neither":
        return f"{OUTCOMES[way]} ({figures})."
    return f"{'gains' if way == 'helps' else 'does harm, and loses'} {abs(after - before):.1f} points ({figures})."


def on_clean(result: RecognitionResult, restorer: str) -> str:
    """What a restorer does to clean images, in a sentence."""
    metric = main_metric(result)
    before, after, p_value = (
        result.clean[metric].value,
        result.clean_restored[restorer][metric].value,
        result.clean_p_value[restorer][metric],
    )
    sure = f"{'' if _way(after - before, p_value) != 'neither' else 'not significant, '}{shown_p(p_value)}"
    return f"On clean images it changes {called(result, metric)} by {after - before:+.1f} points ({before:.1f} -> {after:.1f} %, {sure})."


def outcome(result: RecognitionResult, condition: ConditionResult, restorer: str) -> Outcome:
    """Whether a restorer helps under a condition, by the main metric and its test."""
    metric = main_metric(result)
    return _way(
        condition.restored[restorer][metric].value - condition.degraded[metric].value,
        condition.p_value[restorer][metric],
    )


def _way(change: float, p_value: float) -> Outcome:
    if not p_value < SIGNIFICANT or change == 0:  # NaN is no proof
        return "neither"
    return "helps" if change > 0 else "harms"


def outcomes(result: RecognitionResult, restorer: str) -> dict[Outcome, int]:
    """How many conditions of each outcome there are."""
    found = [outcome(result, condition, restorer) for condition in result.conditions]
    return {way: found.count(way) for way in OUTCOMES}


def main_metric(result: RecognitionResult) -> str:
    """The first one."""
    return next(iter(result.metrics))


def called(result: RecognitionResult, metric: str) -> str:
    """A metric's name in words: what stands before the colon of its definition."""
    return result.metrics[metric].partition(": ")[0]


def named(condition: ConditionResult) -> str:
    """A condition as reports call it: its name, and that it is synthetic if it is."""
    if condition.name == AS_TAKEN:
        return f"photos {AS_TAKEN}"
    return f"{condition.name} (synthetic)" if condition.synthetic else condition.name


def shown_share(share: Estimate) -> str:
    """A share recovered as "63 % (48 to 78)"."""
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"


def shown_p(p_value: float) -> str:
    """ "p < 0.001", "p = 0.012"; "p unknown" for NaN."""
    if p_value != p_value:
        return "p unknown"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{3 if p_value < 0.1 else 2}f}"
