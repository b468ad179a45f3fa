"""The stages of training, by command, and their order in a whole run.

First (our addition) the global context learns on reduced copies of whole views. Stage 1 teaches the
decoder, stage 2 one branch after another against the frozen decoder, stage 3 the fusion of the
frozen branches. Stage 4 (our addition) refines everything except E and the context together, and
stage 5 everything except E, on whole views, by a detector's output in fog.
"""

from __future__ import annotations

from collections.abc import Callable

from vrdir.training.context_stages import ContextStage, HazeStage
from vrdir.training.network_stages import RefineStage, WholeStage
from vrdir.training.paper_stages import BranchStage, DecoderStage, FusionStage
from vrdir.training.settings import Recipe
from vrdir.training.stage import Stage


def stages_of(command: str, recipe: Recipe, degradation: str = "") -> list[Stage]:
    """Return the stages of a command.

    Args:
        command: "context", "decoder", "branch", "fusion", "refine", "whole", "haze" or
            "all".
        recipe: all settings.
        degradation: the branch's, for "branch".
    """
    if command == "branch":
        return [BranchStage(recipe, degradation)]
    if command == "all":
        return all_stages(recipe)
    stages: dict[str, Callable[[Recipe], Stage]] = {
        "context": ContextStage,
        "decoder": DecoderStage,
        "fusion": FusionStage,
        "refine": RefineStage,
        "whole": WholeStage,
        "haze": HazeStage,
    }
    return [stages[command](recipe)]


def all_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages of a whole run, in order."""
    stages: list[Stage] = [] if recipe.context is None else [ContextStage(recipe)]
    stages.append(DecoderStage(recipe))
    stages += [BranchStage(recipe, name) for name in recipe.model.branches]
    stages.append(FusionStage(recipe))
    if recipe.refine is not None:
        stages.append(RefineStage(recipe))
    if recipe.whole is not None:
        stages.append(WholeStage(recipe))
    if recipe.haze is not None:
        stages.append(HazeStage(recipe))
    return stages
