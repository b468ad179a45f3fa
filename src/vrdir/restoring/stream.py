"""Streams: the frames of a camera or a video, restored one by one without flicker.

A report has the number of frames and the speed.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, TypeGuard, get_args

import torch
from torch import Tensor

from vrdir.batch.results import StreamReport
from vrdir.errors import ImageError, InputError
from vrdir.export.exported_model import ExportedModel
from vrdir.images.convert import Channels, checked_channels, open_image
from vrdir.images.open_arrays import OpenImage
from vrdir.model.global_statistics import GlobalStatistics, SmoothedLevels
from vrdir.restoring.network import Network
from vrdir.restoring.restored import Restored, restore_opened

logger = logging.getLogger(__name__)

SMOOTHING = 0.8
CUT = 0.1  # mean distance of a channel's levels between two frames, in [0, 1], that is a cut
BINS = 64  # of a histogram
REMEMBERED = 10_000  # latencies for the median, and numbers of damaged frames, that are kept

Damaged = Literal["repeat", "pass"]


class Camera(Protocol):
    """A source of frames with OpenCV's interface, such as `cv2.VideoCapture`."""

    def read(self) -> tuple[bool, Any]:
        """Return whether there was a frame, and the frame."""


def is_camera(source: object) -> TypeGuard[Camera]:
    """Return whether a source has `read` and cannot be iterated over, as files can."""
    return callable(getattr(source, "read", None)) and not hasattr(source, "__iter__")


def frames_of(source: Iterable[Any] | Camera) -> Iterator[Any]:
    """Return the frames of an iterable, or of a camera until it has no further frame.

    Raises:
        InputError: the source is neither, or is a camera that is not open.
    """
    if is_camera(source):
        if not getattr(source, "isOpened", lambda: True)():
            raise InputError(f"the camera is not open: {source!r:.80}; check its number or path")
        return _read_frames(source)
    try:
        if isinstance(source, (str, bytes, Path)):
            raise TypeError
        return iter(source)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(
            "a stream needs an iterable of images, or a camera whose read() returns (ok, frame), "
            f"not {source!r:.80}; for a video file use restore_video"
        ) from None


def _read_frames(camera: Camera) -> Iterator[Any]:
    while True:
        answer = camera.read()
        if not isinstance(answer, tuple) or len(answer) != 2:
            kind = type(answer).__name__
            raise InputError(
                f"a camera's read() must return (ok, frame), as in OpenCV; this one returned {kind}"
            )
        ok, frame = answer
        if not ok:
            return
        yield frame


def open_stream(
    network: Network,
    frames: Iterable[Any] | Camera,
    smoothing: float,
    damaged: Damaged,
    channels: Channels | None,
    default_channels: Channels,
) -> FrameStream:
    """Return the stream of `Restorer.stream`, which describes the arguments.

    Args:
        network: restores the frames.
        frames: images, or a camera.
        smoothing: against flicker, from 0 to below 1.
        damaged: the result for a damaged frame.
        channels: the order of the colours; None for the default.
        default_channels: the order of the colours if the frames are not from a camera.

    Raises:
        InputError: an argument is not valid, or the camera is not open.
    """
    if smoothing and isinstance(network.model, ExportedModel):
        logger.warning(
            "backend %s restores each frame alone: smoothing over time needs backend torch",
            network.model.backend,
        )
        smoothing = 0.0
    if channels is None:
        channels = "bgr" if is_camera(frames) else default_channels
    restore = partial(restore_opened, network, diagnosed=False)
    return FrameStream(restore, frames, smoothing, damaged, checked_channels(channels))


class FrameStream(Iterator[Any]):
    """The restored frames of a source, one after another; made by `Restorer.stream`.

    It keeps the last good result and a few numbers, so its memory does not grow.

    Args:
        restore: restores an opened image.
        frames: images, or a camera.
        smoothing: against flicker, from 0 to below 1.
        damaged: the result for a damaged frame: "repeat" or "pass".
        channels: the order of the colours in arrays and tensors.

    Raises:
        InputError: an argument is not valid, or the camera is not open.
    """

    def __init__(
        self,
        restore: Callable[[OpenImage, GlobalStatistics | None], Restored],
        frames: Iterable[Any] | Camera,
        smoothing: float,
        damaged: Damaged,
        channels: Channels = "rgb",
    ) -> None:
        if damaged not in get_args(Damaged):
            raise InputError(
                f"damaged must be {' or '.join(map(repr, get_args(Damaged)))}, not {damaged!r}"
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
        """Return a restored frame. Raises ImageError if it is damaged."""
        opened = open_image(frame, self._channels)
        if len(opened.tensor) != 1:
            raise ImageError(f"a frame must be one image, not a batch of {len(opened.tensor)}")
        if self._scene.changed(opened.tensor):
            self._smoothed.reset()
        self._smoothed.next_frame()
        restored = self._restore(opened, self._smoothed)
        for name, share in restored.shares[0].items():
            self._share_sums[name] = self._share_sums.get(name, 0.0) + share
        if self._damaged == "repeat":
            self._last_good = copy.deepcopy(restored.image)  # the caller may modify the result
        return restored.image

    @property
    def report(self) -> StreamReport:
        """Return the counts and times of the frames so far."""
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
    """A detector of scene changes by the frames' histograms.

    The distance of a channel's histograms in two frames is the area between their cumulative sums:
    the mean change of the levels, in [0, 1], that turns one into the other. Noise, motion and slow
    changes of light hardly change it; a cut does, or a lamp that is switched on. A cut between
    scenes of the same colours is not found, and does not matter: the smoothed levels are alike.

    Attributes:
        cuts: the number of changes so far.
    """

    def __init__(self) -> None:
        self.cuts = 0
        self._last: tuple[torch.Size, Tensor] | None = None

    def changed(self, image: Tensor) -> bool:
        """Return whether a frame shows another scene than the frame before.

        A frame of another size does; the first frame does not.

        Args:
            image: (1, 3, H, W) in [0, 1].
        """
        cumulative = cumulative_histogram(image)
        last, self._last = self._last, (image.shape, cumulative)
        if last is None:
            return False
        changed = last[0] != image.shape or bool((cumulative - last[1]).abs().mean(1).max() > CUT)
        self.cuts += changed
        return changed


def cumulative_histogram(image: Tensor) -> Tensor:
    """Return the share of pixels up to each level, for each channel.

    Of large images only every n-th row and column is used.

    Shape: (1, 3, H, W) in [0, 1] -> (3, BINS).
    """
    step = max(min(image.shape[-2:]) // 256, 1)
    channels = image[0, :, ::step, ::step].flatten(1)
    counts = torch.stack([torch.histc(channel, BINS, 0, 1) for channel in channels])
    return counts.cumsum(1) / channels.shape[1]
