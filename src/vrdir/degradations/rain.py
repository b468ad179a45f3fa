"""Rain: streaks of several sizes under one wind, a curtain of drops, a veil, drops on the lens."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.depth import smooth_depth
from vrdir.degradations.draws import Draws, pixel_grid
from vrdir.degradations.parameters import Parameter, Single
from vrdir.degradations.scatter import most, per_cell, scattered


@degradation(
    "rain",
    Place.FALLING,
    formula="`R = N + o S (b - m N)`, `I = (1 - v) R + v A`, `N = M + c C max(A - M, 0)`, "
    "`M = J t + A (1 - t)`",
    source="as in Li et al., CVPR 2019 (streaks and veil); the curtain is our own",
    synonyms=("rainy", "rain_streaks", "drizzle", "derain"),
    never_with=("snow",),
    # Severities 1 and 2 are as Rain100L: one wind, sharp thin streaks, clear air. 4 and 5 are as
    # Rain100H: several layers, and a veil.
    coverage=Parameter(
        0.03,
        0.5,
        bounds=(1e-4, 0.95),
        about="share of the image under streaks, about",
        severities=(0.06, 0.12, 0.22, 0.35, 0.5),
        milder=(0.02, 0.25),
        log=True,
    ),
    length_px=Parameter(
        4,
        60,
        bounds=(1, 1e4),
        about="length of a streak in the nearest layer; half of it in each layer behind",
        unit="pixels",
        severities=((12, 25), (15, 35), (20, 45), (25, 55), (30, 60)),
        log=True,
    ),
    width_px=Parameter(
        0.35,
        1.2,
        bounds=(0.1, 100),
        about="standard deviation of a streak's Gaussian profile; at most a tenth of its length, "
        "or 0.35",
        unit="pixels",
        severities=((0.3, 0.55),) * 5,
    ),
    angle_deg=Parameter(
        -35,
        35,
        bounds=(-90, 90),
        about="the wind, from vertical; layers depart from it by up to 4 degrees",
        unit="degrees",
        severities=((-25, 25),) * 5,
    ),
    opacity=Parameter(
        0.25,
        0.9,
        bounds=(0, 1),
        about="o, of the nearest layer's strongest streak; two thirds of it in each layer behind",
        severities=(0.3, 0.36, 0.42, 0.5, 0.62),
    ),
    veil=Parameter(
        0,
        0.18,
        bounds=(0, 1),
        about="v, share of the veil",
        severities=(0.0, 0.0, 0.03, 0.06, 0.12),
        milder=(0, 0.1),
    ),
    blur_px=Parameter(
        0,
        0,
        bounds=(0, 100),
        about="standard deviation of the nearest layer's blur; half of it in each layer behind",
        unit="pixels",
        severities=((0.0, 0.4), (0.0, 0.5), (0.1, 0.7), (0.3, 0.9), (0.4, 1.1)),
    ),
    unevenness=Parameter(
        0, 0, bounds=(0, 1), about="u, of the streaks, in gusts", severities=((0.2, 0.7),) * 5
    ),
    mist=Parameter(
        0,
        0,
        bounds=(0, 20),
        about="scattering coefficient per unit of depth, as the beta of haze",
        severities=(0.0, 0.15, 0.4, 0.7, 1.1),
    ),
    curtain=Parameter(
        0,
        0,
        bounds=(0, 1),
        about="c, opacity of the curtain: streaks too dense to be seen singly, several times as "
        "long, out of focus, brighter than what is behind them",
    ),
    clear_air=Single(
        0.0,
        bounds=(0, 1),
        about="probability of rain without veil, mist and curtain, as in sunshine",
    ),
    layers=Single(
        2,
        bounds=(1, 10),
        about="number of layers of streaks",
        severities=(3, 3, 4, 4, 4),
        whole=True,
    ),
)
def rain(image: Tensor, draws: Draws) -> Tensor:
    """Add streaks to the misty scene, then a veil: `R = N + o S (b - m N)`, `I = (1 - v) R + v A`.

    `M = J t + A (1 - t)`, and `N = M + c C max(A - M, 0)` is the scene behind a curtain of drops C
    in [0, 1] (`curtain_of_drops`), which only brightens. S in [0, 1] is the strongest of the layers
    of streaks, thinned by gusts `1 - u f`, f clouds in [0, 1]; b is the brightness of the streaks,
    0.8 to 1. m in [0, 1] leads from streaks that add light (0) to streaks that cover what is behind
    them (1). A is 0.65 to 0.85. `t = exp(-mist d)` is the air full of drops that are too far away
    to be seen singly, over a plausible depth d (`depth.smooth_depth`).
    """
    coverage, full_length = draws.parameter("coverage"), draws.parameter("length_px")
    full_width, wind = draws.parameter("width_px"), draws.parameter("angle_deg")
    opacity, veil = draws.parameter("opacity"), draws.parameter("veil")

    strengths = []
    count = draws.value("layers")
    for layer in range(count):
        length = (full_length * 0.5**layer).clamp_min(2.0)
        angle = wind + draws.uniform("wind", (-4.0, 4.0))
        strength = opacity * (2 / 3) ** layer
        width = torch.minimum(full_width, (length / 10).clamp_min(0.35))
        strengths.append(strength * streak_layer(draws, coverage / count, length, width, angle))

    brightness = draws.uniform("brightness", (0.8, 1.0))
    covering = draws.uniform("covering", (0.0, 1.0))
    veil_brightness = draws.uniform("veil_brightness", (0.65, 0.85))
    blur, unevenness = draws.parameter("blur_px"), draws.parameter("unevenness")
    covered = torch.zeros_like(image[:, :1])
    for layer, strength in enumerate(strengths):
        covered = torch.maximum(covered, softened(strength, blur * 0.5**layer))
    covered = covered * (1 - unevenness * draws.clouds())
    mist, clear_air = draws.parameter("mist"), draws.value("clear_air")
    if clear_air > 0:  # otherwise nothing is drawn, so that later draws do not change
        weather = (draws.unit(1, 1, 1) >= clear_air).to(image.dtype)
        veil = draws.record("veil", veil * weather)
        mist = draws.record("mist", mist * weather)
    transmission = torch.exp(-mist * smooth_depth(draws))
    misty = image * transmission + veil_brightness * (1 - transmission)
    if draws.limits("curtain")[1] == 0:  # nothing is drawn, so that later draws do not change
        draws.record("curtain", torch.zeros_like(mist))
    else:
        curtain = draws.parameter("curtain")
        if clear_air > 0:
            curtain = draws.record("curtain", curtain * weather)
        drops = curtain_of_drops(draws, full_length, wind)
        misty = misty + curtain * drops * (veil_brightness - misty).clamp_min(0)
    rainy = misty + covered * (brightness - covering * misty)
    return rainy * (1 - veil) + veil * veil_brightness


def streak_layer(
    draws: Draws, coverage: Tensor, length: Tensor, width: Tensor, angle: Tensor
) -> Tensor:
    """Draw one layer of streaks, (B, 1, H, W) in [0, 1]: bright drops, each smeared into a line.

    The smear is a convolution in the Fourier domain: its cost does not depend on the streaks'
    length. Streaks wrap around the borders, which is not visible.
    """
    rows, columns = draws.image.shape[-2:]
    area = length * width * 2.5  # a Gaussian profile covers about 2.5 of its half-widths
    drops, brightness = draws.unit(1, rows, columns), draws.unit(1, rows, columns)
    seeds = (drops < coverage / area) * (0.4 + 0.6 * brightness)
    return smeared(seeds, streak_kernel(draws, length, width, angle)).clamp(0, 1)


def streak_kernel(draws: Draws, length: Tensor, width: Tensor, angle: Tensor) -> Tensor:
    """Return the shape of one streak around the top left pixel, (B, 1, H, W), 1 in its middle.

    Pixels wrap around: 0, 1, ..., -2, -1. `length` and `width` are in pixels, `angle` in degrees
    from vertical, (B, 1, 1, 1) each.
    """
    device = draws.image.device
    rows, columns = draws.image.shape[-2:]
    y = torch.fft.fftfreq(rows, 1 / rows, device=device).view(1, 1, -1, 1)
    x = torch.fft.fftfreq(columns, 1 / columns, device=device).view(1, 1, 1, -1)
    radians = torch.deg2rad(angle)
    along = y * torch.cos(radians) + x * torch.sin(radians)
    across = x * torch.cos(radians) - y * torch.sin(radians)
    sharpness = draws.uniform("sharpness", (1.5, 6.0))  # from faded ends to sharp ends
    return torch.exp(-0.5 * (across / width) ** 2) * (
        (1 - 2 * along.abs() / length) * sharpness
    ).clamp(0, 1)


def smeared(points: Tensor, kernel: Tensor) -> Tensor:
    """Convolve points with a kernel around the top left pixel, (B, 1, H, W) each, wrapped."""
    spectrum = torch.fft.rfft2(points) * torch.fft.rfft2(kernel)
    return torch.fft.irfft2(spectrum, s=tuple(points.shape[-2:]))


def curtain_of_drops(draws: Draws, length: Tensor, wind: Tensor) -> Tensor:
    """Draw the streaks of dense rain, (B, 1, H, W) in [0, 1], mean about 0.4.

    Where many streaks lie behind one another their sum is normally distributed. So each of three
    layers is white noise, smeared along the wind over 3, 1.5 and 0.75 times `length`, (B, 1, 1, 1)
    in pixels, with profiles of 0.6 to 2 pixels, and the sum has a standard deviation of 0.3.
    """
    total = torch.zeros_like(draws.image[:, :1])
    for layer in range(3):
        angle = wind + draws.uniform("wind", (-4.0, 4.0))
        width = draws.uniform("width", (0.6, 2.0))
        kernel = streak_kernel(draws, length * 3 * 0.5**layer, width, angle)
        share = draws.uniform("share", (0.3, 1.0))
        kernel = kernel / kernel.square().sum((2, 3), keepdim=True).sqrt()
        total = total + share * smeared(draws.normal(1, *draws.image.shape[-2:]), kernel)
    spread = total.std((1, 2, 3), keepdim=True).clamp_min(1e-6)
    return (0.35 + 0.3 * total / spread).clamp(0, 1)


def softened(layer: Tensor, sigma: Tensor) -> Tensor:
    """Blur a layer (B, 1, H, W) by Gaussians of standard deviation sigma (B, 1, 1, 1).

    Pixels wrap around, as streaks do.
    """
    rows, columns = layer.shape[-2:]
    y = torch.fft.fftfreq(rows, device=layer.device).view(1, 1, -1, 1)
    x = torch.fft.rfftfreq(columns, device=layer.device).view(1, 1, 1, -1)
    response = torch.exp(-2 * (math.pi * sigma) ** 2 * (x**2 + y**2))
    soft = torch.fft.irfft2(torch.fft.rfft2(layer) * response, s=(rows, columns))
    return torch.where(sigma > 0, soft, layer)


@degradation(
    "raindrops",
    Place.GLASS,
    formula="`I = (1 - a) J + a (g J_s(c - F r u / sqrt(2 - u^2)) + h)`",
    source="our own",
    synonyms=("drops", "waterdrops", "droplets"),
    coverage=Parameter(
        0.03,
        0.25,
        bounds=(1e-4, 0.6),
        about="share of the image under drops, about; three layers have space for 0.36 to 0.4, "
        "one for 0.15",
        severities=(0.02, 0.06, 0.12, 0.22, 0.38),
        milder=(0.02, 0.12),
        log=True,
    ),
    radius_px=Parameter(
        5,
        22,
        bounds=(2, 1000),
        about="of the largest drops; 0.55 times as large in each further layer",
        unit="pixels",
        severities=((7.0, 20.0),) * 5,
        log=True,
    ),
    blur_px=Parameter(
        0.8, 4, bounds=(0.5, 200), about="width of the blurred outline", unit="pixels"
    ),
    field=Parameter(
        3, 7, bounds=(0, 50), about="F, how many times wider than the drop the scene in it is"
    ),
    rim=Parameter(0.3, 0.8, bounds=(0, 1), about="k, how dark the rim is"),
    layers=Single(3, bounds=(1, 10), about="number of layers of drops", whole=True),
)
def raindrops(image: Tensor, draws: Draws) -> Tensor:
    """Put drops on the lens: `I = (1 - a) J + a (g J_s(c - F r u / sqrt(2 - |u|^2)) + h)`.

    `u = (x - c) / r`. A drop of centre c and radius r is a small wide-angle lens: it shows the
    scene upside down, as wide as F drops. J_s is J without the detail that is lost. g darkens the
    rim, where the light comes from far to the side, `1 - k |u|^4`; h is a glint on the upper side;
    a is the outline, blurred since the lens is focused behind it.

    The recorded `coverage` is what the drops' cells have space for.
    """
    coverage, radius = draws.parameter("coverage"), draws.parameter("radius_px")
    blur, field = draws.parameter("blur_px"), draws.parameter("field")
    rim = draws.parameter("rim")
    height, width = image.shape[-2:]
    small = functional.interpolate(
        image, (max(1, height // 4), max(1, width // 4)), mode="bilinear", antialias=True
    )
    seen = image
    bare = torch.ones_like(coverage)
    count = draws.value("layers")
    for layer in reversed(range(count)):  # large drops swallow small ones
        largest = radius * 0.55**layer
        share = 1 - (1 - coverage) ** (1 / count)
        bare = bare * (1 - torch.minimum(share, most(*drop_grid(largest, blur))))
        drop = drop_layer(draws, share, largest, blur)
        inside = refracted(small, image, drop, field)
        shade = 1 - rim * drop.distance.clamp(0, 1) ** 4
        glint = 0.5 * torch.exp(-(((drop.x + 0.35) / 0.18) ** 2 + ((drop.y + 0.5) / 0.1) ** 2))
        seen = seen * (1 - drop.outline) + drop.outline * (inside * shade + glint)
    draws.record("coverage", torch.minimum(coverage, 1 - bare))
    return seen


class Drop(NamedTuple):
    """The drop over each pixel, (B, 1, H, W) each.

    Attributes:
        x, y: u, the pixel's offset from the centre in radii.
        distance: |u|, 1 at the uneven outline.
        radius: r, in pixels.
        outline: a, in [0, 1].
    """

    x: Tensor
    y: Tensor
    distance: Tensor
    radius: Tensor
    outline: Tensor


def refracted(small: Tensor, image: Tensor, drop: Drop, field: Tensor) -> Tensor:
    """Return the scene seen in drops, (B, 3, H, W): the reduced scene `small`, upside down."""
    height, width = image.shape[-2:]
    x, y = pixel_grid(image)
    far = field * drop.radius / torch.sqrt(2 - drop.distance.clamp(0, 1) ** 2)
    source_x = x - drop.x * drop.radius - far * drop.x
    source_y = y - drop.y * drop.radius - far * drop.y
    grid = [2 * source_x / max(1, width - 1) - 1, 2 * source_y / max(1, height - 1) - 1]
    return functional.grid_sample(
        small,
        torch.cat(grid, 1).movedim(1, 3),
        mode="bilinear",
        padding_mode="reflection",
        align_corners=True,
    )


def drop_grid(largest: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean area of a layer's drops, and the side of the cell of each, in pixels."""
    area = math.pi * 0.392 * largest**2  # 0.392: the mean of the squared radii
    return area, 2 * (1.3 * largest + torch.minimum(blur, largest) / 2)


