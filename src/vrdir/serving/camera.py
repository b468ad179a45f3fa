"""Live sources: a webcam, a network stream or a file in real time, restored with bounded delay.

A thread reads the source and keeps only the newest frame. A frame that is still waiting when the
next one arrives is dropped, never queued, so the delay is that of one restoration.
"""

from __future__ import annotations

import logging
import re
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vrdir.errors import InputError, VideoError, first_line
from vrdir.images.convert import Channels, checked_channels
from vrdir.restoring.restorer import Restorer
from vrdir.restoring.stream import SMOOTHING, FrameStream
from vrdir.video.formats import import_av

logger = logging.getLogger(__name__)

Picture = np.ndarray[Any, np.dtype[np.uint8]]

OPEN_SECONDS, READ_SECONDS = 10.0, 5.0  # without an answer, after which a source counts as lost
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two tries to reach a source
REPEAT_SECONDS = 1.0  # without a new frame, after which the last one is given again
REMEMBERED = 1000  # latencies
LADDER = (1920, 1280, 960, 640, 480, 320, 240)  # longer sides, in pixels, to hold a frame rate
SETTLE_FRAMES = 8  # restored at one size before another is chosen
LIVE = re.compile(r"^(rtsp|rtsps|rtmp|rtmps|http|https|udp|tcp|srt|rtp)://", re.IGNORECASE)


class CameraReport(NamedTuple):
    """How a live source went so far.

    Attributes:
        received: frames that were decoded.
        dropped: frames that were replaced by newer ones before they were restored.
        restored: frames that were given out.
        repeated: how often the last frame was given again, because no new one came.
        reconnects: how often the source was lost and found again.
        connected: whether frames arrive now.
        p50_ms: the median delay from a frame's arrival to its result, of the last 1000.
        p95_ms: the 95th percentile of the same.
        max_side: the longer side at which frames are restored now; 0 for their own size.
    """

    received: int
    dropped: int
    restored: int
    repeated: int
    reconnects: int
    connected: bool
    p50_ms: float
    p95_ms: float
    max_side: int

    def __str__(self) -> str:
        return (
            f"{self.received} frames received, {self.dropped} dropped, {self.restored} restored, "
            f"{self.reconnects} reconnects; latency {self.p50_ms:.0f} ms median, "
            f"{self.p95_ms:.0f} ms at the 95th percentile"
        )


class _Arrived(NamedTuple):
    """A decoded frame (H, W, 3), RGB, and when it was decoded."""

    pixels: Picture
    time: float


