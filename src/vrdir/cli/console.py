"""What the commands share: the terminal, errors in one line, common options, files with a progress bar."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vrdir.inference.files import FileJob, FileResult
    from vrdir.inference.stream import StreamReport

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Files, folders (with all below them) or patterns.", show_default=False)
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A folder, or a file for one input file.", show_default=False)]
Weights = Annotated[str, typer.Option(help="Name of bundled weights, a model folder, or a Hugging Face repository id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Format = Annotated[str | None, typer.Option("--format", help="File format of the results, such as png; default: each file's own.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say in a line what went wrong: status 2 for what cannot be done as asked, 1 for what failed on the way."""
    try:
        yield
    except typer.Exit:  # a RuntimeError to some versions
        raise
    except (ValueError, FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError) as error:
        fail(error, 2)
    except (OSError, RuntimeError, ArithmeticError, MemoryError) as error:
        fail(" ".join(str(error).split()) or type(error).__name__, 1)


def fail(message: object, status: int) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}")
    raise typer.Exit(status)


def escape(text: object) -> str:
    from rich.markup import escape as rich_escape

    return rich_escape(str(text))


def check_outputs(paths: Sequence[Path], overwrite: bool) -> None:
    """Whether results can be written, before time is spent on them.

    Raises:
        ValueError: two are one file, or one is a folder or lies where nothing can be written.
        FileExistsError: one exists and may not be replaced.
    """
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError(f"{paths[0]} cannot hold two results; give them different names")
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; replace it by --overwrite, or choose another name")
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ValueError(f"{path} cannot be written: {parent} is no folder, or one without permission")


def progress_bars(as_json: bool) -> Progress:
    """The bar over the files, and below it those of long ones; nothing where there is no terminal."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.description}"), console=err, disable=as_json or not err.is_terminal)


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
            self.task = self.progress.add_task(escape(job.source.name), total=total)
        assert self.task is not None
        self.progress.update(self.task, completed=done)
        if self.lines and now - self.last_line >= self.LINES_APART:
            self.last_line = now
            left = f" of {total}, {(now - self.start) / done * max(total - done, 0):.0f} s left" if total else ""
            err.print(escape(f"{job.source}: {done} frames{left}"))


def run_files(
    results: Iterable[FileResult], total: int, done: str, as_json: bool, explain: bool = False, progress: Progress | None = None
) -> None:
    """Go through the files with a progress bar (plain lines where there is no terminal) and report; status 1 if one failed."""
    finished, failed = [], []
    with progress or progress_bars(as_json) as bars:
        task = bars.add_task("", total=total)
        for result in results:
            finished.append(result)
            if result.error is not None:
                failed.append(result)
                err.print(f"[bold red]failed:[/] {escape(result.error)}")
            elif not as_json and (explain or result.video or not err.is_terminal):
                shares = ": " + ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items()) if explain else ""
                out.print(escape(f"{result.job.target}{shares}{f': {result.video}' if result.video else ''}"))
            if result.video and result.video.damaged:
                err.print(f"[bold yellow]warning:[/] {escape(f'{result.job.source}: {damage(result.video)}')}")
            bars.advance(task)
    if as_json:
        lines = [
            {"source": str(r.job.source), "target": str(r.job.target), "error": r.error}
            | {"shares": {name: round(share, 4) for name, share in r.shares.items()}}
            | ({"video": video_facts(r.video)} if r.video else {})
            for r in finished
        ]
        sys.stdout.write(json.dumps({"files": lines, "failed": len(failed)}, indent=1) + "\n")
    else:
        out.print(f"{len(finished) - len(failed)} of {len(finished)} {done}" + (f", {len(failed)} failed (named above)" if failed else ""))
    if failed:
        raise typer.Exit(1)


def damage(report: StreamReport) -> str:
    """Which frames are damaged, in words."""
    shown = ", ".join(map(str, report.damaged_frames[:10])) + (", ..." if report.damaged > 10 else "")
    return f"{report.damaged} of {report.frames} frames are damaged (from 0: {shown}); the last good one stands in for each"


def video_facts(report: StreamReport) -> dict[str, Any]:
    """A report as JSON has it."""
    facts = {"frames": report.frames, "damaged": report.damaged, "damaged_frames": report.damaged_frames, "cuts": report.cuts}
    latency = {"mean": round(report.mean_ms, 2), "median": round(report.median_ms, 2), "p95": round(report.p95_ms, 2)}
    return facts | {
        "seconds": round(report.seconds, 3),
        "frames_per_second": round(report.frames_per_second, 2),
        "latency_ms": latency,
    }


def suffix_of(file_format: str | None) -> str | None:
    """ ".png" for "png". Raises ImageError for a format that cannot be written."""
    from vrdir.images import format_of

    if file_format is None:
        return None
    suffix = "." + file_format.lower().removeprefix(".")
    format_of(Path("image" + suffix))
    return suffix
