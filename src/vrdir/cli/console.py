"""What the commands share: the terminal, errors in one line, common options, files with a progress bar."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vrdir.inference.files import FileResult

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Images, folders (with all below them) or patterns.", show_default=False)
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A folder, or a file for one input file.", show_default=False)]
Weights = Annotated[str, typer.Option(help="Name of bundled weights, a model folder, or a Hugging Face repository id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Backend = Annotated[
    Literal["torch", "onnx", "openvino"],
    typer.Option(help="What runs the network. onnx and openvino run on the CPU, weights or a file that vrdir export wrote."),
]
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


def run_files(results: Iterable[FileResult], total: int, done: str, as_json: bool, explain: bool = False) -> None:
    """Go through the files with a progress bar (plain lines where there is no terminal) and report; status 1 if one failed."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    finished, failed = [], []
    with Progress(*columns, console=err, disable=as_json or not err.is_terminal) as progress:
        task = progress.add_task(done, total=total)
        for result in results:
            finished.append(result)
            if result.error is not None:
                failed.append(result)
                err.print(f"[bold red]failed:[/] {escape(result.error)}")
            elif not as_json and (explain or not err.is_terminal):
                shares = ": " + ", ".join(f"{name} {share:.0%}" for name, share in result.shares.items()) if explain else ""
                out.print(escape(f"{result.job.target}{shares}"))
            progress.advance(task)
    if as_json:
        lines = [
            {"source": str(r.job.source), "target": str(r.job.target), "error": r.error}
            | {"shares": {name: round(share, 4) for name, share in r.shares.items()}}
            for r in finished
        ]
        sys.stdout.write(json.dumps({"files": lines, "failed": len(failed)}, indent=1) + "\n")
    else:
        out.print(f"{len(finished) - len(failed)} of {len(finished)} {done}" + (f", {len(failed)} failed (named above)" if failed else ""))
    if failed:
        raise typer.Exit(1)


def suffix_of(file_format: str | None) -> str | None:
    """ ".png" for "png". Raises ImageError for a format that cannot be written."""
    from vrdir.images import format_of

    if file_format is None:
        return None
    suffix = "." + file_format.lower().removeprefix(".")
    format_of(Path("image" + suffix))
    return suffix
