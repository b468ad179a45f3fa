"""Live sources: a webcam, a network stream or a file in real time, restored with bounded delay.

A thread reads the source and keeps only the newest frame. If a frame still waits when the next one
arrives, it is dropped. So the delay is the time that one restoration takes.
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

REPEAT_SECONDS = 1.0  # without a new frame, after which the last one is returned again
CLOSE_SECONDS = 2.0  # the longest wait until a source is closed
REMEMBERED = 1000  # frames whose latencies are kept
# FFmpeg's flags for conversions: bilinear with full chroma, and the mean over areas to reduce.
CONVERTED, REDUCED = 2 | 0x2000, 0x20


class CameraReport(NamedTuple):
    """Counts and delays of a live source, from its start until now.

    Attributes:
        received: the number of decoded frames.
        dropped: the number of frames that newer ones replaced before they were restored.
        restored: the number of restored frames, or with `restore=False` of returned ones.
        repeated: how often the last frame was returned again, because no new one arrived.
        reconnects: how often the source was lost and opened again.
        connected: whether frames arrive now.
        p50_ms: the median delay in milliseconds, over the last 1000 frames: from the time when a
            frame should have arrived, by the source's clock, to its result.
        p95_ms: the 95th percentile of this delay, in milliseconds.
        fps: restored frames per second, over the last 1000 frames.
        network_side: the longer side in pixels of the frames that the network gets now; 0 before
            the first frame.
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
    """An iterator over the restored frames of a live source; each is (H, W, 3), uint8.

        with vrdir.Camera("rtsp://camera/stream") as camera:
            for frame in camera:
                show(frame)

    The iteration of a file ends at its end. A network source or webcam that is lost is opened
    again, with growing pauses; meanwhile the last frame is returned again each second. A camera has
    no `len()`: late frames are dropped, so the number of frames depends on the machine's speed. If
    the source cannot be read, the iteration raises `VideoError`, at the first frame or later.

    Args:
        source: the number or device of a webcam, an address (rtsp, rtmp, http, udp, tcp, srt, rtp),
            or a video file, which is played in real time.
        restore: True to restore the frames with the weights `small`; a `Restorer` to use that one;
            False to return the frames unchanged.
        max_side: reduce larger frames to this many pixels on the longer side.
        network_side: restore a copy that is reduced to this many pixels on the longer side, and
            apply the change of the copy to the whole frame. The frame keeps its size.
        fps: keep this frame rate, in frames per second: no more frames are restored, and if the
            machine is too slow, the network gets smaller copies, as with `network_side`.
        smoothing: temporal smoothing against flicker, 0 (off) to 0.99, as for `Restorer.stream`.
        channels: the order of the colours, "rgb", or "bgr" as in OpenCV.
        timeout: seconds without a frame of a live source, after which the iteration raises
            `VideoError`; None to try without a limit.
        listen: wait at the address for a sender that pushes its stream there (rtsp, rtmp, http,
            tcp); udp and rtp always wait.

    Attributes:
        name: the source, without passwords.

    Raises:
        InputError: an argument is out of range, or the address has an unsupported scheme.
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
        self._next_due = 0.0  # the earliest time of the next frame, to return no more than `fps`
        self._taken: tuple[float, int] | None = None  # when a frame was taken, and its longer side
        self._last: Picture | None = None
        self._network_side = 0
        self._restored = self._repeated = 0
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._moments: deque[float] = deque(maxlen=REMEMBERED)
        self._reader = FrameReader(opened)
        # Close the source when the camera is no longer used, even without a call of `close`.
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
        """Close the source and end the iteration. Any thread may call it."""
        self._reader.close(CLOSE_SECONDS)

    @property
    def report(self) -> CameraReport:
        """The counts and delays from the start until now."""
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
        """Record how long the last frame took, including the time that its user needed."""
        if self._taken is not None:
            begun, side = self._taken
            if self._max_side is not None:
                side = min(side, self._max_side)
            self._size.took(time.perf_counter() - begun, side)
            self._taken = None

    def _processed(self, frame: Any) -> Picture:
        """Restore a PyAV frame, and return it in the order of colours of `channels`."""
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
    """Yield the waiting frame, each time that the stream needs one."""
    while True:
        yield waiting.pop()


def _pixels(frame: Any, width: int, height: int) -> Picture:
    """Return a PyAV frame as RGB, (height, width, 3) uint8."""
    reduces = (width, height) != (frame.width, frame.height)
    picture = frame.reformat(
        width, height, "rgb24", interpolation=REDUCED if reduces else CONVERTED
    )
    pixels: Picture = picture.to_ndarray()
    return pixels


def _fitted(width: int, height: int, side: int | None) -> tuple[int, int]:
    """Return width and height, reduced so that the longer side has at most `side` pixels."""
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
