"""Rain: streaks of several sizes under one wind with the veil of drops too far away to be seen singly; drops on the lens."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.degradations.depth import smooth_depth
from vrdir.degradations.draws import (
    Degraded,
    Draws,
    Generators,
    Range,
    parameters,
    pixel_grid,
    single,
    whole,
)
from vrdir.degradations.scatter import most, per_cell, scattered


def rain(
    image: Tensor,
    generator: Generators,
    *,
    coverage: Range = (0.03, 0.5),
    length_px: Range = (4.0, 60.0),
    width_px: Range = (0.35, 1.2),
    angle_deg: Range = (-35.0, 35.0),
    opacity: Range = (0.25, 0.9),
    veil: Range = (0.0, 0.18),
    blur_px: Range = (0.0, 0.0),
    unevenness: Range = (0.0, 0.0),
    mist: Range = (0.0, 0.0),
    clear_air: float = 0.0,
    layers: int = 2,
) -> Degraded:
    """Streaks over the misty scene, then a veil: `R = M + o S (b - m M)`, `I = (1 - v) R + v A`, `M = J t + A (1 - t)`.

    S in [0, 1] is the strongest of `layers` layers of streaks, thinned by gusts `1 - u f`; b their brightness (0.8 to 1);
    m in [0, 1] leads from streaks that add light (0) to streaks that cover what is behind them (1); A is 0.65 to 0.85;
    `t = exp(-mist d)` the air full of drops too far away to be seen singly, over a plausible depth d (`depth.smooth_depth`).

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        coverage: share of the picture under streaks, about, in (0, 1).
        length_px, width_px: a streak's length and its Gaussian half-width, in pixels, for the nearest layer; each layer
            behind it has streaks half as long. A short streak is never wider than a tenth of its length or 0.35.
        angle_deg: the wind, degrees from vertical; layers depart from it by up to 4 degrees.
        opacity: o, of the nearest layer's strongest streak, in [0, 1]; each layer behind has two thirds of it.
        veil: v, share of the veil, in [0, 1].
        blur_px: how far the nearest layer is out of focus (a Gaussian's standard deviation), in pixels, 0 to 100; each
            layer behind it half as far.
        unevenness: u, in [0, 1]; f are clouds in [0, 1].
        mist: scattering coefficient per unit of depth, 0 to 20, as the beta of haze.
        clear_air: probability of rain with neither veil nor mist, such as a shower in sunshine; in [0, 1].
        layers: how many layers, 1 to 10.

    Returns:
        The rainy batch, and `coverage`, `length_px`, `width_px`, `angle_deg`, `opacity`, `veil`, `blur_px`, `unevenness`,
        `mist` (B,) each.
    """
    draws = Draws(image, generator)
    drawn_coverage = draws.log_uniform("coverage", coverage, 1e-4, 0.95)
    drawn_length = draws.log_uniform("length_px", length_px, 1, 1e4)
    drawn_width = draws.uniform("width_px", width_px, 0.1, 100)
    drawn_angle = draws.uniform("angle_deg", angle_deg, -90, 90)
    drawn_opacity = draws.uniform("opacity", opacity, 0, 1)
    drawn_veil = draws.uniform("veil", veil, 0, 1)

    strengths = []
    count = whole("layers", layers, 1, 10)
    for layer in range(count):
        length = (drawn_length * 0.5**layer).clamp_min(2.0)
        angle = drawn_angle + draws.uniform("wind", (-4.0, 4.0))
        strength = drawn_opacity * (2 / 3) ** layer
        width = torch.minimum(drawn_width, (length / 10).clamp_min(0.35))
        strengths.append(
            strength * streak_layer(draws, drawn_coverage / count, length, width, angle)
        )

    brightness = draws.uniform("brightness", (0.8, 1.0))
    covering = draws.uniform("covering", (0.0, 1.0))
    veil_brightness = draws.uniform("veil_brightness", (0.65, 0.85))
    blur = draws.uniform("blur_px", blur_px, 0, 100)
    drawn_unevenness = draws.uniform("unevenness", unevenness, 0, 1)
    covered = torch.zeros_like(image[:, :1])
    for layer, strength in enumerate(strengths):
        covered = torch.maximum(covered, softened(strength, blur * 0.5**layer))
    covered = covered * (1 - drawn_unevenness * draws.clouds())
    drawn_mist = draws.uniform("mist", mist, 0, 20)
    probability = single("clear_air", clear_air, 0, 1)
    if probability > 0:  # no draw otherwise: what follows is drawn from the same generator
        weather = (draws.unit(1, 1, 1) >= probability).to(image.dtype)
        drawn_veil, drawn_mist = drawn_veil * weather, drawn_mist * weather
    transmission = torch.exp(-drawn_mist * smooth_depth(draws))
    misty = image * transmission + veil_brightness * (1 - transmission)
    rainy = misty + covered * (brightness - covering * misty)
    rainy = rainy * (1 - drawn_veil) + drawn_veil * veil_brightness
    drawn = parameters(
        coverage=drawn_coverage,
        length_px=drawn_length,
        width_px=drawn_width,
        angle_deg=drawn_angle,
        opacity=drawn_opacity,
        veil=drawn_veil,
        blur_px=blur,
        unevenness=drawn_unevenness,
        mist=drawn_mist,
    )
    return Degraded(rainy, drawn)


def streak_layer(
    draws: Draws, coverage: Tensor, length: Tensor, width: Tensor, angle: Tensor
) -> Tensor:
    """One layer of streaks, (B, 1, H, W) in [0, 1]: sparse bright drops, each smeared into a line by a motion kernel.

    The smear is a convolution in the Fourier domain, so the cost does not depend on the streaks' length and the whole
    batch goes at once; that streaks wrap around the borders is no harm, rain has no borders.
    """
    device = draws.image.device
    rows, columns = draws.image.shape[-2:]
    area = length * width * 2.5  # a Gaussian profile covers about 2.5 of its half-widths
    drops, brightness = draws.unit(1, rows, columns), draws.unit(1, rows, columns)
    seeds = (drops < coverage / area) * (0.4 + 0.6 * brightness)

    y = torch.fft.fftfreq(rows, 1 / rows, device=device).view(
        1, 1, -1, 1
    )  # 0, 1, ..., -2, -1: wrapped pixels
    x = torch.fft.fftfreq(columns, 1 / columns, device=device).view(1, 1, 1, -1)
    radians = torch.deg2rad(angle)
    along = y * torch.cos(radians) + x * torch.sin(radians)
    across = x * torch.cos(radians) - y * torch.sin(radians)
    sharpness = draws.uniform("sharpness", (1.5, 6.0))  # from ends that fade away to ends cut off
    kernel = torch.exp(-0.5 * (across / width) ** 2) * (
        (1 - 2 * along.abs() / length) * sharpness
    ).clamp(0, 1)
    spectrum = torch.fft.rfft2(seeds) * torch.fft.rfft2(kernel)
    return torch.fft.irfft2(spectrum, s=(rows, columns)).clamp(0, 1)


def softened(layer: Tensor, sigma: Tensor) -> Tensor:
    """A layer (B, 1, H, W) blurred by Gaussians of standard deviation sigma (B, 1, 1, 1), wrapped around as streaks are."""
    rows, columns = layer.shape[-2:]
    y = torch.fft.fftfreq(rows, device=layer.device).view(1, 1, -1, 1)
    x = torch.fft.rfftfreq(columns, device=layer.device).view(1, 1, 1, -1)
    response = torch.exp(-2 * (math.pi * sigma) ** 2 * (x**2 + y**2))
    soft = torch.fft.irfft2(torch.fft.rfft2(layer) * response, s=(rows, columns))
    return torch.where(sigma > 0, soft, layer)


def raindrops(
    image: Tensor,
    generator: Generators,
    *,
    coverage: Range = (0.03, 0.25),
    radius_px: Range = (5.0, 22.0),
    blur_px: Range = (0.8, 4.0),
    field: Range = (3.0, 7.0),
    rim: Range = (0.3, 0.8),
    layers: int = 3,
) -> Degraded:
    """Drops on the lens or the windscreen: `I = (1 - a) J + a (g J_s(c - F r u / sqrt(2 - |u|^2)) + h)`, u = (x - c) / r.

    A drop of centre c and radius r is a small wide-angle lens: it shows the scene upside down, as wide as F drops (J_s is
    J without the detail that is lost on the way). g darkens its rim, where the light comes from far aside, `1 - k |u|^4`;
    h is a glint on its upper side; a its outline, blurred since the lens looks past it.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        coverage: share of the picture under drops, about, in (0, 0.6); three layers of sharp drops have room for 0.36 to 0.4 or so,
            one layer for 0.15.
        radius_px: of the largest drops, in pixels, 2 to 1000; each layer's are 0.55 times as large as those of the one before.
        blur_px: width of the blurred outline, in pixels, 0.5 to 200.
        field: F, how many times wider than the drop the scene in it is, 0 to 50.
        rim: k, in [0, 1].
        layers: how many layers, 1 to 10.

    Returns:
        The batch seen through drops, and the five drawn parameters (B,) each, `coverage` as far as drops find room.
    """
    draws = Draws(image, generator)
    drawn_coverage = draws.log_uniform("coverage", coverage, 1e-4, 0.6)
    radius = draws.log_uniform("radius_px", radius_px, 2, 1000)
    blur = draws.uniform("blur_px", blur_px, 0.5, 200)
    drawn_field = draws.uniform("field", field, 0, 50)
    drawn_rim = draws.uniform("rim", rim, 0, 1)
    height, width = image.shape[-2:]
    small = functional.interpolate(
        image, (max(1, height // 4), max(1, width // 4)), mode="bilinear", antialias=True
    )
    x, y = pixel_grid(image)
    seen = image
    bare = torch.ones_like(drawn_coverage)
    count = whole("layers", layers, 1, 10)
    for layer in reversed(range(count)):  # large drops swallow small ones
        largest = radius * 0.55**layer
        share = 1 - (1 - drawn_coverage) ** (1 / count)
        bare = bare * (1 - torch.minimum(share, most(*drop_grid(largest, blur))))
        drop = drop_layer(draws, share, largest, blur)
        far = drawn_field * drop.radius / torch.sqrt(2 - drop.distance.clamp(0, 1) ** 2)
        source_x, source_y = (
            x - drop.x * drop.radius - far * drop.x,
            y - drop.y * drop.radius - far * drop.y,
        )
        where = torch.cat(
            [2 * source_x / max(1, width - 1) - 1, 2 * source_y / max(1, height - 1) - 1], 1
        ).movedim(1, 3)
        inside = functional.grid_sample(
            small, where, mode="bilinear", padding_mode="reflection", align_corners=True
        )
        shade = 1 - drawn_rim * drop.distance.clamp(0, 1) ** 4
        glint = 0.5 * torch.exp(-(((drop.x + 0.35) / 0.18) ** 2 + ((drop.y + 0.5) / 0.1) ** 2))
        seen = seen * (1 - drop.outline) + drop.outline * (inside * shade + glint)
    drawn = parameters(
        coverage=torch.minimum(drawn_coverage, 1 - bare),
        radius_px=radius,
        blur_px=blur,
        field=drawn_field,
        rim=drawn_rim,
    )
    return Degraded(seen, drawn)


class Drop(NamedTuple):
    """For every pixel the drop over it, (B, 1, H, W) each: u from its middle, |u| to its uneven outline, r, and a."""

    x: Tensor
    y: Tensor
    distance: Tensor
    radius: Tensor
    outline: Tensor


def drop_grid(largest: Tensor, blur: Tensor) -> tuple[Tensor, Tensor]:
    """The mean area of a layer's drops, and the side of the cells that they have to themselves."""
    return math.pi * 0.392 * largest**2, 2 * (
        1.3 * largest + torch.minimum(blur, largest) / 2
    )  # 0.392: mean of the squared radii


def drop_layer(draws: Draws, coverage: Tensor, largest: Tensor, blur: Tensor) -> Drop:
    """One layer of drops of a radius between 0.4 and 1 times the largest."""
    soft = torch.minimum(blur, largest)
    area, cell = drop_grid(largest, blur)
    drops_per_cell = per_cell(coverage, area, cell)
    best: Drop | None = None
    for x, y, (exists, scale, one, two) in scattered(draws, cell, 4):
        radius = largest * (0.4 + 0.6 * scale**2)
        length = torch.sqrt(x**2 + y**2).clamp_min(1e-3)
        cosine, sine = (
            x / length,
            y / length,
        )  # of the bearing; the outline has its second and third harmonics
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
