"""The stages of training. Each defines what trains and returns named losses; the rest is frozen.

First (ours) the global context learns on reduced copies of whole views. Stage 1 teaches the
decoder, stage 2 one branch after another against the frozen decoder, stage 3 the fusion of the
frozen branches; stage 4 (ours) refines everything except E and the context together, and stage 5
(ours) everything except E, on whole views, by a detector's answers in fog.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vrdir.data.batches import Batch
from vrdir.data.items import Item
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.errors import SettingsError
from vrdir.model.global_context import LocalTone, lift_whole
from vrdir.model.vrdir import VRDIR
from vrdir.training.losses import (
    balanced_detail,
    balanced_l1,
    choice,
    guidance_loss,
    l1,
    ranking,
    semantic_consistency,
    spectrum,
)
from vrdir.training.recognition import Detection, Recognition
from vrdir.training.settings import Recipe, StageSettings


class Stage(ABC):
    """A stage, as the trainer uses it.

    Attributes:
        name: its name, also of its checkpoints and weights, such as "branch-haze".
        settings: steps, batch size, learning rate.
        shares: probability of each kind of training image.
        weights: of the further losses; the recipe may replace each.
        whole: whether it trains on whole views, as small as the reduced copies, not on windows.
    """

    name: str
    weights: dict[str, float]
    whole = False

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

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:  # noqa: B027 - most need nothing
        """Load what the losses need, before any stage trains, so that errors are raised early."""


def lifted(model: VRDIR, batch: Batch) -> Tensor:
    """Return the degraded windows without their veil, if the model has a global context."""
    if batch.copy is None or batch.place is None or model.context is None:
        return batch.degraded
    return model.lifted_windows(batch.degraded, batch.copy, batch.place)[0]


def lifted_whole(model: VRDIR, image: Tensor) -> Tensor:
    """Return whole images without their veil."""
    veil = model.find_veil(image)
    return image if veil is None else lift_whole(image, veil)


class ContextStage(Stage):
    """The stage before the paper's (ours): the global context learns to take the veil away.

    It sees whole views, as small as the copies that it will see of whole images, so that hours of
    training take minutes. "detail" compares differences between neighbouring pixels: the local
    contrast that a recogniser works with, which an average over pixels hardly sees.

    A context that raises local contrast learns to do so in fog as cameras take it (`Batch.fogged`),
    where a detector is to see what it sees in clear air; all other images it is to leave as they
    are, to the local network.
    """

    name = "context"
    whole = True

    def __init__(self, recipe: Recipe) -> None:
        if recipe.context is None or recipe.model.context is None:
            raise SettingsError(
                "the stage context needs `context` in the recipe and a model with a context"
            )
        self.weights = {"detail": 0.5, "recognition": 0.5, "detection": 0.5, "choice": 4.0}
        super().__init__(recipe, recipe.context, recipe.mixture)
        self.recognition = Recognition(recipe.model.extractor)
        self.detection = None if recipe.detector is None else Detection(recipe.detector)

    @property
    def recognises(self) -> bool:
        """Whether `prepare` loads a recogniser from the extractor's file."""
        return bool(self.weights["recognition"]) and self.recognition.from_extractor

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Load the recognisers of the losses."""
        if self.weights["recognition"]:
            self.recognition.load(device, extractor_weights)
        if self.detection is not None:
            self.detection.load(device)

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
    """After all others (ours): the context of local tone learns to say how thick the haze is.

    Only the layers of that estimate train, so no restored pixel changes.
    """

    name = "haze"
    whole = True

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
        with torch.no_grad():
            clear = lifted(model, batch)
            clean, degraded = model.extract(batch.clean), model.extract(clear)
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
        with torch.no_grad():
            clear = lifted(model, batch)
            clean, degraded = model.extract(batch.clean), model.extract(clear)
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
        with torch.no_grad():
            clear = lifted(model, batch)
            clean, degraded = model.extract(batch.clean), model.extract(clear)
        features, guidance = model.enhance(degraded)
        return {
            "pixel": self.pixel_loss(model.decoder(features, clear, batch.degraded), batch.clean),
            "consistency": semantic_consistency(features, clean),
            "guidance": guidance_loss(
                guidance, batch.present, batch.known, model.config.clean_branch
            ),
        }


class RefineStage(Stage):
    """Stage 4 (ours): everything except E and the global context trains together.

    "recognition" compares deeper layers of the extractor's network, which are not part of the
    model, on the restored and on the clean image (`vrdir.training.recognition`).
    """

    name = "refine"

    def __init__(self, recipe: Recipe) -> None:
        if recipe.refine is None:
            raise SettingsError("the stage refine needs `refine` in the recipe")
        self.weights = self.defaults()
        super().__init__(recipe, recipe.refine, recipe.mixture)
        self.recognition = Recognition(recipe.model.extractor)

    def defaults(self) -> dict[str, float]:
        """Return the weights of the losses where the recipe gives no others."""
        return {"consistency": 0.1, "guidance": 0.1, "spectrum": 0.1, "recognition": 0.5}

    @property
    def recognises(self) -> bool:
        """Whether `prepare` loads a recogniser from the extractor's file."""
        return bool(self.weights["recognition"]) and self.recognition.from_extractor

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Load the recognisers of the losses."""
        if self.weights["recognition"]:
            self.recognition.load(device, extractor_weights)

    def trained(self, model: VRDIR) -> list[nn.Parameter]:
        """Return the parameters that train."""
        return [*model.enhancement.parameters(), *model.decoder.parameters()]

    def losses(self, model: VRDIR, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch."""
        with torch.no_grad():
            clear = lifted(model, batch)
            clean, degraded = model.extract(batch.clean), model.extract(clear)
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


class WholeStage(Stage):
    """Stage 5 (ours): everything except E trains together on whole views, some of them in fog.

    In fog as cameras take it (`Batch.fogged`) a detector and a classifier are to see what they see
    in clear air; there is no loss of pixels, since what is in thick fog cannot be known. All
    other images train as in stage 4, so that the network keeps its quality on them, and the
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
        super().__init__(recipe, recipe.whole, recipe.mixture)
        self.recognition = Recognition(recipe.model.extractor)
        self.detection = Detection(recipe.detector)

    @property
    def recognises(self) -> bool:
        """Whether `prepare` loads a recogniser from the extractor's file."""
        return bool(self.weights["recognition"]) and self.recognition.from_extractor

    def prepare(self, device: torch.device, extractor_weights: Path | None = None) -> None:
        """Load the recognisers of the losses."""
        if self.weights["recognition"]:
            self.recognition.load(device, extractor_weights)
        self.detection.load(device)

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


def all_stages(recipe: Recipe) -> list[Stage]:
    """Return the stages of a whole run, in order."""
    stages: list[Stage] = [] if recipe.context is None else [ContextStage(recipe)]
    stages.append(DecoderStage(recipe))
    stages += [BranchStage(recipe, name) for name in recipe.model.branches]
    stages.append(FusionStage(recipe))
    if recipe.refine is not None:
        stages.append(RefineStage(recipe))
    if recipe.whole is not None:
        stages.append(WholeStage(recipe))
    if recipe.haze is not None:
        stages.append(HazeStage(recipe))
    return stages
