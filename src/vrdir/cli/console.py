"""What the commands share: the terminal, errors in one line, common options, files with a progress bar."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from vrdir.batch.folder_report import FolderReport
    from vrdir.batch.manifest import Manifest
    from vrdir.batch.results import FileJob, FileResult, StreamReport
    from vrdir.restoring.restorer import Restorer

# Without emoji: file names and "list:100:" are to stay as they are.
out, err = (
    Console(stderr=errors, highlight=False, soft_wrap=True, emoji=False) for errors in (False, True)
)


def wait_quietly() -> None:
    """Have threads that wait for work sleep. Theirs is to spin, which takes a processor from whatever else runs.

    OpenMP reads this when torch is loaded, so it comes before; whoever has set the policy is not overruled.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's go on for 200 ms else


def use_threads(threads: int | None) -> int | None:
    """Compute with as many threads as asked for, here and in processes that are started."""
    if threads is not None:
        import torch

        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    return threads


Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="INPUT...",
        help="Files, folders (with all below them) or patterns.",
        show_default=False,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", help="A folder, or a file for one input file.", show_default=False
    ),
]
Weights = Annotated[
    str,
    typer.Option(help="Name of bundled weights, a model folder, or a Hugging Face repository id."),
]
SeveralWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="[NAME=]WEIGHTS",
        help="Bundled weights, a model folder, or a Hugging Face repository id; small by default. Repeat it for a column each.",
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Backend = Annotated[
    Literal["torch", "onnx", "openvino"],
    typer.Option(
        help="What runs the network. onnx and openvino run on the CPU, weights or a file that vrdir export wrote."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="File format of the results, such as png; default: each file's own."
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Keep a manifest in the output folder; the same command again goes on where a run was stopped.",
    ),
]
Quality = Annotated[
    int,
    typer.Option(
        min=1,
        max=100,
        help="Of results in JPEG, WebP, AVIF and HEIC: larger files of better quality, or smaller ones.",
    ),
]
MaxMegapixels = Annotated[
    float | None,
    typer.Option(
        help="Open pictures of up to so many megapixels; 179 by default, as larger ones are mostly malicious."
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=use_threads,
        help="Compute with so many threads; default: one for each processor core.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say in a line what went wrong: status 2 for what cannot be done as asked, 1 for what failed on the way, 130 or 143 for a signal."""
    try:
        yield
    except Stopped as signalled:
        fail("stopped", 128 + signalled.number)
    except typer.Exit:  # a RuntimeError to some versions
        raise
    except BrokenPipeError:  # of the output, as by `| head`: `vrdir.__main__` ends quietly
        raise
    except (
        ValueError,
        FileNotFoundError,
        FileExistsError,
        PermissionError,
        NotADirectoryError,
    ) as error:
        fail(error, 2)
    except (OSError, RuntimeError, ArithmeticError, MemoryError) as error:
        fail(" ".join(str(error).split()) or type(error).__name__, 1)


def fail(message: object, status: int) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(status)


def escape(text: object) -> str:
    from rich.markup import escape as rich_escape

    return rich_escape(printable(text))


def printable(text: object) -> str:
    """Text of which a file's name is a part: that need not be UTF-8; what is not is shown as \\udcff."""
    return str(text).encode("utf-8", "backslashreplace").decode()


def name_column() -> TextColumn:
    """The column of a progress bar that holds what is at work, as it is: `printable`, not markup."""
    return TextColumn("{task.description}", markup=False)


def check_outputs(paths: Sequence[Path], overwrite: bool) -> None:
    """Whether results can be written, before time is spent on them.

    Raises:
        ValueError: two are one file, or one is a folder or lies where nothing can be written.
        FileExistsError: one exists and may not be replaced.
    """
    from vrdir.images.folders import check_writable

    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"{paths[0]} cannot hold two results; give them different names")
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise FileExistsError(
                f"{path} exists; replace it by --overwrite, or choose another name"
            )
        check_writable(path, path.parent)


def refuse_unused(context: typer.Context, why: str, *options: str) -> None:
    """Raise ValueError if one of these options was given: what it asks for would be passed over."""
    for option in options:
        source = context.get_parameter_source(option.replace("-", "_"))
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"--{option} is of no use {why}; leave it out")


