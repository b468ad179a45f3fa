"""A run over many files on the command line: progress, messages, summary, exit status."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import FAILED, one_line_errors
from vrdir.cli.json_output import print_json, result_facts
from vrdir.cli.progress import progress_bars
from vrdir.cli.signals import Stopped, stoppable
from vrdir.errors import InputError

if TYPE_CHECKING:
    from rich.progress import Progress

    from vrdir.batch.folder_report import FolderReport
    from vrdir.batch.manifest import Manifest
    from vrdir.batch.results import FileJob, FileResult, StreamReport


def manifest_of(
    jobs: Sequence[FileJob],
    inputs: Sequence[str],
    output: Path,
    command: str,
    settings: Mapping[str, Any],
    resume: bool,
) -> Manifest | None:
    """Return the manifest in the output folder.

    Without `resume` it is kept until the end of the run, so that an interrupted run can be resumed.
    None if there is nothing to resume: the output is one file; or, without `resume`, the folder has
    the manifest of another run.

    Raises:
        InputError: with `resume`, the output is one file, or as for `Manifest`.
    """
    from vrdir.batch.manifest import Manifest

    if jobs[0].target == output:
        if resume:
            raise InputError(f"{output} is one file; --resume needs a folder of results")
        return None
    # The real path, because "." is another folder in another working directory.
    given = {"inputs": [os.path.realpath(given) for given in inputs], **settings}
    try:
        return Manifest(output, command, given, resume)
    except InputError:
        if resume:
            raise
        return None


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
    """Process files with a progress bar (lines without a terminal), and print the results.

    A manifest that was only kept for an interruption is removed when all files are finished.

    Args:
        results: of the files; closed at the end.
        total: the number of files.
        done: what was done to them, such as "restored".
        as_json: print JSON at the end, and nothing else.
        explain: print the degradations of each file.
        manifest: of the run.
        progress: the bars; None makes new ones.
        others: files that were left out, by suffix.
        report: the report page, which is written at the end, also after a signal.

    Raises:
        typer.Exit: with status 1 if a file failed, 130 or 143 if a signal stopped the run.
    """
    from vrdir.atomic import remove_partials

    run = FileRun(total, done, as_json, explain, manifest, others, report)
    stopped = 0

    def give_up(number: int) -> None:
        run.finish(number)
        sys.stdout.flush()
        remove_partials()
        os._exit(128 + number)

    with progress or progress_bars(as_json) as bars:
        task = bars.add_task("", total=total)
        try:
            # Closed here, whatever ends the loop: running files are finished and recorded before
            # the caller closes the manifest.
            with stoppable(give_up), closing(results):
                for result in results:
                    run.add(result)
                    bars.advance(task)
        except Stopped as signalled:
            stopped = signalled.number
    left = run.finish(stopped)
    if manifest is not None and manifest.new and not manifest.resume and not left:
        manifest.discard()
    if stopped:
        raise typer.Exit(128 + stopped)
    if run.counts["failed"]:
        raise typer.Exit(FAILED)


class FileRun:
    """The results of a run so far, and what is printed of them; arguments as for `run_files`."""

    def __init__(
        self,
        total: int,
        done: str,
        as_json: bool,
        explain: bool,
        manifest: Manifest | None,
        others: Mapping[str, int],
        report: FolderReport | None,
    ) -> None:
        from vrdir.batch.folder_report import Summary

        self.total, self.done, self.as_json, self.explain = total, done, as_json, explain
        self.manifest, self.others, self.report = manifest, others, report
        self.counts = Counter[str]()
        self.summary = Summary()
        self.facts: list[dict[str, Any]] = []

    def add(self, result: FileResult) -> None:
        """Count and print the result of a file."""
        self.counts[_kind(result)] += 1
        self.summary.add(result)
        if self.report is not None:
            self.report.add(result)
        if self.as_json:
            self.facts.append(result_facts(result))
        if result.error is not None:
            err.print(f"[bold red]failed:[/] {escape(result.error)}")
        elif not self.as_json and not result.earlier:
            self._print_file(result)
        if result.video and result.video.damaged:
            warning = f"{result.job.source}: {damage(result.video)}"
            err.print(f"[bold yellow]warning:[/] {escape(warning)}")

    def _print_file(self, result: FileResult) -> None:
        if self.explain or result.video or not err.is_terminal:
            found = f": {explained(result)}" if self.explain else ""
            video = f": {result.video}" if result.video else ""
            out.print(escape(f"{result.job.target}{found}{video}"))

    def finish(self, stopped: int) -> int:
        """Print the summary, and write the report page.

        Args:
            stopped: the number of the signal that stopped the run, 0 for none.

        Returns:
            How many files are left.
        """
        from vrdir.images.folders import skipped

        left = self.total - self.counts.total()
        line = self._in_one_line(left)
        if self.as_json:
            failed = self.counts["failed"]
            print_json(
                {"files": self.facts, "failed": failed, "left": left, "skipped": dict(self.others)}
            )
        else:
            out.print(line)
            if str(self.summary):
                out.print(escape(self.summary))
            if self.others:
                out.print(f"skipped: {escape(skipped(self.others))}")
        if self.report is not None:
            self.report.skipped = skipped(self.others)
            with one_line_errors():
                self.report.write(line.replace(" (named above)", ""))
        if left:
            err.print(f"[bold]{'stopped' if stopped else 'given up'}:[/] {self._how_to_resume()}")
        return left

    def _in_one_line(self, left: int) -> str:
        earlier, failed = self.counts["earlier"], self.counts["failed"]
        parts = [
            f", {earlier} of them earlier" if earlier else "",
            f", {failed} failed (named above)" if failed else "",
            f", {left} left" if left else "",
        ]
        return f"{self.counts['done'] + earlier} of {self.total} {self.done}{''.join(parts)}"

    def _how_to_resume(self) -> str:
        if self.manifest is None:
            return "--overwrite starts over"
        option = "" if self.manifest.resume else "with --resume "
        return f"the same command {option}continues from here"


def _kind(result: FileResult) -> str:
    if result.error is not None:
        return "failed"
    return "earlier" if result.earlier else "done"


def explained(result: FileResult) -> str:
    """Return the degradations of a file, in physical terms if the network measures haze."""
    shares = ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items())
    if result.diagnosis is None:
        return shares
    if result.diagnosis.haze is None:
        return f"{shares}; {result.diagnosis}"
    return str(result.diagnosis)


def damage(report: StreamReport) -> str:
    """Return which frames of a video are damaged, in words."""
    shown = ", ".join(map(str, report.damaged_frames[:10]))
    more = ", ..." if report.damaged > 10 else ""
    return (
        f"{report.damaged} of {report.frames} frames are damaged (from 0: {shown}{more}); "
        "each is replaced by the last good one"
    )
