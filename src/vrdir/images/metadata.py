"""What a picture carries beside its pixels: EXIF, XMP, ICC profile, resolution."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Iterator, Set
from typing import Any

from PIL import Image, PngImagePlugin

METADATA = {
    "icc_profile",
    "exif",
    "dpi",
    "xmp",
}  # of a PIL picture's info: what a restored picture keeps
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_PIXELS = {
    b"IHDR",
    b"PLTE",
    b"tRNS",
    b"IDAT",
    b"IEND",
    b"acTL",
    b"fcTL",
    b"fdAT",
}  # with those by which an animation is known as one
PNG_COLOURS = {b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP"}
PNG_LEAST = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"cICP": 4}  # bytes
SRGB_GAMMA, SRGB_CORNERS = (
    1 / 2.2,
    (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
)  # as PNG's gAMA and cHRM tell them
PRIMARIES = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # ITU-T H.273
TRANSFERS = {8: "linear light", 16: "PQ", 18: "HLG"}
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
            tag, kind, count = struct.unpack_from(
                f"{order}HHI", exif, start + second + 2 + 12 * entry
            )
            if kind in (3, 4) and count == 1:
                (values[tag],) = struct.unpack_from(
                    order + "HI"[kind - 3], exif, start + second + 10 + 12 * entry
                )
        for place, length in (
            (0x0201, 0x0202),
            (0x0111, 0x0117),
        ):  # a JPEG; or pixels, in one strip
            begin = start + values.get(place, len(exif))
            end = min(begin + values.get(length, 0), len(exif))
            if begin < end == len(result):
                del result[begin:]
            elif begin < end:
                result[begin:end] = bytes(end - begin)
    return bytes(result)


def with_less_metadata(content: bytes) -> Iterator[tuple[bytes, str]]:
    """A PNG or JPEG file with less and less beside its pixels, and what is left out each time; nothing of other files.

    First all but EXIF and colours goes, and what is damaged; then the colours; then EXIF, which says how a picture is to be turned.
    """
    for chunks, segments, what in (
        (
            PNG_COLOURS | {b"eXIf"},
            (b"Exif\0", b"ICC_PROFILE\0"),
            "all but EXIF and its colours is left out",
        ),
        ({b"eXIf"}, (b"Exif\0",), "all but EXIF is left out, its colours' profile, too"),
        (set(), (), "all of it is left out, and how the picture is to be turned with it"),
    ):
        if content.startswith(PNG_START):
            yield _png_with(content, PNG_PIXELS | chunks), what
        elif content.startswith(b"\xff\xd8"):
            yield _jpeg_with(content, segments), what


def _png_with(content: bytes, chunks: Set[bytes]) -> bytes:
    """A PNG with these of its chunks, the others' checksums right."""
    place = len(PNG_START)
    kept = bytearray(content[:place])
    while place + 12 <= len(content):
        end = place + 12 + int.from_bytes(content[place : place + 4], "big")
        name, data = content[place + 4 : place + 8], content[place + 4 : end - 4]
        sound = len(data) - 4 >= PNG_LEAST.get(name, 0) and zlib.crc32(data) == int.from_bytes(
            content[end - 4 : end], "big"
        )
        if name in chunks and (sound or name in PNG_PIXELS):
            kept += content[place:end]
        place = end
    return bytes(kept) + content[place:]


def _jpeg_with(content: bytes, segments: tuple[bytes, ...]) -> bytes:
    """A JPEG with those of its application's segments that begin like this, and what says how its channels are to be read."""
    place = 2
    kept = bytearray(content[:place])
    while (
        content[place : place + 1] == b"\xff"
        and (marker := content[place + 1 : place + 2]) != b"\xda"
    ):
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        adobe = marker == b"\xee" and end - place >= 16
        if (
            adobe
            or content[place + 4 : end].startswith(segments)
            or not (b"\xe0" <= marker <= b"\xef" or marker == b"\xfe")
        ):
            kept += content[place:end]
        place = end
    return bytes(kept) + content[place:]


def other_colours(picture: Image.Image, content: bytes) -> str:
    """The colours that an opened file has by other means than an ICC profile, where they are not sRGB's; "" as far as it does not say."""
    primaries = transfer = 1
    if picture.info.get("icc_profile"):
        return ""
    if picture.format == "PNG" and content.startswith(PNG_START):
        place = content.find(b"cICP", 0, content.find(b"IDAT"))
        if place > 0:
            primaries, transfer = content[place + 4], content[place + 5]
        elif "srgb" not in picture.info:
            gamma, corners = (
                picture.info.get("gamma", SRGB_GAMMA),
                picture.info.get("chromaticity", SRGB_CORNERS),
            )
            if abs(gamma - SRGB_GAMMA) > 0.03:
                return f"a gamma of {gamma:g}"
            if (
                max(abs(one - other) for one, other in zip(corners, SRGB_CORNERS, strict=True))
                > 0.01
            ):
                return "primaries of its own"
    elif picture.format in ("HEIF", "AVIF") and (place := content.find(b"colrnclx")) > 0:
        primaries, transfer = (
            int.from_bytes(content[place + start : place + start + 2], "big") for start in (8, 10)
        )
    return " ".join(filter(None, (PRIMARIES.get(primaries), TRANSFERS.get(transfer))))


def descriptive(exif: Image.Exif) -> Image.Exif:
    """Of EXIF, or a TIFF's tags, those that say something of the photo."""
    kept = Image.Exif()
    for tag in TIFF_EXIF & set(exif):
        kept[tag] = exif.get_ifd(tag) if tag in (0x8769, 0x8825) else exif[tag]
    return kept


def save_options(metadata: dict[str, Any], file_format: str) -> dict[str, Any]:
    """What Pillow's `save` takes to write this metadata, and none of the picture's own, into a file of a format."""
    options = {"icc_profile": None, **metadata}  # without which Pillow takes the picture's own
    if isinstance(options.get("xmp"), str):
        options["xmp"] = options["xmp"].encode("utf-8", "replace")
    if options.get("xmp") and file_format == "PNG":
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options["xmp"].decode("utf-8", "replace"))
    if file_format == "TIFF":
        options["exif"] = tiff_tags(options)
    return options


def tiff_tags(options: dict[str, Any]) -> bytes:
    """EXIF, and XMP, as tags of a TIFF."""
    exif = Image.Exif()
    exif.load(options.get("exif", b""))
    tags = descriptive(exif)
    if options.get("xmp"):
        tags[0x02BC] = options["xmp"]
    return tags.tobytes()
