"""The stages in which all parts except the extractor train together (our addition)."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vrdir.data.batches import Batch
from vrdir.errors import SettingsError
from vrdir.model.blocks import move_to
from vrdir.model.checks import in_range
from vrdir.model.global_context import LocalTone
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import choice, guidance_loss, semantic_consistency, spectrum
from vrdir.training.settings import Recipe
from vrdir.training.stage import RecognisingStage, extracted, lifted

GRAIN_PX = 4  # a teacher is followed in means of this many pixels a side, so not in its grain


class NetworkStage(RecognisingStage):
    """A stage in which everything except E and the global context trains together.

    In photographed fog (`Batch.fogged`) there is no pixel loss, since what thick fog hides cannot
    be known. A detector should find there what it finds in clear air ("detection").
    """

    shows_fog = True

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return [*model.enhancement.parameters(), *model.decoder.parameters()]

    def network_losses(
        self,
        model: VRDIR,
        batch: Batch,
        clear: Tensor,
        clean: list[Tensor],
        degraded: list[Tensor],
    ) -> dict[str, Tensor]:
        """Return the named losses of the local network.

        Args:
            model: the network.
            batch: the batch.
            clear: its degraded images, lifted by the context, (B, 3, H, W).
            clean: E's features of the clean images.
            degraded: E's features of `clear`.
        """
        features, guidance = model.enhance(degraded)
        restored = model.decoder(features, clear, batch.degraded)
        known, found, wanted = batch.known, restored, batch.clean
        if batch.fogged is not None:
            others = ~batch.fogged
            known, found, wanted = known & others, found[others], wanted[others]
        losses = {
            # A batch may be all fog, and the mean of no values is not a number.
            "pixel": self.pixel_loss(found, wanted) if len(found) else 0 * restored.sum(),
            "consistency": semantic_consistency(features, clean),
            "guidance": guidance_loss(guidance, batch.present, known, model.config.clean_branch),
        }
        # The output of an early step may be far outside [0, 1]. The pixel loss corrects that; the
        # spectrum has no bound.
        if self.weights.get("spectrum") and len(found):
            losses["spectrum"] = spectrum(found.clamp(-1, 2), wanted)
        if batch.fogged is not None and batch.fogged.any():
            losses |= self.in_fog(restored, batch, batch.fogged)
        return losses | self.recognised(restored.clamp(-1, 2), batch)

    def in_fog(self, restored: Tensor, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        """Return the losses of the images in photographed fog, the given rows of the batch."""
        if self.detection is None:
            return {}
        return {"detection": self.detection.loss(restored[rows].clamp(0, 1), batch.clean[rows])}

    @abstractmethod
    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses between recognisers' outputs on restored and on clean images."""


class RefineStage(NetworkStage):
    """Stage 4 (our addition): everything except E and the global context trains together.

    "recognition" compares deeper layers of the extractor's network, which are not part of the
    model, on the restored and on the clean image (`vrdir.training.recognition`).

    "teacher" compares the results in photographed fog with those of other, frozen weights, so that
    training for other weather does not change them (Li and Hoiem, "Learning without Forgetting",
    ECCV 2016).
    """

    name = "refine"
    taught = True

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.refine
        if settings is None:
            raise SettingsError("the stage refine needs `refine` in the recipe")
        self.weights = self.defaults()
        detector = recipe.detector if settings.fog_share else None
        if settings.teacher is not None and not settings.fog_share:
            raise SettingsError("the stage refine has a teacher in fog, but no fog_share")
        super().__init__(recipe, settings, recipe.mixture, detector)
        self.teacher: VRDIR | None = None

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Load the recognisers of the losses, and the teacher."""
        super().prepare(device, extractor_weights)
        if self.settings.teacher is not None:
            teacher = VRDIR.from_pretrained(self.settings.teacher).requires_grad_(False)
            self.teacher = move_to(teacher, device)

    def defaults(self) -> dict[str, float]:
        """Return the weights of the losses where the recipe gives no others."""
        return {
            "consistency": 0.1,
            "guidance": 0.1,
            "spectrum": 0.1,
            "detection": 0.01,
            "recognition": 0.5,
            "teacher": 0.15,
        }

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        return self.network_losses(model, batch, *extracted(model, batch))

    def in_fog(self, restored: Tensor, batch: Batch, rows: Tensor) -> dict[str, Tensor]:
        """Return the losses of the images in photographed fog, with the teacher's."""
        losses = super().in_fog(restored, batch, rows)
        if self.teacher is not None:
            found, wanted = (
                functional.avg_pool2d(image, GRAIN_PX)
                for image in (restored[rows], teacher_results(self.teacher, batch, rows))
            )
            losses["teacher"] = self.pixel_loss(found, wanted)
        return losses

    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the recogniser."""
        if not self.weights["recognition"]:
            return {}
        return {"recognition": self.recognition.loss(restored, batch.clean)}


@torch.no_grad()
def teacher_results(teacher: VRDIR, batch: Batch, rows: Tensor) -> Tensor:
    """Return a teacher's results for the given rows of a batch, (N, 3, H, W) in [0, 1]."""
    copy, place = (None if part is None else part[rows] for part in (batch.copy, batch.place))
    part = batch._replace(degraded=batch.degraded[rows], copy=copy, place=place)
    clear = lifted(teacher, part)
    features, _ = teacher.enhance(teacher.extract(clear))
    return in_range(teacher.decoder(features, clear, part.degraded))


class WholeStage(NetworkStage):
    """Stage 5 (our addition): everything except E trains on whole views, some of them in fog.

    All other images train with the pixel loss, so that the network keeps its quality on them, and
    the context learns to leave them to the local network.
    """

    name = "whole"
    whole = True

    def __init__(self, recipe: Recipe) -> None:
        if recipe.whole is None or recipe.detector is None:
            raise SettingsError("the stage whole needs `whole` in the recipe, with a detector")
        if recipe.model.context is None or not recipe.model.context.tone:
            raise SettingsError("the stage whole needs a model with a local-tone context")
        self.weights = {
            "consistency": 0.1,
            "guidance": 0.1,
            "choice": 1.0,
            "detection": 1.0,
            "recognition": 0.5,
        }
        super().__init__(recipe, recipe.whole, recipe.mixture, recipe.detector)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        assert model.context is not None
        return [*model.context.lifting_parameters(), *super().trained(model)]

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        assert batch.copy is not None
        assert batch.place is not None
        assert batch.fogged is not None
        clear, tone = model.lifted_windows(batch.degraded, batch.copy, batch.place)
        assert isinstance(tone, LocalTone)
        with torch.no_grad():
            clean = model.extract(batch.clean)
        losses = self.network_losses(model, batch, clear, clean, model.extract(clear))
        return losses | {"choice": choice(tone.asked, batch.fogged)}

    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the recogniser in fog."""
        fogged = batch.fogged
        if not self.weights["recognition"] or fogged is None or not fogged.any():
            return {}
        found = restored[fogged].clamp(0, 1)
        return {"recognition": self.recognition.loss(found, batch.clean[fogged])}
