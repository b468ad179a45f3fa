"""Sensor noise."""

from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Draws, Range, parameters


def noise(image: Tensor, generator: Generator, *, sigma: Range = (2.0, 55.0)) -> Degraded:
    """Additive white Gaussian noise: `I = J + sigma / 255 * n`, n ~ N(0, 1) in every pixel and channel.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        sigma: standard deviation in 8-bit levels, 0 to 255.

    Returns:
        The noisy batch, and `sigma` (B,).
    """
    draws = Draws(image, generator)
    drawn = draws.uniform("sigma", sigma, 0, 255)
    return Degraded(image + drawn / 255 * draws.normal(*image.shape), parameters(sigma=drawn))
