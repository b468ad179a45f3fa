"""Haze by atmospheric scattering."""

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Range, parameters, smooth_field, uniform


def haze(
    image: Tensor,
    generator: Generator,
    *,
    beta: Range = (0.4, 2.6),
    airlight: Range = (0.7, 1.0),
    colour_cast: float = 0.03,
    depth: Tensor | None = None,
) -> Degraded:
    """Atmospheric scattering (Koschmieder): `I = J t + A (1 - t)`, transmission `t = exp(-beta d)`.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        beta: scattering coefficient per unit of depth, from 0; 1 is a light haze, 2.5 a thick fog.
        airlight: A, the brightness of the haze, in [0, 1].
        colour_cast: each channel of A departs from its brightness by up to this much.
        depth: d, (B, 1, H, W), in units of the scene's depth (about 0 to 1); drawn by `depth_field` when None.

    Returns:
        The hazy batch, and `beta` (B,) and `airlight` (B, 3).
    """
    batch, device = image.shape[0], image.device
    drawn_beta = uniform(batch, beta, generator, device)
    brightness = uniform(batch, airlight, generator, device)
    cast = torch.rand(batch, 3, 1, 1, generator=generator, device=generator.device).to(device) * 2 - 1
    drawn_airlight = (brightness + colour_cast * cast).clamp(0, 1)
    if depth is None:
        depth = depth_field(image, generator)
    transmission = torch.exp(-drawn_beta * depth)
    hazy = image * transmission + drawn_airlight * (1 - transmission)
    return Degraded(hazy, parameters(beta=drawn_beta, airlight=drawn_airlight))


def depth_field(image: Tensor, generator: Generator) -> Tensor:
    """A plausible depth (B, 1, H, W) for photos that come without: a receding ground plane with relief.

    The plane rises mostly upwards, as outdoors, in any direction now and then; two octaves of smooth relief stand on it;
    the nearest point lies at 0 to 0.6 and the farthest up to 0.9 beyond, so that a crop may be all near or all far.
    """
    batch, device = image.shape[0], image.device
    height, width = image.shape[-2:]
    tilt = 0.6 * torch.randn(batch, 1, 1, 1, generator=generator, device=generator.device).to(device)  # radians from upwards
    y = torch.linspace(1, 0, height, device=device).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width, device=device).view(1, 1, 1, -1)
    plane = y * torch.cos(tilt) + x * torch.sin(tilt)
    relief = smooth_field(image, 4, generator) + 0.5 * smooth_field(image, 8, generator)
    field = plane + uniform(batch, (0.1, 1.0), generator, device) * relief
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    field = (field - low) / (high - low).clamp_min(1e-6)
    near = uniform(batch, (0.0, 0.6), generator, device)
    return near + uniform(batch, (0.1, 0.9), generator, device) * field
