"""Results of `vrdir evaluate restoration` on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from vrdir.cli.console import escape, out

if TYPE_CHECKING:
    from vrdir.evaluation.restoration.protocol import ExcludedPair, Measured, SetResult


def pair_line(rows: Sequence[Measured | ExcludedPair], restorers: Sequence[str]) -> str:
    """Return the result of a pair as "name  20.00 -> 25.00 dB".

    With several restorers the name of each is before its figure.
    """
    from vrdir.evaluation.restoration.metrics import MAIN
    from vrdir.evaluation.restoration.protocol import Measured
    from vrdir.evaluation.restoration.restorers import pair_name

    done = [row for row in rows if isinstance(row, Measured)]
    before = MAIN.shown(done[0].degraded[MAIN.key])
    after = [MAIN.shown(row.restored[MAIN.key]) for row in done]
    if len(done) > 1:
        after = [f"{name} {figure}" for name, figure in zip(restorers, after, strict=True)]
    return f"{pair_name(done[0].pair)}  {before} -> {', '.join(after)} {MAIN.unit}"


def print_table(results: Sequence[SetResult]) -> None:
    """Print a line per set and group of channels, a column per restorer; verdicts."""
    from vrdir.evaluation.restoration.summary import by_set, comparisons, verdict

    sets = by_set(results)
    several = len(sets[0]) > 1
    out.print(_table(sets, [result.restorer for result in sets[0]] if several else ["out"]))
    for of_set in sets:
        for result in of_set:
            name = f"{result.name}, {result.restorer}" if several else result.name
            out.print(f"{escape(name)}: {escape(verdict(result))}")
        for sentence in comparisons(of_set):
            out.print(f"{escape(of_set[0].name)}: {escape(sentence)}")


def _table(sets: Sequence[Sequence[SetResult]], restorers: Sequence[str]) -> Table:
    from vrdir.evaluation.restoration.metrics import SUMMARISED
    from vrdir.evaluation.restoration.summary import mean_cells, set_label

    by_label = {metric.label: metric.key for metric in SUMMARISED}
    names = dict.fromkeys(label.partition(", ")[0] for label in by_label)
    channels = dict.fromkeys(label.partition(", ")[2] for label in by_label)
    with_excluded = any(result.excluded for of_set in sets for result in of_set)
    table = Table("set", "", "images", *(["excluded"] if with_excluded else []))
    for name in names:
        for head in (f"{name} in", *map(escape, restorers)):
            table.add_column(head, justify="right")
    for of_set in sets:
        cells = mean_cells(of_set)
        counts = [str(len(of_set[0].images)), str(len(of_set[0].excluded))]
        first = [escape(set_label(of_set[0])), *counts[: 1 + with_excluded]]
        empty = [""] * (1 + len(restorers))
        for channel in channels:
            keys = [by_label.get(f"{name}, {channel}", "") for name in names]
            figures = [cell for key in keys for cell in cells.get(key, empty)]
            table.add_row(first[0], channel, *first[1:], *figures)
            first = [""] * len(first)
    return table
