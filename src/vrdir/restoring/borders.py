"""Borders of one colour, such as black bars and the grey of a letterbox: removed, then put back.

They are not part of the scene, and would mislead the network: a black bar looks like proof that the
air is clear, a white one like fog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.model.global_context import Lift
from vrdir.model.vrdir import Restoration

EDGE = 2 / 255  # mean difference of the picture from its border, where the picture begins
PLAIN = 0.5  # share of a row that has the border's colour, where something is written on it
WRITTEN = 1 / 6  # of the height: most rows of a border that may be written on


class Inner(NamedTuple):
    """The part of an image inside its borders: rows top to bottom, columns left to right."""

    top: int
    bottom: int
    left: int
    right: int

    def crop(self, image: Tensor) -> Tensor:
        """Return this part of images (..., H, W)."""
        return image[..., self.top : self.bottom, self.left : self.right]


def inside_borders(image: Tensor) -> Inner:
    """Find the picture inside the borders of an image (3, H, W).

    A border is a number of rows or columns at an edge that all have exactly one colour, next to a
    picture of other colours. A clear sky of one colour that changes slowly below is not a border.
    Borders may be inside each other, such as a white frame around black bars. An image of a single
    colour has no border. A border may contain writing, such as the time on a black strip or a
    subtitle in a bar, if rows without writing are above and below it.
    """
    inner = Inner(0, image.shape[-2], 0, image.shape[-1])
    if bool((image == image[:, :1, :1]).all()):
        return inner
    while True:
        top = _border(inner.crop(image))
        inner = inner._replace(top=inner.top + top)
        bottom = _border(inner.crop(image).flip(-2))
        inner = inner._replace(bottom=inner.bottom - bottom)
        left = _border(inner.crop(image).mT)
        inner = inner._replace(left=inner.left + left)
        right = _border(inner.crop(image).mT.flip(-2))
        inner = inner._replace(right=inner.right - right)
        if not (top or bottom or left or right):
            return inner


def _border(image: Tensor) -> int:
    """Return the number of rows at the top that are a border."""
    colour = image[:, :1, :1]
    if not bool((image[:, 0] == colour[:, 0]).all()):
        return 0  # most images end here, so the test is cheap
    same = (image == colour).all(0)
    whole = same.all(1)
    if bool(whole.all()):
        return 0
    first = _below_writing(same, whole)
    differs = bool((image[:, first] - colour[:, 0]).abs().mean() > EDGE)
    return first if differs else 0


def _below_writing(same: Tensor, whole: Tensor) -> int:
    """Return the first row of the picture below a border, which may be written on.

    Args:
        same: (H, W) bool, which pixels have the border's colour.
        whole: (H,) bool, which rows have it everywhere; the first one has, and not all have.
    """
    plain = int((~whole).nonzero()[0])
    pictured = (same.float().mean(1) < PLAIN).nonzero()
    if len(pictured) == 0:
        return plain
    last = int(whole[: int(pictured[0])].nonzero()[-1])
    written = int((~whole[:last]).sum())
    return last + 1 if written <= WRITTEN * len(whole) else plain


def restore_inside(
    batch: Tensor, restore: Callable[[Tensor], Restoration], multiple: int
) -> Restoration:
    """Restore the part of each image that is inside its borders. The borders keep every bit.

    Args:
        batch: (B, 3, H, W) in [0, 1].
        restore: restores images (B, 3, H, W) without borders.
        multiple: the network pads height and width to multiples of this (`VRDIRConfig.multiple`).

    Returns:
        The result for whole images. Shares and veils are those of the parts inside the borders.
        Guidance maps have the size for whole images; a border repeats the nearest values.
    """
    inner = [inside_borders(image) for image in batch]
    full = Inner(0, batch.shape[-2], 0, batch.shape[-1])
    if all(part == full for part in inner):
        return restore(batch)
    image, guidance, shares, veils = batch.clone(), [], [], []
    for number, part in enumerate(inner):
        restoration = restore(part.crop(batch[number : number + 1]))
        part.crop(image)[number].copy_(restoration.image[0])
        size = (batch.shape[-2], batch.shape[-1])
        guidance.append([_extended(maps, part, size, multiple) for maps in restoration.guidance])
        shares.append(restoration.shares)
        veils.append(restoration.veil)
    maps = [torch.cat(parts) for parts in zip(*guidance, strict=True)]
    return Restoration(image, maps, torch.cat(shares), joined_veils(veils))


def _extended(maps: Tensor, part: Inner, size: tuple[int, int], multiple: int) -> Tensor:
    """Return guidance maps of a part of an image, (1, K, h, w), for the image of this size."""
    for axis, length, first, last in (
        (-2, size[0], part.top, part.bottom),
        (-1, size[1], part.left, part.right),
    ):
        cells = maps.shape[axis]
        stride = -(-(last - first) // multiple) * multiple // cells
        padded = -(-length // multiple) * multiple
        middle = torch.arange(padded // stride, device=maps.device) * stride + stride // 2
        nearest = torch.div(middle - first, stride, rounding_mode="floor").clamp(0, cells - 1)
        maps = maps.index_select(axis, nearest)
    return maps


def joined(parts: Sequence[Restoration]) -> Restoration:
    """Return the restorations of the parts of a batch as one."""
    images, guidance, shares, veils = zip(*parts, strict=True)
    maps = [torch.cat(tap) for tap in zip(*guidance, strict=True)] if all(guidance) else []
    return Restoration(torch.cat(images), maps, torch.cat(shares), joined_veils(veils))


def joined_veils(veils: Sequence[Lift | None]) -> Lift | None:
    """Return the veils of the parts of a batch as one; None if there are none."""
    found = [veil for veil in veils if veil is not None]
    return type(found[0])(*map(torch.cat, zip(*found, strict=True))) if found else None
