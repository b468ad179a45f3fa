"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from vrdir.errors import DiskError, ImageError

# Errors that every further file would meet too, and what to do about them.
HOPELESS = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room within the quota",
    errno.EROFS: "choose an output on a disk that can be written to",
}


_partials: set[Path] = set()  # temporary files that are written to


@contextlib.contextmanager
def result_file(
    path: Path,
    partial_name: str | None = None,
    before: Callable[[os.stat_result], None] | None = None,
) -> Iterator[Path]:
    """`whole_file` in a folder that is made if need be.

    Raises:
        DiskError: the disk is full or can only be read, so that no other file could be written either.
        ImageError: it cannot be written for another reason.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path, partial_name, before) as partial:
            yield partial
    except OSError as error:
        advice = HOPELESS.get(error.errno or 0)
        if advice:
            raise DiskError(f"{path} cannot be written ({error.strerror}); {advice}") from None
        raise ImageError(
            f"{path} cannot be written ({error.strerror}); check the folder and its permissions"
        ) from None


def write_whole(content: bytes | memoryview, path: Path) -> None:
    """Write under a temporary name and rename, so that a reader meets the whole file or none."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole_file(
    path: Path,
    partial_name: str | None = None,
    before: Callable[[os.stat_result], None] | None = None,
) -> Iterator[Path]:
    """A temporary name beside `path` to write to; at the end of the block it takes its place, after an error it is removed.

    Args:
        partial_name: the temporary name; None for one that nobody else has.
        before: called just before the renaming, with what the file's size and time will be.
    """
    partial = path.with_name(partial_name or f".{uuid.uuid4().hex[:12]}.partial")
    _partials.add(partial)
    try:
        yield partial
        if before is not None:
            before(partial.stat())
        partial.replace(path)
    finally:
        with contextlib.suppress(
            OSError
        ):  # where the folder itself cannot be written to, nothing was left
            partial.unlink(missing_ok=True)
        _partials.discard(partial)


def remove_partials() -> None:
    """Remove the temporary files that are written to just now: for a process that ends without its
    threads."""
    for partial in list(_partials):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
