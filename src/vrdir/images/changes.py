"""How much restoring changed an image, and previews of both pictures."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vrdir.images.contact_sheet import to_pil

ROWS = 256  # compared at once, so that a large image needs little memory
GAP_PX = 8
UNCHANGED = 0.5  # 8-bit levels: images that changed by less on average look unchanged


def mean_change(before: Tensor, after: Tensor) -> float:
    """Return the mean absolute difference of two images (B, 3, H, W) in [0, 1], in 8-bit levels."""
    strips = zip(before.split(ROWS, -2), after.split(ROWS, -2), strict=True)
    sums = [
        float((one - other.to(one.device)).abs().sum(dtype=torch.float64)) for one, other in strips
    ]
    return 255 * sum(sums) / before.numel()


def preview(image: Tensor, side_px: int) -> bytes:
    """Return a small copy of an image as a WebP file.

    Args:
        image: (1, 3, H, W) in [0, 1].
        side_px: the most pixels on the longer side.
    """
    scale = min(1.0, side_px / max(image.shape[-2:]))
    size = [max(1, round(side * scale)) for side in image.shape[-2:]]
    buffer = io.BytesIO()
    to_pil(functional.interpolate(image.float().cpu(), size, mode="area")[0]).save(
        buffer, "WEBP", quality=75
    )
    return buffer.getvalue()


def beside(before: Tensor, after: Tensor, info: Mapping[Any, Any]) -> Image.Image:
    """Return two images side by side as one 8-bit picture.

    Args:
        before: the left image, (1, 3, H, W) in [0, 1].
        after: the right one, of the same size.
        info: the `info` of the PIL picture they come from, whose RGB profile is kept.
    """
    left, right = to_pil(before[0]), to_pil(after[0])
    both = Image.new("RGB", (left.width + GAP_PX + right.width, left.height), "white")
    both.paste(left)
    both.paste(right, (left.width + GAP_PX, 0))
    profile = info.get("icc_profile")
    if profile and profile[16:20] == b"RGB ":
        both.info["icc_profile"] = profile
    return both
