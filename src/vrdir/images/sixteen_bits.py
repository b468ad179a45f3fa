"""Colour with 16 bits per channel, and grey with 16 bits and alpha, which Pillow has no mode for.

Reading uses Pillow's own decoders: each file is decoded twice, once with the right byte order and
once with the other one, which gives the upper and the lower bytes as two 8-bit pictures. So every
compression, interlacing and tiling that Pillow knows works. Writing puts the pixels into a file of
metadata that Pillow made.

Why no library: pypng decodes row by row in Python, which is slow; tifffile needs a second package,
imagecodecs, for most compressed files; OpenCV drops EXIF, XMP and profiles. With Pillow's decoders
there is also only one guard against damaged files. The tests compare this module with pypng and
tifffile.

Source: PNG (W3C, third edition), sections 9 (filters) and 11 (chunks); TIFF 6.0.
"""

from __future__ import annotations

import io
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, PngImagePlugin

from vrdir.atomic import write_whole
from vrdir.errors import ImageError
from vrdir.images.formats import FORMATS, format_of_suffix
from vrdir.images.metadata import kept_metadata, save_options
from vrdir.images.tiff import BITS, PLANAR, SEPARATE, WIDTH

Pixels16 = np.ndarray[Any, np.dtype[np.uint16]]

DEEP_FORMATS = {each.name for each in FORMATS if each.colour_bits == 16}
CHANNELS = {2: "LA", 3: "RGB", 4: "RGBA"}
BAND_ROWS = 64
PNG_COLOUR_TYPES = {2: 4, 3: 2, 4: 6}


class DeepPicture(NamedTuple):
    """A picture with 16 bits per channel, with the main attributes of a PIL picture.

    Attributes:
        pixels: (H, W, C), uint16; C is 2 for grey with alpha, 3 for RGB, 4 for RGBA.
        info: metadata, named as in a PIL picture's info: icc_profile, exif, xmp, dpi.
        format: Pillow's name of the format of its file, or None.
    """

    pixels: Pixels16
    info: dict[Any, Any]
    format: str | None = None

    @property
    def mode(self) -> str:
        """LA;16, RGB;16 or RGBA;16."""
        return f"{CHANNELS[self.pixels.shape[2]]};16"

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if copy is None:  # copy only if needed; NumPy 1 does not know None
            return np.asarray(self.pixels, dtype)
        return np.array(self.pixels, dtype, copy=copy)

    def reduced(self) -> Image.Image:
        """Return it with 8 bits per channel, as a PIL picture."""
        picture = Image.fromarray(np.round(self.pixels / 257).astype(np.uint8))
        picture.info = dict(self.info)
        return picture

    def save(self, path: str | Path) -> None:
        """Write a PNG or TIFF file, by the suffix, whole or not at all.

        Raises:
            ImageError: the suffix is another.
            OSError: the file cannot be written.
        """
        path = Path(path)
        file_format = format_of_suffix(path.suffix.lower())
        if file_format is None or file_format.name not in DEEP_FORMATS:
            known = [each.suffixes for each in FORMATS if each.name in DEEP_FORMATS]
            raise ImageError(
                f"{path}: 16 bits per channel can be saved as "
                f"{', '.join(suffix for suffixes in known for suffix in suffixes)}; "
                "for other formats, save the result of reduced()"
            )
        options = save_options(kept_metadata(self.info), file_format.name)
        write_whole(encode_deep(self, file_format.name, **options), path)


def raw_mode(picture: Image.Image) -> str | None:
    """Return the layout of an opened file's pixels, such as "RGB;16B", if Pillow has no such mode.

    Returns:
        Pillow's raw mode; None if one of Pillow's modes fits the picture.

    Raises:
        ImageError: the depth cannot be kept.
    """
    tiles = getattr(picture, "tile", None)
    if picture.format not in DEEP_FORMATS or picture.mode not in CHANNELS.values() or not tiles:
        return None
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        if tags.get(PLANAR) == SEPARATE and 16 in np.atleast_1d(tags.get(BITS, 8)):
            raise ImageError(
                "it stores its 16-bit channels one after the other (planar); save it with "
                "interleaved channels"
            )
    args = tiles[0].args
    raw = str(args if isinstance(args, str) else args[0])
    return raw if raw.endswith((";16B", ";16L", ";16N")) else None


