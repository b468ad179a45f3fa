"""The result of an evaluation in sentences: does restoring help, how much, how certain is it?

All sentences use the main metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.conditions import AS_TAKEN
from vrdir.evaluation.recognition.results import ConditionResult, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate

SIGNIFICANT = 0.05
Outcome = Literal["helps", "harms", "neither"]
OUTCOMES: Mapping[Outcome, str] = {
    "helps": "helps",
    "harms": "does harm",
    "neither": "makes no significant difference",
}


def verdict(result: RecognitionResult) -> str:
    """Return all headlines, and how much was excluded."""
    count = len(result.excluded)
    exclusions = [f"{count} exclusion{'s' * (count != 1)}."] if count else []
    return " ".join([*headlines(result).values(), *exclusions])


def headlines(result: RecognitionResult) -> dict[str, str]:
    """Return, per restorer, its effect under the conditions and on clean images."""
    sentences = {}
    for restorer in result.restorers:
        if len(result.conditions) == 1:
            condition = result.conditions[0]
            before = f"{restorer} in front of {result.recogniser}, {condition_label(condition)}:"
            sentences[restorer] = f"{before} {effect(result, condition, restorer)}"
        else:
            sentences[restorer] = _count_outcomes(result, restorer)
        if result.clean:
            sentences[restorer] += f" {effect_on_clean(result, restorer)}"
    return sentences


def _count_outcomes(result: RecognitionResult, restorer: str) -> str:
    """Return under how many conditions a restorer helps, and what share of the loss it recovers."""
    metric, counts = main_metric(result), outcomes(result, restorer)
    parts = [f"{phrase} under {counts[key]}" for key, phrase in OUTCOMES.items() if counts[key]]
    parts[0] += f" of {len(result.conditions)} conditions"
    shares = [
        share.value
        for condition in result.conditions
        if outcome(result, condition, restorer) == "helps"
        and (share := condition.recovered[restorer][metric.key]) is not None
    ]
    recovered = ""
    if shares:
        least, most = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
        span = f"{most} %" if least == most else f"{least} to {most} %"
        recovered = f" Where it helps, it recovers {span} of the loss in {metric.label}."
    return f"{restorer} in front of {result.recogniser} {', '.join(parts)}.{recovered}"


def effect(result: RecognitionResult, condition: ConditionResult, restorer: str) -> str:
    """Return the effect of a restorer under a condition in a sentence."""
    metric = main_metric(result)
    before = condition.degraded[metric.key].value
    after = condition.restored[restorer][metric.key].value
    clean = f"clean {result.clean[metric.key].value:.1f} %, " if result.clean else ""
    p_value = shown_p(condition.p_value[restorer][metric.key])
    figures = f"{metric.label} {before:.1f} -> {after:.1f} %, {clean}{p_value}"
    found, share = outcome(result, condition, restorer), condition.recovered[restorer][metric.key]
    if found == "helps" and share is not None:
        return f"recovers {shown_share(share)} of the loss ({figures})."
    if found == "neither":
        return f"{OUTCOMES[found]} ({figures})."
    verb = "gains" if found == "helps" else "does harm: it loses"
    return f"{verb} {abs(after - before):.1f} points ({figures})."


def effect_on_clean(result: RecognitionResult, restorer: str) -> str:
    """Return the effect of a restorer on clean images in a sentence."""
    metric = main_metric(result)
    before = result.clean[metric.key].value
    after = result.clean_restored[restorer][metric.key].value
    p_value = result.clean_p_value[restorer][metric.key]
    doubt = "not significant, " if _outcome(after - before, p_value) == "neither" else ""
    return (
        f"On clean images it changes {metric.label} by {after - before:+.1f} points "
        f"({before:.1f} -> {after:.1f} %, {doubt}{shown_p(p_value)})."
    )


def outcome(result: RecognitionResult, condition: ConditionResult, restorer: str) -> Outcome:
    """Return whether a restorer helps under a condition, by the main metric and its test."""
    key = main_metric(result).key
    change = condition.restored[restorer][key].value - condition.degraded[key].value
    return _outcome(change, condition.p_value[restorer][key])


def _outcome(change: float, p_value: float) -> Outcome:
    if not p_value < SIGNIFICANT or change == 0:  # NaN is not significant
        return "neither"
    return "helps" if change > 0 else "harms"


def outcomes(result: RecognitionResult, restorer: str) -> dict[Outcome, int]:
    """Return how many conditions have each outcome."""
    found = [outcome(result, condition, restorer) for condition in result.conditions]
    return {key: found.count(key) for key in OUTCOMES}


def main_metric(result: RecognitionResult) -> Metric[Any]:
    """Return the metric that verdicts use: the first."""
    return result.metrics[0]


def condition_label(condition: ConditionResult) -> str:
    """Return a condition's name in reports; it says whether the condition is synthetic."""
    if condition.name == AS_TAKEN:
        return f"photos {AS_TAKEN}"
    return f"{condition.name} (synthetic)" if condition.synthetic else condition.name


def shown_share(share: Estimate) -> str:
    """Return a recovered share as "63 % (48 to 78)"."""
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"


def shown_p(p_value: float) -> str:
    """Return "p < 0.001" or "p = 0.012"; "p unknown" for NaN."""
    if p_value != p_value:
        return "p unknown"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.{3 if p_value < 0.1 else 2}f}"


def bare_p(p_value: float) -> str:
    """Return a p-value for a column with the heading p: "< 0.001" or "0.012"."""
    return shown_p(p_value).removeprefix("p ").removeprefix("= ")
