"""Fog as in files of cameras: mixed in linear light, exposed, tone-mapped and compressed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.depth import drawn_depth
from vrdir.degradations.draws import Degraded, Draws, Generators, parameters
from vrdir.degradations.jpeg import encoded
from vrdir.degradations.parameters import Range

STEEPEST = 3.0  # what a camera makes of a picture without contrast, at most


def photographed_fog(
    image: Tensor,
    generator: Generators,
    *,
    beta: Range = (0.5, 6.0),
    airlight: Range = (0.3, 0.9),
    gamma: Range = (1.0, 2.4),
    dark: Range = (0.03, 0.38),
    bright: Range = (0.55, 0.9),
    noise: Range = (0.0, 0.01),
    softness: Range = (0.0, 1.0),
    quality: Range = (35.0, 95.0),
) -> Degraded:
    """Draw fog in front of a camera: `l = J^gamma t + A (1 - t)`, then what the camera does to it.

    It stretches `l^(1 / gamma)` between a dark and a bright level, by 3 at most; noise comes before
    the softening by which it is reduced, and a JPEG file after it. So the picture has its full
    range, from the nearest dark thing to the bright fog, but little contrast in any one place, and
    no inversion of the mixing of `haze` undoes it.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        beta: scattering coefficient per unit of depth, 0 to 20.
        airlight: A, in light as bright as white is 1, in [0, 1].
        gamma: 1 (mixed in the values of a file) to 3.
        dark: the darkest value after the camera's stretch, in [0, 1].
        bright: the brightest value after it, in [0, 1].
        noise: standard deviation, in [0, 1].
        softness: share of a 3 x 3 mean in each pixel, in [0, 1].
        quality: of the JPEG file, 1 to 100.

    Returns:
        The batch as decoded, and `beta`, `airlight`, `gamma`, `dark`, `bright` (B,).
    """
    draws = Draws(image, generator)
    drawn_beta = draws.uniform("beta", beta, 0, 20)
    drawn_airlight = draws.uniform("airlight", airlight, 0, 1)
    drawn_gamma = draws.uniform("gamma", gamma, 1, 3)
    depth = drawn_depth(draws, "mixed")
    depth = depth - draws.uniform("nearest", (0.6, 1.0)) * depth.amin((1, 2, 3), keepdim=True)
    transmission = torch.exp(-drawn_beta * depth)
    draws.record_transmission(transmission)
    colour = 1 + 0.06 * (2 * draws.unit(3, 1, 1) - 1)
    light = image.clamp_min(1e-4) ** drawn_gamma * transmission
    value = (light + drawn_airlight * colour * (1 - transmission)) ** (1 / drawn_gamma)
    drawn_dark, drawn_bright = (
        draws.uniform("dark", dark, 0, 1),
        draws.uniform("bright", bright, 0, 1),
    )
    grey = functional.avg_pool2d(value.mean(1, keepdim=True), 4, ceil_mode=True)
    low, high = (
        torch.quantile(grey.flatten(1), share, dim=1).view(-1, 1, 1, 1) for share in (0.005, 0.995)
    )
    stretch = ((drawn_bright - drawn_dark) / (high - low).clamp_min(1e-3)).clamp(max=STEEPEST)
    toned = (drawn_dark + drawn_bright) / 2 + stretch * (value - (low + high) / 2)
    grainy = toned + draws.uniform("noise", noise, 0, 1) * draws.normal(*image.shape[1:])
    soft = functional.avg_pool2d(grainy, 3, 1, padding=1, count_include_pad=False)
    soft = torch.lerp(grainy, soft, draws.uniform("softness", softness, 0, 1)).clamp(0, 1)
    photographed = encoded(soft, draws.uniform("quality", quality, 1, 100).round(), subsampling=2)
    drawn = parameters(
        beta=drawn_beta,
        airlight=drawn_airlight,
        gamma=drawn_gamma,
        dark=drawn_dark,
        bright=drawn_bright,
    )
    return Degraded(photographed, drawn, draws.haze)
