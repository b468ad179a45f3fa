"""Statistics of a whole image: how a caller supplies or smooths them.

Some parts of the network use a mean over the whole image: DNC its mean and variance, channel attention its means. And two maps come
out at a level of their own, their mean over the image, which jumps from frame to frame of a video with the noise: FGM's guidance and
the decoder's correction. Each takes what it finds, unless the caller of `VRDIR.restore` passes `statistics`, which is asked with the
module and what that module found, and answers with what it is to use. Whoever goes through an image in bands supplies each with the
whole image's moments (`SuppliedStatistics`, see `vrdir.restoring.strips`); a video smooths the levels over time (`SmoothedLevels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Moments(NamedTuple):
    """What a module finds over H and W of one image: (B, C, 1, 1) each; the variance is the population's, None if it is not used."""

    mean: Tensor
    variance: Tensor | None = None


def own_moments(values: Tensor) -> Moments:
    """Mean and variance of a map (B, C, H, W)."""
    # The population's variance is finite where a 1 x 1 map has no spread at all (the sample's is NaN there).
    return Moments(
        values.mean((2, 3), keepdim=True), values.var((2, 3), correction=0, keepdim=True)
    )


class GlobalStatistics:
    """Leaves everything as it was found. Methods are called by a module with itself and what it found.

    Attributes:
        levels: whether `level` does anything, so that a map's mean is worth finding.
    """

    levels = False

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        """The moments that the module is to go on with, of the same shapes."""
        return found

    def level(self, module: nn.Module, found: Tensor) -> Tensor:
        """The level, (B, C, 1, 1), to which the module is to move its map."""
        return found


def levelled(module: nn.Module, values: Tensor, statistics: GlobalStatistics | None) -> Tensor:
    """A module's map (B, C, H, W), moved as a whole to the level that `statistics` wants, if it wants one: what is where stays."""
    if statistics is None or not statistics.levels:
        return values
    found = values.mean((2, 3), keepdim=True)
    return values + (statistics.level(module, found) - found)


class SuppliedStatistics(GlobalStatistics):
    """Moments found elsewhere, by module; a module that is not named keeps what it finds."""

    def __init__(self, moments: Mapping[nn.Module, Moments]) -> None:
        self.supplied = dict(moments)

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        return self.supplied.get(module, found)


class SmoothedLevels(GlobalStatistics):
    """Levels smoothed over the frames of a video, by an exponential moving average.

    `next_frame` comes before each frame, `reset` at a cut. In the first frames after it the plain average of all so far is
    taken, until the moving one has as long a memory: a single noisy frame does not set the tone.

    Args:
        smoothing: the share of the past, from 0 (none: every frame by itself) to below 1; 0.8 averages about five frames.
    """

    levels = True

    def __init__(self, smoothing: float) -> None:
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing is at least 0 and below 1, not {smoothing}")
        self.smoothing = smoothing
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._frames = 0
        self._past: dict[nn.Module, Tensor] = {}
        self._present: dict[nn.Module, Tensor] = {}

    def next_frame(self) -> None:
        """What was found since the last call is the past now."""
        self._past |= self._present
        self._present = {}
        self._frames += 1

    def level(self, module: nn.Module, found: Tensor) -> Tensor:
        if module not in self._present:  # asked twice in a frame, a module gets the same answer
            share = min(self.smoothing, 1 - 1 / max(self._frames, 1))
            self._present[module] = torch.lerp(found, self._past.get(module, found), share)
        return self._present[module]
