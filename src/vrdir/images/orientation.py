"""Turn pictures as their EXIF orientation says."""

from __future__ import annotations

import logging

from PIL import Image, ImageOps

from vrdir.errors import first_line
from vrdir.images.headers import ORIENTATION
from vrdir.images.metadata import descriptive

logger = logging.getLogger(__name__)


def turn_upright(picture: Image.Image, name: str, own: bool, quiet: bool) -> Image.Image:
    """Return a decoded picture turned by its EXIF orientation.

    EXIF that cannot be read is left out.
    """
    try:
        if picture.info.get("exif"):
            # After an error, the picture's own `getexif` reports no EXIF instead of the error.
            Image.Exif().load(picture.info["exif"])
        upright = _transposed(picture, own)
        if picture.format == "TIFF":  # Pillow leaves its EXIF among the file's tags
            exif = descriptive(picture.getexif())
            if exif:
                upright.info["exif"] = exif.tobytes()
        return upright
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged EXIF raise many kinds
        if not quiet:
            logger.warning(
                "%s has EXIF data that cannot be read (%s); it is not copied",
                name,
                first_line(error),
            )
    bare = picture.copy()
    for key in ("exif", "Raw profile type exif"):
        bare.info.pop(key, None)
    try:
        # The orientation may be readable where the rest is not.
        orientation = picture.getexif().get(ORIENTATION)
        if orientation is not None:
            bare.getexif()[ORIENTATION] = orientation
        return ImageOps.exif_transpose(bare)
    except MemoryError:
        raise
    except Exception:
        return bare


def _transposed(picture: Image.Image, own: bool) -> Image.Image:
    if own and picture.getexif().get(ORIENTATION) not in range(2, 9):  # nothing to turn
        return picture
    return ImageOps.exif_transpose(picture)
