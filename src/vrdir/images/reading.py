"""Reading of encoded images.

Every file format that Pillow knows is read: upright, and with 16 bits where the file has them.
"""

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
from PIL import Image, UnidentifiedImageError

from vrdir.errors import ImageError, InputError, first_line
from vrdir.images.bit_depth import bits_lost
from vrdir.images.formats import format_named, open_header, raw_advice
from vrdir.images.memory import check_memory, most_for_one, opening_bytes
from vrdir.images.metadata import other_colours, with_less_metadata
from vrdir.images.orientation import turn_upright
from vrdir.images.sixteen_bits import DeepPicture, raw_mode, read_deep, with_alpha
from vrdir.images.soundness import (
    check_decoder,
    check_effort,
    missing_part,
    whole_files_only,
)
from vrdir.images.tiff import PHOTOMETRIC, TIFF_STARTS, directories, full_page, strips_missing
from vrdir.images.xmp import without_pointers
from vrdir.regular_files import read_regular

logger = logging.getLogger(__name__)
# Larger images of formats whose decoders block (`Format.blocking`) are decoded in another process:
# above this size they take seconds.
APART_PIXELS = 16_000_000
DECODE = """
import io, sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None
with Image.open(io.BytesIO(sys.stdin.buffer.read())) as picture:
    sys.stdout.buffer.write(picture.tobytes())
"""
# Formats whose further frames are previews (a camera's MPO) or layers (PSD).
ONE_PICTURE = {"MPO", "PSD"}
Picture = Image.Image | DeepPicture
P = TypeVar("P", Image.Image, DeepPicture)


def read_file(path: Path) -> Picture:
    """Read an image file, upright.

    Raises:
        ImageError: the file does not exist, cannot be read, is empty, damaged, or not an image.
    """
    try:
        size = path.stat().st_size
        if size > most_for_one():
            raise ImageError(
                f"{path} has {size / 2**30:.1f} GiB, more than the memory that is available for "
                "one image"
            )
        content = read_regular(path)
    except FileNotFoundError:
        raise ImageError(f"{path} does not exist") from None
    except IsADirectoryError:
        readable = os.access(path, os.R_OK | os.X_OK)
        rest = ", not an image" if readable else " that cannot be read; check its permissions"
        raise ImageError(f"{path} is a folder{rest}") from None
    except OSError as error:
        advice = {
            errno.ENAMETOOLONG: "use a shorter name",
            errno.ELOOP: "it is a link to itself",
        }.get(error.errno or 0, "check its permissions")
        raise ImageError(f"{path} cannot be read ({error.strerror}); {advice}") from None
    return decode(content, str(path))


def decode(content: bytes, name: str) -> Picture:
    """Decode an encoded image file.

    If its metadata cannot be read, they are left out with a warning.

    Args:
        content: the file.
        name: its name in errors and warnings.

    Raises:
        ImageError: it is empty, damaged, or not an image.
    """
    with decoding(name):
        check_effort(content, name)
    with whole_files_only():
        try:
            with decoding(name):
                return _decode(content, name)
        except ImageError as error:
            for less, what in with_less_metadata(content):
                if len(less) < len(content):
                    with contextlib.suppress(ImageError), decoding(name):
                        picture = _decode(less, name)
                        logger.warning("%s has metadata that cannot be read; %s", name, what)
                        return picture
            raise error from None


def _decode(content: bytes, name: str) -> Picture:
    if not content:
        raise ImageError(f"{name} is empty (0 bytes)")
    picture = _open(content, name)
    check_memory(opening_bytes(picture, len(content)), picture.size, name)
    check_decoder(picture, content, name)
    space = other_colours(picture, content)
    if space:
        logger.warning(
            "%s has other colours than sRGB (%s), which is ignored: the result is treated as sRGB; "
            "add an ICC profile to keep its colours",
            name,
            space,
        )
    if raw_mode_of(picture, name):
        planes = itertools.count()  # of one file, so that one warning is enough
        pixels, info = read_deep(
            lambda: _open(content, name),
            lambda plane: load_upright(plane, name, own=True, quiet=next(planes) > 0),
        )
        return _check_complete(DeepPicture(pixels, info, picture.format), content, name)
    bits = bits_lost(picture, content)
    if bits:
        logger.warning(
            "%s has %d bits per channel; only the upper 8 are read (PNG and TIFF keep them all)",
            name,
            bits,
        )
    upright = _check_complete(load_upright(picture, name, own=True), content, name)
    if upright.mode == "I;16" and "transparency" in upright.info:
        grey = np.asarray(upright)[..., None]
        pixels = with_alpha(grey, upright.info["transparency"])
        return DeepPicture(pixels, upright.info, picture.format)
    return upright


def _check_complete(picture: P, content: bytes, name: str) -> P:
    """Return a picture. Raises ImageError if its file lacks a part of it."""
    missing = missing_part(content, picture)
    if missing:
        raise ImageError(f"{name} is damaged or truncated ({missing}); download or copy it again")
    return picture


