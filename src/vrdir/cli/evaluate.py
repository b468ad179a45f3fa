"""`vrdir evaluate`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from vrdir.cli.console import (
    AsJson,
    Device,
    Overwrite,
    SeveralWeights,
    Threads,
    check_outputs,
    err,
    escape,
    fail,
    name_and_value,
    name_column,
    networks_of,
    one_line_errors,
    out,
    printable,
    refuse_unused,
    shown_facts,
)
from vrdir.cli.recognition import evaluate_recognition
from vrdir.cli.recognition_inputs import named_option

if TYPE_CHECKING:
    from vrdir.data.pairs import Pair
    from vrdir.evaluation.restoration.protocol import Excluded, Measured, Restore, SetResult

evaluate_app = typer.Typer(
    help="Measure restored images, and what recognisers make of them.", no_args_is_help=True
)
for task in ("classification", "detection", "reid"):
    evaluate_app.command(task)(evaluate_recognition(task))


@evaluate_app.command("restoration")
def evaluate_restoration(
    context: typer.Context,
    pairs: Annotated[
        list[str],
        typer.Option(
            metavar="[NAME=]LIST",
            help="A pair list, lines degraded|clean; repeat it for several sets.",
            show_default=False,
        ),
    ],
    weights: SeveralWeights = None,
    device: Device = "auto",
    restored: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]DIR",
            help="Images that another restorer made, under the names of the degraded ones; repeat it for several. "
            "A network runs beside them only where --weights names it.",
        ),
    ] = None,
    restorer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SPEC",
            help="Others for the same table: module:function, or a folder as of --restored.",
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a line per image.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.html",
            help="Write a page with verdicts, plots, and the worst, median and best as pictures.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    threads: Threads = None,
    as_json: AsJson = False,
) -> None:
    """PSNR and SSIM before and after restoring, in RGB and in Y, per image and per set, on whole images."""
    from vrdir.errors import ImageError
    from vrdir.images.writing import write_file

    with one_line_errors():
        try:
            from vrdir.evaluation.restoration import report as restoration_report
        except ModuleNotFoundError as error:
            raise ValueError(
                f"evaluating needs more packages ({error.name} is missing): pip install 'vrdir[evaluate]'"
            ) from None
        check_outputs([path for path in (csv, report) if path is not None], overwrite)
        if restored and not weights:
            refuse_unused(context, "with --restored, where no network runs", "device")
        sys.path.append("")  # module:function may lie in the current folder
        sets = read_sets(pairs)
        networks = weights or ([] if restored else ["small"])
        listed = [pair for _, of_list in sets.values() for pair in of_list]
        restorers, facts = choose_restorers(
            listed, networks, device, restored or (), restorer or ()
        )
    results = measured(sets, restorers, as_json)
    if as_json:
        sys.stdout.write(json.dumps(restoration_report.as_json(results, facts), indent=1) + "\n")
    else:
        print_table(results)
    try:
        if csv is not None:
            write_file(restoration_report.as_csv(results).encode("utf-8", "surrogateescape"), csv)
        if report is not None:
            page = restoration_report.as_page(results, shown_facts(facts), restorers)
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
        given_name, rest = name_and_value(text)
        path = Path(rest)
        name = given_name or path.stem
        if name in sets:
            raise ValueError(
                f"{sets[name][0]} and {path} are both called {name!r}; name them: --pairs NAME=LIST"
            )
        sets[name] = (path, read_pairs(path))
    return sets


def choose_restorers(
    pairs: Sequence[Pair],
    weights: Sequence[str],
    device: str,
    restored: Sequence[str],
    others: Sequence[str],
) -> tuple[dict[str, Restore], dict[str, Any]]:
    """What restores the images, by name, networks first; and the facts of them for the reports.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, device, folder or function; a folder cannot hold one image for
            each pair; or two have one name.
    """
    from vrdir import __version__
    from vrdir.evaluation.recognition.variants import load_function
    from vrdir.evaluation.restoration.protocol import (
        by_function,
        by_network,
        check_restored_names,
        from_folder,
    )

    networks, facts = networks_of(weights, device)
    restorers: dict[str, Restore] = {
        name: by_network(network) for name, network in networks.items()
    }
    given = [("restored", *name_and_value(text)) for text in restored]
    given += [("restorer", *named_option("--restorer", text)) for text in others]
    for option, name, spec in given:
        own = name or Path(spec).name or spec
        if own in restorers:
            raise ValueError(
                f"--{option} {own}: that name is taken; give another, --{option} NAME={spec}"
            )
        is_folder = option == "restored" or Path(spec).is_dir() or ":" not in spec
        restorers[own] = from_folder(Path(spec)) if is_folder else by_function(load_function(spec))
        if is_folder:
            check_restored_names(pairs)
        facts[option if len(given) == 1 and option == "restored" else f"{option} {own}"] = spec
    return restorers, {"vrdir": __version__, **facts}


def measured(
    sets: dict[str, tuple[Path, list[Pair]]], restorers: Mapping[str, Restore], as_json: bool
) -> list[SetResult]:
    """Measure the sets with a progress bar on a terminal, a line per image elsewhere (none beside JSON); name what is excluded.

    Returns:
        Set by set a result per restorer.
    """
    from vrdir.evaluation.restoration.protocol import Excluded, SetResult, measure_by_each

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        name_column(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    total = sum(len(pairs) for _, pairs in sets.values())
    results = []
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=as_json or not err.is_terminal
    ) as progress:
        task = progress.add_task("", total=total)
        for name, (source, pairs) in sets.items():
            progress.update(task, description=printable(name))
            rows: list[tuple[Measured | Excluded, ...]] = []
            for of_pair in measure_by_each(pairs, restorers):
                rows.append(of_pair)
                if isinstance(first := of_pair[0], Excluded):
                    place = f"{source}:{first.pair.line}"
                    err.print(f"[bold red]excluded:[/] {escape(f'{place}: {first.reason}')}")
                elif not as_json and not err.is_terminal:
                    out.print(escape(f"{name}  {changes(of_pair, list(restorers))}"))
                progress.advance(task)
            by_restorer = zip(restorers, zip(*rows, strict=True), strict=True)
            results += [SetResult(name, source, own, restorer) for restorer, own in by_restorer]
    return results


def changes(rows: Sequence[Measured | Excluded], restorers: Sequence[str]) -> str:
    """What became of a pair: "name  20.00 -> 25.00 dB", with several restorers the name of each before its figure."""
    from vrdir.evaluation.restoration.protocol import Measured, name_of

    done = [row for row in rows if isinstance(row, Measured)]
    after = [f"{row.restored.psnr_rgb:.2f}" for row in done]
    if len(done) > 1:
        after = [f"{name} {figure}" for name, figure in zip(restorers, after, strict=True)]
    return f"{name_of(done[0].pair)}  {done[0].degraded.psnr_rgb:.2f} -> {', '.join(after)} dB"


def print_table(results: Sequence[SetResult]) -> None:
    """A line for RGB and one for Y per set, a column per restorer; verdicts, and how the restorers compare."""
    from vrdir.evaluation.restoration.report import by_set, called, comparisons, figures_of, verdict

    sets = by_set(results)
    several = len(sets[0]) > 1
    names = [escape(result.restorer) for result in sets[0]] if several else ["out"]
    table = Table(
        "set", "", *(("images", "excluded") if any(r.excluded for r in results) else ("images",))
    )
    for head in ("PSNR in", *names, "SSIM in", *names):
        table.add_column(head, justify="right")
    for of in sets:
        figures = figures_of(of)
        counts = [str(len(of[0].images)), str(len(of[0].excluded))][
            : len(table.columns) - 4 - 2 * len(names)
        ]
        for colours in ("rgb", "y"):
            cells = [*figures[f"psnr_{colours}"], *figures[f"ssim_{colours}"]]
            first = [escape(called(of[0])), "RGB", *counts]
            table.add_row(*(first if colours == "rgb" else ["", "Y", *[""] * len(counts)]), *cells)
    out.print(table)
    for of in sets:
        for result in of:
            out.print(
                f"{escape(f'{result.name}, {result.restorer}' if several else result.name)}: {escape(verdict(result))}"
            )
        for sentence in comparisons(of):
            out.print(f"{escape(of[0].name)}: {escape(sentence)}")
