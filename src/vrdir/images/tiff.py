"""The directories of a TIFF: which one is the picture, and whether the file contains all of it.

Why no library: Pillow reads the pixels, but it opens the first directory whatever it contains (a
thumbnail, the preview of a camera's RAW file), and leaves missing strips black without an error.
This module reads the few tags that show it, before anything is decoded. tifffile knows more kinds
of TIFF, but it would be a further dependency for a few tags, and does not check these either.

Source: TIFF 6.0 (Adobe, 1992), its supplement 1 for sub-directories, and the BigTIFF layout.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Tags.
NEW_SUBFILE_TYPE, SUBFILE_TYPE = 254, 255
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES = 322, 323, 324, 325, 330
CFA_PATTERN, DNG_VERSION = 33422, 50706
# Values of tags.
RAW_PHOTOMETRIC = {32803, 34892}  # a colour filter array, and linear raw
RAW_COMPRESSION = {32767, 32769, 32770, 34713, 65000, 65535}  # Sony, Samsung, Nikon, Kodak, Pentax
UNCOMPRESSED, OLD_JPEG, JPEG, SEPARATE, YCBCR = 1, 6, 7, 2, 6
REDUCED, MASK = 1, 4  # bits of NewSubfileType

READ_TAGS = {
    NEW_SUBFILE_TYPE,
    SUBFILE_TYPE,
    WIDTH,
    HEIGHT,
    COMPRESSION,
    PHOTOMETRIC,
    SUB_DIRECTORIES,
    CFA_PATTERN,
    DNG_VERSION,
}
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # format characters by tag type
MOST_DIRECTORIES, MOST_VALUES = 10_000, 64
JPEG_END = b"\xff\xd9"


class Directory(NamedTuple):
    """The tags of one picture in a TIFF, as far as they are needed.

    Attributes:
        start: its offset in the file.
        link: the offset at which the offset of the next directory is written.
        tags: the values of its integer tags.
    """

    start: int
    link: int
    tags: dict[int, tuple[int, ...]]

    def first(self, tag: int, default: int = 0) -> int:
        """Return the first value of a tag."""
        return (self.tags.get(tag) or (default,))[0]

    @property
    def is_page(self) -> bool:
        """Whether it is a separate picture, not a smaller copy or a mask of another one."""
        return not self.first(NEW_SUBFILE_TYPE) & (REDUCED | MASK) and self.first(SUBFILE_TYPE) != 2

    @property
    def is_raw(self) -> bool:
        """Whether it contains the data of a camera's sensor."""
        return (
            DNG_VERSION in self.tags
            or CFA_PATTERN in self.tags
            or self.first(PHOTOMETRIC) in RAW_PHOTOMETRIC
            or self.first(COMPRESSION) in RAW_COMPRESSION
        )

    @property
    def pixels(self) -> int:
        """The number of pixels."""
        return self.first(WIDTH) * self.first(HEIGHT)


class Layout(NamedTuple):
    """How a TIFF writes numbers: classic or BigTIFF, little or big endian.

    Attributes:
        order: the byte order, for `struct`.
        entries: the format character of a number of entries.
        offset: the format character of an offset.
        entry_bytes: the size of an entry.
    """

    order: str
    entries: str
    offset: str
    entry_bytes: int

    @property
    def first_link(self) -> int:
        """The offset at which the offset of the first directory is written."""
        return 8 if self.offset == "Q" else 4


def layout_of(start: bytes | bytearray) -> Layout:
    """Return the layout of a TIFF that begins like this."""
    order = "<" if start.startswith(b"I") else ">"
    big = b"+" in start[2:4]
    return Layout(order, "Q", "Q", 20) if big else Layout(order, "H", "I", 12)


