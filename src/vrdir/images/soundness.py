"""Checks that Pillow does not make: a part is missing, or decoding would take minutes."""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFile

from vrdir.errors import ImageError
from vrdir.images.formats import open_with_pillow
from vrdir.images.sixteen_bits import DeepPicture

JPEG_START, JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
PNG_START, JP2_STREAM = b"\x89PNG\r\n\x1a\n", b"\xff\x4f\xff\x51"
JPEG_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
END, SCAN = 0xD9, 0xDA
FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
SEQUENTIAL = {0xC0, 0xC1}
# A progressive JPEG has about ten scans. Decoding each visits every pixel, however short the scan.
SCANS, MOST_SCANS, SCANNED_PIXELS = 20, 500, 2_000_000_000
# Pillow takes microseconds for each chunk or segment. Most writers make one of each 8 to 64 KB.
MOST_PARTS, PART_BYTES = 20_000, 512
HEADER_BYTES = 2**16  # the most before the pixels of a PPM, or of padding between JPEG segments
# Larger pictures are not given to a decoder that is written in Python, and takes about a
# microsecond a pixel, if their files are as small as damaged and malicious ones are.
PYTHON_PIXELS, PIXELS_PER_BYTE = 16_000_000, 16
PPM_NUMBERS = {b"P1": 2, b"P2": 3, b"P3": 3, b"P4": 2, b"P5": 3, b"P6": 3}  # in the header
CORNER = 8  # pixels: a JPEG's block
GREY = 128  # the value that a JPEG decoder leaves where data are missing
# The passes of an interlaced PNG: first x, first y, step in x, step in y.
ADAM7 = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)


class Jpeg(NamedTuple):
    """Facts from the markers of a JPEG, before it is decoded.

    Attributes:
        kind: the marker of its frame; 0 if it has none.
        height, width: in pixels; 0 without a frame.
        scans: the number of scans.
        fill: the longest run of padding bytes between two segments.
        segments: how many there are; after far too many the rest is not read.
        end: the offset of the end marker; -1 if it is missing.
    """

    kind: int
    height: int
    width: int
    scans: int
    fill: int
    segments: int
    end: int


def read_jpeg_markers(content: bytes) -> Jpeg:
    """Read the markers of the first picture in a JPEG file."""
    place, kind, height, width, scans, fill, segments = 2, 0, 0, 0, 0, 0, 0
    most = most_parts(content)
    while segments <= most and (found := JPEG_MARKER.search(content, place)):
        marker, place, segments = found[1][0], found.end(), segments + 1
        fill = max(fill, len(found[0]) - 2)
        if marker == END:
            return Jpeg(kind, height, width, scans, fill, segments, place - 2)
        scans += marker == SCAN
        if marker in FRAMES and not kind and place + 7 <= len(content):
            kind = marker
            height, width = struct.unpack_from(">HH", content, place + 3)
        if marker not in (0x01, 0xD8):
            place += int.from_bytes(content[place : place + 2], "big")
    return Jpeg(kind, height, width, scans, fill, segments, -1)


def most_parts(content: bytes) -> int:
    """Return how many chunks of a PNG or segments of a JPEG a file of this length may have."""
    return MOST_PARTS + len(content) // PART_BYTES


def png_has_too_many_chunks(content: bytes) -> bool:
    """Return whether a PNG has far more chunks than any writer makes of as many bytes."""
    place, left = len(PNG_START), most_parts(content)
    while place + 12 <= len(content):
        place += 12 + int.from_bytes(content[place : place + 4], "big")
        left -= 1
        if not left:
            return True
    return False


def check_effort(content: bytes, name: str) -> None:
    """Refuse files whose decoding would take far longer than that of ordinary ones.

    Raises:
        ImageError: a JPEG has hundreds of scans, much padding or very many segments, a PNG has
            very many chunks, or the header of a PPM is longer than 64 KB. It names the file `name`.
    """
    if content.startswith(JPEG_START):
        jpeg = read_jpeg_markers(content)
        if jpeg.scans > MOST_SCANS or (
            jpeg.scans > SCANS and jpeg.scans * jpeg.width * jpeg.height > SCANNED_PIXELS
        ):
            raise ImageError(
                f"{name} has {jpeg.scans} scans, where a progressive JPEG has about ten: "
                "it is damaged or malicious"
            )
        if jpeg.segments > most_parts(content):
            raise ImageError(f"{name} has too many tiny segments: it is damaged or malicious")
        if jpeg.fill > HEADER_BYTES:
            raise ImageError(
                f"{name} has {jpeg.fill} padding bytes between two segments: "
                "it is damaged or malicious"
            )
    elif content.startswith(PNG_START):
        if png_has_too_many_chunks(content):
            raise ImageError(f"{name} has too many tiny chunks: it is damaged or malicious")
    elif content[:2] in PPM_NUMBERS:
        header = rb"P\d(?:(?:\s|#[^\r\n]*[\r\n])+\d+){%d}" % PPM_NUMBERS[content[:2]]
        if len(content) > HEADER_BYTES and not re.match(header, content[:HEADER_BYTES]):
            raise ImageError(
                f"{name} has more than {HEADER_BYTES} bytes before its pixels: "
                "it is damaged or malicious"
            )


def check_decoder(picture: Image.Image, content: bytes, name: str) -> None:
    """Refuse a small file of a large picture whose decoder would take minutes.

    Args:
        picture: the opened file.
        content: the file.
        name: its name in the error.

    Raises:
        ImageError: it is such a file.
    """
    pixels = picture.width * picture.height
    if pixels <= max(PYTHON_PIXELS, PIXELS_PER_BYTE * len(content)):
        return
    codecs = [Image.DECODERS.get(tile[0]) for tile in getattr(picture, "tile", ())]
    if any(isinstance(codec, type) and issubclass(codec, ImageFile.PyDecoder) for codec in codecs):
        raise ImageError(
            f"{name} has {pixels / 1e6:.0f} megapixels in {len(content)} bytes of "
            f"{picture.format}, which take minutes to decode; convert it to PNG first"
        )


