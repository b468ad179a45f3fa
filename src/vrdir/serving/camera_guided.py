"""Restore a frame by a smaller copy of it: what the network did to the copy is done to the frame.

The network sees a copy. At each place of it, what it did to the contrast is a factor: the slope of
the line that leads from the copy's levels around that place to the restored ones, as in the fast
guided filter (He and Sun, arXiv:1505.00996). The frame has details that the copy lacks; they are
multiplied by the factor, so that haze goes from them too, and noise does not come back.

    result = g * frame + up(restored - up_small(g) * copy)

Where the network changes nothing, g = 1 and the frame stays as it is. The copy of the result is the
restored copy, up to rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Picture = np.ndarray[Any, np.dtype[np.uint8]]

RADIUS = 2  # of the places around, in pixels of the copy
FAINT = 1.0  # a contrast in levels, below which the factor tends to 1
LEAST, MOST = 0.0, 4.0  # factors


def apply_to(frame: Picture, copy: Picture, restored: Picture) -> Picture:
    """Do to a frame what was done to its copy.

    Args:
        frame: (H, W, 3).
        copy: (h, w, 3), the frame reduced.
        restored: (h, w, 3), the copy restored.

    Returns:
        (H, W, 3).
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
    """Return what was done to the contrast, (1, 1, h, w): 1 where nothing was done."""
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
    """Return the mean of maps (1, C, h, w) around each place.

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
