"""What cameras and programs draw on a picture after the weather: bars, frames, stamps, masks.

An overlay is no degradation: it is on the degraded and on the clean image alike, and a restorer is to
leave it alone and not to be misled by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.degradations.draws import Degraded, Draws, Generators, pixel_grid

LETTERBOX = 114 / 255  # the grey of YOLO's letterbox


class Overlay(NamedTuple):
    """What is drawn on a batch.

    Attributes:
        mask: (B, 1, H, W) bool, where something is drawn.
        colour: (B, 3, H, W) in [0, 1], what is drawn there.
        kinds: of each image, by name; "" where nothing is drawn.
    """

    mask: Tensor
    colour: Tensor
    kinds: list[str]

    def on(self, image: Tensor) -> Tensor:
        """Draw it on a batch (B, 3, H, W)."""
        return torch.where(self.mask, self.colour.to(image.dtype), image)


def draw_overlays(image: Tensor, generator: Generators, share: float = 1.0) -> Overlay:
    """Draw what is to be on each image of a batch.

    Args:
        image: (B, 3, H, W): its size and device.
        generator: source of all draws; one, or one for each image.
        share: probability that something is drawn on an image at all.
    """
    draws = Draws(image, generator)
    which = (draws.unit(1) * len(OVERLAYS)).long().flatten().tolist()
    none = (draws.unit(1) >= share).flatten()
    names = list(OVERLAYS)
    mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
    colour = plain_colour(draws).expand_as(image)
    for number, name in enumerate(names):
        here = torch.tensor([w == number for w in which], device=image.device).view(-1, 1, 1, 1)
        own_mask, own_colour = OVERLAYS[name](draws)
        mask = torch.where(here, own_mask, mask)
        colour = colour if own_colour is None else torch.where(here, own_colour, colour)
    kinds = ["" if off else names[w] for w, off in zip(which, none.tolist(), strict=True)]
    return Overlay(mask & ~none.view(-1, 1, 1, 1), colour, kinds)


def overlay(image: Tensor, generator: Generators, *, kind: str = "any") -> Degraded:
    """Draw on each image of a batch what a camera or a program might.

    Args:
        image: (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        kind: one of `OVERLAYS`; "any" draws one for each image.

    Returns:
        The batch, and `covered` (B,), the share of the pixels that is drawn on.

    Raises:
        ValueError: there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {', '.join(KINDS)}, not {kind!r}")
    if kind == "any":
        drawn = draw_overlays(image, generator)
    else:
        draws = Draws(image, generator)
        plain = plain_colour(draws).expand_as(image)
        mask, colour = OVERLAYS[kind](draws)
        shape = (len(image), 1, *image.shape[-2:])
        drawn = Overlay(mask.expand(shape), plain if colour is None else colour, [])
    covered = drawn.mask.float().mean((1, 2, 3))
    return Degraded(drawn.on(image), {"covered": covered})


def plain_colour(draws: Draws) -> Tensor:
    """Black mostly, letterbox grey, white, or any grey: (B, 1, 1, 1)."""
    which, grey = draws.unit(1, 1, 1), draws.unit(1, 1, 1)
    common = torch.where(which < 0.7, LETTERBOX * torch.ones_like(grey), torch.ones_like(grey))
    return torch.where(which < 0.4, 0.0, torch.where(which < 0.85, common, grey))


def positions(draws: Draws) -> tuple[Tensor, Tensor]:
    """x and y of each pixel in [0, 1]: (1, 1, 1, W) and (1, 1, H, 1)."""
    x, y = pixel_grid(draws.image)
    return (x + 0.5) / draws.image.shape[-1], (y + 0.5) / draws.image.shape[-2]


def bars(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Bars of equal width above and below, or left and right."""
    x, y = positions(draws)
    width = draws.uniform("width", (0.005, 0.2))
    across = torch.where(draws.unit(1, 1, 1) < 0.65, y, x)
    return (across < width) | (across > 1 - width), None


def padding(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """One band at one side, as a letterbox that places the image in a corner has it."""
    x, y = positions(draws)
    width, side = draws.uniform("width", (0.005, 0.35)), draws.unit(1, 1, 1)
    across = torch.where(side < 0.5, y, x)
    return torch.where(torch.remainder(side, 0.5) < 0.35, across > 1 - width, across < width), None


def frame(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """A thin frame, as of a scan, on one to four sides."""
    x, y = positions(draws)
    width = draws.uniform("width", (0.002, 0.04))
    sides = draws.unit(4, 1, 1) < 0.8
    edges = torch.cat(
        [part.expand(1, 1, y.shape[2], x.shape[3]) for part in (x, 1 - x, y, 1 - y)], 1
    )
    return ((edges < width) & sides).any(1, keepdim=True), None


def stamp(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """A strip with strokes like writing in it: a time stamp, a caption, a logo."""
    x, y = positions(draws)
    height = draws.uniform("height", (0.02, 0.1))
    top = torch.where(
        draws.unit(1, 1, 1) < 0.5, (1 - height) * draws.unit(1, 1, 1) ** 3, 1 - height
    )
    left, length = draws.unit(1, 1, 1), draws.uniform("length", (0.1, 1.2))
    left = torch.where(length > 0.8, 0.0, left * (1 - length).clamp_min(0))
    inside = (y >= top) & (y < top + height) & (x >= left) & (x < left + length)
    dark = draws.unit(1, 1, 1) < 0.75
    strokes = strokes_in(draws, x, (y - top) / height, height)
    bare = draws.unit(1, 1, 1) < 0.35  # writing without a strip behind it
    ink = torch.where(dark, 1.0, 0.0) * torch.ones_like(draws.image)
    return inside & (strokes | ~bare), torch.where(strokes, ink, 1 - ink)


def strokes_in(draws: Draws, x: Tensor, y: Tensor, height: Tensor) -> Tensor:
    """Strokes with gaps between them in a line of writing, (B, 1, H, W) bool."""
    cells = 64
    drawn = draws.unit(3, 3, cells) < 0.5  # three rows of strokes for each sign
    sign = (x / (0.6 * height)).clamp(0, cells / 2 - 1)
    column = (2 * sign).long().clamp(0, cells - 1)
    row = ((y - 0.2) / 0.2).long().clamp(0, 2)
    batch = torch.arange(len(drawn), device=x.device).view(-1, 1, 1, 1)
    gap = torch.remainder(2 * sign, 2) < 0.4
    return drawn[batch, 0, row, column] & ~gap & (y > 0.2) & (y < 0.8)


def privacy_mask(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """One to three boxes of one colour, as over faces and number plates."""
    x, y = positions(draws)
    mask = torch.zeros_like(draws.image[:, :1], dtype=torch.bool)
    count = draws.unit(1, 1, 1) * 3
    for number in range(3):
        high, wide = (draws.log_uniform(n, (0.02, 0.3), 0.01) for n in ("height", "width"))
        top, left = draws.unit(1, 1, 1) * (1 - high), draws.unit(1, 1, 1) * (1 - wide)
        box = (y >= top) & (y < top + high) & (x >= left) & (x < left + wide)
        mask = mask | (box & (count >= number))
    return mask, None


def corners(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """What a rotated photo leaves free at its corners."""
    x, y = pixel_grid(draws.image)
    height, width = draws.image.shape[-2:]
    angle = draws.uniform("angle", (0.02, 0.35)) * torch.where(draws.unit(1, 1, 1) < 0.5, -1, 1)
    dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
    across = (dx * torch.cos(angle) + dy * torch.sin(angle)).abs() / (width / 2)
    down = (dy * torch.cos(angle) - dx * torch.sin(angle)).abs() / (height / 2)
    return (across > 1) | (down > 1), None


def porthole(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """The dark outside of a round picture: an endoscope, a fisheye lens, a peephole."""
    x, y = positions(draws)
    radius = draws.uniform("radius", (0.42, 0.7))
    return ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt() > radius, None


OVERLAYS: dict[str, Callable[[Draws], tuple[Tensor, Tensor | None]]] = {
    "bars": bars,
    "padding": padding,
    "frame": frame,
    "stamp": stamp,
    "privacy_mask": privacy_mask,
    "corners": corners,
    "porthole": porthole,
}
"""By name: of the draws, a mask (B, 1, H, W), and colours (B, 3, H, W) or None for a plain one."""
KINDS = ("any", *OVERLAYS)
