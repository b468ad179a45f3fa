"""Which file is of which format: by its suffix, by its first bytes, and which of them are taken."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from vrdir.errors import ImageError
from vrdir.images.tiff import TIFF_STARTS, directories, full_page, with_one_page
from vrdir.regular_files import is_lfs_pointer, lfs_advice

HEIF_SUFFIXES = {".heic", ".heif"}  # read and written with the extra `heic`
JPEG2000_STREAM_SUFFIXES = {
    ".j2c",
    ".j2k",
    ".jpc",
}  # of a JPEG 2000 without the boxes of a JP2 around it
# By Pillow's name: the suffixes of the formats that are read and written.
WRITTEN = {
    "PNG": {".apng", ".png"},
    "TIFF": {".tif", ".tiff"},
    "JPEG": {".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"},
    "WEBP": {".webp"},
    "AVIF": {".avif"},
    "HEIF": HEIF_SUFFIXES,
    "JPEG2000": {".jp2", ".jpf", ".jpx"} | JPEG2000_STREAM_SUFFIXES,
    "BMP": {".bmp"},
    "DIB": {".dib"},
    "TGA": {".icb", ".tga", ".vda", ".vst"},
    "PPM": {".pbm", ".pgm", ".pnm", ".ppm"},
    "GIF": {".gif"},
}
# Pictures that Pillow reads and that few programs want written: what is restored of them becomes
# PNG.
ONLY_READ = {
    ".blp", ".bw", ".cur", ".dcx", ".dds", ".fit", ".fits", ".flc", ".fli", ".ftc", ".ftu", ".gbr", ".icns", ".ico", ".im", ".msp",
    ".pcd", ".pcx", ".pfm", ".psd", ".pxr", ".qoi", ".ras", ".rgb", ".rgba", ".sgi", ".xbm", ".xpm",
}  # fmt: skip
WRITTEN_SUFFIXES = {suffix for suffixes in WRITTEN.values() for suffix in suffixes}
IMAGE_SUFFIXES = WRITTEN_SUFFIXES | ONLY_READ
# What Pillow opens for another program to read: drawings (EPS by running Ghostscript), weather,
# films.
NOT_TAKEN = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

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
    ".3fr", ".arq", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc", ".mef", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
}  # fmt: skip
OTHERS = {  # what files that are no pictures for Pillow often are, by their first bytes
    rb"%PDF": "a PDF document; export its pages as PNG or TIFF first",
    rb"%!PS|\xc5\xd0\xd3\xc6": "an EPS drawing; export it as PNG first",
    rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg": "an SVG drawing; export it as PNG first",
    rb"\s*<(!doctype html|html)": "a web page, not the image that it may show; get the image itself",
    rb"\xff\x0a|\x00\x00\x00\x0cJXL ": "JPEG XL, which Pillow cannot read; turn it into PNG first (djxl)",
    rb"....ftyp(isom|iso\d|mp4|M4V|qt  |avc1|3gp)|\x1aE\xdf\xa3|RIFF....AVI ": "a video, by what is in it; give it a video's suffix",
    rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!": "an archive; unpack it first",
}


def plain_suffix(name: str | Path) -> str:
    """The suffix that tells a file's format, in small letters: ".jpg" for "photo.JPG", and for
    "photo.JPG_large" as some sites call it."""
    suffix = Path(name).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return suffix
    known = re.match(r"(\.[a-z0-9]+)[_:-](large|orig|original|medium|small|thumb)$", suffix)
    return known[1] if known and known[1] in IMAGE_SUFFIXES else suffix


def open_header(file: IO[bytes], name: str) -> Image.Image:
    """A picture of which the header is read and no pixel; of a TIFF with smaller copies in it the
    full one.

    Raises ImageError, which calls it `name`, or what Pillow raises.
    """
    start = file.read(1024)
    if is_lfs_pointer(start):
        raise ImageError(lfs_advice(name))
    if is_raw(start):
        raise ImageError(raw_advice(name))
    if start[4:8] == b"ftyp" and start[8:12] in HEIF_BRANDS:
        register_heif(name)
    if start.startswith(TIFF_STARTS):
        chain, below = directories(file)
        if (
            any(directory.is_raw for directory in chain + below)
            or plain_suffix(name) in RAW_SUFFIXES
        ):
            raise ImageError(raw_advice(name))
        page = full_page(chain, below)
        if page is not None and len(chain) + len(below) > 1:
            file = with_one_page(file, page)
    try:
        return opened(file)
    except UnidentifiedImageError:
        kind = next(
            (
                words
                for form, words in OTHERS.items()
                if re.match(form, start, re.DOTALL | re.IGNORECASE)
            ),
            "",
        )
        if plain_suffix(name) in RAW_SUFFIXES:
            raise ImageError(raw_advice(name)) from None
        if kind:
            raise ImageError(f"{name} is {kind}") from None
        raise


def is_raw(start: bytes) -> bool:
    """Whether a file that begins like this is a camera's RAW; those that begin like any TIFF are
    known by their directories."""
    return start.startswith(RAW_STARTS) or start[8:11] == b"CR\2" or start[4:12] == b"ftypcrx "


def raw_advice(name: str) -> str:
    return f"{name} is a camera's RAW file: develop it first (rawpy, darktable), and restore the TIFF, PNG or JPEG that comes of it"


def opened(file: IO[bytes]) -> Image.Image:
    """`PIL.Image.open`, whoever has put something else in its place, as ultralytics does; without
    the formats that are not taken.

    Raises UnidentifiedImageError where no format knows it, DecompressionBombError, or what the
    format's reader raises.
    """
    file.seek(0)
    start = file.read(16)
    tried = set(NOT_TAKEN)
    for load in (Image.preinit, Image.init):  # the few that are common, then all
        load()
        for file_format in [name for name in Image.ID if name not in tried]:
            tried.add(file_format)
            factory, accepts = Image.OPEN[file_format]
            try:
                accepted = not accepts or accepts(start)
                if not accepted or isinstance(accepted, str):  # a text says why not
                    continue
                file.seek(0)
                picture = factory(file, "")
            except (
                SyntaxError,
                IndexError,
                TypeError,
                struct.error,
            ):  # by which a reader says that it is another format
                continue
            most = 2 * (Image.MAX_IMAGE_PIXELS or float("inf"))
            if picture.width * picture.height > most:
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels")
            return picture
    raise UnidentifiedImageError("no known format")


def register_heif(name: str) -> None:
    """Teach Pillow HEIC. Raises ImageError, which names the file and the extra, where that is not
    installed."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(
            f"{name} is HEIC, which needs an extra: pip install 'vrdir[heic]'"
        ) from None
    pillow_heif.register_heif_opener()
