"""Snow: flakes at every distance, those near the lens large, soft and faint; white air behind."""

import math

import torch
from torch import Tensor

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.depth import smooth_depth
from vrdir.degradations.draws import Draws
from vrdir.degradations.parameters import Parameter, Single
from vrdir.degradations.scatter import most, per_cell, scattered


@degradation(
    "snow",
    Place.FALLING,
    formula="`R = J t + b (1 - t)`, `I = R (1 - a) + b a`, `1 - a = product(1 - a_l)`",
    source="our own",
    synonyms=("snowy", "snowfall", "sleet"),
    coverage=Parameter(
        0.03,
        0.3,
        bounds=(1e-4, 0.95),
        about="share of the image under flakes and their blur, about",
        severities=(0.03, 0.08, 0.17, 0.3, 0.48),
        milder=(0.02, 0.15),
        log=True,
    ),
    size_px=Parameter(
        1.5,
        6,
        bounds=(0.3, 200),
        about="radius of the nearest layer's largest flakes",
        unit="pixels",
        severities=((1.5, 3), (2, 4), (2, 5), (2.5, 6), (3, 7)),
        log=True,
    ),
    trail_px=Parameter(
        0,
        10,
        bounds=(0, 1000),
        about="T, how far they fall during the exposure",
        unit="pixels",
        severities=((0, 3), (0, 5), (1, 7), (2, 9), (3, 11)),
    ),
    angle_deg=Parameter(
        -50,
        50,
        bounds=(-90, 90),
        about="the wind, from vertical; each flake departs from it by up to 12 degrees",
        unit="degrees",
    ),
    blur_px=Parameter(
        0.6, 4, bounds=(0.3, 100), about="how far the nearest layer is out of focus", unit="pixels"
    ),
    opacity=Parameter(0.7, 1, bounds=(0, 1), about="o, of a flake"),
    mist=Parameter(
        0,
        1,
        bounds=(0, 20),
        about="scattering coefficient per unit of depth, as the beta of haze",
        severities=(0.0, 0.2, 0.45, 0.8, 1.3),
        milder=(0, 0.5),
    ),
    layers=Single(5, bounds=(1, 10), about="number of layers of flakes", whole=True),
)
def snow(image: Tensor, draws: Draws) -> Tensor:
    """Let snow fall on the misty scene: `R = J t + b (1 - t)`, `I = R (1 - a) + b a`.

    `1 - a = product(1 - a_l)` over the layers l. b is the brightness of the flakes, 0.8 to 0.97.
    `t = exp(-mist d)` is the air full of flakes that are too far away to be seen singly, over a
    plausible depth d (`depth.smooth_depth`). Each layer has flakes 0.6 times as large, as fast and
    as far out of focus as the layer before it. A flake is a grain of an uneven radius q, blurred,
    and drawn out along its fall by a trail of length T: at x across and z along it,
    `a_l = o h s^2 (3 - 2 s)`, `s = clip(1 - (x / q)^2 - (z / (q + T / 2))^4)`. h differs from flake
    to flake, and thins a flake as blur and trail spread it over a larger area.

    The recorded `coverage` is what the flakes' cells have space for.
    """
    coverage, size = draws.parameter("coverage"), draws.parameter("size_px")
    trail, angle = draws.parameter("trail_px"), draws.parameter("angle_deg")
    blur, opacity = draws.parameter("blur_px"), draws.parameter("opacity")
    mist = draws.parameter("mist")
    brightness = draws.uniform("brightness", (0.8, 0.97))

    clear = torch.ones_like(image[:, :1])
    bare = torch.ones_like(coverage)
    count = draws.value("layers")
    for layer in range(count):
        near = 0.6**layer
        share = 1 - (1 - coverage) ** (1 / count)
        possible = most(*flake_grid(size * near, trail * near, blur * near))
        bare = bare * (1 - torch.minimum(share, possible))
        flakes = flake_layer(draws, share, size * near, trail * near, angle, blur * near)
        clear = clear * (1 - opacity * flakes)
    draws.record("coverage", torch.minimum(coverage, 1 - bare))
    transmission = torch.exp(-mist * smooth_depth(draws))
    misty = image * transmission + brightness * (1 - transmission)
    return misty * clear + brightness * (1 - clear)


def flake_grid(size: Tensor, trail: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean area of a layer's flakes, and the side of the cell of each, in pixels."""
    soft = softness(blur)
    area = math.pi * (0.6 * size + 0.6 * soft) ** 2 + 0.9 * size * trail
    return area, 2 * (1.2 * (size + soft) + trail / 2)


def softness(blur: Tensor) -> Tensor:
    """Return by how much a blur widens a flake; no flake is sharper than a pixel."""
    return torch.sqrt(blur**2 + 0.36) / 2


def flake_layer(
    draws: Draws, coverage: Tensor, size: Tensor, trail: Tensor, angle: Tensor, blur: Tensor
) -> Tensor:
    """Draw one layer of flakes, (B, 1, H, W) in [0, 1]."""
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
        # No grain is a disc: its outline has a random second harmonic, which a trail smears away.
        harmonic = ((one - 0.5) * 2 * x * y + (two - 0.5) * (x**2 - y**2)) / (
            x**2 + y**2
        ).clamp_min(1e-6)
        radius = grain * (1 + 0.5 * harmonic * grain / (grain + length)) + soft
        inside = (1 - across / radius**2 - (along / (radius + length / 2) ** 2) ** 2).clamp(0, 1)
        thinned = (grain**2 / (radius**2 + 0.6 * radius * length)) ** 0.4 * (0.45 + 0.55 * two)
        flake = inside**2 * (3 - 2 * inside) * thinned.clamp_max(1)
        strongest = torch.maximum(strongest, (exists < flakes_per_cell) * flake)
    return strongest
