"""Conversion of images of every kind to the package's internal form, and back.

Inside the package an image is a float32 tensor (B, 3, H, W), RGB, in [0, 1]. `open_image` converts
an image to it, and remembers how to convert a result back to the same kind. Only this module,
`open_arrays` and `open_pictures` convert images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image
from torch import Tensor

from vrdir.errors import ImageError, InputError
from vrdir.forks import survive_forks
from vrdir.images.open_arrays import OpenImage, open_array, open_tensor
from vrdir.images.open_pictures import open_picture
from vrdir.images.reading import decode, read_file
from vrdir.images.sixteen_bits import DeepPicture
from vrdir.images.writing import encode

Channels = Literal["rgb", "bgr"]  # of arrays and tensors; pictures and files know their own order


def open_image(image: Any, channels: Channels = "rgb") -> OpenImage:
    """Convert an image to the package's internal form.

    It may be:

    - a path (str or Path); the result is a PIL image, or a `DeepPicture` where Pillow has no mode
      for it;
    - bytes: an encoded file; the result is bytes in the same file format;
    - a PIL image: grey, palette or RGB, with or without alpha, 16-bit grey; EXIF orientation is
      applied;
    - a `vrdir.images.DeepPicture`: 16 bits per channel in colour, or in grey with alpha;
    - a NumPy array: (H, W), (H, W, C) or (B, H, W, C) with C 1, 3 or 4; uint8, uint16, or float in
      [0, 1];
    - a torch tensor: (H, W), (C, H, W) or (B, C, H, W) with C 1, 3 or 4; uint8, or float in [0, 1].

    A fourth channel is alpha: it is not restored, and put back. Grey is restored as grey.

    A colour profile (Display P3, Adobe RGB) is kept, and the values stay in its space, although
    the network was trained on sRGB. A conversion to sRGB and back would clip every colour outside
    of sRGB; without it, the network sees colours that are only a little weaker.

    Args:
        image: the image.
        channels: the order of colours in arrays and tensors, also in the result: "rgb", or "bgr" as
            in OpenCV.

    Raises:
        ImageError: it is none of these, cannot be read, or contains NaN, infinity or values out of
            range.
    """
    survive_forks()
    if isinstance(image, (str, Path)):
        picture = read_file(Path(image))
        with _naming(str(Path(image))):
            return open_picture(picture, own=True)
    if isinstance(image, (bytes, bytearray, memoryview)):
        picture = decode(bytes(image), "the bytes given")
        file_format = picture.format or "PNG"
        with _naming("the bytes given"):
            opened = open_picture(picture, own=True)

        def close(restored: Tensor) -> Any:
            with _enough_memory("the image to write"):
                return encode(opened.close(restored), file_format)

        return opened._replace(close=close)
    if isinstance(image, (Image.Image, DeepPicture)):
        with _enough_memory("the image"):
            return open_picture(image)
    if isinstance(image, np.ndarray):
        return _to_rgb(open_array(image), channels)
    if isinstance(image, Tensor):
        return _to_rgb(open_tensor(image), channels)
    raise ImageError(
        f"cannot read an image from a {type(image).__name__}; use a path, bytes, PIL image, NumPy "
        "array or torch tensor"
    )


def checked_channels(channels: str) -> Channels:
    """Return an order of channels. Raises InputError for one that is not known."""
    for known in get_args(Channels):
        if channels == known:
            return known
    raise InputError(f'channels must be "rgb" or "bgr", not {channels!r}')


def _to_rgb(opened: OpenImage, channels: Channels) -> OpenImage:
    """Return an image with colours in the given order as one in RGB."""
    if channels == "rgb" or opened.grey:
        return opened
    return opened._replace(
        tensor=opened.tensor.flip(1), close=lambda restored: opened.close(restored.flip(1))
    )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the name of a file before the message of an ImageError."""
    try:
        with _enough_memory("it"):
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


@contextlib.contextmanager
def _enough_memory(name: str) -> Iterator[None]:
    """Raise ImageError where memory ends."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch raises a RuntimeError
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise ImageError(
            f"{name} needs more memory than is available; use a smaller copy (--max-side)"
        ) from None
