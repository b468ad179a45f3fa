"""Objects scattered over an image: flakes, drops."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.degradations.draws import Draws, pixel_grid

TABLE = 64  # points are drawn for 64 x 64 cells and repeat beyond them


class Point(NamedTuple):
    """One point near each pixel.

    Attributes:
        x, y: the pixel's offset from the point, in pixels.
        traits: the point's own draws, uniform in [0, 1).
    """

    x: Tensor
    y: Tensor
    traits: tuple[Tensor, ...]


def per_cell(coverage: Tensor, area: Tensor, cell_px: Tensor) -> Tensor:
    """Return how many objects of a mean area a cell has, if they cover a share of the image.

    They are thrown at random (a Poisson process).
    """
    return -torch.log1p(-coverage) / area * cell_px**2


def most(area: Tensor, cell_px: Tensor) -> Tensor:
    """Return the largest share that can be covered, with one object in every cell."""
    return -torch.expm1(-area / cell_px**2)


def scattered(draws: Draws, cell_px: Tensor, traits: int) -> Iterator[Point]:
    """Yield one point in each square cell of a grid, anywhere in it, as seen from every pixel.

    All points within half a cell of a pixel are among the four that are yielded, so the cost is
    that of four images, whatever the number of points.

    Args:
        draws: of the batch.
        cell_px: side of a cell, (B, 1, 1, 1).
        traits: how many numbers are drawn for each point.
    """
    table = draws.unit(2 + traits, TABLE, TABLE)
    origin = draws.unit(2, 1, 1)
    x, y = (
        axis / cell_px + shift
        for axis, shift in zip(pixel_grid(draws.image), origin.split(1, 1), strict=True)
    )
    for down in (-1, 0):
        row = torch.floor(y + 0.5) + down  # (B, 1, H, 1)
        rows = table.gather(2, (row.long() % TABLE).expand(-1, 2 + traits, -1, TABLE))
        for right in (-1, 0):
            column = torch.floor(x + 0.5) + right  # (B, 1, 1, W)
            drawn = rows.gather(
                3, (column.long() % TABLE).expand(-1, 2 + traits, rows.shape[2], -1)
            )  # (B, 2 + traits, H, W)
            point_x, point_y, *own = drawn.split(1, 1)
            yield Point((x - column - point_x) * cell_px, (y - row - point_y) * cell_px, tuple(own))
