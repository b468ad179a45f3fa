"""Opening of files for reading: only regular files, because a pipe or a device may never end."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

from vrdir.errors import DataError, ImageError, VrdirError

# O_NONBLOCK: opening does not wait if a pipe replaces the file after it was checked. Windows has no
# such pipes.
FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_CLOEXEC", 0)
)
LFS_STARTS = (
    b"version https://git-lfs.github.com/spec/",
    b"version https://hawser.github.com/spec/",
)
LFS_BYTES = 1024  # no pointer is longer, by the specification


def open_regular(path: Path | str) -> BinaryIO:
    """Open a file for reading in binary mode.

    Every file that a user names or a folder contains is opened by this function.

    Raises:
        ImageError: it is a pipe, a socket or a device (which is not opened), or a Git LFS pointer.
        OSError: it does not exist, is a folder, or cannot be read.
    """
    path = Path(path)
    _check_regular(path.stat().st_mode, path)
    descriptor = os.open(path, FLAGS)
    try:
        _check_regular(os.fstat(descriptor).st_mode, path)
        file = open(descriptor, "rb")  # noqa: SIM115, PTH123
    except BaseException:
        os.close(descriptor)
        raise
    if is_lfs_pointer(file.peek(LFS_BYTES)):
        file.close()
        raise ImageError(lfs_advice(path))
    return file


def check_regular(path: Path | str) -> None:
    """Check a file that another library will open by its name. Raises as `open_regular`."""
    open_regular(path).close()


def refuse_pointer(path: Path, error: type[VrdirError] = DataError) -> None:
    """Raise an error for a Git LFS pointer, a pipe or a device.

    A missing file and a folder raise no error here, but when they are opened.

    Args:
        path: the file.
        error: the error to raise.
    """
    try:
        with contextlib.suppress(OSError):
            check_regular(path)
    except ImageError as problem:
        raise error(str(problem)) from None


def read_regular(path: Path | str) -> bytes:
    """Read a whole file. Raises as `open_regular`."""
    with open_regular(path) as file:
        return file.read()


def is_lfs_pointer(content: bytes) -> bool:
    """Return whether a file is a Git LFS pointer.

    Git puts it in the place of a file that its LFS extension has not downloaded.
    """
    return len(content) <= LFS_BYTES and content.startswith(LFS_STARTS)


def lfs_advice(name: Path | str) -> str:
    """Return the error message for a Git LFS pointer."""
    return f"{name} is a Git LFS pointer, not the file itself; run: git lfs pull"


def _check_regular(mode: int, path: Path) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise ImageError(f"{path} is a pipe, a socket or a device; use a regular file")
