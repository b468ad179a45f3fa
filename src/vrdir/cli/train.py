"""The commands `vrdir train`: the stages, with every setting of the recipe as a flag."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrdir.cli.console import escape, out
from vrdir.cli.copies import folder_here, list_here
from vrdir.cli.errors import fail, one_line_errors
from vrdir.cli.options import Device, Threads
from vrdir.cli.recipe_flags import EXTRA, RecipeCommand, given_settings
from vrdir.cli.train_progress import FIRST, RunProgress
from vrdir.errors import InputError, MissingPackageError

if TYPE_CHECKING:
    from vrdir.training.earlier_stages import EarlierStages

train_app = typer.Typer(help="Train the network, stage by stage.", no_args_is_help=True)

RecipeOption = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="A YAML recipe, or the name of a bundled one: paper, small, field, base, smoke.",
    ),
]
Clean = Annotated[
    str | None,
    typer.Option(
        help="Folder of clean photos; degraded ones are synthesised from them. It may be at an "
        "address such as s3://bucket/photos.",
        show_default=False,
    ),
]
Pairs = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]LIST",
        help="Pair list; NAME is the degradation of its images, or clean, or mixed. Repeat it "
        "for several lists.",
        show_default=False,
    ),
]
ValClean = Annotated[
    str | None,
    typer.Option(
        help="Clean photos to validate on; default: some of --clean are held out.",
        show_default=False,
    ),
]
ValPairs = Annotated[
    list[str] | None, typer.Option(metavar="[NAME=]LIST", help="Pair lists to validate on.")
]
CopiesGb = Annotated[
    float,
    typer.Option(
        min=0, help="Disk space for copies of data from addresses, in GB; see docs/cluster.md."
    ),
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
TonedNetwork = Annotated[
    str,
    typer.Option(
        "--weights",
        help="A complete network with a local-tone context: model folder, work directory, or "
        "name of bundled weights.",
        show_default=False,
    ),
]
DecoderWeights = Annotated[
    Path,
    typer.Option(
        "--decoder",
        help="Result of `train decoder`: a model folder, or its work directory.",
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
    copies_gb: CopiesGb = 50,
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
            help="A complete network to continue from: model folder, work directory, or name of "
            "bundled weights. Default: random weights.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Train the global context, which removes haze, before all other stages (our addition)."""


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
    decoder: DecoderWeights,
) -> None:
    """Train one branch (DNC), stage 2: it learns one degradation; the decoder stays frozen."""


@stage_command
def train_fusion(
    decoder: DecoderWeights,
    branch: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=PATH",
            help="The result of `train branch` for NAME; use it once for each branch, in the "
            "network's order.",
        ),
    ],
) -> None:
    """Train the fusion module (FGM), stage 3; the branches stay frozen."""


@stage_command
def train_refine(
    weights: Annotated[
        str,
        typer.Option(
            help="The result of `train fusion`, or another complete network: model folder, work "
            "directory, or name of bundled weights.",
            show_default=False,
        ),
    ],
) -> None:
    """Train all parts except the extractor together, stage 4 (our addition)."""


@stage_command
def train_whole(
    weights: TonedNetwork,
) -> None:
    """Train all parts except the extractor by a detector's loss in fog, stage 5 (our addition)."""


@stage_command
def train_haze(
    weights: TonedNetwork,
) -> None:
    """Train the estimate of haze density, after all other stages; restored pixels do not change."""


@stage_command
def train_all() -> None:
    """Train all stages: decoder, one branch for each degradation, fusion, refinement."""


def run(command: str, given: Mapping[str, Any]) -> None:
    """Run the stages of a command, with its options by name."""
    with one_line_errors():
        try:
            from vrdir.errors import DiskError
            from vrdir.restoring.loading import choose_device
            from vrdir.training.run import train
            from vrdir.training.settings import Recipe
            from vrdir.training.sources import Sources
            from vrdir.training.stages import stages_of
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
                "remove the option"
            )
        settings = Recipe.read(given["recipe"], **changes)
        settings = settings.with_branches(branches) if branches else settings
        sources = Sources(
            clean=folder_here(given["clean"], given["copies_gb"]),
            pairs=[list_here(text, given["copies_gb"]) for text in given["pairs"] or ()],
            val_clean=folder_here(given["val_clean"], given["copies_gb"]),
            val_pairs=[list_here(text, given["copies_gb"]) for text in given["val_pairs"] or ()],
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
    from vrdir.model.config import read_config
    from vrdir.training.earlier_stages import EarlierStages, whole_folder

    branches: dict[str, Path] = {}
    for text in given.get("branch", ()):
        name, equals, path = text.partition("=")
        if not equals or not name or not path:
            raise InputError(f"--branch must be NAME=PATH, such as haze=runs/haze, not {text!r}")
        if name in branches:
            raise InputError(f"--branch {name} is used twice; use it once")
        branches[name] = Path(path)
    whole = given.get("weights")
    if whole is not None:
        config = read_config(whole_folder(whole) / "config.json")
        return EarlierStages(whole=whole), list(config.branches)
    own = [given["degradation"]] if "degradation" in given else []
    return EarlierStages(given.get("decoder"), branches), list(branches) or own
