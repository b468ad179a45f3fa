"""Progress: a bar over all files, and one for the frames of a video."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vrdir.cli.console import err, escape, printable

if TYPE_CHECKING:
    from vrdir.batch.results import FileJob


def name_column() -> TextColumn:
    """Return the column with the name of a file, which is shown literally, without markup."""
    return TextColumn("{task.description}", markup=False)


def progress_bars(as_json: bool) -> Progress:
    """Return the bars, which are shown only in a terminal."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, name_column(), console=err, disable=as_json or not err.is_terminal)


class FrameProgress:
    """The progress of the current video: a bar, or now and then a line without a terminal.

    Call it after each frame with the job and the numbers of finished and of all frames (or None).
    """

    LINES_APART = 30  # seconds

    def __init__(self, progress: Progress, as_json: bool) -> None:
        self.progress = progress
        self.lines = not as_json and not err.is_terminal
        self.job: FileJob | None = None
        self.task: TaskID | None = None

    def __call__(self, job: FileJob, done: int, total: int | None) -> None:
        """Show a finished frame."""
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
            left = ""
            if total:
                seconds = (now - self.start) / done * max(total - done, 0)
                left = f" of {total}, {seconds:.0f} s left"
            err.print(escape(f"{job.source}: {done} frames{left}"))
