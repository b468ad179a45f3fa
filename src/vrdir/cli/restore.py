"""`vrdir restore`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from vrdir.cli.addresses import (
    ON_RAY,
    Batch,
    Column,
    Engine,
    RayAddress,
    WorkerCpus,
    WorkerGpus,
    Workers,
    is_at_addresses,
    run_at_addresses,
)
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import (
    AsJson,
    Backend,
    Device,
    Format,
    Inputs,
    MaxMegapixels,
    MaxSide,
    Overwrite,
    Precision,
    Quality,
    Resume,
    Smoothing,
    Threads,
    Weights,
    allow,
    check_outputs,
    check_quality,
    refuse_unused,
    suffix_of,
)
from vrdir.cli.pipes import is_piped, through_pipe
from vrdir.cli.progress import FrameProgress, progress_bars
from vrdir.cli.runs import manifest_of, run_files

if TYPE_CHECKING:
    from vrdir.batch.folder_report import FolderReport
    from vrdir.batch.results import FileJob, ImageOptions
    from vrdir.restoring.restorer import Restorer

PIPE_REFUSES = ("smoothing", "explain", "side-by-side", "report")
ONLY_AT_ADDRESSES = (*ON_RAY, "column")
OF_RESTORER = ("weights", "device", "backend", "precision", "strength")

OutputOrAddress = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        help="A folder, or a file for one input file; or an address such as s3://bucket/clear.",
        show_default=False,
    ),
]
SideBySide = Annotated[
    bool, typer.Option("--side-by-side", help="Write the input and the result in one picture.")
]
ReportPath = Annotated[
    Path | None,
    typer.Option(
        "--report",
        metavar="OUT.html",
        help="Write a page with each image before and after restoring, its change, and failed "
        "files.",
    ),
]
Strength = Annotated[
    float, typer.Option(min=0, max=2, help="Strength: 0 changes nothing, 1 restores as trained.")
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Remove only this degradation, such as haze; repeat it for several."),
]
Explain = Annotated[
    bool,
    typer.Option(
        "--explain", help="Print the degradations found in every file: haze, noise, rain."
    ),
]


def restore(
    context: typer.Context,
    inputs: Inputs,
    output: OutputOrAddress,
    weights: Weights = "small",
    device: Device = "auto",
    backend: Backend = "torch",
    precision: Precision = "float32",
    file_format: Format = None,
    quality: Quality = 95,
    max_side: MaxSide = None,
    side_by_side: SideBySide = False,
    report: ReportPath = None,
    overwrite: Overwrite = False,
    resume: Resume = False,
    max_megapixels: MaxMegapixels = None,
    smoothing: Smoothing = 0.8,
    strength: Strength = 1.0,
    only: Only = None,
    explain: Explain = False,
    threads: Threads = None,
    engine: Engine = "local",
    ray_address: RayAddress = None,
    workers: Workers = "1-64",
    worker_cpus: WorkerCpus = 1,
    worker_gpus: WorkerGpus = None,
    batch: Batch = 16,
    column: Column = None,
    as_json: AsJson = False,
) -> None:
    """Restore images and videos: files, folders or addresses. Names and formats are kept."""
    from vrdir.batch.results import ImageOptions
    from vrdir.restoring.restorer import Restorer

    arguments = {name: context.params[name] for name in OF_RESTORER} | {"only": only or None}
    if is_at_addresses(inputs, output, engine):
        run_at_addresses(context, inputs, output, arguments)
        return

    def load() -> Restorer:
        return Restorer(**arguments)

    options = ImageOptions(quality, max_side, side_by_side)
    with one_line_errors():
        allow(max_megapixels)
        refuse_unused(context, "for files of this machine", *ONLY_AT_ADDRESSES)
        suffix, target = suffix_of(file_format), Path(output)
        if is_piped(inputs, target):
            restore_pipe(context, inputs, target, suffix, overwrite, load, options)
            return
    run = FileRun(**{name: context.params[name] for name in FileRun._fields})
    restore_files(context, inputs, target, load, options, run)


class FileRun(NamedTuple):
    """The options of `vrdir restore`, without those of the network and of the images.

    The fields are the options of the same names.
    """

    weights: str
    backend: str
    file_format: str | None
    smoothing: float
    report: Path | None
    overwrite: bool
    resume: bool
    explain: bool
    as_json: bool


def restore_files(
    context: typer.Context,
    inputs: Sequence[str],
    output: Path,
    load: Callable[[], Restorer],
    options: ImageOptions,
    run: FileRun,
) -> None:
    """Restore files and folders of files."""
    with one_line_errors():
        others = Counter[str]()
        jobs = plan(context, inputs, output, suffix_of(run.file_format), others)
        if run.report is not None:
            check_outputs([run.report], run.overwrite or run.resume)
        restorer = load()
        settings = settings_of(
            restorer.fingerprint(), run.backend, run.file_format, run.smoothing, options
        )
        page, options = report_page(
            run.report, len(jobs), inputs, output, run.weights, run.backend, options
        )
        manifest = manifest_of(jobs, inputs, output, "restore", settings, run.resume)
    with manifest or nullcontext():
        bars = progress_bars(run.as_json)
        frames = FrameProgress(bars, run.as_json)
        results = restorer.restore_files(
            jobs, run.overwrite, manifest, run.smoothing, frames, options
        )
        run_files(
            results, len(jobs), "restored", run.as_json, run.explain, manifest, bars, others, page
        )


def restore_pipe(
    context: typer.Context,
    inputs: Sequence[str],
    output: Path,
    suffix: str | None,
    overwrite: bool,
    load: Callable[[], Restorer],
    options: ImageOptions,
) -> None:
    """Restore one image from or to a pipe.

    Raises:
        InputError: the command cannot be carried out.
        ExistsError: the output file exists.
        typer.Exit: the image cannot be read or written.
    """
    from vrdir.images.reducing import reduced

    refuse_unused(context, "for one image of a pipe", *PIPE_REFUSES)
    restorer, max_side = load(), options.max_side
    through_pipe(
        context,
        inputs,
        output,
        suffix,
        overwrite,
        lambda picture: restorer(reduced(picture, max_side) if max_side else picture),
        options.quality,
    )


def plan(
    context: typer.Context,
    inputs: Sequence[str],
    output: Path,
    suffix: str | None,
    others: Counter[str],
) -> list[FileJob]:
    """Return the jobs, and check that the options for images have an effect on them.

    Raises:
        InputError: the inputs, the output or the options do not fit each other.
        MissingFileError: an input does not exist, or there is no image.
    """
    from vrdir.batch.plan import plan_files
    from vrdir.video.formats import is_video

    jobs = plan_files(inputs, output, suffix, videos=True, others=others)
    video = next((job.source for job in jobs if is_video(job.target)), None)
    if video is not None:
        refuse_unused(context, f"for videos, such as {video}", "max-side", "side-by-side")
    check_quality(context, jobs)
    return jobs


def settings_of(
    fingerprint: str,
    backend: str,
    file_format: str | None,
    smoothing: float,
    options: ImageOptions,
) -> dict[str, Any]:
    """Return all that decides the results of a run, for its manifest."""
    from vrdir.batch.results import PLAIN

    plain = PLAIN._asdict()
    changed = {key: value for key, value in options._asdict().items() if value != plain[key]}
    return {
        "weights": fingerprint,
        "backend": backend,
        "format": file_format,
        "smoothing": smoothing,
        **changed,
    }


def report_page(
    path: Path | None,
    files: int,
    inputs: Sequence[str],
    output: Path,
    weights: str,
    backend: str,
    options: ImageOptions,
) -> tuple[FolderReport | None, ImageOptions]:
    """Return the report page, if there is to be one, and the options with the size of previews."""
    from vrdir import __version__
    from vrdir.batch.folder_report import FolderReport, preview_px

    if path is None:
        return None, options
    facts = {
        "input": ", ".join(inputs),
        "output": str(output),
        "weights": weights,
        "backend": backend,
        "vrdir": __version__,
    }
    return FolderReport(path, facts), options._replace(preview_px=preview_px(files))
