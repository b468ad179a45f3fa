"""Reading the depth map of a photo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vrdir.errors import ImageError, first_line
from vrdir.images.reading import read_file
from vrdir.regular_files import open_regular

GREY_MODES = ("L", "I;16", "I;16L", "I;16B", "I", "F")


def open_depth(depth: Any, image: Tensor) -> Tensor:
    """Return a depth map of any kind as (1, 1, H, W), in units of the scene's depth.

    Args:
        depth: (H, W) array or tensor, grey image, or path of an image or a .npy file; 0 near to
            about 1 far; integers of 8 and 16 bits are divided by their white.
        image: the batch (B, 3, H, W), whose size the depth must have.

    Raises:
        ImageError: it is none of these, of another size, or has values that are negative or not
            finite.
    """
    source = str(depth) if isinstance(depth, (str, Path)) else "the depth"
    if isinstance(depth, (str, Path)):
        depth = _read(Path(depth))
    if isinstance(depth, Image.Image):
        depth = _of_picture(depth, source)
    values = depth.cpu() if isinstance(depth, Tensor) else _tensor(np.array(depth))
    white = {torch.uint8: 255, torch.uint16: 65535}.get(values.dtype, 1)
    if white == 1 and not values.dtype.is_floating_point:
        kind = str(values.dtype).removeprefix("torch.")
        raise ImageError(
            f"{source} has values of {kind}; a depth map must be uint8, uint16 or floating point"
        )
    size = image.shape[-2:]
    if values.squeeze().shape != size and values.shape != size:
        raise ImageError(
            f"{source} has the shape {tuple(values.shape)}; it must have the image's size, "
            f"{tuple(size)}"
        )
    values = values.float() / white
    if not torch.isfinite(values).all() or values.min() < 0:
        raise ImageError(
            f"{source} has negative or infinite values or NaN; a depth must be 0 (near) or more"
        )
    return values.reshape(1, 1, *size).to(image.device)


def _read(path: Path) -> Any:
    if path.suffix.lower() != ".npy":
        return read_file(path)
    try:
        with open_regular(path) as file:
            array = np.load(file, allow_pickle=False)
    except ImageError:
        raise
    except Exception as error:  # an empty file, or the header of an endless array: EOF, no memory
        raise ImageError(f"{path} is not an array that can be read ({first_line(error)})") from None
    if not isinstance(array, np.ndarray):
        raise ImageError(f"{path} contains several arrays; save the depth alone as .npy")
    return array


def _of_picture(picture: Image.Image, source: str) -> np.ndarray[Any, Any]:
    if picture.mode not in GREY_MODES:
        raise ImageError(
            f"{source} is a {picture.mode} picture; a depth map must be grey with 8 or 16 bits, or "
            "a .npy file"
        )
    values = np.asarray(picture)
    if values.dtype != np.int32:
        return values
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{source} ranges from {values.min()} to {values.max()}; an integer image must be in 0 "
            "to 65535"
        )
    return values.astype(np.uint16)


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """Return an array as a tensor, in this machine's byte order, which torch needs."""
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
