"""Live sources: a webcam, a network stream or a file in real time, restored with bounded delay.

A thread reads the source and keeps only the newest frame. A frame that is still waiting when the
next one arrives is dropped, never queued, so the delay is that of one restoration.
"""

from __future__ import annotations

import statistics
import time
import weakref
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from vrdir.errors import InputError
from vrdir.images.convert import Channels, checked_channels
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.stream import SMOOTHING, FrameStream
from vrdir.serving.camera_guided import apply_to
from vrdir.serving.camera_reader import FrameReader
from vrdir.serving.camera_size import SizeChoice
from vrdir.serving.camera_source import source_of
from vrdir.video.formats import import_av

Picture = np.ndarray[Any, np.dtype[np.uint8]]

REPEAT_SECONDS = 1.0  # without a new frame, after which the last one is given again
CLOSE_SECONDS = 2.0  # to wait for a source to be closed
REMEMBERED = 1000  # latencies
# FFmpeg's flags for conversions: bilinear with full chroma, and the mean over areas to reduce.
CONVERTED, REDUCED = 2 | 0x2000, 0x20


class CameraReport(NamedTuple):
    """How a live source went so far.

    Attributes:
        received: frames that were decoded.
        dropped: frames that were replaced by newer ones before they were restored.
        restored: frames that were given out.
        repeated: how often the last frame was given again, because no new one came.
        reconnects: how often the source was lost and found again.
        connected: whether frames arrive now.
        p50_ms: the median delay from when a frame should have arrived to its result, of the last
            1000.
        p95_ms: the 95th percentile of the same.
        fps: frames given out a second, of the last 1000.
        network_side: the longer side at which the network sees frames now; 0 before the first.
    """

    received: int
    dropped: int
    restored: int
    repeated: int
    reconnects: int
    connected: bool
    p50_ms: float
    p95_ms: float
    fps: float
    network_side: int

    def __str__(self) -> str:
        return (
            f"{self.received} frames received, {self.dropped} dropped, {self.restored} restored "
            f"({self.fps:.1f} a second), {self.reconnects} reconnects; latency "
            f"{self.p50_ms:.0f} ms median, {self.p95_ms:.0f} ms at the 95th percentile"
        )


