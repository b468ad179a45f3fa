"""One image: read from its address, restored, written, and its row in the account."""

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
from vrdir.cluster.listing import Source
from vrdir.cluster.storage import LocalDiskError, PassingError, join
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

# Faults of the storage or of this machine, not of the image.
PASSING = (PassingError, MissingFileError, NotPermittedError, LocalDiskError)
Input = TypeVar("Input")
Result = TypeVar("Result")


class Options(NamedTuple):
    """How images are restored and written.

    Attributes:
        restorer: arguments of `vrdir.Restorer`, so that every worker makes its own.
        suffix: the suffix of all results, such as ".png"; None keeps each file's.
        quality: of lossy formats, 1 to 100.
        max_side: reduce larger images to this many pixels on their longer side; None for none.
        overwrite: replace files that exist.
        column: the column of Parquet tables that holds the images; None finds it.
        smoothing: temporal smoothing of videos, 0 (off) to 0.99.
        max_megapixels: of the largest image that is opened; None for Pillow's limit. It is set for
            the whole process.
        since: when the run began, by the storage's clock, in seconds since 1970: a target that is
            newer is the run's own, and replaced. None if that is unknown.
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

    An earlier try of this run, whose worker was lost before it noted its rows, may have written it.

    Raises:
        DataError: another source of this run has the same target.
        ExistsError: the target exists, is not of this run, and is not to be replaced.
    """
    if source.clash:
        raise DataError(
            f"its result would be written to {storage.shown(target)}, as that of an image listed "
            "before it; give it another output or name"
        )
    if options.overwrite:
        return
    modified = storage.modified(target)
    if modified is None or (options.since is not None and modified > options.since):
        return
    raise ExistsError(f"{storage.shown(target)} exists; replace it with --overwrite")


def failure(row: Row, error: Exception) -> Row:
    """Note an error in a row: what may pass, for a resumed run, or what stays.

    Raises:
        DiskError: the disk of the results is full or read-only: no other could be written either.
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
    """Note when a row was finished, and its seconds since `start` (`time.perf_counter`)."""
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
        diagnosis: what was wrong with the image.
    """

    content: bytes
    diagnosis: Diagnosis


def target_name(name: str, suffix: str | None) -> str:
    """Return the name of a source's result, as `vrdir restore` of a folder names it."""
    if suffix is not None:
        return str(PurePosixPath(name).with_suffix(suffix))
    return f"{name}.png" if plain_suffix(name) in ONLY_READ else name


def restore_content(
    restorer: Restorer, content: bytes, name: str, options: Options
) -> RestoredFile:
    """Restore an encoded image file.

    Args:
        restorer: restores it.
        content: the file.
        name: of the file, for errors and by its suffix for the result's format.
        options: how.

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
    """Lets a bounded number of threads restore at once; others read and write meanwhile.

    Args:
        restorer: restores images.
        at_once: threads that restore at the same time, each with one of torch's threads.
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
        """Restore an encoded file as soon as there is a free place and memory for it."""
        with self._free, self._memory.reserve(self.restorer.network.content_bytes(content, name)):
            return restore_content(self.restorer, content, name, options)

    def restore_video(self, source: Path, target: Path, smoothing: float) -> None:
        """Restore a video file as soon as there is a free place."""
        with self._free:
            self.restorer.restore_video(source, target, smoothing)


def map_threads(
    action: Callable[[Input], Result], items: Iterable[Input], threads: int
) -> Iterator[Result]:
    """Apply an action to items in threads and yield the results in order.

    No more than two items a thread are drawn ahead, so that the memory stays bounded. Each thread
    computes with one of torch's threads. At an error or interruption no further item is begun.
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
    """Restore a source into the output. Failures are noted in the row, not raised.

    Raises:
        DiskError: the disk of the results is full or read-only.
    """
    start = time.perf_counter()
    target = join(output, target_name(source.name, options.suffix))
    row = Row(storage.shown(source.address), storage.shown(target), key=key_of(source))
    try:
        check_free(source, target, options)
        content = storage.read(source.address, source.size)
        row = row._replace(source_bytes=len(content), source_sha256=sha256(content).hexdigest())
        restored = gate.restore(content, source.name, options)
        storage.write(target, restored.content)
        row = row._replace(
            target_bytes=len(restored.content),
            target_sha256=sha256(restored.content).hexdigest(),
            haze=restored.diagnosis.haze,
            noise=restored.diagnosis.noise,
            rain=restored.diagnosis.rain,
            changed=restored.diagnosis.changed,
        )
    except Exception as error:  # the next image is another
        row = failure(row, error)
    return finish(row, start)