class _WholeFiles:
    """Counts the users of whole files, and keeps the previous value of Pillow's switch."""

    lock = threading.Lock()
    users = 0
    before = False

    @classmethod
    def reset(cls) -> None:
        """Reset the threads of the parent, in a process that was forked while they decoded."""
        cls.lock = threading.Lock()
        if cls.users and cls.before:
            ImageFile.LOAD_TRUNCATED_IMAGES = True
        cls.users = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_WholeFiles.reset)


@contextlib.contextmanager
def whole_files_only() -> Iterator[None]:
    """Make Pillow reject truncated files, in this block and its threads.

    That is its default; packages that load training data switch it off, for the whole process
    (`ImageFile.LOAD_TRUNCATED_IMAGES`). Then Pillow fills what is missing with grey or black.
    """
    state = _WholeFiles
    with state.lock:
        if not state.users:
            state.before = ImageFile.LOAD_TRUNCATED_IMAGES
        state.users += 1
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        with state.lock:
            state.users -= 1
            if not state.users and state.before:
                ImageFile.LOAD_TRUNCATED_IMAGES = True


def missing_part(content: bytes, picture: Image.Image | DeepPicture) -> str:
    """Return which part of the picture is missing in a file, in words; "" if nothing is missing.

    Pillow reports no error when a PNG's data end properly before its last row, a JPEG's before its
    last block, or a tile of a JPEG 2000 is missing. To save time, PNG and JPEG files are examined
    only if a corner of the picture has the value that decoders leave where data are missing.

    Args:
        content: the file.
        picture: the picture decoded from it.
    """
    if content.startswith(PNG_START) and any(
        not corner[[0, -1], [0, -1]].all() for corner in corners(picture)
    ):
        missing = png_bytes_missing(content)
        return f"{missing} bytes of its pixels are missing" if missing else ""
    if content.startswith(JPEG_START) and any(
        (corner == GREY).all() for corner in corners(picture)
    ):
        return "its last rows are missing" if jpeg_is_short(content) else ""
    if picture.format == "JPEG2000" and JP2_STREAM in content:
        found, wanted = jp2_tiles(content)
        return f"{found} of its {wanted} tiles are there" if found < wanted else ""
    return ""


def corners(picture: Image.Image | DeepPicture) -> Sequence[np.ndarray[Any, Any]]:
    """Return the four corners, up to 8 x 8 pixels each: an upright picture may have been turned."""
    width, height = picture.size
    across, down = (min(side, CORNER) for side in picture.size)
    boxes = [(x, y, x + across, y + down) for x in (0, width - across) for y in (0, height - down)]
    if isinstance(picture, DeepPicture):
        return [picture.pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
    return [np.asarray(picture.crop(box)) for box in boxes]


def png_bytes_missing(content: bytes) -> int:
    """Return how many bytes of rows, filter bytes included, a PNG's data lack."""
    width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
    passes = (
        [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in ADAM7]
        if interlaced
        else [(width, height)]
    )
    missing = sum(
        rows * (1 + -(-columns * bits // 8)) for columns, rows in passes if columns > 0 and rows > 0
    )
    inflate = zlib.decompressobj()
    for data in _png_data(content):
        while data and missing > 0 and not inflate.eof:
            missing -= len(inflate.decompress(data, 2**20))
            data = inflate.unconsumed_tail
    return max(missing - (0 if inflate.eof else len(inflate.flush())), 0)


def _png_data(content: bytes) -> Iterator[bytes]:
    """Yield the contents of a PNG's IDAT chunks."""
    place = len(PNG_START)
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        if content[place + 4 : place + 8] == b"IDAT":
            yield content[place + 8 : place + 8 + length]
        place += 12 + length


def jpeg_is_short(content: bytes) -> bool:
    """Return whether a sequential JPEG has fewer blocks than its picture.

    It is decoded again without its end marker: then the decoder leaves missing rows black.
    """
    jpeg = read_jpeg_markers(content)
    if jpeg.kind not in SEQUENTIAL or jpeg.end < 0:
        return False
    picture = open_with_pillow(io.BytesIO(content[: jpeg.end] + bytes(2 * CORNER)))
    try:
        picture.load()
    except OSError:  # it waits for the end marker
        picture.tile = []  # type: ignore[attr-defined]
    return not np.asarray(picture)[-1].any()


def jp2_tiles(content: bytes) -> tuple[int, int]:
    """Return how many different tiles a JPEG 2000 has, and how many it should have."""
    start = content.find(JP2_STREAM) + 2
    x1, y1, _, _, tile_width, tile_height, tile_x, tile_y = struct.unpack_from(
        ">8I", content, start + 6
    )
    if not (tile_width and tile_height):
        return 0, 1
    wanted = -(-(x1 - tile_x) // tile_width) * -(-(y1 - tile_y) // tile_height)
    tiles, place = set(), start
    while (
        place + 12 <= len(content)
        and content[place : place + 1] == b"\xff"
        and content[place : place + 2] != JPEG_END
    ):
        (length,) = struct.unpack_from(">H", content, place + 2)
        if content[place : place + 2] == b"\xff\x90":  # a part of a tile, with its data
            tile, length = struct.unpack_from(">HI", content, place + 4)
            tiles.add(tile)
            if length < 14:  # 0: up to the end of the file
                break
            place += length
        else:
            place += 2 + length
    return len(tiles), wanted
