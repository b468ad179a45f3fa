"""Encoded images, read: any file format that Pillow knows, whole, upright, and with 16 bits where it has them."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import os
import stat
from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vrdir.image_files.metadata import descriptive, other_colours, with_less_metadata
from vrdir.image_files.sixteen_bits import DeepPicture, raw_mode, read_deep, with_alpha
from vrdir.image_files.whole_files import ImageError, first_line

logger = logging.getLogger(__name__)
HEIF_SUFFIXES = {".heic", ".heif"}  # read and written with the extra `heic`
IMAGE_SUFFIXES = {".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"} | HEIF_SUFFIXES
HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
ORIENTATION, PHOTOMETRIC = 0x0112, 262
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
Picture = Image.Image | DeepPicture


def read_file(path: Path) -> Picture:
    """Read an image file whole and upright. Raises ImageError: no such file, a folder, empty, no image, damaged, unreadable."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):  # a pipe would never end
            raise ImageError(f"{path} is no ordinary file; give an image file")
        content = path.read_bytes()
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(f"{path} is a folder{', not an image' if readable else ' that cannot be read; check its permissions'}") from None
    except OSError as error:
        advice = {errno.ENAMETOOLONG: "give it a shorter name", errno.ELOOP: "it is a link that leads to itself"}
        raise ImageError(f"{path} cannot be read ({error.strerror}); {advice.get(error.errno or 0, 'check its permissions')}") from None
    return decode(content, str(path))


def decode(content: bytes, name: str) -> Picture:
    """Decode an encoded image file. Raises ImageError, which calls it `name`."""
    try:
        return _decoded(content, name)
    except ImageError as error:
        for less, what in with_less_metadata(content):
            if len(less) < len(content):
                with contextlib.suppress(ImageError):
                    picture = _decoded(less, name)
                    logger.warning("%s has metadata that cannot be read; %s", name, what)
                    return picture
        raise error from None


def _decoded(content: bytes, name: str) -> Picture:
    if not content:
        raise ImageError(f"{name} is empty (0 bytes)")
    picture = _opened(content, name)
    space = other_colours(picture, content)
    if space:
        logger.warning(
            "%s is in %s, which is left out: what comes out is taken for sRGB; give it an ICC profile to keep its colours", name, space
        )
    if raw_mode_of(picture, name):
        planes = itertools.count()  # of one file, so that one warning is enough
        pixels, info = read_deep(lambda: _opened(content, name), lambda plane: settled(plane, name, quiet=next(planes) > 0))
        return DeepPicture(pixels, info, picture.format)
    bits = _bits_lost(picture, content)
    if bits:
        logger.warning("%s has %d bits a channel; only the upper 8 are read (PNG and TIFF are read whole)", name, bits)
    upright = settled(picture, name)
    if upright.mode == "I;16" and "transparency" in upright.info:
        return DeepPicture(with_alpha(np.asarray(upright)[..., None], upright.info["transparency"]), upright.info, picture.format)
    return upright


def open_header(file: IO[bytes], name: str) -> Image.Image:
    """A picture of which the header is read and no pixel. Raises ImageError, which calls it `name`, or what Pillow raises."""
    start = file.read(12)
    file.seek(0)
    if start[4:8] == b"ftyp" and start[8:] in HEIF_BRANDS:
        register_heif(name)
    return Image.open(file)


def register_heif(name: str) -> None:
    """Teach Pillow HEIC. Raises ImageError, which names the file and the extra, where that is not installed."""
    try:
        import pillow_heif
    except ImportError:
        raise ImageError(f"{name} is HEIC, which needs an extra: pip install 'vrdir[heic]'") from None
    pillow_heif.register_heif_opener()


def allow_megapixels(limit: float) -> None:
    """Open pictures of up to `limit` megapixels, in this whole process. Pillow's own limit is about 179.

    Raises:
        ValueError: the limit is not positive, or infinite.
    """
    if not (limit > 0 and np.isfinite(limit)):
        raise ValueError(f"a limit of megapixels is a positive number, not {limit}")
    Image.MAX_IMAGE_PIXELS = round(limit * 1e6 / 2)  # Pillow warns from there on and refuses from twice that


