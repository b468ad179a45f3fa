"""Low light."""

import torch
from torch import Tensor

from vrdir.degradations.draws import Degraded, Draws, Generators, Range, parameters
from vrdir.degradations.noise import counted
from vrdir.degradations.srgb import to_linear, to_srgb

WARM = (1.0, 0.72, 0.42)  # tungsten seen by a camera set for something cooler


def low_light(
    image: Tensor,
    generator: Generators,
    *,
    exposure_ev: Range = (-4.5, -1.5),
    warmth: Range = (0.0, 0.5),
    unevenness: Range = (0.0, 0.7),
    electrons: Range = (1000.0, 20000.0),
    read_e: Range = (1.0, 5.0),
) -> Degraded:
    """Less light, and what a sensor makes of it: in linear light `l = S(2^EV s c L)`.

    S is the sensor of `sensor_noise` with a correlation of 0.8; s = 1 - u f the lamps' reach, f clouds in [0, 1];
    c = 1 + w (c_warm - 1) the colour of the lamps.

    Args:
        image: (B, 3, H, W), sRGB in [0, 1]; L in linear light.
        generator: source of all draws.
        exposure_ev: EV, in stops, -10 to 0.
        warmth: w, in [0, 1], from daylight to tungsten.
        unevenness: u, in [0, 1].
        electrons: e, that a white pixel would have collected in full light, 1 to 1e6, uniform in the logarithm.
        read_e: r, standard deviation of the read-out, in electrons, 0 to 1000.

    Returns:
        The dark batch, clipped as a sensor clips, and the five parameters (B,) each.
    """
    draws = Draws(image, generator)
    exposure = draws.uniform("exposure_ev", exposure_ev, -10, 0)
    drawn_warmth = draws.uniform("warmth", warmth, 0, 1)
    drawn_unevenness = draws.uniform("unevenness", unevenness, 0, 1)
    drawn_electrons = draws.log_uniform("electrons", electrons, 1, 1e6)
    drawn_read = draws.uniform("read_e", read_e, 0, 1000)
    reach = 1 - drawn_unevenness * draws.smooth_field(3)
    colour = 1 + drawn_warmth * (image.new_tensor(WARM).view(1, 3, 1, 1) - 1)
    light = 2**exposure * reach * colour * to_linear(image)
    dark = to_srgb(
        counted(light, draws, drawn_electrons, drawn_read, torch.full_like(exposure, 0.8))
    )
    drawn = parameters(
        exposure_ev=exposure,
        warmth=drawn_warmth,
        unevenness=drawn_unevenness,
        electrons=drawn_electrons,
        read_e=drawn_read,
    )
    return Degraded(dark, drawn)
