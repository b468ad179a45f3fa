"""`vrdir restore`."""

from __future__ import annotations

from typing import Annotated

import typer

from vrdir.cli.console import AsJson, Backend, Device, Format, Inputs, Output, Overwrite, Weights, one_line_errors, run_files, suffix_of


def restore(
    inputs: Inputs,
    output: Output,
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    file_format: Format = None,
    overwrite: Overwrite = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the share of each degradation for every image.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore images: files, or whole folders with names and formats kept."""
    from vrdir.inference.files import plan_files
    from vrdir.inference.restorer import Restorer

    with one_line_errors():
        jobs = plan_files(inputs, output, suffix_of(file_format))
        restorer = Restorer(weights, device, backend=backend)
        results = restorer.restore_files(jobs, overwrite)
    run_files(results, len(jobs), "restored", as_json, explain)
