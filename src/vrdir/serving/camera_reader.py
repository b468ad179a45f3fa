"""A thread that reads a source and keeps only its newest frame."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from vrdir.errors import VideoError
from vrdir.serving.camera_source import LostError, Source
from vrdir.video.formats import import_av

logger = logging.getLogger(__name__)

FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two tries to reach a source
LATE, CAUGHT_UP = 1.0, 0.3  # seconds of delay that are too much, and that are well again
PATIENCE = 2.0  # seconds that frames may be late before only key frames are decoded
DRIFT = 0.001  # of a source's clock against ours, at most
JUMP = 10.0  # seconds that a source's clock goes forth or back at once, and is read anew


class Arrived(NamedTuple):
    """A decoded frame (PyAV's), and when it should have been here, by `time.perf_counter`."""

    frame: Any
    due: float


class FrameReader:
    """Reads a source in a thread of its own, which ends with `close`.

    Args:
        source: what is read.

    Attributes:
        received: frames that were decoded.
        dropped: frames that were replaced by newer ones before they were taken.
        reconnects: how often the source was lost and found again.
        connected: whether frames arrive now.
        closed: whether it was closed.
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
        """Stop reading; wait until the source is closed, at most a number of seconds."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()
        if wait and self._thread is not threading.current_thread():
            self._thread.join(wait)

    def pause(self, until: float) -> None:
        """Sleep until a moment, or until it is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed, max(0.0, until - time.perf_counter()))

    def wake(self) -> None:
        """Have `take` look at its `enough` again."""
        with self._changed:
            self._changed.notify_all()

    def take(
        self,
        seconds: float,
        timeout: float | None,
        not_before: float = 0.0,
        enough: Callable[[], bool] = lambda: False,
    ) -> Arrived | None:
        """Return the newest frame as soon as there is one; None if none comes in time.

        Args:
            seconds: to wait, from `not_before` on.
            timeout: seconds after the last frame of a live source, from which on it has failed.
            not_before: the moment before which no frame is wanted, by `time.perf_counter`.
            enough: no frame is wanted any more as soon as this returns True.

        Raises:
            StopIteration: the source has ended, or was closed.
            VideoError: the source cannot be read.
        """
        until = max(time.perf_counter(), not_before) + seconds
        with self._changed:
            while True:
                if self.closed:
                    raise StopIteration
                if enough():
                    return None
                now = time.perf_counter()
                if now < not_before:
                    self._changed.wait(not_before - now)
                    continue
                if self._newest is not None:
                    arrived, self._newest = self._newest, None
                    return arrived
                if self._error is not None:
                    raise self._error
                if self._ended:
                    raise StopIteration
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
            except Exception as error:  # a bug, which the one who takes frames must see
                self._fail(error)
                return
            self.connected = False
            if self.closed or not self._source.is_live:
                break
            if self.received > seen:
                pause, seen, self._reason = FIRST_WAIT, self.received, ""
            # A source that stays away is no news.
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
    """Return a packet's frames; none if it is damaged, as on a bad line."""
    try:
        frames: list[Any] = packet.decode()
    except av.error.InvalidDataError as error:
        logger.debug("a damaged packet: %s", error.strerror)
        return []
    return frames


class _Clock:
    """When each frame should have been here, by the source's own times.

    A live source shows its least delay at some frame; later frames are late by what theirs is more.
    So the delay counts what waits in the network's and the decoder's buffers, too.

    Args:
        is_live: the source goes on without us; else it waits, and nothing is skipped.

    Attributes:
        is_behind: frames are late for long: decoding them all takes too much time.
    """

    def __init__(self, is_live: bool) -> None:
        self._is_live = is_live
        self._offset: float | None = None  # from the source's time to ours
        self._last = 0.0
        self._since: float | None = None  # when frames began to be late
        self.is_behind = False

    def due(self, moment: float | None) -> float:
        """Return when a frame should have been here.

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
        """Decide whether frames are late for long, by a frame's offset."""
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
            # Skipping does not help, so it is the way here that has become longer.
            self._offset, self._since, self.is_behind = offset, None, False
