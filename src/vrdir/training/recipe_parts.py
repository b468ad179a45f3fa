"""The parts of a recipe: settings of a stage, of validation, of the data and of the detector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from vrdir.training.fields import Count, Duration, Settings


class StageSettings(Settings):
    """The length, rate and batch size of a stage."""

    steps: Duration = Field(description='Optimiser steps, or epochs, as in "1200 epochs".')
    batch_size: Count = Field(
        default=8, description="Images per step, over all processes together."
    )
    accumulate: Count = Field(
        default=1,
        description="Number of parts into which each process divides its share of a batch that "
        "does not fit into memory at once.",
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
        default=100,
        ge=0,
        strict=True,
        description="Length of the warm-up, of cosine and constant, in steps.",
    )
    clip_norm: PositiveFloat | None = Field(
        default=1.0, description="Largest norm of the gradient; null for no limit."
    )
    loss_weights: dict[str, NonNegativeFloat] = Field(
        default={},
        description="Weight of each further loss of the stage, by its name; other losses keep "
        "their default weight.",
    )
    shares: dict[str, NonNegativeFloat] | None = Field(
        default=None,
        description="Relative frequency of each kind of training image in this stage; null takes "
        "the recipe's.",
    )
    fog_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None,
        description="Share of this stage's images that show fog as a camera records it, for the "
        "stages context, refine, whole and haze; null takes the recipe's fog_share, and for refine "
        "none.",
    )
    teacher: str | None = Field(
        default=None,
        description="Weights, a folder or the name of bundled ones, whose results in photographed "
        "fog the stage refine keeps; null for none.",
    )


class ValidationSettings(Settings):
    """The images and times of validation."""

    photos: Count | None = Field(
        default=16,
        description="Number of clean photos to hold out, or of images to use from each "
        "validation list, evenly spread; null uses the whole list.",
    )
    crop_px: Annotated[int, Field(ge=16, strict=True)] | None = Field(
        default=256, description="Side of the centre crops; null for whole images."
    )
    every: Duration = Field(
        default=1000, description='Steps between validations, or epochs, as in "10 epochs".'
    )


class DataSettings(Settings):
    """How images are kept and read. Only the first three change the result."""

    balance: bool = Field(
        default=False,
        description="Each pair list counts the same in an epoch, and shorter lists are repeated; "
        "otherwise each pair counts once.",
    )
    pairs_share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Share of the images from pair lists, if there are also clean photos; null "
        "for the lists' share of all lines and photos.",
    )
    one_source: bool = Field(
        default=False,
        description="One source of random numbers for all images of a batch, which is faster on a "
        "GPU; but then the images depend on batch size, parts and number of processes.",
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
        description="Processes that read and cut images in advance, for each training process; 0 "
        "reads between the steps.",
    )


class DetectorSettings(Settings):
    """A detector, whose answers on restored images are compared with those on clean images.

    No labels are used.
    """

    file: Path = Field(description="ONNX file, which takes images (B, 3, H, W) in [0, 1].")
    features: tuple[str, ...] = Field(description="Names of feature maps in it.")
    predictions: tuple[str, ...] = Field(
        description="Names of YOLOX's prediction maps (B, 5 + classes, h, w): box, objectness and "
        "classes as probabilities.",
    )
    side: Count = Field(
        default=288,
        description="Side to which whole views are enlarged for it, in pixels; a multiple of 32.",
    )
    images: Count = Field(default=6, description="Number of images of a batch that it processes.")
