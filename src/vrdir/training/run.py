"""Whole runs: from a recipe, data and what earlier stages learnt, to weights."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from vrdir.data.items import Item, items_of, split, spread
from vrdir.data.training_set import TrainingSet, check_division
from vrdir.data.validation_set import ValidationSet
from vrdir.degradations.degrade import ranges_of
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.folders import check_writable
from vrdir.image_files.whole_files import HOPELESS, DiskError
from vrdir.model.vrdir import VRDIR, VRDIRConfig
from vrdir.training.logs import Watcher
from vrdir.training.record import open_work_dir
from vrdir.training.settings import Recipe
from vrdir.training.stages import (
    BranchStage,
    ContextStage,
    DecoderStage,
    FusionStage,
    RefineStage,
    Stage,
    all_stages,
)
from vrdir.training.trainer import Interrupted, Trainer
from vrdir.weights.bundled import manifest, resolve_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a run trains and validates on.

    Attributes:
        clean: a folder of clean photos, degraded on the way. Some are held out for validation, unless there is another source for it.
        pairs: pair lists, "[NAME=]FILE" each; see `vrdir.data.items.items_of`.
        val_clean, val_pairs: the same, for validation.
    """

    clean: Path | None = None
    pairs: Sequence[str] = ()
    val_clean: Path | None = None
    val_pairs: Sequence[str] = ()

    def items(self, recipe: Recipe) -> tuple[list[Item], list[Item]]:
        """Training and validation items. Raises FileNotFoundError or ValueError, naming the folder or list."""
        if self.clean is None and not self.pairs:
            raise ValueError("there is nothing to train on: give --clean FOLDER or --pairs LIST")
        names = tuple(dict.fromkeys((*recipe.model.branches, *DEGRADATIONS)))
        count = recipe.validation.photos
        training = items_of(self.clean, self.pairs, names)
        if self.val_clean is None and not self.val_pairs:
            drawn = [item for item in training if item.drawn]
            if not drawn:
                raise ValueError(
                    "there is nothing to validate on: give --val-pairs LIST or --val-clean FOLDER"
                )
            if count is None:
                raise ValueError(
                    "validation.photos must say how many photos of --clean to hold out; or give --val-clean or --val-pairs"
                )
            kept, held_out = split(drawn, count)
            photos = {item.clean.resolve() for item in held_out}
            pairs = [item for item in training if not item.drawn]
            others = [item for item in pairs if item.clean.resolve() not in photos]
            if len(others) < len(pairs):
                logger.warning(
                    "%d pairs are not trained on: their photos are held out for validation",
                    len(pairs) - len(others),
                )
            return kept + others, held_out
        held_out = items_of(self.val_clean, self.val_pairs, names, "--val-pairs")
        seen = {item.clean.resolve() for item in training} & {
            item.clean.resolve() for item in held_out
        }
        if seen:
            logger.warning(
                "%d photos are both trained and validated on, such as %s", len(seen), min(seen)
            )
        by_kind: dict[str, list[Item]] = {}
        for item in held_out:
            by_kind.setdefault(item.kind, []).append(item)
        for kind, items in by_kind.items():
            if count is not None and len(items) > count:
                by_kind[kind] = [items[i] for i in spread(len(items), count)]
        return training, [item for items in by_kind.values() for item in items]


@dataclass(frozen=True)
class Prior:
    """What earlier stages learnt: model folders, or work directories of their runs.

    Attributes:
        decoder: of stage 1.
        branches: of stage 2, by the branch's name.
        whole: a whole network, to go on from; of bundled weights and a folder of one name a str means the former, a Path the latter.
    """

    decoder: Path | None = None
    branches: Mapping[str, Path] = field(default_factory=dict)
    whole: Path | str | None = None

    def files(self) -> dict[str, Path]:
        """The model folder of each part. Raises FileNotFoundError."""
        found = {
            f"branch-{name}": model_folder(path, f"branch-{name}")
            for name, path in self.branches.items()
        }
        if self.decoder is not None:
            found["decoder"] = model_folder(self.decoder, "decoder")
        if self.whole is not None:
            found["whole"] = whole_folder(self.whole)
        return found

    def load_into(self, model: VRDIR) -> None:
        """Copy the parts into a model, and E with them. Raises FileNotFoundError or ValueError, naming the folder."""
        state = model.state_dict()
        for part, folder in self.files().items():
            other = VRDIR.from_pretrained(folder)
            name = part.removeprefix("branch-")
            check_config(
                model.config,
                other.config,
                folder,
                name if part.startswith("branch-") else "",
                whole=part == "whole",
            )
            found = other.state_dict().items()
            state |= {key: value for key, value in found if belongs_to(part, name, key)}
        model.load_state_dict(state)