def networks_of(weights: Sequence[str], device: str) -> tuple[dict[str, Restorer], dict[str, Any]]:
    """The networks that `--weights` names, and the facts of them for a report.

    One is called vrdir. Several are called as their NAME= has it, or as the last part of their name.

    Raises:
        FileNotFoundError, ValueError: there are no such weights or device, or two have one name.
    """
    if not weights:
        return {}, {}
    import torch

    from vrdir.model.vrdir import WEIGHTS_FILE
    from vrdir.restoring.restorer import Restorer
    from vrdir.weights.bundled import resolve_weights, sha256

    networks: dict[str, Restorer] = {}
    facts: dict[str, Any] = {"torch": torch.__version__}
    for text in weights:
        given, value = name_and_value(text)
        name = given or ("vrdir" if len(weights) == 1 else Path(value).name or value)
        if name in (*networks, "nothing"):
            raise ValueError(
                f"--weights {text}: the name {name!r} is taken; give it another: --weights NAME=WEIGHTS"
            )
        networks[name] = Restorer(value, device)
        of = "" if name == "vrdir" else f" {name}"
        facts |= {"device": str(networks[name].device), f"weights{of}": value}
        facts[f"sha256{of}"] = sha256(resolve_weights(value) / WEIGHTS_FILE)
    return networks, facts


def name_and_value(text: str) -> tuple[str, str]:
    """`NAME=VALUE` in two; ("", text) for a value alone, which may be a path with such a sign in it."""
    name, equals, value = text.partition("=")
    return (name, value) if equals and name and value and not Path(text).exists() else ("", text)


def shown_facts(facts: Mapping[str, Any]) -> dict[str, str]:
    """Facts as pages show them: of a hash its beginning."""
    return {
        key: str(value)[:12] if key.startswith("sha256") else str(value)
        for key, value in facts.items()
    }


def manifest_of(
    jobs: Sequence[FileJob],
    inputs: Sequence[str],
    output: Path,
    command: str,
    settings: Mapping[str, Any],
    resume: bool,
) -> Manifest | None:
    """The manifest in the output folder. Without `resume` it is kept until the end, so that an interrupted run can be resumed.

    None if there is nothing to resume: the output is one file; or, without `resume`, the folder has the manifest of another run.

    Raises:
        ValueError: with `resume`, the output is one file, or as `Manifest`.
    """
    from vrdir.batch.manifest import Manifest

    if jobs[0].target == output:
        if resume:
            raise ValueError(f"{output} is one file; --resume is for a folder of results")
        return None
    # "." is another folder in another working directory. The real path may have a pattern's stars in it.
    given = {"inputs": [os.path.realpath(given) for given in inputs], **settings}
    try:
        return Manifest(output, command, given, resume)
    except ValueError:
        if resume:
            raise
        return None


def check_quality(context: typer.Context, jobs: Sequence[FileJob]) -> None:
    """Raise ValueError if --quality was given and no result is of a format that has one."""
    from vrdir.errors import ImageError
    from vrdir.images.formats import WITH_QUALITY
    from vrdir.images.writing import format_of

    def may_have_one(target: Path) -> bool:
        try:
            return format_of(target) in WITH_QUALITY
        except ImageError:  # whose file will fail, and say why
            return True

    if not any(may_have_one(job.target) for job in jobs):
        refuse_unused(
            context, "here, where no result is a JPEG, WebP, AVIF or HEIC file", "quality"
        )


def allow(max_megapixels: float | None) -> None:
    if max_megapixels is not None:
        from vrdir.images.reading import allow_megapixels

        allow_megapixels(max_megapixels)


def quiet_pillow() -> None:
    """Hide Pillow's warnings, which name lines of its source and no file: readers and writers here say what matters of a file."""
    if not sys.warnoptions:  # `python -W` and PYTHONWARNINGS ask for them
        warnings.filterwarnings("ignore", module=r"PIL\.")


