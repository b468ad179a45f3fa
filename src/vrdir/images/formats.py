"""The image file formats: what each can store, and how a file's format is recognised.

`FORMATS` is the one table of the formats that are read and written. The suffixes, the checks of the
writer, the memory budget, the help texts, the media types of the HTTP service and the table in
docs/images.md are made from it. docs/extending/format.md explains how to add one.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image, UnidentifiedImageError

from vrdir.errors import ImageError, MissingPackageError, require
from vrdir.images.tiff import TIFF_STARTS, directories, full_page, with_one_page
from vrdir.regular_files import is_lfs_pointer, lfs_advice

TWO_BYTES, PIXELS_PER_METRE = 65535.0, 5e7  # the highest resolutions that headers can store, in dpi


class Format(NamedTuple):
    """What a file format can store.

    Attributes:
        name: Pillow's name for it.
        suffixes: in lower case, the usual one first.
        media_types: those of HTTP, the one to send first; without one, `vrdir serve` returns PNG.
        lossy: the pixels change when written.
        quality: the encoder takes a quality of 1 to 100.
        alpha: it can store an alpha channel.
        grey_bits, colour_bits: the most bits per channel of grey and of RGB that are kept.
        floats: it can store grey in 32-bit floating point.
        exif, xmp, icc: it can store EXIF, XMP, an ICC profile.
        highest_dpi: the highest resolution that its header can store, in dots per inch; 0 if it
            can store none.
        exif_limit, xmp_limit: the most bytes of these; None for no limit.
        decoding_bytes: bytes per pixel and channel that the decoder needs beside the picture; 0 if
            it works row by row.
        blocking: the decoder keeps Python's lock until the end, so Ctrl-C has to wait.
        bare_suffixes: those of its suffixes that mean a code stream without a container (JPEG
            2000).
        aliases: further names that Pillow reports for files of this format.
    """

    name: str
    suffixes: tuple[str, ...]
    media_types: tuple[str, ...] = ()
    lossy: bool = False
    quality: bool = False
    alpha: bool = False
    grey_bits: int = 8
    colour_bits: int = 8
    floats: bool = False
    exif: bool = False
    xmp: bool = False
    icc: bool = False
    highest_dpi: float = 0.0
    exif_limit: int | None = None
    xmp_limit: int | None = None
    decoding_bytes: int = 0
    blocking: bool = False
    bare_suffixes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


FORMATS = (
    Format(
        "PNG",
        (".png", ".apng"),
        media_types=("image/png",),
        alpha=True,
        grey_bits=16,
        colour_bits=16,
        exif=True,
        xmp=True,
        icc=True,
        highest_dpi=PIXELS_PER_METRE,
    ),
    Format(
        "TIFF",
        (".tif", ".tiff"),
        media_types=("image/tiff",),
        alpha=True,
        grey_bits=16,
        colour_bits=16,
        floats=True,
        exif=True,
        xmp=True,
        icc=True,
        highest_dpi=PIXELS_PER_METRE,
    ),
    Format(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        media_types=("image/jpeg", "image/jpg"),
        lossy=True,
        quality=True,
        exif=True,
        xmp=True,
        icc=True,
        highest_dpi=TWO_BYTES,
        exif_limit=65533,  # a segment without its length
        xmp_limit=65504,  # and without the XMP marker
        decoding_bytes=2,
        aliases=("MPO",),
    ),
    Format(
        "WEBP",
        (".webp",),
        media_types=("image/webp",),
        lossy=True,
        quality=True,
        alpha=True,
        exif=True,
        xmp=True,
        icc=True,
        decoding_bytes=3,
        blocking=True,
    ),
    Format(
        "AVIF",
        (".avif",),
        media_types=("image/avif",),
        lossy=True,
        quality=True,
        alpha=True,
        exif=True,
        xmp=True,
        icc=True,
        decoding_bytes=4,
        blocking=True,
    ),
    Format(
        "HEIF",
        (".heic", ".heif"),
        media_types=("image/heic", "image/heif"),
        lossy=True,
        quality=True,
        alpha=True,
        exif=True,
        xmp=True,
        icc=True,
        decoding_bytes=4,
    ),
    Format(
        "JPEG2000",
        (".jp2", ".jpf", ".jpx", ".j2k", ".j2c", ".jpc"),
        media_types=("image/jp2",),
        alpha=True,
        grey_bits=16,
        decoding_bytes=8,
        blocking=True,
        bare_suffixes=(".j2k", ".j2c", ".jpc"),
    ),
    Format("BMP", (".bmp",), ("image/bmp",), highest_dpi=PIXELS_PER_METRE),
    Format("DIB", (".dib",), highest_dpi=PIXELS_PER_METRE),
    Format("TGA", (".tga", ".icb", ".vda", ".vst"), ("image/x-tga",), alpha=True),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm"), ("image/x-portable-pixmap",), grey_bits=16),
    Format("GIF", (".gif",), ("image/gif",), lossy=True),
)
BY_NAME = {name: each for each in FORMATS for name in (each.name, *each.aliases)}
UNKNOWN = Format("", ())  # what is assumed of formats that are only read

# Formats that Pillow reads and few programs want written: their results are written as PNG.
ONLY_READ = {
    ".blp", ".bw", ".cur", ".dcx", ".dds", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr",
    ".icns", ".ico", ".im", ".msp", ".pcd", ".pcx", ".pfm", ".psd", ".pxr", ".qoi", ".ras", ".rgb",
    ".rgba", ".sgi", ".xbm", ".xpm",
}  # fmt: skip
WRITTEN_SUFFIXES = {suffix for each in FORMATS for suffix in each.suffixes}
IMAGE_SUFFIXES = WRITTEN_SUFFIXES | ONLY_READ
HEIF_SUFFIXES = set(BY_NAME["HEIF"].suffixes)  # which need the extra `heic`
WITH_QUALITY = tuple(each.name for each in FORMATS if each.quality)
# Formats that Pillow hands to another program (EPS runs Ghostscript), weather data, films.
NOT_TAKEN = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

ICON_START, ICON_PIXELS = b"\0\0\1\0", 2048 * 2048  # Windows makes none above 256 x 256
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
RAW_STARTS = (
    b"FUJIFILMCCD-RAW",
    b"FOVb",
    b"\0MRM",
    b"IIRO",
    b"IIRS",
    b"MMOR",
    b"IIU\0",
    b"II\x1a\0\0\0HEAPCCDR",
)
RAW_SUFFIXES = {
    ".3fr", ".arq", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq",
    ".k25", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2",
    ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
# Advice for files that are not images, by a regular expression for their first bytes.
OTHER_KINDS = {
    rb"%PDF": "a PDF document; export its pages as PNG or TIFF first",
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS drawing; export it as PNG first",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg": "an SVG drawing; export it as PNG first",
    rb"\s*<(!doctype html|html)": (
        "a web page, not the image that it may show; download the image itself"
    ),
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": (
        "JPEG XL, which Pillow cannot read; convert it to PNG first (djxl)"
    ),
    rb"....ftyp(isom|iso\d|mp4|M4V|qt  |avc1|3gp)|\x1aE\xdf\xa3|RIFF....AVI ": (
        "a video, by its content; rename it with a video's suffix"
    ),
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!": "an archive; unpack it first",
}


def format_named(name: str | None) -> Format:
    """Return the entry of `FORMATS` for Pillow's name of a format, or else `UNKNOWN`."""
    return BY_NAME.get(name or "", UNKNOWN)


