"""PIL pictures as images in the package's internal form, and back."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from vrdir.errors import ImageError
from vrdir.images.metadata import kept_metadata
from vrdir.images.open_arrays import BAND_ROWS, OpenImage, open_array
from vrdir.images.reading import Picture, decoding, load_upright, raw_mode_of
from vrdir.images.sixteen_bits import DeepPicture

logger = logging.getLogger(__name__)
# Pillow's modes, and the mode in which each is restored.
MODES = {
    "1": "L",
    "L": "L",
    "LA": "LA",
    "La": "LA",
    "I;16": "I;16",
    "I;16L": "I;16",
    "I;16B": "I;16",
    "I": "I;16",
    "F": "F",
    "RGB": "RGB",
    "RGBA": "RGBA",
    "RGBX": "RGB",
    "RGBa": "RGBA",
}
# How to convert pictures of other modes.
ADVICE = {
    "CMYK": (
        ", made for print; convert it to RGB first, in a program that applies its colour profile "
        "(Pillow: ImageCms.profileToProfile)"
    )
}


@decoding("the picture")
def open_picture(image: Picture, own: bool = False) -> OpenImage:
    """Open a picture of any PIL mode that can be converted to RGB and back, or a `DeepPicture`.

    Args:
        image: the picture.
        own: no other code uses it, so that it need not be copied.
    """
    if isinstance(image, DeepPicture):
        return _open_deep(image)
    if raw_mode_of(image, "the picture"):
        logger.warning(
            "an image of 16 bits per channel loses the lower 8 bits when Pillow opens it; use its "
            "path or its bytes instead"
        )
    picture = load_upright(image, "the picture", own=own)
    mode = _mode_for(picture)
    alpha = None
    if mode in ("I;16", "F"):
        array = _grey_array(picture, mode)
        if _is_transparent(picture):
            logger.warning(
                "a grey 16-bit image loses its transparent value when Pillow opens it; use its "
                "path or its bytes instead"
            )
    else:
        converted = _converted(picture, mode)
        alpha = converted.getchannel("A") if mode.endswith("A") else None
        array = _to_array(_converted(converted, mode.removesuffix("A")))
    inner = open_array(array)
    grey = inner.grey or (picture.mode in ("P", "PA") and bool((array == array[..., :1]).all()))
    info = picture.info

    def close(restored: Tensor) -> Image.Image:
        if grey and not inner.grey:  # a palette of greys is restored as grey, and becomes RGB
            restored = restored.mean(1, keepdim=True).expand_as(restored)
        result = Image.fromarray(inner.close(restored))
        if alpha is not None:
            result.putalpha(alpha)
        result.info = kept_metadata(info)
        return result

    return OpenImage(inner.tensor, close, grey)


def _is_transparent(picture: Image.Image) -> bool:
    return (
        "transparency" in picture.info
        or picture.mode == "PA"
        or (picture.mode == "P" and picture.has_transparency_data)
    )


def _mode_for(picture: Image.Image) -> str:
    """Return the PIL mode in which a picture is restored. Raises ImageError if there is none."""
    if picture.mode in ("P", "PA"):
        mode = "RGB"
    elif picture.mode in MODES:
        mode = MODES[picture.mode]
    else:
        advice = ADVICE.get(picture.mode, "; convert it to RGB first")
        raise ImageError(f"it is a {picture.mode} picture{advice}")
    return f"{mode}A" if mode in ("L", "RGB") and _is_transparent(picture) else mode


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """Return a picture in a mode, without a copy if it already has that mode."""
    return picture if picture.mode == mode else picture.convert(mode)


def _grey_array(picture: Image.Image, mode: str) -> np.ndarray[Any, Any]:
    """Return the pixels of grey with 16 bits or floating point, (H, W)."""
    array = np.asarray(picture)
    if mode == "F":
        return array
    if array.min() < 0 or array.max() > 65535:
        raise ImageError(
            f"grey integer images must be in 0 to 65535; this one ranges from {array.min()} to "
            f"{array.max()}"
        )
    return array.astype(np.uint16)


def _to_array(picture: Image.Image) -> np.ndarray[Any, Any]:
    """Return the pixels of an 8-bit picture.

    `numpy.asarray` of a whole picture would briefly need memory for both.
    """
    width, height = picture.size
    channels = len(picture.getbands())
    pixels = np.empty((height, width, channels)[: 3 if channels > 1 else 2], np.uint8)
    for top in range(0, height, BAND_ROWS):
        bottom = min(top + BAND_ROWS, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return pixels


def _open_deep(picture: DeepPicture) -> OpenImage:
    channels = picture.pixels.shape[2]
    colour = channels - (channels in (2, 4))
    inner = open_array(picture.pixels[..., :colour])

    def close(restored: Tensor) -> DeepPicture:
        pixels = np.concatenate([inner.close(restored), picture.pixels[..., colour:]], -1)
        return DeepPicture(pixels, kept_metadata(picture.info), picture.format)

    return OpenImage(inner.tensor, close, inner.grey)
