"""Restore a large frame by way of a reduced copy: the change of the copy is applied to the frame.

The network restores the copy. At each position of the copy, a factor g says how the contrast has
changed: it is the slope of the line that fits the restored levels to the copy's levels in a small
neighbourhood, as in the fast guided filter (He and Sun, arXiv:1505.00996). The details of the frame
that the copy lacks are multiplied by this factor. So haze is removed from them, too, and noise that
the network removed does not return.

    result = up(g) * frame + up(restored - g * copy)

Here `up` enlarges a map to the size of the frame. Where the network changes nothing, g is 1, and
the frame stays the same. If the result is reduced to the copy's size, it is the restored copy, up
to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Picture = np.ndarray[Any, np.dtype[np.uint8]]

RADIUS = 2  # of the neighbourhood, in pixels of the copy
FAINT = 1.0  # a contrast in 8-bit levels, below which the factor tends to 1
LEAST, MOST = 0.0, 4.0  # limits of the factor


def apply_to(frame: Picture, copy: Picture, restored: Picture) -> Picture:
    """Apply the change of a reduced copy to the whole frame.

    Args:
        frame: (H, W, 3), uint8.
        copy: (h, w, 3), uint8, the reduced frame.
        restored: (h, w, 3), uint8, the restored copy.

    Returns:
        The restored frame, (H, W, 3), uint8.
    """
    before, after = _planes(copy), _planes(restored)
    factor = _factor(before, after)
    shift = after - factor * before
    # One resampling for both: (1, 4, h, w).
    maps = torch.cat([factor, shift], 1)
    large = functional.interpolate(maps, frame.shape[:2], mode="bilinear", align_corners=False)
    pixels = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    result = torch.addcmul(large[:, 1:], large[:, :1], pixels).round_().clamp_(0, 255)
    return result[0].permute(1, 2, 0).to(torch.uint8).contiguous().numpy()


def _factor(before: Tensor, after: Tensor) -> Tensor:
    """Return the factor of the contrast, (1, 1, h, w); it is 1 where nothing has changed."""
    before = before.contiguous()
    change = after - before
    # The three colours count as one sample each: a veil acts on all of them alike.
    square = (before * before).sum(1, keepdim=True)
    product = (before * change).sum(1, keepdim=True)
    means = _mean_around(torch.cat([before, change, square, product], 1))
    mean, mean_change, square, product = means.split([3, 3, 1, 1], 1)
    covariance = product - (mean * mean_change).sum(1, keepdim=True)
    variance = square - (mean * mean).sum(1, keepdim=True)
    slope = covariance / (variance + 3 * FAINT**2)
    return (1 + slope).clamp(LEAST, MOST)


def _mean_around(maps: Tensor) -> Tensor:
    """Return the means of maps (1, C, h, w) over the neighbourhood of each position.

    Sums of shifted maps take a quarter of the time of average pooling.
    """
    height, width = maps.shape[-2:]
    size = 2 * RADIUS + 1
    padded = functional.pad(maps, (RADIUS,) * 4, mode="replicate")
    rows = sum(padded[..., shift : shift + width] for shift in range(size))
    assert isinstance(rows, Tensor)
    total = sum(rows[..., shift : shift + height, :] for shift in range(size))
    assert isinstance(total, Tensor)
    return total / size**2


def _planes(picture: Picture) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float()
