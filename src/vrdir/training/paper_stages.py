"""The stages of the paper: the decoder, one branch after another, and their fusion."""

from __future__ import annotations

from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.data.items import Item
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.errors import SettingsError
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import guidance_loss, ranking, semantic_consistency
from vrdir.training.settings import Recipe
from vrdir.training.stage import Stage, extracted, lifted_whole


class DecoderStage(Stage):
    """Stage 1: SAD learns to reconstruct images from clean semantics, not from degraded ones.

    The paper's decoder has only features: SAD(E(y)) approaches y and, with a small weight,
    SAD(E(x)) approaches x. A decoder with a pixel path also gets the degraded pixels: SAD(E(y), x)
    approaches y, so that it learns to use clean semantics; SAD(E(x), x) approaches y as well as
    degraded semantics allow.
    """

    name = "decoder"

    def __init__(self, recipe: Recipe) -> None:
        self.weights = {"degraded": 0.1, "ranking": 1.0}
        super().__init__(recipe, recipe.decoder, recipe.mixture)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return list(model.decoder.parameters())

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        clear, clean, degraded = extracted(model, batch)
        if model.decoder.uses_image:
            from_clean, wanted_of_degraded = (
                model.decoder(clean, clear, batch.degraded),
                batch.clean,
            )
        else:
            from_clean, wanted_of_degraded = model.decoder(clean, batch.clean), batch.degraded
        from_degraded = model.decoder(degraded, clear, batch.degraded)
        losses = {
            "pixel": self.pixel_loss(from_clean, batch.clean),
            "degraded": self.pixel_loss(from_degraded, wanted_of_degraded),
        }
        if self.weights["ranking"]:
            losses["ranking"] = ranking(
                from_clean, batch.clean, from_degraded, wanted_of_degraded, margin=1.0
            )
        return losses

    def restored(self, model: VRDIR, degraded: Tensor) -> Tensor:
        """Restore degraded images with this stage's network."""
        clear = lifted_whole(model, degraded)
        return model.decoder(model.extract(clear), clear, degraded).clamp(0, 1)


class BranchStage(Stage):
    """Stage 2: one DNC branch learns one degradation, against the frozen decoder."""

    def __init__(self, recipe: Recipe, degradation: str) -> None:
        if degradation not in recipe.model.branches:
            raise SettingsError(
                f"the model has no branch {degradation!r}; it has "
                f"{', '.join(recipe.model.branches)}"
            )
        self.name, self.degradation = f"branch-{degradation}", degradation
        self.weights = {"consistency": 1.0}
        super().__init__(
            recipe, recipe.branch, {degradation: 1.0} if degradation in DEGRADATIONS else {}
        )

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return model.branch_parameters(self.degradation)

    def accepts(self, item: Item) -> bool:
        """Return whether the stage trains and validates on an item."""
        if item.drawn:  # another degradation cannot be synthesised
            return self.degradation in DEGRADATIONS
        return item.degradations == (self.degradation,) or (
            item.degradations is None and not item.several
        )

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        clear, clean, degraded = extracted(model, batch)
        features = model.enhance_with(self.degradation, degraded)
        return {
            "pixel": self.pixel_loss(model.decoder(features, clear, batch.degraded), batch.clean),
            "consistency": semantic_consistency(features, clean),
        }

    def restored(self, model: VRDIR, degraded: Tensor) -> Tensor:
        """Restore degraded images with this stage's network."""
        clear = lifted_whole(model, degraded)
        features = model.enhance_with(self.degradation, model.extract(clear))
        return model.decoder(features, clear, degraded).clamp(0, 1)


class FusionStage(Stage):
    """Stage 3: FGM learns how much of each frozen branch an image needs, for all mixtures."""

    name = "fusion"

    def __init__(self, recipe: Recipe) -> None:
        self.weights = {"consistency": 1.0, "guidance": 0.1}
        super().__init__(recipe, recipe.fusion, recipe.mixture)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return model.fusion_parameters()

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        clear, clean, degraded = extracted(model, batch)
        features, guidance = model.enhance(degraded)
        return {
            "pixel": self.pixel_loss(model.decoder(features, clear, batch.degraded), batch.clean),
            "consistency": semantic_consistency(features, clean),
            "guidance": guidance_loss(
                guidance, batch.present, batch.known, model.config.clean_branch
            ),
        }
