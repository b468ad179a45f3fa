"""The configuration of a network: its fields, their limits, and the named ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from vrdir.errors import MissingFileError, WeightsError
from vrdir.model.intrinsic_extractor import EXTRACTORS, ExtractorName, select_taps
from vrdir.model.loading import CONFIG_FILE, WEIGHTS_FILE, read_settings
from vrdir.model.semantics_enhancement import CLEAN


class ContextConfig(BaseModel):
    """The shape of the global context (`vrdir.model.global_context`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: int = Field(
        default=192,
        ge=32,
        le=1024,
        description="Side of the reduced copy of the whole image, in pixels; a multiple of 32.",
    )
    strides: tuple[int, ...] = Field(
        default=(4, 8, 16),
        min_length=1,
        max_length=5,
        description="Strides at which E's features of the copy are used.",
    )
    channels: int = Field(
        default=48, ge=4, le=1024, description="Channels of the head, a multiple of 4."
    )
    tone: bool = Field(
        default=False,
        description="Raise local contrast in photographed fog, instead of removing a veil of haze.",
    )

    @model_validator(mode="after")
    def _check(self) -> ContextConfig:
        if self.side % 32 or self.channels % 4:
            raise ValueError("side must be a multiple of 32, and channels a multiple of 4")
        return self


# A config may come from an untrusted source. These limits are far above any present network, which
# can still be built in seconds.
SCALES = Field(max_length=8)
Blocks = Annotated[int, Field(ge=0, le=64)]
Width = Annotated[int, Field(ge=1, le=4096)]


class VRDIRConfig(BaseModel):
    """The shape of a network. `PAPER`, `SMALL`, `FIELD` and `BASE` below have recipes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    extractor: ExtractorName = Field(
        description="The recognition network whose first layers are the extractor E."
    )
    strides: Annotated[tuple[int, ...], SCALES] = Field(
        description="Strides at which E's features are used, in pixels; each has an enhancement "
        "(ISE)."
    )
    branches: Annotated[tuple[Annotated[str, Field(max_length=40)], ...], Field(max_length=32)] = (
        Field(
            default=("haze", "noise", "rain"),
            description="The degradations, with one branch (DNC) each at every tap, in the order "
            "of the guidance maps.",
        )
    )
    clean_branch: bool = Field(
        default=False, description="Add a further branch, the identity, after the others."
    )
    branch_blocks: Blocks = Field(default=0, description="Residual blocks in each branch.")
    decoder: Literal["semantics", "pixel_skip"] = Field(
        default="semantics",
        description='"semantics" is the paper\'s (features alone), "pixel_skip" ours (a U-shape '
        "whose output is a residual).",
    )
    widths: Annotated[tuple[Width, ...], SCALES] = Field(
        default=(), description="Channels of the pixel_skip decoder at strides 2, 4, 8, ..."
    )
    encoder_blocks: Annotated[tuple[Blocks, ...], SCALES] = Field(
        default=(),
        description="Residual blocks of the pixel_skip encoder at each of these strides.",
    )
    decoder_blocks: Annotated[tuple[Blocks, ...], SCALES] = Field(
        default=(),
        description="Residual blocks of the pixel_skip decoder at each of these strides.",
    )
    channel_attention: bool = Field(default=False, description="Channel attention in these blocks.")
    context: ContextConfig | None = Field(
        default=None,
        description="The global context, which removes haze or raises local contrast before all "
        "else: side of the reduced copy, strides, channels; null for none.",
    )

    @model_validator(mode="after")
    def _check(self) -> VRDIRConfig:
        if not self.branches or len(set(self.branches)) != len(self.branches):
            raise ValueError(
                f"branches must be different names, at least one, not {list(self.branches)}"
            )
        if CLEAN in self.branches:
            raise ValueError(
                "to add the clean branch, set clean_branch; do not list it among branches"
            )
        if any(not name.isidentifier() or hasattr(nn.ModuleDict(), name) for name in self.branches):
            raise ValueError(
                "a branch's name must consist of letters, digits and underscores, and not be a "
                f"Python keyword; not {list(self.branches)}"
            )
        for strides in (self.strides, self.context.strides if self.context else (self.strides[:1])):
            select_taps(EXTRACTORS[self.extractor].available, strides)
        if (
            self.decoder == "pixel_skip"
            and not len(self.widths) == len(self.encoder_blocks) == len(self.decoder_blocks) >= 1
        ):
            raise ValueError(
                "widths, encoder_blocks and decoder_blocks must name the same number of scales, "
                "at least one"
            )
        return self

    @property
    def multiple(self) -> int:
        """The network pads height and width to multiples of this number of pixels."""
        return max(2 ** len(self.widths), *self.strides)

    @property
    def guidance_names(self) -> tuple[str, ...]:
        """The degradation of each guidance map, in order."""
        return (*self.branches, CLEAN) if self.clean_branch else self.branches


PAPER = VRDIRConfig(extractor="vgg16_conv2_2", strides=(2,))
SMALL = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4, 8),
    branches=("haze", "noise", "sensor_noise", "rain"),
    clean_branch=True,
    branch_blocks=1,
    decoder="pixel_skip",
    widths=(32, 64, 96, 128),
    encoder_blocks=(1, 1, 1, 1),
    decoder_blocks=(3, 3, 2, 1),
    channel_attention=True,
)
FIELD = SMALL.model_copy(update={"context": ContextConfig(tone=True)})
BASE = VRDIRConfig(
    extractor="efficientnet_lite0",
    strides=(4, 8, 16),
    branches=("haze", "noise", "sensor_noise", "rain"),
    clean_branch=True,
    branch_blocks=1,
    decoder="pixel_skip",
    widths=(48, 96, 160, 192),
    encoder_blocks=(2, 2, 2, 1),
    decoder_blocks=(4, 4, 3, 2),
    channel_attention=True,
    context=ContextConfig(tone=True),
)
CONFIGS = {"paper": PAPER, "small": SMALL, "field": FIELD, "base": BASE}


def read_config(path: Path) -> VRDIRConfig:
    """Read `config.json`.

    Raises:
        MissingFileError: it does not exist.
        WeightsError: it is not a network's config; the message names the file and the field.
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing: a model folder contains {CONFIG_FILE} and {WEIGHTS_FILE}"
        )
    try:
        return VRDIRConfig.model_validate(read_settings(path))
    except ValidationError as error:
        raise WeightsError(f"{path} is not a VRDIR config: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """Return a pydantic error in one line: up to eight fields, each with its problem."""
    errors = error.errors()
    shown = [f"{'.'.join(map(str, e['loc']))[:80] or 'content'}: {e['msg']}" for e in errors[:8]]
    return "; ".join(shown + [f"and {len(errors) - 8} more"] * (len(errors) > 8))
