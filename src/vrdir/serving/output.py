"""Outputs for the restored frames of a camera: a pipe, a file or a network address."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np

from vrdir.errors import ExistsError, InputError, MissingFileError, VideoError, first_line
from vrdir.serving.camera_source import ADDRESS, hidden
from vrdir.video.formats import import_av

logger = logging.getLogger(__name__)

Picture = np.ndarray[Any, np.dtype[np.uint8]]

TICKS = 90_000  # per second, of the clock of MPEG-TS
KEY_SECONDS = 2  # between two key frames, at which a player can begin
# FFmpeg's container for each scheme of an address.
CONTAINERS = {"udp": "mpegts", "tcp": "mpegts", "srt": "mpegts", "rtsp": "rtsp", "rtmp": "flv"}
FASTEST = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20"}
BT709, LIMITED = 1, 1  # FFmpeg's numbers for the colour space BT.709 and its limited range
END_SECONDS = 5.0  # the longest time to finish an output
FIRST_WAIT, LONGEST_WAIT = 0.5, 10.0  # seconds between two attempts to open a target


class Output(Protocol):
    """The interface of an output. Frames are RGB, (H, W, 3) uint8."""

    def write(self, frame: Picture) -> None:
        """Write a frame. Raises VideoError if the target was closed."""

    def close(self) -> None:
        """Finish and close the output."""


class RawOutput:
    """Writes the bytes of RGB frames without compression, as `ffmpeg -f rawvideo -pix_fmt rgb24`.

    All frames get the size of the first one, which is written to the log.

    Args:
        file: a binary file, such as a pipe.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size: tuple[int, int] | None = None

    def write(self, frame: Picture) -> None:
        """Write a frame and flush the file. Raises VideoError if the target was closed."""
        if self._size is None:
            height, width = frame.shape[:2]
            self._size = width, height
            logger.warning("raw frames: rgb24, %d x %d", width, height)
        content = np.ascontiguousarray(fitted(frame, *self._size)).data.cast("B")
        try:
            while content:  # a pipe may accept only a part
                content = content[self._file.write(content) or 0 :]
            self._file.flush()
        except (OSError, ValueError) as error:
            raise VideoError(f"the output was closed ({first_line(error)})") from None

    def close(self) -> None:
        """Do nothing, because each frame was flushed."""


