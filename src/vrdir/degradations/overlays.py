"""Overlays: bars, frames, stamps and masks that cameras and programs draw on an image.

An overlay is not a degradation. It is on the degraded and on the clean image alike, and a restorer
must leave it unchanged and must not be misled by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.degradations.declaration import degradation
from vrdir.degradations.draws import Draws, Generators, pixel_grid
from vrdir.degradations.parameters import Choice

LETTERBOX = 114 / 255  # the grey of YOLO's letterbox


class Overlay(NamedTuple):
    """The overlays of a batch.

    Attributes:
        mask: (B, 1, H, W) bool, where something is drawn.
        colour: (B, 3, H, W) in [0, 1], what is drawn there.
        kinds: of each image, by name; "" where nothing is drawn.
    """

    mask: Tensor
    colour: Tensor
    kinds: list[str]

    def on(self, image: Tensor) -> Tensor:
        """Draw the overlays on a batch (B, 3, H, W)."""
        return torch.where(self.mask, self.colour.to(image.dtype), image)


def draw_overlays(image: Tensor, generator: Generators, share: float = 1.0) -> Overlay:
    """Draw an overlay for each image of a batch.

    Args:
        image: (B, 3, H, W): its size and device.
        generator: source of all draws; one, or one for each image.
        share: probability that something is drawn on an image at all.
    """
    draws = Draws(image, generator)
    which = (draws.unit(1) * len(DRAWINGS)).long().flatten().tolist()
    none = (draws.unit(1) >= share).flatten()
    names = list(DRAWINGS)
    mask = torch.zeros_like(image[:, :1], dtype=torch.bool)
    colour = plain_colour(draws).expand_as(image)
    for number, name in enumerate(names):
        here = torch.tensor([w == number for w in which], device=image.device).view(-1, 1, 1, 1)
        own_mask, own_colour = DRAWINGS[name](draws)
        mask = torch.where(here, own_mask, mask)
        colour = colour if own_colour is None else torch.where(here, own_colour, colour)
    kinds = ["" if off else names[w] for w, off in zip(which, none.tolist(), strict=True)]
    return Overlay(mask & ~none.view(-1, 1, 1, 1), colour, kinds)


def plain_colour(draws: Draws) -> Tensor:
    """Draw mostly black, letterbox grey, white, or any grey, (B, 1, 1, 1)."""
    which, grey = draws.unit(1, 1, 1), draws.unit(1, 1, 1)
    common = torch.where(which < 0.7, LETTERBOX * torch.ones_like(grey), torch.ones_like(grey))
    return torch.where(which < 0.4, 0.0, torch.where(which < 0.85, common, grey))


def positions(draws: Draws) -> tuple[Tensor, Tensor]:
    """Return x (1, 1, 1, W) and y (1, 1, H, 1) of each pixel, in [0, 1]."""
    x, y = pixel_grid(draws.image)
    return (x + 0.5) / draws.image.shape[-1], (y + 0.5) / draws.image.shape[-2]


def bars(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw bars of equal width above and below, or left and right."""
    x, y = positions(draws)
    width = draws.uniform("width", (0.005, 0.2))
    across = torch.where(draws.unit(1, 1, 1) < 0.65, y, x)
    return (across < width) | (across > 1 - width), None


def padding(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw one band at one side, as in a letterbox with the image in a corner."""
    x, y = positions(draws)
    width, side = draws.uniform("width", (0.005, 0.35)), draws.unit(1, 1, 1)
    across = torch.where(side < 0.5, y, x)
    return torch.where(torch.remainder(side, 0.5) < 0.35, across > 1 - width, across < width), None


def frame(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw a thin frame, as of a scan, on one to four sides."""
    x, y = positions(draws)
    width = draws.uniform("width", (0.002, 0.04))
    sides = draws.unit(4, 1, 1) < 0.8
    edges = torch.cat(
        [part.expand(1, 1, y.shape[2], x.shape[3]) for part in (x, 1 - x, y, 1 - y)], 1
    )
    return ((edges < width) & sides).any(1, keepdim=True), None


def stamp(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw a strip with strokes like writing: a time stamp, a caption, a logo."""
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
    """Draw the strokes of a line of writing, (B, 1, H, W) bool."""
    cells = 64
    drawn = draws.unit(3, 3, cells) < 0.5  # three rows of strokes for each sign
    sign = (x / (0.6 * height)).clamp(0, cells / 2 - 1)
    column = (2 * sign).long().clamp(0, cells - 1)
    row = ((y - 0.2) / 0.2).long().clamp(0, 2)
    batch = torch.arange(len(drawn), device=x.device).view(-1, 1, 1, 1)
    gap = torch.remainder(2 * sign, 2) < 0.4
    return drawn[batch, 0, row, column] & ~gap & (y > 0.2) & (y < 0.8)


def privacy_mask(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw one to three boxes of one colour, as over faces and number plates."""
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
    """Draw the empty corners of a rotated photo."""
    x, y = pixel_grid(draws.image)
    height, width = draws.image.shape[-2:]
    angle = draws.uniform("angle", (0.02, 0.35)) * torch.where(draws.unit(1, 1, 1) < 0.5, -1, 1)
    dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
    across = (dx * torch.cos(angle) + dy * torch.sin(angle)).abs() / (width / 2)
    down = (dy * torch.cos(angle) - dx * torch.sin(angle)).abs() / (height / 2)
    return (across > 1) | (down > 1), None


def porthole(draws: Draws) -> tuple[Tensor, Tensor | None]:
    """Draw the dark outside of a round image: an endoscope, a fisheye lens, a peephole."""
    x, y = positions(draws)
    radius = draws.uniform("radius", (0.42, 0.7))
    return ((x - 0.5) ** 2 + (y - 0.5) ** 2).sqrt() > radius, None


DRAWINGS: dict[str, Callable[[Draws], tuple[Tensor, Tensor | None]]] = {
    "bars": bars,
    "padding": padding,
    "frame": frame,
    "stamp": stamp,
    "privacy_mask": privacy_mask,
    "corners": corners,
    "porthole": porthole,
}
"""By name: a function of draws that returns a mask (B, 1, H, W), and colours (B, 3, H, W) or None.

None is one plain colour for each image.
"""


@degradation(
    "overlay",
    None,
    kind=Choice("any", ("any", *DRAWINGS), about='what is drawn; "any" chooses for each image'),
)
def overlay(image: Tensor, draws: Draws) -> Tensor:
    """Draw on each image what a camera or a program might draw.

    The share of the pixels that it covers is recorded as `covered`.
    """
    kind = draws.value("kind")
    if kind == "any":
        drawn = draw_overlays(image, draws.generator)
    else:
        plain = plain_colour(draws).expand_as(image)
        mask, colour = DRAWINGS[kind](draws)
        shape = (len(image), 1, *image.shape[-2:])
        drawn = Overlay(mask.expand(shape), plain if colour is None else colour, [])
    draws.record("covered", drawn.mask.float().mean((1, 2, 3)).view(-1, 1, 1, 1))
    return drawn.on(image)
