"""Views of a photo: the part that a training crop shows, its size, orientation and light."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

Augmentation = Literal[
    "flip", "full", "wide", "vivid", "varied", "close", "whole", "doubtful", "all"
]
"""Which views a training set uses.

- "flip" mirrors half of the crops (the paper).
- "full" also turns half of them by 90 degrees. Of the crops that are degraded afterwards, a third
  is taken at twice the size and reduced: sharper texture, and objects at another scale.
- "wide" is "full" with another third taken at half the size and magnified, and half of all in
  different light (see `Tone`): smooth, pale and dim photos, which must not be mistaken for hazy
  ones.
- "vivid" is "full" with stronger colours in a quarter of the crops that are degraded afterwards.
- "varied" is "vivid" with a tenth of the other crops in another light, as in "wide".
- "close" is "varied" with another third magnified up to three times: near, smooth objects.
- "whole" takes 15 to 100 % of the photo, of a varied shape, resized to the size of the view; an
  eighth each has stronger colours and another light.
- "doubtful" is "whole" with 40 % of views that are easily mistaken for fog: whole views in another
  light, and near, smooth parts of 1 to 12 %. These are never shown in fog (`View.doubtful`).
- "all" is "whole" for half of the views that are degraded afterwards, and "close" for the others.
"""


class Tone(NamedTuple):
    """Another light on a photo.

    Of values in [0, 1]: `gain * (mean + contrast * (value ** gamma * exposure - mean))`, clipped.

    Attributes:
        gamma, exposure, contrast: of all channels.
        gains: (3,), of each channel.
        saturation: factor on the difference of each channel from the pixel's grey (the mean of its
            channels), which is applied first.
    """

    gamma: float
    exposure: float
    contrast: float
    gains: Tensor
    saturation: float = 1.0

    @classmethod
    def drawn(cls, generator: Generator) -> Tone:
        """Draw a light from dim and flat to a little brighter, seldom with all changes at once."""
        gamma, exposure, contrast, *gains = torch.rand(6, generator=generator).tolist()
        return cls(
            gamma=2 ** (1.2 * gamma - 0.6),
            exposure=2 ** (0.3 - 1.8 * exposure**2),
            contrast=1 - 0.6 * contrast**2,
            gains=2 ** (0.3 * torch.tensor(gains) - 0.15),
        )

    @classmethod
    def vivid(cls, generator: Generator) -> Tone:
        """Draw stronger colours in the same light: up to three times their saturation."""
        return cls(1.0, 1.0, 1.0, torch.ones(3), 3 ** float(torch.rand((), generator=generator)))

    def apply(self, image: Tensor) -> Tensor:
        """Return a (3, H, W) uint8 image in this light."""
        values = image.float() / 255
        if self.saturation != 1:
            grey = values.mean(0, keepdim=True)
            values = (grey + self.saturation * (values - grey)).clamp(0, 1)
        lit = values**self.gamma * self.exposure
        mean = lit.mean()
        gains = self.gains.to(image.device).view(3, 1, 1)
        return ((mean + self.contrast * (lit - mean)) * gains * 255).clamp(0, 255).round().byte()


class View(NamedTuple):
    """How a crop of `size` pixels is made of a part of a photo.

    Attributes:
        size: side of the crop in pixels.
        height, width: of the part of the photo, which is reduced or magnified to `size`.
        turned: by 90 degrees.
        mirrored: left to right.
        tone: another light, or None.
        doubtful: whether it is easily taken for fog, and so is not to be shown in fog.
    """

    size: int
    height: int
    width: int
    turned: bool
    mirrored: bool
    tone: Tone | None
    doubtful: bool = False

    @classmethod
    def drawn(
        cls,
        how: Augmentation,
        size: int,
        height: int,
        width: int,
        synthetic: bool,
        generator: Generator,
    ) -> View:
        """Draw a view of a photo of `height` x `width` pixels.

        Only a photo that is degraded afterwards (`synthetic`) may change size and light.
        """
        scale, turned, mirrored = (
            int(torch.randint(n, (), generator=generator)) for n in (3, 2, 2)
        )
        if how == "all":
            whole = synthetic and bool(torch.randint(2, (), generator=generator))
            how = "whole" if whole else "close"
        if how == "doubtful" and torch.rand((), generator=generator) < 0.4:
            return cls.of_doubtful(size, height, width, bool(mirrored), generator)
        if how in ("whole", "doubtful"):
            return cls.of_whole(size, height, width, bool(mirrored), generator)
        if how == "flip":
            return cls(size, size, size, False, bool(mirrored), None)
        side = size
        if synthetic and scale == 0 and min(height, width) >= 2 * size:
            side = 2 * size
        elif synthetic and scale == 1 and how == "wide":
            side = -(-size // 2)
        elif synthetic and scale == 1 and how == "close":
            side = round(size / 3 ** float(torch.rand((), generator=generator)))
        tone = None
        if synthetic and how == "wide" and torch.randint(2, (), generator=generator):
            tone = Tone.drawn(generator)
        elif (
            synthetic
            and how in ("vivid", "varied", "close")
            and not torch.randint(4, (), generator=generator)
        ):
            tone = Tone.vivid(generator)
        elif (
            synthetic
            and how in ("varied", "close")
            and not torch.randint(10, (), generator=generator)
        ):
            tone = Tone.drawn(generator)
        return cls(size, side, side, bool(turned), bool(mirrored), tone)

    @classmethod
    def of_whole(
        cls, size: int, height: int, width: int, mirrored: bool, generator: Generator
    ) -> View:
        """Draw a view of most of a photo, seldom of a small part, stretched by up to a third."""
        which, area, shape, light = torch.rand(4, generator=generator).tolist()
        least = 0.5 if which < 0.5 else 0.15
        extent, stretch = math.sqrt(least + (1 - least) * area), math.exp(0.6 * shape - 0.3)
        part = (
            min(height, round(height * extent * stretch)),
            min(width, round(width * extent / stretch)),
        )
        tone = (
            Tone.vivid(generator)
            if light < 0.125
            else Tone.drawn(generator)
            if light < 0.25
            else None
        )
        return cls(size, *part, False, mirrored, tone)

    @classmethod
    def of_doubtful(
        cls, size: int, height: int, width: int, mirrored: bool, generator: Generator
    ) -> View:
        """Draw a near part in any light, or most of the photo in another light."""
        which, area, shape, light = torch.rand(4, generator=generator).tolist()
        near = which < 0.5
        extent = math.sqrt(0.01 * 12**area if near else 0.3 + 0.7 * area)
        stretch = math.exp(0.6 * shape - 0.3)
        part = (
            max(16, min(height, round(height * extent * stretch))),
            max(16, min(width, round(width * extent / stretch))),
        )
        tone = None if near and light < 0.4 else Tone.drawn(generator)
        return cls(size, *part, False, mirrored, tone, doubtful=True)

    def apply(self, part: Tensor) -> Tensor:
        """Return the (3, size, size) crop of a (3, height, width) part, both uint8."""
        if self.height == self.width == 2 * self.size:
            part = functional.avg_pool2d(part.float(), 2).round().byte()
        elif self.height != self.width or self.height > self.size:
            part = (
                functional.interpolate(
                    part[None].float(), (self.size, self.size), mode="bilinear", antialias=True
                )[0]
                .round()
                .byte()
            )
        elif self.height < self.size:
            large = functional.interpolate(
                part[None].float(), (self.size, self.size), mode="bicubic", align_corners=False
            )[0]
            part = large.clamp(0, 255).round().byte()
        if self.turned:
            part = torch.rot90(part, 1, (1, 2))
        if self.mirrored:
            part = part.flip(2)
        return part if self.tone is None else self.tone.apply(part)


def extend(image: Tensor, size_px: int) -> Tensor:
    """Return a photo (3, H, W), extended by mirroring to at least `size_px` on each side."""
    while min(image.shape[1:]) < size_px:
        if image.shape[1] < size_px:
            image = torch.cat([image, image.flip(1)], 1)
        if image.shape[2] < size_px:
            image = torch.cat([image, image.flip(2)], 2)
    return image