def read_deep(
    open_file: Callable[[], Image.Image], load: Callable[[Image.Image], Image.Image]
) -> tuple[Pixels16, dict[Any, Any]]:
    """Read a file that has a `raw_mode`.

    Args:
        open_file: opens the file again, without decoding it.
        load: decodes a picture and turns it upright.

    Returns:
        The pixels (H, W, C), and the picture's `info`.
    """
    raw = raw_mode(open_file()) or ""
    base, order = raw[:-4], raw[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    if base == "LA":  # four bytes per pixel, read as a picture of four channels
        picture = load(_with_raw_mode(open_file(), "RGBA"))
        parts = np.asarray(picture)
        return _join(parts[..., 0::2], parts[..., 1::2]), picture.info
    # Premultiplied alpha is undone below, with 16 bits, not by Pillow with 8.
    layout = base.replace("a", "A")
    # Pillow keeps the upper byte of two; given the other byte order, it keeps the lower one.
    planes = [
        load(_with_raw_mode(open_file(), f"{layout};16{byte_order}"))
        for byte_order in (order, "BL".replace(order, ""))
    ]
    pixels = _join(*map(np.asarray, planes))
    info = planes[0].info
    if base == "RGBa":
        alpha = np.maximum(pixels[..., 3:], 1).astype(np.float64)
        pixels[..., :3] = np.round(np.minimum(pixels[..., :3] / alpha, 1) * 65535)
    if "transparency" in info and pixels.shape[2] == 3:
        pixels = with_alpha(pixels, info["transparency"])
    return pixels, info


def _with_raw_mode(picture: Image.Image, raw: str) -> Image.Image:
    """Return an opened file whose decoder takes its pixels to have this layout."""
    picture.tile = [  # type: ignore[attr-defined]
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
        for tile in picture.tile  # type: ignore[attr-defined]
    ]
    return picture


def _join(upper: np.ndarray[Any, Any], lower: np.ndarray[Any, Any]) -> Pixels16:
    """Join upper and lower bytes, uint8 (H, W, C) each."""
    joined: Pixels16 = np.multiply(upper, 256, dtype=np.uint16)
    joined += lower
    return joined


def with_alpha(pixels: Pixels16, transparent: int | tuple[int, ...]) -> Pixels16:
    """Return (H, W, C) with an alpha channel: 0 for the transparent value, else 65535."""
    opaque = (pixels != np.asarray(transparent)).any(-1, keepdims=True)
    return np.concatenate([pixels, np.where(opaque, 65535, 0).astype(np.uint16)], -1)


def encode_deep(picture: DeepPicture, file_format: str, **metadata: Any) -> bytes:
    """Encode as PNG or TIFF.

    Args:
        picture: the picture; its own `info` is not used.
        file_format: "PNG" or "TIFF".
        metadata: the options that Pillow's `save` takes for that format (see `save_options`).
    """
    if file_format == "PNG":
        return _encode_png(picture.pixels, metadata)
    return _encode_tiff(picture.pixels, metadata)


def _encode_png(pixels: Pixels16, metadata: dict[str, Any]) -> bytes:
    """Return a PNG of one pixel with its header and pixels replaced."""
    height, width, channels = pixels.shape
    frame = io.BytesIO()
    Image.new(CHANNELS[channels], (1, 1)).save(frame, "PNG", **metadata)
    result = io.BytesIO()
    result.write(b"\x89PNG\r\n\x1a\n")
    for name, content in _chunks(frame.getvalue()):
        if name == b"IHDR":
            content = struct.pack(
                ">IIBBBBB", width, height, 16, PNG_COLOUR_TYPES[channels], 0, 0, 0
            )
        elif name == b"IDAT":
            content = _compress(pixels)
        PngImagePlugin.putchunk(result, name, content)
    return result.getvalue()


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the chunks of a PNG: name and content."""
    place = 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += length + 12


def _compress(pixels: Pixels16) -> bytes:
    """Filter and compress the rows.

    This is done in bands, because filtering needs about a dozen times the memory of the rows.
    """
    compressor = zlib.compressobj(6)
    parts = []
    for top in range(0, len(pixels), BAND_ROWS):
        above = pixels[top - 1 : top] if top else np.zeros_like(pixels[:1])
        band = np.concatenate([above, pixels[top : top + BAND_ROWS]])
        parts.append(compressor.compress(_filter(band)))
    return b"".join([*parts, compressor.flush()])


def _filter(pixels: Pixels16) -> bytes:
    """Apply PNG's Paeth filter to all rows except the first."""
    height, width, channels = pixels.shape
    step = 2 * channels
    here = np.zeros((height, width * step + step), np.int16)  # with a pixel of zeros on the left
    here[:, step:] = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    left, above, corner = here[1:, :-step], here[:-1, step:], here[:-1, :-step]
    forecast = left + above - corner
    off_left, off_above, off_corner = (abs(forecast - one) for one in (left, above, corner))
    nearest = np.where(
        (off_left <= off_above) & (off_left <= off_corner),
        left,
        np.where(off_above <= off_corner, above, corner),
    )
    rows = np.full((height - 1, width * step + 1), 4, np.uint8)
    rows[:, 1:] = (here[1:, step:] - nearest).astype(np.uint8)
    return rows.tobytes()


def _encode_tiff(pixels: Pixels16, metadata: dict[str, Any]) -> bytes:
    """Return an uncompressed TIFF.

    A TIFF with 8 bits and twice the width has the same bytes; two of its tags are corrected.
    """
    if pixels.shape[2] == 2:  # few programs read a TIFF of grey with alpha; Pillow does not
        pixels = pixels[..., [0, 0, 0, 1]]
    height, width, channels = pixels.shape
    eight_bits = (
        np.ascontiguousarray(pixels, "<u2").view(np.uint8).reshape(height, 2 * width, channels)
    )
    file = io.BytesIO()
    Image.fromarray(eight_bits).save(file, "TIFF", **metadata)
    content = bytearray(file.getvalue())
    (directory,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, directory)
    for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
        tag, kind, count = struct.unpack_from("<HHI", content, entry)
        if tag == WIDTH:
            struct.pack_into("<H" if kind == 3 else "<I", content, entry + 8, width)
        if tag == BITS:
            place = entry + 8 if count <= 2 else struct.unpack_from("<I", content, entry + 8)[0]
            struct.pack_into(f"<{count}H", content, place, *[16] * count)
    return bytes(content)
