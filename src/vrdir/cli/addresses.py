"""`vrdir restore` over addresses such as s3://bucket/folder, on this machine or on Ray."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from vrdir.cli.console import err, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.signals import Stopped, stoppable

if TYPE_CHECKING:
    from vrdir.cluster.account import Row
    from vrdir.cluster.ray_settings import RaySettings
    from vrdir.cluster.work import Options


def restore_addresses(
    inputs: Sequence[str],
    output: str,
    options: Options,
    resume: bool,
    engine: str,
    ray: RaySettings | None,
    as_json: bool,
    explain: bool,
) -> None:
    """Restore images at addresses, print what happened, and leave with 1 if one failed.

    With `as_json` a line is printed for each image as it is finished (JSON lines), then a summary.
    """
    from vrdir.cluster import run
    from vrdir.images.folders import skipped

    others: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    stopped = 0
    with one_line_errors():
        rows = run.restore_addresses(
            inputs,
            output,
            options,
            resume=resume,
            engine="ray" if engine == "ray" else "local",
            others=others,
            ray=ray,
        )
        first = next(rows, None)
    progress = Progress(
        TextColumn("{task.completed} images"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        console=err,
        disable=as_json or not err.is_terminal,
    )
    with progress, one_line_errors():
        task = progress.add_task("", total=None)
        try:
            with stoppable(), closing(rows):
                for row in _with_first(first, rows):
                    counts[row.status] += 1
                    _show(row, as_json, explain)
                    progress.advance(task)
        except Stopped as signalled:
            stopped = signalled.number
    _summarise(counts, dict(others), skipped(others), output, as_json)
    if stopped:
        err.print("[bold]stopped:[/] the same command with --resume goes on from here")
        raise typer.Exit(128 + stopped)
    if counts["failed"] or counts["unreachable"]:
        raise typer.Exit(1)


def _with_first(first: Row | None, rows: Iterator[Row]) -> Iterator[Row]:
    if first is not None:
        yield first
        yield from rows


def _show(row: Row, as_json: bool, explain: bool) -> None:
    if as_json:
        facts = {name: value for name, value in row._asdict().items() if name != "key"}
        sys.stdout.write(json.dumps(facts) + "\n")
    if row.error:
        err.print(f"[bold red]failed:[/] {escape(f'{row.source}: {row.error}')}")
    elif not as_json and (explain or not err.is_terminal):
        out.print(escape(f"{row.target}{f': {_explained(row)}' if explain else ''}"))


def _explained(row: Row) -> str:
    haze = "" if row.haze is None else f"haze {row.haze:.0%}, "
    return f"{haze}noise {row.noise:.1f} levels, rain on {row.rain:.0%} of the pixels"


def _summarise(
    counts: Counter[str], others: dict[str, int], skipped: str, output: str, as_json: bool
) -> None:
    if as_json:
        summary: dict[str, Any] = {"summary": dict(counts), "skipped": others}
        sys.stdout.write(json.dumps(summary) + "\n")
        return
    failed = counts["failed"] + counts["unreachable"]
    out.print(
        f"{counts['restored']} of {counts.total()} restored"
        + (f", {failed} failed (named above)" if failed else "")
    )
    if others:
        out.print(f"skipped: {escape(skipped)}")
    out.print(
        escape(f"account: {output.rstrip('/')}/.vrdir-account (Parquet, a row for each image)")
    )