def belongs_to(part: str, branch: str, key: str) -> bool:
    """Return whether a tensor of a network belongs to a part of it, E included."""
    if part == "whole":
        return True
    if part == "decoder":
        return key.startswith(("decoder.", "extractor.", "context."))
    return key.startswith("extractor.") or f".branches.{branch}." in key


def model_folder(path: Path, *stages: str) -> Path:
    """A model folder itself, or that of the first stage that a work directory has done. Raises FileNotFoundError."""
    for folder in (path, *(path / "weights" / stage for stage in stages)):
        if (folder / "model.safetensors").is_file():
            return folder
    raise FileNotFoundError(
        f"{path} holds no weights of the stage {' or '.join(stages)}: give a model folder, or a work directory with that stage done"
    )


def whole_folder(path: Path | str) -> Path:
    """Of a whole network: bundled weights by name, a model folder itself, or that of the latest stage of a work directory.

    Raises:
        FileNotFoundError: it is none of these.
    """
    if str(path) in manifest() and (isinstance(path, str) or not path.is_dir()):
        return resolve_weights(path)
    return model_folder(Path(path), "refine", "fusion", "context")


def check_config(
    config: VRDIRConfig, other: VRDIRConfig, folder: Path, branch: str, whole: bool
) -> None:
    """Raise ValueError unless what stands in `folder` fits into a network of this config."""
    free: set[str] = set()
    if not whole:
        free |= {"branches", "clean_branch"}
        if branch:
            free |= {"decoder", "widths", "encoder_blocks", "decoder_blocks", "channel_attention"}
    ours, theirs = config.model_dump(), other.model_dump()
    different = [key for key in ours if key not in free and ours[key] != theirs[key]]
    if different:
        said = "; ".join(f"{key} is {theirs[key]}, not {ours[key]}" for key in different)
        raise ValueError(
            f"{folder} holds another network than the recipe's ({said}); give the recipe that it was trained by"
        )
    if branch and branch not in other.branches:
        raise ValueError(f"{folder} has no branch {branch}; it has {', '.join(other.branches)}")


def stages_of(command: str, recipe: Recipe, degradation: str = "") -> list[Stage]:
    """The stages of a command: "context", "decoder", "branch" (of a degradation), "fusion", "refine" or "all"."""
    if command == "branch":
        return [BranchStage(recipe, degradation)]
    if command == "all":
        return all_stages(recipe)
    stages: dict[str, Callable[[Recipe], Stage]] = {
        "context": ContextStage,
        "decoder": DecoderStage,
        "fusion": FusionStage,
        "refine": RefineStage,
    }
    return [stages[command](recipe)]


