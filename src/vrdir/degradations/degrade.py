"""One degradation, by name, on any image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Range
from vrdir.degradations.mixture import DEGRADATIONS
from vrdir.images import open_image


def apply_degradation(image: Tensor, name: str, generator: Generator, **ranges: Range) -> Degraded:
    """Apply one degradation to a batch.

    Args:
        image: (B, 3, H, W) in [0, 1].
        name: "haze", "rain" or "noise".
        generator: source of all draws: the same seed gives the same pixels.
        ranges: replace the degradation's defaults, one value or (low, high) each.

    Returns:
        The degraded batch, clipped to [0, 1], and the drawn parameters.

    Raises:
        ValueError: an unknown degradation or parameter.
    """
    if name not in DEGRADATIONS:
        raise ValueError(f"unknown degradation {name!r}; there are {', '.join(DEGRADATIONS)}")
    allowed = parameters_of(name)
    if not ranges.keys() <= allowed.keys():
        raise ValueError(f"{name} has no parameter {', '.join(sorted(ranges.keys() - allowed.keys()))}; it has {', '.join(allowed)}")
    degraded = DEGRADATIONS[name](image, generator, **ranges)
    return Degraded(degraded.image.clamp(0, 1), degraded.parameters)


def parameters_of(name: str) -> dict[str, Any]:
    """The parameters of a degradation and their defaults."""
    return dict(DEGRADATIONS[name].__kwdefaults__ or {})


def degrade(image: Any, name: str, seed: int = 0, **ranges: Range) -> Any:
    """Degrade an image of any kind that `vrdir.Restorer` takes; the same kind is given back.

    >>> hazy = vrdir.degrade(photo, "haze", seed=1, beta=1.2)

    Args:
        image: path, bytes, PIL image, NumPy array or torch tensor.
        name: "haze", "rain" or "noise".
        seed: the same seed gives the same pixels.
        ranges: the degradation's parameters, one value or (low, high) each; its defaults otherwise.

    Raises:
        ValueError: an unknown degradation or parameter, or no image.
    """
    opened = open_image(image)
    generator = torch.Generator().manual_seed(seed)
    degraded = apply_degradation(opened.tensor, name, generator, **ranges).image
    if opened.grey:  # a grey sensor has one grain, not the mean of three
        degraded = degraded[:, :1].expand(-1, 3, -1, -1)
    return opened.close(degraded)
