"""Checks of the network's input and output."""

from __future__ import annotations

from torch import Tensor

from vrdir.errors import InputError, ResultError


def check_image(image: Tensor) -> None:
    """Raise InputError unless a tensor is (B, 3, H, W) with at least one pixel."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape:
        raise InputError(
            "expected an RGB tensor (B, 3, H, W) of at least one pixel, got shape "
            f"{tuple(image.shape)}"
        )


def in_range(restored: Tensor) -> Tensor:
    """Clamp a decoder's output to [0, 1]; infinite values become NaN, for `check_result`."""
    return restored.clamp(0, 1) + 0 * restored


def check_result(*values: Tensor) -> None:
    """Raise ResultError if a network's result is not finite."""
    if not all(bool(value.isfinite().all()) for value in values):
        raise ResultError(
            "the network's output contains NaN or infinite values; its weights are damaged, or "
            "too large for its precision: check them (vrdir weights verify), download or train "
            "them again, or use float32"
        )
