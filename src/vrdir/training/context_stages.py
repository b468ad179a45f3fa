"""The stages of the global context alone (our addition)."""

from __future__ import annotations

from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.errors import SettingsError
from vrdir.model.global_context import LocalTone
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import balanced_detail, choice
from vrdir.training.settings import Recipe
from vrdir.training.stage import RecognisingStage, Stage, lifted, lifted_whole


class ContextStage(RecognisingStage):
    """The stage before the paper's (our addition): the global context learns to remove haze.

    It trains on whole views, reduced to the size of the copies of whole images, which shortens
    training from hours to minutes. "detail" compares differences between neighbouring pixels: the
    local contrast that a recogniser uses, which an average over pixels hardly measures.

    A context that raises local contrast learns to do so in photographed fog (`Batch.fogged`), where
    a detector should find what it finds in clear air. It learns to leave all other images unchanged
    for the local network.
    """

    name = "context"
    whole = True
    shows_fog = True

    def __init__(self, recipe: Recipe) -> None:
        if recipe.context is None or recipe.model.context is None:
            raise SettingsError(
                "the stage context needs `context` in the recipe and a model with a context"
            )
        self.weights = {"detail": 0.5, "recognition": 0.5, "detection": 0.5, "choice": 4.0}
        super().__init__(recipe, recipe.context, recipe.mixture, recipe.detector)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        assert model.context is not None
        return model.context.lifting_parameters()

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        if batch.fogged is not None:
            return self._losses_in_fog(model, batch, batch.fogged)
        clear = lifted(model, batch).float()
        losses = {
            "pixel": self.pixel_loss(clear, batch.clean),
            "detail": balanced_detail(clear, batch.clean),
        }
        if self.weights["recognition"]:
            losses["recognition"] = self.recognition.loss(clear.clamp(0, 1), batch.clean)
        if self.detection is not None:
            losses["detection"] = self.detection.loss(clear.clamp(0, 1), batch.clean)
        return losses

    def _losses_in_fog(self, model: VRDIR, batch: Batch, fogged: Tensor) -> dict[str, Tensor]:
        assert batch.copy is not None
        assert batch.place is not None
        clear, tone = model.lifted_windows(batch.degraded, batch.copy, batch.place)
        assert isinstance(tone, LocalTone)
        clear, others = clear.float(), ~fogged
        losses = {
            "pixel": self.pixel_loss(clear[others], batch.degraded[others]).nan_to_num(),
            "choice": choice(tone.asked, fogged),
        }
        if self.detection is not None and fogged.any():
            found = clear[fogged].clamp(0, 1)
            losses["detection"] = self.detection.loss(found, batch.clean[fogged])
        return losses

    def restored(self, model: VRDIR, degraded: Tensor) -> Tensor:
        """Restore degraded images with this stage's network."""
        return lifted_whole(model, degraded).clamp(0, 1)


class HazeStage(Stage):
    """The last stage (our addition): the local-tone context learns to estimate the haze density.

    Only the layers of that estimate train, so no restored pixel changes.
    """

    name = "haze"
    whole = True
    shows_fog = True

    def __init__(self, recipe: Recipe) -> None:
        if recipe.haze is None or recipe.model.context is None or not recipe.model.context.tone:
            raise SettingsError(
                "the stage haze needs `haze` in the recipe and a model with a local-tone context"
            )
        self.weights = {"haze": 1.0}
        super().__init__(recipe, recipe.haze, recipe.mixture)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        assert model.context is not None
        return list(model.context.to_haze.parameters())

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        assert batch.copy is not None
        assert batch.haze is not None
        tone = model.veil(batch.copy)
        assert isinstance(tone, LocalTone)
        return {"haze": (tone.haze - batch.haze).abs().mean()}