class EncodedOutput:
    """Encodes frames as H.264, with the settings for the least delay.

    All frames get the size of the first one. The time of a frame is the time when it was written.

    Args:
        target: a binary file, a path, or an address (udp, tcp, srt, rtsp, rtmp).

    Raises:
        VideoError: the target cannot be opened.
    """

    def __init__(self, target: str | BinaryIO) -> None:
        self._av = import_av()
        self._name = hidden(target) if isinstance(target, str) else "the pipe"
        container, target = _container_of(target)
        options = {"flush_packets": "1"}
        if container == "rtsp":
            options["rtsp_transport"] = "tcp"
        try:
            self._container = self._av.open(
                target, "w", format=container, container_options=options
            )
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise self._gone(error, "cannot be written") from None
        self._stream: Any = None
        self._start = 0.0
        self._last = -1

    def write(self, frame: Picture) -> None:
        """Encode a frame and send it. Raises VideoError if the target was closed."""
        if self._stream is None:
            self._open_stream(frame.shape[1], frame.shape[0])
        shape = self._stream.width, self._stream.height
        frame = np.ascontiguousarray(fitted(frame, *shape))
        picture = self._av.VideoFrame.from_ndarray(frame, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=BT709)
        self._last = max(self._last + 1, round((time.perf_counter() - self._start) * TICKS))
        picture.pts, picture.time_base = self._last, Fraction(1, TICKS)
        self._mux(picture)

    def close(self) -> None:
        """Write the last frames and the end. Raises VideoError if the target was closed."""
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            with contextlib.suppress(self._av.error.FFmpegError, OSError):
                self._container.close()

    def _open_stream(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=25, options=FASTEST)
        # H.264 halves the resolution of the colours, so both sides must be even.
        self._stream.width, self._stream.height = max(2, width & ~1), max(2, height & ~1)
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base, context.gop_size = Fraction(1, TICKS), 25 * KEY_SECONDS
        context.color_range = LIMITED
        context.colorspace = context.color_primaries = context.color_trc = BT709
        self._start = time.perf_counter()

    def _mux(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise self._gone(error, "was closed") from None

    def _gone(self, error: Exception, what: str) -> VideoError:
        # Not the whole text of a system error, because it contains the address.
        reason = getattr(error, "strerror", None) or first_line(error)
        return VideoError(f"{self._name} {what} ({reason})")


class Sender:
    """Writes frames to an output in its own thread, while the next frame is restored.

    While a frame is being written, only the newest of the following frames waits; the others are
    dropped.

    Args:
        open_output: opens the output; it is called in the thread.
        again: whether to open the output again, with growing pauses, after it was closed, as for a
            network address.

    Attributes:
        written: the number of written frames.
        dropped: the number of dropped frames.
        reconnects: how often the output was opened again.
    """

    def __init__(self, open_output: Callable[[], Output], again: bool) -> None:
        self.written = self.dropped = self.reconnects = 0
        self._open, self._again = open_output, again
        self._changed = threading.Condition()
        self._newest: Picture | None = None
        self._ends = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._thread.start()

    def write(self, frame: Picture) -> None:
        """Pass the next frame to the thread, and return without waiting.

        Raises:
            VideoError: the output cannot be opened, or was closed.
        """
        with self._changed:
            if self._error is not None:
                raise self._error
            self.dropped += self._newest is not None
            self._newest = frame
            self._changed.notify_all()

    def close(self) -> None:
        """Write the waiting frame, and close the output, within `END_SECONDS`.

        Raises:
            VideoError: the output cannot be opened, or was closed.
        """
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        self._thread.join(END_SECONDS)
        if self._error is not None:
            raise self._error

    # --- In the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        pause = FIRST_WAIT
        while True:
            before = self.written
            try:
                self._write_all()
            except VideoError as error:
                if not self._again or self._ends:
                    self._fail(error)
                    return
                pause = FIRST_WAIT if self.written > before else pause
                logger.warning("%s; trying again in %.1f s", error, pause)
            except Exception as error:  # a bug: `write` raises it
                self._fail(error)
                return
            else:
                return
            with self._changed:
                self._changed.wait_for(lambda: self._ends, pause)
            pause = min(2 * pause, LONGEST_WAIT)
            self.reconnects += 1

    def _write_all(self) -> None:
        """Write frames until the end. Raises VideoError if the output is gone."""
        output = self._open()
        try:
            while (frame := self._take()) is not None:
                output.write(frame)
                self.written += 1
        except VideoError:
            with contextlib.suppress(VideoError):
                output.close()
            raise
        output.close()

    def _take(self) -> Picture | None:
        with self._changed:
            self._changed.wait_for(lambda: self._ends or self._newest is not None)
            frame, self._newest = self._newest, None
            return frame

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = error


def sender_for(target: str, raw: bool) -> Sender:
    """Return the sender that writes frames to a target.

    Args:
        target: "-" for standard output, the path of a new file, or an address.
        raw: write raw RGB frames instead of H.264; for standard output only.

    Raises:
        InputError: the address has an unsupported scheme, or `raw` is used with another target.
        ExistsError: the file exists.
        MissingFileError: the folder of the file does not exist.
        VideoError: no container has this suffix, or PyAV is not installed.
    """
    import_av()
    if raw and target != "-":
        raise InputError(f"raw frames go to standard output (-o -) only, not to {hidden(target)}")
    if target == "-":
        # Unbuffered: no frame is kept back, and the end does not wait for a pipe that nobody reads.
        pipe = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)  # noqa: SIM115
        return Sender(lambda: RawOutput(pipe) if raw else EncodedOutput(pipe), again=False)
    address = ADDRESS.match(target)
    if address is not None and address[1].lower() not in CONTAINERS:
        raise InputError(
            f"{hidden(target)} is an address with an unsupported scheme; use "
            f"{', '.join(CONTAINERS)}, a file, or - for standard output"
        )
    if address is not None:
        return Sender(lambda: EncodedOutput(target), again=True)
    if Path(target).is_file():
        raise ExistsError(f"{target} already exists; choose another name, or delete it")
    if not Path(target).parent.is_dir():
        raise MissingFileError(f"the folder of {target} does not exist; create it first")
    output = EncodedOutput(target)  # here, so that errors are raised at once
    return Sender(lambda: output, again=False)


def fitted(frame: Picture, width: int, height: int) -> Picture:
    """Return a frame in this size: cut by one row or column, or else scaled, with black borders."""
    if frame.shape[:2] == (height, width):
        return frame
    if height <= frame.shape[0] <= height + 1 and width <= frame.shape[1] <= width + 1:
        return frame[:height, :width]
    scale = min(width / frame.shape[1], height / frame.shape[0])
    inner = max(1, round(frame.shape[1] * scale)), max(1, round(frame.shape[0] * scale))
    av = import_av()
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    result: Picture = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
    result[top : top + inner[1], left : left + inner[0]] = picture.reformat(*inner).to_ndarray()
    return result


def _container_of(target: Any) -> tuple[str | None, Any]:
    """Return FFmpeg's container for a target (None: by its suffix), and the target for FFmpeg."""
    if not isinstance(target, str):
        return "mpegts", target
    address = ADDRESS.match(target)
    if address is None:
        return None, target
    scheme = address[1].lower()
    if scheme == "udp" and "pkt_size=" not in target:
        # Seven packets of MPEG-TS, which fit into a packet of usual networks.
        target += ("&" if "?" in target else "?") + "pkt_size=1316"
    return CONTAINERS[scheme], target
