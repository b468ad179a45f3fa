"""A recipe: every setting of a training run, checked when it is read."""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

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
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED, meant_by
from vrdir.image_files.whole_files import write_whole
from vrdir.model.vrdir import CONFIGS, VRDIRConfig, describe
from vrdir.spelling import did_you_mean
from vrdir.yaml_files import read_yaml

RECIPES = {
    path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
}
"""Those that come with vrdir, by name."""


class Settings(BaseModel):
    """Frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _duration(value: Any) -> Any:
    match = re.fullmatch(r"\s*(\d+)\s+epochs?\s*", value) if isinstance(value, str) else None
    if match and int(match[1]):
        return f"{int(match[1])} epochs"
    if type(value) is not int or value < 1:
        raise ValueError(
            f'a number of steps, 1 or more, or of epochs as in "10 epochs", not {reprlib.repr(value)}'
        )
    return value


Count = Annotated[int, Field(ge=1, strict=True)]
Duration = Annotated[int | str, BeforeValidator(_duration)]
"""Optimiser steps; or epochs, as in "10 epochs"."""


class Setting(NamedTuple):
    """One setting of a recipe: its key, "decoder.steps" style, what it means, and its default as YAML, "" where there is none."""

    key: str
    description: str
    default: str


def described(settings: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Every setting of a class and of those inside it, in order; of `model` also itself, since a name may be given for it.

    Descriptions are read from the fields. Docstrings will not do: Python 3.13 dedents them, and `python -OO` drops them.
    """
    for name, field in settings.model_fields.items():
        parts = (field.annotation, *get_args(field.annotation))
        inner = next(
            (part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None
        )
        if inner is None or inner is VRDIRConfig:
            default = "" if field.is_required() else json.dumps(field.default)
            yield Setting(prefix + name, field.description or "", default)
        if inner is not None:
            yield from described(inner, f"{prefix}{name}.")


def steps_in(duration: int | str, epoch_length: int, batch_size: int) -> int:
    """The steps of a duration, where an epoch has so many images."""
    if isinstance(duration, int):
        return duration
    return max(1, math.ceil(int(duration.split()[0]) * epoch_length / batch_size))


class StageSettings(Settings):
    """How long, how fast and on how much a stage trains."""

    steps: Duration = Field(description='Optimiser steps, or epochs, as in "1200 epochs".')
    batch_size: Count = Field(
        default=8, description="Images per step, over all processes together."
    )
    accumulate: Count = Field(
        default=1,
        description="Number of parts into which each process cuts its share of a batch, where it does not fit into memory at once.",
    )
    learning_rate: PositiveFloat = Field(
        default=2e-4, description="Peak learning rate of the optimiser."
    )
    schedule: Literal["cosine", "constant", "halving"] = Field(
        default="cosine",
        description='"cosine" falls to zero after a linear warm-up; "constant" stays at its peak '
        'after it, for a run that another one continues; "halving" halves the rate every quarter '
        "of the steps, as in the paper.",
    )
    warmup_steps: int = Field(
        default=100, ge=0, strict=True, description="Length of the warm-up, of cosine and constant."
    )
    clip_norm: PositiveFloat | None = Field(
        default=1.0, description="Largest norm of the gradient; null for no limit."
    )
    loss_weights: dict[str, NonNegativeFloat] = Field(
        default={},
        description="Weight of each further loss of the stage, by its name; a loss that is not named keeps its default.",
    )
    shares: dict[str, NonNegativeFloat] | None = Field(
        default=None,
        description="Relative frequency of each kind of training image in this stage; null takes the recipe's.",
    )


class ValidationSettings(Settings):
    """What is validated on, and when."""

    photos: Count | None = Field(
        default=16,
        description="How many clean photos to hold out, or how many images to take of each "
        "validation list, evenly spread; null takes a whole list.",
    )
    crop_px: Annotated[int, Field(ge=16, strict=True)] | None = Field(
        default=256, description="Side of the centre crops; null for whole images."
    )
    every: Duration = Field(
        default=1000, description='Steps between validations, or epochs, as in "10 epochs".'
    )


class DataSettings(Settings):
    """How images are kept and cut. Only `balance` and `pairs_share` change what is trained."""

    balance: bool = Field(
        default=False,
        description="Pair lists count alike in an epoch, the shorter ones repeated; else each pair counts once.",
    )
    pairs_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Share of the images that come from pair lists, where there are clean photos "
        "too; null for as many as the lists have lines.",
    )
    cache_gib: PositiveFloat = Field(default=8.0, description="Memory for decoded images, in GiB.")
    on_device: bool | None = Field(
        default=None,
        description="Keep all images on the GPU, and cut and degrade them there; null does so if "
        "they take less than a quarter of its free memory.",
    )
    workers: int = Field(
        default=0,
        ge=0,
        strict=True,
        description="Processes that read and cut ahead, for each training process; 0 reads between the steps.",
    )


