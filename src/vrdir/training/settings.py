"""A recipe: every setting of a training run, checked when it is read."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from vrdir.data.augmentation import Augmentation
from vrdir.degradations.degrade import ranges_of
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED
from vrdir.image_files.whole_files import write_whole
from vrdir.model.vrdir import CONFIGS, VRDIRConfig, describe
from vrdir.yaml_files import read_yaml

RECIPES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}
"""Those that come with vrdir, by name."""


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _duration(value: Any) -> Any:
    match = re.fullmatch(r"\s*(\d+)\s+epochs?\s*", value) if isinstance(value, str) else None
    if match and int(match[1]):
        return f"{int(match[1])} epochs"
    if type(value) is not int or value < 1:
        raise ValueError(f'a number of steps, 1 or more, or of epochs as in "10 epochs", not {reprlib.repr(value)}')
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Duration = Annotated[int | str, BeforeValidator(_duration)]
"""Optimiser steps; or epochs, as in "10 epochs"."""


def steps_in(duration: int | str, epoch_length: int, batch_size: int) -> int:
    """The steps of a duration, where an epoch has so many images."""
    if isinstance(duration, int):
        return duration
    return max(1, math.ceil(int(duration.split()[0]) * epoch_length / batch_size))


class StageSettings(Settings):
    """How long, how fast and on how much a stage trains.

    Attributes:
        steps: optimiser steps, or epochs as in "1200 epochs".
        batch_size: images a step, of all processes together.
        accumulate: parts into which each process cuts its share of a batch, where it does not fit into memory at once.
        learning_rate: of the optimiser, at its peak.
        schedule: "cosine" falls to zero after a linear warm-up; "constant" stays after it, for a run that another one goes on from;
            "halving" halves the rate every quarter of the steps, as the paper.
        warmup_steps: of the cosine and the constant schedule.
        clip_norm: the gradient's norm is limited to this; null for no limit.
        loss_weights: of each further loss of the stage, by its name; one that is not named keeps its default.
        shares: probability of each kind of training image in this stage, up to a factor; null takes the recipe's.
    """

    steps: Duration
    batch_size: Count = 8
    accumulate: Count = 1
    learning_rate: PositiveFloat = 2e-4
    schedule: Literal["cosine", "constant", "halving"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0, strict=True)
    clip_norm: PositiveFloat | None = 1.0
    loss_weights: dict[str, NonNegativeFloat] = {}
    shares: dict[str, NonNegativeFloat] | None = None


class ValidationSettings(Settings):
    """What is validated on, and when.

    Attributes:
        photos: how many clean photos to hold out, evenly spread over the sorted folder, or to take, evenly spread, of each validation
            list; null takes all of a list.
        crop_px: side of their centre crops; null for whole images.
        every: steps, or epochs as in "10 epochs".
    """

    photos: Count | None = 16
    crop_px: Annotated[int, Field(ge=16, strict=True)] | None = 256
    every: Duration = 1000


class DataSettings(Settings):
    """How images are kept and cut. Nothing here changes what is trained, but for `balance` and `pairs_share`.

    Attributes:
        balance: pair lists count alike in an epoch, the shorter ones repeated; else each pair counts once.
        pairs_share: of the images, how many come from pair lists, where there are clean photos, too; null for as many as the lists
            have lines.
        cache_gib: how much of the decoded images is kept in memory.
        on_device: keep all of them on the GPU, and cut and degrade them there; null does so if they take less than a quarter of its
            free memory.
        workers: processes that read and cut ahead, of each training process; 0 does so in between.
    """

    balance: bool = False
    pairs_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    cache_gib: PositiveFloat = 8.0
    on_device: bool | None = None
    workers: int = Field(default=0, ge=0, strict=True)


class DetectorSettings(Settings):
    """A detector whose view of the restored images is compared with its view of the clean ones, without labels.

    Attributes:
        file: its ONNX file, which takes images (B, 3, H, W) in [0, 1].
        features: names of feature maps in it.
        predictions: names of YOLOX's prediction maps (B, 5 + classes, h, w): box, objectness and classes as probabilities.
        side: to which whole views are enlarged for it, in pixels; a multiple of 32.
        images: how many of a batch it looks at.
    """

    file: Path
    features: tuple[str, ...]
    predictions: tuple[str, ...]
    side: Count = 288
    images: Count = 6


class Recipe(Settings):
    """A whole run.

    Attributes:
        model: the network: the name of a config ("paper", "small", "base") or the config itself.
        seed: of the weights, the crops and the degradations.
        crop_px: side of the random training crops.
        view_px: side of the views that are degraded whole, of which a training crop is a window; null degrades the crops themselves. A
            model with a global context needs it.
        augmentation: "flip" (the paper's), "full", "wide", "vivid", "varied", "close" or "whole": see `vrdir.data.augmentation`.
        overlay_share: probability that something is drawn on an image after the weather, such as bars or a time stamp, degraded and
            clean alike.
        precision: "bf16" runs convolutions in bfloat16 (autocast), losses and weights stay float32.
        pixel_loss: "l1" (the paper's) or "balanced_l1".
        pixel_loss_floor: of "balanced_l1", in [0, 1]: the higher, the more an image counts that is far from right.
        shares: probability of each kind of training image, up to a factor, where degradations are mixed.
        ranges: of the degradations' parameters, where not the defaults, as `vrdir degrade --with` takes them:
            "haze:warmth=-0.3..0.3+noise:sigma=5..75". In mixtures the milder ranges of the registry come first.
        jpeg_share: probability that an image, also a clean one, goes through a JPEG file after all else.
        optimizer: "adam" (the paper's) or "muon", which orthogonalises each convolution's step (Jordan et al., 2024), so that no
            degradation's gradient drowns the others'; its steps are scaled to the size of Adam's (Liu et al., 2025), and biases are
            Adam's.
        ema_decay: weights are validated and saved as an exponential moving average over steps, of this decay at most; null for none.
        compile: a backend of torch.compile, such as "inductor"; null does not compile.
        validation, data: see their classes.
        log_every: steps between lines of losses.
        checkpoint_every: steps, or epochs as in "10 epochs".
        keep_checkpoints: how many of the last ones stay.
        detector: for the loss "detection" of the stage context; null for none.
        context, decoder, branch, fusion, refine: see StageSettings. Without refine there is no fourth stage; context is for a model with
            a global context, and comes first.
    """

    model: VRDIRConfig
    seed: int = Field(default=2025, ge=0, lt=2**63, strict=True)
    crop_px: Count = 128
    view_px: Count | None = None
    overlay_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    augmentation: Augmentation = "full"
    precision: Literal["float32", "bf16"] = "float32"
    pixel_loss: Literal["l1", "balanced_l1"] = "l1"
    pixel_loss_floor: Annotated[float, Field(gt=0, le=1)] = 0.06
    shares: dict[str, float] = {CLEAN: 1, "haze": 1, "noise": 1, "rain": 1, MIXED: 1}
    ranges: str = ""
    jpeg_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    optimizer: Literal["adam", "muon"] = "adam"
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    compile: str | None = None
    validation: ValidationSettings = ValidationSettings()
    data: DataSettings = DataSettings()
    log_every: Count = 50
    checkpoint_every: Duration = 1000
    keep_checkpoints: Count = 2
    detector: DetectorSettings | None = None
    context: StageSettings | None = None
    decoder: StageSettings
    branch: StageSettings
    fusion: StageSettings
    refine: StageSettings | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in CONFIGS:
                raise ValueError(f"no config {reprlib.repr(value)}; there are {', '.join(CONFIGS)}")
            return CONFIGS[value]
        return value

    @field_validator("shares")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = value.keys() - {*DEGRADATIONS, CLEAN, MIXED}
        if unknown:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(DEGRADATIONS)}, {CLEAN}, {MIXED}")
        if not all(share >= 0 for share in value.values()) or sum(value.values()) <= 0:
            raise ValueError("shares are numbers from 0, not all of them 0")
        return value

    @field_validator("ranges")
    @classmethod
    def _parsed(cls, value: str) -> str:
        ranges_of(value)
        return value

    @model_validator(mode="after")
    def _fits_the_model(self) -> Recipe:
        for name, size in (("crop_px", self.crop_px), ("validation.crop_px", self.validation.crop_px)):
            if size is not None and size % self.model.multiple:
                raise ValueError(f"{name} must be a multiple of {self.model.multiple}, the network's coarsest stride; it is {size}")
        if self.model.context is not None and (self.view_px is None or self.view_px < self.crop_px):
            raise ValueError("view_px must be at least crop_px: the model has a global context, which sees whole views")
        if any(name in DEGRADATIONS for name in self.model.branches) and not sum(self.mixture.values()):  # else all is from lists
            raise ValueError(f"shares leave nothing to train on for a model with the branches {', '.join(self.model.branches)}")
        return self

    @property
    def mixture(self) -> dict[str, float]:
        """The shares of clean, of what the model has branches for, and of mixed, if that can be two of them."""
        return self.mixture_of(self.shares)

    def mixture_of(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Those of the shares that the model can be shown."""
        able = [name for name in self.model.branches if name in DEGRADATIONS]
        kinds = {CLEAN, *able, *((MIXED,) if len(able) > 1 else ())}
        return {kind: share for kind, share in shares.items() if kind in kinds}

    def with_branches(self, names: Sequence[str]) -> Recipe:
        """The recipe for a model with these branches. Of those that its own model lacks, a degradation without a share gets the mean of
        the others'.

        Raises:
            ValueError: a name cannot be a branch's.
        """
        content = self.model_dump(mode="json")
        content["model"]["branches"] = list(names)
        of_degradations = [share for kind, share in self.shares.items() if kind in DEGRADATIONS]
        mean = sum(of_degradations) / max(len(of_degradations), 1) or 1.0
        content["shares"] |= {name: mean for name in names if name in DEGRADATIONS and name not in {*self.shares, *self.model.branches}}
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"the recipe with the branches {', '.join(names)}: {describe(error)}") from None

    @classmethod
    def read(cls, path: Path | str, **changes: Any) -> Recipe:
        """Read a recipe.

        Args:
            path: a YAML file, or the name of one that comes with vrdir (see `RECIPES`).
            changes: replace its settings; "decoder.steps" style keys reach inside.

        Raises:
            FileNotFoundError, ValueError: naming the file and the field.
        """
        path = RECIPES[str(path)] if str(path) in RECIPES else Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}; give a YAML file or one of {', '.join(RECIPES)}")
        try:
            content = read_yaml(path)
        except ValueError as error:
            raise ValueError(f"{path} is no YAML: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no recipe: expected keys and values, found {type(content).__name__}")
        for key, value in sorted(changes.items(), key=lambda change: change[0].count(".")):  # what holds others first
            *parents, last = key.split(".")
            named = content.get("model")
            if parents[:1] == ["model"] and isinstance(named, str) and named in CONFIGS:
                content["model"] = CONFIGS[named].model_dump(mode="json")
            place = content
            for parent in parents:
                inner = place.get(parent) or {}
                if not isinstance(inner, dict):
                    raise ValueError(f"{path}: {key} reaches into {parent}, which is {reprlib.repr(inner)}")
                place[parent] = place = dict(inner)  # its own: YAML's anchors let two keys share one
            place[last] = value
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"{path}: {describe(error)}") from None

    def write(self, path: Path) -> None:
        """Write it out in full, every default included."""
        write_whole(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False).encode(), path)
