"""Progress of an evaluation: a bar on a terminal."""

from __future__ import annotations

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from vrdir.cli.console import err
from vrdir.cli.progress import name_column


def progress_bar(as_json: bool) -> Progress:
    """Return a bar with the name of what is measured; it is hidden beside JSON and in pipes."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        name_column(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=err, disable=as_json or not err.is_terminal)


def prints_lines(as_json: bool) -> bool:
    """Return whether lines are printed in place of a bar: in pipes, unless JSON is requested."""
    return not as_json and not err.is_terminal
