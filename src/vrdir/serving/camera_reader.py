"""A thread that reads a source and keeps only its newest frame."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, NamedTuple

from vrdir.errors import VideoError
from vrdir.serving.camera_source import LostError, Source
from vrdir.video.formats import import_av

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two attempts to open a source
LATE, CAUGHT_UP = 1.0, 0.3  # seconds of delay: above the first too late, below the second fine
PATIENCE = 2.0  # seconds that frames may be late before only key frames are decoded
DRIFT = 0.001  # the largest difference in speed of a source's clock and ours
JUMP = 10.0  # seconds: if a source's clock jumps by more, its offset is measured again


class Arrived(NamedTuple):
    """A decoded frame.

    Attributes:
        frame: a PyAV `VideoFrame`.
        due: the time when it should have arrived, as of `time.perf_counter`.
    """

    frame: Any
    due: float


class FrameReader:
    """Reads a source in its own thread until `close`, and keeps the newest frame.

    Args:
        source: the source to read.

    Attributes:
        received: the number of decoded frames.
        dropped: the number of frames that newer ones replaced before they were taken.
        reconnects: how often the source was lost and opened again.
        connected: whether frames arrive now.
        closed: whether `close` was called.
    """

    def __init__(self, source: Source) -> None:
        self.received = self.dropped = self.reconnects = 0
        self.connected = self.closed = False
        self._source = source
        self._changed = threading.Condition()
        self._newest: Arrived | None = None
        self._ended = False
        self._error: Exception | None = None
        self._reason = "no frame has arrived yet"
        self._last_arrival = time.perf_counter()
        self._thread = threading.Thread(target=self._read, name="camera", daemon=True)
        self._thread.start()

    def close(self, wait: float = 0.0) -> None:
        """Stop reading, and wait at most `wait` seconds until the source is closed."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        if wait and self._thread is not threading.current_thread():
            self._thread.join(wait)

    def pause(self, until: float) -> None:
        """Sleep until a time (as of `time.perf_counter`), or until the reader is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, max(0.0, until - time.perf_counter()))

    def take(self, seconds: float, timeout: float | None) -> Arrived | None:
        """Wait for a frame that was not taken yet, and return the newest one.

        Args:
            seconds: how long to wait.
            timeout: seconds since the last frame of a live source, after which it has failed; None
                for no limit.

        Returns:
            The frame, or None if none arrived in time.

        Raises:
            StopIteration: the source has ended, or was closed.
            VideoError: the source cannot be read, or has failed.
        """
        until = time.perf_counter() + seconds
        with self._changed:
            while True:
                if self.closed:
                    raise StopIteration
                if self._newest is not None:
                    arrived, self._newest = self._newest, None
                    return arrived
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise StopIteration
                now = time.perf_counter()
                if timeout is not None and now - self._last_arrival >= timeout:
                    raise VideoError(
                        f"{self._source.name}: no frame for {timeout:g} seconds ({self._reason})"
                    )
                if now >= until:
                    return None
                left = until - now
                if timeout is not None:
                    left = min(left, self._last_arrival + timeout - now)
                self._changed.wait(left)

    # --- In the thread ----------------------------------------------------------------------------

    def _read(self) -> None:
        """Read the source until it ends or is closed; open a live one again when it is lost."""
        pause, seen = FIRST_WAIT, 0
        while not self.closed:
            try:
                self._read_once()
                reason = "the stream ended"
            except LostError as error:
                reason = str(error)
                if not self.received and (error.final or not self._source.is_live):
                    self._fail(VideoError(f"{self._source.name} cannot be opened: {reason}"))
                    return
            except Exception as error:  # a bug: `take` raises it
                self._fail(error)
                return
            self.connected = False
            if self.closed or not self._source.is_live:
                break
            if self.received > seen:
                pause, seen, self._reason = FIRST_WAIT, self.received, ""
            # Only a new reason is a warning.
            level = logging.INFO if reason == self._reason else logging.WARNING
            self._reason = reason
            logger.log(
                level, "%s is lost (%s); trying again in %.1f s", self._source.name, reason, pause
            )
            self.pause(time.perf_counter() + pause)
            pause = min(2 * pause, LONGEST_WAIT)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _read_once(self) -> None:
        """Read from opening to the end. Raises LostError."""
        av = import_av()
        with self._source.open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"  # threads over frames would add delay
            clock = _Clock(self._source.is_live)
            try:
                for packet in container.demux(stream):
                    for frame in _decoded(av, packet):
                        if self.closed:
                            return
                        due = clock.due(frame.time)
                        if not self._source.is_live:
                            self.pause(due)
                        self._put(Arrived(frame, due))
                    stream.codec_context.skip_frame = "NONKEY" if clock.is_behind else "DEFAULT"
                    if self.closed:
                        return
            except (av.error.FFmpegError, OSError) as error:
                raise self._source.lost(error) from None

    def _put(self, arrived: Arrived) -> None:
        with self._changed:
            if not self.connected:
                self.connected = True
                self.reconnects += self.received > 0
            self.received += 1
            self.dropped += self._newest is not None
            self._newest = arrived
            self._last_arrival = time.perf_counter()
            self._changed.notify_all()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = error
            self._changed.notify_all()


def _decoded(av: Any, packet: Any) -> list[Any]:
    """Return the frames of a packet; none if the packet is damaged."""
    try:
        frames: list[Any] = packet.decode()
    except av.error.InvalidDataError as error:
        logger.debug("a damaged packet: %s", error.strerror)
        return []
    return frames


class _Clock:
    """Computes when each frame should have arrived, from the frames' own times.

    The offset from the source's clock to ours is the smallest one seen, that of the frame with the
    least delay. Later frames are late by the difference of their offset. So the delay includes the
    time that frames wait in buffers of the network and of the decoder.

    Args:
        is_live: whether the source continues while nobody reads it; if not, nothing is skipped.

    Attributes:
        is_behind: whether frames have been late for so long that not all should be decoded.
    """

    def __init__(self, is_live: bool) -> None:
        self._is_live = is_live
        self._offset: float | None = None  # from the source's time to ours
        self._last = 0.0
        self._since: float | None = None  # when frames began to be late
        self.is_behind = False

    def due(self, moment: float | None) -> float:
        """Return the time when a frame should have arrived, as of `time.perf_counter`.

        Args:
            moment: the frame's own time, in seconds; None if it has none.
        """
        now = time.perf_counter()
        if moment is None:
            return now
        offset = now - moment
        if self._offset is None or abs(offset - self._offset) > JUMP:
            self._offset = offset
        elif self._is_live:
            self._offset = min(offset, self._offset + DRIFT * (now - self._last))
        self._last = now
        self._judge(offset, now)
        return moment + self._offset

    def _judge(self, offset: float, now: float) -> None:
        """Update `is_behind` by the offset of a frame."""
        assert self._offset is not None
        late = offset - self._offset
        if late < (CAUGHT_UP if self.is_behind else LATE):
            self._since, self.is_behind = None, False
            return
        if self._since is None:
            self._since = now
        waited = now - self._since
        self.is_behind = self._is_live and waited > PATIENCE
        if waited > 3 * PATIENCE or not self._is_live:
            # Skipping frames does not help, so the connection itself has a longer delay now.
            self._offset, self._since, self.is_behind = offset, None, False
