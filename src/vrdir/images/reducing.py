"""Reducing of pictures to a size, in their own depth."""

from __future__ import annotations

import numpy as np
from PIL import Image

from vrdir.errors import ImageError
from vrdir.images.reading import Picture
from vrdir.images.sixteen_bits import DeepPicture, Pixels16


def reduced(picture: Picture, max_side: int) -> Picture:
    """Return a picture whose longer side has at most `max_side` pixels, with its metadata.

    A picture that is small enough is returned unchanged.

    Raises:
        ImageError: it should have a palette and has none.
    """
    width, height = picture.size
    if max(width, height) <= max_side:
        return picture
    scale = max_side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if isinstance(picture, DeepPicture):
        return DeepPicture(_reduce_deep(picture.pixels, size), picture.info, picture.format)
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).clip(0, 65535)[..., None]
        smaller = Image.fromarray(_reduce_deep(grey, size)[..., 0])
    else:
        smaller = _without_palette(picture).resize(size, Image.Resampling.LANCZOS)
    # The transparent value of a picture without alpha has become alpha.
    smaller.info = {key: value for key, value in picture.info.items() if key != "transparency"}
    smaller.format = picture.format
    return smaller


def _reduce_deep(pixels: Pixels16, size: tuple[int, int]) -> Pixels16:
    """Reduce (H, W, C) of 16 bits to (width, height); colours are weighted by their alpha."""
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
    """Return a picture in a mode whose values can be averaged."""
    if picture.mode in ("P", "PA"):
        if picture.palette is None:
            raise ImageError("the image is damaged: it has no palette; download or copy it again")
        return picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    if "transparency" in picture.info and picture.mode in ("1", "L", "RGB"):
        return picture.convert("RGBA" if picture.mode == "RGB" else "LA")
    return picture.convert("L") if picture.mode == "1" else picture
