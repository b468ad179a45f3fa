"""Borders of one colour, such as black bars and the grey of a letterbox: set aside and put back.

They are no part of the scene. A restorer that sees them takes them for it: a black bar for proof
that the air is clear, a white one for fog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.model.global_context import Lift
from vrdir.model.vrdir import Restoration

EDGE = 2 / 255  # by how much the picture differs from its border on average where it begins


class Inner(NamedTuple):
    """The part of an image inside its borders: rows top to bottom, columns left to right."""

    top: int
    bottom: int
    left: int
    right: int

    def of(self, image: Tensor) -> Tensor:
        """That part of images (..., H, W)."""
        return image[..., self.top : self.bottom, self.left : self.right]


def inside_borders(image: Tensor) -> Inner:
    """Find the picture inside the borders of an image (3, H, W).

    A border is rows or columns at an edge that are all of exactly one colour, where the picture
    that follows is of another: a clear sky of one colour that goes on below is none. Borders may
    be inside each other, as a white frame around black bars. An image of one colour has none.
    """
    inner = Inner(0, image.shape[-2], 0, image.shape[-1])
    if bool((image == image[:, :1, :1]).all()):
        return inner
    while True:
        top = _border(inner.of(image))
        inner = inner._replace(top=inner.top + top)
        bottom = _border(inner.of(image).flip(-2))
        inner = inner._replace(bottom=inner.bottom - bottom)
        left = _border(inner.of(image).mT)
        inner = inner._replace(left=inner.left + left)
        right = _border(inner.of(image).mT.flip(-2))
        inner = inner._replace(right=inner.right - right)
        if not (top or bottom or left or right):
            return inner


def _border(image: Tensor) -> int:
    """The number of rows at the top that are a border."""
    colour = image[:, :1, :1]
    if not bool((image[:, 0] == colour[:, 0]).all()):
        return 0  # nearly always; the rest is not looked at
    others = (image != colour).any(0).any(1).nonzero()
    if len(others) == 0:
        return 0
    first = int(others[0])
    differs = bool((image[:, first] - colour[:, 0]).abs().mean() > EDGE)
    return first if differs else 0


def restore_inside(batch: Tensor, restore: Callable[[Tensor], Restoration]) -> Restoration:
    """Restore what is inside the borders of each image of a batch (B, 3, H, W).

    The borders keep each bit. Guidance maps are given only where no image has a border.
    """
    inner = [inside_borders(image) for image in batch]
    full = Inner(0, batch.shape[-2], 0, batch.shape[-1])
    if all(part == full for part in inner):
        return restore(batch)
    image, shares, veils = batch.clone(), [], []
    for number, part in enumerate(inner):
        restoration = restore(part.of(batch[number : number + 1]))
        part.of(image)[number].copy_(restoration.image[0])
        shares.append(restoration.shares)
        veils.append(restoration.veil)
    return Restoration(image, [], torch.cat(shares), joined_veils(veils))


def joined_veils(veils: Sequence[Lift | None]) -> Lift | None:
    """Return the veils of the parts of a batch as one."""
    found = [veil for veil in veils if veil is not None]
    return type(found[0])(*map(torch.cat, zip(*found, strict=True))) if found else None
