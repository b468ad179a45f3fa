"""`vrdir restore`."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Annotated

import typer

from vrdir.cli.console import (
    AsJson,
    Device,
    Format,
    Inputs,
    MaxMegapixels,
    Output,
    Overwrite,
    Resume,
    Weights,
    allow,
    manifest_of,
    one_line_errors,
    run_files,
    suffix_of,
)


def restore(
    inputs: Inputs,
    output: Output,
    weights: Weights = "small",
    device: Device = "auto",
    file_format: Format = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    max_megapixels: MaxMegapixels = None,
    explain: Annotated[bool, typer.Option("--explain", help="Print the share of each degradation for every image.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore images: files, or whole folders with names and formats kept."""
    from vrdir.inference.files import plan_files
    from vrdir.inference.restorer import Restorer

    with one_line_errors():
        allow(max_megapixels)
        jobs = plan_files(inputs, output, suffix_of(file_format))
        restorer = Restorer(weights, device)
        settings = {"inputs": inputs, "weights": restorer.fingerprint(), "format": file_format}
        manifest = manifest_of(jobs, output, "restore", settings) if resume else None
    with manifest or nullcontext():
        run_files(restorer.restore_files(jobs, overwrite, manifest), len(jobs), "restored", as_json, explain, resume)
