"""Encoded images, read: any file format that Pillow knows, whole, upright, and with 16 bits where it has them."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vrdir.errors import ImageError, first_line
from vrdir.images.formats import open_header, raw_advice
from vrdir.images.memory import check_memory, most_for_one, opening_bytes
from vrdir.images.metadata import descriptive, other_colours, with_less_metadata
from vrdir.images.sixteen_bits import DeepPicture, raw_mode, read_deep, with_alpha
from vrdir.images.soundness import check_effort, what_is_missing
from vrdir.images.tiff import PHOTOMETRIC, TIFF_STARTS, directories, full_page, strips_missing
from vrdir.images.xmp import without_pointers
from vrdir.regular_files import read_regular

logger = logging.getLogger(__name__)
ORIENTATION = 0x0112
# Decoders that hold Python's lock until all is done, so that Ctrl-C would wait for them; from so
# many pixels on for seconds.
HOLDING, APART_PIXELS = {"AVIF", "JPEG2000", "WEBP"}, 16_000_000
DECODE = """
import io, sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
with Image.open(io.BytesIO(sys.stdin.buffer.read())) as picture:
    sys.stdout.buffer.write(picture.tobytes())
"""
ONE_PICTURE = {
    "MPO",
    "PSD",
}  # a camera's MPO holds one photo and previews of it, a PSD the picture and its layers
Picture = Image.Image | DeepPicture
P = TypeVar("P", Image.Image, DeepPicture)


def read_file(path: Path) -> Picture:
    """Read an image file whole and upright. Raises ImageError: no such file, a folder, empty, no image, damaged, unreadable."""
    try:
        if path.stat().st_size > most_for_one():
            raise ImageError(
                f"{path} has {path.stat().st_size / 2**30:.1f} GiB, which is more than there is memory for one image"
            )
        content = read_regular(path)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        raise ImageError(
            f"{path} is a folder{', not an image' if readable else ' that cannot be read; check its permissions'}"
        ) from None
    except OSError as error:
        advice = {
            errno.ENAMETOOLONG: "give it a shorter name",
            errno.ELOOP: "it is a link that leads to itself",
        }
        raise ImageError(
            f"{path} cannot be read ({error.strerror}); {advice.get(error.errno or 0, 'check its permissions')}"
        ) from None
    return decode(content, str(path))


def decode(content: bytes, name: str) -> Picture:
    """Decode an encoded image file. Raises ImageError, which calls it `name`."""
    try:
        with decoding(name):
            return _decoded(content, name)
    except ImageError as error:
        for less, what in with_less_metadata(content):
            if len(less) < len(content):
                with contextlib.suppress(ImageError), decoding(name):
                    picture = _decoded(less, name)
                    logger.warning("%s has metadata that cannot be read; %s", name, what)
                    return picture
        raise error from None


def _decoded(content: bytes, name: str) -> Picture:
    if not content:
        raise ImageError(f"{name} is empty (0 bytes)")
    check_effort(content, name)
    picture = _opened(content, name)
    check_memory(opening_bytes(picture, len(content)), picture, name)
    space = other_colours(picture, content)
    if space:
        logger.warning(
            "%s is in %s, which is left out: what comes out is taken for sRGB; give it an ICC profile to keep its colours",
            name,
            space,
        )
    if raw_mode_of(picture, name):
        planes = itertools.count()  # of one file, so that one warning is enough
        pixels, info = read_deep(
            lambda: _opened(content, name),
            lambda plane: settled(plane, name, quiet=next(planes) > 0),
        )
        return _all_there(DeepPicture(pixels, info, picture.format), content, name)
    bits = _bits_lost(picture, content)
    if bits:
        logger.warning(
            "%s has %d bits a channel; only the upper 8 are read (PNG and TIFF are read whole)",
            name,
            bits,
        )
    upright = _all_there(settled(picture, name), content, name)
    if upright.mode == "I;16" and "transparency" in upright.info:
        return DeepPicture(
            with_alpha(np.asarray(upright)[..., None], upright.info["transparency"]),
            upright.info,
            picture.format,
        )
    return upright


def _all_there(picture: P, content: bytes, name: str) -> P:
    missing = what_is_missing(content, picture)
    if missing:
        raise ImageError(f"{name} is damaged or cut short ({missing}); get it again")
    return picture


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn whatever decoders raise for a file, called `name`, into an ImageError that says what is
    wrong: one guard for all callers.

    MemoryError passes, and so does what is no Exception.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is no image, or of a file format that Pillow does not know"
        ) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} has more than {limit:.0f} megapixels, which few honest files have; if you trust it, raise the limit "
            "(--max-megapixels, or PIL.Image.MAX_IMAGE_PIXELS)"
        ) from None
    except Exception as error:  # decoders of damaged files raise all sorts
        raise ImageError(
            f"{name} is damaged or cut short ({first_line(error)}); get it again"
        ) from None


def allow_megapixels(limit: float) -> None:
    """Open pictures of up to `limit` megapixels, in this whole process. Pillow's own limit is about 179.

    Raises:
        ValueError: the limit is not positive, or infinite.
    """
    if not (limit > 0 and np.isfinite(limit)):
        raise ValueError(f"a limit of megapixels is a positive number, not {limit}")
    Image.MAX_IMAGE_PIXELS = round(
        limit * 1e6 / 2
    )  # Pillow warns from there on and refuses from twice that


def _opened(content: bytes, name: str) -> Image.Image:
    """The header read, the pixels not yet. Raises ImageError, which calls it `name`."""
    with decoding(name):
        try:
            return open_header(io.BytesIO(content), name)
        except UnidentifiedImageError:
            if not content.startswith(TIFF_STARTS):
                raise
            order: Literal["little", "big"] = "little" if content.startswith(b"I") else "big"
            directory = content[8:16] if content[2:4] in (b"+\0", b"\0+") else content[4:8]
            if int.from_bytes(directory, order) >= len(content):
                raise ImageError(
                    f"{name} is damaged or cut short (its directory is missing); get it again"
                ) from None
            raise ImageError(
                f"{name} is a kind of TIFF that Pillow cannot read; save it as RGB or RGBA of 8 or 16 bits, or as grey"
            ) from None


def raw_mode_of(picture: Image.Image, name: str) -> str | None:
    try:
        return raw_mode(picture)
    except ValueError as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def settled(picture: Image.Image, name: str, quiet: bool = False) -> Image.Image:
    """Decoded whole, one frame, upright. Raises ImageError, which calls it `name`, as warnings do unless `quiet`."""
    with decoding(name):
        frames = frames_of(picture, name)
        if frames > 1:
            kind = "pages" if picture.format == "TIFF" else "frames"
            raise ImageError(
                f"{name} holds {frames} {kind}; save each as a file of its own first (such as `magick FILE %04d.png`)"
            )
        _check_whole(picture, name)
        white = _grey_white(picture)
        return _settled(_loaded(picture), name, white, quiet)


def _loaded(picture: Image.Image) -> Image.Image:
    """An opened picture with its pixels decoded: large ones of some formats by another process,
    which a signal can interrupt."""
    file: Any = getattr(picture, "fp", None)
    if (
        picture.format in HOLDING
        and picture.width * picture.height > APART_PIXELS
        and file is not None
        and sys.executable
    ):
        file.seek(0)
        command = [sys.executable, "-c", DECODE]
        done = subprocess.run(
            command,
            input=file.read(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        with contextlib.suppress(ValueError):  # too few bytes: then what is wrong is told here
            apart = Image.frombytes(picture.mode, picture.size, done.stdout)
            apart.info, apart.format = picture.info, picture.format
            return apart
    picture.load()
    return picture


def frames_of(picture: Image.Image, name: str) -> int:
    """How many pictures an opened file holds; 1 where the others are smaller copies of the first,
    previews or layers.

    A TIFF that its caller opened is moved to its full page. Raises ImageError for a camera's RAW,
    of which Pillow opens the preview.
    """
    file: Any = getattr(picture, "fp", None) or getattr(picture, "_fp", None)
    if picture.format == "TIFF" and hasattr(file, "seek") and not getattr(file, "closed", False):
        chain, below = directories(file)
        if any(directory.is_raw for directory in chain + below):
            raise ImageError(raw_advice(name))
        page = full_page(chain, below)
        if page is None:
            return sum(directory.is_page for directory in chain)
        if page in chain:
            picture.seek(chain.index(page))
        return 1
    return 1 if picture.format in ONE_PICTURE else getattr(picture, "n_frames", 1)


def _check_whole(picture: Image.Image, name: str) -> None:
    """Raise ImageError for an opened file that does not hold all of its picture, where Pillow would
    leave the rest black."""
    file, tags = getattr(picture, "fp", None), getattr(picture, "tag_v2", None)
    if picture.format == "TIFF" and file is not None and tags is not None:
        missing = strips_missing(tags, file)
        if missing:
            raise ImageError(f"{name} is damaged or cut short ({missing}); get it again")


def _settled(picture: Image.Image, name: str, white: int, quiet: bool) -> Image.Image:
    upright = _upright(picture, name, quiet)
    transparent = upright.info.get("transparency")
    if (
        isinstance(transparent, int) and transparent <= white < 255
    ):  # Pillow scales the pixels to 255, and leaves this as it was
        upright.info["transparency"] = transparent * 255 // white
    if isinstance(transparent, bytes):  # of a palette, which has 256 colours at most
        upright.info["transparency"] = transparent[:256]
    if (
        upright.mode.startswith("I;16") and getattr(picture, "tag_v2", {}).get(PHOTOMETRIC) == 0
    ):  # white is zero, which Pillow undoes in 8 bits
        info = upright.info
        upright = Image.fromarray(65535 - np.asarray(upright).astype(np.uint16))
        upright.info = info
    _drop_pointers(upright, name, quiet)
    upright.format = picture.format
    return upright


def _drop_pointers(picture: Image.Image, name: str, quiet: bool) -> None:
    """Leave out the XMP that points to what the restored picture will not have beside it."""
    xmp = picture.info.get("xmp")
    if not xmp:
        return
    kept, pointed_to = without_pointers(
        xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
    )
    if pointed_to:
        picture.info["xmp"] = kept
        if not quiet:
            logger.warning(
                "%s has XMP that points to %s, which is left out with it",
                name,
                " and ".join(pointed_to),
            )


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
            Image.Exif().load(
                picture.info["exif"]
            )  # what the picture itself says of it, after an error, is that there is none
        upright = ImageOps.exif_transpose(picture)
        if picture.format == "TIFF" and (
            exif := descriptive(picture.getexif())
        ):  # which Pillow leaves among the file's tags
            upright.info["exif"] = exif.tobytes()
        return upright
    except MemoryError:
        raise
    except Exception as error:  # and so do those of odd metadata
        if not quiet:
            logger.warning(
                "%s has EXIF that cannot be read (%s); it is left out", name, first_line(error)
            )
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
            white = [
                word
                for line in content[:200].split(b"\n")
                for word in line.partition(b"#")[0].split()
            ][3:4]
            bits = (
                int(white[0]).bit_length()
                if white and white[0].isdigit() and content[:2] in (b"P2", b"P3", b"P5", b"P6")
                else 8
            )
        elif picture.format == "JPEG2000":  # the SIZ segment, up to the first channel's depth
            start = content.find(b"\xff\x4f\xff\x51")
            bits = (content[start + 42] & 0x7F) + 1 if 0 <= start < len(content) - 42 else 8
        elif picture.format == "AVIF":  # the av1C box: high_bitdepth, twelve_bit
            start = content.find(b"av1C")
            bits = (
                8 + 2 * (content[start + 6] >> 6 & 1) + 2 * (content[start + 6] >> 5 & 1)
                if 0 <= start < len(content) - 6
                else 8
            )
        elif picture.format == "HEIF":
            bits = int(picture.info.get("bit_depth", 8))
    return bits if bits > 8 else 0
