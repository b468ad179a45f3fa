"""Restore image and video files: read, restore, and return what writes the result."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from vrdir.batch.memory_budget import MemoryBudget
from vrdir.batch.results import (
    PLAIN,
    FileJob,
    ImageOptions,
    Outcome,
    ResultWriter,
    content_writer,
)
from vrdir.errors import ImageError, VideoError
from vrdir.images.changes import beside, preview
from vrdir.images.convert import open_image
from vrdir.images.open_arrays import OpenImage
from vrdir.images.reading import read_file
from vrdir.images.reducing import reduced
from vrdir.images.writing import encode, format_of
from vrdir.restoring.network import Network
from vrdir.restoring.restored import restore_opened
from vrdir.restoring.stream import FrameStream
from vrdir.video.formats import Frame, FramePixels, format_of_video
from vrdir.video.reading import VideoReader
from vrdir.video.writing import VideoWriter

FrameCallback = Callable[[int, int | None], None]


def restore_image(
    network: Network, job: FileJob, budget: MemoryBudget, options: ImageOptions = PLAIN
) -> ResultWriter:
    """Restore an image file, when there is memory for it.

    Args:
        network: restores the image.
        job: the files.
        budget: the memory; the work stops when it is closed.
        options: how the result is written.

    Raises:
        ImageError: the source cannot be read, or the target's format cannot be written.
        ResultError: the result is not finite.
        BudgetClosedError: the budget was closed.
    """
    with budget.reserve(network.file_bytes(job.source)):
        opened = _open(job.source, options.max_side)
        file_format = format_of(job.target)
        previews: tuple[bytes, bytes] | None = None

        def close(after: Tensor) -> Any:
            nonlocal previews
            budget.check()
            before = opened.tensor
            if options.preview_px:
                previews = preview(before, options.preview_px), preview(after, options.preview_px)
            picture = opened.close(after)
            return beside(before, after, picture.info) if options.side_by_side else picture

        restored = restore_opened(network, opened._replace(close=close), check=budget.check)
        budget.check()
        content = encode(restored.image, file_format, str(job.target), options.quality)
        return content_writer(content, restored.shares[0], previews, restored.diagnosis[0])


def _open(path: Path, max_side: int | None) -> OpenImage:
    """Open an image file, reduced if it is larger than `max_side`. Raises ImageError."""
    if max_side is None:
        return open_image(path)
    try:
        return open_image(reduced(read_file(path), max_side))
    except ImageError as error:
        raise ImageError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def restore_video(
    job: FileJob,
    stream_of: Callable[[Iterator[FramePixels | None]], FrameStream],
    on_frame: FrameCallback | None = None,
) -> ResultWriter:
    """Open a video file and return what restores it frame by frame.

    Args:
        job: the files.
        stream_of: starts the stream that restores the frames.
        on_frame: called after each frame with the number of finished frames, and of all frames if
            the file names it.

    Raises:
        VideoError: the source cannot be read, or the target's container cannot be written.
    """
    format_of_video(job.target)
    reader = VideoReader(job.source)

    def write(path: Path) -> Outcome:
        given: deque[Frame] = deque()

        with reader, VideoWriter(job.target, reader, path) as writer:

            def pixels() -> Iterator[FramePixels | None]:
                for frame in reader.frames(writer.copy):
                    given.append(frame)
                    yield frame.pixels

            stream = stream_of(pixels())
            damaged: list[Frame] = []  # at the beginning, before the first good frame
            written = False
            for number, restored in enumerate(stream, 1):
                damaged.append(given.popleft())
                if restored is not None:
                    for frame in damaged:
                        writer.write(restored, frame)
                    damaged.clear()
                    written = True
                if on_frame is not None:
                    on_frame(number, reader.frames_expected)
            if not written:  # inside the block, so that no target without a picture is left
                raise _no_picture(job.source, bool(damaged))
        return Outcome(stream.report.shares, stream.report)

    return write


def _no_picture(source: Path, damaged: bool) -> VideoError:
    if damaged:
        return VideoError(
            f"none of the frames of {source} can be decoded without damage; download or copy it "
            "again"
        )
    return VideoError(
        f"the frames of {source} have no times; put it into a container first, such as .mkv"
    )