class Camera(Iterator[Picture]):
    """The frames of a live source, restored; each is (H, W, 3), uint8.

        with vrdir.Camera("rtsp://camera/stream") as camera:
            for frame in camera:
                show(frame)

    Iteration ends with a file. A network source or webcam that is lost is opened again, with
    growing pauses; meanwhile the last frame is given again each second. There is no length: a file
    in real time gives as many frames as there is time for. Errors come with the first frame, or
    with a later one: a `VideoError` if the source cannot be read.

    Args:
        source: the number or device of a webcam, an address (rtsp, rtmp, http, udp, tcp, srt, rtp),
            or a video file, which is played in real time.
        restore: restore the frames; or a `Restorer`, which then does it.
        max_side: reduce larger frames to this many pixels on the longer side.
        network_side: let the network see larger frames reduced to this many pixels on the longer
            side, and do to the whole frame what it did there. The frame keeps its size.
        fps: hold this many frames a second: no more are restored, and the network sees smaller
            copies where there is not time enough, as with `network_side`.
        smoothing: against flicker, as for `Restorer.stream`.
        channels: the order of the colours, "rgb" or "bgr" as OpenCV has them.
        timeout: seconds without a frame of a live source, after which iteration raises VideoError;
            None tries for ever.
        listen: wait at the address for a sender, which pushes its stream there (rtsp, rtmp, http,
            tcp; udp and rtp always do).

    Attributes:
        name: the source, without passwords.

    Raises:
        InputError: an argument is out of range, or the address is of an unknown kind.
        VideoError: the source is a folder, or PyAV is not installed.
    """

    def __init__(
        self,
        source: str | int | Path,
        restore: bool | Restorer = True,
        max_side: int | None = None,
        network_side: int | None = None,
        fps: float | None = None,
        smoothing: float = SMOOTHING,
        channels: Channels = "rgb",
        timeout: float | None = None,
        listen: bool = False,
    ) -> None:
        _check(max_side=max_side, network_side=network_side, fps=fps, timeout=timeout)
        self._channels = checked_channels(channels)
        self._max_side, self._timeout = max_side, timeout
        import_av()
        opened = source_of(source, listen)
        self.name, self._is_live = opened.name, opened.is_live
        self._stream: FrameStream | None = None
        self._waiting: list[Picture] = []  # the frame that the stream is to restore
        if restore is not False:
            restorer = Restorer() if restore is True else restore
            self._stream = restorer.stream(_popped(self._waiting), smoothing, channels="rgb")
        self._size = SizeChoice(network_side, fps)
        self._interval = 0.0 if fps is None else 1 / fps
        self._next_due = 0.0  # the moment of the next frame, to give no more than `fps`
        self._taken: tuple[float, int] | None = None  # when a frame was taken, and its longer side
        self._last: Picture | None = None
        self._network_side = 0
        self._restored = self._repeated = 0
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._moments: deque[float] = deque(maxlen=REMEMBERED)
        self._reader = FrameReader(opened)
        # A camera that is no longer used is closed, even if nobody says so.
        weakref.finalize(self, self._reader.close)

    def __enter__(self) -> Camera:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Camera({self.name!r})"

    def close(self) -> None:
        """Close the source; iteration ends."""
        self._reader.close(CLOSE_SECONDS)

    @property
    def report(self) -> CameraReport:
        """How it went so far."""
        latencies, moments = sorted(self._latencies), list(self._moments)
        seconds = moments[-1] - moments[0] if len(moments) > 1 else 0.0
        reader = self._reader
        return CameraReport(
            reader.received,
            reader.dropped,
            self._restored,
            self._repeated,
            reader.reconnects,
            reader.connected,
            1000 * statistics.median(latencies) if latencies else 0.0,
            1000 * latencies[round(0.95 * (len(latencies) - 1))] if latencies else 0.0,
            (len(moments) - 1) / seconds if seconds else 0.0,
            self._network_side,
        )

    def __next__(self) -> Picture:
        self._note_last_frame()
        if self._interval:
            self._reader.pause(self._next_due)
        wait = REPEAT_SECONDS if self._is_live and self._last is not None else 3600.0
        while (arrived := self._reader.take(wait, self._timeout)) is None:
            if self._last is not None and self._is_live:
                self._repeated += 1
                return self._last.copy()
        begun = time.perf_counter()
        self._next_due = max(self._next_due + self._interval, begun + self._interval / 2)
        self._last = self._processed(arrived.frame)
        end = time.perf_counter()
        self._taken = begun, max(arrived.frame.width, arrived.frame.height)
        self._latencies.append(end - arrived.due)
        self._moments.append(end)
        self._restored += 1
        return self._last.copy()

    def _note_last_frame(self) -> None:
        """Note how long the last frame took, with what its user did with it."""
        if self._taken is not None:
            begun, side = self._taken
            if self._max_side is not None:
                side = min(side, self._max_side)
            self._size.took(time.perf_counter() - begun, side)
            self._taken = None

    def _processed(self, frame: Any) -> Picture:
        """Return a frame of PyAV's restored, in the order of colours that was asked for."""
        width, height = _fitted(frame.width, frame.height, self._max_side)
        pixels = _pixels(frame, width, height)
        small = _fitted(width, height, self._size.side)
        self._network_side = max(small)
        if self._stream is not None:
            if small == (width, height):
                pixels = self._restore(pixels)
            else:
                copy = _pixels(frame, *small)
                pixels = apply_to(pixels, copy, self._restore(copy))
        pixels = np.rot90(pixels, frame.rotation // 90)
        return np.ascontiguousarray(pixels[..., ::-1] if self._channels == "bgr" else pixels)

    def _restore(self, pixels: Picture) -> Picture:
        assert self._stream is not None
        self._waiting.append(pixels)
        restored: Picture = next(self._stream)
        return restored


def _popped(waiting: list[Picture]) -> Iterator[Picture]:
    """Yield the frame that waits, each time that the stream asks."""
    while True:
        yield waiting.pop()


def _pixels(frame: Any, width: int, height: int) -> Picture:
    """Return a frame of PyAV's as RGB of this size."""
    reduces = (width, height) != (frame.width, frame.height)
    picture = frame.reformat(
        width, height, "rgb24", interpolation=REDUCED if reduces else CONVERTED
    )
    pixels: Picture = picture.to_ndarray()
    return pixels


def _fitted(width: int, height: int, side: int | None) -> tuple[int, int]:
    """Return a size reduced so that the longer side has at most `side` pixels."""
    if side is None or max(width, height) <= side:
        return width, height
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _check(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} must be more than 0, not {value}")
        if name.endswith("side") and value is not None and value != int(value):
            raise InputError(f"{name} must be a whole number of pixels, not {value}")
