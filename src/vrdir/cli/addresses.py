"""`vrdir restore` over addresses such as s3://bucket/folder, on this machine or on Ray."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from vrdir.cli.console import err, out
from vrdir.cli.errors import one_line_errors
from vrdir.cli.options import refuse_unused, suffix_of
from vrdir.cli.signals import Stopped, stoppable
from vrdir.errors import InputError

if TYPE_CHECKING:
    from vrdir.cluster.account import Row
    from vrdir.cluster.ray_settings import RaySettings


REFUSED = ("side-by-side", "report")

Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="local: this machine; ray: a Ray cluster (extra cluster)."),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        help="Address of the Ray cluster, or auto for the one of this machine; default: that "
        "of RAY_ADDRESS or of this machine, else one is started here.",
        show_default=False,
    ),
]
Workers = Annotated[str, typer.Option(metavar="MIN-MAX", help="Workers on Ray.")]
WorkerCpus = Annotated[float, typer.Option(min=0.1, help="Cores of each worker on Ray.")]
WorkerGpus = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="GPUs of each worker on Ray; 0.5 lets two share one. By default 1 with --device cuda, "
        "else 0.",
        show_default=False,
    ),
]
Batch = Annotated[
    int,
    typer.Option(
        min=1, help="Images that a Ray worker takes at once; if it fails, these are done again."
    ),
]
Column = Annotated[
    str | None,
    typer.Option(help="Column of Parquet tables that contains the images.", show_default=False),
]


def is_at_addresses(inputs: Sequence[str], output: str, engine: str) -> bool:
    """Return whether a run reads or writes addresses, or uses Ray."""
    return engine == "ray" or any("://" in text for text in (*inputs, output))


def run_at_addresses(
    context: typer.Context, inputs: Sequence[str], output: str, restorer: Mapping[str, Any]
) -> None:
    """Restore images at addresses, print what happened, and exit with 1 if one failed.

    With `--json` a line is printed for each finished image (JSON lines), then a summary.

    Args:
        context: holds the options of `vrdir restore`.
        inputs: addresses or paths.
        output: an address or a path.
        restorer: arguments of `vrdir.Restorer`.

    Raises:
        typer.Exit: the run cannot be carried out, an image failed, or a signal stopped it.
    """
    from vrdir.cluster.run import restore_addresses
    from vrdir.cluster.work import Options

    given = context.params
    others: Counter[str] = Counter()
    with one_line_errors():
        refuse_unused(context, "for addresses", *REFUSED)
        if given["engine"] == "ray":
            refuse_unused(context, "with --engine ray (see --worker-cpus)", "threads")
        else:
            refuse_unused(context, "without --engine ray", *ON_RAY)
        options = Options(
            restorer,
            suffix_of(given["file_format"]),
            given["quality"],
            given["max_side"],
            given["overwrite"],
            given["column"],
            given["smoothing"],
            given["max_megapixels"],
        )
        rows = restore_addresses(
            inputs,
            output,
            options,
            resume=given["resume"],
            engine=given["engine"],
            others=others,
            ray=ray_settings(given),
        )
        first = next(rows, None)
    _go_through(rows, first, others, output, given["as_json"], given["explain"])


ON_RAY = ("ray-address", "workers", "worker-cpus", "worker-gpus", "batch")


def ray_settings(given: Mapping[str, Any]) -> RaySettings:
    """Return how a Ray cluster is used, from the options of a command.

    Raises:
        InputError: --workers is neither a number nor MIN-MAX.
    """
    from vrdir.cluster.ray_settings import RaySettings

    gpus = given["worker_gpus"]
    if gpus is None:
        gpus = 1 if given["device"].startswith("cuda") else 0
    return RaySettings(
        given["ray_address"],
        workers_of(given["workers"]),
        given["worker_cpus"],
        gpus,
        given["batch"],
    )


def workers_of(text: str) -> tuple[int, int]:
    """Return the least and the most workers of "MIN-MAX", or of one number.

    Raises:
        InputError: the text is neither.
    """
    least, _, most = text.partition("-")
    try:
        workers = int(least), int(most or least)
    except ValueError:
        workers = (0, 0)
    if not 1 <= workers[0] <= workers[1]:
        raise InputError(f"--workers must be a number or MIN-MAX such as 1-64, not {text!r}")
    return workers


def _go_through(
    rows: Generator[Row, None, None],
    first: Row | None,
    others: Counter[str],
    output: str,
    as_json: bool,
    explain: bool,
) -> None:
    """Print each row when it arrives, and a summary; exit with 1 if an image failed."""
    from vrdir.images.folders import skipped

    counts: Counter[str] = Counter()
    stopped = 0
    progress = Progress(
        TextColumn("{task.completed} images"),
        TimeElapsedColumn(),
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
        err.print("[bold]stopped:[/] the same command with --resume continues from here")
        raise typer.Exit(128 + stopped)
    if counts.total() > counts["restored"]:
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
        err.print(f"[bold red]failed:[/] {_one_line(f'{row.source}: {row.error}')}")
    elif not as_json and (explain or not err.is_terminal):
        out.print(_one_line(f"{row.target}{f': {_explained(row)}' if explain else ''}"))


def _one_line(text: str) -> str:
    """Return text for the terminal, which does not obey what the names in a bucket hold."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))


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
    failed = counts.total() - counts["restored"]
    out.print(
        f"{counts['restored']} of {counts.total()} restored"
        + (f", {failed} failed (named above)" if failed else "")
    )
    if others:
        out.print(f"skipped: {escape(skipped)}")
    out.print(
        escape(f"account: {output.rstrip('/')}/.vrdir-account (Parquet, a row for each image)")
    )
