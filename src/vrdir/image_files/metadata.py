"""What a picture carries beside its pixels: EXIF, XMP, ICC profile, resolution."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

from PIL import Image

METADATA = {"icc_profile", "exif", "dpi", "xmp"}  # of a PIL picture's info: what a restored picture keeps
# Of a TIFF's own tags, what other formats call EXIF: description, maker, model, software, time, artist, copyright, and the lists of
# the exposure and the place. The rest says how that file is laid out.
TIFF_EXIF = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825}


def carried(info: dict[Any, Any]) -> dict[Any, Any]:
    """Of what a picture carries, what still holds once its pixels have changed."""
    kept = {k: v for k, v in info.items() if k in METADATA and v}
    if isinstance(kept.get("exif"), bytes):
        kept["exif"] = without_preview(kept["exif"])
    return kept


def without_preview(exif: bytes) -> bytes:
    """EXIF without its second directory, which holds a small picture of how the photo was.

    All else keeps its place, as makers' own notes need it: they point into the EXIF by numbers that nobody else knows.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return exif
    result = bytearray(exif)
    with contextlib.suppress(struct.error):  # of EXIF that is cut short
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        link = start + first + 2 + 12 * struct.unpack_from(f"{order}H", exif, start + first)[0]
        (second,) = struct.unpack_from(f"{order}I", exif, link)
        if not second:
            return exif
        struct.pack_into(f"{order}I", result, link, 0)
        values = {}
        for entry in range(struct.unpack_from(f"{order}H", exif, start + second)[0]):
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, start + second + 2 + 12 * entry)
            if kind in (3, 4) and count == 1:
                (values[tag],) = struct.unpack_from(order + "HI"[kind - 3], exif, start + second + 10 + 12 * entry)
        for place, length in ((0x0201, 0x0202), (0x0111, 0x0117)):  # a JPEG; or pixels, in one strip
            begin = start + values.get(place, len(exif))
            end = min(begin + values.get(length, 0), len(exif))
            if begin < end == len(result):
                del result[begin:]
            elif begin < end:
                result[begin:end] = bytes(end - begin)
    return bytes(result)


def descriptive(exif: Image.Exif) -> Image.Exif:
    """Of EXIF, or a TIFF's tags, those that say something of the photo."""
    kept = Image.Exif()
    for tag in TIFF_EXIF & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    return kept


def tiff_tags(options: dict[str, Any]) -> bytes:
    """EXIF, and XMP, as tags of a TIFF."""
    exif = Image.Exif()
    exif.load(options.get("exif", b""))
    tags = descriptive(exif)
    if options.get("xmp"):
        tags[0x02BC] = options["xmp"]
    return tags.tobytes()
