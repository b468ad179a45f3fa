"""What a run over files is made of: jobs, options, and what became of each file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vrdir.images.writing import QUALITY


class Diagnosis(NamedTuple):
    """What was wrong with an image, by what was done about it.

    Attributes:
        haze: the mean of 1 - t over the image, t the transmission: 0 is clear air, 1 is fog that
            hides everything. None where the network has no global context.
        noise: the standard deviation of the noise that was taken away, in 8-bit levels.
        rain: the share of the pixels from which a bright streak was taken away.
        changed: the mean absolute change of the image, in 8-bit levels.
    """

    haze: float | None
    noise: float
    rain: float
    changed: float

    def __str__(self) -> str:
        haze = "" if self.haze is None else f"haze {self.haze:.0%}, "
        return f"{haze}noise {self.noise:.1f} levels, rain on {self.rain:.0%} of the pixels, changed by {self.changed:.1f} levels"


class StreamReport(NamedTuple):
    """What became of a stream.

    Attributes:
        frames: frames given out, damaged ones included: as many as came in.
        damaged: frames among them that could not be taken.
        damaged_frames: their numbers, from 0 (the first 10 000).
        cuts: how often the scene changed, and smoothing began anew.
        shares: of each degradation, the mean over the frames that were restored.
        seconds: from the first frame's arrival to the last one's leaving.
        mean_ms, median_ms, p95_ms: latency, from a frame's arrival to its leaving; damaged frames do not count. The median and
            the 95th percentile are those of the last 10 000 frames.
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
        return self.frames / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        speed = (
            f"{self.frames} frames in {self.seconds:.1f} s, {self.frames_per_second:.1f} a second"
        )
        latency = f"latency {self.mean_ms:.1f} ms on average, {self.median_ms:.1f} ms median, {self.p95_ms:.1f} ms at the 95th percentile"
        return f"{speed}; {latency}" + (f"; {self.damaged} damaged" if self.damaged else "")


class FileJob(NamedTuple):
    """A file to read and the file to write."""

    source: Path
    target: Path


class ImageOptions(NamedTuple):
    """How restored images are written, and what is shown of them. Videos have none of this.

    Attributes:
        quality: of JPEG, WebP, AVIF and HEIC, 1 to 100.
        max_side: reduce larger images to this many pixels on their longer side, before they are restored.
        side_by_side: write the input and the result in one picture.
        preview_px: make previews of the input and the result, of this many pixels on the longer side; 0 for none.
    """

    quality: int = QUALITY
    max_side: int | None = None
    side_by_side: bool = False
    preview_px: int = 0


PLAIN = ImageOptions()


class Outcome(NamedTuple):
    """What is worth telling of a finished file.

    Attributes:
        shares: of each degradation.
        video: of a video, the report.
        change: of an image, the mean absolute difference of input and result, in 8-bit levels.
        previews: the input and the result as small WebP files, where they were asked for.
        diagnosis: of an image, what was wrong with it.
    """

    shares: dict[str, float]
    video: StreamReport | None = None
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


class FileResult(NamedTuple):
    """What became of a file: what is told of it where it was finished (see `Outcome`), or the error that stopped it.

    `earlier` if it was done before this run was taken up again.
    """

    job: FileJob
    shares: dict[str, float]
    error: str | None
    video: StreamReport | None = None
    earlier: bool = False
    change: float | None = None
    previews: tuple[bytes, bytes] | None = None
    diagnosis: Diagnosis | None = None


Finish = Callable[[Path], Outcome]
"""Writes to a path what a job's target is to hold, and tells of it."""


def writing(
    content: bytes,
    shares: dict[str, float],
    previews: tuple[bytes, bytes] | None = None,
    diagnosis: Diagnosis | None = None,
) -> Finish:
    """Finishes a job whose result is at hand."""

    def finish(path: Path) -> Outcome:
        path.write_bytes(content)
        change = None if diagnosis is None else diagnosis.changed
        return Outcome(shares, None, change, previews, diagnosis)

    return finish
