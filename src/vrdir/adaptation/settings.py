"""The settings of an adaptation, and the training recipe that is made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from vrdir.degradations.registry import CLEAN, DEGRADATIONS, MIXED
from vrdir.degradations.steps import ranges_of
from vrdir.errors import InputError, SettingsError
from vrdir.model.config import VRDIRConfig, describe
from vrdir.training.fields import Settings
from vrdir.training.settings import Recipe

Trained = Literal["decoder", "last", "channels", "all"]
"""The parameters that are trained.

- "decoder": the upsampling path of the decoder, and its last layer (the correction).
- "last": the two finest scales of this path, and the last layer.
- "channels": the biases and the channel attention, in the branches and the decoder.
- "all": everything except the extractor and the global context.
"""
OTHERS = 0.2
"""The share of training images with degradations that were not requested."""
UNTOUCHED = 0.12
"""The share of clean training images."""
AREA = 4 * 224**2
"""The number of pixels of a batch, from which the number of its images is calculated."""
MOST_PX = 416
"""The largest default side of the training crops, in pixels."""


class AdaptationSettings(Settings):
    """The settings of an adaptation. Their descriptions are also the help texts of the options."""

    degradations: str | None = Field(
        default=None,
        description="Degradations to adapt to, such as haze+rain or haze:beta=0.5..2; default: "
        "all that the weights restore.",
    )
    minutes: float = Field(
        default=20.0,
        gt=0,
        le=10_000,
        description="Approximate duration in minutes; it is converted to a number of steps.",
    )
    steps: int | None = Field(
        default=None,
        ge=1,
        description="Number of training steps, instead of minutes; with it a run can be repeated "
        "exactly.",
    )
    trained: Trained = Field(
        default="decoder",
        description="Parameters to train: decoder (its upsampling path), last (its two finest "
        "scales), channels (offsets and channel attention), or all.",
    )
    answers: float = Field(
        default=1.0, ge=0, description="Weight of the loss on the recogniser's outputs."
    )
    features: float = Field(
        default=0.5, ge=0, description="Weight of the loss on the recogniser's features."
    )
    guard: float = Field(
        default=1.0,
        ge=0,
        description="Weight of the penalty for images that become worse than with the initial "
        "weights.",
    )
    learning_rate: float = Field(default=4e-4, gt=0, le=1, description="Peak learning rate.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Images per step; default: 4 of 224 x 224 pixels, or as many pixels.",
    )
    view_px: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Side of the training crops in pixels; default: that of the recogniser's "
        "input, at most 416.",
    )
    held_out: int | None = Field(
        default=None,
        ge=6,
        description="Number of photos held out for the proof; default: a fifth, 9 to 96.",
    )
    seed: int = Field(default=2026, ge=0, lt=2**63, description="Seed of all random numbers.")

    @classmethod
    def of(cls, **values: Any) -> AdaptationSettings:
        """Return settings from values by name. Raises SettingsError that names a wrong setting."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise SettingsError(f"adaptation: {describe(error)}") from None

    @model_validator(mode="after")
    def _adapts(self) -> AdaptationSettings:
        if not self.answers and not self.features:
            raise SettingsError("answers and features are both 0; at least one must be above 0")
        return self

    def wanted(self, config: VRDIRConfig) -> dict[str, dict[str, Any]]:
        """Return the requested degradations, each with the ranges of its parameters.

        Args:
            config: the configuration of the network.

        Raises:
            InputError: a degradation is unknown, or the weights have no branch for it.
        """
        able = [name for name in config.branches if name in DEGRADATIONS]
        if self.degradations is None:
            return {name: {} for name in able}
        wanted = ranges_of(self.degradations)
        for name in wanted:
            if name not in able:
                raise InputError(
                    f"the weights do not restore {name}; they restore {', '.join(able)}. A new "
                    "degradation needs a branch: vrdir train branch"
                )
        return wanted or {name: {} for name in able}

    def shares(self, config: VRDIRConfig, usual: Mapping[str, float]) -> dict[str, float]:
        """Return the share of each kind of training image.

        Args:
            config: the configuration of the network.
            usual: the shares of the recipe, which are used if all degradations are requested.
        """
        able = [name for name in config.branches if name in DEGRADATIONS]
        wanted = list(self.wanted(config))
        if len(wanted) == len(able):
            return dict(usual)
        others = [*(name for name in able if name not in wanted), MIXED]
        asked = (1 - UNTOUCHED - OTHERS) / len(wanted)
        return {
            CLEAN: UNTOUCHED,
            **dict.fromkeys(wanted, asked),
            **dict.fromkeys(others, OTHERS / len(others)),
        }

    def side(self, size: tuple[int, int], config: VRDIRConfig) -> int:
        """Return the side of the training crops in pixels, for the size of a recogniser's input."""
        side = self.view_px or min(max(size), MOST_PX)
        return max(side // config.multiple, 1) * config.multiple

    def recipe(
        self,
        config: VRDIRConfig,
        size: tuple[int, int],
        steps: int,
        place: Mapping[str, Mapping[str, Any]],
    ) -> Recipe:
        """Return the recipe of the training.

        Args:
            config: the configuration of the network.
            size: height and width of the recogniser's input, in pixels.
            steps: the number of training steps.
            place: the ranges of degradations' parameters that were measured on photos of the place.
        """
        base = Recipe.read("small")
        side = self.side(size, config)
        ranges = {name: dict(values) for name, values in base.ranges.items()}
        for source in (place, self.wanted(config)):
            for name, values in source.items():
                ranges[name] = {**ranges.get(name, {}), **values}
        batch = self.batch_size or min(max(round(AREA / side**2), 2), 8)
        return Recipe.read(
            "small",
            **{
                "model": config.model_dump(mode="json"),
                "seed": self.seed,
                "crop_px": side,
                "view_px": side,
                "augmentation": "whole",
                "shares": self.shares(config, base.shares),
                "ranges": listed(ranges),
                "pixel_loss_floor": 0.03,
                "ema_decay": 0.98,
                "log_every": max(min(25, steps // 4), 1),
                "checkpoint_every": max(min(50, steps // 2), 1),
                "validation": {"photos": 4, "crop_px": side, "every": max(steps // 3, 1)},
                "refine": {
                    "steps": steps,
                    "batch_size": batch,
                    "learning_rate": self.learning_rate,
                    "warmup_steps": min(40, steps // 5),
                    "loss_weights": {
                        "answers": self.answers,
                        "features": self.features,
                        "guard": self.guard,
                    },
                },
            },
        )


def listed(ranges: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return ranges with lists instead of tuples, as in the file of a recipe."""
    return {
        name: {
            key: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
            for key, v in values.items()
        }
        for name, values in ranges.items()
    }
