"""`vrdir evaluate`: measure restored images, and recognisers on them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

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
from vrdir.cli.networks import networks_of, shown_facts
from vrdir.cli.options import (
    AsJson,
    Device,
    Overwrite,
    SeveralWeights,
    Threads,
    check_outputs,
    name_and_value,
    refuse_unused,
)
from vrdir.cli.recognition import task_command
from vrdir.cli.recognition_inputs import named_option
from vrdir.cli.restoration_table import pair_line, print_table
from vrdir.errors import DataError, InputError, require

if TYPE_CHECKING:
    from vrdir.data.pairs import Pair
    from vrdir.evaluation.restoration.protocol import ExcludedPair, Measured, SetResult
    from vrdir.evaluation.restoration.restorers import RestorePair

PairSets = Mapping[str, tuple[Path, "list[Pair]"]]
"""Name of a set -> its list file and its pairs."""


class EvaluateCommands(TyperGroup):
    """`restoration`, and a command per recognition task, made when it is needed."""

    def list_commands(self, context: Any) -> list[str]:
        """Return the names of all commands."""
        from vrdir.evaluation.recognition.registry import task_names

        return [*task_names(), *super().list_commands(context)]

    def get_command(self, context: Any, name: str) -> Any:
        """Return the command of a name, or None if there is none."""
        command = super().get_command(context, name)
        if command is not None:
            return command
        from vrdir.evaluation.recognition.registry import find_task, task_names

        return task_command(find_task(name)) if name in task_names() else None


evaluate_app = typer.Typer(
    cls=EvaluateCommands,
    help="Measure restored images, and recognisers on restored images.",
    no_args_is_help=True,
)


Pairs = Annotated[
    list[str],
    typer.Option(
        metavar="[NAME=]LIST",
        help="A pair list, lines degraded|clean; repeat it for several sets.",
        show_default=False,
    ),
]
Restored = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]DIR",
        help="Folder of another restorer's results, with the names of the degraded images; repeat "
        "it for several. With it, vrdir itself runs only with --weights.",
    ),
]
Restorers = Annotated[
    list[str] | None,
    typer.Option(
        "--restorer",
        metavar="NAME=SPEC",
        help="Another restorer for the table: module:function, or a folder of results; repeat it "
        "for several.",
    ),
]
Csv = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write a CSV file with a line per image.")
]
Report = Annotated[
    Path | None,
    typer.Option(
        metavar="OUT.html",
        help="Write a page with verdicts, plots, and pictures of the worst, median and best image.",
    ),
]


@evaluate_app.command("restoration")
def evaluate_restoration(
    context: typer.Context,
    pairs: Pairs,
    weights: SeveralWeights = None,
    device: Device = "auto",
    restored: Restored = None,
    restorer: Restorers = None,
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
    """Measure PSNR and SSIM before and after restoring, in RGB and Y, per image and per set."""
    with one_line_errors():
        for package in ("jinja2", "skimage"):
            require(package, "evaluate", f"evaluating needs more packages ({package} is missing)")
        check_outputs([path for path in (csv, report) if path is not None], overwrite)
        if restored and not weights:
            refuse_unused(context, "with --restored, where no network runs", "device")
        sys.path.append("")  # module:function may be in the current folder
        sets = read_sets(pairs)
        networks = weights or ([] if restored else ["small"])
        all_pairs = [pair for _, of_list in sets.values() for pair in of_list]
        load = partial(
            load_pair_restorers, weights=networks, restored=restored or (), others=restorer or ()
        )
        restorers, facts = load(all_pairs, device=device if engine == "local" else "cpu")
        measure = measure_here_or_on_ray(context, load, restorers)
        results = measure_sets(sets, restorers, as_json, measure)
    _show(results, facts, as_json)
    _write(results, facts, restorers, csv, report)
    if any(result.excluded for result in results):
        raise typer.Exit(1)


def _show(results: Sequence[SetResult], facts: Mapping[str, Any], as_json: bool) -> None:
    from vrdir.evaluation.restoration.tables import as_json as results_as_json

    if as_json:
        sys.stdout.write(json.dumps(results_as_json(results, facts), indent=1) + "\n")
    else:
        print_table(results)


def _write(
    results: Sequence[SetResult],
    facts: Mapping[str, Any],
    restorers: Mapping[str, RestorePair],
    csv: Path | None,
    report: Path | None,
) -> None:
    """Write the CSV file and the page; status 1 if one cannot be written."""
    from vrdir.errors import ImageError
    from vrdir.evaluation.restoration.report import as_page
    from vrdir.evaluation.restoration.tables import as_csv
    from vrdir.images.writing import write_file

    try:
        if csv is not None:
            write_file(as_csv(results).encode("utf-8", "surrogateescape"), csv)
        if report is not None:
            page = as_page(results, shown_facts(facts), restorers)
            write_file(page.encode("utf-8", "replace"), report)
    except ImageError as error:
        fail(error, 1)


def read_sets(given: Sequence[str]) -> dict[str, tuple[Path, list[Pair]]]:
    """Return each set's list file and pairs, by name.

    Args:
        given: `NAME=LIST`, or `LIST` alone, whose stem is the name then.

    Raises:
        MissingFileError: there is no such list.
        DataError: a list cannot be read, or two sets have the same name.
    """
    from vrdir.data.pairs import read_pairs

    sets: dict[str, tuple[Path, list[Pair]]] = {}
    for text in given:
        given_name, rest = name_and_value(text)
        path = Path(rest)
        name = given_name or path.stem
        if name in sets:
            raise DataError(
                f"{sets[name][0]} and {path} have the same name, {name!r}; name them: --pairs "
                "NAME=LIST"
            )
        sets[name] = (path, read_pairs(path))
    return sets


def load_pair_restorers(
    pairs: Sequence[Pair],
    weights: Sequence[str],
    device: str,
    restored: Sequence[str],
    others: Sequence[str],
) -> tuple[dict[str, RestorePair], dict[str, Any]]:
    """Load the restorers.

    Args:
        pairs: of all sets.
        weights: of `--weights`.
        device: of `--device`.
        restored: of `--restored`.
        others: of `--restorer`.

    Returns:
        The restorers by name, networks first, and facts on them for reports.

    Raises:
        MissingFileError: a folder is missing.
        InputError: there are no such weights, device or function; two restorers have the same name;
            or a folder cannot contain one image for each pair.
    """
    from vrdir import __version__
    from vrdir.evaluation.restoration.restorers import (
        check_restored_names,
        folder_for_pairs,
        function_for_pairs,
        network_for_pairs,
    )
    from vrdir.evaluation.user_functions import load_function

    networks, facts = networks_of(weights, device)
    restorers: dict[str, RestorePair] = {
        name: network_for_pairs(network) for name, network in networks.items()
    }
    given = [("restored", *name_and_value(text)) for text in restored]
    given += [("restorer", *named_option("--restorer", text)) for text in others]
    for option, given_name, spec in given:
        name = given_name or Path(spec).name or spec
        if name in restorers:
            raise InputError(
                f"--{option} {name}: that name is already used; choose another, --{option} "
                f"NAME={spec}"
            )
        if option == "restored" or Path(spec).is_dir() or ":" not in spec:
            restorers[name] = folder_for_pairs(Path(spec))
            check_restored_names(pairs)
        else:
            restorers[name] = function_for_pairs(load_function(spec))
        facts[option if len(given) == 1 and option == "restored" else f"{option} {name}"] = spec
    return restorers, {"vrdir": __version__, **facts}


MeasurePairs = Callable[["Sequence[Pair]"], "Iterator[tuple[Measured | ExcludedPair, ...]]"]
"""Yields, for each pair in order, a result per restorer."""


def measure_here_or_on_ray(
    context: typer.Context, load: Callable[..., Any], restorers: Mapping[str, RestorePair]
) -> MeasurePairs:
    """Return the function that measures pairs, by --engine.

    Args:
        context: of the command.
        load: `load_pair_restorers` for all but the pairs and the device.
        restorers: what it returned here.

    Raises:
        InputError: an option has no effect on this machine.
    """
    from vrdir.evaluation.restoration.protocol import measure_by_each

    given = context.params
    if given["engine"] == "local":
        refuse_unused(context, "without --engine ray", *ON_RAY)
        return partial(measure_by_each, restorers=restorers)
    from vrdir.cluster.evaluating import measure_on_ray

    refuse_unused(context, "with --engine ray (see --worker-cpus)", "threads")
    settings = ray_settings(given)
    device = given["device"] if settings.gpus else "cpu"
    there = partial(_loaded, partial(load, (), device=device))
    return partial(measure_on_ray, load=there, settings=settings)


def _loaded(load: Callable[[], Any]) -> Mapping[str, RestorePair]:
    """Return the restorers that a worker loads."""
    restorers: Mapping[str, RestorePair] = load()[0]
    return restorers


def measure_sets(
    sets: PairSets, restorers: Mapping[str, RestorePair], as_json: bool, measure: MeasurePairs
) -> list[SetResult]:
    """Measure the sets and name what is excluded.

    There is a progress bar on a terminal, a line per image elsewhere, nothing beside JSON.

    Args:
        sets: the pairs by set.
        restorers: by name.
        as_json: whether JSON will be printed.
        measure: measures pairs.

    Returns:
        Set by set, a result per restorer.
    """
    from vrdir.evaluation.restoration.protocol import ExcludedPair, SetResult

    of_all = [pair for _, pairs in sets.values() for pair in pairs]
    total, measured = len(of_all), measure(of_all)
    results = []
    with progress_bar(as_json) as progress:
        bar = progress.add_task("", total=total)
        for name, (source, pairs) in sets.items():
            progress.update(bar, description=printable(name))
            rows: list[tuple[Measured | ExcludedPair, ...]] = []
            for of_pair in islice(measured, len(pairs)):
                rows.append(of_pair)
                if isinstance(first := of_pair[0], ExcludedPair):
                    place = f"{source}:{first.pair.line}"
                    err.print(f"[bold red]excluded:[/] {escape(f'{place}: {first.reason}')}")
                elif prints_lines(as_json):
                    out.print(escape(f"{name}  {pair_line(of_pair, list(restorers))}"))
                progress.advance(bar)
            by_restorer = zip(restorers, zip(*rows, strict=True), strict=True)
            results += [SetResult(name, source, own, restorer) for restorer, own in by_restorer]
    return results