def format_of_suffix(suffix: str) -> Format | None:
    """Return the format that is written for a suffix in lower case, or None."""
    return next((each for each in FORMATS if suffix in each.suffixes), None)


def plain_suffix(name: str | Path) -> str:
    """Return the suffix that gives a file's format, in lower case.

    ".jpg" for "photo.JPG", and for "photo.JPG_large", as some sites name their files.
    """
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    known = re.match(r"(\.[a-z0-9]+)[_:-](large|orig|original|medium|small|thumb)$", suffix)
    return known[1] if known and known[1] in IMAGE_SUFFIXES else suffix


def open_header(file: IO[bytes], name: str) -> Image.Image:
    """Open a picture: its header is read, its pixels are not.

    A TIFF with smaller copies of its picture is opened at the full one.

    Args:
        file: the image file.
        name: its name in errors.

    Raises:
        ImageError: it is a Git LFS pointer, a camera's RAW file or of another known kind that is
            not an image; or HEIC without the extra `heic`.
        Exception: whatever Pillow raises for a damaged file.
    """
    start = file.read(1024)
    if is_lfs_pointer(start):
        raise ImageError(lfs_advice(name))
    if is_raw(start):
        raise ImageError(raw_advice(name))
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        register_heif(name)
    if start.startswith(ICON_START):
        _check_icons(file, name)
    if start.startswith(TIFF_STARTS):
        file = _at_full_page(file, name)
    try:
        return open_with_pillow(file)
    except UnidentifiedImageError:
        if plain_suffix(name) in RAW_SUFFIXES:
            raise ImageError(raw_advice(name)) from None
        for form, kind in OTHER_KINDS.items():
            if re.match(form, start, re.DOTALL | re.IGNORECASE):
                raise ImageError(f"{name} is {kind}") from None
        raise


