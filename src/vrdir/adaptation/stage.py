"""The stage of training that adapts a whole network to one recogniser."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vrdir.adaptation.recogniser import Recogniser
from vrdir.adaptation.settings import AdaptationSettings, Trained
from vrdir.data.batches import Batch
from vrdir.errors import InputError
from vrdir.model.semantics_decoder import PixelSkipDecoder
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import dense_consistency
from vrdir.training.network_stages import RefineStage
from vrdir.training.settings import Recipe
from vrdir.training.stage import lifted

ALLOWED_DB = 0.1
"""The loss "guard" begins when an image is worse by more than this, in dB."""
LEAST_ERROR = 1e-6
"""The smallest mean squared error that is distinguished: 60 dB. Clean photos come near it, and at
50 dB the answers of recognisers to them already change."""


class AdaptStage(RefineStage):
    """Trains a network for the user's recogniser.

    The losses are those of the refinement (`RefineStage`), without its "recognition", and three
    others. "answers" compares the recogniser's answers for restored and for clean images;
    "features" compares the features of its layers. "guard" is the number of dB by which an image is
    worse than with the weights before adaptation, beyond `ALLOWED_DB`; clean images count, too.

    Args:
        recipe: the training recipe.
        recogniser: the frozen recogniser.
        settings: which parameters are trained.
        before: the network before adaptation, which does not change.
    """

    def __init__(
        self,
        recipe: Recipe,
        recogniser: Recogniser,
        settings: AdaptationSettings,
        before: VRDIR,
    ) -> None:
        self.recogniser, self.part, self.before = recogniser, settings.trained, before
        super().__init__(recipe)
        self.name = "adapt"

    def defaults(self) -> dict[str, float]:
        """Return the default weights of the losses; the settings replace the last three."""
        return {
            "consistency": 0.1,
            "guidance": 0.0,
            "spectrum": 0.1,
            "answers": 1.0,
            "features": 1.0,
            "guard": 1.0,
        }

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Move the recogniser to the device."""
        self.recogniser.to(device)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that are trained."""
        return parameters_of(model, self.part)

    def recognised(self, restored: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the losses "answers", "features" and "guard" of restored images (B, 3, H, W)."""
        restored, kind = restored.clamp(0, 1), self.recogniser.kind
        with torch.no_grad():
            wanted = self.recogniser.see(batch.clean)
        found = self.recogniser.see(restored)
        losses: dict[str, Tensor] = {}
        if self.weights["answers"] and kind is not None:
            losses["answers"] = kind.distance(found.answers, wanted.answers)
        if self.weights["features"] and wanted.features:
            losses["features"] = dense_consistency(found.features, wanted.features)
        if self.weights["guard"]:
            losses["guard"] = self.guard(restored, batch)
        return losses

    def guard(self, restored: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of images in dB, compared with `before`, beyond `ALLOWED_DB`."""
        with torch.no_grad():
            clear = lifted(self.before, batch)
            features, _ = self.before.enhance(self.before.extract(clear))
            before = self.before.decoder(features, clear, batch.degraded)
        lost = 10 * torch.log10(errors(restored, batch.clean) / errors(before, batch.clean))
        return torch.relu(lost - ALLOWED_DB).mean()


def errors(restored: Tensor, clean: Tensor) -> Tensor:
    """Return the mean squared error of each image, (B,), at least `LEAST_ERROR`."""
    return ((restored.float().clamp(0, 1) - clean) ** 2).mean((1, 2, 3)).clamp_min(LEAST_ERROR)


def parameters_of(model: VRDIR, part: Trained) -> list[nn.Parameter]:
    """Return the parameters of a part of a network; see `Trained`.

    Raises:
        InputError: the decoder of the network does not have this part.
    """
    if part == "all":
        return [*model.enhancement.parameters(), *model.decoder.parameters()]
    decoder = model.decoder
    if not isinstance(decoder, PixelSkipDecoder):
        raise InputError(f"weights with the paper's decoder have no part {part!r}; use all")
    if part == "channels":
        parts = [*model.enhancement.named_parameters(), *decoder.named_parameters()]
        return [p for name, p in parts if name.endswith("bias") or "attend" in name]
    blocks = decoder.decoder if part == "decoder" else decoder.decoder[:2]
    ups = decoder.up if part == "decoder" else decoder.up[:1]
    modules = [blocks, ups, decoder.to_correction]
    if part == "decoder":
        modules.append(decoder.semantics)
    return [p for module in modules for p in module.parameters()]
