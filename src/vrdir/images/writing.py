"""Pictures, encoded: with their metadata as far as the file format can hold it."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vrdir.atomic import result_file
from vrdir.errors import ImageError, first_line
from vrdir.images.formats import (
    JPEG2000_STREAM_SUFFIXES,
    WRITTEN,
    WRITTEN_SUFFIXES,
    opened,
    plain_suffix,
    register_heif,
)
from vrdir.images.metadata import carried, save_options, tiff_tags
from vrdir.images.reading import Picture
from vrdir.images.sixteen_bits import DeepPicture, encode_deep

logger = logging.getLogger(__name__)
EXIF_LIMIT, XMP_LIMIT = 65533, 65504  # bytes, in a JPEG: a segment less what it begins with
QUALITY, WITH_QUALITY = 95, ("JPEG", "WEBP", "AVIF", "HEIF")
DPI_LIMITS = {
    "JPEG": 65535.0,
    "PNG": 5e7,
    "TIFF": 5e7,
    "BMP": 5e7,
    "DIB": 5e7,
}  # in 16 bits; in 31 bits, as pixels a metre


def encode(picture: Picture, file_format: str, name: str = "", quality: int = QUALITY) -> bytes:
    """Encode as a file of a Pillow format name, with its EXIF, XMP, ICC profile and resolution; lossy formats at a quality of 1 to 100.

    What the format cannot hold is left out: 16 bit become 8, alpha goes, and so does metadata (docs/images.md has the table).
    Raises ImageError if it cannot be written, which calls it `name`, as do warnings of metadata that other pictures would keep.
    """
    file_format = "JPEG" if file_format == "MPO" else file_format
    if isinstance(picture, DeepPicture) and file_format not in ("PNG", "TIFF"):
        picture = picture.reduced()
    try:
        metadata: dict[str, Any] = _fitting(picture, file_format, name or "the picture")
        if plain_suffix(name) in JPEG2000_STREAM_SUFFIXES:
            metadata["no_jp2"] = True
        return _encoded(picture, file_format, metadata, quality)
    except MemoryError:
        raise
    except Exception as error:  # encoders raise all sorts too
        raise ImageError(
            f"{name}{': ' if name else ''}a {picture.mode} picture cannot be written as {file_format} ({first_line(error)}); "
            "choose another format"
        ) from None


def _encoded(
    picture: Picture, file_format: str, metadata: dict[str, Any], quality: int = QUALITY
) -> bytes:
    """A file with this metadata, and none of the picture's own."""
    options = save_options(metadata, file_format)
    if file_format == "HEIF":
        options = {"exif": None, "xmp": None, **options}
    if file_format in WITH_QUALITY:
        options["quality"] = quality
    if file_format == "JPEG":
        options["subsampling"] = 0
    if isinstance(picture, DeepPicture):
        return encode_deep(picture, file_format, **options)
    if file_format == "PNG":
        options["compress_level"] = 4  # of 9: half the time of Pillow's 6, and files as small
    return _encode_pil(picture, file_format, options)