GRACE = 1.5  # seconds for what is at work when a signal comes


class Stopped(BaseException):
    """A signal asked the command to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def stoppable(give_up: Callable[[int], None] | None = None) -> Iterator[None]:
    """Raise Stopped for the signals of Ctrl-C and of a system that shuts down, so that temporary
    files are removed on the way out.

    What then waits for work that no signal reaches has GRACE seconds; `give_up` is called after
    that, with the signal's number.
    """
    timers: list[threading.Timer] = []

    def stop(number: int, frame: object) -> None:
        if timers:  # on the way out already
            return
        if give_up is not None:
            timers.append(threading.Timer(GRACE, give_up, [number]))
            timers[0].daemon = True
            timers[0].start()
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for timer in timers:
            # A thread that was begun just as the signal came is one of which its pool knows nothing.
            while timer.is_alive() and any(
                thread.name.startswith("file_") for thread in threading.enumerate()
            ):
                time.sleep(0.02)
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bars(as_json: bool) -> Progress:
    """The bar over the files, and below it those of long ones; nothing where there is no terminal."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, name_column(), console=err, disable=as_json or not err.is_terminal)


class FrameProgress:
    """How far the video at hand is: a bar, or where there is no terminal a line now and then. Call it after each frame."""

    LINES_APART = 30  # seconds

    def __init__(self, progress: Progress, as_json: bool) -> None:
        self.progress = progress
        self.lines = not as_json and not err.is_terminal
        self.job: FileJob | None = None
        self.task: TaskID | None = None

    def __call__(self, job: FileJob, done: int, total: int | None) -> None:
        now = time.monotonic()
        if job is not self.job:
            if self.task is not None:
                self.progress.remove_task(self.task)
            self.job, self.start, self.last_line = job, now, now
            self.task = self.progress.add_task(printable(job.source.name), total=total)
        assert self.task is not None
        self.progress.update(self.task, completed=done)
        if self.lines and now - self.last_line >= self.LINES_APART:
            self.last_line = now
            left = (
                f" of {total}, {(now - self.start) / done * max(total - done, 0):.0f} s left"
                if total
                else ""
            )
            err.print(escape(f"{job.source}: {done} frames{left}"))


