"""Haze by atmospheric scattering."""

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Draws, Range, checked, parameters


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
        beta: scattering coefficient per unit of depth, 0 to 20; 1 is a light haze, 2.5 a thick fog.
        airlight: A, the brightness of the haze, in [0, 1].
        colour_cast: each channel of A departs from its brightness by up to this much, 0 to 1.
        depth: d, (B, 1, H, W), in units of the scene's depth (about 0 to 1); drawn by `depth_field` when None.

    Returns:
        The hazy batch, and `beta` (B,) and `airlight` (B, 3).
    """
    draws = Draws(image, generator)
    drawn_beta = draws.uniform("beta", beta, 0, 20)
    brightness = draws.uniform("airlight", airlight, 0, 1)
    cast = draws.unit(image.shape[0], 3, 1, 1) * 2 - 1
    drawn_airlight = (brightness + checked("colour_cast", colour_cast, 0, 1)[0] * cast).clamp(0, 1)
    if depth is None:
        depth = depth_field(draws)
    transmission = torch.exp(-drawn_beta * depth)
    hazy = image * transmission + drawn_airlight * (1 - transmission)
    return Degraded(hazy, parameters(beta=drawn_beta, airlight=drawn_airlight))


def depth_field(draws: Draws) -> Tensor:
    """A plausible depth (B, 1, H, W) for photos that come without: a receding ground plane with relief.

    The plane rises mostly upwards, as outdoors, in any direction now and then; two octaves of smooth relief stand on it;
    the nearest point lies at 0 to 0.6 and the farthest up to 0.9 beyond, so that a crop may be all near or all far.
    """
    batch, device = draws.image.shape[0], draws.image.device
    height, width = draws.image.shape[-2:]
    tilt = 0.6 * draws.normal(batch, 1, 1, 1)  # radians from upwards
    y = torch.linspace(1, 0, height, device=device).view(1, 1, -1, 1)
    x = torch.linspace(0, 1, width, device=device).view(1, 1, 1, -1)
    plane = y * torch.cos(tilt) + x * torch.sin(tilt)
    relief = draws.smooth_field(4) + 0.5 * draws.smooth_field(8)
    field = plane + draws.uniform("relief", (0.1, 1.0)) * relief
    low, high = field.amin((2, 3), keepdim=True), field.amax((2, 3), keepdim=True)
    field = (field - low) / (high - low).clamp_min(1e-6)
    near = draws.uniform("near", (0.0, 0.6))
    return near + draws.uniform("extent", (0.1, 0.9)) * field