def _encode_pil(picture: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    if picture.mode in ("LA", "RGBA") and file_format in ("JPEG", "BMP", "DIB", "PPM"):
        picture = picture.convert(picture.mode.removesuffix("A"))
    if picture.mode == "F" and file_format != "TIFF":
        picture = Image.fromarray(
            np.round(np.asarray(picture).clip(0, 1) * 65535).astype(np.uint16)
        )
    if picture.mode == "I;16" and file_format not in ("PNG", "TIFF", "JPEG2000", "PPM"):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def _fitting(picture: Picture, file_format: str, name: str) -> dict[str, Any]:
    """What a picture carries that a file of this format can hold. A warning tells what else it left out of the file, called `name`."""
    fitting: dict[str, Any] = {}
    checks: dict[str, tuple[str, Callable[[Any, Picture, str], Any]]] = {}
    if file_format in DPI_LIMITS:
        checks["dpi"] = ("the resolution", _fitting_dpi)
    if file_format in (
        "PNG",
        "TIFF",
        "JPEG",
        "WEBP",
        "AVIF",
        "HEIF",
    ):  # the others have no place for any of these
        checks |= {
            "exif": ("EXIF", _fitting_exif),
            "xmp": ("XMP", _fitting_xmp),
            "icc_profile": ("the colour profile", _fitting_profile),
        }
    metadata = carried(picture.info)
    for key, (what, check) in checks.items():
        if key in metadata:
            try:
                value = check(metadata[key], picture, file_format)
            except MemoryError:
                raise
            except Exception as error:  # readers of odd metadata raise all sorts
                logger.warning("%s: %s is left out (%s)", name, what, first_line(error))
            else:
                fitting |= {key: value} if value else {}
    return fitting


def _fitting_dpi(dpi: Any, picture: Picture, file_format: str) -> tuple[float, float]:
    """Raises ValueError for what no file can say."""
    across, down = (float(value) for value in dpi)
    if not all(
        0 < value <= DPI_LIMITS[file_format] for value in (across, down)
    ):  # NaN is not either
        raise ValueError(
            f"{across:g} x {down:g} dots per inch are none that {file_format} can hold"
        )
    return across, down


def _fitting_exif(exif: bytes, picture: Picture, file_format: str) -> bytes:
    """With the beginning that a JPEG needs, which a WebP's lacks. Raises whatever Pillow does for what is none."""
    content = re.sub(rb"^(Exif\0\0)+", b"", exif)
    if not content:
        return b""
    exif = b"Exif\0\0" + content
    Image.Exif().load(exif)
    if file_format == "TIFF":
        tiff_tags({"exif": exif})
    if file_format == "JPEG" and len(exif) > EXIF_LIMIT:
        raise ValueError(f"it has {len(exif)} bytes, a JPEG holds {EXIF_LIMIT}")
    return exif


def _fitting_xmp(xmp: str | bytes, picture: Picture, file_format: str) -> bytes:
    """Raises ValueError for more of it than fits in."""
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
    if file_format == "JPEG" and len(xmp) > XMP_LIMIT:
        raise ValueError(f"it has {len(xmp)} bytes, a JPEG holds {XMP_LIMIT}")
    return xmp


def _fitting_profile(profile: bytes, picture: Picture, file_format: str) -> bytes:
    """Raises ValueError for one of other channels than the file will have, by which others would show wrong colours, or none."""
    mode = picture.mode
    if mode not in ("RGB", "RGBA"):  # such as grey, which WebP writes as RGB
        blank = (
            np.zeros((16, 16, picture.pixels.shape[2]), np.uint16)
            if isinstance(picture, DeepPicture)
            else None
        )
        small = Image.new(mode, (16, 16)) if blank is None else DeepPicture(blank, {})
        mode = opened(io.BytesIO(_encoded(small, file_format, {}))).mode
    space = b"GRAY" if mode.startswith(("L", "I", "F", "1")) else b"RGB "
    told = profile[16:20]
    if told and told != space:
        raise ValueError(
            f"it is for {told.decode('ascii', 'replace').strip()}, {file_format} has this picture as {space.decode().strip()}"
        )
    return profile


def format_of(path: Path) -> str:
    """Pillow's name for the file format that a suffix stands for. Raises ImageError if it cannot be written."""
    suffix = plain_suffix(path)
    file_format = next((name for name, suffixes in WRITTEN.items() if suffix in suffixes), None)
    if file_format == "HEIF":
        register_heif(str(path))
    if file_format not in Image.SAVE:
        Image.init()
    if file_format is None or file_format not in Image.SAVE:
        raise ImageError(
            f"cannot write {path}: no image format for the suffix {path.suffix or '(none)'!r}; use {', '.join(sorted(WRITTEN_SUFFIXES))}"
        )
    return file_format


def write_file(content: bytes, path: Path) -> None:
    """Write an encoded image, whole or not at all. Raises DiskError or ImageError as `result_file`."""
    with result_file(path) as partial:
        partial.write_bytes(content)
