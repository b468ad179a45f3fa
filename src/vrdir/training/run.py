"""Whole runs: from a recipe and a folder of clean photos to weights."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from vrdir.data.loaders import CleanPhotos, photos_in, split
from vrdir.images import write_whole
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
        resume: go on with the run in `work_dir`, which must be this one; without it there must be none.
        extractor_weights: file of E's pretrained weights; None takes them from where they are published.
        report: called with every line of metrics.

    Returns:
        The folder of the final weights.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: naming the file or field.
    """
    training, validation = split(photos_in(clean), recipe.validation.photos)
    names = [str(path.relative_to(clean)) for path in training]
    stages = all_stages(recipe)
    torch.manual_seed(recipe.seed)
    model = VRDIR(recipe.model)
    model.load_pretrained_extractor(extractor_weights)
    for stage in stages:
        stage.prepare(torch.device(device), extractor_weights)
    open_work_dir(work_dir, recipe, names, resume)
    trainer = Trainer(model, recipe, CleanPhotos(training), CleanPhotos(validation), work_dir, device, report)
    for stage in stages:
        done = work_dir / "weights" / stage.name
        if resume and (done / "model.safetensors").is_file():
            logger.info("stage %s is done", stage.name)
            model.load_state_dict(VRDIR.from_pretrained(done).state_dict())
            continue
        trainer.run(stage, resume)
    return work_dir / "weights" / stages[-1].name


def open_work_dir(work_dir: Path, recipe: Recipe, photos: list[str], resume: bool) -> None:
    """Record in a new work directory what is run, or make sure that the run in it is the same one.

    Raises:
        FileExistsError: it holds a run, and `resume` is not asked for.
        FileNotFoundError: it holds none, and `resume` is.
        ValueError: it holds another run.
    """
    recipe_file, photos_file = work_dir / "recipe.yaml", work_dir / "photos.txt"
    if not resume:
        if recipe_file.exists():
            raise FileExistsError(f"{work_dir} already holds a run; go on with it by --resume, or choose another --work-dir")
        work_dir.mkdir(parents=True, exist_ok=True)
        write_whole("".join(f"{name}\n" for name in photos).encode(), photos_file)
        recipe.write(recipe_file)
        return
    if not recipe_file.exists():
        raise FileNotFoundError(f"{work_dir} holds no run to go on with; leave --resume out to start one")
    before, now = Recipe.read(recipe_file).model_dump(), recipe.model_dump()
    different = [key for key in now if now[key] != before[key]]
    if different:
        raise ValueError(f"{recipe_file} is another recipe (it differs in {', '.join(different)}); resume with that one, or start anew")
    if photos_file.read_text().splitlines() != photos:
        raise ValueError(f"the training photos are not those of the run in {work_dir} ({photos_file}); resume with the same --clean")
