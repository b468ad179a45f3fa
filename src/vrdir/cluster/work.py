"""Process one image: read it from its address, restore it, write the result, return its row."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import torch

from vrdir.atomic import HOPELESS
from vrdir.batch.memory_budget import MemoryBudget
from vrdir.batch.results import Diagnosis
from vrdir.cluster import storage
from vrdir.cluster.account import Row, key_of
from vrdir.cluster.addresses import join, shown
from vrdir.cluster.attempts import LocalDiskError, PassingError
from vrdir.cluster.listing import Source
from vrdir.errors import (
    DataError,
    DiskError,
    ExistsError,
    MissingFileError,
    NotPermittedError,
    VrdirError,
    first_line,
)
from vrdir.images.formats import ONLY_READ, WRITTEN_SUFFIXES, plain_suffix
from vrdir.images.reading import allow_megapixels, decode
from vrdir.images.reducing import reduced
from vrdir.images.writing import QUALITY, encode, format_of
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.stream import SMOOTHING
from vrdir.weights.bundled import bundled_weights

# Errors of the storage or of this machine, not of the image.
PASSING = (PassingError, MissingFileError, NotPermittedError, LocalDiskError)
Input = TypeVar("Input")
Result = TypeVar("Result")


class Options(NamedTuple):
    """How images are restored and written.

    Attributes:
        restorer: arguments of `vrdir.Restorer`; every worker makes its own restorer.
        suffix: the suffix of all results, such as ".png"; None keeps each file's.
        quality: the quality of lossy formats, 1 to 100.
        max_side: reduce larger images to this many pixels on their longer side; None keeps their
            size.
        overwrite: replace files that exist.
        column: the column of Parquet tables that contains the images; None finds it.
        smoothing: temporal smoothing of videos, 0 (off) to 0.99.
        max_megapixels: the largest image that is opened; None for Pillow's limit. It is set for
            the whole process.
        since: when the run began, by the storage's clock, in seconds since 1970; None if unknown. A
            newer target was written by this run, and is replaced.
    """

    restorer: Mapping[str, Any]
    suffix: str | None = None
    quality: int = QUALITY
    max_side: int | None = None
    overwrite: bool = False
    column: str | None = None
    smoothing: float = SMOOTHING
    max_megapixels: float | None = None
    since: float | None = None


def check_free(source: Source, target: str, options: Options) -> None:
    """Check that the result of a source may be written.

    The target may exist because a worker of this run wrote it, and was lost before it wrote the
    rows. Such a target may be replaced.

    Raises:
        DataError: another source of this run has the same target.
        ExistsError: the target exists, was not written by this run, and may not be replaced.
    """
    if source.clash:
        raise DataError(
            f"its result would be written to {shown(target)}, as that of an image listed "
            "before it; give it another output or name"
        )
    if options.overwrite:
        return
    modified = storage.modified(target)
    if modified is None or (options.since is not None and modified > options.since):
        return
    raise ExistsError(f"{shown(target)} exists; replace it with --overwrite")


def failure(row: Row, error: Exception) -> Row:
    """Return a row with an error, and with the status that belongs to it; see `Row.status`.

    Raises:
        DiskError: the disk of the results is full or read-only, so that the run must end.
    """
    if isinstance(error, DiskError) and not isinstance(error, LocalDiskError):
        raise error
    kind = "" if isinstance(error, VrdirError) else f"{type(error).__name__}: "
    status = "failed"
    if isinstance(error, ExistsError):
        status = "exists"
    elif isinstance(error, PASSING) or (isinstance(error, OSError) and error.errno in HOPELESS):
        status = "unreachable"
    return row._replace(status=status, error=kind + first_line(error))


def finish(row: Row, start: float) -> Row:
    """Return a row with the time now, and the seconds since `start` (of `time.perf_counter`)."""
    return row._replace(seconds=time.perf_counter() - start, time=time.time())


def for_workers(restorer: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments of `vrdir.Restorer` that mean the same in a program in another folder."""
    weights = restorer.get("weights")
    if isinstance(weights, Path) or (
        isinstance(weights, str) and weights not in bundled_weights() and Path(weights).exists()
    ):
        return {**restorer, "weights": type(weights)(Path(weights).absolute())}
    return dict(restorer)


