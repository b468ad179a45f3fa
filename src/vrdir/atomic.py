"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from vrdir.errors import DiskError, ImageError

# Errors that would also occur for every further file, and advice on them.
HOPELESS = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some space within the quota",
    errno.EROFS: "choose an output on a disk that can be written to",
}

_partials: set[Path] = set()  # the temporary files that are being written


@contextlib.contextmanager
def result_file(
    path: Path,
    partial_name: str | None = None,
    before: Callable[[os.stat_result], None] | None = None,
) -> Iterator[Path]:
    """Open a file as `whole_file` does, in a folder that is created if necessary.

    Raises:
        DiskError: the disk is full or read-only, so that no other file could be written either.
        ImageError: the file cannot be written for another reason.
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
    """Write a file under a temporary name and rename it: a reader sees the whole file or none."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def whole_file(
    path: Path,
    partial_name: str | None = None,
    before: Callable[[os.stat_result], None] | None = None,
) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to.

    At the end of the block the temporary file is renamed to `path`; after an error it is removed.

    Args:
        path: the file.
        partial_name: the temporary name; None for a new one.
        before: called just before the renaming, with the size and time that the file will have.
    """
    partial = path.with_name(partial_name or f".{uuid.uuid4().hex[:12]}.partial")
    _partials.add(partial)
    try:
        yield partial
        if before is not None:
            before(partial.stat())
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):  # nothing was written into a read-only folder
            partial.unlink(missing_ok=True)
        _partials.discard(partial)


def remove_partials() -> None:
    """Remove the temporary files that are being written.

    For a process that ends without waiting for its threads.
    """
    for partial in list(_partials):
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
