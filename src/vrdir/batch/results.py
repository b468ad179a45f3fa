"""The types that a run over many files uses: jobs, options, and the result of each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vrdir.images.writing import QUALITY


class Diagnosis(NamedTuple):
    """The degradations of an image, measured by what the network did about it.

    The strength of the restoration does not matter: these are the amounts in the input.

    Attributes:
        haze: the mean of 1 - t over the image, where t is the transmission: 0 is clear air, 1 is
            fog that hides everything. None if the network has no global context, or
            haze is not to be removed.
        noise: the standard deviation of the noise, in 8-bit levels. None at strength 0.
        rain: the share of the pixels that a bright streak covers, from 0 to 1. None at strength 0.
        changed: the mean absolute difference of input and result, in 8-bit levels.
    """

    haze: float | None
    noise: float | None
    rain: float | None
    changed: float

    def __str__(self) -> str:
        parts = [
            "" if self.haze is None else f"haze {self.haze:.0%}",
            "" if self.noise is None else f"noise {self.noise:.1f} levels",
            "" if self.rain is None else f"rain on {self.rain:.0%} of the pixels",
            f"changed by {self.changed:.1f} levels",
        ]
        return ", ".join(filter(None, parts))


class StreamReport(NamedTuple):
    """Counts and times of a stream.

    Attributes:
        frames: frames returned, damaged ones included; one for each frame of the input.
        damaged: frames that could not be restored.
        damaged_frames: their numbers, from 0 (the first 10 000).
        cuts: how often the scene changed, so that smoothing started again.
        shares: the share of each degradation, the mean over the restored frames, from 0 to 1.
        seconds: from the arrival of the first frame to the return of the last.
        mean_ms: mean latency, from a frame's arrival to its return, without damaged frames.
        median_ms: median latency of the last 10 000 frames.
        p95_ms: the 95th percentile of the latency of the last 10 000 frames.
    """

    frames: int
    damaged: int
    damaged_frames: tuple[int, ...]
    cuts: int
    shares: dict[str, float]
    seconds: float
    mean_ms: float
    median_ms: float
    p95_ms: float

    @property
    def frames_per_second(self) -> float:
        """Return the mean rate of the whole stream."""
        return self.frames / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        speed = (
            f"{self.frames} frames in {self.seconds:.1f} s, {self.frames_per_second:.1f} a second"
        )
        latency = (
            f"latency {self.mean_ms:.1f} ms on average, {self.median_ms:.1f} ms median, "
            f"{self.p95_ms:.1f} ms at the 95th percentile"
        )
        return f"{speed}; {latency}" + (f"; {self.damaged} damaged" if self.damaged else "")


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class ImageOptions(NamedTuple):
    """How restored images are written, and which previews are made. Videos have no such options.

    Attributes:
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.
        max_side: reduce larger images to this many pixels on the longer side before restoring.
        side_by_side: write the input and the result into one picture.
        preview_px: make previews of the input and the result with this many pixels on the longer
            side; 0 makes none.
    """

    quality: int = QUALITY
    max_side: int | None = None
    side_by_side: bool = False
    preview_px: int = 0


PLAIN = ImageOptions()


class Outcome(NamedTuple):
    """The facts about a file that was written.

    Attributes:
        shares: the share of each degradation, from 0 to 1.
        video: the report of a video.
        change: of an image, the mean absolute difference of input and result, in 8-bit levels.
        previews: the input and the result as small WebP files, if they were requested.
        diagnosis: the degradations of an image.
    """

    shares: dict[str, float]
    video: StreamReport | None = None
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


class FileResult(NamedTuple):
    """The result of one file: the facts of its `Outcome`, or the error that stopped it.

    Attributes:
        job: the files.
        shares: as in `Outcome`; so are `video`, `change`, `previews` and `diagnosis`.
        error: the error in one line, None if there was none.
        earlier: whether an earlier run, which this one resumes, wrote the file.
    """

    job: FileJob
    shares: dict[str, float]
    error: str | None
    video: StreamReport | None = None
    earlier: bool = False
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


ResultWriter = Callable[[Path], Outcome]
"""Writes the result of a job to a path and returns the facts about it."""


def content_writer(
    content: bytes,
    shares: dict[str, float],
    previews: tuple[bytes, bytes] | None = None,
    diagnosis: Diagnosis | None = None,
) -> ResultWriter:
    """Return the writer of a result that is complete in memory."""

    def write(path: Path) -> Outcome:
        path.write_bytes(content)
        change = None if diagnosis is None else diagnosis.changed
        return Outcome(shares, None, change, previews, diagnosis)

    return write
