"""How much memory there is, and how much of it an image file will take: known before it is
decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from vrdir.errors import ImageError

MOST = 0.8  # of the memory, for one image
ELSEWHERE = 8 << 30  # bytes, where the system does not say how much memory it has
NO_LIMIT = 1 << 60  # cgroup v1 says about 2^63 where there is none
STORED = {
    "1": 1,
    "L": 1,
    "P": 1,
    "I;16": 2,
    "I;16B": 2,
    "I;16L": 2,
    "LA": 4,
    "PA": 4,
}  # bytes a pixel, in Pillow's own memory
# Bytes a pixel and channel that decoders take which do not go row by row: whole numbers,
# coefficients, planes.
DECODING = {"JPEG2000": 8, "JPEG": 2, "MPO": 2, "WEBP": 3, "AVIF": 4, "HEIF": 4}
GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"}


def memory_limit(root: Path = Path("/")) -> int:
    """The bytes that this process can have: the machine's memory, or its container's limit (cgroup
    v1 or v2) where that is less.

    Args:
        root: of the file system that says it.
    """
    try:
        there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        there = ELSEWHERE
    return min([there, *cgroup_limits(root)])


def cgroup_limits(root: Path) -> Iterator[int]:
    """The limits of this process's control group and of all above it."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            hierarchy, files = root / "sys/fs/cgroup", ["memory.max", "memory.high"]
        elif "memory" in controllers.split(","):
            hierarchy, files = root / "sys/fs/cgroup/memory", ["memory.limit_in_bytes"]
        else:
            continue
        group = Path(path.lstrip("/"))
        for folder in (
            group,
            *group.parents,
        ):  # within a container the path may be that of the machine, and only the top is there
            for file in files:
                try:
                    limit = int((hierarchy / folder / file).read_text())
                except (OSError, ValueError):  # not there, or "max"
                    continue
                if 0 < limit < NO_LIMIT:
                    yield limit


@cache
def most_for_one() -> int:
    """The bytes that one image may need."""
    return int(MOST * memory_limit())


def opening_bytes(picture: Image.Image, file_bytes: int) -> int:
    """About what it takes to decode an opened file, turn it upright and make 32-bit numbers of
    it."""
    channels = 1 if picture.mode in GREY else 3
    stored = STORED.get(picture.mode, 4)
    a_pixel = 2 * stored + channels * (1 + 4 + DECODING.get(picture.format or "", 0))
    return file_bytes + a_pixel * picture.width * picture.height


def check_memory(needed: int, picture: Image.Image, name: str) -> None:
    """Raise ImageError, which calls the file `name`, where an image needs more memory than there is
    for one."""
    if needed > most_for_one():
        raise ImageError(
            f"{name} ({picture.width} x {picture.height} pixels) needs about {needed / 2**30:.1f} GiB of memory, and there are "
            f"{most_for_one() / 2**30:.1f} for one image; give a smaller copy, cut it up, or use a machine with more"
        )
