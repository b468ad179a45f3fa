"""The base of the stages of training: what trains, and the named losses; the rest is frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.data.items import Item
from vrdir.errors import SettingsError
from vrdir.model.global_context import lift_whole
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import balanced_l1, l1
from vrdir.training.recipe_parts import DetectorSettings, StageSettings
from vrdir.training.recognition import Detection, Recognition
from vrdir.training.settings import Recipe


class Stage(ABC):
    """A stage, as the trainer uses it.

    Attributes:
        name: its name, also of its checkpoints and weights, such as "branch-haze".
        settings: steps, batch size, learning rate.
        shares: probability of each kind of training image.
        weights: of the further losses; the recipe may replace each.
        whole: whether it trains on whole views, as small as the reduced copies, not on windows.
        shows_fog: whether its losses know images in photographed fog (`Batch.fogged`).
        taught: whether one of its losses compares with a teacher.
    """

    name: str
    weights: dict[str, float]
    whole = False
    shows_fog = False
    taught = False

    def __init__(
        self, recipe: Recipe, settings: StageSettings, shares: Mapping[str, float]
    ) -> None:
        self.settings = settings
        self.shares = (
            dict(shares) if settings.shares is None else recipe.mixture_of(settings.shares)
        )
        self.pixel_loss = (
            l1 if recipe.pixel_loss == "l1" else partial(balanced_l1, floor=recipe.pixel_loss_floor)
        )
        if settings.fog_share and not self.shows_fog:
            raise SettingsError(
                f"the stage {self.name} cannot show fog: remove its fog_share, or set that of the "
                "stage context, refine, whole or haze"
            )
        if settings.teacher is not None and not self.taught:
            raise SettingsError(
                f"the stage {self.name} has no use for a teacher: remove it, or set that of refine"
            )
        unknown = settings.loss_weights.keys() - self.weights.keys()
        if unknown:
            raise SettingsError(
                f"unknown loss {', '.join(sorted(unknown))} for the stage {self.name}; choose from "
                f"{', '.join(self.weights)}"
            )
        self.weights = {**self.weights, **settings.loss_weights}

    @abstractmethod
    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""

    @abstractmethod
    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch, before their weights; "pixel" has weight 1."""

    def accepts(self, item: Item) -> bool:
        """Return whether the stage trains and validates on an item."""
        return True

    def restored(self, model: VRDIR, degraded: Tensor) -> Tensor:
        """Restore degraded images with this stage's network, for validation."""
        return model(degraded)

    @property
    def recognises(self) -> bool:
        """Whether `prepare` loads a recogniser from the extractor's file."""
        return False

    def prepare(  # noqa: B027 - most stages need nothing
        self, device: torch.device, extractor_weights: Path | None = None
    ) -> None:
        """Load what the losses need, before any stage trains, so that errors are raised early."""


class RecognisingStage(Stage):
    """A stage with losses of recognisers (`vrdir.training.recognition`).

    Attributes:
        recognition: the loss "recognition", of a classifier's features.
        detection: the loss "detection", if the recipe has a detector for this stage.
    """

    def __init__(
        self,
        recipe: Recipe,
        settings: StageSettings,
        shares: Mapping[str, float],
        detector: DetectorSettings | None = None,
    ) -> None:
        super().__init__(recipe, settings, shares)
        self.recognition = Recognition(recipe.model.extractor)
        self.detection = None if detector is None else Detection(detector)

    @property
    def recognises(self) -> bool:
        """Whether `prepare` loads a recogniser from the extractor's file."""
        return bool(self.weights.get("recognition")) and self.recognition.from_extractor

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Load the recognisers of the losses."""
        if self.weights.get("recognition"):
            self.recognition.load(device, extractor_weights)
        if self.detection is not None:
            self.detection.load(device)


def lifted(model: VRDIR, batch: Batch) -> Tensor:
    """Return the degraded windows without their veil, if the model has a global context."""
    if batch.copy is None or batch.place is None or model.context is None:
        return batch.degraded
    return model.lifted_windows(batch.degraded, batch.copy, batch.place)[0]


def lifted_whole(model: VRDIR, image: Tensor) -> Tensor:
    """Return whole images without their veil."""
    veil = model.find_veil(image)
    return image if veil is None else lift_whole(image, veil)


def extracted(model: VRDIR, batch: Batch) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Return the lifted degraded images, and E's features of the clean images and of these."""
    with torch.no_grad():
        clear = lifted(model, batch)
        return clear, model.extract(batch.clean), model.extract(clear)