def directories(file: IO[bytes]) -> tuple[list[Directory], list[Directory]]:
    """Return the directories of a TIFF in their order, and their sub-directories.

    Those that cannot be read are left out.
    """
    file.seek(0)
    layout = layout_of(file.read(4))
    seen: set[int] = set()
    first = _number(file, layout, layout.offset, layout.first_link)
    chain = list(_chain(file, layout, first, seen))
    below: list[Directory] = []
    for directory in chain:
        for offset in directory.tags.get(SUB_DIRECTORIES, ()):
            below += _chain(file, layout, offset, seen)
    return chain, below


def _chain(
    file: IO[bytes], layout: Layout, offset: int | None, seen: set[int]
) -> Iterator[Directory]:
    """Yield a directory and those that follow it, each offset once."""
    while offset and offset not in seen and len(seen) < MOST_DIRECTORIES:
        seen.add(offset)
        entries = _number(file, layout, layout.entries, offset)
        if entries is None or entries > 65535:
            return
        begin = offset + struct.calcsize(layout.entries)
        file.seek(begin)
        content = file.read(entries * layout.entry_bytes)
        tags = dict(_tags(file, layout, content))
        link = begin + entries * layout.entry_bytes
        yield Directory(offset, link, tags)
        offset = _number(file, layout, layout.offset, link)


