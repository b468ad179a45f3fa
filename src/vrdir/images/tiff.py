"""The directories of a TIFF: which of them is the picture, whether it is a camera's RAW, and
whether the file holds all of it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
NEW_SUBFILE_TYPE, SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = (
    254,
    255,
    256,
    257,
    258,
    259,
    262,
)
STRIP_OFFSETS, SAMPLES, ROWS_PER_STRIP, STRIP_BYTES, PLANAR = 273, 277, 278, 279, 284
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_BYTES, SUB_DIRECTORIES = 322, 323, 324, 325, 330
CFA_PATTERN, DNG_VERSION = 33422, 50706
RAW_PHOTOMETRIC = {32803, 34892}  # a colour filter array, and linear raw
RAW_COMPRESSION = {
    32767,
    32769,
    32770,
    34713,
    65000,
    65535,
}  # Sony's, Samsung's, Nikon's, Kodak's, Pentax's own
WANTED = {
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
REDUCED, MASK = 1, 4  # bits of NewSubfileType
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # by a tag's type
MOST_DIRECTORIES, MOST_VALUES = 10_000, 64
UNCOMPRESSED, OLD_JPEG, JPEG, SEPARATE, YCBCR = 1, 6, 7, 2, 6
JPEG_END = b"\xff\xd9"


class Directory(NamedTuple):
    """What is wanted of a directory, which describes one picture.

    Attributes:
        start: where in the file it lies.
        link: where in the file the next one's place is written.
        tags: values of tags that are whole numbers.
    """

    start: int
    link: int
    tags: dict[int, tuple[int, ...]]

    def first(self, tag: int, default: int = 0) -> int:
        return (self.tags.get(tag) or (default,))[0]

    @property
    def is_page(self) -> bool:
        """Whether it is neither a smaller copy of another picture nor its mask."""
        return not self.first(NEW_SUBFILE_TYPE) & (REDUCED | MASK) and self.first(SUBFILE_TYPE) != 2

    @property
    def is_raw(self) -> bool:
        """Whether it holds what a camera's sensor saw."""
        tells = DNG_VERSION in self.tags or CFA_PATTERN in self.tags
        return (
            tells
            or self.first(PHOTOMETRIC) in RAW_PHOTOMETRIC
            or self.first(COMPRESSION) in RAW_COMPRESSION
        )

    @property
    def pixels(self) -> int:
        return self.first(WIDTH) * self.first(HEIGHT)


class Layout(NamedTuple):
    """How a TIFF writes places: byte order for `struct`, and the sizes of a number of entries, of a
    place, of an entry."""

    order: str
    entries: str
    place: str
    entry_bytes: int

    @classmethod
    def of(cls, start: bytes | bytearray) -> Layout:
        order = "<" if start.startswith(b"I") else ">"
        return cls(order, "Q", "Q", 20) if b"+" in start[2:4] else cls(order, "H", "I", 12)

    @property
    def first_link(self) -> int:
        """Where the place of the first directory is written."""
        return 8 if self.place == "Q" else 4


def directories(file: IO[bytes]) -> tuple[list[Directory], list[Directory]]:
    """The directories of a TIFF in their order, and those that lie below one of them; as far as
    they can be read."""
    file.seek(0)
    layout = Layout.of(file.read(4))
    seen: set[int] = set()
    chain = list(_chain(file, layout, _number(file, layout, layout.place, layout.first_link), seen))
    below: list[Directory] = []
    for directory in chain:
        below += [
            sub
            for place in directory.tags.get(SUB_DIRECTORIES, ())
            for sub in _chain(file, layout, place, seen)
        ]
    return chain, below


def _chain(
    file: IO[bytes], layout: Layout, place: int | None, seen: set[int]
) -> Iterator[Directory]:
    while place and place not in seen and len(seen) < MOST_DIRECTORIES:
        seen.add(place)
        entries = _number(file, layout, layout.entries, place)
        if entries is None or entries > 65535:
            return
        begin = place + struct.calcsize(layout.entries)
        file.seek(begin)
        content = file.read(entries * layout.entry_bytes)
        tags = dict(_tags(file, layout, content))
        link = begin + entries * layout.entry_bytes
        yield Directory(place, link, tags)
        place = _number(file, layout, layout.place, link)


def _tags(file: IO[bytes], layout: Layout, content: bytes) -> Iterator[tuple[int, tuple[int, ...]]]:
    for at in range(0, len(content) - layout.entry_bytes + 1, layout.entry_bytes):
        tag, kind, count = struct.unpack_from(f"{layout.order}HH{layout.place}", content, at)
        if tag not in WANTED or kind not in INTEGERS:
            continue
        form = f"{layout.order}{min(count, MOST_VALUES)}{INTEGERS[kind]}"
        value = content[at + 4 + struct.calcsize(layout.place) : at + layout.entry_bytes]
        if count * struct.calcsize(INTEGERS[kind]) > len(value):
            file.seek(*struct.unpack(layout.order + layout.place, value))
            value = file.read(struct.calcsize(form))
        if len(value) >= struct.calcsize(form):
            yield tag, struct.unpack_from(form, value)