class Camera(Iterator[Picture]):
    """The frames of a live source, restored; each is (H, W, 3), uint8.

        with vrdir.Camera("rtsp://camera/stream") as camera:
            for frame in camera:
                show(frame)

    Iteration ends with a file. A network source that is lost is opened again, with growing pauses;
    meanwhile the last frame is given again each second.

    Args:
        source: the number or device of a webcam, an address (rtsp, rtmp, http, udp, srt), or a
            video file, which is played in real time.
        restore: restore the frames; or a `Restorer`, which then does it.
        max_side: reduce larger frames to this many pixels on the longer side.
        fps: hold this many frames a second, by restoring at a smaller size where needed; the
            result is enlarged to the frame's own size again.
        smoothing: against flicker, as for `Restorer.stream`.
        channels: the order of the colours, "rgb" or "bgr" as OpenCV has them.

    Raises:
        InputError: an argument is out of range.
        VideoError: PyAV is not installed.
    """

    def __init__(
        self,
        source: str | int | Path,
        restore: bool | Restorer = True,
        max_side: int | None = None,
        fps: float | None = None,
        smoothing: float = SMOOTHING,
        channels: Channels = "rgb",
    ) -> None:
        if fps is not None and not fps > 0:
            raise InputError(f"fps must be more than 0, not {fps}")
        if max_side is not None and max_side < 1:
            raise InputError(f"max_side must be 1 or more, not {max_side}")
        self.source = str(source)
        self._channels = checked_channels(channels)
        self._av = import_av()
        self._size = _SizeChoice(max_side, fps)
        self._next: Picture | None = None
        self._stream: FrameStream | None = None
        if restore is not False:
            restorer = Restorer() if restore is True else restore
            self._stream = restorer.stream(self._feed(), smoothing, channels="rgb")
        self._changed = threading.Condition()
        self._newest: _Arrived | None = None
        self._last: Picture | None = None
        self._ended = self._closed = self._connected = False
        self._error: Exception | None = None
        self._received = self._dropped = self._restored = self._repeated = self._reconnects = 0
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._reader = threading.Thread(target=self._read, name="camera", daemon=True)
        self._reader.start()

    def __enter__(self) -> Camera:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the source; iteration ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def report(self) -> CameraReport:
        """How it went so far."""
        latencies = sorted(self._latencies)
        return CameraReport(
            self._received,
            self._dropped,
            self._restored,
            self._repeated,
            self._reconnects,
            self._connected,
            1000 * statistics.median(latencies) if latencies else 0.0,
            1000 * latencies[round(0.95 * (len(latencies) - 1))] if latencies else 0.0,
            self._size.side or 0,
        )

    def __next__(self) -> Picture:
        arrived = self._wait()
        if arrived is None:
            assert self._last is not None
            self._repeated += 1
            return self._last.copy()
        start = time.perf_counter()
        result = self._processed(arrived.pixels)
        end = time.perf_counter()
        self._size.took(end - start, max(arrived.pixels.shape[:2]))
        self._latencies.append(end - arrived.time)
        self._restored += 1
        self._last = result
        return result.copy()

    def _wait(self) -> _Arrived | None:
        """Return the newest frame; None if the last one is to be given again."""
        with self._changed:
            while True:
                if self._closed:
                    raise StopIteration
                if self._newest is not None:
                    arrived, self._newest = self._newest, None
                    return arrived
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise StopIteration
                arrived_in_time = self._changed.wait(REPEAT_SECONDS)
                if not arrived_in_time and self._is_live and self._last is not None:
                    return None

    def _processed(self, pixels: Picture) -> Picture:
        """Return a frame restored, in the order of colours that was asked for."""
        height, width = pixels.shape[:2]
        side = self._size.side
        if side is not None and max(height, width) > side:
            scale = side / max(height, width)
            size = max(1, round(width * scale)), max(1, round(height * scale))
            pixels = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR))
        if self._stream is not None:
            self._next = pixels
            pixels = next(self._stream)
        if self._size.keeps_frame_size and pixels.shape[:2] != (height, width):
            whole = Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.asarray(whole)
        return pixels[..., ::-1] if self._channels == "bgr" else pixels

    def _feed(self) -> Iterator[Picture]:
        """Yield the frame that is to be restored, each time that the stream asks."""
        while self._next is not None:
            yield self._next

    # --- The reader's thread ----------------------------------------------------------------------

    def _read(self) -> None:
        """Read the source until it ends or is closed; open a live one again when it is lost."""
        pause, seen = FIRST_WAIT, 0
        while not self._closed:
            try:
                self._read_once()
                reason = "the stream ended"
            except (self._av.error.FFmpegError, OSError, VideoError) as error:
                reason = first_line(error)
                if not self._is_live and not self._received:
                    self._fail(VideoError(f"{self.source} cannot be opened ({reason})"))
                    return
            except Exception as error:  # a bug, which the one who iterates must see
                self._fail(error)
                return
            self._connected = False
            if self._closed or not self._is_live:
                break
            if self._received > seen:
                pause, seen = FIRST_WAIT, self._received
            logger.warning("%s is lost (%s); trying again in %.1f s", self.source, reason, pause)
            with self._changed:
                self._changed.wait_for(lambda: self._closed, pause)
            pause = min(2 * pause, LONGEST_WAIT)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    @property
    def _is_live(self) -> bool:
        return bool(LIVE.match(self.source)) or self._device is not None

    @property
    def _device(self) -> str | None:
        """The path of a webcam's device."""
        if self.source.isdecimal():
            return f"/dev/video{self.source}"
        return self.source if self.source.startswith("/dev/video") else None

    def _read_once(self) -> None:
        options = {"fflags": "nobuffer", "flags": "low_delay"}
        if self.source.lower().startswith("rtsp"):
            options["rtsp_transport"] = "tcp"
        device = self._device
        with self._av.open(
            device or self.source,
            format=None if device is None else "v4l2",
            options=options if self._is_live else {},
            timeout=(OPEN_SECONDS, READ_SECONDS),
        ) as container:
            if not container.streams.video:
                raise VideoError(f"{self.source} has no picture")
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads over frames would add delay
            began = time.perf_counter()
            first: float | None = None
            for frame in container.decode(stream):
                if self._closed:
                    return
                if not self._is_live and frame.time is not None:
                    first = frame.time if first is None else first
                    self._sleep_until(began + frame.time - first)
                self._put(frame.to_ndarray(format="rgb24"))

    def _sleep_until(self, moment: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed, max(0.0, moment - time.perf_counter()))

    def _put(self, pixels: Picture) -> None:
        with self._changed:
            if not self._connected:
                self._connected = True
                self._reconnects += self._received > 0
            self._received += 1
            self._dropped += self._newest is not None
            self._newest = _Arrived(pixels, time.perf_counter())
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


class _SizeChoice:
    """Chooses the size at which frames are restored, to hold a frame rate.

    Args:
        max_side: the largest longer side; None for the frame's own.
        fps: the frame rate to hold; None to stay at `max_side`.
    """

    def __init__(self, max_side: int | None, fps: float | None) -> None:
        self._most, self._fps = max_side, fps
        self.side = max_side
        self._times: list[float] = []

    @property
    def keeps_frame_size(self) -> bool:
        """Whether results are enlarged to the frame's own size, which does not change then."""
        return self._fps is not None

    def took(self, seconds: float, frame_side: int) -> None:
        """Note how long a frame took; choose another size if it was much too long or short."""
        if self._fps is None:
            return
        self._times.append(seconds)
        if len(self._times) < SETTLE_FRAMES:
            return
        median, self._times = statistics.median(self._times), []
        most = min(frame_side, self._most or frame_side)
        current = min(self.side or most, most)
        smaller = [side for side in LADDER if side < current]
        larger = [side for side in LADDER if current < side < most] + [most] * (current < most)
        if median > 1 / self._fps and smaller:
            # The time grows with the pixels: go down to what should be fast enough, at once.
            fits = [side for side in smaller if median * (side / current) ** 2 < 0.9 / self._fps]
            self.side = max(fits) if fits else smaller[-1]
        elif larger:
            following = min(larger)
            if median * (following / current) ** 2 < 0.7 / self._fps:
                self.side = following
