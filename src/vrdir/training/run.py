"""Whole runs: from a recipe and a folder of clean photos to weights."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vrdir.data.loaders import CleanPhotos, photos_in, split
from vrdir.model.vrdir import VRDIR
from vrdir.training.settings import Recipe
from vrdir.training.stages import all_stages
from vrdir.training.trainer import Report, Trainer

logger = logging.getLogger(__name__)


def train_all(
    recipe: Recipe,
    clean: Path,
    work_dir: Path,
    *,
    device: str = "cpu",
    resume: bool = False,
    extractor_weights: Path | None = None,
    report: Report | None = None,
) -> Path:
    """Run every stage of a recipe, one after the other.

    Args:
        recipe: all settings.
        clean: folder of clean photos; some are held out for validation.
        work_dir: see `Trainer`; the recipe as run is written there too.
        device: "cpu", "cuda", ...
        resume: go on with what `work_dir` holds. Without it a folder that already holds a run is an error.
        extractor_weights: file of E's pretrained weights; None takes them from where they are published.
        report: called with every line of metrics.

    Returns:
        The folder of the final weights.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: naming the file or field.
    """
    if (work_dir / "metrics.jsonl").exists() and not resume:
        raise FileExistsError(f"{work_dir} already holds a run; go on with it by --resume, or choose another --work-dir")
    training, validation = split(photos_in(clean), recipe.validation.photos)
    torch.manual_seed(recipe.seed)
    model = VRDIR(recipe.model)
    model.load_pretrained_extractor(extractor_weights)
    trainer = Trainer(model, recipe, CleanPhotos(training), CleanPhotos(validation), work_dir, device, report)
    recipe.write(work_dir / "recipe.yaml")
    final = work_dir
    for stage in all_stages(recipe):
        final = work_dir / "weights" / stage.name
        if resume and (final / "model.safetensors").is_file():
            logger.info("stage %s is done", stage.name)
            model.load_state_dict(VRDIR.from_pretrained(final).state_dict())
            continue
        trainer.run(stage, resume)
    return final
