"""Haze by atmospheric scattering, by day and by night."""

import torch
from torch import Tensor

from vrdir.degradations.depth import drawn_depth
from vrdir.degradations.draws import (
    Degraded,
    Draws,
    Generators,
    Range,
    parameters,
    pixel_grid,
    single,
)
from vrdir.degradations.srgb import to_linear, to_srgb


def haze(
    image: Tensor,
    generator: Generators,
    *,
    beta: Range = (0.4, 2.6),
    airlight: Range = (0.7, 1.0),
    colour_cast: float = 0.03,
    warmth: Range = (0.0, 0.0),
    unevenness: Range = (0.0, 0.0),
    light: Range = (1.0, 1.0),
    depth: Tensor | str = "smooth",
) -> Degraded:
    """Atmospheric scattering (Koschmieder): `I = L (J t + A (1 - t))`, transmission `t = exp(-beta rho d)`.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        beta: scattering coefficient per unit of depth, 0 to 20; 1 is a light haze, 2.5 a thick fog.
        airlight: A, the brightness of the haze, in [0, 1].
        colour_cast: each channel of A departs from its brightness by up to this much, 0 to 1.
        warmth: w, -1 (the blue of thin haze) to 1 (the yellow of dust and smog): adds w (0.04, 0, -0.15) to A.
        unevenness: u, in [0, 1], of the haze's density `rho = 1 + u (2 f - 1)`, f clouds in [0, 1].
        light: L, the light of the whole scene, in (0, 1]: fog at dusk or in a tunnel is below 1.
        depth: d, (B, 1, H, W), in units of the scene's depth (about 0 to 1); or how it is drawn:
            "smooth", "regions" or "mixed" (`vrdir.degradations.depth`).

    Returns:
        The hazy batch, and `beta` (B,), `airlight` (B, 3), `warmth`, `unevenness` and `light` (B,).
    """
    draws = Draws(image, generator)
    drawn_beta = draws.uniform("beta", beta, 0, 20)
    brightness = draws.uniform("airlight", airlight, 0, 1)
    cast = draws.unit(3, 1, 1) * 2 - 1
    drawn_airlight = (brightness + single("colour_cast", colour_cast, 0, 1) * cast).clamp(0, 1)
    if not isinstance(depth, Tensor):
        depth = drawn_depth(draws, depth)
    drawn_warmth = draws.uniform("warmth", warmth, -1, 1)
    drawn_airlight = (
        drawn_airlight + drawn_warmth * image.new_tensor([0.04, 0.0, -0.15]).view(1, 3, 1, 1)
    ).clamp(0, 1)
    drawn_unevenness = draws.uniform("unevenness", unevenness, 0, 1)
    density = 1 + drawn_unevenness * (2 * draws.clouds() - 1)
    transmission = torch.exp(-drawn_beta * density * depth)
    drawn_light = draws.uniform("light", light, 0.01, 1)
    hazy = drawn_light * (image * transmission + drawn_airlight * (1 - transmission))
    drawn = parameters(
        beta=drawn_beta,
        airlight=drawn_airlight,
        warmth=drawn_warmth,
        unevenness=drawn_unevenness,
        light=drawn_light,
    )
    return Degraded(hazy, drawn)


LAMPS = 8  # places for lamps along a street; how many of them are lit is drawn
SODIUM, LED = (1.0, 0.52, 0.13), (0.85, 0.95, 1.0)