class DetectorSettings(Settings):
    """A detector, whose view of the restored images is compared with its view of the clean ones.

    No labels are used.
    """

    file: Path = Field(description="ONNX file, which takes images (B, 3, H, W) in [0, 1].")
    features: tuple[str, ...] = Field(description="Names of feature maps in it.")
    predictions: tuple[str, ...] = Field(
        description="Names of YOLOX's prediction maps (B, 5 + classes, h, w): box, objectness and classes as probabilities.",
    )
    side: Count = Field(
        default=288,
        description="Side to which whole views are enlarged for it, in pixels; a multiple of 32.",
    )
    images: Count = Field(default=6, description="How many images of a batch it looks at.")


class Recipe(Settings):
    """A whole run. Each setting's description is also its help text and its line in the docs."""

    model: VRDIRConfig = Field(
        description='The network: the name of a config ("paper", "small", "field", "base") or the config itself.'
    )
    seed: int = Field(
        default=2025,
        ge=0,
        lt=2**63,
        strict=True,
        description="Seed of weights, crops and degradations.",
    )
    crop_px: Count = Field(default=128, description="Side of the random training crops.")
    view_px: Count | None = Field(
        default=None,
        description="Side of the views that are degraded whole, of which a training crop is a window; "
        "null takes twice crop_px for a model with a global context, and the crops themselves for others.",
    )
    whole_px: Count | None = Field(
        default=None,
        description="Side of the whole views of the stage context; null for that of the reduced copies.",
    )
    fog_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Share of the whole views of the stage context that are shown in fog as a "
        "camera takes it: exposed, toned and compressed after the fog.",
    )
    overlay_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Probability that something is drawn on an image after the weather, such as bars "
        "or a time stamp, degraded and clean alike.",
    )
    augmentation: Augmentation = Field(
        default="full",
        description='"flip" (the paper\'s), "full", "wide", "vivid", "varied", "close" or "whole": see docs/training.md.',
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description='"bf16" runs convolutions in bfloat16 (autocast); losses and weights stay float32.',
    )
    pixel_loss: Literal["l1", "balanced_l1"] = Field(
        default="l1",
        description='"l1" (the paper\'s) or "balanced_l1", a mean of logarithms, which may be negative.',
    )
    pixel_loss_floor: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.06,
        description="Floor of balanced_l1, in [0, 1]: the higher, the more weight an image has that is far from right.",
    )
    shares: dict[str, float] = Field(
        default={CLEAN: 1, "haze": 1, "noise": 1, "rain": 1, MIXED: 1},
        description="Relative frequency of each kind of training image, where degradations are mixed.",
    )
    ranges: str = Field(
        default="",
        description="Ranges of the degradations' parameters, where not the defaults, as vrdir "
        'degrade --with takes them: "haze:warmth=-0.3..0.3+noise:sigma=5..75". Mixtures use '
        "milder ranges where a degradation has them.",
    )
    jpeg_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Probability that an image, also a clean one, is compressed as JPEG at the end.",
    )
    optimizer: Literal["adam", "muon"] = Field(
        default="adam",
        description='"adam" (the paper\'s) or "muon", which orthogonalises each convolution\'s '
        "step (Jordan et al., 2024), so that no degradation's gradient drowns the others'; its "
        "steps are scaled to the size of Adam's (Liu et al., 2025), and biases use Adam.",
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Validate and save an exponential moving average of the weights, of at most this decay; null for none.",
    )
    compile: str | None = Field(
        default=None,
        description='Backend of torch.compile, such as "inductor"; null does not compile.',
    )
    validation: ValidationSettings = Field(
        default=ValidationSettings(), description="What is validated on, and when."
    )
    data: DataSettings = Field(default=DataSettings(), description="How images are kept and cut.")
    log_every: Count = Field(default=50, description="Steps between lines of losses.")
    checkpoint_every: Duration = Field(
        default=1000, description='Steps between checkpoints, or epochs, as in "10 epochs".'
    )
    keep_checkpoints: Count = Field(
        default=2, description="Number of checkpoints to keep, the last ones."
    )
    detector: DetectorSettings | None = Field(
        default=None,
        description='Detector of the loss "detection" of the stage context; null for none.',
    )
    context: StageSettings | None = Field(
        default=None,
        description="The stage before the others, for a model with a global context; null for none.",
    )
    decoder: StageSettings = Field(description="Stage 1, the decoder.")
    branch: StageSettings = Field(description="Stage 2, each branch.")
    fusion: StageSettings = Field(description="Stage 3, the fusion of the branches.")
    refine: StageSettings | None = Field(
        default=None,
        description="Stage 4, all but the extractor and the context together; null for none.",
    )

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in CONFIGS:
                known = f"{', '.join(CONFIGS)}{did_you_mean(value, CONFIGS)}"
                raise ValueError(f"no config {reprlib.repr(value)}; there are {known}")
            return CONFIGS[value]
        return value

    @field_validator("shares")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = value.keys() - {*DEGRADATIONS, CLEAN, MIXED}
        if unknown:
            known = ", ".join((*DEGRADATIONS, CLEAN, MIXED))
            raise ValueError(
                f"unknown {', '.join(sorted(unknown))}; there are {known}{meant_by(*unknown)}"
            )
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
        for name, size in (
            ("crop_px", self.crop_px),
            ("validation.crop_px", self.validation.crop_px),
        ):
            if size is not None and size % self.model.multiple:
                raise ValueError(
                    f"{name} must be a multiple of {self.model.multiple}, the network's coarsest stride; it is {size}"
                )
        if self.view_px is not None and self.view_px < self.crop_px:
            raise ValueError(
                f"view_px must be at least crop_px, {self.crop_px}; it is {self.view_px}"
            )
        if any(name in DEGRADATIONS for name in self.model.branches) and not sum(
            self.mixture.values()
        ):  # else all is from lists
            raise ValueError(
                f"shares leave nothing to train on for a model with the branches {', '.join(self.model.branches)}"
            )
        return self

    @property
    def views_px(self) -> int | None:
        """The side of the views that are degraded whole; None for crops that are degraded."""
        if self.view_px is None and self.model.context is not None:
            return 2 * self.crop_px
        return self.view_px

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
        content["shares"] |= {
            name: mean
            for name in names
            if name in DEGRADATIONS and name not in {*self.shares, *self.model.branches}
        }
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            raise ValueError(
                f"the recipe with the branches {', '.join(names)}: {describe(error)}"
            ) from None

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
            raise FileNotFoundError(
                f"no recipe at {path}; give a YAML file or one of {', '.join(RECIPES)}{did_you_mean(str(path), RECIPES)}"
            )
        try:
            content = read_yaml(path)
        except ValueError as error:
            raise ValueError(f"{path} is no YAML: {error}") from None
        if not isinstance(content, dict):
            raise ValueError(
                f"{path} is no recipe: expected keys and values, found {type(content).__name__}"
            )
        for key, value in sorted(
            changes.items(), key=lambda change: change[0].count(".")
        ):  # what holds others first
            *parents, last = key.split(".")
            named = content.get("model")
            if parents[:1] == ["model"] and isinstance(named, str) and named in CONFIGS:
                content["model"] = CONFIGS[named].model_dump(mode="json")
            place = content
            for parent in parents:
                inner = place.get(parent) or {}
                if not isinstance(inner, dict):
                    raise ValueError(
                        f"{path}: {key} reaches into {parent}, which is {reprlib.repr(inner)}"
                    )
                place[parent] = place = dict(
                    inner
                )  # its own: YAML's anchors let two keys share one
            place[last] = value
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(f"{path}: {describe(error)}") from None

    def write(self, path: Path) -> None:
        """Write it out in full, every default included."""
        write_whole(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False).encode(), path)
