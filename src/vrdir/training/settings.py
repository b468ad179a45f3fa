"""A recipe: every setting of a training run, checked when it is read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, field_validator, model_validator

from vrdir.degradations.mixture import CLEAN, DEGRADATIONS, MIXED
from vrdir.images import write_whole
from vrdir.model.vrdir import CONFIGS, VRDIRConfig, describe


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StageSettings(Settings):
    """How long, how fast and on how much a stage trains.

    Attributes:
        steps: optimiser steps.
        batch_size: images a step.
        learning_rate: of Adam, at its peak.
        schedule: "cosine" falls to zero after a linear warm-up; "halving" halves the rate every quarter of the steps, as the paper.
        warmup_steps: of the cosine schedule.
        clip_norm: the gradient's norm is limited to this; null for no limit.
        weights: of each further loss of the stage, by its name; one that is not named keeps its default.
    """

    steps: PositiveInt
    batch_size: PositiveInt = 8
    learning_rate: PositiveFloat = 2e-4
    schedule: Literal["cosine", "halving"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    clip_norm: PositiveFloat | None = 1.0
    weights: dict[str, float] = {}


class ValidationSettings(Settings):
    """Photos held out of training (evenly spread over the sorted folder), the size of their centre crop, how often, with what batch."""

    photos: PositiveInt = 16
    crop_px: int = Field(default=256, ge=16)
    every: PositiveInt = 1000
    batch_size: PositiveInt = 8


class Recipe(Settings):
    """A whole run.

    Attributes:
        model: the network: the name of a config ("paper", "small") or the config itself.
        seed: of the weights, the crops and the degradations.
        crop_px: side of the random training crops.
        precision: "bf16" runs convolutions in bfloat16 (autocast), losses and weights stay float32.
        pixel_loss: "l1" (the paper's) or "balanced_l1".
        shares: probability of each kind of training image, up to a factor, where degradations are mixed.
        validation, decoder, branch, fusion, refine: see their classes. Without refine there is no fourth stage.
    """

    model: VRDIRConfig
    seed: int = 2025
    crop_px: PositiveInt = 128
    precision: Literal["float32", "bf16"] = "float32"
    pixel_loss: Literal["l1", "balanced_l1"] = "l1"
    shares: dict[str, float] = {CLEAN: 1, "haze": 1, "noise": 1, "rain": 1, MIXED: 1}
    validation: ValidationSettings = ValidationSettings()
    checkpoint_every: PositiveInt = 1000
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
            if size % self.model.multiple:
                raise ValueError(f"{name} must be a multiple of {self.model.multiple}, the network's coarsest stride; it is {size}")
        if not sum(self.mixture.values()):
            raise ValueError(f"shares leave nothing to train on for a model with the branches {', '.join(self.model.branches)}")
        return self

    @property
    def mixture(self) -> dict[str, float]:
        """The shares of what the model has branches for, clean and mixed."""
        return {kind: share for kind, share in self.shares.items() if kind in (*self.model.branches, CLEAN, MIXED)}

    @classmethod
    def read(cls, path: Path, **changes: Any) -> Recipe:
        """Read a YAML recipe; `changes` replace its settings, "decoder.steps" style keys reach inside.

        Raises:
            FileNotFoundError, ValueError: naming the file and the field.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no recipe at {path}")
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