def train(
    recipe: Recipe,
    stages: Sequence[Stage],
    sources: Sources,
    work_dir: Path,
    *,
    prior: Prior = Prior(),
    device: str = "cpu",
    resume: bool = False,
    extractor_weights: Path | None = None,
    watcher: Watcher | None = None,
) -> Path:
    """Run stages of a recipe, one after the other. Under torchrun, each process calls this.

    Args:
        recipe: all settings.
        stages: which, such as `all_stages(recipe)`.
        sources: what to train and validate on.
        work_dir: see `Trainer`; what is run is written there too (recipe.yaml, run.json, data.txt).
        prior: what earlier stages learnt.
        device: "cpu" or "cuda".
        resume: go on with the run in `work_dir`, which must be this one; without it there must be none.
        extractor_weights: file of E's pretrained weights, for E where there is no `prior` to take it from, and for the recogniser of the
            recognition loss; None takes those that are published.
        watcher: is told every step and every line of metrics.

    Returns:
        The folder of the final weights.

    Raises:
        FileExistsError, FileNotFoundError, ValueError: naming the file or field.
        DiskError: the disk of `work_dir` is full, or can only be read.
    """
    fabric = launched(device, recipe)
    if fabric.is_global_zero:
        check_writable(work_dir, work_dir)
    training, validation = sources.items(recipe)
    torch.manual_seed(recipe.seed)
    try:
        model = VRDIR(recipe.model)
    except ValueError as error:
        raise ValueError(f"the recipe's model is no network: {error}") from None
    if not prior.files():
        model.load_pretrained_extractor(extractor_weights)
    elif extractor_weights is not None and not any(stage.recognises for stage in stages):
        raise ValueError(
            "--extractor-weights has no use here: E comes from the earlier stage, which was trained on it; leave the option out"
        )
    prior.load_into(model)
    for stage in stages:
        stage.prepare(fabric.device, extractor_weights)
    data = TrainingSet(
        training,
        recipe.model.branches,
        seed=recipe.seed,
        ranges=ranges_of(recipe.ranges),
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
        cache_bytes=int(recipe.data.cache_gib * 2**30),
        device=fabric.device,
        on_device=recipe.data.on_device,
    )
    held_out = ValidationSet(
        validation,
        recipe.model.branches,
        recipe.validation.crop_px,
        cache_bytes=int(recipe.data.cache_gib * 2**30),
        ranges=ranges_of(recipe.ranges),
        jpeg_share=recipe.jpeg_share,
    )
    held_out.check()
    if recipe.compile is not None and recipe.compile not in torch.compiler.list_backends(()):
        raise ValueError(
            f"compile: no backend {recipe.compile!r} here; there are {', '.join(torch.compiler.list_backends(()))}"
        )
    for stage in stages:  # before anything is written
        data.stage(stage.name, stage.shares, stage.accepts, stage.whole)
        check_division(stage.settings.batch_size, stage.settings.accumulate, fabric.world_size)
        if not held_out.kinds(stage.shares, stage.accepts):
            raise ValueError(
                f"there is nothing to validate the stage {stage.name} on; give --val-pairs or --val-clean that fit it"
            )
    names = [stage.name for stage in stages]
    if fabric.is_global_zero:
        with naming_disk(work_dir):
            open_work_dir(
                work_dir,
                names,
                recipe,
                training,
                validation,
                prior.files(),
                str(fabric.device),
                fabric.world_size,
                resume,
            )
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


def launched(device: str, recipe: Recipe) -> Fabric:
    """The devices of this process, and the other processes that torchrun started, if it did."""
    here, everywhere = (
        int(os.environ.get(name, "1")) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE")
    )
    kind, _, index = device.partition(":")
    devices: list[int] | int = (
        [int(index)] if kind == "cuda" and index and everywhere == 1 else here
    )
    # Weights lie channels last; where they are 1 x 1 the two layouts are one, and DDP warns of it.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    if kind == "cuda" and here > torch.cuda.device_count():
        raise ValueError(
            f"{here} processes were started on a machine of {torch.cuda.device_count()} GPUs; start as many as it has"
        )
    fabric = Fabric(
        accelerator=kind,
        devices=devices,
        num_nodes=everywhere // here,
        strategy=DDPStrategy() if everywhere > 1 else "auto",
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


@contextmanager
def leaving_together() -> Iterator[None]:
    """Part from the other processes where all come to the end, finished or interrupted after the same step.

    Gloo's threads would otherwise live on while the interpreter ends, and now and then abort it. After an error a process is alone
    with it, and would wait for the others for ever.
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
    """Say which folder it is, and what to do, where the disk is full or takes no files. Raises DiskError."""
    try:
        yield
    except OSError as error:
        advice = HOPELESS.get(error.errno or 0)
        if advice is None:
            raise
        raise DiskError(
            f"{work_dir} cannot be written ({error.strerror}); {advice}, then go on by --resume"
        ) from None
