"""The stages in which all parts except the extractor train together (our addition)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.errors import SettingsError
from vrdir.model.global_context import LocalTone
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import choice, guidance_loss, semantic_consistency, spectrum
from vrdir.training.settings import Recipe
from vrdir.training.stage import RecognisingStage, extracted


class RefineStage(RecognisingStage):
    """Stage 4 (our addition): everything except E and the global context trains together.

    "recognition" compares deeper layers of the extractor's network, which are not part of the
    model, on the restored and on the clean image (`vrdir.training.recognition`).
    """

    name = "refine"

    def __init__(self, recipe: Recipe) -> None:
        if recipe.refine is None:
            raise SettingsError("the stage refine needs `refine` in the recipe")
        self.weights = self.defaults()
        super().__init__(recipe, recipe.refine, recipe.mixture)

    def defaults(self) -> dict[str, float]:
        """Return the weights of the losses where the recipe gives no others."""
        return {"consistency": 0.1, "guidance": 0.1, "spectrum": 0.1, "recognition": 0.5}

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return [*model.enhancement.parameters(), *model.decoder.parameters()]

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        clear, clean, degraded = extracted(model, batch)
        features, guidance = model.enhance(degraded)
        restored = model.decoder(features, clear, batch.degraded)
        losses = {
            "pixel": self.pixel_loss(restored, batch.clean),
            "consistency": semantic_consistency(features, clean),
            "guidance": guidance_loss(
                guidance, batch.present, batch.known, model.config.clean_branch
            ),
        }
        # The output of an early step may be far outside [0, 1]. The pixel loss corrects that; the
        # spectrum has no bound.
        restored = restored.clamp(-1, 2)
        if self.weights["spectrum"]:
            losses["spectrum"] = spectrum(restored, batch.clean)
        return losses | self.recognised(restored, batch)

    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses between recognisers' outputs on restored and on clean images."""
        if not self.weights["recognition"]:
            return {}
        return {"recognition": self.recognition.loss(restored, batch.clean)}


class WholeStage(RecognisingStage):
    """Stage 5 (our addition): everything except E trains on whole views, some of them in fog.

    In photographed fog (`Batch.fogged`) a detector and a classifier should find what they find in
    clear air; there is no pixel loss, since what thick fog hides cannot be known. All other images
    train as in stage 4, so that the network keeps its quality on them, and the context learns to
    leave them to the local network.
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
        parts = (model.enhancement, model.decoder)
        others = [parameter for part in parts for parameter in part.parameters()]
        return [*model.context.lifting_parameters(), *others]

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        assert batch.copy is not None
        assert batch.place is not None
        assert batch.fogged is not None
        assert self.detection is not None
        fogged, others = batch.fogged, ~batch.fogged
        clear, tone = model.lifted_windows(batch.degraded, batch.copy, batch.place)
        assert isinstance(tone, LocalTone)
        with torch.no_grad():
            clean = model.extract(batch.clean)
        features, guidance = model.enhance(model.extract(clear))
        restored = model.decoder(features, clear, batch.degraded).float()
        # A batch may have no fog, or only fog: the mean of no values is not a number.
        losses = {
            "pixel": self.pixel_loss(restored[others], batch.clean[others]).nan_to_num(),
            "consistency": semantic_consistency(features, clean),
            "guidance": guidance_loss(
                guidance, batch.present, batch.known & others, model.config.clean_branch
            ),
            "choice": choice(tone.asked, fogged),
        }
        if fogged.any():
            found, wanted = restored[fogged].clamp(0, 1), batch.clean[fogged]
            losses["detection"] = self.detection.loss(found, wanted)
            if self.weights["recognition"]:
                losses["recognition"] = self.recognition.loss(found, wanted)
        return losses
