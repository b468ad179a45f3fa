"""Drawing a degradation's parameters, one per image of a batch, reproducibly."""

import math
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

Range = float | tuple[float, float]
"""A parameter: one value for all images, or (low, high) to draw from for each."""


class Degraded(NamedTuple):
    """What a degradation returns: the degraded batch (B, 3, H, W), not clipped, and what was drawn, (B,) or (B, 3) each."""

    image: Tensor
    parameters: dict[str, Tensor]


class Draws:
    """Draws for one batch.

    Args:
        image: the batch, (B, C, H, W): its B and its device.
        generator: source of all draws, on any device: the same seed gives the same numbers.
    """

    def __init__(self, image: Tensor, generator: Generator) -> None:
        self.image, self.generator = image, generator

    def uniform(self, name: str, limits: Range, lowest: float = -math.inf, highest: float = math.inf) -> Tensor:
        """(B, 1, 1, 1), uniform between the limits.

        Raises:
            ValueError: naming the parameter, if it is no number or range, in the wrong order, or outside lowest..highest.
        """
        low, high = checked(name, limits, lowest, highest)
        return low + (high - low) * self.unit(self.image.shape[0], 1, 1, 1)

    def log_uniform(self, name: str, limits: Range, lowest: float, highest: float = math.inf) -> Tensor:
        """The same, uniform in the logarithm: for what spans an order of magnitude, such as a length. `lowest` is above 0."""
        low, high = checked(name, limits, lowest, highest)
        return torch.exp(math.log(low) + (math.log(high) - math.log(low)) * self.unit(self.image.shape[0], 1, 1, 1))

    def unit(self, *shape: int) -> Tensor:
        """Uniform in [0, 1)."""
        return torch.rand(shape, generator=self.generator, device=self.generator.device).to(self.image.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal."""
        return torch.randn(shape, generator=self.generator, device=self.generator.device).to(self.image.device)

    def smooth_field(self, cells: int) -> Tensor:
        """(B, 1, H, W) in [0, 1]: white noise on a grid of `cells` x `cells`, enlarged bicubically to the image's size."""
        grid = self.unit(self.image.shape[0], 1, cells, cells)
        return functional.interpolate(grid, size=self.image.shape[-2:], mode="bicubic", align_corners=True).clamp(0, 1)


def checked(name: str, limits: Range, lowest: float, highest: float) -> tuple[float, float]:
    """The two ends of a parameter. Raises ValueError, naming it."""
    pair = limits if isinstance(limits, (tuple, list)) else (limits, limits)
    if len(pair) != 2 or not all(isinstance(end, (int, float)) and math.isfinite(end) for end in pair):
        raise ValueError(f"{name} is a number or (low, high), not {limits!r}")
    low, high = pair
    if low > high:
        raise ValueError(f"{name} goes from low to high, not from {low} to {high}")
    if low < lowest or high > highest:
        raise ValueError(f"{name} lies between {lowest:g} and {highest:g}; {limits!r} does not")
    return float(low), float(high)


def parameters(**drawn: Tensor) -> dict[str, Tensor]:
    """The drawn (B, C, 1, 1) tensors as (B,) or (B, C)."""
    return {name: value.flatten(1).squeeze(1) for name, value in drawn.items()}
