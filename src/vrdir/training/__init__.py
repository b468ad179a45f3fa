"""Training: recipes, stages, runs. See docs/training.md."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.training.earlier_stages import EarlierStages
    from vrdir.training.logs import Watcher
    from vrdir.training.run import train
    from vrdir.training.settings import RECIPES, Recipe
    from vrdir.training.sources import Sources
    from vrdir.training.stage import Stage
    from vrdir.training.stages import all_stages, stages_of
    from vrdir.training.trainer import Interrupted, Trainer

__all__ = [
    "RECIPES",
    "EarlierStages",
    "Interrupted",
    "Recipe",
    "Sources",
    "Stage",
    "Trainer",
    "Watcher",
    "all_stages",
    "stages_of",
    "train",
]

_HOMES = {
    "EarlierStages": "vrdir.training.earlier_stages",
    "Interrupted": "vrdir.training.trainer",
    "RECIPES": "vrdir.training.settings",
    "Recipe": "vrdir.training.settings",
    "Sources": "vrdir.training.sources",
    "Stage": "vrdir.training.stage",
    "Trainer": "vrdir.training.trainer",
    "Watcher": "vrdir.training.logs",
    "all_stages": "vrdir.training.stages",
    "stages_of": "vrdir.training.stages",
    "train": "vrdir.training.run",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