def _tags(file: IO[bytes], layout: Layout, content: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield the wanted integer tags of a directory's entries, at most `MOST_VALUES` values each."""
    for at in range(0, len(content) - layout.entry_bytes + 1, layout.entry_bytes):
        tag, kind, count = struct.unpack_from(f"{layout.order}HH{layout.offset}", content, at)
        if tag not in READ_TAGS or kind not in INTEGERS:
            continue
        form = f"{layout.order}{min(count, MOST_VALUES)}{INTEGERS[kind]}"
        value = content[at + 4 + struct.calcsize(layout.offset) : at + layout.entry_bytes]
        if count * struct.calcsize(INTEGERS[kind]) > len(value):
            file.seek(*struct.unpack(layout.order + layout.offset, value))
            value = file.read(struct.calcsize(form))
        if len(value) >= struct.calcsize(form):
            yield tag, struct.unpack_from(form, value)


def _number(file: IO[bytes], layout: Layout, form: str, offset: int) -> int | None:
    """Return the number at an offset, or None behind the end of the file."""
    file.seek(offset)
    content = file.read(struct.calcsize(form))
    if len(content) < struct.calcsize(form):
        return None
    return int(struct.unpack(layout.order + form, content)[0])


def full_page(chain: Sequence[Directory], below: Sequence[Directory]) -> Directory | None:
    """Return the one picture of which all others are smaller copies or masks.

    Returns:
        The directory; None for a file of several pages, or of none.
    """
    pages = [directory for directory in chain if directory.is_page] or [
        directory for directory in below if directory.is_page
    ]
    if len(pages) > 1:
        return None
    return pages[0] if pages else max(chain, key=lambda directory: directory.pixels, default=None)


def with_one_page(file: IO[bytes], page: Directory) -> IO[bytes]:
    """Return the same TIFF with only this directory in its chain; everything keeps its offset."""
    file.seek(0)
    content = bytearray(file.read())
    layout = layout_of(content)
    struct.pack_into(layout.order + layout.offset, content, layout.first_link, page.start)
    if page.link + struct.calcsize(layout.offset) <= len(content):
        struct.pack_into(layout.order + layout.offset, content, page.link, 0)
    return io.BytesIO(content)


class _Parts(NamedTuple):
    """How a picture is divided into strips or tiles.

    Attributes:
        word: "strips" or "tiles".
        columns, rows: the size of each, in pixels.
        in_plane: how many cover the picture once.
        number: how many there must be, over all planes.
        offsets, counts: where each begins in the file, and its length in bytes.
    """

    word: str
    columns: int
    rows: int
    in_plane: int
    number: int
    offsets: Sequence[int]
    counts: Sequence[int]


def strips_missing(tags: Any, file: IO[bytes]) -> str:
    """Return which part of a picture a TIFF lacks, in words; "" if its tags show nothing missing.

    Args:
        tags: the tags by number, as Pillow has them (`tag_v2`).
        file: the whole file.
    """
    if tags.get(COMPRESSION) == OLD_JPEG:  # it has its own offset tags
        return ""
    bits = [int(number) for number in np.atleast_1d(tags.get(BITS, 1))]
    samples = tags.get(SAMPLES, len(bits))
    bits = bits if len(bits) == samples else bits[:1] * samples
    parts = _parts(tags, samples)
    if parts.columns < 1 or parts.rows < 1:
        return f"its {parts.word} have no size"
    found = _number_there(parts)
    if found < parts.number:
        return f"{found} of its {parts.number} {parts.word} are there"
    if tags.get(COMPRESSION) == JPEG:
        pairs = zip(parts.offsets, parts.counts, strict=False)
        short = sum(1 for offset, count in pairs if not _ends(file, offset, count))
        return f"{short} of its {parts.number} {parts.word} are truncated" if short else ""
    compressed = tags.get(COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED
    if compressed or tags.get(PHOTOMETRIC) == YCBCR:
        return ""
    return _bytes_missing(parts, _lengths(tags, parts, bits), file)


def _parts(tags: Any, samples: int) -> _Parts:
    width, height = tags[WIDTH], tags[HEIGHT]
    compressed = tags.get(COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED
    if TILE_OFFSETS in tags and (compressed or STRIP_OFFSETS not in tags):
        word, columns, rows = "tiles", tags[TILE_WIDTH], tags[TILE_HEIGHT]
        offsets, counts = tags[TILE_OFFSETS], tags.get(TILE_BYTES, ())
    else:
        word, columns, rows = "strips", width, min(tags.get(ROWS_PER_STRIP, height), height)
        offsets, counts = tags.get(STRIP_OFFSETS, ()), tags.get(STRIP_BYTES, ())
    in_plane = -(-width // columns) * -(-height // rows) if columns >= 1 and rows >= 1 else 0
    number = in_plane * (samples if tags.get(PLANAR) == SEPARATE else 1)
    return _Parts(word, columns, rows, in_plane, number, offsets, counts)


def _number_there(parts: _Parts) -> int:
    """Return how many of the parts have an offset and a length."""
    # Some writers leave the length of a picture's only strip at 0, and all readers accept that.
    with_length = len(parts.counts) if parts.number > 1 else 0
    return sum(
        1
        for index, offset in enumerate(parts.offsets[: parts.number])
        if offset and (index >= with_length or parts.counts[index])
    )


def _lengths(tags: Any, parts: _Parts, bits: Sequence[int]) -> list[int]:
    """Return the bytes that each part of an uncompressed picture needs."""
    planes = bits if tags.get(PLANAR) == SEPARATE else [sum(bits)]
    row_bytes = [-(-parts.columns * one // 8) for one in planes]
    if parts.word == "tiles":
        return [one * parts.rows for one in row_bytes for _ in range(parts.in_plane)]
    return [
        one * min(parts.rows, tags[HEIGHT] - index * parts.rows)
        for one in row_bytes
        for index in range(parts.in_plane)
    ]


def _bytes_missing(parts: _Parts, lengths: Sequence[int], file: IO[bytes]) -> str:
    pairs = zip(lengths, parts.counts, strict=False)
    short = sum(1 for wanted, count in pairs if 0 < count < wanted)
    if short:
        return f"{short} of its {parts.number} {parts.word} are truncated"
    if sum(lengths) > file.seek(0, io.SEEK_END):
        return f"its {parts.number} {parts.word} need more bytes than it has"
    return ""


def _ends(file: IO[bytes], offset: int, count: int) -> bool:
    """Return whether a strip that is a JPEG has its end marker; some writers pad after it."""
    file.seek(offset + max(count - 8, 0))
    return JPEG_END in file.read(min(count, 8))
