"""The memory that is available, and what an image file will need, before it is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from PIL import Image

from vrdir.errors import ImageError
from vrdir.images.formats import format_named

SHARE = 0.8  # of the memory, for one image
UNKNOWN_MEMORY = 8 << 30  # bytes, assumed where the system does not report its memory
NO_LIMIT = 1 << 60  # cgroup v1 writes about 2^63 for "no limit"
# Bytes per pixel in Pillow's own memory; 4 for all other modes.
STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L"}


def memory_limit(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this process can have.

    That is the machine's memory, or less if the container (cgroup v1 or v2) or the process (`ulimit
    -v`, `ulimit -d`) has a limit.

    Args:
        root: the root of the file system, for the limits of the container.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        machine = UNKNOWN_MEMORY
    return min([machine, *cgroup_limits(root), *process_limits()])


def cgroup_limits(root: Path) -> Iterator[int]:
    """Yield the limits of this process's control group and of all groups above it, in bytes."""
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
        # Within a container the path may be that of the machine, of which only the top is visible.
        for folder in (group, *group.parents):
            for file in files:
                try:
                    limit = int((hierarchy / folder / file).read_text())
                except (OSError, ValueError):  # no such file, or "max"
                    continue
                if 0 < limit < NO_LIMIT:
                    yield limit


def process_limits() -> Iterator[int]:
    """Yield what this process may still take by its resource limits (`ulimit`), in bytes."""
    try:
        import resource

        fields = Path("/proc/self/statm").read_text().split()
    except (ImportError, OSError):  # not on Linux
        return
    page = os.sysconf("SC_PAGE_SIZE")
    for kind, used in ((resource.RLIMIT_AS, fields[0]), (resource.RLIMIT_DATA, fields[5])):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            yield max(limit - int(used) * page, 0)


@cache
def most_for_one() -> int:
    """Return the bytes that one image may need."""
    return int(SHARE * memory_limit())


def opening_bytes(picture: Image.Image, file_bytes: int) -> int:
    """Return about how many bytes it takes to open an image.

    That is: to decode it, turn it upright and convert it to float32.

    Args:
        picture: the opened image, not yet decoded.
        file_bytes: the size of its file.
    """
    channels = 1 if picture.mode in GREY_MODES else 3
    stored = STORED.get(picture.mode, 4)
    per_pixel = 2 * stored + channels * (1 + 4 + format_named(picture.format).decoding_bytes)
    return file_bytes + per_pixel * picture.width * picture.height


def check_memory(
    needed: int, size: tuple[int, int], name: str, error: type[ImageError] = ImageError
) -> None:
    """Check that an image, or a frame, does not need more memory than one image may.

    Args:
        needed: in bytes.
        size: width and height in pixels.
        name: the file's name in the error.
        error: the error to raise.

    Raises:
        ImageError: it needs more.
    """
    if needed > most_for_one():
        raise error(
            f"{name} ({size[0]} x {size[1]} pixels) needs about {needed / 2**30:.1f} GiB of "
            f"memory, but {most_for_one() / 2**30:.1f} GiB are available for one image; use a "
            "smaller copy, divide the image, or use a machine with more memory"
        )