def _opened(content: bytes, name: str) -> Image.Image:
    """The header read, the pixels not yet. Raises ImageError, which calls it `name`."""
    try:
        return open_header(io.BytesIO(content), name)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        order: Literal["little", "big"] = "little" if content.startswith(b"I") else "big"
        directory = content[8:16] if content[2:4] in (b"+\0", b"\0+") else content[4:8]
        if content.startswith(TIFF_STARTS) and int.from_bytes(directory, order) >= len(content):
            raise ImageError(f"{name} is damaged or cut short (its directory is missing); get it again") from None
        if content.startswith(TIFF_STARTS):
            raise ImageError(
                f"{name} is a kind of TIFF that Pillow cannot read; save it as RGB or RGBA of 8 or 16 bits, or as grey"
            ) from None
        raise ImageError(f"{name} is no image, or of a file format that Pillow does not know") from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} has more than {limit:.0f} megapixels, which few honest files have; if you trust it, raise the limit "
            "(--max-megapixels, or PIL.Image.MAX_IMAGE_PIXELS)"
        ) from None
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None


def raw_mode_of(picture: Image.Image, name: str) -> str | None:
    try:
        return raw_mode(picture)
    except ValueError as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def settled(picture: Image.Image, name: str, quiet: bool = False) -> Image.Image:
    """Decoded whole, one frame, upright. Raises ImageError, which calls it `name`, as warnings do unless `quiet`."""
    try:
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a camera's MPO holds one photo and previews of it
            kind = "pages" if picture.format == "TIFF" else "frames"
            raise ImageError(f"{name} holds {frames} {kind}; save each as a file of its own first (such as `magick FILE %04d.png`)")
        white = _grey_white(picture)
        picture.load()
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(f"{name} is damaged or cut short ({first_line(error)}); get it again") from None
    upright = _upright(picture, name, quiet)
    transparent = upright.info.get("transparency")
    if isinstance(transparent, int) and transparent <= white < 255:  # Pillow scales the pixels to 255, and leaves this as it was
        upright.info["transparency"] = transparent * 255 // white
    if (
        upright.mode.startswith("I;16") and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0
    ):  # white is zero, which Pillow undoes in 8 bits
        info = upright.info
        upright = Image.fromarray(65535 - np.asarray(upright).astype(np.uint16))
        upright.info = info
    upright.format = picture.format
    return upright


def _grey_white(picture: Image.Image) -> int:
    """The value of white in an opened PNG, not yet decoded, of grey with 2 or 4 bits; 255 for all others."""
    tiles = getattr(picture, "tile", None)
    if picture.format != "PNG" or not tiles:
        return 255
    args = tiles[0].args
    return {"L;2": 3, "L;4": 15}.get(args if isinstance(args, str) else args[0], 255)


def _upright(picture: Image.Image, name: str, quiet: bool) -> Image.Image:
    """A decoded picture turned as its EXIF says. What of that cannot be read is left behind: the pixels are sound all the same."""
    try:
        if picture.info.get("exif"):
            Image.Exif().load(picture.info["exif"])  # what the picture itself says of it, after an error, is that there is none
        upright = ImageOps.exif_transpose(picture)
        if picture.format == "TIFF" and (exif := descriptive(picture.getexif())):  # which Pillow leaves among the file's tags
            upright.info["exif"] = exif.tobytes()
        return upright
    except MemoryError:
        raise
    except Exception as error:  # and so do those of odd metadata
        if not quiet:
            logger.warning("%s has EXIF that cannot be read (%s); it is left out", name, first_line(error))
    bare = picture.copy()
    for key in ("exif", "Raw profile type exif"):
        bare.info.pop(key, None)
    try:
        orientation = picture.getexif().get(ORIENTATION)  # which may be read where the rest cannot
        if orientation is not None:
            bare.getexif()[ORIENTATION] = orientation
        return ImageOps.exif_transpose(bare)
    except MemoryError:
        raise
    except Exception:
        return bare


def _bits_lost(picture: Image.Image, content: bytes) -> int:
    """The bits a channel of a file that Pillow reads as 8; 0 for one that loses none."""
    bits = 8
    if picture.mode in ("L", "LA", "RGB", "RGBA"):
        if picture.format == "PPM":  # P6, width, height, white: comments aside, the fourth word
            white = [word for line in content[:200].split(b"\n") for word in line.partition(b"#")[0].split()][3:4]
            bits = int(white[0]).bit_length() if white and white[0].isdigit() and content[:2] in (b"P2", b"P3", b"P5", b"P6") else 8
        elif picture.format == "JPEG2000":  # the SIZ segment, up to the first channel's depth
            start = content.find(b"\xff\x4f\xff\x51")
            bits = (content[start + 42] & 0x7F) + 1 if 0 <= start < len(content) - 42 else 8
        elif picture.format == "AVIF":  # the av1C box: high_bitdepth, twelve_bit
            start = content.find(b"av1C")
            bits = 8 + 2 * (content[start + 6] >> 6 & 1) + 2 * (content[start + 6] >> 5 & 1) if 0 <= start < len(content) - 6 else 8
        elif picture.format == "HEIF":
            bits = int(picture.info.get("bit_depth", 8))
    return bits if bits > 8 else 0
