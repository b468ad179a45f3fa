"""Compare the recogniser's features on photos of the place with those on clean photos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.adaptation.place import reduced
from vrdir.adaptation.recogniser import Recogniser
from vrdir.degradations.draws import seed_of
from vrdir.errors import DataError

SIDE_PX = 640
"""The longer side of the copies that are kept in memory."""
VIEWS = 2
"""The number of views of the place in each training step."""
LEAST = 3
"""The smallest number of photos of the place; one of three is held out."""
FAINT = 1e-4
"""A channel whose standard deviation on clean photos is below twice this is not compared."""

Restore = Callable[[Tensor], Tensor]


class Moments(NamedTuple):
    """Mean and standard deviation of each channel, over photos and positions.

    Attributes:
        mean: the mean of each channel, (C,), for each layer.
        deviation: the standard deviation of each channel, (C,), for each layer.
    """

    mean: list[Tensor]
    deviation: list[Tensor]

    @classmethod
    def of(cls, features: Sequence[Tensor]) -> Moments:
        """Return the moments of features, (B, C, h, w) or (B, C, n) for each layer."""
        rows = [each.float().transpose(0, 1).flatten(1) for each in features]
        return cls(
            [each.mean(1) for each in rows],
            [(each.var(1, correction=0) + FAINT**2).sqrt() for each in rows],
        )

    @classmethod
    def over(cls, parts: Sequence[Moments]) -> Moments:
        """Return the mean of the moments of several photos."""
        means, deviations = (
            [torch.stack(layer).mean(0) for layer in zip(*each, strict=True)]
            for each in zip(*parts, strict=True)
        )
        return cls(means, deviations)

    def moved(self, before: Moments, after: Moments) -> Moments:
        """Return these moments plus the change, after - before, on a part of the photos."""
        means, deviations = (
            [whole + new - old for whole, old, new in zip(*layers, strict=True)]
            for layers in zip(self, before, after, strict=True)
        )
        return Moments(means, deviations)

    def distance(self, wanted: Moments) -> Tensor:
        """Return the distance of these moments from the wanted ones: a mean over all channels.

        The distance of a channel is log(1 + d). d is the squared difference of the means plus that
        of the deviations, divided by the square of the wanted deviation. Because of the logarithm,
        a few channels with large differences do not outweigh all others.
        """
        layers = []
        for mean, deviation, its_mean, its_deviation in zip(*self, *wanted, strict=True):
            counted = its_deviation > 2 * FAINT
            if counted.any():
                apart = ((mean - its_mean) ** 2 + (deviation - its_deviation) ** 2)[counted]
                layers.append(torch.log1p(apart / its_deviation[counted] ** 2).mean())
        return torch.stack(layers).mean()

    @property
    def comparable(self) -> bool:
        """Whether any channel varies enough, so that distances from these moments are defined."""
        return any(bool((deviation > 2 * FAINT).any()) for deviation in self.deviation)


class PlaceFeatures:
    """Compares the recogniser's features on restored photos of the place with those on clean ones.

    A photo of the place has no clean version. So the mean and the standard deviation of each
    channel over all photos are compared (as in the adaptation of batch normalisation, Li et al.,
    2018, and ActMAD, Mirza et al., CVPR 2023). In a training step only two views are restored. The
    moments over all photos are estimated as those before adaptation, plus the change that
    adaptation made on the two views. In this way the choice of the views has little influence.

    Every third photo of the place is held out, to measure whether the distance falls there, too.

    Args:
        photos: the photos of the place.
        clean: clean photos.
        side: the side of the square views, in pixels.
        recogniser: the frozen recogniser.
        restore: restores images (B, 3, H, W) in [0, 1] with the weights before adaptation.
        device: where to compute.

    Raises:
        DataError: there are fewer than three photos of the place.
        ImageError: a photo cannot be decoded.
    """

    def __init__(
        self,
        photos: Sequence[Path],
        clean: Sequence[Path],
        side: int,
        recogniser: Recogniser,
        restore: Restore,
        device: torch.device,
    ) -> None:
        if len(photos) < LEAST:
            raise DataError(
                f"{photos[0].parent} contains {len(photos)} photos of the place; at least {LEAST} "
                "are needed, and a few dozen for a useful result; with place 0 only their weather "
                "is used"
            )
        self.side, self.recogniser, self.restore, self.device = side, recogniser, restore, device
        self.held_out = list(photos[::3])
        training = [photo for number, photo in enumerate(photos) if number % 3]
        self.photos = [_stored(path) for path in training]
        self.wanted = self.moments(clean, None)
        self.before = self.moments(training, restore)

    def moments(self, paths: Sequence[Path], restore: Restore | None) -> Moments:
        """Return the moments over photos, restored or as they are."""
        parts = []
        with torch.no_grad():
            for path in paths:
                view = self._view(_stored(path))
                seen = self.recogniser.see(view if restore is None else restore(view).clamp(0, 1))
                parts.append(Moments.of(seen.features))
        return Moments.over(parts)

    def distance(self, restore: Restore) -> float:
        """Return how far the features on the held-out photos are from those on clean ones."""
        return float(self.moments(self.held_out, restore).distance(self.wanted))

    def loss(self, restore: Restore, names: Sequence[str]) -> Tensor:
        """Return how far the features on the place are from those on clean photos.

        Args:
            restore: restores by the weights that train.
            names: of the images of the step, which decide on the views.
        """
        generator = torch.Generator().manual_seed(seed_of("place", *names))
        chosen = torch.randint(len(self.photos), (VIEWS,), generator=generator).tolist()
        views = torch.cat([self._view(self.photos[i], generator) for i in chosen])
        with torch.no_grad():
            before = self._moments(self.restore, views)
        return self.before.moved(before, self._moments(restore, views)).distance(self.wanted)

    def _moments(self, restore: Restore, views: Tensor) -> Moments:
        seen = self.recogniser.see(restore(views).clamp(0, 1))
        return Moments.of(seen.features)

    def _view(self, photo: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return most of a photo, mirrored or not; without a generator all of it."""
        if generator is not None:
            share, down, right, mirror = torch.rand(4, generator=generator).tolist()
            height, width = (round(side * (0.6 + 0.4 * share)) for side in photo.shape[1:])
            top, left = (
                int(at * (whole - part + 1))
                for at, whole, part in zip(
                    (down, right), photo.shape[1:], (height, width), strict=True
                )
            )
            photo = photo[:, top : top + height, left : left + width]
            photo = photo.flip(2) if mirror < 0.5 else photo
        view = photo[None].to(self.device).float() / 255
        size = (self.side, self.side)
        return functional.interpolate(view, size, mode="bilinear", antialias=True).clamp(0, 1)


def _stored(path: Path) -> Tensor:
    """Return a photo as (3, H, W) uint8, which takes a quarter of the memory."""
    return (reduced(path, SIDE_PX)[0] * 255).round().byte()
