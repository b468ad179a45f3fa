"""Runs over many files: plan which are read and written, process them, resume a stopped run."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.batch.manifest import Manifest
    from vrdir.batch.plan import plan_files
    from vrdir.batch.process import process_files
    from vrdir.batch.results import (
        Diagnosis,
        FileJob,
        FileResult,
        ImageOptions,
        Outcome,
        StreamReport,
        content_writer,
    )

__all__ = [
    "Diagnosis",
    "FileJob",
    "FileResult",
    "ImageOptions",
    "Manifest",
    "Outcome",
    "StreamReport",
    "content_writer",
    "plan_files",
    "process_files",
]

_HOMES = {
    "Diagnosis": "vrdir.batch.results",
    "FileJob": "vrdir.batch.results",
    "FileResult": "vrdir.batch.results",
    "ImageOptions": "vrdir.batch.results",
    "Manifest": "vrdir.batch.manifest",
    "Outcome": "vrdir.batch.results",
    "StreamReport": "vrdir.batch.results",
    "content_writer": "vrdir.batch.results",
    "plan_files": "vrdir.batch.plan",
    "process_files": "vrdir.batch.process",
}

__getattr__, __dir__ = offer(__name__, _HOMES)
