"""Large images: a reduced copy decides how much contrast and brightness change.

The network finds haze in the surroundings of each pixel, so the more pixels an object has, the less
of its haze it removes: at full size alone, the change of a photo differs by a factor of 1.7 between
copies of 400 and 1600 pixels. So a large image is restored at full size, and once more as a copy
that is as sharp as the training crops. Where the results differ in contrast or brightness, that of
the copy counts. Edges, and noise that was removed, are those of the full size.

Both results are compared on the copy. Around each of its pixels the best affine map from one to the
other is found, by least squares, as in the guided filter (He, Sun and Tang, "Guided Image
Filtering", PAMI 2013); the maps are enlarged and applied to the full size (He and Sun, "Fast Guided
Filter", 2015). An affine map raises the contrast of details, too.

`vrdir.serving.camera_guided` is for frames whose copy alone is restored: it carries over all that
changed on the copy, with the noise that was removed. Here the maps are smooth instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.model.checks import in_range
from vrdir.model.vrdir import Restoration

COPY_PIXELS = 400 * 270
LARGE_PIXELS = 4 * COPY_PIXELS  # twice the side of the copy: then it takes a quarter of the time
WINDOW = 9  # pixels of the copy, for each affine map
EVEN = 1e-4  # variance below which a window is even, and its contrast is kept
MOST = 4.0  # by which contrast is raised
LEAST_SIDE = 64  # of a copy; a longer strip of an image has none
ROWS = 256  # that are changed at once


def copy_size(height: int, width: int) -> tuple[int, int] | None:
    """Return height and width of the copy; None if the image is small or very long."""
    scale = math.sqrt(COPY_PIXELS / (height * width))
    size = round(height * scale), round(width * scale)
    return size if height * width > LARGE_PIXELS and min(size) >= LEAST_SIDE else None


def follow_copy(
    image: Tensor, restoration: Restoration, restore: Callable[[Tensor], Restoration]
) -> Restoration:
    """Return a restoration of large images that changes them as a reduced copy is changed.

    Args:
        image: (B, 3, H, W), RGB in [0, 1].
        restoration: of these.
        restore: restores smaller images, the copies.

    Returns:
        The restoration with another image; itself if the images are not large. An image that was
        not changed stays unchanged, exactly.
    """
    height, width = image.shape[-2:]
    size = copy_size(height, width)
    if size is None or restoration.image is image:
        return restoration
    changed = (restoration.image != image).flatten(1).any(1)
    if not bool(changed.any()):
        return restoration
    wanted = restore(resized(image, size)).image
    maps = [
        functional.interpolate(part, (size[0], width), mode="bilinear", align_corners=False)
        for part in affine_maps(resized(restoration.image, size), wanted)
    ]
    strips = []
    for top in range(0, height, ROWS):
        strip = restoration.image[..., top : top + ROWS, :]
        gain, offset = (rows_of(part, top, strip.shape[-2], height) for part in maps)
        mapped = in_range(gain * strip + offset)
        strips.append(torch.where(changed.view(-1, 1, 1, 1), mapped, strip))
    return restoration._replace(image=torch.cat(strips, 2))


def rows_of(maps: Tensor, top: int, count: int, height: int) -> Tensor:
    """Return some rows of maps (B, C, h, w) that are enlarged to a height, bilinearly."""
    rows = torch.arange(top, top + count, device=maps.device)
    position = ((rows + 0.5) * (maps.shape[-2] / height) - 0.5).clamp(0, maps.shape[-2] - 1)
    above = position.long()
    below = (above + 1).clamp(max=maps.shape[-2] - 1)
    share = (position - above).view(-1, 1)
    return torch.lerp(maps.index_select(-2, above), maps.index_select(-2, below), share)


def resized(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images (B, 3, H, W) in [0, 1] reduced to this height and width.

    Bicubic, because a bilinear copy is softer, and the network changes it less.
    """
    copy = functional.interpolate(image, size, mode="bicubic", antialias=True)
    return copy.clamp(0, 1)


def affine_maps(found: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gain and the offset, (B, 3, h, w) each, with `wanted = gain * found + offset`.

    They fit best, by least squares, in a window around each pixel. Where a window has almost
    no contrast, the gain is near 1.
    """
    mean, mean_wanted = averaged(found), averaged(wanted)
    covariance = averaged(found * wanted) - mean * mean_wanted
    variance = averaged(found * found) - mean * mean
    gain = ((covariance + EVEN) / (variance + EVEN)).clamp(0, MOST)
    return averaged(gain), averaged(mean_wanted - gain * mean)


def averaged(maps: Tensor) -> Tensor:
    """Return the mean of maps (B, C, h, w) in the window around each pixel."""
    padded = functional.pad(maps, (WINDOW // 2,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, WINDOW, 1)
