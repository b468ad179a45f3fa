"""Restorer: one image, a batch, files, videos or a camera's frames, through the one door and the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vrdir.images import OpenImage, encode, first_line, format_of, open_image, read_file, write_file
from vrdir.inference.files import FileJob, FileResult, process_files
from vrdir.inference.stream import SMOOTHING, Damaged, FrameStream, StreamReport
from vrdir.model.blocks import placed
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.vrdir import VRDIR, clean_threshold
from vrdir.video import Frame, Pixels, VideoReader, VideoWriter, is_video


class Restored(NamedTuple):
    """A restored image, of the type that came in, and the share of each degradation, one dictionary per image of a batch."""

    image: Any
    shares: list[dict[str, float]]


class Restorer:
    """Restores images of any kind. It keeps nothing about an image, so threads may share one.

    >>> restorer = vrdir.Restorer()
    >>> clear = restorer(foggy)

    Args:
        weights: the name of bundled weights ("small"), a model folder, a Hugging Face repository id; or a `VRDIR`,
            which is moved to the device and put into evaluation mode.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        skip_clean: leave images that the network calls clean as they are, in less time (see `VRDIR.restore`).

    Raises:
        FileNotFoundError, ValueError: there are no such weights, they are damaged, or have no clean branch to skip by.
    """

    def __init__(self, weights: str | Path | VRDIR = "small", device: str = "auto", skip_clean: bool | float = False) -> None:
        self.device = choose_device(device)
        model = weights if isinstance(weights, VRDIR) else VRDIR.from_pretrained(weights)
        clean_threshold(skip_clean, model.config)  # now, not at the first image
        self.skip_clean = skip_clean
        self.model = placed(model, self.device).eval()

    def __call__(self, image: Any) -> Any:
        """Restore an image: path, bytes, PIL image, NumPy array or torch tensor (see `vrdir.images.open_image`).

        Returns:
            The same kind as came in; for a path, a PIL image.

        Raises:
            ImageError: it is no image, is damaged, or holds values out of range.
        """
        return self.restore(image).image

    def restore(self, image: Any) -> Restored:
        """Restore and explain: the image and how much of each degradation the network sees in it."""
        return self._restore_opened(open_image(image))

    def _restore_opened(self, opened: OpenImage, statistics: GlobalStatistics | None = None) -> Restored:
        with torch.no_grad():  # not inference mode, whose tensors a recogniser behind could not use in training
            pixels = opened.tensor.to(self.device).contiguous(memory_format=torch.channels_last)
            result = self.model.restore(pixels, self.skip_clean, statistics)
        names = self.model.config.guidance_names
        shares = [dict(zip(names, row, strict=True)) for row in result.shares.tolist()]
        return Restored(opened.close(result.image), shares)

    def restore_file(self, source: Path | str, target: Path | str) -> dict[str, float]:
        """Restore a file into another, whose suffix decides its format. EXIF and colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        picture, target = read_file(Path(source)), Path(target)
        file_format = format_of(target)
        restored = self.restore(picture)
        write_file(encode(restored.image, file_format), target)
        return restored.shares[0]

    def stream(self, frames: Iterable[Any], smoothing: float = SMOOTHING, damaged: Damaged = "repeat") -> FrameStream:
        """Restore frames as they come, one out for each one in, as images of the kind that came.

        >>> stream = restorer.stream(camera)
        >>> for frame in stream:
        ...     show(frame)
        >>> print(stream.report)

        Args:
            frames: images of any kind, in the order in which they were taken. They are drawn one at a time, when asked for.
            smoothing: against flicker: the share of the past in what the network takes from a whole frame (see
                `SmoothedStatistics`); it starts anew where the scene changes. 0 looks at each frame alone.
            damaged: what comes in the place of a frame that is no image (None, of a wrong shape, NaN): a copy of the last good
                one ("repeat"), or what came in ("pass"). Before the first good one it is always what came in.

        Raises:
            ValueError: `smoothing` or `damaged` is none of these.
        """
        return FrameStream(self._restore_opened, frames, smoothing, damaged)

    def restore_video(
        self,
        source: Path | str,
        target: Path | str,
        smoothing: float = SMOOTHING,
        on_frame: Callable[[int, int | None], None] | None = None,
    ) -> StreamReport:
        """Restore a video file into another: the frames' number and times, sound, subtitles and metadata stay.

        In the place of a damaged frame stands the nearest good one before it (at the beginning, after it).

        Args:
            source, target: video files; the target's suffix decides the container (`vrdir.video.FORMATS`).
            smoothing: as for `stream`.
            on_frame: called after each frame with the number of those done, and of all, where the file says it.

        Raises:
            VideoError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        times: deque[Frame] = deque()
        waiting: list[Frame] = []  # damaged frames at the beginning
        with VideoReader(source) as reader, VideoWriter(target, reader) as writer:

            def pixels() -> Iterator[Pixels | None]:
                for frame in reader.frames(writer.copy):
                    times.append(frame)
                    yield frame.pixels

            stream = self.stream(pixels(), smoothing)
            for number, restored in enumerate(stream, 1):
                waiting.append(times.popleft())
                if restored is not None:
                    for frame in waiting:
                        writer.write(restored, frame)
                    waiting.clear()
                if on_frame is not None:
                    on_frame(number, reader.frames_expected)
        return stream.report

    def restore_files(
        self,
        jobs: Iterable[FileJob],
        overwrite: bool = False,
        smoothing: float = SMOOTHING,
        on_frame: Callable[[FileJob, int, int | None], None] | None = None,
    ) -> Iterator[FileResult]:
        """Restore one file after another, images and videos, from `vrdir.inference.files.plan_files`; see `process_files` beside it.

        `smoothing` and `on_frame` are for videos, as for `restore_video`; `on_frame` is told the job first.
        """

        def process(job: FileJob) -> dict[str, float] | StreamReport:
            if not is_video(job.target):
                return self.restore_file(job.source, job.target)
            report = None if on_frame is None else partial(on_frame, job)
            return self.restore_video(job.source, job.target, smoothing, report)

        return process_files(jobs, process, overwrite)


def choose_device(device: str) -> torch.device:
    """A torch device by name, "auto" for the best there is. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here ({first_line(error)}); choose cpu, cuda or auto") from None
    return chosen
