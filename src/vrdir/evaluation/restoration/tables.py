"""The figures of sets as JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from vrdir.evaluation.restoration.metrics import METRICS
from vrdir.evaluation.restoration.protocol import ExcludedPair, Measured, SetResult
from vrdir.evaluation.restoration.restorers import pair_name
from vrdir.evaluation.restoration.summary import CLEARLY_DB, clearly_worse, mean_loss

VERSIONS = ("degraded", "restored")
PAIR_COLUMNS = ("line", "name", "restorer", "degraded_file", "clean_file", "synthesis")
FIGURE_COLUMNS = tuple(f"{version}_{metric.key}" for version in VERSIONS for metric in METRICS)


def as_json(results: Sequence[SetResult], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything except the pictures.

    Args:
        results: one per set and restorer.
        facts: versions and weights; they come first.
    """
    return {
        **facts,
        "definitions": {metric.key: f"{metric.label}: {metric.definition}" for metric in METRICS},
        "sets": [_set_as_json(result) for result in results],
    }


def _set_as_json(result: SetResult) -> dict[str, Any]:
    worse = result.worse
    return {
        "name": result.name,
        "restorer": result.restorer,
        "pairs": str(result.source),
        "synthetic": result.synthetic,
        "count": len(result.images),
        "excluded": len(result.excluded),
        "degraded": result.degraded,
        "restored": result.restored,
        "worse": {
            "count": len(worse),
            f"count_over_{CLEARLY_DB}_db": clearly_worse(worse),
            "mean_db": mean_loss(worse),
            "most_db": -worse[0].gain if worse else 0.0,
        },
        "cases": {name: _row(image) for name, image in result.examples.items()},
        "images": [_row(image) for image in result.images],
        "exclusions": [_row(excluded) for excluded in result.excluded],
    }


def _row(row: Measured | ExcludedPair) -> dict[str, Any]:
    pair = row.pair
    named = {
        "line": pair.line,
        "name": pair_name(pair),
        "degraded_file": str(pair.degraded or ""),
        "clean_file": str(pair.clean),
        "synthesis": pair.synthesis,
    }
    if isinstance(row, ExcludedPair):
        return {**named, "reason": row.reason}
    figures = {"degraded": row.degraded, "restored": row.restored}
    return {**named, "width": row.width, "height": row.height, **figures}


def as_csv(results: Sequence[SetResult]) -> str:
    """Return a line per pair and restorer, in the order of the lists.

    An excluded pair has no figures, and its reason in the last column.
    """
    columns = ["set", *PAIR_COLUMNS, "width", "height", *FIGURE_COLUMNS, "excluded"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        for row in result.rows:
            cells = {"set": result.name, "restorer": result.restorer, **_row(row)}
            for version in VERSIONS:
                scores = cells.pop(version, {})
                cells |= {f"{version}_{key}": f"{value:.6f}" for key, value in scores.items()}
            cells["excluded"] = cells.pop("reason", "")
            writer.writerow(cells)
    return buffer.getvalue()
