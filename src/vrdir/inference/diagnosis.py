"""Diagnosis: what was wrong with an image, in physical terms, by what the network did about it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from vrdir.inference.changes import mean_change
from vrdir.model.global_context import Veil, lift, log_gain_at, reduced, resampling
from vrdir.model.vrdir import Restoration

COPY_PX = 128  # side of the copy on which the haze is measured
CROP_PX = 256  # side of the middle part on which noise and rain are measured
AROUND_PX = 16  # side of the surroundings
STEP = 1 / 255  # of brightness, by which the gain is measured
STREAK = 12 / 255  # by how much rain brightens a pixel, at least


class Diagnosis(NamedTuple):
    """What was wrong with an image, by what was done about it.

    Attributes:
        haze: the mean of 1 - t over the image, t the transmission: 0 is clear air, 1 is fog that
            hides everything. None where the network has no global context.
        noise: the standard deviation of the noise that was taken away, in 8-bit levels.
        rain: the share of the pixels from which a bright streak was taken away.
        changed: the mean absolute change of the image, in 8-bit levels.
    """

    haze: float | None
    noise: float
    rain: float
    changed: float

    def __str__(self) -> str:
        haze = "" if self.haze is None else f"haze {self.haze:.0%}, "
        return f"{haze}noise {self.noise:.1f} levels, rain on {self.rain:.0%} of the pixels, changed by {self.changed:.1f} levels"


def diagnose(image: Tensor, restoration: Restoration) -> list[Diagnosis]:
    """Return the diagnosis of each image of a batch (B, 3, H, W), by what became of it."""
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        image, restored = image.float(), restoration.image.float()
        haze = _haze(image, restoration)
        noise, rain = _noise_and_rain(image, restored, restoration)
    hazes = [None] * len(image) if haze is None else haze.tolist()
    changed = [mean_change(*pair) for pair in zip(image.split(1), restored.split(1), strict=True)]
    figures = (noise.tolist(), rain.tolist(), changed)
    return [Diagnosis(*each) for each in zip(hazes, *figures, strict=True)]


def _haze(image: Tensor, restoration: Restoration) -> Tensor | None:
    veil = restoration.veil
    if not isinstance(veil, Veil):
        return None
    matrix = resampling(veil.grid[-1], COPY_PX, image.device)
    k = log_gain_at(reduced(image, COPY_PX), veil, matrix, matrix)
    return (1 - torch.exp(-k)).mean((1, 2, 3))


def _noise_and_rain(
    image: Tensor, restored: Tensor, restoration: Restoration
) -> tuple[Tensor, Tensor]:
    """Both by what the local network took away from the middle of the image.

    The noise is what is left of it by a filter that no plane or edge passes (Immerkaer, CVIU 1996),
    by its median, of which streaks are no large part.
    """
    height, width = image.shape[-2:]
    top, left = (max(0, (side - CROP_PX) // 2) for side in (height, width))
    window = slice(top, top + CROP_PX), slice(left, left + CROP_PX)
    clear, restored = image[..., window[0], window[1]], restored[..., window[0], window[1]]
    gain = torch.ones(len(image), device=image.device)
    if (veil := restoration.veil) is not None:
        rows = resampling(veil.grid[0], height, image.device)[window[0]]
        columns = resampling(veil.grid[1], width, image.device)[window[1]]
        lifted = lift(clear, veil, rows, columns)
        brighter = lift(clear + STEP, veil, rows, columns)
        gain = ((brighter - lifted) / STEP).mean((1, 2, 3)).clamp_min(1e-3)
        clear = lifted.clamp(0, 1)
    taken = clear - restored
    if min(taken.shape[-2:]) < 3:
        none = torch.zeros(len(image))
        return none, none
    green = taken[:, 1:2]
    kernel = taken.new_tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]).view(1, 1, 3, 3) / 6
    response = functional.conv2d(green, kernel).abs().flatten(1)
    sigma = response.median(1).values / 0.6745
    threshold = torch.clamp(3.5 * sigma, min=STREAK)
    # Beside what was taken from the surroundings: haze that is left is no streak.
    high, wide = (max(1, side // AROUND_PX) for side in green.shape[-2:])
    around = functional.interpolate(
        functional.adaptive_avg_pool2d(green, (high, wide)), size=green.shape[-2:], mode="bilinear"
    )
    streaks = (green - around > threshold.view(-1, 1, 1, 1)).float().mean((1, 2, 3))
    return sigma / gain * 255, streaks
