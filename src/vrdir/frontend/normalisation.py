"""How a recogniser's input is normalised: undone before restoring, applied again after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vrdir.errors import InputError
from vrdir.images.convert import Channels

Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """The affine map from an image in [0, 1] to a recogniser's input, channel by channel.

        x = (low + image * (high - low) - mean) / std

    Attributes:
        mean: in the units of `range`, in the order of `channels`.
        std: likewise; positive.
        range: (low, high), the values of black and white before the mean is subtracted.
        channels: the channel order of the recogniser's input, "rgb" or "bgr".
    """

    mean: Triple = (0.0, 0.0, 0.0)
    std: Triple = (1.0, 1.0, 1.0)
    range: tuple[float, float] = (0.0, 1.0)
    channels: Channels = "rgb"

    def undo(self, values: Tensor) -> Tensor:
        """Return the image that was normalised.

        Args:
            values: (..., 3, H, W), float32.

        Returns:
            RGB of the same shape, in [0, 1] if the normalisation is the right one.
        """
        low, high = self.range
        width = high - low
        scale = [std / width for std in self.std]
        shift = [(mean - low) / width for mean in self.mean]
        return self._reorder(_affine(values, scale, shift))

    def redo(self, image: Tensor) -> Tensor:
        """Normalise an image, RGB (..., 3, H, W) in [0, 1], for the recogniser."""
        low, high = self.range
        scale = [(high - low) / std for std in self.std]
        shift = [(low - mean) / std for mean, std in zip(self.mean, self.std, strict=True)]
        return _affine(self._reorder(image), scale, shift)

    def _reorder(self, image: Tensor) -> Tensor:
        return image.flip(-3) if self.channels == "bgr" else image


def _affine(values: Tensor, scale: Sequence[float], shift: Sequence[float]) -> Tensor:
    """Return `values * scale + shift` by channel, computed in one pass over the pixels."""
    if all(s == 1 for s in scale) and not any(shift):
        return values
    return torch.addcmul(
        values.new_tensor(shift).view(3, 1, 1), values, values.new_tensor(scale).view(3, 1, 1)
    )


def as_range(value: Any) -> tuple[float, float]:
    """Return (black, white) of a declared range.

    Args:
        value: the value of white, where black is 0; or both.

    Raises:
        InputError: it is neither, or not finite.
    """
    try:
        low, high = (0.0, value) if isinstance(value, (int, float)) else value
        low, high = float(low), float(high)
    except (TypeError, ValueError):
        raise InputError(
            f"range must be the value of white, or (black, white), not {value!r}"
        ) from None
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"range must be finite, not {value!r}")
    return low, high


def as_triple(value: Any, name: str) -> Triple:
    """Return one number for each of three channels.

    Args:
        value: a number, or three in a sequence, array or tensor.
        name: what it is, for the error message.

    Raises:
        InputError: it is neither one finite number nor three.
    """
    try:
        values = torch.as_tensor(value, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name} must be one number, or one for each of 3 channels, not {value!r}"
        ) from None
    values = values * 3 if len(values) == 1 else values
    if len(values) != 3:
        raise InputError(
            f"{name} must be one number, or one for each of 3 channels, not {len(values)}"
        )
    if not all(map(math.isfinite, values)):
        raise InputError(f"{name} must be finite, not {value!r}")
    return values[0], values[1], values[2]
