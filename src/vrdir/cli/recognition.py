"""`vrdir evaluate classification`, `detection` and `reid`: one command for three tasks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

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
    name_column,
    one_line_errors,
    out,
    printable,
    refuse_unused,
    shown_facts,
    stoppable,
)
from vrdir.cli.recognition_inputs import (
    Task,
    conditions_of,
    limited,
    read_data,
    recognisers_of,
    remembered,
    restorers_of,
)

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.protocol import RecognitionResult

DATA: Mapping[Task, str] = {
    "classification": "A folder with a folder per class; or a CSV file with columns file and label.",
    "detection": "A COCO JSON file; or a folder with YOLO text or VOC XML files beside its images, or under labels/ beside images/.",
    "reid": "A folder with query/ and gallery/, named as in Market-1501: 0002_c1s1_000451_03.jpg is person 2 seen by camera 1.",
}
HELP: Mapping[Task, str] = {
    "classification": "Top-1 and top-5 accuracy of classifiers on clean, degraded and restored images.",
    "detection": "Mean average precision of detectors on clean, degraded and restored images.",
    "reid": "Rank-1 and mAP of person re-identification on clean, degraded and restored images.",
}
AS_TAKEN = "Without --with and --degraded the images are photos of real bad weather: they are compared as taken and restored."
# Named, but nothing is wrong.
BY_PROTOCOL = (
    "crowds or difficult",
    "given twice",
    "junk by the Market-1501 protocol",
    "a query without a match",
)

DataPath = Annotated[
    Path,
    typer.Option("--data", metavar="PATH", help="Labelled images, see above.", show_default=False),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where the images lie, if not beside their labels.", show_default=False
    ),
]
Recognisers = Annotated[
    list[str],
    typer.Option(
        "--recogniser",
        metavar="SPEC",
        help="FILE.onnx with its FILE.json, module:function, timm:NAME, torchvision:NAME or transformers:NAME; repeat it for several.",
        show_default=False,
    ),
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="Synthesise: noise:sigma=50, or haze:severity=1..5 for five; repeat it for several. `vrdir degrade --list` names all.",
    ),
]
Degraded = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DIR",
        help="Degraded images, under the names of the clean ones; repeat it for several.",
    ),
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--restorer",
        metavar="NAME=SPEC",
        help="Others for the same table: module:function, or a folder of results with a folder per condition and clean/ "
        "(or, of photos as taken, the results themselves).",
    ),
]
Vrdir = Annotated[
    bool, typer.Option("--vrdir/--no-vrdir", help="Whether vrdir itself stands in the table.")
]
Resamples = Annotated[
    int, typer.Option("--bootstrap", min=1, help="Resamples that the 95 % intervals come from.")
]
Seed = Annotated[int, typer.Option(min=0, help="Of the synthesis and the resamples.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Only the first so many images by name (reid: persons by number); reports say so.",
    ),
]
Csv = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a line per figure.")]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.html", help="Write a page with verdicts, charts, and cases as pictures."
    ),
]


def evaluate_recognition(task: Task) -> Callable[..., None]:
    """The command for a task."""

    def command(
        context: typer.Context,
        data: DataPath,
        recogniser: Recognisers,
        images: Images = None,
        steps: Steps = None,
        degraded: Degraded = None,
        restorer: Peers = None,
        vrdir: Vrdir = True,
        weights: SeveralWeights = None,
        device: Device = "auto",
        bootstrap: Resamples = 1000,
        seed: Seed = 0,
        limit: Limit = None,
        csv: Csv = None,
        report: Report = None,
        overwrite: Overwrite = False,
        threads: Threads = None,
        as_json: AsJson = False,
    ) -> None:
        from vrdir import __version__
        from vrdir.errors import ImageError
        from vrdir.images.writing import write_file

        # What a recogniser prints of its own is no part of the JSON.
        with one_line_errors(), redirect_stdout(sys.stderr) if as_json else nullcontext():
            try:
                from vrdir.evaluation.recognition import report as recognition_report
            except ModuleNotFoundError as error:
                raise ValueError(
                    f"evaluating needs more packages ({error.name} is missing): pip install 'vrdir[evaluate]'"
                ) from None
            sys.path.append("")  # module:function may lie in the current folder
            check_outputs([path for path in (csv, report) if path is not None], overwrite)
            if not vrdir:
                refuse_unused(context, "with --no-vrdir", "weights", "device")
            conditions = conditions_of(steps or (), degraded or ())
            restorers, facts = restorers_of(
                restorer or (), conditions, (weights or ["small"]) if vrdir else (), device
            )
            labelled, note = limited(task, read_data(task, data, images), limit)
            networks = recognisers_of(task, recogniser, labelled)
            facts = {"vrdir": __version__, **facts, "seed": seed, "resamples": bootstrap}
            results = []
            with stoppable(), remembered(restorers, len(networks)) as kept:
                for network in networks:
                    with followed(network.name, len(labelled.items), as_json) as advance:
                        measure = evaluation(task)
                        result = measure(
                            labelled,
                            network,
                            conditions,
                            kept,
                            seed=seed,
                            bootstrap=bootstrap,
                            progress=advance,
                        )
                    results.append(
                        replace(result, facts={**result.facts, "limit": note}) if note else result
                    )
                page = ""
                if report is not None:
                    page = recognition_report.as_page(results, shown_facts(facts))
        for excluded in dict.fromkeys(one for result in results for one in result.excluded):
            err.print(f"[bold red]left out:[/] {escape(f'{excluded.name}: {excluded.reason}')}")
        if as_json:
            content = recognition_report.as_json(results, {**facts, "data": str(data)})
            sys.stdout.write(json.dumps(content, indent=1) + "\n")
        else:
            for result in results:
                print_result(result)
        try:
            if csv is not None:
                write_file(
                    recognition_report.as_csv(results).encode("utf-8", "surrogateescape"), csv
                )
            if report is not None:
                write_file(page.encode("utf-8", "replace"), report)
        except ImageError as error:  # not as asked, but on the way: status 1
            fail(error, 1)
        if any(
            not one.reason.startswith(BY_PROTOCOL) for result in results for one in result.excluded
        ):
            raise typer.Exit(1)

    command.__doc__ = f"{HELP[task]}\n\n{AS_TAKEN}\n\nData: {DATA[task]}"
    return command


def evaluation(task: Task) -> Callable[..., RecognitionResult]:
    """What measures a task."""
    if task == "classification":
        from vrdir.evaluation.recognition.tasks.classification import evaluate_classification

        return evaluate_classification
    if task == "detection":
        from vrdir.evaluation.recognition.tasks.detection import evaluate_detection

        return evaluate_detection
    from vrdir.evaluation.recognition.tasks.reid import evaluate_reid

    return evaluate_reid


@contextmanager
def followed(name: str, total: int, as_json: bool) -> Iterator[Callable[[str], None]]:
    """A progress bar on a terminal, a line per tenth elsewhere, nothing beside JSON."""
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        name_column(),
        TimeElapsedColumn(),
        TextColumn("left"),
    )
    done = 0
    with Progress(
        *columns, TimeRemainingColumn(), console=err, disable=as_json or not err.is_terminal
    ) as progress:
        bar = progress.add_task(printable(name), total=total)

        def advance(image: str) -> None:
            nonlocal done
            done += 1
            progress.advance(bar)
            if (
                not as_json
                and not err.is_terminal
                and done * 10 // total > (done - 1) * 10 // total
            ):
                out.print(escape(f"{name}  {done} of {total} images"))

        yield advance


def print_result(result: RecognitionResult) -> None:
    """Under each condition a line per restorer, of the main metric and another; and the verdict."""
    from vrdir.evaluation.recognition.report import NOTHING, rows_of
    from vrdir.evaluation.recognition.verdict import (
        called,
        main_metric,
        named,
        shown_p,
        shown_share,
        verdict,
    )

    main, last = main_metric(result), list(result.metrics)[-1]
    back = ["got back"] if result.clean else []
    lines: list[list[str]] = [
        [
            "",
            f"{called(result, main)}, %",
            "95 %",
            "change",
            *back,
            "p",
            f"{called(result, last)}, %",
        ]
    ]
    headings = {condition.name: named(condition) for condition in result.conditions}
    rows = rows_of(result)
    lasts = {
        (row.condition, row.in_front): f"{row.value.value:.1f}"
        for row in rows
        if row.metric == last
    }
    before = 0.0
    for row in (row for row in rows if row.metric == main):
        compared = ["", *[""] * len(back), ""]
        if row.in_front == NOTHING:
            before = row.value.value
            lines.append([headings.get(row.condition, row.condition)])
        elif row.p_value is not None:
            share = (
                shown_share(row.recovered)
                if row.recovered is not None
                else ""
                if row.condition == "clean"
                else "-"
            )
            shares = [share] if back else []
            compared = [
                f"{row.value.value - before:+.1f}",
                *shares,
                shown_p(row.p_value).removeprefix("p ").removeprefix("= "),
            ]
        value = [f"{row.value.value:.1f}", f"{row.value.low:.1f} to {row.value.high:.1f}"]
        lines.append([f"  {row.in_front}", *value, *compared, lasts[row.condition, row.in_front]])
    widths = [
        max(map(len, column))
        for column in zip(*(line for line in lines if len(line) > 1), strict=True)
    ]
    out.print(f"\n[bold]{escape(result.recogniser)}[/]")
    for name, *cells in lines:
        out.print(
            escape(
                "  ".join(
                    [
                        name.ljust(widths[0]),
                        *(
                            cell.rjust(width)
                            for cell, width in zip(cells, widths[1:], strict=False)
                        ),
                    ]
                ).rstrip()
            )
        )
    note = result.facts.get("limit", "")
    out.print(
        escape(
            f"{result.recogniser}: {f'{note[0].upper()}{note[1:]} only. ' if note else ''}{verdict(result)}"
        )
    )