def _check_icons(file: IO[bytes], name: str) -> None:
    """Raise ImageError for an ICO with a picture that is far larger than an icon.

    The list in its header says nothing of it, and Pillow decodes icons when it opens them.
    """
    file.seek(4)
    count = int.from_bytes(file.read(2), "little")
    entries = file.read(16 * count)
    for (offset,) in struct.iter_unpack("<12xI", entries[: len(entries) // 16 * 16]):
        file.seek(offset)
        start = file.read(24).ljust(24, b"\0")
        is_png = start.startswith(b"\x89PNG")
        width, height = struct.unpack_from(*((">II", start, 16) if is_png else ("<ii", start, 4)))
        if abs(width * height) > ICON_PIXELS:
            raise ImageError(
                f"{name} is an icon of {width} x {abs(height)} pixels, which no program writes: it "
                "is damaged or malicious"
            )


def _at_full_page(file: IO[bytes], name: str) -> IO[bytes]:
    """Return a TIFF whose first picture is the full one.

    Raises ImageError for a camera's RAW file.
    """
    chain, below = directories(file)
    if any(directory.is_raw for directory in chain + below) or plain_suffix(name) in RAW_SUFFIXES:
        raise ImageError(raw_advice(name))
    page = full_page(chain, below)
    if page is not None and len(chain) + len(below) > 1:
        return with_one_page(file, page)
    return file


def is_raw(start: bytes) -> bool:
    """Return whether a file that begins like this is a camera's RAW.

    RAW files that begin like any TIFF are recognised by their directories (`Directory.is_raw`).
    """
    return start.startswith(RAW_STARTS) or start[8:11] == b"CR\2" or start[4:12] == b"ftypcrx "


def raw_advice(name: str) -> str:
    """Return the error message for a camera's RAW file."""
    return (
        f"{name} is a camera's RAW file: develop it first (rawpy, darktable), "
        "and restore the resulting TIFF, PNG or JPEG"
    )


def open_with_pillow(file: IO[bytes]) -> Image.Image:
    """Open a picture with Pillow's own readers, but not those in `NOT_TAKEN`.

    `PIL.Image.open` is not used: other packages replace it (ultralytics does), and it would try the
    formats in `NOT_TAKEN`.

    Raises:
        UnidentifiedImageError: no reader knows the format.
        DecompressionBombError: it has more pixels than Pillow's limit allows.
        Exception: whatever the format's reader raises.
    """
    file.seek(0)
    start = file.read(16)
    tried = set(NOT_TAKEN)
    for load in (Image.preinit, Image.init):  # the few common formats, then all
        load()
        for file_format in [name for name in Image.ID if name not in tried]:
            tried.add(file_format)
            picture = _try_format(file, start, file_format)
            if picture is None:
                continue
            most = 2 * (Image.MAX_IMAGE_PIXELS or float("inf"))
            if picture.width * picture.height > most:
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")
            return picture
    raise UnidentifiedImageError("unknown format")


def _try_format(file: IO[bytes], start: bytes, file_format: str) -> Image.Image | None:
    """Return the picture if the file is of this format, else None."""
    factory, accepts = Image.OPEN[file_format]
    try:
        accepted = not accepts or accepts(start)
        if not accepted or isinstance(accepted, str):  # a text gives the reason against it
            return None
        file.seek(0)
        return factory(file, "")
    except (SyntaxError, IndexError, TypeError, struct.error):  # how readers reject a format
        return None


def register_heif(name: str) -> None:
    """Add HEIC to Pillow's formats.

    Raises ImageError, naming the file and the extra, if that is not installed.
    """
    try:
        pillow_heif = require("pillow_heif", "heic", f"{name} is HEIC, which needs an extra")
    except MissingPackageError as error:
        raise ImageError(str(error)) from None
    pillow_heif.register_heif_opener()
