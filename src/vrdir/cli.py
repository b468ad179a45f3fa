"""The command line. Heavy imports stand inside the commands, so that `vrdir --help` answers at once."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from vrdir.inference.files import FileJob, FileResult

app = typer.Typer(
    help="Restore images taken in haze, rain or noise, so that recognisers trained on clean photos work again.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
train_app = typer.Typer(help="Train the network, stage by stage.", no_args_is_help=True)
weights_app = typer.Typer(help="The bundled weights: what they are, and whether they are intact.", no_args_is_help=True)
app.add_typer(train_app, name="train")
app.add_typer(weights_app, name="weights")

out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

Inputs = Annotated[
    list[str], typer.Argument(metavar="INPUT...", help="Images, folders (with all below them) or patterns.", show_default=False)
]
Output = Annotated[Path, typer.Option("--output", "-o", help="A folder, or a file for one input file.", show_default=False)]
Weights = Annotated[str, typer.Option(help="Name of bundled weights, a model folder, or a Hugging Face repository id.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Format = Annotated[str | None, typer.Option("--format", help="File format of the results, such as png; default: each file's own.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print a machine-readable result.")]


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say in a line what went wrong: status 2 for what cannot be done as asked, 1 for what failed on the way."""
    try:
        yield
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


@app.command()
def restore(
    inputs: Inputs,
    output: Output,
    weights: Weights = "small",
    device: Device = "auto",
    file_format: Format = None,
    overwrite: Overwrite = False,
    explain: Annotated[bool, typer.Option("--explain", help="Print the share of each degradation for every image.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore images: files, or whole folders with names and formats kept."""
    from vrdir.inference.files import plan_files
    from vrdir.inference.restorer import Restorer

    with one_line_errors():
        jobs = plan_files(inputs, output, suffix_of(file_format))
        restorer = Restorer(weights, device)
        results = restorer.restore_files(jobs, overwrite)
    run_files(results, len(jobs), "restored", as_json, explain)


def suffix_of(file_format: str | None) -> str | None:
    """ ".png" for "png". Raises ImageError for a format that cannot be written."""
    from vrdir.images import format_of

    if file_format is None:
        return None
    suffix = "." + file_format.lower().removeprefix(".")
    format_of(Path("image" + suffix))
    return suffix


@app.command()
def degrade(
    inputs: Annotated[list[str] | None, typer.Argument(metavar="INPUT...", help="Images, folders or patterns.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A folder, or a file for one input file.", show_default=False)
    ] = None,
    steps: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME[:PARAMETER=VALUE,...]", help="haze:beta=1.2; repeat it for several, in order."),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pixels; each file has its own draws, by its name.")] = 0,
    file_format: Format = None,
    overwrite: Overwrite = False,
    list_all: Annotated[bool, typer.Option("--list", help="Name the degradations, their parameters and defaults.")] = False,
    as_json: AsJson = False,
) -> None:
    """Synthesise degradations, to see what a recogniser or a restorer makes of them."""
    from vrdir.degradations.degrade import parameters_of
    from vrdir.degradations.mixture import DEGRADATIONS

    if list_all:
        for name in DEGRADATIONS:
            ranges = [f"{key}={shown(value)}" for key, value in parameters_of(name).items() if value is not None]
            out.print(f"[bold]{name}[/]: {escape(', '.join(ranges))}")
        return
    from vrdir.inference.files import plan_files, process_files

    with one_line_errors():
        if not inputs or output is None or not steps:
            raise ValueError("needs INPUT, -o OUTPUT and at least one --with (--list names the degradations)")
        parsed = [parse_step(step) for step in steps]
        jobs = plan_files(inputs, output, suffix_of(file_format))
    run_files(process_files(jobs, lambda job: degrade_file(job, parsed, seed), overwrite), len(jobs), "degraded", as_json)


def shown(value: Any) -> str:
    return f"{value[0]:g}..{value[1]:g}" if isinstance(value, tuple) else str(value)


def parse_step(text: str) -> tuple[str, dict[str, Any]]:
    """`haze:beta=1.2,airlight=0.8..0.9` -> ("haze", {"beta": 1.2, "airlight": (0.8, 0.9)})."""
    from vrdir.degradations.degrade import parameters_of
    from vrdir.degradations.mixture import DEGRADATIONS

    name, _, rest = text.partition(":")
    if name not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {name!r}; there are {', '.join(DEGRADATIONS)}")
    known = {key: value for key, value in parameters_of(name).items() if value is not None}
    ranges: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if key not in known or not equals:
            raise ValueError(f"{name} takes {', '.join(f'{k}={shown(v)}' for k, v in known.items())}; not {part!r}")
        takes_range, kind = isinstance(known[key], tuple), int if isinstance(known[key], int) else float
        try:
            numbers = tuple(kind(number) for number in (value.split("..") if takes_range else [value]))
            if len(numbers) > 2:
                raise ValueError
        except ValueError:
            wanted = "a number, or a range such as 0.5..1.5" if takes_range else f"one {'whole ' * (kind is int)}number"
            raise ValueError(f"{name}:{key} is {wanted}, not {value!r}") from None
        ranges[key] = numbers[0] if len(numbers) == 1 else numbers
    return name, ranges


def degrade_file(job: FileJob, steps: list[tuple[str, dict[str, Any]]], seed: int) -> dict[str, float]:
    """Degrade one file. Its draws depend on the seed and its name, not on which other files there are."""
    import os
    import zlib

    from vrdir.degradations.degrade import degrade as degrade_image
    from vrdir.images import encode, format_of, read_file, write_file

    image: Any = read_file(job.source)
    for number, (name, ranges) in enumerate(steps):
        image = degrade_image(image, name, zlib.crc32(f"{seed}|{number}|".encode() + os.fsencode(job.source.stem)), **ranges)
    write_file(encode(image, format_of(job.target)), job.target)
    return {}


@train_app.command("all")
def train_all(
    recipe: Annotated[Path, typer.Option(help="A YAML recipe, such as recipes/small.yaml.", show_default=False)],
    clean: Annotated[Path, typer.Option(help="Folder of clean photos; degraded ones are synthesised from them.", show_default=False)],
    work_dir: Annotated[Path, typer.Option(help="For checkpoints, weights, pictures and metrics.")] = Path("runs/train"),
    device: Device = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the work directory.")] = False,
    extractor_weights: Annotated[
        Path | None, typer.Option(help="File with the extractor's pretrained weights; default: from where they are published.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting of the recipe: refine.steps=500")
    ] = None,
) -> None:
    """Run every stage: decoder, one branch per degradation, fusion, refinement."""
    with one_line_errors():
        try:
            from vrdir.inference.restorer import choose_device
            from vrdir.training.run import train_all as run
            from vrdir.training.settings import Recipe
        except ModuleNotFoundError as error:
            raise ValueError(f"training needs more packages ({error.name} is missing): pip install 'vrdir[train]'") from None
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        changes = dict(parse_setting(setting) for setting in settings or [])
        chosen = str(choose_device(device))
        result = run(
            Recipe.read(recipe, **changes),
            clean,
            work_dir,
            device=chosen,
            resume=resume,
            extractor_weights=extractor_weights,
            report=print_metrics,
        )
    out.print(f"trained weights: {escape(result)}")


def parse_setting(text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError(f"--set takes KEY=VALUE, such as refine.steps=500, not {text!r}")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise ValueError(f"--set {key}: {value!r} is no YAML value") from None


def print_metrics(line: Mapping[str, Any]) -> None:
    """One line of the run's metrics."""
    figures = "  ".join(f"{name} {value:.4g}" for name, value in line.items() if name not in ("stage", "step", "steps"))
    out.print(escape(f"{line['stage']:<14} {line['step']:>6}/{line['steps']}  {figures}"))


@weights_app.command("list")
def weights_list(as_json: AsJson = False) -> None:
    """What is bundled, with its main figures."""
    from vrdir.weights.bundled import manifest

    if as_json:
        sys.stdout.write(json.dumps(manifest(), indent=1) + "\n")
        return
    table = Table("name", "parameters", "file", "licence", "description")
    for name, facts in manifest().items():
        table.add_row(name, f"{facts['parameters']:,}", f"{facts['bytes'] / 2**20:.1f} MiB", facts["licence"], facts["description"])
    out.print(table)


@weights_app.command("show")
def weights_show(name: Annotated[str, typer.Argument(help="Name of bundled weights.")] = "small") -> None:
    """All facts about a set of weights, as JSON."""
    from vrdir.weights.bundled import manifest

    with one_line_errors():
        facts = known_weights(name, manifest())
    sys.stdout.write(json.dumps(facts, indent=1) + "\n")


@weights_app.command("verify")
def weights_verify(name: Annotated[str | None, typer.Argument(help="Name of bundled weights; default: all.")] = None) -> None:
    """Compare the files with their released hashes, and the network's output with the golden one."""
    from vrdir.inference.golden import golden_problems
    from vrdir.weights.bundled import manifest

    with one_line_errors():
        if name is not None:
            known_weights(name, manifest())
    for each in [name] if name else manifest():
        problems = golden_problems(each)
        if problems:
            fail("; ".join(problems), 1)
        out.print(f"{each}: intact")


def known_weights(name: str, manifest: Mapping[str, Any]) -> Any:
    if name not in manifest:
        raise ValueError(f"no bundled weights {name!r}; there are {', '.join(manifest)}")
    return manifest[name]


@app.command()
def info(as_json: AsJson = False) -> None:
    """Versions, devices, threads: what a bug report needs."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from vrdir import __version__
    from vrdir.weights.bundled import manifest

    facts: dict[str, Any] = {"vrdir": __version__, "python": platform.python_version(), "system": platform.platform()}
    for package in ("torch", "numpy", "pillow", "safetensors", "pydantic", "scikit-image", "onnxruntime"):
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    facts["threads"] = torch.get_num_threads()
    facts["devices"] = ["cpu"] + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    facts["weights"] = list(manifest())
    if as_json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for key, value in facts.items():
        out.print(escape(f"{key:<14} {', '.join(value) if isinstance(value, list) else value}"))


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
) -> None:
    if version:
        from vrdir import __version__

        out.print(f"vrdir {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)
