"""Whole runs: from a recipe, data and the weights of earlier stages to new weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.strategies.ddp import DDPStrategy

from vrdir.atomic import HOPELESS
from vrdir.data.items import Item
from vrdir.data.training_set import TrainingSet, check_division
from vrdir.data.validation_set import ValidationSet
from vrdir.errors import DataError, DiskError, SettingsError
from vrdir.images.folders import check_writable
from vrdir.model.vrdir import VRDIR
from vrdir.training.earlier_stages import EarlierStages
from vrdir.training.logs import Watcher
from vrdir.training.record import Run, open_work_dir
from vrdir.training.settings import Recipe
from vrdir.training.sources import Sources
from vrdir.training.stage import Stage
from vrdir.training.trainer import Interrupted, Trainer

logger = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    stages: Sequence[Stage],
    sources: Sources,
    work_dir: Path,
    *,
    earlier: EarlierStages | None = None,
    device: str = "cpu",
    resume: bool = False,
    extractor_weights: Path | None = None,
    watcher: Watcher | None = None,
) -> Path:
    """Run stages of a recipe, one after the other. Under torchrun, each process calls this.

    Args:
        recipe: all settings.
        stages: the stages to run, such as `all_stages(recipe)`.
        sources: what to train and validate on.
        work_dir: see `Trainer`; recipe.yaml, run.json and data.txt are written there too.
        earlier: the weights of earlier stages.
        device: "cpu" or "cuda".
        resume: continue the run in `work_dir`, which must be this run; otherwise there must be no
            run in it.
        extractor_weights: file of E's pretrained weights, if there are no earlier stages that
            contain E, and for the recogniser of the recognition loss; None uses the published ones.
        watcher: gets every step and every line of metrics.

    Returns:
        The folder of the final weights.

    Raises:
        ExistsError, MissingFileError, DataError, SettingsError: naming the file or field.
        DiskError: the disk of `work_dir` is full or read-only.
    """
    fabric = launched(device, recipe)
    if fabric.is_global_zero:
        check_writable(work_dir, work_dir)
    earlier = earlier or EarlierStages()
    training, validation = sources.items(recipe)
    model = _new_model(recipe, stages, earlier, extractor_weights)
    for stage in stages:
        stage.prepare(fabric.device, extractor_weights)
    data = training_set(recipe, training, fabric.device)
    held_out = _validation_set(recipe, validation)
    _check(recipe, stages, data, held_out, fabric.world_size)
    if fabric.is_global_zero:
        run = Run(
            stages=[stage.name for stage in stages],
            recipe=recipe,
            training=training,
            validation=validation,
            weights=earlier.folders(),
            device=str(fabric.device),
            processes=fabric.world_size,
        )
        with naming_disk(work_dir):
            open_work_dir(work_dir, run, resume)
    fabric.barrier()
    trainer = Trainer(fabric, model, recipe, data, held_out, work_dir, watcher)
    with leaving_together(), naming_disk(work_dir):
        for stage in stages:
            done = work_dir / "weights" / stage.name
            if resume and (done / "model.safetensors").is_file():
                logger.info("stage %s is done", stage.name)
                model.load_state_dict(VRDIR.from_pretrained(done).state_dict())
                continue
            trainer.run(stage, resume)
    return work_dir / "weights" / stages[-1].name


def _new_model(
    recipe: Recipe, stages: Sequence[Stage], earlier: EarlierStages, extractor_weights: Path | None
) -> VRDIR:
    """Return the recipe's network, with the weights of E and of the earlier stages."""
    torch.manual_seed(recipe.seed)
    try:
        model = VRDIR(recipe.model)
    except ValueError as error:
        raise SettingsError(f"the recipe's model is not a valid network: {error}") from None
    if not earlier.folders():
        model.load_pretrained_extractor(extractor_weights)
    elif extractor_weights is not None and not any(stage.recognises for stage in stages):
        raise SettingsError(
            "remove --extractor-weights: the extractor is taken from the earlier stage, which was "
            "trained with it"
        )
    earlier.load_into(model)
    return model


