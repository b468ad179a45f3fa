"""The metadata of a picture: EXIF, XMP, ICC profile, resolution.

Why no library: Pillow reads and writes all of these, and does so here. What it cannot do is done by
this module: remove the preview from EXIF without moving anything else (libraries such as piexif
rewrite EXIF, which breaks the offsets in makers' notes, and piexif is no longer maintained), and
skip damaged chunks of a PNG or segments of a JPEG so that the picture can be read.

Sources: EXIF 2.32 (CIPA DC-008), PNG (W3C, third edition), JPEG (ITU-T T.81, annex B), ITU-T H.273
for the numbers of colours.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Set
from typing import Any

from PIL import Image, PngImagePlugin

KEPT = {"icc_profile", "exif", "dpi", "xmp"}  # of a PIL picture's info, in the restored picture
PNG_START = b"\x89PNG\r\n\x1a\n"
# Chunks that the pixels need, and those that mark an animation.
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
PNG_COLOURS = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP"}
PNG_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}  # bytes
SRGB_GAMMA = 1 / 2.2  # as in PNG's gAMA
SRGB_CORNERS = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)  # as in PNG's cHRM
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # ITU-T H.273
TRANSFERS = {8: "linear light", 16: "PQ", 18: "HLG"}
EXIF_LIST, GPS_LIST = 0x8769, 0x8825
# The tags of a TIFF that other formats keep in EXIF: description, maker, model, software, time,
# artist, copyright, and the lists of the exposure and the place. All other tags are about the file.
TIFF_EXIF = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, EXIF_LIST, GPS_LIST}
XMP_TAG = 0x02BC


def kept_metadata(info: dict[Any, Any]) -> dict[Any, Any]:
    """Return the part of a picture's `info` that is still true once its pixels have changed."""
    kept = {key: value for key, value in info.items() if key in KEPT and value}
    if isinstance(kept.get("exif"), bytes):
        kept["exif"] = without_preview(kept["exif"])
    return kept


def without_preview(exif: bytes) -> bytes:
    """Return EXIF without its second directory, which contains a small preview of the photo.

    Everything else keeps its offset, because makers' notes contain offsets in formats that only the
    maker knows.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None:
        return exif
    result = bytearray(exif)
    with contextlib.suppress(struct.error):  # of truncated EXIF
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        link = start + first + 2 + 12 * struct.unpack_from(f"{order}H", exif, start + first)[0]
        (second,) = struct.unpack_from(f"{order}I", exif, link)
        if not second:
            return exif
        struct.pack_into(f"{order}I", result, link, 0)
        values = _short_values(exif, start, second, order)
        # The tags of offset and length: of a JPEG; of pixels in one strip.
        for offset, length in ((0x0201, 0x0202), (0x0111, 0x0117)):
            begin = start + values.get(offset, len(exif))
            end = min(begin + values.get(length, 0), len(exif))
            if begin < end == len(result):
                del result[begin:]
            elif begin < end:
                result[begin:end] = bytes(end - begin)
    return bytes(result)


def _short_values(exif: bytes, start: int, directory: int, order: str) -> dict[int, int]:
    """Return the tags of a directory that have one value of 16 or 32 bits."""
    values = {}
    for entry in range(struct.unpack_from(f"{order}H", exif, start + directory)[0]):
        place = start + directory + 2 + 12 * entry
        tag, kind, count = struct.unpack_from(f"{order}HHI", exif, place)
        if kind in (3, 4) and count == 1:
            (values[tag],) = struct.unpack_from(order + "HI"[kind - 3], exif, place + 8)
    return values


def with_less_metadata(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield a PNG or JPEG file with less and less metadata, and what was left out.

    Nothing is yielded for other files.

    First everything except EXIF and colours is left out, and what is damaged; then the colours;
    then EXIF, which contains the orientation.
    """
    for chunks, segments, what in (
        (
            PNG_COLOURS | {b"eXIf"},
            (b"Exif\0", b"ICC_PROFILE\0"),
            "all metadata except EXIF and the colour profile is dropped",
        ),
        ({b"eXIf"}, (b"Exif\0",), "all metadata except EXIF is dropped, also the colour profile"),
        (set(), (), "all metadata is dropped, also the orientation"),
    ):
        if content.startswith(PNG_START):
            yield _png_with(content, PNG_PIXELS | chunks), what
        elif content.startswith(b"\xff\xd8"):
            yield _jpeg_with(content, segments), what


