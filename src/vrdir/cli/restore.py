"""`vrdir restore`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated, Literal

import typer

from vrdir.cli.console import (
    AsJson,
    Backend,
    Device,
    Format,
    FrameProgress,
    Inputs,
    MaxMegapixels,
    Output,
    Overwrite,
    Resume,
    Weights,
    allow,
    manifest_of,
    one_line_errors,
    progress_bars,
    run_files,
    suffix_of,
)


def restore(
    inputs: Inputs,
    output: Output,
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Annotated[
        Literal["float32", "bf16"], typer.Option(help="bf16 is faster where the processor computes in it, and not quite as exact.")
    ] = "float32",
    file_format: Format = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    max_megapixels: MaxMegapixels = None,
    smoothing: Annotated[float, typer.Option(min=0, max=0.99, help="Of videos: the share of the past, against flicker; 0 for none.")] = 0.8,
    explain: Annotated[bool, typer.Option("--explain", help="Print the share of each degradation for every file.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore images and videos: files, or whole folders with names and formats kept."""
    from vrdir.inference.files import plan_files
    from vrdir.inference.restorer import Restorer

    with one_line_errors():
        allow(max_megapixels)
        jobs = plan_files(inputs, output, suffix_of(file_format), videos=True)
        restorer = Restorer(weights, device, backend=backend, precision=precision)
        settings = {"weights": restorer.fingerprint(), "backend": backend, "format": file_format, "smoothing": smoothing}
        manifest = manifest_of(jobs, inputs, output, "restore", settings, resume)
    with manifest or nullcontext():
        progress = progress_bars(as_json)
        results = restorer.restore_files(jobs, overwrite, manifest, smoothing, FrameProgress(progress, as_json))
        run_files(results, len(jobs), "restored", as_json, explain, manifest, progress)
