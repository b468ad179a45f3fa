"""`vrdir plan`: the time and cost of a run over many images, estimated in advance."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from vrdir.cli.console import out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import AsJson, Device, MaxSide, Threads, Weights

if TYPE_CHECKING:
    from vrdir.cluster.estimate import Estimate


def plan(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Addresses (s3://bucket/folder, gs://, az://, https://) or folders, patterns, "
            "and text files with an address a line.",
            show_default=False,
        ),
    ],
    weights: Weights = "small",
    device: Device = "cpu",
    workers: Annotated[
        int, typer.Option(min=1, help="Number of workers of the run, each with one core or GPU.")
    ] = 1,
    price: Annotated[
        float | None,
        typer.Option(min=0, help="Price of one worker per hour.", show_default=False),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Number of images that are restored to measure the time.")
    ] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the random sample.")] = 0,
    max_side: MaxSide = None,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Count images, restore a sample on this machine, and estimate hours and costs."""
    from vrdir.cluster.estimate import estimate
    from vrdir.cluster.work import Options

    with one_line_errors():
        found = estimate(
            inputs,
            Options({"weights": weights, "device": device}, max_side=max_side),
            workers=workers,
            price=price,
            sample=sample,
            seed=seed,
        )
    if as_json:
        sys.stdout.write(json.dumps(found._asdict(), indent=1) + "\n")
    else:
        show(found, "one core of this machine" if device == "cpu" else f"--device {device}")


def show(found: Estimate, place: str) -> None:
    """Print an estimate that was measured at a place."""
    from vrdir.images.folders import skipped

    types = ", ".join(f"{count} {suffix}" for suffix, count in found.types.items())
    out.print(f"{found.images} images ({types}), {found.bytes / 1e9:.3f} GB")
    if found.skipped:
        out.print(f"other files: {skipped(found.skipped)}")
    out.print(
        f"{found.megapixels:.1f} megapixels, by {found.sampled} images"
        + (f", {found.unreadable} of which cannot be restored" if found.unreadable else "")
    )
    out.print(
        f"{found.seconds_per_megapixel:.2f} s a megapixel on {place}, "
        f"{1000 * found.read_seconds:.0f} ms to read an image"
    )
    money = "" if found.price is None else f", at a price of {_figure(found.price)}"
    workers = "1 worker" if found.workers == 1 else f"{found.workers} workers"
    out.print(f"{workers}: {_duration(found.hours)}{money}")


def _duration(hours: float) -> str:
    for name, count in (("hours", hours), ("minutes", 60 * hours)):
        if count >= 1:
            return f"{_figure(count)} {name}"
    return f"{_figure(3600 * hours)} seconds"


def _figure(value: float) -> str:
    """Return a number with two decimals, or two digits if it is less than 1."""
    return f"{value:.2f}" if value >= 1 else f"{value:.2g}"