def run_files(
    results: Generator[FileResult, None, None],
    total: int,
    done: str,
    as_json: bool,
    explain: bool = False,
    manifest: Manifest | None = None,
    progress: Progress | None = None,
    others: Mapping[str, int] = {},
    report: FolderReport | None = None,
) -> None:
    """Go through the files with a progress bar (plain lines where there is no terminal) and report.

    The results are closed at the end; a manifest that was only for resuming is removed where all was done.
    The page of a report is written at the end, also of a run that was stopped. `others` are the
    files that were left out, by suffix.

    Exit status 1 if one failed, 130 or 143 if a signal stopped it.
    """
    from vrdir.atomic import remove_partials
    from vrdir.batch.folder_report import Summary
    from vrdir.images.folders import skipped

    counts, stopped, summary = Counter[str](), 0, Summary()
    lines: list[dict[str, Any]] = []

    def tell(stopped: int) -> int:
        left = total - counts.total()
        parts = [
            f", {counts['earlier']} of them earlier" if counts["earlier"] else "",
            f", {counts['failed']} failed (named above)" if counts["failed"] else "",
            f", {left} left" if left else "",
        ]
        became = f"{counts['done'] + counts['earlier']} of {total} {done}{''.join(parts)}"
        if as_json:
            content = {
                "files": lines,
                "failed": counts["failed"],
                "left": left,
                "skipped": dict(others),
            }
            sys.stdout.write(json.dumps(content, indent=1) + "\n")
        else:
            out.print(became)
            if str(summary):
                out.print(escape(summary))
            if others:
                out.print(f"skipped: {escape(skipped(others))}")
        if report is not None:
            report.skipped = skipped(others)
            with one_line_errors():
                report.write(became.replace(" (named above)", ""))
        if left:
            resumed = f"the same command {'' if manifest and manifest.resume else 'with --resume '}goes on from here"
            how = resumed if manifest else "--overwrite starts over"
            err.print(f"[bold]{'stopped' if stopped else 'given up'}:[/] {how}")
        return left

    def give_up(number: int) -> None:
        tell(number)
        sys.stdout.flush()
        remove_partials()
        os._exit(128 + number)

    with progress or progress_bars(as_json) as bars:
        task = bars.add_task("", total=total)
        try:
            # Closed here, whatever stops the loop: what is at work is finished and noted before the caller closes the manifest.
            with stoppable(give_up), closing(results):
                for result in results:
                    counts[
                        "failed"
                        if result.error is not None
                        else "earlier"
                        if result.earlier
                        else "done"
                    ] += 1
                    summary.add(result)
                    if report is not None:
                        report.add(result)
                    if as_json:
                        lines.append(_machine_readable(result))
                    if result.error is not None:
                        err.print(f"[bold red]failed:[/] {escape(result.error)}")
                    elif (
                        not as_json
                        and not result.earlier
                        and (explain or result.video or not err.is_terminal)
                    ):
                        found = f": {explained(result)}" if explain else ""
                        video = f": {result.video}" if result.video else ""
                        out.print(escape(f"{result.job.target}{found}{video}"))
                    if result.video and result.video.damaged:
                        err.print(
                            f"[bold yellow]warning:[/] {escape(f'{result.job.source}: {damage(result.video)}')}"
                        )
                    bars.advance(task)
        except Stopped as signalled:
            stopped = signalled.number
    left = tell(stopped)
    if manifest is not None and manifest.new and not manifest.resume and not left:
        manifest.discard()
    if stopped:
        raise typer.Exit(128 + stopped)
    if counts["failed"]:
        raise typer.Exit(1)


def explained(result: FileResult) -> str:
    """What was wrong with a file: in physical terms where the network knows them, else the shares."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items())
    if result.diagnosis is None:
        return shares
    return (
        str(result.diagnosis)
        if result.diagnosis.haze is not None
        else f"{shares}; {result.diagnosis}"
    )


def _machine_readable(result: FileResult) -> dict[str, Any]:
    shares = {name: round(share, 4) for name, share in result.shares.items()}
    facts: dict[str, Any] = {
        "source": str(result.job.source),
        "target": str(result.job.target),
        "error": result.error,
        "shares": shares,
    }
    facts |= {"change": round(result.change, 3)} if result.change is not None else {}
    if result.diagnosis is not None:
        found = result.diagnosis._asdict().items()
        facts["diagnosis"] = {
            key: None if value is None else round(value, 4) for key, value in found
        }
    return facts | ({"video": video_facts(result.video)} if result.video else {})


def damage(report: StreamReport) -> str:
    """Which frames are damaged, in words."""
    shown = ", ".join(map(str, report.damaged_frames[:10])) + (
        ", ..." if report.damaged > 10 else ""
    )
    return f"{report.damaged} of {report.frames} frames are damaged (from 0: {shown}); the last good one stands in for each"


def video_facts(report: StreamReport) -> dict[str, Any]:
    """A report as JSON has it."""
    facts = {
        "frames": report.frames,
        "damaged": report.damaged,
        "damaged_frames": report.damaged_frames,
        "cuts": report.cuts,
    }
    latency = {
        "mean": round(report.mean_ms, 2),
        "median": round(report.median_ms, 2),
        "p95": round(report.p95_ms, 2),
    }
    return facts | {
        "seconds": round(report.seconds, 3),
        "frames_per_second": round(report.frames_per_second, 2),
        "latency_ms": latency,
    }


def suffix_of(file_format: str | None) -> str | None:
    """ ".png" for "png". Raises ImageError for a format that cannot be written."""
    from vrdir.images.writing import format_of

    if file_format is None:
        return None
    suffix = "." + file_format.lower().removeprefix(".")
    format_of(Path("image" + suffix))
    return suffix