def _png_with(content: bytes, chunks: Set[bytes]) -> bytes:
    """Return a PNG with only these of its chunks, without metadata whose checksum is wrong."""
    place = len(PNG_START)
    kept = bytearray(content[:place])
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        name, data = content[place + 4 : place + 8], content[place + 4 : end - 4]
        long_enough = len(data) - 4 >= PNG_LEAST.get(name, 0)
        sound = long_enough and zlib.crc32(data) == int.from_bytes(content[end - 4 : end], "big")
        if name in chunks and (sound or name in PNG_PIXELS):
            kept += content[place:end]
        place = end
    return bytes(kept) + content[place:]


def _jpeg_with(content: bytes, segments: tuple[bytes, ...]) -> bytes:
    """Return a JPEG with only those application segments that begin like this, and Adobe's.

    Adobe's segment says how the channels are coded.
    """
    place = 2
    kept = bytearray(content[:place])
    while (
        content[place : place + 1] == b"\xff"
        and (marker := content[place + 1 : place + 2]) != b"\xda"
    ):
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        adobe = marker == b"\xee" and end - place >= 16
        is_metadata = b"\xe0" <= marker <= b"\xef" or marker == b"\xfe"
        if adobe or content[place + 4 : end].startswith(segments) or not is_metadata:
            kept += content[place:end]
        place = end
    return bytes(kept) + content[place:]


def other_colours(picture: Image.Image, content: bytes) -> str:
    """Return the colour space that a file declares without an ICC profile, if it is not sRGB.

    Args:
        picture: the opened file.
        content: the file.

    Returns:
        The colour space in words; "" for sRGB, for a file with a profile, and for one that declares
        nothing.
    """
    if picture.info.get("icc_profile"):
        return ""
    if picture.format == "PNG" and content.startswith(PNG_START):
        place = content.find(b"cICP", 0, content.find(b"IDAT"))
        if place > 0:
            return _named_colours(content[place + 4], content[place + 5])
        return "" if "srgb" in picture.info else _measured_colours(picture.info)
    if picture.format in ("HEIF", "AVIF") and (place := content.find(b"colrnclx")) > 0:
        primaries, transfer = struct.unpack_from(
            ">HH", content[place + 8 : place + 12].ljust(4, b"\0")
        )
        return _named_colours(primaries, transfer)
    return ""


def _named_colours(primaries: int, transfer: int) -> str:
    return " ".join(filter(None, (PRIMARIES.get(primaries), TRANSFERS.get(transfer))))


def _measured_colours(info: dict[Any, Any]) -> str:
    """Return what differs from sRGB in a PNG's gAMA and cHRM."""
    gamma = info.get("gamma", SRGB_GAMMA)
    if abs(gamma - SRGB_GAMMA) > 0.03:
        return f"a gamma of {gamma:g}"
    corners = info.get("chromaticity", SRGB_CORNERS)
    differences = [abs(one - other) for one, other in zip(corners, SRGB_CORNERS, strict=True)]
    return "its own primaries" if max(differences) > 0.01 else ""


def descriptive(exif: Image.Exif) -> Image.Exif:
    """Return the tags of EXIF, or of a TIFF, that describe the photo rather than the file."""
    kept = Image.Exif()
    for tag in TIFF_EXIF & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in (EXIF_LIST, GPS_LIST) else exif[tag]
    return kept


def save_options(metadata: dict[str, Any], file_format: str) -> dict[str, Any]:
    """Return the options with which Pillow's `save` writes this metadata, and no other.

    Args:
        metadata: as in a picture's `info`.
        file_format: Pillow's name for the format.
    """
    options = {"icc_profile": None, **metadata}  # without it Pillow writes the picture's own
    if isinstance(options.get("xmp"), str):
        options["xmp"] = options["xmp"].encode("utf-8", "replace")
    if options.get("xmp") and file_format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options["xmp"].decode("utf-8", "replace"))
    if file_format == "TIFF":
        options["exif"] = tiff_tags(options)
    return options


def tiff_tags(options: dict[str, Any]) -> bytes:
    """Return EXIF and XMP as tags of a TIFF."""
    exif = Image.Exif()
    exif.load(options.get("exif", b""))
    tags = descriptive(exif)
    if options.get("xmp"):
        tags[XMP_TAG] = options["xmp"]
    return tags.tobytes()
