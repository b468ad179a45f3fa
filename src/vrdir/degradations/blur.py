"""Blur by defocus and by motion, in linear light, so that highlights grow into discs and trails."""

import math

import torch
from torch import Tensor

from vrdir.degradations.declaration import Place, degradation
from vrdir.degradations.draws import Draws
from vrdir.degradations.parameters import Parameter
from vrdir.degradations.srgb import to_linear, to_srgb

# Points of a shaken camera's path, at least; neighbours are no more than a pixel apart.
PATH_POINTS = 64


@degradation(
    "defocus_blur",
    Place.FOCUS,
    formula="`l = k * L`, k a disc",
    source="geometrical optics",
    synonyms=("blur", "out_of_focus", "gaussian_blur"),
    radius_px=Parameter(
        1,
        6,
        bounds=(0, 100),
        about="r, radius of the disc",
        unit="pixels",
        severities=(1, 2, 3.5, 5.5, 8),
        milder=(0.5, 3),
    ),
)
def defocus_blur(image: Tensor, draws: Draws) -> Tensor:
    """Blur as a lens out of focus does: in linear light `l = k * L`, k a disc of radius r.

    The edge of the disc is a pixel wide, `clip(r - |x| + 1/2)`; k sums to 1. The image is mirrored
    at its borders.
    """
    radius = draws.parameter("radius_px")
    reach = math.ceil(draws.limits("radius_px")[1]) + 1
    return blurred(image, disc(radius, reach))


@degradation(
    "motion_blur",
    Place.MOTION,
    formula="`l = k * L`, k a path `(s, bend (4 s^2 - 1/3))`",
    source="camera shake",
    synonyms=("shake", "camera_shake"),
    length_px=Parameter(
        3,
        24,
        bounds=(0, 200),
        about="length of the path along its angle",
        unit="pixels",
        severities=(4, 8, 14, 22, 32),
        milder=(2, 12),
    ),
    angle_deg=Parameter(
        -90, 90, bounds=(-90, 90), about="from horizontal, anticlockwise", unit="degrees"
    ),
    bend=Parameter(
        -0.4,
        0.4,
        bounds=(-1, 1),
        about="how far the path departs from a straight line, as a share of its length",
    ),
)
def motion_blur(image: Tensor, draws: Draws) -> Tensor:
    """Shake the camera: in linear light `l = k * L`, k the path `length (s, bend (4 s^2 - 1/3))`.

    s runs from -1/2 to 1/2. The first coordinate is along the angle, the second across it. The
    points of the path are 0.5 px wide (the standard deviation of a Gaussian); k sums to 1. The
    image is mirrored at its borders.
    """
    length, angle = draws.parameter("length_px"), draws.parameter("angle_deg")
    bend = draws.parameter("bend")
    longest = draws.limits("length_px")[1]
    # Half the length along the angle, two thirds of the bend across it.
    reach = math.ceil(0.9 * longest) + 2
    # Pixels per unit of s at the ends of the path, where it is fastest.
    fastest = longest * math.hypot(1, 4 * max(map(abs, draws.limits("bend"))))
    points = max(PATH_POINTS, math.ceil(fastest) + 1)
    return blurred(image, shake(length, torch.deg2rad(angle), bend, reach, points))


def disc(radius: Tensor, reach: int) -> Tensor:
    """Return the kernels (B, 1, 2 reach + 1, 2 reach + 1) of radii (B, 1, 1, 1)."""
    steps = torch.arange(-reach, reach + 1, device=radius.device)
    distance = torch.sqrt(steps.view(-1, 1) ** 2 + steps.view(1, -1) ** 2.0)
    kernel = (radius - distance + 0.5).clamp(0, 1)
    return kernel / kernel.sum((2, 3), keepdim=True)


def shake(
    length: Tensor, radians: Tensor, bend: Tensor, reach: int, points: int = PATH_POINTS
) -> Tensor:
    """Return the kernels (B, 1, 2 reach + 1, 2 reach + 1) of paths of `points` points each."""
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
    """Convolve an sRGB batch (B, C, H, W) in linear light with kernels (B, 1, K, K), K odd.

    Images are mirrored at their borders. A Fourier transform does it, so that the cost does not
    grow with the kernel.
    """
    reach = kernel.shape[-1] // 2
    height, width = image.shape[-2:]
    light = to_linear(image)[:, :, mirror(height, reach, image.device)][
        :, :, :, mirror(width, reach, image.device)
    ]
    size = light.shape[-2:]
    spectrum = torch.fft.rfft2(light) * torch.fft.rfft2(kernel, s=size)
    # What was wrapped around is cut off.
    light = torch.fft.irfft2(spectrum, s=size)[..., 2 * reach :, 2 * reach :]
    return to_srgb(light)


def mirror(length: int, margin: int, device: torch.device) -> Tensor:
    """Return the indices of a line, mirrored at both ends by `margin`: ... 1 0 | 0 1 2 ..."""
    index = torch.arange(-margin, length + margin, device=device) % (2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)
