"""The commands `vrdir train`: the stages, with every setting of the recipe as a flag."""

from __future__ import annotations

import difflib
import inspect
import logging
import os
import re
import reprlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from typer.core import TyperCommand

from vrdir.cli.console import err, escape, out
from vrdir.cli.errors import fail, one_line_errors
from vrdir.cli.options import Device, Threads
from vrdir.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from vrdir.training.earlier_stages import EarlierStages

train_app = typer.Typer(help="Train the network, stage by stage.", no_args_is_help=True)

FIRST = os.environ.get("RANK", "0") == "0"  # of the processes of torchrun, only this one prints
STAGES = ("context", "decoder", "branch", "fusion", "refine")
# The settings of the recipe are read by `given_settings`.
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}


def flags_of(command: str) -> dict[str, tuple[str, str]]:
    """Return the settings of a recipe as flags of a command: key and description by flag.

    The settings of the command's stage lack its name: `train branch --steps 500`. Those of other
    stages are left out.
    """
    from vrdir.training.settings import Recipe, described

    flags = {}
    for setting in described(Recipe):
        stage, _, rest = setting.key.partition(".")
        own = stage == command and rest != ""
        if own or stage not in STAGES or command == "all":
            flag = "--" + re.sub(r"[._]", "-", rest if own else setting.key)
            flags[flag] = (setting.key, setting.description)
    return flags


class RecipeCommand(TyperCommand):
    """A command whose help lists a flag for every setting of the recipe."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help and the flags."""
        super().format_help(ctx, formatter)
        try:
            flags = flags_of(self.name or "")
        except ModuleNotFoundError:  # the command itself names what is missing
            return
        table = Table(
            "flag",
            "setting of the recipe, which has its default; values are YAML",
            box=None,
            header_style="bold",
        )
        for flag, (_, text) in flags.items():
            table.add_row(flag, escape(text))
        out.print(table)


