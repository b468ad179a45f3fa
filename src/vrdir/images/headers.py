"""What the header of an image file says, without decoding its pixels."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from vrdir.errors import ImageError, first_line
from vrdir.images.formats import open_header
from vrdir.regular_files import open_regular

ORIENTATION = 0x0112  # the EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # its values for a picture that is shown turned by 90 degrees


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Return the width and height, in pixels, of an opened picture as it is shown."""
    if picture.format == "TIFF":  # Pillow has already turned it
        return picture.size
    # Without EXIF, PNG's own getexif decodes the whole image; that of the base class does not.
    turned = Image.Image.getexif(picture).get(ORIENTATION, 1) in SIDEWAYS
    return picture.size[::-1] if turned else picture.size


def image_size(path: Path) -> tuple[int, int]:
    """Return the width and height, in pixels, of an image file as it is shown.

    Raises:
        ImageError: it does not exist, or its header is not an image's.
    """
    try:
        with open_regular(path) as file, open_header(file, str(path)) as picture:
            return upright_size(picture)
    except ImageError:
        raise
    except Exception as error:  # decoders raise any error on damaged files
        raise ImageError(f"{path} cannot be read as an image ({first_line(error)})") from None
