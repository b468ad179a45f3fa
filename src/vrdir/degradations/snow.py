"""Snow: flakes of every distance, those near the lens large, soft and faint, and the white air behind them."""

import math

import torch
from torch import Tensor

from vrdir.degradations.depth import smooth_depth
from vrdir.degradations.draws import Degraded, Draws, Generators, Range, parameters, whole
from vrdir.degradations.scatter import most, per_cell, scattered


def snow(
    image: Tensor,
    generator: Generators,
    *,
    coverage: Range = (0.03, 0.3),
    size_px: Range = (1.5, 6.0),
    trail_px: Range = (0.0, 10.0),
    angle_deg: Range = (-50.0, 50.0),
    blur_px: Range = (0.6, 4.0),
    opacity: Range = (0.7, 1.0),
    mist: Range = (0.0, 1.0),
    layers: int = 5,
) -> Degraded:
    """Flakes over the misty scene: `R = J t + b (1 - t)`, `I = R (1 - a) + b a`, `1 - a = product(1 - a_l)`.

    b is the flakes' brightness (0.8 to 0.97), `t = exp(-mist d)` the air full of flakes too far away to be seen singly,
    over a plausible depth d (`depth.smooth_depth`). Each of the layers l has flakes 0.6 times as large, as fast and as far
    out of focus as the one before it. A flake is a grain of an uneven radius q, blurred, drawn out along its fall by a
    trail of length T: at x across and z along it, `a_l = o h s^2 (3 - 2 s)`, `s = clip(1 - (x / q)^2 - (z / (q + T / 2))^4)`;
    h differs from flake to flake and thins it out as the blur and the trail spread it over a larger area.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        coverage: share of the picture under flakes and their blur, about, in (0, 1).
        size_px: radius of the nearest layer's largest flakes, in pixels, 0.3 to 200.
        trail_px: how far they fall during the exposure, in pixels, 0 to 1000.
        angle_deg: the wind, degrees from vertical, -90 to 90; each flake departs from it by up to 12 degrees.
        blur_px: how far the nearest layer is out of focus, in pixels, 0.3 to 100.
        opacity: o, in [0, 1].
        mist: scattering coefficient per unit of depth, 0 to 20, as the beta of haze.
        layers: how many layers, 1 to 10.

    Returns:
        The snowy batch, and the seven drawn parameters (B,) each, `coverage` as far as flakes find room.
    """
    draws = Draws(image, generator)
    drawn_coverage = draws.log_uniform("coverage", coverage, 1e-4, 0.95)
    size = draws.log_uniform("size_px", size_px, 0.3, 200)
    trail = draws.uniform("trail_px", trail_px, 0, 1000)
    angle = draws.uniform("angle_deg", angle_deg, -90, 90)
    blur = draws.uniform("blur_px", blur_px, 0.3, 100)
    drawn_opacity = draws.uniform("opacity", opacity, 0, 1)
    drawn_mist = draws.uniform("mist", mist, 0, 20)
    brightness = draws.uniform("brightness", (0.8, 0.97))

    clear = torch.ones_like(image[:, :1])
    bare = torch.ones_like(drawn_coverage)
    count = whole("layers", layers, 1, 10)
    for layer in range(count):
        nearness = 0.6**layer
        share = 1 - (1 - drawn_coverage) ** (1 / count)
        bare = bare * (
            1
            - torch.minimum(
                share, most(*flake_grid(size * nearness, trail * nearness, blur * nearness))
            )
        )
        flakes = flake_layer(
            draws, share, size * nearness, trail * nearness, angle, blur * nearness
        )
        clear = clear * (1 - drawn_opacity * flakes)
    transmission = torch.exp(-drawn_mist * smooth_depth(draws))
    misty = image * transmission + brightness * (1 - transmission)
    snowy = misty * clear + brightness * (1 - clear)
    drawn = parameters(
        coverage=torch.minimum(drawn_coverage, 1 - bare),
        size_px=size,
        trail_px=trail,
        angle_deg=angle,
        blur_px=blur,
        opacity=drawn_opacity,
        mist=drawn_mist,
    )
    return Degraded(snowy, drawn)


def flake_grid(size: Tensor, trail: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """The area of a layer's middling flake, and the side of the cells that each has to itself."""
    soft = softness(blur)
    return math.pi * (0.6 * size + 0.6 * soft) ** 2 + 0.9 * size * trail, 2 * (
        1.2 * (size + soft) + trail / 2
    )


def softness(blur: Tensor) -> Tensor:
    """By how much a blur widens a flake, none of which is sharper than a pixel."""
    return torch.sqrt(blur**2 + 0.36) / 2


def flake_layer(
    draws: Draws, coverage: Tensor, size: Tensor, trail: Tensor, angle: Tensor, blur: Tensor
) -> Tensor:
    """One layer of flakes, (B, 1, H, W) in [0, 1]."""
    soft = softness(blur)
    area, cell = flake_grid(size, trail, blur)
    flakes_per_cell = per_cell(coverage, area, cell)
    strongest = torch.zeros_like(draws.image[:, :1])
    for x, y, (exists, scale, lean, one, two) in scattered(draws, cell, 5):
        radians = torch.deg2rad(angle + 24 * (lean - 0.5))
        cosine, sine = torch.cos(radians), torch.sin(radians)
        along, across = (y * cosine + x * sine) ** 2, (x * cosine - y * sine) ** 2
        length = trail * (0.6 + 0.4 * scale)
        grain = size * (0.4 + 0.6 * scale**2)
        # No grain is a disc: random amounts of the bearing's second harmonic, which a trail smears away.
        harmonic = ((one - 0.5) * 2 * x * y + (two - 0.5) * (x**2 - y**2)) / (
            x**2 + y**2
        ).clamp_min(1e-6)
        radius = grain * (1 + 0.5 * harmonic * grain / (grain + length)) + soft
        inside = (1 - across / radius**2 - (along / (radius + length / 2) ** 2) ** 2).clamp(0, 1)
        thinned = (grain**2 / (radius**2 + 0.6 * radius * length)) ** 0.4 * (0.45 + 0.55 * two)
        flake = inside**2 * (3 - 2 * inside) * thinned.clamp_max(1)
        strongest = torch.maximum(strongest, (exists < flakes_per_cell) * flake)
    return strongest