@contextlib.contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turn every exception of a decoder into an ImageError that says what is wrong with the file.

    All callers of decoders use this one guard. MemoryError passes, and so does KeyboardInterrupt.

    Args:
        name: the file's name in errors.
    """
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not an image, or has a file format that Pillow does not support"
        ) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageError(
            f"{name} has more than {limit:.0f} megapixels, which is refused to stop "
            "decompression bombs; if you trust it, raise the limit "
            "(--max-megapixels, or PIL.Image.MAX_IMAGE_PIXELS)"
        ) from None
    except Exception as error:  # decoders raise many kinds for damaged files
        raise ImageError(
            f"{name} is damaged or truncated ({first_line(error)}); download or copy it again"
        ) from None


def allow_megapixels(limit: float) -> None:
    """Set the largest size of pictures that are opened, in megapixels, for this whole process.

    Pillow's own limit is about 179.

    Raises:
        InputError: the limit is not positive, or infinite.
    """
    if not (limit > 0 and np.isfinite(limit)):
        raise InputError(f"a limit of megapixels must be a positive number, not {limit}")
    # Pillow warns from this number on, and refuses from twice this number on.
    Image.MAX_IMAGE_PIXELS = round(limit * 1e6 / 2)


def _open(content: bytes, name: str) -> Image.Image:
    """Read the header, not the pixels. Raises ImageError, naming the file `name`."""
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
                    f"{name} is damaged or truncated (its directory is missing); download or copy "
                    "it again"
                ) from None
            raise ImageError(
                f"{name} is a type of TIFF that Pillow cannot read; save it as RGB, RGBA or grey "
                "with 8 or 16 bits"
            ) from None


def raw_mode_of(picture: Image.Image, name: str) -> str | None:
    """Return an opened picture's `raw_mode`. Raises ImageError, naming the file `name`."""
    try:
        return raw_mode(picture)
    except ImageError as error:
        raise ImageError(f"{name} cannot be read: {error}") from None


def load_upright(
    picture: Image.Image, name: str, *, own: bool = False, quiet: bool = False
) -> Image.Image:
    """Decode an opened picture and turn it upright, according to its EXIF orientation.

    XMP that points outside the picture is left out with a warning.

    Args:
        picture: the opened picture.
        name: its name in errors and warnings.
        own: no other code uses `picture`, so that it may be changed in place, which saves a copy.
        quiet: log no warnings.

    Raises:
        ImageError: it is damaged, or has several frames or pages.
    """
    with decoding(name):
        frames = frames_of(picture, name)
        if frames > 1:
            kind = "pages" if picture.format == "TIFF" else "frames"
            raise ImageError(
                f"{name} contains {frames} {kind}; save each as a separate file first "
                "(such as `magick FILE %04d.png`)"
            )
        _check_strips(picture, name)
        white = _grey_white(picture)
        loaded = _load(picture, name)
        upright = turn_upright(loaded, name, own, quiet)
        transparent = upright.info.get("transparency")
        if isinstance(transparent, int) and transparent <= white < 255:
            # Pillow scales the pixels to 255, but not this value.
            upright.info["transparency"] = transparent * 255 // white
        if isinstance(transparent, bytes):  # of a palette, which has 256 colours at most
            upright.info["transparency"] = transparent[:256]
        white_is_zero = getattr(loaded, "tag_v2", {}).get(PHOTOMETRIC) == 0
        if upright.mode.startswith("I;16") and white_is_zero:  # which Pillow inverts only in 8 bits
            info = upright.info
            upright = Image.fromarray(65535 - np.asarray(upright).astype(np.uint16))
            upright.info = info
        _drop_pointers(upright, name, quiet)
        upright.format = picture.format
        return upright


def _load(picture: Image.Image, name: str) -> Image.Image:
    """Decode an opened picture.

    Large ones of some formats are decoded in another process, which a signal can interrupt. Raises
    ImageError if one did, naming the file `name`.
    """
    file: Any = getattr(picture, "fp", None)
    large = picture.width * picture.height > APART_PIXELS
    if large and format_named(picture.format).blocking and file is not None and sys.executable:
        file.seek(0)
        done = subprocess.run(
            [sys.executable, "-c", DECODE],
            input=file.read(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode < 0:  # Ctrl-C, or no memory: do not begin again in this process
            raise ImageError(f"{name} was not decoded: signal {-done.returncode} stopped it")
        with contextlib.suppress(ValueError):  # too few bytes: `load` below raises the error
            apart = Image.frombytes(picture.mode, picture.size, done.stdout)
            apart.info, apart.format = picture.info, picture.format
            return apart
    picture.load()
    return picture


def frames_of(picture: Image.Image, name: str) -> int:
    """Return the number of pictures in an opened file.

    Smaller copies, masks, previews and layers do not count. A TIFF opened by a caller is moved to
    its full page.

    Args:
        picture: the opened file.
        name: its name in errors.

    Raises:
        ImageError: it is a camera's RAW file, of which Pillow would open the preview.
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


def _check_strips(picture: Image.Image, name: str) -> None:
    """Raise ImageError for an opened TIFF without all of its strips, which Pillow leaves black."""
    file, tags = getattr(picture, "fp", None), getattr(picture, "tag_v2", None)
    if picture.format == "TIFF" and file is not None and tags is not None:
        missing = strips_missing(tags, file)
        if missing:
            raise ImageError(
                f"{name} is damaged or truncated ({missing}); download or copy it again"
            )


def _drop_pointers(picture: Image.Image, name: str, quiet: bool) -> None:
    """Remove XMP that points to parts of the old file which the restored picture will not have."""
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
                "%s has XMP that refers to %s; neither is copied",
                name,
                " and ".join(pointed_to),
            )


def _grey_white(picture: Image.Image) -> int:
    """Return the value of white in an opened PNG of grey with 2 or 4 bits, 255 for all others."""
    tiles = getattr(picture, "tile", None)
    if picture.format != "PNG" or not tiles:
        return 255
    args = tiles[0].args
    return {"L;2": 3, "L;4": 15}.get(args if isinstance(args, str) else args[0], 255)
