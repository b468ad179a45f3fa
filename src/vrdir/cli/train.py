"""`vrdir train`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vrdir.cli.console import Device, escape, one_line_errors, out

train_app = typer.Typer(help="Train the network, stage by stage.", no_args_is_help=True)


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