def training_set(recipe: Recipe, training: Sequence[Item], device: torch.device) -> TrainingSet:
    """Return the training data of a recipe, from items, on a device."""
    return TrainingSet(
        training,
        recipe.model.branches,
        seed=recipe.seed,
        ranges=recipe.ranges,
        jpeg_share=recipe.jpeg_share,
        crop_px=recipe.crop_px,
        view_px=recipe.views_px,
        copy_px=recipe.model.context.side if recipe.model.context else None,
        whole_px=recipe.whole_px,
        fog_share=recipe.fog_share,
        overlay_share=recipe.overlay_share,
        augmentation=recipe.augmentation,
        balance=recipe.data.balance,
        pairs_share=recipe.data.pairs_share,
        one_source=recipe.data.one_source,
        cache_bytes=int(recipe.data.cache_gib * 2**30),
        device=device,
        on_device=recipe.data.on_device,
    )


def _validation_set(recipe: Recipe, validation: Sequence[Item]) -> ValidationSet:
    held_out = ValidationSet(
        validation,
        recipe.model.branches,
        recipe.validation.crop_px,
        cache_bytes=int(recipe.data.cache_gib * 2**30),
        ranges=recipe.ranges,
        jpeg_share=recipe.jpeg_share,
    )
    held_out.check()
    return held_out


def _check(
    recipe: Recipe,
    stages: Sequence[Stage],
    data: TrainingSet,
    held_out: ValidationSet,
    processes: int,
) -> None:
    """Raise the errors that a stage would raise later, before anything is written."""
    backends = torch.compiler.list_backends(())
    if recipe.compile is not None and recipe.compile not in backends:
        raise SettingsError(
            f"compile: unknown backend {recipe.compile!r}; choose one of {', '.join(backends)}"
        )
    for stage in stages:
        data.stage(stage.name, stage.shares, stage.accepts, stage.whole)
        check_division(stage.settings.batch_size, stage.settings.accumulate, processes)
        if not held_out.kinds(stage.shares, stage.accepts):
            raise DataError(
                f"no validation data for the stage {stage.name}; use --val-pairs or --val-clean "
                "with suitable images"
            )


class Autocast(MixedPrecision):
    """Autocast that leaves the inputs in float32.

    Images rounded to bfloat16 would be wrong by up to half a level of 8 bits, targets included.
    """

    def convert_input(self, data: Any) -> Any:
        """Return the inputs as they are."""
        return data


def launched(device: str, recipe: Recipe) -> Fabric:
    """Return the devices of this process, connected to the other processes of torchrun."""
    here, everywhere = (
        int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    )
    kind, _, index = device.partition(":")
    devices: list[int] | int = (
        [int(index)] if kind == "cuda" and index and everywhere == 1 else here
    )
    # Weights are channels last; for 1 x 1 kernels the two layouts are the same, and DDP warns.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise SettingsError(
            f"{here} processes were started on a machine with {torch.cuda.device_count()} GPUs; "
            "start one process per GPU"
        )
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=everywhere // here,
        strategy=DDPStrategy() if everywhere > 1 else "auto",
        plugins=[Autocast("bf16-mixed", kind)] if recipe.precision == "bf16" else None,
    )
    fabric.launch()
    return fabric


@contextmanager
def leaving_together() -> Iterator[None]:
    """Leave the process group when all processes end, finished or interrupted at the same step.

    Otherwise Gloo's threads go on while the interpreter exits, and sometimes abort it. After an
    error a process must not do so: it would wait for the other processes forever.
    """
    interrupted = None
    try:
        yield
    except Interrupted as stopped:
        interrupted = stopped
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    if interrupted is not None:
        raise interrupted


@contextmanager
def naming_disk(work_dir: Path) -> Iterator[None]:
    """Raise DiskError, naming the folder, where the disk is full or read-only."""
    try:
        yield
    except OSError as error:
        advice = HOPELESS.get(error.errno or 0)
        if advice is None:
            raise
        raise DiskError(
            f"{work_dir} cannot be written ({error.strerror}); {advice}, then continue with "
            "--resume"
        ) from None
