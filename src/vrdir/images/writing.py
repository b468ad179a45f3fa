"""Encoding of pictures, with as much of their metadata as the file format can store."""

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
    BY_NAME,
    WRITTEN_SUFFIXES,
    Format,
    format_named,
    format_of_suffix,
    open_with_pillow,
    plain_suffix,
    register_heif,
)
from vrdir.images.metadata import kept_metadata, save_options, tiff_tags
from vrdir.images.reading import Picture
from vrdir.images.sixteen_bits import DeepPicture, encode_deep

logger = logging.getLogger(__name__)
QUALITY = 95


def encode(picture: Picture, file_format: str, name: str = "", quality: int = QUALITY) -> bytes:
    """Encode a picture with its EXIF, XMP, ICC profile and resolution.

    What the format cannot store is dropped: 16 bits become 8, alpha is dropped, and so is metadata
    (docs/images.md has the table). Metadata that the format could store, but not in this case, is
    left out with a warning.

    Args:
        picture: the picture.
        file_format: Pillow's name for the format, such as "PNG".
        name: the file's name in errors and warnings; its suffix may choose a variant of the format.
        quality: of lossy formats, 1 to 100.

    Raises:
        ImageError: it cannot be encoded.
    """
    target = format_named(file_format)
    file_format = target.name or file_format
    if file_format == "HEIF":
        register_heif(name or "the picture")
    if isinstance(picture, DeepPicture) and target.colour_bits < 16:
        picture = picture.reduced()
    try:
        metadata: dict[str, Any] = _fitting(picture, target, name or "the picture")
        if plain_suffix(name) in target.bare_suffixes:
            metadata["no_jp2"] = True
        return _encode(picture, file_format, metadata, quality)
    except MemoryError:
        raise
    except Exception as error:  # encoders raise many kinds
        raise ImageError(
            f"{name}{': ' if name else ''}a {picture.mode} picture cannot be written as "
            f"{file_format} ({first_line(error)}); choose another format"
        ) from None


def _encode(
    picture: Picture, file_format: str, metadata: dict[str, Any], quality: int = QUALITY
) -> bytes:
    """Return a file with this metadata, and none of the picture's own."""
    options = save_options(metadata, file_format)
    if file_format == "HEIF":
        options = {"exif": None, "xmp": None, **options}
    if format_named(file_format).quality:
        options["quality"] = quality
    if file_format == "JPEG":
        options["subsampling"] = 0
    if isinstance(picture, DeepPicture):
        return encode_deep(picture, file_format, **options)
    if file_format == "PNG":
        options["compress_level"] = 4  # of 9: half the time of Pillow's 6, and files as small
    return _encode_pil(picture, file_format, options)


def _encode_pil(picture: Image.Image, file_format: str, options: dict[str, Any]) -> bytes:
    target = BY_NAME.get(file_format)
    # GIF turns alpha into its transparent colour.
    if picture.mode in ("LA", "RGBA") and target and not target.alpha and file_format != "GIF":
        picture = picture.convert(picture.mode.removesuffix("A"))
    if picture.mode == "F" and not (target and target.floats):
        grey = np.round(np.asarray(picture).clip(0, 1) * 65535)
        picture = Image.fromarray(grey.astype(np.uint16))
    if picture.mode == "I;16" and not (target and target.grey_bits == 16):
        picture = Image.fromarray(np.round(np.asarray(picture) / 257).astype(np.uint8))
    buffer = io.BytesIO()
    picture.save(buffer, format=file_format, **options)
    return buffer.getvalue()


