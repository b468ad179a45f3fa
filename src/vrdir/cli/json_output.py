"""The machine-readable output of `--json`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vrdir.batch.results import FileResult, StreamReport


def print_json(content: Any) -> None:
    """Write JSON to standard output."""
    sys.stdout.write(json.dumps(content, indent=1) + "\n")


def result_facts(result: FileResult) -> dict[str, Any]:
    """Return the facts of one file."""
    facts: dict[str, Any] = {
        "source": str(result.job.source),
        "target": str(result.job.target),
        "error": result.error,
        "shares": {name: round(share, 4) for name, share in result.shares.items()},
    }
    if result.change is not None:
        facts["change"] = round(result.change, 3)
    if result.diagnosis is not None:
        found = result.diagnosis._asdict().items()
        facts["diagnosis"] = {
            key: None if value is None else round(value, 4) for key, value in found
        }
    if result.video is not None:
        facts["video"] = video_facts(result.video)
    return facts


def video_facts(report: StreamReport) -> dict[str, Any]:
    """Return the facts of a video."""
    return {
        "frames": report.frames,
        "damaged": report.damaged,
        "damaged_frames": report.damaged_frames,
        "cuts": report.cuts,
        "seconds": round(report.seconds, 3),
        "frames_per_second": round(report.frames_per_second, 2),
        "latency_ms": {
            "mean": round(report.mean_ms, 2),
            "median": round(report.median_ms, 2),
            "p95": round(report.p95_ms, 2),
        },
    }