def _number(file: IO[bytes], layout: Layout, form: str, place: int) -> int | None:
    """None behind the end of the file."""
    file.seek(place)
    content = file.read(struct.calcsize(form))
    return (
        struct.unpack(layout.order + form, content)[0]
        if len(content) == struct.calcsize(form)
        else None
    )


def full_page(chain: Sequence[Directory], below: Sequence[Directory]) -> Directory | None:
    """The one picture that all others are smaller copies or masks of; None for a file of several
    pages."""
    pages = [directory for directory in chain if directory.is_page] or [
        directory for directory in below if directory.is_page
    ]
    if len(pages) > 1:
        return None
    return pages[0] if pages else max(chain, key=lambda directory: directory.pixels, default=None)


def with_one_page(file: IO[bytes], page: Directory) -> IO[bytes]:
    """The same TIFF with this directory for its first and last. What lies elsewhere stays where it
    is."""
    file.seek(0)
    content = bytearray(file.read())
    layout = Layout.of(content)
    struct.pack_into(layout.order + layout.place, content, layout.first_link, page.start)
    if page.link + struct.calcsize(layout.place) <= len(content):
        struct.pack_into(layout.order + layout.place, content, page.link, 0)
    return io.BytesIO(content)


def strips_missing(tags: Any, file: IO[bytes]) -> str:
    """Which part of a picture a TIFF does not hold, in words; "" if there is all of it, as far as
    its tags tell.

    Args:
        tags: the picture's, by number, as Pillow has them.
        file: the whole file.
    """
    if tags.get(COMPRESSION) == OLD_JPEG:  # which has its own places
        return ""
    width, height = tags[WIDTH], tags[HEIGHT]
    separate = tags.get(PLANAR) == SEPARATE
    bits = [int(number) for number in np.atleast_1d(tags.get(BITS, 1))]
    samples = tags.get(SAMPLES, len(bits))
    bits = bits if len(bits) == samples else bits[:1] * samples
    compressed = tags.get(COMPRESSION, UNCOMPRESSED) != UNCOMPRESSED
    tiled = TILE_OFFSETS in tags and (compressed or STRIP_OFFSETS not in tags)
    if tiled:
        columns, rows, what = tags[TILE_WIDTH], tags[TILE_HEIGHT], "tiles"
    else:
        columns, rows, what = width, min(tags.get(ROWS_PER_STRIP, height), height), "strips"
    if columns < 1 or rows < 1:
        return f"its {what} have no size"
    needed = -(-width // columns) * -(-height // rows)
    offsets = tags.get(TILE_OFFSETS if tiled else STRIP_OFFSETS, ())
    counts = tags.get(TILE_BYTES if tiled else STRIP_BYTES, ())
    all_needed = needed * (samples if separate else 1)
    # Some writers leave the length of a picture's only strip at 0, and all readers take what there
    # is.
    unknown = len(counts) if all_needed > 1 else 0
    there = sum(
        1
        for number, offset in enumerate(offsets[:all_needed])
        if offset and (number >= unknown or counts[number])
    )
    if there < all_needed:
        return f"{there} of its {all_needed} {what} are there"
    if tags.get(COMPRESSION) == JPEG:
        short = sum(
            1
            for offset, count in zip(offsets, counts, strict=False)
            if not _ends(file, offset, count)
        )
        return f"{short} of its {all_needed} {what} are cut short" if short else ""
    if compressed or tags.get(PHOTOMETRIC) == YCBCR:
        return ""
    row_bytes = (
        [-(-columns * one // 8) for one in bits] if separate else [-(-columns * sum(bits) // 8)]
    )
    lengths = [
        one * (rows if tiled else min(rows, height - number * rows))
        for one in row_bytes
        for number in range(needed)
    ]
    short = sum(1 for wanted, count in zip(lengths, counts, strict=False) if 0 < count < wanted)
    if short:
        return f"{short} of its {all_needed} {what} are cut short"
    return (
        f"its {all_needed} {what} need more bytes than it has"
        if sum(lengths) > file.seek(0, io.SEEK_END)
        else ""
    )


def _ends(file: IO[bytes], offset: int, count: int) -> bool:
    """Whether a strip that is a JPEG ends as one; some writers fill up to whole words after it."""
    file.seek(offset + max(count - 8, 0))
    return JPEG_END in file.read(min(count, 8))
