"""The stages in which all parts except the extractor train together (our addition)."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.errors import SettingsError
from vrdir.model.global_context import LocalTone
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import choice, guidance_loss, semantic_consistency, spectrum
from vrdir.training.settings import Recipe
from vrdir.training.stage import RecognisingStage, extracted


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
        if self.detection is not None and batch.fogged is not None and batch.fogged.any():
            seen, there = restored[batch.fogged].clamp(0, 1), batch.clean[batch.fogged]
            losses["detection"] = self.detection.loss(seen, there)
        return losses | self.recognised(restored.clamp(-1, 2), batch)

    @abstractmethod
    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses between recognisers' outputs on restored and on clean images."""


class RefineStage(NetworkStage):
    """Stage 4 (our addition): everything except E and the global context trains together.

    "recognition" compares deeper layers of the extractor's network, which are not part of the
    model, on the restored and on the clean image (`vrdir.training.recognition`).
    """

    name = "refine"

    def __init__(self, recipe: Recipe) -> None:
        settings = recipe.refine
        if settings is None:
            raise SettingsError("the stage refine needs `refine` in the recipe")
        self.weights = self.defaults()
        detector = recipe.detector if settings.fog_share else None
        super().__init__(recipe, settings, recipe.mixture, detector)

    def defaults(self) -> dict[str, float]:
        """Return the weights of the losses where the recipe gives no others."""
        return {
            "consistency": 0.1,
            "guidance": 0.1,
            "spectrum": 0.1,
            "detection": 0.01,
            "recognition": 0.5,
        }

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        return self.network_losses(model, batch, *extracted(model, batch))

    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss of the recogniser."""
        if not self.weights["recognition"]:
            return {}
        return {"recognition": self.recognition.loss(restored, batch.clean)}


class WholeStage(NetworkStage):
    """Stage 5 (our addition): everything except E trains on whole views, some of them in fog.

    All other images train as in stage 4, so that the network keeps its quality on them, and the
    context learns to leave them to the local network.
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
