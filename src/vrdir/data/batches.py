"""Make batches of crops: degradations, overlays and windows, on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from vrdir.data.items import Item
from vrdir.degradations.degrade import apply_steps, with_one_grain
from vrdir.degradations.draws import Draws, Generators, Ranges, generators_of
from vrdir.degradations.mixture import degrade_mixture
from vrdir.degradations.overlays import draw_overlays
from vrdir.degradations.photographed_fog import photographed_fog
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.degradations.steps import parse_degradations
from vrdir.model.global_context import reduced

FILE_UNSEEN = {"noise": 0.0, "softness": 0.0, "quality": 100.0}
parsed = lru_cache(256)(parse_degradations)


class Crops(NamedTuple):
    """Crops before degradations are synthesised.

    Attributes:
        clean, degraded: (B, 3, size, size) uint8; the same where the degradation is synthesised.
        doubtful: which are easily taken for fog, and are not to be shown in fog.
        items: index of each crop's item.
        seeds: of each crop's degradation.
    """

    clean: Tensor
    degraded: Tensor
    doubtful: list[bool]
    items: list[int]
    seeds: list[int]


class Batch(NamedTuple):
    """A batch, as a stage computes its losses on it.

    Attributes:
        clean, degraded: (B, 3, H, W) in [0, 1].
        present: (B, K) bool, which degradations are in each image, in the order of the model's
            branches.
        known: (B,) bool, for which images that is known.
        names: of the images, for messages.
        copy: (B, 3, S, S), the reduced copy of the whole degraded view, of which the image is a
            window; None without a global context.
        place: (B, 3), the window's top and left in the view and the view's side, in pixels.
        fogged: (B,) bool, which are shown in fog as a camera records it; None if the stage shows
            no fog.
        haze: (B,), the mean of 1 - t of the synthetic haze or fog of the mixture; 0 without it.
    """

    clean: Tensor
    degraded: Tensor
    present: Tensor
    known: Tensor
    names: list[str]
    copy: Tensor | None = None
    place: Tensor | None = None
    fogged: Tensor | None = None
    haze: Tensor | None = None


@dataclass(frozen=True)
class BatchMaker:
    """Makes the batches of one stage from crops.

    Attributes:
        branches: the model's degradations, in the order of `Batch.present`.
        shares: relative frequency of each kind of image, for items that the stage's mixture
            degrades.
        device: where batches are made.
        window: side of the windows that are cut from degraded views, in pixels; None keeps the
            whole views.
        view_px: side of the views.
        ranges, jpeg_share, copy_px, overlay_share: as of `TrainingSet`.
        fog_share: share of the images that are shown in fog as a camera records it.
        one_source: whether all images of a batch share one source of random numbers. That is
            faster on a GPU, but then an image depends on how the work is divided into batches.
    """

    branches: Sequence[str]
    shares: Mapping[str, float]
    device: torch.device
    window: int | None
    view_px: int
    ranges: Ranges
    jpeg_share: float
    copy_px: int | None
    fog_share: float
    overlay_share: float
    one_source: bool = False

    @property
    def drawable(self) -> list[str]:
        """The branches whose degradation can be synthesised; the others have only pair lists."""
        return [name for name in self.branches if name in DEGRADATIONS]

    def batch(self, crops: Crops, items: Sequence[Item]) -> Batch:
        """Copy crops to the device, and degrade them, overlay them and cut windows there.

        Args:
            crops: what `StageData.crops` returned, or a part of it.
            items: the item of each crop.
        """
        clean, degraded = (
            part.to(self.device).float() / 255 for part in (crops.clean, crops.degraded)
        )
        sources = [
            Generator(self.device).manual_seed(seed)
            for seed in crops.seeds[: 1 if self.one_source else None]
        ]
        generators: Generators = sources[0] if self.one_source else sources
        present = torch.tensor(
            [[name in (item.degradations or ()) for name in self.branches] for item in items]
        )
        # An image with a degradation that has no branch is neither clean nor known.
        known = torch.tensor(
            [item.drawn or item.degradations == () for item in items]
        ) | present.any(1)
        haze = torch.zeros(len(items), device=self.device)
        self._synthesise(clean, degraded, present, haze, items, generators)
        made_here = torch.tensor([item.degraded is None for item in items], device=self.device)
        degraded = torch.where(
            made_here.view(-1, 1, 1, 1), with_one_grain(clean, degraded), degraded
        )
        fogged = None
        if self.fog_share:
            able = made_here & ~torch.tensor(crops.doubtful, device=self.device)
            fogged = self._fog(clean, degraded, haze, crops.clean, able, generators)
        if self.overlay_share:
            overlay = draw_overlays(clean, generators, self.overlay_share)
            clean, degraded = overlay.on(clean), overlay.on(degraded)
        copy, place = None, None
        if self.copy_px is not None:
            copy = reduced(degraded, self.copy_px)
            clean, degraded, place = self._windows(clean, degraded, generators)
        clean, degraded = (
            part.contiguous(memory_format=torch.channels_last) for part in (clean, degraded)
        )
        names = [item.name for item in items]
        present, known = present.to(self.device), known.to(self.device)
        return Batch(clean, degraded, present, known, names, copy, place, fogged, haze)

    def _synthesise(
        self,
        clean: Tensor,
        degraded: Tensor,
        present: Tensor,
        haze: Tensor,
        items: Sequence[Item],
        generators: Generators,
    ) -> None:
        """Degrade, in place, the images whose items have no degraded file."""
        by_synthesis: dict[str, list[int]] = {}
        for row, item in enumerate(items):
            if item.degraded is None:
                by_synthesis.setdefault(item.synthesis, []).append(row)
        for synthesis, rows in by_synthesis.items():
            own = generators_of(generators, rows)
            if synthesis:
                image = apply_steps(clean[rows], parsed(synthesis), own)
                degraded[rows] = (image * 255).round() / 255
            else:
                self._mix(clean, degraded, present, haze, rows, own)

    def _mix(
        self,
        clean: Tensor,
        degraded: Tensor,
        present: Tensor,
        haze: Tensor,
        rows: list[int],
        generators: Generators,
    ) -> None:
        """Degrade rows of a batch by the stage's mixture, in place.

        An image without any degradation is its own target, JPEG compression included.
        """
        able = self.drawable
        mixture = degrade_mixture(
            clean[rows], self.shares, able, generators, self.ranges, self.jpeg_share
        )
        degraded[rows], haze[rows] = mixture.image, mixture.haze
        untouched = (~mixture.present.any(1)).view(-1, 1, 1, 1)
        clean[rows] = torch.where(untouched, mixture.image, clean[rows])
        columns = [self.branches.index(name) for name in able]
        present[torch.tensor(rows)[:, None], columns] = mixture.present.cpu()

    def _fog(
        self,
        clean: Tensor,
        degraded: Tensor,
        haze: Tensor,
        crops: Tensor,
        able: Tensor,
        generators: Generators,
    ) -> Tensor:
        """Put a share of the images in fog as a camera records it, in place; return which, (B,)."""
        fogged = (Draws(clean, generators).unit() < self.fog_share) & able
        rows = fogged.nonzero().flatten().tolist()
        if rows:
            clean[rows] = crops[rows].to(self.device).float() / 255
            # A reduced copy is too small to show what the sensor and the file did.
            file = FILE_UNSEEN if self.view_px == self.copy_px else {}
            own = generators_of(generators, rows)
            fog = photographed_fog(clean[rows], own, **file)
            assert fog.haze is not None
            degraded[rows], haze[rows] = fog.image, fog.haze
        return fogged

    def _windows(
        self, clean: Tensor, degraded: Tensor, generators: Generators
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return a window of each view, at a random place, and these places."""
        side, window = clean.shape[-1], self.window or clean.shape[-1]
        free = side - window
        places = ((free + 1) * Draws(clean, generators).unit(2)).long().clamp(max=free).tolist()
        cut = [
            torch.stack(
                [
                    image[:, top : top + window, left : left + window]
                    for image, (top, left) in zip(images, places, strict=True)
                ]
            )
            for images in (clean, degraded)
        ]
        place = torch.tensor([[*place, side] for place in places], device=clean.device)
        return cut[0], cut[1], place