def drop_layer(draws: Draws, coverage: Tensor, largest: Tensor, blur: Tensor) -> Drop:
    """Draw one layer of drops, with radii between 0.4 and 1 times the largest."""
    soft = torch.minimum(blur, largest)
    area, cell = drop_grid(largest, blur)
    drops_per_cell = per_cell(coverage, area, cell)
    best: Drop | None = None
    for x, y, (exists, scale, one, two) in scattered(draws, cell, 4):
        radius = largest * (0.4 + 0.6 * scale**2)
        length = torch.sqrt(x**2 + y**2).clamp_min(1e-3)
        # The outline has the second and the third harmonic of the direction.
        cosine, sine = x / length, y / length
        second = (one - 0.5) * 2 * cosine * sine + (two - 0.5) * (cosine**2 - sine**2)
        third = (one - 0.5) * cosine * (cosine**2 - 3 * sine**2) + (two - 0.2) * sine * (
            3 * cosine**2 - sine**2
        )
        distance = length / (radius * (1 + 0.25 * second + 0.12 * third))
        outline = ((1 - distance) * radius / soft + 0.5).clamp(0, 1) * (exists < drops_per_cell)
        drop = Drop(x / radius, y / radius, distance, radius, outline)
        if best is not None:
            drop = Drop(
                *(
                    torch.where(drop.outline > best.outline, new, old)
                    for new, old in zip(drop, best, strict=True)
                )
            )
        best = drop
    assert best is not None
    return best
