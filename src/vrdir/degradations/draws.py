"""Drawing a degradation's parameters, one per image of a batch, reproducibly."""

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


def uniform(batch: int, limits: Range, generator: Generator, device: torch.device) -> Tensor:
    """(B, 1, 1, 1), uniform between the limits. Raises ValueError for limits in the wrong order."""
    low, high = limits if isinstance(limits, tuple) else (limits, limits)
    if low > high:
        raise ValueError(f"a range goes from low to high, not from {low} to {high}")
    draw = torch.rand(batch, 1, 1, 1, generator=generator, device=generator.device)
    return (low + (high - low) * draw).to(device)


def log_uniform(batch: int, limits: Range, generator: Generator, device: torch.device) -> Tensor:
    """(B, 1, 1, 1), uniform in the logarithm: for what spans an order of magnitude, such as a length."""
    low, high = limits if isinstance(limits, tuple) else (limits, limits)
    if low <= 0:
        raise ValueError(f"a range in the logarithm starts above 0, not at {low}")
    return torch.exp(uniform(batch, (float(torch.tensor(low).log()), float(torch.tensor(high).log())), generator, device))


def smooth_field(image: Tensor, cells: int, generator: Generator) -> Tensor:
    """(B, 1, H, W) in [0, 1]: white noise on a grid of `cells` x `cells`, enlarged bicubically to the image's size."""
    grid = torch.rand(image.shape[0], 1, cells, cells, generator=generator, device=generator.device).to(image.device)
    return functional.interpolate(grid, size=image.shape[-2:], mode="bicubic", align_corners=True).clamp(0, 1)


def parameters(**drawn: Tensor) -> dict[str, Tensor]:
    """The drawn (B, C, 1, 1) tensors as (B,) or (B, C)."""
    return {name: value.flatten(1).squeeze(1) for name, value in drawn.items()}