def _fitting(picture: Picture, target: Format, name: str) -> dict[str, Any]:
    """Return the metadata of a picture that a file of this format can store.

    A warning names what is left out although the format could store it in other cases.
    """
    fitting: dict[str, Any] = {}
    checks: dict[str, tuple[bool, str, Callable[[Any, Picture, Format], Any]]] = {
        "dpi": (target.highest_dpi > 0, "the resolution", _fitting_dpi),
        "exif": (target.exif, "EXIF", _fitting_exif),
        "xmp": (target.xmp, "XMP", _fitting_xmp),
        "icc_profile": (target.icc, "the colour profile", _fitting_profile),
    }
    metadata = kept_metadata(picture.info)
    for key, (held, what, check) in checks.items():
        if held and key in metadata:
            try:
                value = check(metadata[key], picture, target)
            except MemoryError:
                raise
            except Exception as error:  # readers of damaged metadata raise many kinds
                logger.warning("%s: %s is not written (%s)", name, what, first_line(error))
            else:
                fitting |= {key: value} if value else {}
    return fitting


def _fitting_dpi(dpi: Any, picture: Picture, target: Format) -> tuple[float, float]:
    """Return a resolution as two numbers. Raises ImageError if the format cannot store it."""
    across, down = (float(value) for value in dpi)
    if not all(0 < value <= target.highest_dpi for value in (across, down)):  # False for NaN too
        raise ImageError(f"{target.name} cannot store {across:g} x {down:g} dots per inch")
    return across, down


def _fitting_exif(exif: bytes, picture: Picture, target: Format) -> bytes:
    """Return EXIF with the marker that a JPEG needs and a WebP lacks.

    Raises:
        Exception: whatever Pillow raises for damaged EXIF.
    """
    content = re.sub(rb"^(Exif\0\0)+", b"", exif)
    if not content:
        return b""
    exif = b"Exif\0\0" + content
    Image.Exif().load(exif)
    if target.name == "TIFF":
        tiff_tags({"exif": exif})
    _check_length(exif, target.exif_limit, target)
    return exif


def _fitting_xmp(xmp: str | bytes, picture: Picture, target: Format) -> bytes:
    xmp = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else bytes(xmp)
    _check_length(xmp, target.xmp_limit, target)
    return xmp


def _check_length(content: bytes, limit: int | None, target: Format) -> None:
    """Raise ImageError for metadata longer than the limit."""
    if limit is not None and len(content) > limit:
        raise ImageError(
            f"it has {len(content)} bytes, but {target.name} can store at most {limit}"
        )


def _fitting_profile(profile: bytes, picture: Picture, target: Format) -> bytes:
    """Return a colour profile.

    Raises:
        ImageError: it is for other channels than the file will have; programs would show wrong
            colours, or none.
    """
    mode = picture.mode
    if mode not in ("RGB", "RGBA"):  # such as grey, which WebP writes as RGB
        blank: Picture
        if isinstance(picture, DeepPicture):
            blank = DeepPicture(np.zeros((16, 16, picture.pixels.shape[2]), np.uint16), {})
        else:
            blank = Image.new(mode, (16, 16))
        mode = open_with_pillow(io.BytesIO(_encode(blank, target.name, {}))).mode
    space = b"GRAY" if mode.startswith(("L", "I", "F", "1")) else b"RGB "
    declared = profile[16:20]
    if declared and declared != space:
        raise ImageError(
            f"it is for {declared.decode('ascii', 'replace').strip()}, "
            f"but {target.name} stores this image as {space.decode().strip()}"
        )
    return profile


def format_of(path: Path) -> str:
    """Return Pillow's name for the file format of a path, by its suffix.

    Raises:
        ImageError: no such format can be written.
    """
    file_format = format_of_suffix(plain_suffix(path))
    if file_format is not None:
        if file_format.name == "HEIF":
            register_heif(str(path))
        if file_format.name not in Image.SAVE:
            Image.init()
        if file_format.name in Image.SAVE:
            return file_format.name
    raise ImageError(
        f"cannot write {path}: no image format for the suffix {path.suffix or '(none)'!r}; "
        f"use {', '.join(sorted(WRITTEN_SUFFIXES))}"
    )


def write_file(content: bytes, path: Path) -> None:
    """Write an encoded image, whole or not at all.

    Raises DiskError or ImageError (`result_file`).
    """
    with result_file(path) as partial:
        partial.write_bytes(content)