def night_haze(
    image: Tensor,
    generator: Generators,
    *,
    exposure_ev: Range = (-4.0, -2.0),
    beta: Range = (0.4, 2.0),
    airlight: Range = (0.15, 0.4),
    lamps: Range = (1.0, 6.0),
    glow: Range = (1.0, 6.0),
    depth: Tensor | str = "smooth",
) -> Degraded:
    """Haze lit by lamps, in linear light: `I = J (2^EV s + P) t + A (1 - t) + G`, `t = exp(-beta d)`.

    s is the colour of the night sky, P the pools of light around the lamps and A the dim light of the sky and the town in
    the haze. G is the lamps' glow, the shape of multiple scattering around a source (Narasimhan and Nayar, CVPR 2003),
    `exp(-(r / R)^p)` with p 0.45 to 0.65 as generalised by Metari and Deschenes (ICCV 2007).
    The lamps stand along a street: pairs that shrink towards a vanishing point.

    Args:
        image: J by day, (B, 3, H, W), sRGB in [0, 1].
        generator: source of all draws.
        exposure_ev: EV, the dark without lamps against the day, in stops, -10 to 0.
        beta: scattering coefficient per unit of depth, 0 to 20.
        airlight: A, as it is displayed (sRGB), in [0, 1].
        lamps: how many, 0 to 8, rounded.
        glow: brightness of the nearest lamp's glow at its middle, as a multiple of white, 0 to 20.
        depth: d, (B, 1, H, W), as of `haze`.

    Returns:
        The hazy batch, not clipped where lamps are brighter than white, and `exposure_ev`, `beta`, `lamps`, `glow` (B,) and
        `airlight` (B, 3).
    """
    draws = Draws(image, generator)
    exposure = draws.uniform("exposure_ev", exposure_ev, -10, 0)
    drawn_beta = draws.uniform("beta", beta, 0, 20)
    brightness = draws.uniform("airlight", airlight, 0, 1)
    drawn_lamps = draws.uniform("lamps", lamps, 0, LAMPS).round()
    drawn_glow = draws.uniform("glow", glow, 0, 20)
    if not isinstance(depth, Tensor):
        depth = drawn_depth(draws, depth)

    sodium, led = (image.new_tensor(colour).view(1, 3, 1, 1) for colour in (SODIUM, LED))
    lamp_colour = torch.lerp(sodium, led, draws.unit(1, 1, 1) ** 2)
    sky = torch.lerp(
        image.new_tensor([0.75, 0.85, 1.1]).view(1, 3, 1, 1), lamp_colour, 0.3 * draws.unit(1, 1, 1)
    )
    drawn_airlight = brightness * torch.lerp(
        torch.ones_like(lamp_colour), lamp_colour, 0.25 + 0.35 * draws.unit(1, 1, 1)
    )
    pools, glows = street_lamps(draws, drawn_lamps, drawn_beta)
    transmission = torch.exp(-drawn_beta * depth)
    lit = to_linear(image) * (2**exposure * sky + 0.08 * drawn_glow * pools * lamp_colour)
    hazy = (
        lit * transmission
        + to_linear(drawn_airlight) * (1 - transmission)
        + drawn_glow * glows * lamp_colour
    )
    drawn = parameters(
        exposure_ev=exposure,
        beta=drawn_beta,
        airlight=drawn_airlight,
        lamps=drawn_lamps,
        glow=drawn_glow,
    )
    return Degraded(to_srgb(hazy), drawn)


def street_lamps(draws: Draws, lamps: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Pools of light and glows, (B, 1, H, W) each, 1 at the nearest lamp, of the first `lamps` lamps along a street."""
    x, y = pixel_grid(draws.image)
    height, width = draws.image.shape[-2:]
    vanishing_x = draws.uniform("vanishing_x", (0.25, 0.75))
    vanishing_y = draws.uniform("vanishing_y", (0.35, 0.55))
    near_x, near_y = draws.uniform("near_x", (0.15, 0.5)), draws.uniform("near_y", (0.15, 0.4))
    spacing, radius = (
        draws.uniform("spacing", (0.35, 0.8)),
        draws.log_uniform("radius", (0.01, 0.025), 1e-3),
    )
    power = draws.uniform("power", (0.45, 0.65))
    side = torch.where(draws.unit(1, 1, 1) < 0.5, -1.0, 1.0)
    jitter = draws.unit(LAMPS, 1, 1) - 0.5
    pools, glows = torch.zeros_like(draws.image[:, :1]), torch.zeros_like(draws.image[:, :1])
    for number in range(LAMPS):
        far = (
            1 + spacing * (number // 2) + 0.15 * jitter[:, number : number + 1]
        )  # how many times farther than the nearest pair
        lamp_x = width * (vanishing_x + side * (-1) ** number * near_x / far)
        lamp_y = height * (vanishing_y - near_y / far)
        distance = torch.sqrt((x - lamp_x) ** 2 + (y - lamp_y) ** 2 + 0.25) / height
        drop = (y - lamp_y) / height
        off_pole = torch.maximum(-drop, drop - 0.3 / far).clamp_min(
            0
        )  # a lamp lights what is between it and the ground
        aside = torch.sqrt(((x - lamp_x) / height) ** 2 + off_pole**2)
        lit = (lamps > number) * torch.exp(-0.15 * beta * (far - 1))
        glows = glows + lit * torch.exp(-((distance * far / radius) ** power))
        pools = pools + lit * torch.exp(-((aside * far / 0.35) ** 2))
    return pools, glows
