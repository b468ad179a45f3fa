"""`vrdir evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from vrdir.cli.console import (
    AsJson,
    Device,
    Overwrite,
    Threads,
    Weights,
    check_outputs,
    err,
    escape,
    fail,
    name_column,
    one_line_errors,
    out,
    printable,
    refuse_unused,
)
from vrdir.cli.recognition import evaluate_recognition

if TYPE_CHECKING:
    from vrdir.data.pairs import Pair
    from vrdir.evaluation.restoration import Excluded, Measured, Restore, SetResult

evaluate_app = typer.Typer(help="Measure restored images, and what recognisers make of them.", no_args_is_help=True)
for task in ("classification", "detection", "reid"):
    evaluate_app.command(task)(evaluate_recognition(task))


@evaluate_app.command("restoration")
def evaluate_restoration(
    context: typer.Context,
    pairs: Annotated[
        list[str],
        typer.Option(metavar="[NAME=]LIST", help="A pair list, lines degraded|clean; repeat it for several sets.", show_default=False),
    ],
    weights: Weights = "small",
    device: Device = "auto",
    restored: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Run no network: the restored images lie here, under the names of the degraded ones."),
    ] = None,
    csv: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line per image.")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="OUT.html", help="Write a page with verdicts, plots, and the worst, median and best as pictures.")
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """PSNR and SSIM before and after restoring, in RGB and in Y, per image and per set, on whole images."""
    from vrdir.image_files.whole_files import ImageError
    from vrdir.image_files.writing import write_file

    with one_line_errors():
        try:
            from vrdir.evaluation import restoration_report
        except ModuleNotFoundError as error:
            raise ValueError(f"evaluating needs more packages ({error.name} is missing): pip install 'vrdir[evaluate]'") from None
        check_outputs([path for path in (csv, report) if path is not None], overwrite)
        if restored is not None:
            refuse_unused(context, "with --restored, where no network runs", "weights", "device")
        sets = read_sets(pairs)
        restore, facts = choose_restorer([pair for _, listed in sets.values() for pair in listed], weights, device, restored)
    results = measured(sets, restore, as_json)
    if as_json:
        sys.stdout.write(json.dumps(restoration_report.as_json(results, facts), indent=1) + "\n")
    else:
        print_table(results)
    try:
        if csv is not None:
            write_file(restoration_report.as_csv(results).encode("utf-8", "surrogateescape"), csv)
        if report is not None:
            shown = {key: str(value)[:12] if key == "sha256" else str(value) for key, value in facts.items()}
            page = restoration_report.as_page(results, shown, restore)
            write_file(page.encode("utf-8", "replace"), report)
    except ImageError as error:  # not as asked, but on the way: status 1
        fail(error, 1)
    if any(result.excluded for result in results):
        raise typer.Exit(1)


def read_sets(given: Sequence[str]) -> dict[str, tuple[Path, list[Pair]]]:
    """`NAME=LIST`, or `LIST` alone, whose stem is the name then -> each set's list file and its pairs.

    Raises:
        FileNotFoundError, ValueError: no such list, one that cannot be read, or two of one name.
    """
    from vrdir.data.pairs import read_pairs

    sets: dict[str, tuple[Path, list[Pair]]] = {}
    for text in given:
        name, equals, rest = text.partition("=")
        named = bool(equals and name and rest) and not Path(text).exists()
        path = Path(rest if named else text)
        name = name if named else path.stem
        if name in sets:
            raise ValueError(f"{sets[name][0]} and {path} are both called {name!r}; name them: --pairs NAME=LIST")
        sets[name] = (path, read_pairs(path))
    return sets


def choose_restorer(pairs: Sequence[Pair], weights: str, device: str, restored: Path | None) -> tuple[Restore, dict[str, Any]]:
    """How images are restored, and the facts of it for the reports.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, device or folder; or the folder cannot hold one for each pair.
    """
    from vrdir import __version__
    from vrdir.evaluation.restoration import by_network, check_restored_names, from_folder
    from vrdir.inference.restorer import Restorer
    from vrdir.model.vrdir import WEIGHTS_FILE
    from vrdir.weights.bundled import resolve_weights, sha256

    facts: dict[str, Any] = {"vrdir": __version__}
    if restored is not None:
        restore = from_folder(restored)
        check_restored_names(pairs)
        return restore, facts | {"restored": str(restored)}
    import torch

    restorer = Restorer(weights, device)
    digest = sha256(resolve_weights(weights) / WEIGHTS_FILE)
    return by_network(restorer), facts | {"torch": torch.__version__, "device": str(restorer.device), "weights": weights, "sha256": digest}


def measured(sets: dict[str, tuple[Path, list[Pair]]], restore: Restore, as_json: bool) -> list[SetResult]:
    """Measure the sets with a progress bar on a terminal, a line per image elsewhere (none beside JSON); name what is excluded."""
    from vrdir.evaluation.restoration import Excluded, SetResult, measure_pairs, name_of

    columns = (BarColumn(), MofNCompleteColumn(), name_column(), TimeElapsedColumn(), TextColumn("left"))
    total = sum(len(pairs) for _, pairs in sets.values())
    results = []
    with Progress(*columns, TimeRemainingColumn(), console=err, disable=as_json or not err.is_terminal) as progress:
        task = progress.add_task("", total=total)

        def followed(name: str, pairs: list[Pair]) -> Iterator[Measured | Excluded]:
            for row in measure_pairs(pairs, restore):
                if isinstance(row, Excluded):
                    place = f"{sets[name][0]}:{row.pair.line}"
                    err.print(f"[bold red]excluded:[/] {escape(f'{place}: {row.reason}')}")
                elif not as_json and not err.is_terminal:
                    change = f"{row.degraded.psnr_rgb:.2f} -> {row.restored.psnr_rgb:.2f} dB"
                    out.print(escape(f"{name}  {name_of(row.pair)}  {change}"))
                progress.advance(task)
                yield row

        for name, (source, pairs) in sets.items():
            progress.update(task, description=printable(name))
            results.append(SetResult(name, source, list(followed(name, pairs))))
    return results


def print_table(results: Sequence[SetResult]) -> None:
    """A line for RGB and one for Y per set, and a verdict each."""
    from vrdir.evaluation.restoration_report import called, shown, verdict

    table = Table("set", "", *(("images", "excluded") if any(r.excluded for r in results) else ("images",)))
    for head in ("PSNR in", "out", "SSIM in", "out"):
        table.add_column(head, justify="right")
    for result in results:
        for colours in ("rgb", "y"):
            cells = [
                shown(metric, getattr(scores, f"{metric}_{colours}") if scores else None)
                for metric in ("psnr", "ssim")
                for scores in (result.degraded, result.restored)
            ]
            counts = [str(len(result.images)), str(len(result.excluded))][: len(table.columns) - 6]
            first = [escape(called(result)), "RGB", *counts]
            table.add_row(*(first if colours == "rgb" else ["", "Y", *[""] * len(counts)]), *cells)
    out.print(table)
    for result in results:
        out.print(f"{escape(result.name)}: {escape(verdict(result))}")
