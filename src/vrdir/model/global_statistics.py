"""Statistics over the whole image: replace them by given ones, or smooth them over time.

Some modules use a mean over the whole image: DNC (mean and variance) and channel attention. Two
maps have a level, their mean over the image, which changes with the noise from frame to frame of a
video: FGM's guidance and the decoder's correction. By default each module uses what it measures.
With `statistics` in `VRDIR.restore`, each module passes what it measured to that object and uses
what it returns. Two uses:

- Strips of a large image use the moments of the whole image (`SuppliedStatistics`, see
  `vrdir.restoring.strips`).
- Videos smooth the levels over time (`SmoothedLevels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from vrdir.errors import InputError


class Moments(NamedTuple):
    """Mean and variance of a map over H and W.

    Attributes:
        mean: (B, C, 1, 1).
        variance: (B, C, 1, 1), the population variance; None if it is not used.
    """

    mean: Tensor
    variance: Tensor | None = None


def own_moments(values: Tensor) -> Moments:
    """Return mean and variance of a map (B, C, H, W)."""
    # The population variance of a 1 x 1 map is 0; the sample variance would be NaN.
    return Moments(
        values.mean((2, 3), keepdim=True), values.var((2, 3), correction=0, keepdim=True)
    )


class GlobalStatistics:
    """The base class: every module uses what it measured.

    Attributes:
        levels: whether `level` changes anything, so that levels need to be measured.
    """

    levels = False

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        """Return the moments for a module to use.

        Args:
            module: the module that asks.
            found: the moments that it measured.
        """
        return found

    def level(self, module: nn.Module, found: Tensor) -> Tensor:
        """Return the level, (B, C, 1, 1), to which a module shifts its map.

        Args:
            module: the module that asks.
            found: the level that it measured.
        """
        return found

    def of_copy(self) -> GlobalStatistics | None:
        """Return the statistics for a reduced copy of the image; None: what is measured on it."""
        return None


def shift_to_level(
    module: nn.Module, values: Tensor, statistics: GlobalStatistics | None
) -> Tensor:
    """Shift a module's map to the level that `statistics` gives.

    Args:
        module: the module that asks.
        values: its map (B, C, H, W).
        statistics: gives the level; None, or without `levels`: the map stays unchanged.

    Returns:
        The map plus one constant per image and channel.
    """
    if statistics is None or not statistics.levels:
        return values
    found = values.mean((2, 3), keepdim=True)
    return values + (statistics.level(module, found) - found)


class SuppliedStatistics(GlobalStatistics):
    """Moments that were measured elsewhere.

    Args:
        moments: by module; other modules use what they measure.
    """

    def __init__(self, moments: Mapping[nn.Module, Moments]) -> None:
        self.supplied = dict(moments)

    def moments(self, module: nn.Module, found: Moments) -> Moments:
        """Return the given moments of a module, else what it measured."""
        return self.supplied.get(module, found)


class SmoothedLevels(GlobalStatistics):
    """Levels smoothed over the frames of a video by an exponential moving average.

    Call `next_frame` before each frame and `reset` at a cut. The first frames after a cut use the
    plain average of all frames since then, so that no single noisy frame dominates.

    Args:
        smoothing: the weight of the past, from 0 (no smoothing) to below 1; 0.8 averages about five
            frames.

    Raises:
        InputError: it is out of range.
    """

    levels = True

    def __init__(self, smoothing: float) -> None:
        if not 0 <= smoothing < 1:
            raise InputError(f"smoothing must be at least 0 and below 1, not {smoothing}")
        self.smoothing = smoothing
        self._of_copy: SmoothedLevels | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all frames."""
        self._frames = 0
        self._past: dict[nn.Module, Tensor] = {}
        self._present: dict[nn.Module, Tensor] = {}
        if self._of_copy is not None:
            self._of_copy.reset()

    def next_frame(self) -> None:
        """Begin a frame."""
        self._past |= self._present
        self._present = {}
        self._frames += 1
        if self._of_copy is not None:
            self._of_copy.next_frame()

    def level(self, module: nn.Module, found: Tensor) -> Tensor:
        """Return the smoothed level; the same value if a module asks twice in a frame."""
        if module not in self._present:
            share = min(self.smoothing, 1 - 1 / max(self._frames, 1))
            self._present[module] = torch.lerp(found, self._past.get(module, found), share)
        return self._present[module]

    def of_copy(self) -> SmoothedLevels:
        """Return levels of their own, which are smoothed over the same frames."""
        if self._of_copy is None:
            self._of_copy = SmoothedLevels(self.smoothing)
            self._of_copy.next_frame()
        return self._of_copy
