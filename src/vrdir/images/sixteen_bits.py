"""Colour of 16 bits a channel, and grey of 16 bits with alpha: Pillow reads and writes these files, but has no mode to hold them.

They are read by Pillow's own decoders all the same: each is told once that the file's byte order is the one and once that it is
the other, which gives the upper and then the lower bytes as two pictures of 8 bits. Whatever compression, interlacing or tiling
Pillow knows is known here too, and needs no other library. They are written into a frame of metadata that Pillow made.
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
from vrdir.images.metadata import carried, save_options

Pixels = np.ndarray[Any, np.dtype[np.uint16]]

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF"}  # that hold such a picture
WIDTH, BITS, PLANAR = 256, 258, 284  # TIFF tags
CHANNELS = {2: "LA", 3: "RGB", 4: "RGBA"}
BAND_ROWS = 64
PNG_COLOUR_TYPES = {2: 4, 3: 2, 4: 6}


class DeepPicture(NamedTuple):
    """A picture of 16 bits a channel, as far as it goes with the interface of a PIL picture.

    Attributes:
        pixels: (H, W, C), uint16; C is 2 for grey with alpha, 3 for RGB, 4 for RGBA.
        info: what it carries, named as in a PIL picture's info: icc_profile, exif, xmp, dpi.
        format: of the file it was read from.
    """

    pixels: Pixels
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
        """The same of 8 bits a channel, as a PIL picture."""
        picture = Image.fromarray(np.round(self.pixels / 257).astype(np.uint8))
        picture.info = dict(self.info)
        return picture

    def save(self, path: str | Path) -> None:
        """Write a PNG or TIFF, by its suffix, whole or not at all. Raises ValueError for another, OSError where it cannot be written."""
        path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise ValueError(
                f"{path}: 16 bits a channel are kept by {', '.join(FORMATS)}; for others, save what reduced() gives"
            )
        file_format = FORMATS[path.suffix.lower()]
        write_whole(
            encode_deep(self, file_format, **save_options(carried(self.info), file_format)), path
        )


def raw_mode(picture: Image.Image) -> str | None:
    """How an opened, not yet decoded file has its pixels, such as "RGB;16B", if it is deeper than Pillow's modes; else None.

    Raises ValueError for a file whose depth cannot be kept.
    """
    tiles = getattr(picture, "tile", None)
    if picture.format not in ("PNG", "TIFF") or picture.mode not in CHANNELS.values() or not tiles:
        return None
    if picture.format == "TIFF":
        tags = picture.tag_v2  # type: ignore[attr-defined]
        if tags.get(PLANAR) == 2 and 16 in np.atleast_1d(tags.get(BITS, 8)):
            raise ValueError(
                "it holds its 16-bit channels one after the other; save it with the channels together (interleaved)"
            )
    args = tiles[0].args
    raw = str(args if isinstance(args, str) else args[0])
    return raw if raw.endswith((";16B", ";16L", ";16N")) else None


def read_deep(
    open_file: Callable[[], Image.Image], settle: Callable[[Image.Image], Image.Image]
) -> tuple[Pixels, dict[Any, Any]]:
    """The pixels (H, W, C) of a file that has a `raw_mode`, and what it carries.

    Args:
        open_file: opens it anew, without decoding.
        settle: decodes a picture and turns it upright.
    """
    raw = raw_mode(open_file()) or ""
    base, order = raw[:-4], raw[-1].replace("N", "L" if sys.byteorder == "little" else "B")
    if base == "LA":  # four bytes a pixel, which Pillow takes for a picture of four channels
        picture = settle(_told(open_file(), "RGBA"))
        parts = np.asarray(picture)
        return _joined(parts[..., 0::2], parts[..., 1::2]), picture.info
    # Alpha that the colours are multiplied by is undone below, in 16 bits, not by Pillow in 8.
    layout = base.replace("a", "A")
    # Of a number of two bytes Pillow keeps the upper one; the lower one if it is told the other byte order.
    planes = [
        settle(_told(open_file(), f"{layout};16{byte_order}"))
        for byte_order in (order, "BL".replace(order, ""))
    ]
    pixels = _joined(*map(np.asarray, planes))
    info = planes[0].info
    if base == "RGBa":
        alpha = np.maximum(pixels[..., 3:], 1).astype(np.float64)
        pixels[..., :3] = np.round(np.minimum(pixels[..., :3] / alpha, 1) * 65535)
    if "transparency" in info and pixels.shape[2] == 3:
        pixels = with_alpha(pixels, info["transparency"])
    return pixels, info


def _told(picture: Image.Image, raw: str) -> Image.Image:
    """An opened file whose decoders are told that it has its pixels in another way."""
    picture.tile = [  # type: ignore[attr-defined]
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *tile.args[1:]))
        for tile in picture.tile  # type: ignore[attr-defined]
    ]
    return picture


def _joined(upper: np.ndarray[Any, Any], lower: np.ndarray[Any, Any]) -> Pixels:
    """Upper and lower bytes, uint8 (H, W, C) each."""
    joined: Pixels = np.multiply(upper, 256, dtype=np.uint16)
    joined += lower
    return joined


def with_alpha(pixels: Pixels, transparent: int | tuple[int, ...]) -> Pixels:
    """(H, W, C) and an alpha channel, which is 0 where the pixel has the transparent value and white elsewhere."""
    seen = (pixels != np.asarray(transparent)).any(-1, keepdims=True)
    return np.concatenate([pixels, np.where(seen, 65535, 0).astype(np.uint16)], -1)


def encode_deep(picture: DeepPicture, file_format: str, **metadata: Any) -> bytes:
    """Encode as PNG or TIFF. `metadata` is what Pillow's `save` takes for that format (`save_options`); nothing of the picture's own."""
    return (
        _encode_png(picture.pixels, metadata)
        if file_format == "PNG"
        else _encode_tiff(picture.pixels, metadata)
    )


def _encode_png(pixels: Pixels, metadata: dict[str, Any]) -> bytes:
    """The chunks of a PNG of one pixel, with header and pixels replaced."""
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
            content = _compressed(pixels)
        PngImagePlugin.putchunk(result, name, content)
    return result.getvalue()


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        yield png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        place += length + 12


def _compressed(pixels: Pixels) -> bytes:
    """The rows, filtered and compressed, a band at a time: filtering takes a dozen times the memory of what it filters."""
    squeeze = zlib.compressobj(6)
    parts = []
    for top in range(0, len(pixels), BAND_ROWS):
        above = pixels[top - 1 : top] if top else np.zeros_like(pixels[:1])
        parts.append(
            squeeze.compress(_filtered(np.concatenate([above, pixels[top : top + BAND_ROWS]])))
        )
    return b"".join([*parts, squeeze.flush()])


def _filtered(pixels: Pixels) -> bytes:
    """All rows but the first as PNG's Paeth filter leaves them: what each byte is off the nearest of its neighbours' linear forecast."""
    height, width, channels = pixels.shape
    step = 2 * channels
    here = np.zeros((height, width * step + step), np.int16)  # with a pixel before, of zeros
    here[:, step:] = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, -1)
    left, above, corner = here[1:, :-step], here[:-1, step:], here[:-1, :-step]
    forecast = left + above - corner
    off_left, off_above, off_corner = (
        abs(forecast - left),
        abs(forecast - above),
        abs(forecast - corner),
    )
    nearest = np.where(
        (off_left <= off_above) & (off_left <= off_corner),
        left,
        np.where(off_above <= off_corner, above, corner),
    )
    rows = np.full((height - 1, width * step + 1), 4, np.uint8)
    rows[:, 1:] = (here[1:, step:] - nearest).astype(np.uint8)
    return rows.tobytes()


def _encode_tiff(pixels: Pixels, metadata: dict[str, Any]) -> bytes:
    """An uncompressed TIFF of 8 bits and twice the width has the same bytes: two of its tags are put right."""
    if (
        pixels.shape[2] == 2
    ):  # grey with alpha of 16 bits is a TIFF that few programs read, Pillow not among them
        pixels = pixels[..., [0, 0, 0, 1]]
    height, width, channels = pixels.shape
    stand_in = (
        np.ascontiguousarray(pixels, "<u2").view(np.uint8).reshape(height, 2 * width, channels)
    )
    file = io.BytesIO()
    Image.fromarray(stand_in).save(file, "TIFF", **metadata)
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