def given_settings(
    command: str, arguments: Sequence[str], others: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the settings among a command's arguments: `--steps 500` or `--steps=500`.

    Args:
        command: the command's name.
        arguments: all arguments that are not its own options.
        others: its own options, to suggest for a mistyped one.

    Raises:
        InputError: an argument is not a setting.
    """
    from vrdir.yaml_files import parse_yaml

    flags, rest, settings = flags_of(command), list(arguments), {}
    while rest:
        flag, equals, value = rest.pop(0).partition("=")
        if flag not in flags:
            close = difflib.get_close_matches(flag, [*others, *flags], 3)
            see = (
                f"did you mean {', '.join(close)}?"
                if close
                else f"see vrdir train {command} --help"
            )
            raise InputError(f"no option {flag}; {see}")
        if not equals and not rest:
            raise InputError(f"{flag} needs a value")
        text = value if equals else rest.pop(0)
        try:
            settings[flags[flag][0]] = parse_yaml(text)
        except ValueError as error:
            raise InputError(
                f"{flag}: {reprlib.repr(text)} is not a YAML value ({error})"
            ) from None
    return settings


RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="A YAML recipe, or the name of one that comes with vrdir: paper, small, field, base, "
        "smoke.",
    ),
]
Clean = Annotated[
    Path | None,
    typer.Option(
        help="Folder of clean photos; degraded ones are synthesised from them.", show_default=False
    ),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]LIST",
        help="Pair list, and the degradation of its images, or clean, or mixed. Repeat it for "
        "several lists.",
        show_default=False,
    ),
]
ValClean = Annotated[
    Path | None,
    typer.Option(
        help="Clean photos to validate on; default: some of --clean are held out.",
        show_default=False,
    ),
]
ValPairs = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]LIST", help="Pair lists to validate on.")
]
WorkDir = Annotated[
    Path,
    typer.Option(
        help="Folder for checkpoints, weights, pictures, metrics and the record of the run.",
        show_default=False,
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in the work directory.")]
ExtractorWeights = Annotated[
    Path | None,
    typer.Option(
        help="File with the extractor's pretrained weights, for a run without earlier stages, and "
        "for the recognition loss of `refine`. Default: the published weights.",
        show_default=False,
    ),
]
DecoderPrior = Annotated[
    Path,
    typer.Option(
        "--decoder",
        help="What `train decoder` made: a model folder, or its work directory.",
        show_default=False,
    ),
]


def shared(
    context: typer.Context,
    work_dir: WorkDir,
    recipe: RecipeOption = "small",
    clean: Clean = None,
    pairs: Pairs = None,
    val_clean: ValClean = None,
    val_pairs: ValPairs = None,
    device: Device = "auto",
    threads: Threads = None,
    resume: Resume = False,
    extractor_weights: ExtractorWeights = None,
) -> None:
    """Take the options of every stage; their values are used by `run`."""


def stage_command(own: Callable[..., None]) -> Callable[..., None]:
    """Register `train NAME` for a function `train_NAME`.

    The function's arguments are the stage's own options; its docstring is the help.
    """
    name = own.__name__.removeprefix("train_")

    def command(**given: Any) -> None:
        run(name, given)

    parameters = [
        p
        for part in (own, shared)
        for p in inspect.signature(part, eval_str=True).parameters.values()
    ]
    parameters.sort(key=lambda p: p.default is not p.empty)  # what must be given comes first
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    command.__doc__ = own.__doc__
    train_app.command(name, cls=RecipeCommand, context_settings=EXTRA)(command)
    return own


@stage_command
def train_context(
    weights: Annotated[
        str | None,
        typer.Option(
            help="A whole network to continue from: folder, work directory, or name of bundled "
            "weights. Default: random weights.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train the global context, before all other stages (ours): it removes the veil of haze."""


@stage_command
def train_decoder() -> None:
    """Train the semantic-aware decoder (SAD), stage 1: it reconstructs images from semantics."""


@stage_command
def train_branch(
    degradation: Annotated[
        str,
        typer.Option(
            help="The branch's degradation: haze, noise, rain, snow, ...", show_default=False
        ),
    ],
    decoder: DecoderPrior,
) -> None:
    """Train one branch (DNC), stage 2: it learns one degradation; the decoder stays frozen."""


@stage_command
def train_fusion(
    decoder: DecoderPrior,
    branch: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="The result of `train branch` for NAME; once for each branch, in the network's "
            "order.",
        ),
    ],
) -> None:
    """Train the fusion module (FGM), stage 3; the branches stay frozen."""


@stage_command
def train_refine(
    weights: Annotated[
        str,
        typer.Option(
            help="The result of `train fusion`, or another whole network: folder, work directory, "
            "or name of bundled weights.",
            show_default=False,
        ),
    ],
) -> None:
    """Train everything but the extractor together, stage 4 (ours)."""


@stage_command
def train_all() -> None:
    """Train all stages: decoder, one branch for each degradation, fusion, refinement."""


def run(command: str, given: Mapping[str, Any]) -> None:
    """Run the stages of a command, with its options by name."""
    with one_line_errors():
        try:
            from vrdir.errors import DiskError
            from vrdir.restoring.loading import choose_device
            from vrdir.training.run import stages_of, train
            from vrdir.training.settings import Recipe
            from vrdir.training.sources import Sources
            from vrdir.training.trainer import Interrupted
        except ModuleNotFoundError as error:
            raise MissingPackageError(
                f"training needs more packages ({error.name} is missing): "
                "pip install 'vrdir[train]'"
            ) from None
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        for name in ("lightning_fabric", "lightning", "matplotlib"):
            logging.getLogger(name).setLevel(logging.WARNING)
        own = [name for option in given["context"].command.params for name in option.opts]
        changes = given_settings(command, given["context"].args, own)
        earlier, branches = earlier_stages(given)
        if branches and changes.pop("model.branches", branches) != branches:
            raise InputError(
                f"--model-branches is for whole runs; here the branches are {', '.join(branches)}: "
                "leave the option out"
            )
        settings = Recipe.read(given["recipe"], **changes)
        settings = settings.with_branches(branches) if branches else settings
        sources = Sources(
            given["clean"], given["pairs"] or (), given["val_clean"], given["val_pairs"] or ()
        )
        stages = stages_of(command, settings, given.get("degradation", ""))
        try:
            with RunProgress([stage.name for stage in stages]) as progress:
                result = train(
                    settings,
                    stages,
                    sources,
                    given["work_dir"],
                    earlier=earlier,
                    device=str(choose_device(given["device"])),
                    resume=given["resume"],
                    extractor_weights=given["extractor_weights"],
                    watcher=progress,
                )
        except Interrupted as stopped:
            fail(stopped, 128 + stopped.signal_number)
        except DiskError as error:  # an error during the run: status 1
            fail(error, 1)
    if FIRST:
        out.print(f"trained weights: {escape(result)}")


