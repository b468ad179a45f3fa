"""`vrdir restore`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    Quality,
    Resume,
    Threads,
    Weights,
    allow,
    check_outputs,
    check_quality,
    manifest_of,
    one_line_errors,
    progress_bars,
    refuse_unused,
    run_files,
    suffix_of,
)
from vrdir.cli.pipes import is_piped, through_pipe

if TYPE_CHECKING:
    from vrdir.batch.results import FileJob


def restore(
    context: typer.Context,
    inputs: Inputs,
    output: Output,
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Annotated[
        Literal["float32", "bf16"],
        typer.Option(
            help="bf16 is faster where the processor computes in it, and not quite as exact."
        ),
    ] = "float32",
    file_format: Format = None,
    quality: Quality = 95,
    max_side: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Reduce larger images to this many pixels on their longer side, before they are restored.",
        ),
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Write the input and the result in one picture.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html",
            help="Write a page with each image before and after, what was changed, and what failed.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    max_megapixels: MaxMegapixels = None,
    smoothing: Annotated[
        float,
        typer.Option(
            min=0, max=0.99, help="Of videos: the share of the past, against flicker; 0 for none."
        ),
    ] = 0.8,
    strength: Annotated[
        float, typer.Option(min=0, max=2, help="How strongly: 0 not at all, 1 as trained.")
    ] = 1.0,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Remove only this, such as haze; repeat it for several."),
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Print what was wrong with every file: haze, noise, rain."),
    ] = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """Restore images and videos: files, or whole folders with names and formats kept."""
    from vrdir import __version__
    from vrdir.batch.folder_report import FolderReport, preview_px
    from vrdir.batch.plan import plan_files
    from vrdir.batch.results import PLAIN, ImageOptions
    from vrdir.images.reducing import reduced
    from vrdir.restoring.restorer import Restorer

    def make() -> Restorer:
        return Restorer(
            weights,
            device,
            backend=backend,
            precision=precision,
            strength=strength,
            only=only or None,
        )

    with one_line_errors():
        allow(max_megapixels)
        if is_piped(inputs, output):
            refuse_unused(
                context, "for one image of a pipe", "smoothing", "explain", "side-by-side", "report"
            )
            restorer = make()
            through_pipe(
                context,
                inputs,
                output,
                suffix_of(file_format),
                overwrite,
                lambda picture: restorer(reduced(picture, max_side) if max_side else picture),
                quality,
            )
            return
        others = Counter[str]()
        jobs = plan_files(inputs, output, suffix_of(file_format), videos=True, others=others)
        check_image_options(context, jobs)
        if report is not None:
            check_outputs([report], overwrite or resume)
        restorer = make()
        settings = {
            "weights": restorer.fingerprint(),
            "backend": backend,
            "format": file_format,
            "smoothing": smoothing,
        }
        options = ImageOptions(quality, max_side, side_by_side)
        settings |= {
            key: value for key, value in options._asdict().items() if value != PLAIN._asdict()[key]
        }
        page = None
        if report is not None:
            options = options._replace(preview_px=preview_px(len(jobs)))
            facts = {
                "input": ", ".join(inputs),
                "output": str(output),
                "weights": weights,
                "backend": backend,
            }
            page = FolderReport(report, facts | {"vrdir": __version__})
        manifest = manifest_of(jobs, inputs, output, "restore", settings, resume)
    with manifest or nullcontext():
        progress = progress_bars(as_json)
        results = restorer.restore_files(
            jobs, overwrite, manifest, smoothing, FrameProgress(progress, as_json), options
        )
        run_files(
            results, len(jobs), "restored", as_json, explain, manifest, progress, others, page
        )


def check_image_options(context: typer.Context, jobs: Sequence[FileJob]) -> None:
    """Raise ValueError if an option for images was given that would be passed over."""
    from vrdir.video.formats import is_video

    video = next((job.source for job in jobs if is_video(job.target)), None)
    if video is not None:
        refuse_unused(context, f"for videos, such as {video}", "max-side", "side-by-side")
    check_quality(context, jobs)
