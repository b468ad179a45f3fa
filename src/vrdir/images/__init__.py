"""Images: reading, writing, and conversion to the package's internal form and back."""

from typing import TYPE_CHECKING

from vrdir.lazy import offer

if TYPE_CHECKING:
    from vrdir.images.contact_sheet import draw_contact_sheet, save_picture
    from vrdir.images.convert import open_image
    from vrdir.images.folders import files_below
    from vrdir.images.formats import FORMATS, IMAGE_SUFFIXES
    from vrdir.images.open_arrays import OpenImage
    from vrdir.images.reading import allow_megapixels, decode, read_file
    from vrdir.images.sixteen_bits import DeepPicture
    from vrdir.images.writing import encode, write_file

__all__ = [
    "FORMATS",
    "IMAGE_SUFFIXES",
    "DeepPicture",
    "OpenImage",
    "allow_megapixels",
    "decode",
    "draw_contact_sheet",
    "encode",
    "files_below",
    "open_image",
    "read_file",
    "save_picture",
    "write_file",
]

_HOMES = {
    "DeepPicture": "vrdir.images.sixteen_bits",
    "FORMATS": "vrdir.images.formats",
    "IMAGE_SUFFIXES": "vrdir.images.formats",
    "OpenImage": "vrdir.images.open_arrays",
    "allow_megapixels": "vrdir.images.reading",
    "decode": "vrdir.images.reading",
    "draw_contact_sheet": "vrdir.images.contact_sheet",
    "encode": "vrdir.images.writing",
    "files_below": "vrdir.images.folders",
    "open_image": "vrdir.images.convert",
    "read_file": "vrdir.images.reading",
    "save_picture": "vrdir.images.contact_sheet",
    "write_file": "vrdir.images.writing",
}

__getattr__, _ = offer(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
