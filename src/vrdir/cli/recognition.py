"""`vrdir evaluate TASK`: one command for all recognition tasks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.addresses import (
    ON_RAY,
    Batch,
    Engine,
    RayAddress,
    WorkerCpus,
    WorkerGpus,
    Workers,
    ray_settings,
)
from vrdir.cli.console import err, escape, out, printable
from vrdir.cli.errors import fail, one_line_errors
from vrdir.cli.evaluation_progress import prints_lines, progress_bar
from vrdir.cli.networks import shown_facts
from vrdir.cli.options import (
    AsJson,
    Device,
    Overwrite,
    SeveralWeights,
    Threads,
    check_outputs,
    refuse_unused,
)
from vrdir.cli.recognition_inputs import (
    cached_restorers,
    load_recognisers,
    load_restorers,
    make_conditions,
)
from vrdir.cli.signals import stoppable

if TYPE_CHECKING:
    from vrdir.evaluation.recognition.conditions import Condition
    from vrdir.evaluation.recognition.labels.labelled import LabelledImages
    from vrdir.evaluation.recognition.protocol import AnswerImage, AnswerImages
    from vrdir.evaluation.recognition.restorers import RestoreImage
    from vrdir.evaluation.recognition.results import RecognitionResult
    from vrdir.evaluation.recognition.task import RecognitionTask

AS_TAKEN_HELP = (
    "Without --with and --degraded the images are photos of real bad weather: "
    "they are compared as taken and restored."
)

DataPath = Annotated[
    Path,
    typer.Option("--data", metavar="PATH", help="Labelled images, see above.", show_default=False),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the images, if it is not the folder of the labels.",
        show_default=False,
    ),
]
Recognisers = Annotated[
    list[str],
    typer.Option(
        "--recogniser",
        metavar="SPEC",
        help="FILE.onnx with its card FILE.json, module:function, timm:NAME, torchvision:NAME or "
        "transformers:NAME; repeat it for several.",
        show_default=False,
    ),
]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="A degradation to apply, such as noise:sigma=50; haze:severity=1..5 gives five "
        "conditions. Repeat it for several; `vrdir degrade --list` names all.",
    ),
]
Degraded = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=DIR",
        help="Folder of degraded images, with the names of the clean ones; repeat it for several.",
    ),
]
Restorers = Annotated[
    list[str] | None,
    typer.Option(
        "--restorer",
        metavar="NAME=SPEC",
        help="Another restorer for the table: module:function, or a folder of results, with a "
        "folder per condition and clean/ (for photos as taken, just the results); repeat it for "
        "several.",
    ),
]
Vrdir = Annotated[
    bool, typer.Option("--vrdir/--no-vrdir", help="Include vrdir itself in the table, or not.")
]
Resamples = Annotated[
    int,
    typer.Option(
        "--bootstrap", min=1, help="Number of bootstrap resamples for the 95 % intervals."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the degradations and of the resamples.")]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Use only the first part of the data, see above; reports mention it.",
    ),
]
Csv = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a CSV file with a line per figure.")
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.html", help="Write a page with verdicts, charts, and example images."
    ),
]


def task_command(task: RecognitionTask[Any, Any, Any]) -> Any:
    """Return the command of a task, as typer's groups expect it."""
    single = typer.Typer(add_completion=False)
    single.command(task.name)(_command_function(task))
    return typer.main.get_command(single)


