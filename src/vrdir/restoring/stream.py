"""Streams: frame after frame from a camera or a video, without flicker, with a report of how fast it went."""

from __future__ import annotations

import copy
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, get_args

import torch
from torch import Tensor

from vrdir.batch.results import StreamReport
from vrdir.errors import ImageError
from vrdir.images.convert import Channels, OpenImage, open_image
from vrdir.model.global_statistics import GlobalStatistics, SmoothedLevels

SMOOTHING = 0.8
CUT = 0.1  # levels, of 1, that the pixels of a channel move by on average from a frame to the next
BINS = 64  # of a histogram
REMEMBERED = (
    10_000  # latencies of which the median is taken, and damaged frames whose numbers are kept
)

Damaged = Literal["repeat", "pass"]


class Camera(Protocol):
    """What gives a frame each time it is asked, as OpenCV's `VideoCapture` does."""

    def read(self) -> tuple[bool, Any]:
        """Return whether there was a frame, and the frame."""


def is_camera(source: object) -> TypeGuard[Camera]:
    """Whether it is read frame by frame. Files are read too, but can be iterated over."""
    return callable(getattr(source, "read", None)) and not hasattr(source, "__iter__")


def frames_of(source: Iterable[Any] | Camera) -> Iterator[Any]:
    """The frames of an iterable, or of a camera until it has no further one.

    Raises:
        ValueError: it is neither, or a camera that is not open.
    """
    if is_camera(source):
        if not getattr(source, "isOpened", lambda: True)():
            raise ValueError(f"the camera is not open: {source!r:.80}; check its number or path")
        return _read_frames(source)
    try:
        if isinstance(source, (str, bytes, Path)):
            raise TypeError
        return iter(source)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(
            f"a stream takes an iterable of images, or a camera whose read() returns (ok, frame), not {source!r:.80}; "
            "for a video file there is restore_video"
        ) from None


def _read_frames(camera: Camera) -> Iterator[Any]:
    while True:
        answer = camera.read()
        if not isinstance(answer, tuple) or len(answer) != 2:
            kind = type(answer).__name__
            raise ValueError(
                f"a camera's read() returns (ok, frame), as OpenCV's does; this one returned {kind}"
            )
        ok, frame = answer
        if not ok:
            return
        yield frame


class FrameStream(Iterator[Any]):
    """Restores one frame after another; comes from `Restorer.stream`.

    It holds one frame, the last good one, and a few numbers, however long the stream.
    """

    def __init__(
        self,
        restore: Callable[
            [OpenImage, GlobalStatistics | None], tuple[Any, list[dict[str, float]], Any]
        ],
        frames: Iterable[Any] | Camera,
        smoothing: float,
        damaged: Damaged,
        channels: Channels = "rgb",
    ) -> None:
        if damaged not in get_args(Damaged):
            raise ValueError(
                f"damaged is {' or '.join(map(repr, get_args(Damaged)))}, not {damaged!r}"
            )
        self._restore = restore
        self._frames = frames_of(frames)
        self._channels = channels
        self._smoothed = SmoothedLevels(smoothing)
        self._scene = SceneCuts()
        self._damaged = damaged
        self._last_good: Any = None
        self._count = 0
        self._damaged_count = 0
        self._damaged_frames: list[int] = []
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._latency_sum = 0.0
        self._share_sums: dict[str, float] = {}
        self._start: float | None = None
        self._end = 0.0

    def __next__(self) -> Any:
        frame = next(self._frames)
        arrival = time.perf_counter()
        self._start = arrival if self._start is None else self._start
        try:
            result = self._restored(frame)
        except ImageError:
            result = (
                frame
                if self._damaged == "pass" or self._last_good is None
                else copy.deepcopy(self._last_good)
            )
            self._damaged_count += 1
            if len(self._damaged_frames) < REMEMBERED:
                self._damaged_frames.append(self._count)
            self._end = time.perf_counter()
        else:
            self._end = time.perf_counter()
            self._latencies.append(self._end - arrival)
            self._latency_sum += self._end - arrival
        self._count += 1
        return result

    def _restored(self, frame: Any) -> Any:
        """Raises ImageError for what is no frame."""
        opened = open_image(frame, self._channels)
        if len(opened.tensor) != 1:
            raise ImageError(f"a frame is one image, not a batch of {len(opened.tensor)}")
        if self._scene.changed(opened.tensor):
            self._smoothed.reset()
        self._smoothed.next_frame()
        image, (shares,), _ = self._restore(opened, self._smoothed)
        for name, share in shares.items():
            self._share_sums[name] = self._share_sums.get(name, 0.0) + share
        if self._damaged == "repeat":
            self._last_good = copy.deepcopy(image)  # whoever gets this one may draw on it
        return image

    @property
    def report(self) -> StreamReport:
        """What became of the frames so far."""
        restored = self._count - self._damaged_count
        latencies = sorted(self._latencies)
        return StreamReport(
            frames=self._count,
            damaged=self._damaged_count,
            damaged_frames=tuple(self._damaged_frames),
            cuts=self._scene.cuts,
            shares={name: total / restored for name, total in self._share_sums.items()},
            seconds=self._end - self._start if self._start is not None else 0.0,
            mean_ms=1000 * self._latency_sum / max(restored, 1),
            median_ms=1000 * statistics.median(latencies) if latencies else 0.0,
            p95_ms=1000 * latencies[round(0.95 * (len(latencies) - 1))] if latencies else 0.0,
        )


class SceneCuts:
    """Tells cuts by the frames' histograms.

    Between two frames, the distance of a channel's histograms is the area between their cumulative sums: by how many levels
    (of 1) its pixels would have to move on average. Noise, motion and a slow change of light hardly move them; a cut, or a lamp
    that is switched on, does. A cut between scenes of the same colours goes unseen, and matters as little: what is smoothed is
    alike, too.
    """

    def __init__(self) -> None:
        self.cuts = 0
        self._last: tuple[torch.Size, Tensor] | None = None

    def changed(self, image: Tensor) -> bool:
        """Whether (1, 3, H, W) in [0, 1] is another scene than the frame before; False for the first. Another size is one."""
        cumulative = cumulative_histogram(image)
        last, self._last = self._last, (image.shape, cumulative)
        if last is None:
            return False
        changed = last[0] != image.shape or bool((cumulative - last[1]).abs().mean(1).max() > CUT)
        self.cuts += changed
        return changed


def cumulative_histogram(image: Tensor) -> Tensor:
    """(3, BINS) of (1, 3, H, W): for each channel the share of pixels up to each level. Large images are looked at in part."""
    step = max(min(image.shape[-2:]) // 256, 1)
    channels = image[0, :, ::step, ::step].flatten(1)
    counts = torch.stack([torch.histc(channel, BINS, 0, 1) for channel in channels])
    return counts.cumsum(1) / channels.shape[1]
