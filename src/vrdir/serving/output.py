"""Where the restored frames of a camera go beside the page: a pipe, a file or a network address."""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any, BinaryIO, Protocol

import numpy as np

from vrdir.errors import VideoError, first_line
from vrdir.video.formats import import_av

Picture = np.ndarray[Any, np.dtype[np.uint8]]

TICKS = 90_000  # of MPEG-TS' clock, a second
# FFmpeg's container by how an address begins; the first that matches counts.
CONTAINERS = {
    "udp://": "mpegts",
    "tcp://": "mpegts",
    "srt://": "mpegts",
    "rtsp://": "rtsp",
    "rtmp://": "flv",
}
FASTEST = {"preset": "ultrafast", "tune": "zerolatency", "crf": "20", "g": "50"}


class Output(Protocol):
    """What takes frames (H, W, 3), uint8, RGB."""

    def write(self, frame: Picture) -> None:
        """Write a frame."""

    def close(self) -> None:
        """Finish."""


class RawOutput:
    """Frames as they are, byte after byte: RGB, or BGR as `ffmpeg -f rawvideo -pix_fmt bgr24`.

    Args:
        file: where to write.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, frame: Picture) -> None:
        """Write a frame and send it off."""
        self._file.write(np.ascontiguousarray(frame).tobytes())
        self._file.flush()

    def close(self) -> None:
        """Send off what is left."""
        self._file.flush()


class EncodedOutput:
    """Frames as H.264, with the least delay that the encoder can.

    The size of the first frame holds for all; the time of a frame is when it was written.

    Args:
        target: a binary file, a path, or an address (udp, tcp, srt, rtsp, rtmp).

    Raises:
        VideoError: the target cannot be opened.
    """

    def __init__(self, target: str | BinaryIO) -> None:
        self._av = import_av()
        address = target if isinstance(target, str) else ""
        begins = (name for start, name in CONTAINERS.items() if address.lower().startswith(start))
        container = next(begins, None if address else "mpegts")
        try:
            self._container = self._av.open(target, "w", format=container)
        except (self._av.error.FFmpegError, OSError, ValueError) as error:
            raise VideoError(
                f"{address or 'the pipe'} cannot be written ({first_line(error)})"
            ) from None
        self._stream: Any = None
        self._start = 0.0
        self._last = -1

    def write(self, frame: Picture) -> None:
        """Encode a frame.

        Raises:
            VideoError: the target is gone.
        """
        if self._stream is None:
            self._open_stream(frame.shape[1], frame.shape[0])
        picture = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture = picture.reformat(self._stream.width, self._stream.height, "yuv420p")
        self._last = max(self._last + 1, round((time.perf_counter() - self._start) * TICKS))
        picture.pts, picture.time_base = self._last, Fraction(1, TICKS)
        self._mux(picture)

    def close(self) -> None:
        """Write what the encoder holds back, and the end."""
        if self._stream is not None:
            self._mux(None)
        self._container.close()

    def _open_stream(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream("libx264", rate=25, options=FASTEST)
        # H.264 halves the colours' size, so that a side is even.
        self._stream.width, self._stream.height = max(2, width & ~1), max(2, height & ~1)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TICKS)
        self._start = time.perf_counter()

    def _mux(self, picture: Any) -> None:
        try:
            for packet in self._stream.encode(picture):
                self._container.mux(packet)
        except (self._av.error.FFmpegError, OSError) as error:
            raise VideoError(f"the output is gone ({first_line(error)})") from None


def open_output(target: str, raw: bool) -> Output:
    """Open an output.

    Args:
        target: "-" for standard output, a path, or an address.
        raw: frames as they are instead of H.264; for standard output only.

    Raises:
        VideoError: it cannot be opened.
    """
    if target != "-":
        return EncodedOutput(target)
    pipe = sys.stdout.buffer
    return RawOutput(pipe) if raw else EncodedOutput(pipe)