def _command_function(task: RecognitionTask[Any, Any, Any]) -> Callable[..., None]:
    def command(
        context: typer.Context,
        data: DataPath,
        recogniser: Recognisers,
        images: Images = None,
        steps: Steps = None,
        degraded: Degraded = None,
        restorer: Restorers = None,
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
        engine: Engine = "local",
        ray_address: RayAddress = None,
        workers: Workers = "1-64",
        worker_cpus: WorkerCpus = 1,
        worker_gpus: WorkerGpus = None,
        batch: Batch = 4,
        as_json: AsJson = False,
    ) -> None:
        # Anything that a recogniser prints is not part of the JSON.
        with one_line_errors(), redirect_stdout(sys.stderr) if as_json else nullcontext():
            _check_packages(task)
            sys.path.append("")  # module:function may be in the current folder
            check_outputs([path for path in (csv, report) if path is not None], overwrite)
            if not vrdir:
                refuse_unused(context, "with --no-vrdir", "weights", "device")
            conditions = make_conditions(steps or (), degraded or ())
            networks = (weights or ["small"]) if vrdir else ()
            here = device if engine == "local" else "cpu"
            restorers, facts = load_restorers(restorer or (), conditions, networks, here)
            facts |= {"seed": seed, "resamples": bootstrap}
            labelled, note = task.limit(task.read(data, images), limit)
            recognisers = load_recognisers(task, recogniser, labelled)
            divided = _divided(context, task, networks)
            with stoppable(), cached_restorers(restorers, len(recognisers)) as cached:
                results = [
                    _measure(task, labelled, one, conditions, cached, seed, bootstrap, as_json, way)
                    for one, way in zip(recognisers, divided, strict=True)
                ]
                results = [_with_note(result, note) for result in results]
                page = _page(results, facts) if report is not None else ""
        _show(results, {**facts, "data": str(data)}, as_json)
        _write(results, csv, page, report)
        if any(not one.by_protocol for result in results for one in result.excluded):
            raise typer.Exit(1)

    limit_help = f"--limit counts {task.limit_unit}."
    command.__doc__ = f"{task.help}\n\n{AS_TAKEN_HELP}\n\nData: {task.data_help} {limit_help}"
    return command


def _check_packages(task: RecognitionTask[Any, Any, Any]) -> None:
    """Import the packages of an evaluation, so that a missing one is reported early.

    Raises:
        MissingPackageError: one is not installed.
    """
    from vrdir.errors import require

    for package in ("jinja2", "scipy"):
        require(package, "evaluate", f"evaluating needs more packages ({package} is missing)")
    task.check_packages()


def _divided(
    context: typer.Context, task: RecognitionTask[Any, Any, Any], networks: Sequence[str]
) -> list[AnswerImages[Any] | None]:
    """Return, for each recogniser, how its answers are computed on Ray; None for here."""
    given = context.params
    if given["engine"] == "local":
        refuse_unused(context, "without --engine ray", *ON_RAY)
        return [None] * len(given["recogniser"])
    from vrdir.cluster.evaluating import answers_on_ray

    refuse_unused(context, "with --engine ray (see --worker-cpus)", "threads")
    settings = ray_settings(given)
    names = ("data", "images", "limit", "steps", "degraded", "restorer", "seed")
    options = {name: given[name] for name in names}
    options["device"] = given["device"] if settings.gpus else "cpu"
    return [
        partial(
            answers_on_ray,
            load=partial(_answer_image, task.name, spec, networks, options),
            settings=settings,
        )
        for spec in given["recogniser"]
    ]


def _answer_image(
    name: str, recogniser: str, networks: Sequence[str], given: Mapping[str, Any]
) -> AnswerImage[Any]:
    """Return the function by which a worker on Ray measures one image."""
    from vrdir.evaluation.recognition.registry import find_task

    task = find_task(name)
    conditions = make_conditions(given["steps"] or (), given["degraded"] or ())
    restorers, _ = load_restorers(given["restorer"] or (), conditions, networks, given["device"])
    data, _ = task.limit(task.read(given["data"], given["images"]), given["limit"])
    return task.answer_image(data, task.load(recogniser), conditions, restorers, given["seed"])


def _measure(
    task: RecognitionTask[Any, Any, Any],
    data: LabelledImages[Any],
    recogniser: Any,
    conditions: Sequence[Condition],
    restorers: Mapping[str, RestoreImage],
    seed: int,
    bootstrap: int,
    as_json: bool,
    answer: AnswerImages[Any] | None,
) -> RecognitionResult:
    """Return the result of a recogniser."""
    with _progress(recogniser.name, len(data.images), as_json) as advance:
        return task.evaluate(
            data,
            recogniser,
            conditions,
            restorers,
            seed=seed,
            bootstrap=bootstrap,
            progress=advance,
            answer=answer,
        )


def _with_note(result: RecognitionResult, note: str) -> RecognitionResult:
    """Return a result with the note on a limit among its facts."""
    from vrdir.evaluation.recognition.tables import LIMIT

    return replace(result, facts={**result.facts, LIMIT: note}) if note else result


