"""A recipe: every setting of a training run, checked when it is read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from vrdir.data.loaders import Augmentation
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED
from vrdir.images import write_whole
from vrdir.model.vrdir import CONFIGS, VRDIRConfig, describe

RECIPES = {path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))}
"""Those that come with vrdir, by name."""


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _duration(value: Any) -> Any:
    match = re.fullmatch(r"\s*(\d+)\s+epochs?\s*", value) if isinstance(value, str) else None
    if match and int(match[1]):
        return f"{int(match[1])} epochs"
    if isinstance(value, str):
        raise ValueError(f'steps, or epochs as in "10 epochs", not {value!r}')
    return value


Duration = Annotated[PositiveInt | str, BeforeValidator(_duration)]
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
        learning_rate: of Adam, at its peak.
        schedule: "cosine" falls to zero after a linear warm-up; "halving" halves the rate every quarter of the steps, as the paper.
        warmup_steps: of the cosine schedule.
        clip_norm: the gradient's norm is limited to this; null for no limit.
        loss_weights: of each further loss of the stage, by its name; one that is not named keeps its default.
    """

    steps: Duration
    batch_size: PositiveInt = 8
    accumulate: PositiveInt = 1
    learning_rate: PositiveFloat = 2e-4
    schedule: Literal["cosine", "halving"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: PositiveFloat | None = 1.0
    loss_weights: dict[str, float] = {}


class ValidationSettings(Settings):
    """What is validated on, and when.

    Attributes:
        photos: how many clean photos to hold out, evenly spread over the sorted folder, or to take, evenly spread, of each validation
            list; null takes all of a list.
        crop_px: side of their centre crops; null for whole images.
        every: steps, or epochs as in "10 epochs".
    """

    photos: PositiveInt | None = 16
    crop_px: Annotated[int, Field(ge=16)] | None = 256
    every: Duration = 1000


class DataSettings(Settings):
    """How images are kept and cut. Nothing here changes what is trained, but for `balance`.

    Attributes:
        balance: pair lists count alike in an epoch, the shorter ones repeated; else each pair counts once.
        cache_gib: how much of the decoded images is kept in memory.
        on_device: keep all of them on the GPU, and cut and degrade them there; null does so if they take less than a quarter of its memory.
        workers: processes that read and cut ahead, of each training process; 0 does so in between.
    """

    balance: bool = False
    cache_gib: PositiveFloat = 8.0
    on_device: bool | None = None
    workers: int = Field(default=0, ge=0)


class Recipe(Settings):
    """A whole run.

    Attributes:
        model: the network: the name of a config ("paper", "small", "base") or the config itself.
        seed: of the weights, the crops and the degradations.
        crop_px: side of the random training crops.
        augmentation: "flip" (the paper's) or "full": see `vrdir.data.loaders.TrainingSet`.
        precision: "bf16" runs convolutions in bfloat16 (autocast), losses and weights stay float32.
        pixel_loss: "l1" (the paper's) or "balanced_l1".
        shares: probability of each kind of training image, up to a factor, where degradations are mixed.
        ema_decay: weights are validated and saved as an exponential moving average over steps, of this decay at most; null for none.
        compile: a backend of torch.compile, such as "inductor"; null does not compile.
        validation, data: see their classes.
        log_every: steps between lines of losses.
        checkpoint_every: steps, or epochs as in "10 epochs".
        keep_checkpoints: how many of the last ones stay.
        decoder, branch, fusion, refine: see StageSettings. Without refine there is no fourth stage.
    """

    model: VRDIRConfig
    seed: int = 2025
    crop_px: PositiveInt = 128
    augmentation: Augmentation = "full"
    precision: Literal["float32", "bf16"] = "float32"
    pixel_loss: Literal["l1", "balanced_l1"] = "l1"
    shares: dict[str, float] = {CLEAN: 1, "haze": 1, "noise": 1, "rain": 1, MIXED: 1}
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    compile: str | None = None
    validation: ValidationSettings = ValidationSettings()
    data: DataSettings = DataSettings()
    log_every: PositiveInt = 50
    checkpoint_every: Duration = 1000
    keep_checkpoints: PositiveInt = 2
    decoder: StageSettings
    branch: StageSettings
    fusion: StageSettings
    refine: StageSettings | None = None

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in CONFIGS:
                raise ValueError(f"no config {value!r}; there are {', '.join(CONFIGS)}")
            return CONFIGS[value]
        return value

    @field_validator("shares")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = value.keys() - {*DEGRADATIONS, CLEAN, MIXED}
        if unknown:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(DEGRADATIONS)}, {CLEAN}, {MIXED}")
        if not all(math.isfinite(share) and share >= 0 for share in value.values()) or sum(value.values()) <= 0:
            raise ValueError("shares are finite numbers from 0, not all of them 0")
        return value

    @model_validator(mode="after")
    def _fits_the_model(self) -> Recipe:
        for name, size in (("crop_px", self.crop_px), ("validation.crop_px", self.validation.crop_px)):
            if size is not None and size % self.model.multiple:
                raise ValueError(f"{name} must be a multiple of {self.model.multiple}, the network's coarsest stride; it is {size}")
        if not sum(self.mixture.values()):
            raise ValueError(f"shares leave nothing to train on for a model with the branches {', '.join(self.model.branches)}")
        return self

    @property
    def mixture(self) -> dict[str, float]:
        """The shares of what the model has branches for, clean and mixed."""
        return {kind: share for kind, share in self.shares.items() if kind in (*self.model.branches, CLEAN, MIXED)}

    def with_branches(self, names: Sequence[str]) -> Recipe:
        """The recipe for a model with these branches. A degradation that has no share yet gets the mean of the others'.

        Raises:
            ValueError: a name cannot be a branch's.
        """
        content = self.model_dump(mode="json")
        content["model"]["branches"] = list(names)
        of_degradations = [share for kind, share in self.shares.items() if kind in DEGRADATIONS]
        mean = sum(of_degradations) / max(len(of_degradations), 1) or 1.0
        content["shares"] |= {name: mean for name in names if name in DEGRADATIONS and name not in self.shares}
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"the recipe with the branches {', '.join(names)}: {describe(error)}") from None

    @classmethod
    def read(cls, path: Path | str, **changes: Any) -> Recipe:
        """Read a recipe.

        Args:
            path: a YAML file, or the name of one that comes with vrdir: "paper", "small", "base", "smoke".
            changes: replace its settings; "decoder.steps" style keys reach inside.

        Raises:
            FileNotFoundError, ValueError: naming the file and the field.
        """
        path = RECIPES[str(path)] if str(path) in RECIPES else Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}; give a YAML file or one of {', '.join(RECIPES)}")
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
        if not isinstance(content, dict):
            raise ValueError(f"{path} is no recipe: expected keys and values, found {type(content).__name__}")
        for key, value in changes.items():
            *parents, last = key.split(".")
            if parents[:1] == ["model"] and content.get("model") in CONFIGS:
                content["model"] = CONFIGS[content["model"]].model_dump(mode="json")
            place = content
            for parent in parents:
                place = place.setdefault(parent, {})
                if not isinstance(place, dict):
                    raise ValueError(f"{path}: {key} reaches into {parent}, which is {place!r}")
            place[last] = value
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"{path}: {describe(error)}") from None

    def write(self, path: Path) -> None:
        """Write it out in full, every default included."""
        write_whole(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False).encode(), path)
