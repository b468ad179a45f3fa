"""Tensors and arrays as images in the package's internal form, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vrdir.errors import ImageError

# Resampling filters overshoot [0, 1]. By up to OVERSHOOT it is clipped; by up to MOST too, if at
# most the share RARE of the values does (a bicubic filter can overshoot by 0.45, at single points).
# Anything further is refused as a wrong scale.
OVERSHOOT, MOST, RARE = 0.1, 0.5, 0.01
BAND_ROWS = 256  # converted at once, so that a large image needs little memory


class OpenImage(NamedTuple):
    """An image in the package's internal form.

    Attributes:
        tensor: (B, 3, H, W), float32 in [0, 1].
        close: converts a tensor of that shape back to the kind of the input: the same type, size,
            depth, alpha and metadata.
        grey: the input has no colour; the three channels are equal.
    """

    tensor: Tensor
    close: Callable[[Tensor], Any]
    grey: bool


def open_tensor(image: Tensor, in_range: bool = False) -> OpenImage:
    """Open (H, W), (C, H, W) or (B, C, H, W).

    Gradients pass through floating-point tensors both ways.

    Args:
        image: the tensor.
        in_range: its values are known to be in [0, 1].
    """
    whole = _with_batch(image)
    levels = _levels(image.dtype)
    values = whole.float()
    if levels != 1:
        values = values / levels
    elif not in_range:
        values = _checked(values)
    alpha = whole[:, 3:] if whole.shape[1] == 4 else None
    grey = whole.shape[1] == 1
    rgb = values[:, :3].expand(-1, 3, -1, -1)

    def close(restored: Tensor) -> Tensor:
        result = restored.mean(1, keepdim=True) if grey else restored
        result = (result * levels).round() if levels != 1 else result
        result = result.to(device=image.device, dtype=image.dtype)
        if alpha is not None:
            result = torch.cat([result, alpha], 1)
        return result.reshape(image.shape)

    return OpenImage(rgb, close, grey)


def _with_batch(image: Tensor) -> Tensor:
    """Return a tensor image as (B, C, H, W). Raises ImageError for other shapes."""
    shape = tuple(image.shape)
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            f"a tensor image must have the shape (H, W), (C, H, W) or (B, C, H, W), not {shape}"
        )
    whole = image if image.ndim == 4 else image[None] if image.ndim == 3 else image[None, None]
    if whole.shape[1] not in (1, 3, 4):
        hint = ""
        if whole.shape[-1] in (1, 3, 4):
            hint = "; it looks like (H, W, C): permute it to (C, H, W)"
        raise ImageError(
            f"an image must have 1, 3 or 4 channels (grey, RGB, RGBA), not {whole.shape[1]}: "
            f"shape {shape}{hint}"
        )
    if 0 in whole.shape:
        raise ImageError(f"the image has no pixels: shape {shape}")
    return whole


def _levels(dtype: torch.dtype) -> int:
    """Return the value of white in tensors of a type. Raises ImageError for other types."""
    if dtype == torch.uint8:
        return 255
    if dtype.is_floating_point:
        return 1
    raise ImageError(
        "a tensor image must be uint8 (0 to 255) or floating point (0 to 1), "
        f"not {str(dtype).removeprefix('torch.')}"
    )


def _checked(values: Tensor) -> Tensor:
    """Return floating-point values clipped to [0, 1].

    Raises ImageError if they are out of range.
    """
    low, high = (float(v) for v in values.detach().aminmax())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError("the image contains NaN or infinite values; replace them before restoring")
    if not overshoots_only(values, low, high):
        raise ImageError(
            f"floating-point images must be in [0, 1]; this one ranges from {low:.3g} to "
            f"{high:.3g} (divide by 255, or undo a normalisation)"
        )
    return values.clamp(0, 1)


def overshoots_only(values: Tensor, low: float, high: float) -> bool:
    """Return whether values leave [0, 1] only by what resampling adds.

    Args:
        values: the image, (..., C, H, W).
        low: the least of its values.
        high: the greatest.
    """
    if low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        return True
    if not (low >= -MOST and high <= 1 + MOST):  # or NaN
        return False
    beyond = (values.detach() - 0.5).abs() > 0.5 + OVERSHOOT
    return float(beyond.float().flatten(-3).mean(-1).max()) <= RARE  # of each image


def open_array(image: np.ndarray[Any, Any]) -> OpenImage:
    """Open (H, W), (H, W, C) or (B, H, W, C)."""
    _check_array(image)
    white = {"uint8": 255, "uint16": 65535}.get(image.dtype.name, 1)
    # Alpha stays in the caller's array, unchanged.
    colour = image[..., :3] if image.ndim > 2 else image[..., None]
    floating = np.array(colour, np.float32, order="C")
    if white != 1:
        floating /= np.float32(white)
    values = torch.from_numpy(floating)
    inner = open_tensor(values.movedim(-1, -3), in_range=white != 1)

    def close(restored: Tensor) -> np.ndarray[Any, Any]:
        pixels = inner.close(restored).detach().movedim(-3, -1).cpu().numpy()
        result = image.copy().reshape(*colour.shape[:-1], -1)
        for top in range(0, pixels.shape[-3], BAND_ROWS):
            rows = (..., slice(top, top + BAND_ROWS), slice(None), slice(None))
            band = pixels[rows]
            if white != 1:
                band = np.round(band * np.float32(white))
            result[rows][..., : colour.shape[-1]] = band
        return result.reshape(image.shape)

    return OpenImage(inner.tensor, close, inner.grey)


def _check_array(image: np.ndarray[Any, Any]) -> None:
    """Raise ImageError for arrays that are not images."""
    if image.ndim not in (2, 3, 4):
        raise ImageError(
            "an array image must have the shape (H, W), (H, W, C) or (B, H, W, C), not "
            f"{image.shape}"
        )
    if image.ndim > 2 and image.shape[-1] not in (1, 3, 4):
        hint = ""
        if image.shape[-3] in (1, 3, 4):
            hint = "; it looks like (C, H, W): transpose it to (H, W, C)"
        raise ImageError(
            "an array image must have 1, 3 or 4 channels last (grey, RGB, RGBA), "
            f"not shape {image.shape}{hint}"
        )
    known = image.dtype.name in ("uint8", "uint16") or np.issubdtype(image.dtype, np.floating)
    if not known:
        raise ImageError(
            "an array image must be uint8, uint16 or floating point (0 to 1), not "
            f"{image.dtype.name}"
        )
