"""Diagnosis: the degradations of an image, in physical terms, measured by what the network did."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.batch.results import Diagnosis
from vrdir.images.changes import mean_change
from vrdir.model.control import ALL, Control
from vrdir.model.global_context import (
    Lift,
    LocalTone,
    lift,
    log_gain_at,
    reduced,
    resampling,
)
from vrdir.model.vrdir import Restoration

COPY_PX = 128  # side of the copy on which haze is measured
CROP_PX = 256  # side of the middle part on which noise and rain are measured
AROUND_PX = 16  # side of the surroundings of a streak
STEP = 1 / 255  # of brightness, by which the gain is measured
STREAK = 12 / 255  # the least brightness that rain adds to a pixel
SMALLEST_PX = 3  # side of the filter for noise


def diagnose(image: Tensor, restoration: Restoration, control: Control = ALL) -> list[Diagnosis]:
    """Return the diagnosis of each image of a batch.

    Args:
        image: the input, (B, 3, H, W) in [0, 1].
        restoration: of the network.
        control: how strongly the network restored. The diagnosis is of the input, so it does not
            depend on the strength; at strength 0 noise and rain are unknown.
    """
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        image, restored = image.float(), restoration.image.float()
        haze = _haze(image, restoration.veil)
        noise, rain = _noise_and_rain(image, restored, restoration.veil, control)
    changed = [mean_change(*pair) for pair in zip(image.split(1), restored.split(1), strict=True)]
    figures = (_each(haze, len(image)), _each(noise, len(image)), _each(rain, len(image)))
    return [Diagnosis(*each) for each in zip(*figures, changed, strict=True)]


def _each(values: Tensor | None, count: int) -> list[float | None]:
    return [None] * count if values is None else list(values.tolist())


def _haze(image: Tensor, veil: Lift | None) -> Tensor | None:
    """Return the mean of 1 - t over each image, (B,)."""
    if veil is None:
        return None
    if isinstance(veil, LocalTone):
        return veil.haze
    matrix = resampling(veil.grid[-1], COPY_PX, image.device)
    k = log_gain_at(reduced(image, COPY_PX), veil, matrix, matrix)
    return (1 - torch.exp(-k)).mean((1, 2, 3))


def _noise_and_rain(
    image: Tensor, restored: Tensor, veil: Lift | None, control: Control
) -> tuple[Tensor | None, Tensor | None]:
    """Return noise in 8-bit levels and the share of pixels under rain, (B,) each.

    Both are measured by what the local network removed from the middle of the image. A filter that
    suppresses planes and edges leaves the noise (Immerkaer, CVIU 1996); the median of its response
    is not moved by streaks, which cover few pixels.
    """
    if control.strength == 0:
        return None, None
    height, width = image.shape[-2:]
    top, left = (max(0, (side - CROP_PX) // 2) for side in (height, width))
    window = slice(top, top + CROP_PX), slice(left, left + CROP_PX)
    clear, restored = image[..., window[0], window[1]], restored[..., window[0], window[1]]
    gain = torch.ones(len(image), device=image.device)
    if veil is not None:
        found = control.of_veil(veil)
        rows = resampling(veil.grid[0], height, image.device)[window[0]]
        columns = resampling(veil.grid[1], width, image.device)[window[1]]
        lifted = lift(clear, found, rows, columns)
        brighter = lift(clear + STEP, found, rows, columns)
        gain = ((brighter - lifted) / STEP).mean((1, 2, 3)).clamp_min(1e-3)
        clear = lifted.clamp(0, 1)
    removed = (clear - restored) / control.strength
    if min(removed.shape[-2:]) < SMALLEST_PX:
        none = torch.zeros(len(image))
        return none, none
    green = removed[:, 1:2]
    kernel = removed.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).view(1, 1, 3, 3) / 6
    response = functional.conv2d(green, kernel).abs().flatten(1)
    sigma = response.median(1).values / 0.6745
    return sigma / gain * 255, _streaks(green, torch.clamp(3.5 * sigma, min=STREAK))


def _streaks(removed: Tensor, threshold: Tensor) -> Tensor:
    """Return the share of pixels of (B, 1, H, W) that exceed their surroundings by a threshold.

    Compared with the surroundings, because haze that is left is not a streak.
    """
    high, wide = (max(1, side // AROUND_PX) for side in removed.shape[-2:])
    around = functional.interpolate(
        functional.adaptive_avg_pool2d(removed, (high, wide)),
        size=removed.shape[-2:],
        mode="bilinear",
    )
    return (removed - around > threshold.view(-1, 1, 1, 1)).float().mean((1, 2, 3))