def earlier_stages(given: Mapping[str, Any]) -> tuple[EarlierStages, list[str]]:
    """Return the earlier stages that a command's flags name, and the branches of its network.

    No branches means those of the recipe.
    """
    from vrdir.model.vrdir import read_config
    from vrdir.training.earlier_stages import EarlierStages, whole_folder

    branches: dict[str, Path] = {}
    for text in given.get("branch", ()):
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise InputError(f"--branch takes NAME=PATH, such as haze=runs/haze, not {text!r}")
        if name in branches:
            raise InputError(f"--branch {name} is given twice")
        branches[name] = Path(path)
    whole = given.get("weights")
    if whole is not None:
        config = read_config(whole_folder(whole) / "config.json")
        return EarlierStages(whole=whole), list(config.branches)
    own = [given["degradation"]] if "degradation" in given else []
    return EarlierStages(given.get("decoder"), branches), list(branches) or own


class RunProgress:
    """Shows a run: a progress bar on a terminal, and lines of metrics with the time left.

    Args:
        stages: the names of all stages of the run, in order.
        lines: whether to print the lines of metrics.
    """

    def __init__(self, stages: Sequence[str], lines: bool = True) -> None:
        self.lines = lines
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[rate]}  left"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, console=err, disable=not (err.is_terminal and FIRST))
        self.stages = stages
        self.tasks: dict[str, Any] = {}
        # By stage: its first step in this run, and the time of that step.
        self.begun: dict[str, tuple[int, float]] = {}
        self.explained = False

    def __enter__(self) -> RunProgress:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def step(self, stage: str, step: int, steps: int, batch_size: int) -> None:
        """Advance the progress bar."""
        if stage not in self.tasks:
            place = (
                f" ({self.stages.index(stage) + 1} of {len(self.stages)})"
                if len(self.stages) > 1
                else ""
            )
            self.tasks[stage] = self.progress.add_task(
                stage + place, total=steps, completed=step - 1, rate=""
            )
            self.begun[stage] = step, time.monotonic()
        speed = self.progress.tasks[self.tasks[stage]].speed
        rate = f"{speed * batch_size:.0f} patches/s" if speed else ""
        self.progress.update(self.tasks[stage], completed=step, rate=rate)

    def metrics(self, line: Mapping[str, Any]) -> None:
        """Print a line of metrics."""
        if not self.lines:
            return
        figures = "  ".join(
            f"{name} {value:.4g}"
            for name, value in line.items()
            if name not in ("stage", "step", "steps")
        )
        done = f"{line['stage']:<14} {line['step']:>6}/{line['steps']}"
        out.print(escape(f"{done}  {figures}{self._left(line)}"))
        if not self.explained and line.get("loss_pixel", 0) < 0:
            self.explained = True
            out.print(
                "loss_pixel is below 0 as it should be: pixel_loss balanced_l1 is a mean of "
                "logarithms; lower is better"
            )

    def _left(self, line: Mapping[str, Any]) -> str:
        """Return the time left of a stage, with validations; "" if unknown, or at the end."""
        first, start = self.begun.get(line["stage"], (line["step"], 0.0))
        done, left = line["step"] - first, line["steps"] - line["step"]
        return (
            f"  left {timedelta(seconds=round((time.monotonic() - start) * left / done))}"
            if done > 0 and left > 0
            else ""
        )
