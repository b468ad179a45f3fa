"""The figures of a result as rows, JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from vrdir.evaluation.metric import Metric
from vrdir.evaluation.recognition.conditions import CLEAN
from vrdir.evaluation.recognition.results import ConditionResult, Example, RecognitionResult
from vrdir.evaluation.recognition.statistics import Estimate
from vrdir.evaluation.recognition.verdict import verdict

NOTHING = "nothing"
"""The name of the row without a restorer: the recogniser gets the original image."""
LIMIT = "limit"
"""The fact that contains the note on a limit."""
ROW_COLUMNS = ("condition", "synthetic", "in_front", "metric")
FIGURE_COLUMNS = ("value", "low", "high", "recovered", "recovered_low", "recovered_high", "p_value")
COLUMNS = (
    "task",
    "recogniser",
    "images",
    "limit",
    *ROW_COLUMNS,
    *FIGURE_COLUMNS,
    "excluded",
    "reason",
)


class Row(NamedTuple):
    """A figure of a result.

    Attributes:
        condition: the condition's name.
        synthetic: whether its images were synthesised.
        in_front: the restorer in front of the recogniser, or "nothing".
        metric: the metric.
        value: the figure.
        recovered: the recovered share of the loss, if there is one.
        p_value: of a paired test against "nothing".
    """

    condition: str
    synthetic: bool
    in_front: str
    metric: Metric[Any]
    value: Estimate
    recovered: Estimate | None = None
    p_value: float | None = None


def rows_of(result: RecognitionResult) -> list[Row]:
    """Return all figures, the main metric first, and clean images first of each metric."""
    return [row for metric in result.metrics for row in _rows_of_metric(result, metric)]


def _rows_of_metric(result: RecognitionResult, metric: Metric[Any]) -> Iterator[Row]:
    key = metric.key
    if result.clean:
        yield Row(CLEAN, False, NOTHING, metric, result.clean[key])
    for restorer, values in result.clean_restored.items():
        p_value = result.clean_p_value[restorer][key]
        yield Row(CLEAN, False, restorer, metric, values[key], None, p_value)
    for one in result.conditions:
        yield Row(one.name, one.synthetic, NOTHING, metric, one.degraded[key])
        for restorer, values in one.restored.items():
            compared = one.recovered[restorer][key], one.p_value[restorer][key]
            yield Row(one.name, one.synthetic, restorer, metric, values[key], *compared)


def as_json(results: Sequence[RecognitionResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything except the pictures.

    Without clean images, the entries on clean images and recovered shares are left out.

    Args:
        results: one per recogniser.
        facts: versions, weights, seed; they come first.
    """
    return {**facts, "results": [_result_as_json(result) for result in results]}


def _result_as_json(result: RecognitionResult) -> dict[str, Any]:
    clean = ("clean", "clean_restored", "clean_p_value") if result.clean else ()
    return {
        "task": result.task,
        "recogniser": result.recogniser,
        "facts": dict(result.facts),
        "definitions": {one.key: f"{one.label}: {one.definition}" for one in result.metrics},
        "images": result.count,
        "verdict": verdict(result),
        **{name: _plain(getattr(result, name)) for name in clean},
        "conditions": [_condition_as_json(one, bool(clean)) for one in result.conditions],
        "cases": [_example_as_json(example) for example in result.examples],
        "excluded": len(result.excluded),
        "exclusions": [{"name": one.name, "reason": one.reason} for one in result.excluded],
    }


def _condition_as_json(condition: ConditionResult, has_clean: bool) -> dict[str, Any]:
    figures = ("degraded", "restored", *(("recovered",) if has_clean else ()), "p_value")
    return {
        "name": condition.name,
        "synthetic": condition.synthetic,
        **{name: _plain(getattr(condition, name)) for name in figures},
    }


def _example_as_json(example: Example) -> dict[str, Any]:
    return {
        "name": example.name,
        "condition": example.condition,
        "restorer": example.restorer,
        "won": example.improved,
        "truth": example.truth,
        "said": dict(example.answers),
    }


def _plain(value: Any) -> Any:
    """Return estimates, and mappings of them, as dictionaries; NaN, which JSON lacks, as None."""
    if isinstance(value, Estimate):
        return {name: _plain(edge) for name, edge in value._asdict().items()}
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and value != value else value


def as_csv(results: Sequence[RecognitionResult]) -> str:
    """Return a line per figure (see `Row`), and one per exclusion with its name and reason."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        which = {"task": result.task, "recogniser": result.recogniser}
        taken_over = {"images": result.count, "limit": result.facts.get(LIMIT, "")}
        for row in rows_of(result):
            named = (row.condition, row.synthetic, row.in_front, row.metric.key)
            cells = dict(zip(ROW_COLUMNS, named, strict=True)) | _figure_cells(row)
            writer.writerow({**which, **taken_over, **cells})
        for excluded in result.excluded:
            writer.writerow({**which, "excluded": excluded.name, "reason": excluded.reason})
    return buffer.getvalue()


def _figure_cells(row: Row) -> dict[str, str]:
    numbers = (*row.value, *(row.recovered or (None,) * 3), row.p_value)
    texts = ("" if number is None else f"{number:.6g}" for number in numbers)
    return dict(zip(FIGURE_COLUMNS, texts, strict=True))
