"""Video files in, frame by frame.

Only one frame at a time is held here; the decoder holds a few dozen, whatever the length of the clip.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vrdir.image_files.regular_files import check_regular
from vrdir.image_files.whole_files import ImageError
from vrdir.video.formats import SCALER, Frame, Pixels, VideoError, import_av

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

VP8_SHOW_FRAME = 0x10  # in a packet's first byte (RFC 6386, 9.1)


class VideoReader:
    """The first moving picture of a video file.

    Frames come out upright (a rotation that the file asks for is applied), as 8-bit RGB: deeper ones are reduced, and alpha
    is left out, each with a warning.

    Attributes:
        path: the file.
        height, width: of a frame, in pixels.
        time_base: seconds per unit of time.
        frames_expected: how many frames the file says it holds, or None. An estimate where only its duration is known.

    Raises:
        VideoError: there is no such file, it is no video, none of its frames can be decoded, or PyAV is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._av = import_av()
        with self._open() as container:
            first = self._first_frame(container)
        self.rotation: int = first.rotation % 360
        if self.rotation % 90:
            logger.warning("%s asks to be turned by %d degrees; only quarter turns are applied", self.path, self.rotation)
            self.rotation = 0
        self._stored = first.width, first.height
        self.width, self.height = self._stored if self.rotation % 180 == 0 else self._stored[::-1]
        if any(component.bits > 8 for component in first.format.components):
            logger.warning("%s has more than 8 bits a channel; it is restored and written with 8", self.path)
        transparent = any(component.is_alpha for component in first.format.components)
        self.container = self._open()
        self.stream: av.VideoStream = self._picture_stream(self.container)
        # WebM has its alpha beside the picture, where FFmpeg's own decoders do not look.
        if transparent or self.stream.metadata.get("alpha_mode") == "1":
            logger.warning("%s can be transparent (it has an alpha channel); it is restored and written without", self.path)
        self.time_base: Fraction = self.stream.time_base or Fraction(1, 1000)
        self.frames_expected = self._frames_expected()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.container.close()

    def frames(self, pass_on: Callable[[Any], None] | None = None) -> Iterator[Frame]:
        """The frames in the order in which they are shown, one for each that the file holds.

        One that does not decode, or only with errors, comes as a frame without pixels, at its own time, and is logged.

        Args:
            pass_on: called with each packet of the other streams (sound, subtitles), in the file's order.
        """
        for number, frame in enumerate(self._frames(pass_on)):
            if frame.pixels is None:
                logger.info("%s: frame %d, at %.3f s, is damaged", self.path, number, float(frame.pts * self.time_base))
            yield frame

    def _frames(self, pass_on: Callable[[Any], None] | None) -> Iterator[Frame]:
        # A decoder says nothing of the frames that it drops, and of an error not always which frame it hit. But frames leave it in
        # the order of their times: when one comes, every earlier packet that is still due never will.
        due: list[tuple[int, int]] = []
        last: int | None = None
        met = 0
        for packet in self._packets():
            if packet.stream.index != self.stream.index:
                if pass_on is not None and packet.size and packet.dts is not None:
                    pass_on(packet)
                continue
            met += packet.size > 0
            if packet.size and packet.pts is not None and not packet.is_discard and self._shows(packet):
                heapq.heappush(due, (packet.pts, packet.duration or 0))
            try:
                decoded = packet.decode()
            except self._av.error.FFmpegError as error:
                logger.debug("%s: %s", self.path, error)
                continue
            for frame in decoded:
                pts = frame.pts if frame.pts is not None else frame.dts
                if pts is None or (last is not None and pts <= last):  # around damage, a frame may come again, or too late
                    continue
                while due and due[0][0] < pts:
                    yield Frame(None, *heapq.heappop(due))
                duration = heapq.heappop(due)[1] if due and due[0][0] == pts else 0
                last = pts
                yield Frame(None if frame.is_corrupt else self._pixels(frame), pts, duration)
        while due:
            yield Frame(None, *heapq.heappop(due))
        if met < self.stream.frames:
            logger.warning("%s is cut short: it ends after %d of %d frames", self.path, met, self.stream.frames)

    def _shows(self, packet: Any) -> bool:
        """Whether there is a picture to be shown in it. VP8 has packets of their own for pictures that others are only predicted from."""
        return self.stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & VP8_SHOW_FRAME)

    def _packets(self) -> Iterator[Any]:
        try:
            yield from self.container.demux()
        except self._av.error.FFmpegError as error:
            logger.warning("%s cannot be read to its end (%s)", self.path, error.strerror)

    def _pixels(self, frame: av.VideoFrame) -> Pixels:
        width, height = self._stored  # a picture that changes its size midway is brought back to the first one
        rgb = frame.reformat(width, height, "rgb24", interpolation=SCALER).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, self.rotation // 90))

    def _open(self) -> Any:
        try:
            check_regular(self.path)
            return self._av.open(str(self.path))
        except ImageError as error:
            raise VideoError(str(error)) from None
        except (self._av.error.FFmpegError, OSError) as error:
            if not self.path.exists():
                raise VideoError(f"{self.path} does not exist") from None
            reason = "is a folder" if self.path.is_dir() else f"is no video, or is damaged ({error.strerror})"
            raise VideoError(f"{self.path} {reason}") from None

    def _picture_stream(self, container: Any) -> av.VideoStream:
        cover = self._av.stream.Disposition.attached_pic
        moving = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not moving:
            raise VideoError(f"{self.path} has no moving picture in it")
        stream: av.VideoStream = moving[0]
        if stream.codec_context is None:
            raise VideoError(f"{self.path} is coded in a way for which FFmpeg has no decoder here")
        # With threads, FFmpeg's H.264 decoder tells of no damage within a frame, and loses good frames around a damaged one.
        stream.thread_type = "NONE"
        stream.thread_count = 1
        return stream

    def _first_frame(self, container: Any) -> av.VideoFrame:
        stream = self._picture_stream(container)
        for packet in container.demux(stream):
            with contextlib.suppress(self._av.error.FFmpegError):
                for frame in packet.decode():
                    return frame
        raise VideoError(f"none of the frames of {self.path} can be decoded; get it again")

    def _frames_expected(self) -> int | None:
        if self.stream.frames:
            return self.stream.frames
        rate = self.stream.average_rate
        if self.container.duration is None or not rate:
            return None
        return max(round(self.container.duration / self._av.time_base * rate), 1)
