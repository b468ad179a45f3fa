"""Blur by defocus and by motion, in linear light, where it happens: highlights grow into discs and trails."""

import math

import torch
from torch import Tensor

from vrdir.degradations.draws import Degraded, Draws, Generators, Range, checked, parameters
from vrdir.degradations.srgb import to_linear, to_srgb

PATH_POINTS = (
    64  # of a shaken camera's path, at least; no two neighbours are further apart than a pixel
)


def defocus_blur(
    image: Tensor, generator: Generators, *, radius_px: Range = (1.0, 6.0)
) -> Degraded:
    """Defocus: in linear light `l = k * L`, k a disc of radius r with an edge a pixel wide, `clip(r - |x| + 1/2)`, sum 1.

    Args:
        image: (B, 3, H, W), sRGB in [0, 1]; L in linear light. It is mirrored at its borders.
        generator: source of all draws.
        radius_px: r, in pixels, 0 to 100.

    Returns:
        The blurred batch, and `radius_px` (B,).
    """
    radius = Draws(image, generator).uniform("radius_px", radius_px, 0, 100)
    reach = math.ceil(checked("radius_px", radius_px, 0, 100)[1]) + 1
    return Degraded(blurred(image, disc(radius, reach)), parameters(radius_px=radius))


def motion_blur(
    image: Tensor,
    generator: Generators,
    *,
    length_px: Range = (3.0, 24.0),
    angle_deg: Range = (-90.0, 90.0),
    bend: Range = (-0.4, 0.4),
) -> Degraded:
    """Camera shake: in linear light `l = k * L`, k the path `length (s, bend (4 s^2 - 1/3))`, s = -1/2 to 1/2, turned by the angle.

    The first coordinate runs along the angle, the second across it; the path's points are 0.5 px wide (a Gaussian's standard
    deviation), k sums to 1.

    Args:
        image: (B, 3, H, W), sRGB in [0, 1]; L in linear light. It is mirrored at its borders.
        generator: source of all draws.
        length_px: of the path along its angle, in pixels, 0 to 200.
        angle_deg: from horizontal, anticlockwise, -90 to 90.
        bend: how far the path departs from straight, as a share of its length, -1 to 1; 0 is straight.

    Returns:
        The blurred batch, and the three parameters (B,) each.
    """
    draws = Draws(image, generator)
    length = draws.uniform("length_px", length_px, 0, 200)
    angle = draws.uniform("angle_deg", angle_deg, -90, 90)
    drawn_bend = draws.uniform("bend", bend, -1, 1)
    longest = checked("length_px", length_px, 0, 200)[1]
    reach = math.ceil(0.9 * longest) + 2  # half the length, two thirds of the bend
    fastest = longest * math.hypot(
        1, 4 * max(map(abs, checked("bend", bend, -1, 1)))
    )  # at the path's ends
    kernel = shake(
        length, torch.deg2rad(angle), drawn_bend, reach, max(PATH_POINTS, math.ceil(fastest) + 1)
    )
    return Degraded(
        blurred(image, kernel), parameters(length_px=length, angle_deg=angle, bend=drawn_bend)
    )


def disc(radius: Tensor, reach: int) -> Tensor:
    """Kernels (B, 1, 2 reach + 1, 2 reach + 1) of the radii (B, 1, 1, 1)."""
    steps = torch.arange(-reach, reach + 1, device=radius.device)
    distance = torch.sqrt(steps.view(-1, 1) ** 2 + steps.view(1, -1) ** 2.0)
    kernel = (radius - distance + 0.5).clamp(0, 1)
    return kernel / kernel.sum((2, 3), keepdim=True)


def shake(
    length: Tensor, radians: Tensor, bend: Tensor, reach: int, points: int = PATH_POINTS
) -> Tensor:
    """Kernels (B, 1, 2 reach + 1, 2 reach + 1) of the paths, each by so many points."""
    s = torch.linspace(-0.5, 0.5, points, device=length.device).view(1, -1, 1, 1)
    along, across = length * s, length * bend * (4 * s**2 - 1 / 3)
    x = along * torch.cos(radians) - across * torch.sin(radians)  # (B, points, 1, 1)
    y = -along * torch.sin(radians) - across * torch.cos(radians)  # rows go down
    steps = torch.arange(-reach, reach + 1, device=length.device)
    columns = torch.exp(-2 * (steps.view(1, 1, -1) - x[:, :, :, 0]) ** 2)  # (B, points, K)
    rows = torch.exp(-2 * (steps.view(1, 1, -1) - y[:, :, :, 0]) ** 2)
    kernel = torch.einsum("bpy,bpx->byx", rows, columns)[:, None]
    return kernel / kernel.sum((2, 3), keepdim=True)


def blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """An sRGB batch (B, C, H, W) convolved in linear light with each image's kernel (B, 1, K, K), K odd, mirrored at its borders.

    By Fourier transform, so that the cost does not grow with the kernel.
    """
    reach = kernel.shape[-1] // 2
    height, width = image.shape[-2:]
    light = to_linear(image)[:, :, mirror(height, reach, image.device)][
        :, :, :, mirror(width, reach, image.device)
    ]
    size = light.shape[-2:]
    spectrum = torch.fft.rfft2(light) * torch.fft.rfft2(kernel, s=size)
    light = torch.fft.irfft2(spectrum, s=size)[
        ..., 2 * reach :, 2 * reach :
    ]  # the rest wrapped around
    return to_srgb(light)


def mirror(length: int, margin: int, device: torch.device) -> Tensor:
    """Indices of a line extended at both ends by `margin`, mirrored as often as it takes: ... 1 0 | 0 1 2 ..."""
    index = torch.arange(-margin, length + margin, device=device) % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)
