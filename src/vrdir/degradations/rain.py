"""Rain: streaks of several sizes under one wind, and the veil of drops too far away to be seen singly."""

import torch
from torch import Generator, Tensor

from vrdir.degradations.draws import Degraded, Draws, Range, checked, parameters


def rain(
    image: Tensor,
    generator: Generator,
    *,
    coverage: Range = (0.03, 0.5),
    length_px: Range = (4.0, 60.0),
    width_px: Range = (0.35, 1.2),
    angle_deg: Range = (-35.0, 35.0),
    opacity: Range = (0.25, 0.9),
    veil: Range = (0.0, 0.18),
    layers: int = 2,
) -> Degraded:
    """Streaks over the scene, then a veil: `R = J + o S (b - m J)`, `I = (1 - v) R + v A`.

    S in [0, 1] is the strongest of `layers` layers of streaks; b their brightness (0.8 to 1); m in [0, 1] leads from
    streaks that add light (0) to streaks that cover what is behind them (1); A is 0.65 to 0.85.

    Args:
        image: J, (B, 3, H, W) in [0, 1].
        generator: source of all draws.
        coverage: share of the picture under streaks, about, in (0, 1).
        length_px, width_px: a streak's length and its Gaussian half-width, in pixels, for the nearest layer; each layer
            behind it has streaks half as long. A short streak is never wider than a tenth of its length or 0.35.
        angle_deg: the wind, degrees from vertical; layers depart from it by up to 4 degrees.
        opacity: o, of the nearest layer's strongest streak, in [0, 1]; each layer behind has two thirds of it.
        veil: v, share of the veil, in [0, 1].
        layers: how many layers.

    Returns:
        The rainy batch, and `coverage`, `length_px`, `width_px`, `angle_deg`, `opacity`, `veil` (B,) each.
    """
    draws = Draws(image, generator)
    drawn_coverage = draws.log_uniform("coverage", coverage, 1e-4, 0.95)
    drawn_length = draws.log_uniform("length_px", length_px, 1, 1e4)
    drawn_width = draws.uniform("width_px", width_px, 0.1, 100)
    drawn_angle = draws.uniform("angle_deg", angle_deg, -90, 90)
    drawn_opacity = draws.uniform("opacity", opacity, 0, 1)
    drawn_veil = draws.uniform("veil", veil, 0, 1)

    covered = torch.zeros_like(image[:, :1])
    for layer in range(int(checked("layers", layers, 1, 10)[0])):
        length = (drawn_length * 0.5**layer).clamp_min(2.0)
        angle = drawn_angle + draws.uniform("wind", (-4.0, 4.0))
        strength = drawn_opacity * (2 / 3) ** layer
        width = torch.minimum(drawn_width, (length / 10).clamp_min(0.35))
        streaks = streak_layer(draws, drawn_coverage / layers, length, width, angle)
        covered = torch.maximum(covered, strength * streaks)

    brightness = draws.uniform("brightness", (0.8, 1.0))
    covering = draws.uniform("covering", (0.0, 1.0))
    veil_brightness = draws.uniform("veil_brightness", (0.65, 0.85))
    rainy = image + covered * (brightness - covering * image)
    rainy = rainy * (1 - drawn_veil) + drawn_veil * veil_brightness
    drawn = parameters(
        coverage=drawn_coverage,
        length_px=drawn_length,
        width_px=drawn_width,
        angle_deg=drawn_angle,
        opacity=drawn_opacity,
        veil=drawn_veil,
    )
    return Degraded(rainy, drawn)


def streak_layer(draws: Draws, coverage: Tensor, length: Tensor, width: Tensor, angle: Tensor) -> Tensor:
    """One layer of streaks, (B, 1, H, W) in [0, 1]: sparse bright drops, each smeared into a line by a motion kernel.

    The smear is a convolution in the Fourier domain, so the cost does not depend on the streaks' length and the whole
    batch goes at once; that streaks wrap around the borders is no harm, rain has no borders.
    """
    batch, device = draws.image.shape[0], draws.image.device
    rows, columns = draws.image.shape[-2:]
    area = length * width * 2.5  # a Gaussian profile covers about 2.5 of its half-widths
    drops, brightness = draws.unit(batch, 1, rows, columns), draws.unit(batch, 1, rows, columns)
    seeds = (drops < coverage / area) * (0.4 + 0.6 * brightness)

    y = torch.fft.fftfreq(rows, 1 / rows, device=device).view(1, 1, -1, 1)  # 0, 1, ..., -2, -1: wrapped pixels
    x = torch.fft.fftfreq(columns, 1 / columns, device=device).view(1, 1, 1, -1)
    radians = torch.deg2rad(angle)
    along = y * torch.cos(radians) + x * torch.sin(radians)
    across = x * torch.cos(radians) - y * torch.sin(radians)
    sharpness = draws.uniform("sharpness", (1.5, 6.0))  # from ends that fade away to ends cut off
    kernel = torch.exp(-0.5 * (across / width) ** 2) * ((1 - 2 * along.abs() / length) * sharpness).clamp(0, 1)
    spectrum = torch.fft.rfft2(seeds) * torch.fft.rfft2(kernel)
    return torch.fft.irfft2(spectrum, s=(rows, columns)).clamp(0, 1)
