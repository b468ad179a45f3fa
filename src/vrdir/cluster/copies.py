"""Local copies of data sets at addresses, for programs that read files many times.

Training reads every image in each epoch, so its images are copied once. The folder of all copies
has a size limit: the copies that were not used for the longest time are removed. An interrupted
copy continues where it stopped. A file is copied again if its size or version (S3's ETag) at the
address has changed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from vrdir.atomic import write_whole
from vrdir.cluster import listing, storage
from vrdir.cluster.addresses import is_address, join, shown
from vrdir.cluster.listing import Source
from vrdir.cluster.work import map_threads
from vrdir.errors import DataError
from vrdir.images.folders import composed
from vrdir.text_files import read_text

logger = logging.getLogger(__name__)
THREADS = 16  # that copy at the same time
NOTED_EVERY = 200  # files, after which the index is written
INDEX = "copied.json"  # for each copied file its size, and its version at the address


def copies_folder() -> Path:
    """Return the folder of all copies: `vrdir/data` below XDG_CACHE_HOME, by default ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vrdir" / "data"


class Copies:
    """Copies of data sets, in a folder of limited size.

    Args:
        limit_bytes: the largest size of all copies together.
        folder: the folder of all copies; by default `copies_folder()`.
    """

    def __init__(self, limit_bytes: int, folder: Path | None = None) -> None:
        self.limit_bytes, self.folder = limit_bytes, folder or copies_folder()

    def images(self, address: str) -> Path:
        """Copy the images below an address, and return the folder of the copies.

        Copies of images that are no longer at the address are removed.

        Raises:
            MissingFileError, NotPermittedError, PassingError: the images cannot be listed or read.
            DataError: the images need more space than is allowed or free.
        """
        sources = list(listing.sources([address]))
        return self._copied(address, sources) / "files"

    def pairs(self, path: str) -> Path:
        """Copy the files that a pair list names, and write a list of the copies.

        Args:
            path: the pair list, at an address or on this machine. It names files by addresses, by
                paths relative to the list, or by absolute paths. Local files are not copied.

        Returns:
            A pair list with the same lines, in which the copies replace the addresses.

        Raises:
            MissingFileError, NotPermittedError, PassingError: the list or a file cannot be read.
            DataError: the list is not text, or the files need more space than is allowed or free.
        """
        text = _text(path)
        parent = path.rpartition("/")[0] if is_address(path) else str(Path(path).parent.absolute())
        lines = text.split("\n")
        addresses = {
            side: side if is_address(side) or Path(side).is_absolute() else join(parent, side)
            for line in lines
            for side in _sides(line)
        }
        distant = dict.fromkeys(whole for whole in addresses.values() if is_address(whole))
        sources = list(map_threads(listing.described, distant, THREADS))
        folder = self._copied(path, sources)
        here = {source.address: folder / "files" / source.name for source in sources}
        there = {side: str(here.get(whole, whole)) for side, whole in addresses.items()}
        written = [_replaced(line, there) for line in lines]
        target = folder / PurePosixPath(path).name
        write_whole("\n".join(written).encode("utf-8", "surrogateescape"), target)
        return target

    def _copied(self, address: str, sources: Sequence[Source]) -> Path:
        """Copy files into the folder for an address, and return this folder."""
        digest = sha256(address.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        folder = self.folder / digest
        (folder / "files").mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / f"{digest}.lock"):  # several processes may train
            self._copy(address, sources, folder)
        return folder

    def _copy(self, address: str, sources: Sequence[Source], folder: Path) -> None:
        os.utime(folder)  # the time of its last use
        total = sum(source.size or 0 for source in sources)
        self._make_room(folder, total, shown(address))
        _remove_others(folder / "files", {source.name for source in sources})
        index = _Index(folder / INDEX)
        missing = [source for source in sources if not index.has(source, folder / "files")]
        if missing:
            megabytes = sum(source.size or 0 for source in missing) / 1e6
            logger.info(
                "copying %d files (%.0f MB) from %s to %s",
                len(missing), megabytes, shown(address), folder,
            )  # fmt: skip

        def copy(source: Source) -> None:
            target = folder / "files" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.partial")
            try:
                storage.fetch(source.address, partial, source.size)
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            index.add(source)

        try:
            for _ in map_threads(copy, missing, THREADS):
                pass
        finally:
            index.write()

    def _make_room(self, keep: Path, needed: int, address: str) -> None:
        """Remove the copies that were not used for the longest time, until `needed` bytes fit.

        Raises:
            DataError: that many bytes are not allowed, or not free on the disk.
        """
        if needed > self.limit_bytes:
            raise DataError(
                f"{address} has {needed / 1e9:.2f} GB of images, but copies may use "
                f"{self.limit_bytes / 1e9:.2f} GB; raise --copies-gb"
            )
        others = [path for path in self.folder.iterdir() if path.is_dir() and path != keep]
        sizes = {path: _size(path) for path in others}
        for path in sorted(others, key=lambda path: path.stat().st_mtime):
            if sum(sizes.values()) + needed <= self.limit_bytes:
                break
            logger.info("removing copies that were not used for longest: %s", path)
            shutil.rmtree(path)
            del sizes[path]
        more = needed - _size(keep)
        free = shutil.disk_usage(self.folder).free
        if more > free:
            raise DataError(
                f"copying {address} needs {more / 1e9:.2f} GB more on the disk of {self.folder}, "
                f"which has {free / 1e9:.2f} GB; set XDG_CACHE_HOME to a folder on a larger disk"
            )


class _Index:
    """The sizes and versions of the files that were copied. Several threads may use it."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        self.noted: dict[str, list[Any]] = {}
        with contextlib.suppress(FileNotFoundError, ValueError):  # then the files are copied again
            self.noted = json.loads(path.read_text())

    def has(self, source: Source, folder: Path) -> bool:
        path = folder / source.name
        size = path.stat().st_size if path.is_file() else None
        if size is None or self.noted.get(source.name) != [size, source.version]:
            return False
        return source.size is None or source.size == size

    def add(self, source: Source) -> None:
        size = (self.path.parent / "files" / source.name).stat().st_size
        with self._lock:
            self.noted[source.name] = [size, source.version]
            due = len(self.noted) % NOTED_EVERY == 0
        if due:
            self.write()

    def write(self) -> None:
        with self._lock:
            write_whole(json.dumps(self.noted).encode(), self.path)


def is_distant(path: str) -> bool:
    """Return whether a pair list is at an address, or names addresses."""
    if is_address(path):
        return True
    try:
        return "://" in read_text(Path(path))
    except (OSError, ValueError):  # reading it later raises the error
        return False


def _text(path: str) -> str:
    if not is_address(path):
        return read_text(Path(path))
    try:
        return storage.read(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(
            f"{shown(path)} is not a text file; a pair list has lines degraded|clean"
        ) from None


def _sides(line: str) -> list[str]:
    """Return the files that a line of a pair list names; none for a comment or an invalid line."""
    line = line.strip()
    if not line or line.startswith("#") or line.count("|") != 1:
        return []
    return [side for side in map(str.strip, line.split("|")) if side and side[0] != "@"]


def _replaced(line: str, paths: Mapping[str, str]) -> str:
    """Return a line of a pair list with its paths replaced."""
    if not _sides(line):
        return line
    return "|".join(paths.get(side, side) for side in map(str.strip, line.split("|")))


def _remove_others(folder: Path, names: set[str]) -> None:
    known = {composed(name) for name in names}
    for path in _files(folder):
        if composed(path.relative_to(folder).as_posix()) not in known:
            path.unlink()


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in _files(folder))
