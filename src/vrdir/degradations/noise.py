"""Noise: the textbook's, and a camera's."""

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.draws import Degraded, Draws, Generators, Range, parameters
from vrdir.degradations.jpeg import encoded
from vrdir.degradations.srgb import to_linear, to_srgb

# A typical camera's colours to sRGB; the rows sum to 1, so grey stays grey while the noise of the channels mixes.
COLOUR_MATRIX = ((1.7, -0.5, -0.2), (-0.2, 1.5, -0.3), (0.0, -0.5, 1.5))


def noise(image: Tensor, generator: Generators, *, sigma: Range = (2.0, 55.0)) -> Degraded:
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
    return Degraded(image + drawn / 255 * draws.normal(*image.shape[1:]), parameters(sigma=drawn))


def sensor_noise(
    image: Tensor,
    generator: Generators,
    *,
    electrons: Range = (60.0, 3000.0),
    read_e: Range = (1.0, 6.0),
    correlation: Range = (0.6, 1.0),
    jpeg_quality: Range = (70.0, 100.0),
) -> Degraded:
    """Photons counted by a sensor, in linear light: `l = clip(L + (1 - c) n + c M S D n)`, `n ~ N(0, L / e + (r / e)^2)`.

    L is J in linear light and l the result; the noise's variance rises with the light as a Poisson count's does (Foi et al.,
    TIP 2008; the normal approximation, whose pixels are the same on every machine). D keeps each pixel's noise in one
    colour, as a Bayer sensor (RGGB) measures it, and interpolates the others bilinearly; S halves what of it is colour,
    the difference from the channels' mean, and smooths it over 5 x 5 pixels, as cameras do; M is a camera's colour matrix. So grain is
    wider than a pixel and mostly grey, with faint blotches of colour. A JPEG file comes last.

    Args:
        image: J, (B, 3, H, W), sRGB in [0, 1].
        generator: source of all draws.
        electrons: e, that a white pixel collects, 1 to 1e6, uniform in the logarithm; 3000 is a good
            camera at a high ISO, 60 a phone at night.
        read_e: r, standard deviation of the read-out, in electrons, 0 to 1000.
        correlation: c, in [0, 1]; 0 is white noise in every pixel and channel.
        jpeg_quality: of the file, 1 to 100; 100 leaves it out.

    Returns:
        The noisy batch, clipped as a sensor clips, and `electrons`, `read_e`, `correlation`, `jpeg_quality` (B,) each.
    """
    draws = Draws(image, generator)
    drawn_electrons = draws.log_uniform("electrons", electrons, 1, 1e6)
    drawn_read = draws.uniform("read_e", read_e, 0, 1000)
    drawn_correlation = draws.uniform("correlation", correlation, 0, 1)
    quality = draws.uniform("jpeg_quality", jpeg_quality, 1, 100).round()
    noisy = to_srgb(
        counted(to_linear(image), draws, drawn_electrons, drawn_read, drawn_correlation)
    )
    noisy = torch.where(quality < 100, encoded(noisy, quality, subsampling=2), noisy)
    drawn = parameters(
        electrons=drawn_electrons,
        read_e=drawn_read,
        correlation=drawn_correlation,
        jpeg_quality=quality,
    )
    return Degraded(noisy, drawn)


def counted(
    light: Tensor, draws: Draws, electrons: Tensor, read_e: Tensor, correlation: Tensor
) -> Tensor:
    """Light (B, 3, H, W) in [0, 1] as a sensor sees it, clipped: see `sensor_noise`."""
    spread = torch.sqrt(light.clamp(0, 1) / electrons + (read_e / electrons) ** 2)
    white = spread * draws.normal(*light.shape[1:])
    grain = demosaicked(white)
    grey = grain.mean(1, keepdim=True)
    grain = grey + 0.5 * functional.avg_pool2d(
        grain - grey, 5, stride=1, padding=2, count_include_pad=False
    )
    mixed = torch.einsum("kc,bchw->bkhw", light.new_tensor(COLOUR_MATRIX), grain)
    return (light + (1 - correlation) * white + correlation * mixed).clamp(0, 1)


def demosaicked(planes: Tensor) -> Tensor:
    """Planes (B, 3, H, W) of which only the pixels under their own colour of the pattern RG/GB count, the rest interpolated."""
    height, width = planes.shape[-2:]
    sites = torch.zeros(3, height, width, device=planes.device)
    sites[0, ::2, ::2] = sites[1, ::2, 1::2] = sites[1, 1::2, ::2] = sites[2, 1::2, 1::2] = 1
    cross, square = [[0, 1, 0], [1, 4, 1], [0, 1, 0]], [[1, 2, 1], [2, 4, 2], [1, 2, 1]]
    weights = planes.new_tensor([square, cross, square])[:, None] / 4
    # A mirror about the edge pixel keeps the pattern; a single row or column has nothing to mirror.
    mirrored = functional.pad(
        planes * sites, (1, 1, 1, 1), mode="reflect" if min(height, width) > 1 else "replicate"
    )
    return functional.conv2d(mirrored, weights, groups=3)