class RestoredFile(NamedTuple):
    """A restored image file.

    Attributes:
        content: the encoded file.
        diagnosis: the degradations of the image.
    """

    content: bytes
    diagnosis: Diagnosis


def target_name(name: str, suffix: str | None) -> str:
    """Return the name of the result of a source, as `vrdir restore` of a folder names it."""
    if suffix is not None:
        return str(PurePosixPath(name).with_suffix(suffix))
    return f"{name}.png" if plain_suffix(name) in ONLY_READ else name


def restore_content(
    restorer: Restorer, content: bytes, name: str, options: Options
) -> RestoredFile:
    """Restore an encoded image file.

    Args:
        restorer: the restorer to use.
        content: the encoded file.
        name: the name of the file, for error messages; its suffix decides the format of the result.
        options: how the image is restored and written.

    Raises:
        ImageError: it is not an image, is damaged, or cannot be written in the format.
        ResultError: the result is not finite.
    """
    target = target_name(name, options.suffix)
    picture = decode(content, name)
    file_format = picture.format or "PNG"
    if options.max_side is not None:
        picture = reduced(picture, options.max_side)
    result = restorer.restore(picture)
    if plain_suffix(target) in WRITTEN_SUFFIXES:  # images of a table have no suffix
        file_format = format_of(Path(target))
    encoded = encode(result.image, file_format, target, options.quality)
    return RestoredFile(encoded, result.diagnosis[0])


class Gate:
    """Limits the number of threads that restore at the same time; others may read and write.

    Args:
        restorer: the restorer to use.
        at_once: the number of threads that restore at the same time, with one torch thread each.
        max_megapixels: see `Options`.
    """

    def __init__(
        self, restorer: Restorer, at_once: int, max_megapixels: float | None = None
    ) -> None:
        if max_megapixels is not None:
            allow_megapixels(max_megapixels)
        self.restorer, self.at_once = restorer, at_once
        self._free = threading.BoundedSemaphore(at_once)
        self._memory = MemoryBudget()

    def restore(self, content: bytes, name: str, options: Options) -> RestoredFile:
        """Wait for a free place and enough memory, and restore an encoded image file."""
        with self._free, self._memory.reserve(self.restorer.network.content_bytes(content, name)):
            return restore_content(self.restorer, content, name, options)

    def restore_video(self, source: Path, target: Path, smoothing: float) -> None:
        """Wait for a free place, and restore a video file."""
        with self._free:
            self.restorer.restore_video(source, target, smoothing)


def map_threads(
    action: Callable[[Input], Result], items: Iterable[Input], threads: int
) -> Iterator[Result]:
    """Apply an action to items in threads, and yield the results in the order of the items.

    At most two items per thread are taken in advance, so that memory stays bounded. Each thread
    computes with one torch thread. After an error or interruption no further item is begun.
    """
    own = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "address", initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(action, item))
            if len(waiting) >= 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(own)


def restore_source(gate: Gate, source: Source, output: str, options: Options) -> Row:
    """Restore an image into the output. Failures are recorded in the row, not raised.

    Raises:
        DiskError: the disk of the results is full or read-only.
    """
    start = time.perf_counter()
    target = join(output, target_name(source.name, options.suffix))
    row = Row(shown(source.address), shown(target), key=key_of(source))
    try:
        check_free(source, target, options)
        content = storage.read(source.address, source.size)
        row = row._replace(source_bytes=len(content), source_sha256=sha256(content).hexdigest())
        restored = gate.restore(content, source.name, options)
        storage.write(target, restored.content)
        row = row._replace(
            target_bytes=len(restored.content),
            target_sha256=sha256(restored.content).hexdigest(),
            **restored.diagnosis._asdict(),
        )
    except Exception as error:  # the next image is another
        row = failure(row, error)
    return finish(row, start)
