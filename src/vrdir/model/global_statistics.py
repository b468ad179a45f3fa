"""Statistics of a whole image: how a caller records them, averages them, or supplies others in their place.

Some parts of the network use a mean over the whole image: DNC its mean and variance, channel attention its means. Each takes it
from what it is given, unless the caller of `VRDIR.restore` passes `statistics`, which is asked with the module and what that
module found, and answers with what it is to use. Whoever goes through an image in bands supplies each with the whole image's
(`SuppliedStatistics`, see `vrdir.inference.bands`); a video smooths them over time (`SmoothedStatistics`).

Two maps come out at a level of their own, their mean over the image, which jumps from frame to frame with the noise: FGM's
guidance and the decoder's correction. A video smooths their levels, too; of a part of an image it is nobody else's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn


class Moments(NamedTuple):
    """What a module finds over H and W of one image: (B, C, 1, 1) each; the variance is the population's, None if it is not used."""

    mean: Tensor
    variance: Tensor | None = None


class GlobalStatistics(Protocol):
    """Called by a module with itself and the moments it found; returns those it is to go on with, of the same shapes.

    Attributes:
        levels: whether it is asked for the levels of maps, too (see `levelled`).
    """

    levels: bool

    def __call__(self, module: nn.Module, found: Moments, /) -> Moments: ...


def levelled(module: nn.Module, values: Tensor, statistics: GlobalStatistics | None) -> Tensor:
    """A module's map (B, C, H, W), moved as a whole to the level that `statistics` wants, if it wants one: what is where stays."""
    if statistics is None or not statistics.levels:
        return values
    level = values.mean((2, 3), keepdim=True)
    return values + (statistics(module, Moments(level)).mean - level)


def own_moments(values: Tensor) -> Moments:
    """Mean and variance of a map (B, C, H, W)."""
    # The population's variance is finite where a 1 x 1 map has no spread at all (the sample's is NaN there).
    return Moments(values.mean((2, 3), keepdim=True), values.var((2, 3), correction=0, keepdim=True))


class SuppliedStatistics:
    """Moments made elsewhere, by module; a module that is not named keeps what it finds."""

    levels = False

    def __init__(self, moments: Mapping[nn.Module, Moments]) -> None:
        self.moments = dict(moments)

    def __call__(self, module: nn.Module, found: Moments) -> Moments:
        return self.moments.get(module, found)


class SmoothedStatistics:
    """Moments smoothed over the frames of a video, by an exponential moving average.

    `next_frame` comes before each frame, `reset` at a cut. In the first frames after it the plain average of all so far is
    taken, until the moving one has as long a memory: a single noisy frame does not set the tone.

    Args:
        smoothing: the share of the past, from 0 (none: every frame by itself) to below 1; 0.9 averages about ten frames.
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
        self._past: dict[nn.Module, Moments] = {}
        self._present: dict[nn.Module, Moments] = {}

    def next_frame(self) -> None:
        """What was found since the last call is the past now."""
        self._past |= self._present
        self._present = {}
        self._frames += 1

    def __call__(self, module: nn.Module, found: Moments) -> Moments:
        if module not in self._present:  # asked twice in a frame, a module gets the same answer
            past = self._past.get(module)
            self._present[module] = found if past is None else self._blended(past, found)
        return self._present[module]

    def _blended(self, past: Moments, found: Moments) -> Moments:
        share = min(self.smoothing, 1 - 1 / max(self._frames, 1))
        variance = None if found.variance is None or past.variance is None else torch.lerp(found.variance, past.variance, share)
        return Moments(torch.lerp(found.mean, past.mean, share), variance)