def _page(results: Sequence[RecognitionResult], facts: Mapping[str, Any]) -> str:
    from vrdir import __version__
    from vrdir.evaluation.recognition.report import as_page

    return as_page(results, shown_facts({"vrdir": __version__, **facts}))


def _show(results: Sequence[RecognitionResult], facts: Mapping[str, Any], as_json: bool) -> None:
    """Print what was excluded, and the figures as a table or JSON."""
    from vrdir import __version__
    from vrdir.evaluation.recognition.tables import as_json as results_as_json

    for excluded in dict.fromkeys(one for result in results for one in result.excluded):
        err.print(f"[bold red]excluded:[/] {escape(f'{excluded.name}: {excluded.reason}')}")
    if as_json:
        content = results_as_json(results, {"vrdir": __version__, **facts})
        sys.stdout.write(json.dumps(content, indent=1) + "\n")
        return
    for result in results:
        _print_result(result)


def _write(
    results: Sequence[RecognitionResult], csv: Path | None, page: str, report: Path | None
) -> None:
    """Write the CSV file and the page; status 1 if one cannot be written."""
    from vrdir.errors import ImageError
    from vrdir.evaluation.recognition.tables import as_csv
    from vrdir.images.writing import write_file

    try:
        if csv is not None:
            write_file(as_csv(results).encode("utf-8", "surrogateescape"), csv)
        if report is not None:
            write_file(page.encode("utf-8", "replace"), report)
    except ImageError as error:
        fail(error, 1)


@contextmanager
def _progress(name: str, total: int, as_json: bool) -> Iterator[Callable[[str], None]]:
    """Show a progress bar on a terminal, a line per tenth elsewhere, nothing beside JSON."""
    bars, lines = progress_bar(as_json), prints_lines(as_json)
    done = 0
    with bars:
        bar = bars.add_task(printable(name), total=total)

        def advance(image: str) -> None:
            nonlocal done
            done += 1
            bars.advance(bar)
            if lines and done * 10 // total > (done - 1) * 10 // total:
                out.print(escape(f"{name}  {done} of {total} images"))

        yield advance


def _print_result(result: RecognitionResult) -> None:
    """Print a line per condition and restorer, of the main and the last metric; the verdict."""
    from vrdir.evaluation.recognition.tables import LIMIT
    from vrdir.evaluation.recognition.verdict import verdict

    lines = _table_lines(result)
    cells = [line for line in lines if len(line) > 1]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    out.print(f"\n[bold]{escape(result.recogniser)}[/]")
    for name, *figures in lines:
        aligned = [figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=False)]
        out.print(escape("  ".join([name.ljust(widths[0]), *aligned]).rstrip()))
    note = result.facts.get(LIMIT, "")
    limited = f"{note[0].upper()}{note[1:]} only. " if note else ""
    out.print(escape(f"{result.recogniser}: {limited}{verdict(result)}"))


def _table_lines(result: RecognitionResult) -> list[list[str]]:
    """Return the lines of the table; one of one cell is a heading."""
    from vrdir.evaluation.recognition.tables import NOTHING, rows_of
    from vrdir.evaluation.recognition.verdict import bare_p, condition_label, shown_share

    main, last = result.metrics[0], result.metrics[-1]
    recovered = ["recovered"] if result.clean else []
    lines = [["", main.heading, "95 %", "change", *recovered, "p", last.heading]]
    headings = {condition.name: condition_label(condition) for condition in result.conditions}
    rows = rows_of(result)
    of_last = {(row.condition, row.in_front): row.value for row in rows if row.metric == last}
    before = 0.0
    for row in rows:
        if row.metric != main:
            continue
        compared = ["", *("" for _ in recovered), ""]
        if row.in_front == NOTHING:
            before = row.value.value
            lines.append([headings.get(row.condition, row.condition)])
        elif row.p_value is not None:
            unknown = "-" if row.condition in headings else ""
            share = shown_share(row.recovered) if row.recovered is not None else unknown
            change = main.shown(row.value.value - before, sign="+")
            compared = [change, *(share for _ in recovered), bare_p(row.p_value)]
        span = f"{main.shown(row.value.low)} to {main.shown(row.value.high)}"
        value = [main.shown(row.value.value), span]
        last_value = last.shown(of_last[row.condition, row.in_front].value)
        lines.append([f"  {row.in_front}", *value, *compared, last_value])
    return lines
