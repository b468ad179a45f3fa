"""Pictures that cannot be reduced are refused in words."""

import pytest
from PIL import Image

from vrdir.errors import ImageError
from vrdir.images.reducing import reduced


def test_picture_without_palette_raises() -> None:
    """Damaged ICNS files have been decoded to such pictures."""
    picture = Image.new("P", (100, 100))
    picture.palette = None
    with pytest.raises(ImageError, match="palette"):
        reduced(picture, 10)
