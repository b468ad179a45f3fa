"""Recipes: all settings of a training run, checked when they are read."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from vrdir.atomic import write_whole
from vrdir.data.augmentation import Augmentation
from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED, suggestion
from vrdir.degradations.steps import check_ranges, ranges_of
from vrdir.errors import MissingFileError, SettingsError
from vrdir.model.config import CONFIGS, VRDIRConfig, describe
from vrdir.spelling import did_you_mean
from vrdir.training.fields import Count, Duration, Settings
from vrdir.training.recipe_parts import (
    DataSettings,
    DetectorSettings,
    StageSettings,
    ValidationSettings,
)
from vrdir.yaml_files import read_yaml

RECIPES = {
    path.stem: path for path in sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
}
"""The recipes that come with vrdir, by name."""


class Recipe(Settings):
    """A whole run. Each setting's description is also its help text and its line in the docs."""

    model: VRDIRConfig = Field(
        description='The network: the name of a config ("paper", "small", "field", "base") or the '
        "config itself."
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
        description="Side of the views that are degraded as a whole, and from which training "
        "crops are cut; null uses twice crop_px for a model with a global context, and the crops "
        "themselves for others.",
    )
    whole_px: Count | None = Field(
        default=None,
        description="Side of the whole views of the stage context; null for that of the reduced "
        "copies.",
    )
    fog_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Share of the whole views of the stages context and whole that show fog as a "
        "camera records it: exposed, toned and compressed after the fog.",
    )
    overlay_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Probability of an overlay, such as bars or a time stamp, on the degraded and "
        "the clean image alike.",
    )
    augmentation: Augmentation = Field(
        default="full",
        description='Views of the photos: "flip" (the paper\'s), "full", "wide", "vivid", '
        '"varied", "close", "whole", "doubtful" or "all"; see docs/training.md.',
    )
    precision: Literal["float32", "bf16"] = Field(
        default="float32",
        description='"bf16" runs convolutions in bfloat16 (autocast); losses and weights stay '
        "float32.",
    )
    pixel_loss: Literal["l1", "balanced_l1"] = Field(
        default="l1",
        description='"l1" (the paper\'s) or "balanced_l1", a mean of logarithms, which may be '
        "negative.",
    )
    pixel_loss_floor: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.06,
        description="Floor of balanced_l1, in [0, 1]; a higher floor gives more weight to images "
        "with a large error.",
    )
    shares: dict[str, float] = Field(
        default={CLEAN: 1, "haze": 1, "noise": 1, "rain": 1, MIXED: 1},
        description="Relative frequency of each kind of training image: clean, a degradation, or "
        "mixed.",
    )
    ranges: dict[str, dict[str, Any]] = Field(
        default={},
        description="Values of the degradations' parameters instead of the defaults: a number, a "
        "range or a word each, as in {haze: {warmth: [-0.3, 0.3]}}, or as text, as in "
        '"haze:warmth=-0.3..0.3". Mixtures use milder ranges where a degradation has them.',
    )
    jpeg_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0,
        description="Probability that an image, also a clean one, is compressed as JPEG at the "
        "end.",
    )
    optimizer: Literal["adam", "muon"] = Field(
        default="adam",
        description='"adam" (the paper\'s) or "muon", which orthogonalises each convolution\'s '
        "step (Jordan et al., 2024), so that no degradation's gradient dominates the others; its "
        "steps are scaled to the size of Adam's (Liu et al., 2025), and biases use Adam.",
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Largest decay of the exponential moving average of the weights, which is "
        "validated and saved; null for no average.",
    )
    compile: str | None = Field(
        default=None,
        description='Backend of torch.compile, such as "inductor"; null does not compile.',
    )
    validation: ValidationSettings = Field(
        default=ValidationSettings(), description="Images and time of validation."
    )
    data: DataSettings = Field(default=DataSettings(), description="How images are kept and cut.")
    log_every: Count = Field(default=50, description="Steps between lines of losses.")
    checkpoint_every: Duration = Field(
        default=1000, description='Steps between checkpoints, or epochs, as in "10 epochs".'
    )
    keep_checkpoints: Count = Field(default=2, description="Number of last checkpoints to keep.")
    detector: DetectorSettings | None = Field(
        default=None,
        description='Detector of the loss "detection" of the stages context and whole; null for '
        "none.",
    )
    context: StageSettings | None = Field(
        default=None,
        description="The stage before the others, for a model with a global context; null leaves "
        "it out.",
    )
    decoder: StageSettings = Field(description="Stage 1, the decoder.")
    branch: StageSettings = Field(description="Stage 2, each branch.")
    fusion: StageSettings = Field(description="Stage 3, the fusion of the branches.")
    refine: StageSettings | None = Field(
        default=None,
        description="Stage 4, which trains all parts except the extractor and the context; null "
        "for none.",
    )
    whole: StageSettings | None = Field(
        default=None,
        description="Stage 5, which trains all parts except the extractor on whole views, by a "
        "detector's output in fog; null for none.",
    )
    haze: StageSettings | None = Field(
        default=None,
        description="The last stage, which trains the context's estimate of haze density; null for "
        "none.",
    )

    @field_validator("model", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in CONFIGS:
                known = f"{', '.join(CONFIGS)}{did_you_mean(value, CONFIGS)}"
                raise SettingsError(f"unknown config {reprlib.repr(value)}; choose one of {known}")
            return CONFIGS[value]
        return value

    @field_validator("shares")
    @classmethod
    def _known(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = value.keys() - {*DEGRADATIONS, CLEAN, MIXED}
        if unknown:
            known = ", ".join((*DEGRADATIONS, CLEAN, MIXED))
            raise SettingsError(
                f"unknown {', '.join(sorted(unknown))}; choose from {known}{suggestion(*unknown)}"
            )
        if not all(share >= 0 for share in value.values()) or sum(value.values()) <= 0:
            raise SettingsError("shares must be 0 or more, and at least one above 0")
        return value

    @field_validator("ranges", mode="before")
    @classmethod
    def _parsed(cls, value: Any) -> Any:
        return ranges_of(value) if isinstance(value, str) else value

    @field_validator("ranges")
    @classmethod
    def _drawable(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        ranges = {
            name: {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            for name, values in value.items()
        }
        check_ranges(ranges)
        return ranges

    @model_validator(mode="after")
    def _fits_the_model(self) -> Recipe:
        for name, size in (
            ("crop_px", self.crop_px),
            ("validation.crop_px", self.validation.crop_px),
        ):
            if size is not None and size % self.model.multiple:
                raise SettingsError(
                    f"{name} must be a multiple of {self.model.multiple}, the network's coarsest "
                    f"stride; it is {size}"
                )
        if self.view_px is not None and self.view_px < self.crop_px:
            raise SettingsError(
                f"view_px must be at least crop_px ({self.crop_px}), not {self.view_px}"
            )
        if any(name in DEGRADATIONS for name in self.model.branches) and not sum(
            self.mixture.values()
        ):  # else all is from lists
            raise SettingsError(
                f"shares: no degradation of the branches {', '.join(self.model.branches)} has a "
                "share above 0"
            )
        return self

    @property
    def views_px(self) -> int | None:
        """The side of the views that are degraded whole; None degrades crops."""
        if self.view_px is None and self.model.context is not None:
            return 2 * self.crop_px
        return self.view_px

    @property
    def mixture(self) -> dict[str, float]:
        """The shares of the kinds that the model can be shown."""
        return self.mixture_of(self.shares)

    def mixture_of(self, shares: Mapping[str, float]) -> dict[str, float]:
        """Return the shares of the kinds that the model can be shown.

        They are clean, its branches, and mixed if it has at least two branches.
        """
        able = [name for name in self.model.branches if name in DEGRADATIONS]
        kinds = {CLEAN, *able, *((MIXED,) if len(able) > 1 else ())}
        return {kind: share for kind, share in shares.items() if kind in kinds}

    def with_branches(self, names: Sequence[str]) -> Recipe:
        """Return the recipe for a model with these branches.

        A degradation that is new to the recipe's model, and has no share, gets the mean of the
        other degradations' shares.

        Raises:
            SettingsError: a name cannot be a branch's.
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
            raise SettingsError(
                f"the recipe with the branches {', '.join(names)}: {describe(error)}"
            ) from None

    @classmethod
    def read(cls, path: Path | str, **changes: Any) -> Recipe:
        """Read a recipe.

        Args:
            path: a YAML file, or the name of one that comes with vrdir (see `RECIPES`).
            changes: new values of settings, by keys such as "decoder.steps".

        Raises:
            FileNotFoundError, SettingsError: naming the file and the field.
        """
        path = RECIPES[str(path)] if str(path) in RECIPES else Path(path)
        if not path.is_file():
            raise MissingFileError(
                f"recipe {path} does not exist; use a YAML file or one of {', '.join(RECIPES)}"
                f"{did_you_mean(str(path), RECIPES)}"
            )
        try:
            content = read_yaml(path)
        except ValueError as error:
            raise SettingsError(f"{path} is not valid YAML: {error}") from None
        if not isinstance(content, dict):
            raise SettingsError(
                f"{path} is not a recipe: expected keys and values, found {type(content).__name__}"
            )
        _set(content, changes, path)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise SettingsError(f"{path}: {describe(error)}") from None

    def write(self, path: Path) -> None:
        """Write the recipe, with all defaults."""
        write_whole(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False).encode(), path)


def _set(content: dict[str, Any], changes: Mapping[str, Any], path: Path) -> None:
    """Set values of settings in the content of a recipe, by keys such as "decoder.steps".

    Raises:
        SettingsError: a key leads into a setting that contains no others.
    """
    # A setting that contains others is set before them.
    for key, value in sorted(changes.items(), key=lambda change: change[0].count(".")):
        *parents, last = key.split(".")
        named = content.get("model")
        if parents[:1] == ["model"] and isinstance(named, str) and named in CONFIGS:
            content["model"] = CONFIGS[named].model_dump(mode="json")
        place = content
        for parent in parents:
            inner = place.get(parent) or {}
            if not isinstance(inner, dict):
                raise SettingsError(
                    f"{path}: {key} needs a mapping at {parent}, not {reprlib.repr(inner)}"
                )
            # A copy, as with YAML's anchors two keys may share a mapping.
            place[parent] = place = dict(inner)
        place[last] = value
