"""Sensor noise."""

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Range, parameters, uniform


def noise(image: Tensor, generator: Generator, *, sigma: Range = (2.0, 55.0)) -> Degraded:
    """Additive white Gaussian noise: `I = J + sigma / 255 * n`, n ~ N(0, 1) in every pixel and channel.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        sigma: standard deviation in 8-bit levels, from 0.

    Returns:
        The noisy batch, and `sigma` (B,).
    """
    drawn = uniform(image.shape[0], sigma, generator, image.device)
    grain = torch.randn(image.shape, generator=generator, device=generator.device).to(image.device)
    return Degraded(image + drawn / 255 * grain, parameters(sigma=drawn))
