"""Pictures reduced to a size, in whatever depth they have."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vrdir.images.reading import Picture
from vrdir.images.sixteen_bits import DeepPicture, Pixels


def reduced(picture: Picture, max_side: int) -> Picture:
    """Return a picture with its longer side at most `max_side` pixels, with what it carries; one that is small enough as it is."""
    width, height = picture.size
    if max(width, height) <= max_side:
        return picture
    scale = max_side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if isinstance(picture, DeepPicture):
        return DeepPicture(_deep(picture.pixels, size), picture.info, picture.format)
    if picture.mode.startswith("I"):
        smaller = Image.fromarray(
            _deep(np.asarray(picture).clip(0, 65535)[..., None], size)[..., 0]
        )
    else:
        smaller = _without_palette(picture).resize(size, Image.Resampling.LANCZOS)
    # The transparent value of a picture without alpha has become alpha.
    smaller.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    smaller.format = picture.format
    return smaller


def _deep(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """(H, W, C) of 16 bits; colours count by their alpha, so that what is transparent has no say."""
    values = pixels.astype(np.float32)
    alpha = values[..., -1:] / 65535 if values.shape[2] in (2, 4) else None
    if alpha is not None:
        values[..., :-1] *= alpha
    smaller = np.stack(
        [
            np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS))
            for plane in np.moveaxis(values, -1, 0)
        ],
        -1,
    )
    if alpha is not None:
        smaller[..., :-1] /= np.maximum(smaller[..., -1:] / 65535, 1 / 65535)
    return smaller.round().clip(0, 65535).astype(np.uint16)


def _without_palette(picture: Image.Image) -> Image.Image:
    """A picture whose values can be averaged."""
    if picture.mode in ("P", "PA"):
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if "transparency" in picture.info and picture.mode in ("1", "L", "RGB"):
        return picture.convert("RGBA" if picture.mode == "RGB" else "LA")
    return picture.convert("L") if picture.mode == "1" else picture
