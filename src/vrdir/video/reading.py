"""Video files in, frame by frame.

Only one frame at a time is held here; the decoder holds a few dozen, whatever the length of the clip.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from vrdir.errors import ImageError, VideoError
from vrdir.regular_files import check_regular
from vrdir.video.formats import SCALER, Frame, Pixels, import_av
from vrdir.video.timing import Clock, Expected, Order, Shown

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

FINER = 100
BEGINNINGS = {"matroska": b"\x1a\x45\xdf\xa3", "mp4": b"ftyp"}  # how files of these formats begin
TS_DISCONT = 0x200  # FFmpeg's AVFMT_TS_DISCONT: clocks may jump, as in MPEG-TS
VP8_SHOW_FRAME = 0x10  # in a packet's first byte (RFC 6386, 9.1)


class VideoReader:
    """The first moving picture of a video file.

    Frames come out upright (a rotation that the file asks for is applied), as 8-bit RGB: deeper ones are reduced, and alpha
    is left out, each with a warning.

    Attributes:
        path: the file.
        height, width: of a frame, in pixels.
        time_base: seconds per unit of time: the stream's, or a hundredth of one that is a millisecond and more.
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
            logger.warning(
                "%s asks to be turned by %d degrees; only quarter turns are applied",
                self.path,
                self.rotation,
            )
            self.rotation = 0
        self._stored = first.width, first.height
        self.width, self.height = self._stored if self.rotation % 180 == 0 else self._stored[::-1]
        if any(component.bits > 8 for component in first.format.components):
            logger.warning(
                "%s has more than 8 bits a channel; it is restored and written with 8", self.path
            )
        transparent = any(component.is_alpha for component in first.format.components)
        self.container = self._open()
        self.stream: av.VideoStream = self._picture_stream(self.container)
        # WebM has its alpha beside the picture, where FFmpeg's own decoders do not look.
        if transparent or self.stream.metadata.get("alpha_mode") == "1":
            logger.warning(
                "%s can be transparent (it has an alpha channel); it is restored and written without",
                self.path,
            )
        tick = self.stream.time_base or Fraction(1, 1000)
        # Matroska's clock has a millisecond, in which there may be several frames.
        self._finer = FINER if tick >= Fraction(1, 1000) else 1
        self.time_base: Fraction = tick / self._finer
        self._interval = max(round(1 / (self.stream.average_rate or 25) / self.time_base), 1)
        self._counts = (
            self.container.format.name == "avi"
        )  # its frames, in the order of decoding, and has no other times
        self._jumps = bool(self.container.format.flags & TS_DISCONT)
        self.frames_expected = self._frames_expected()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.container.close()

    def frames(self, pass_on: Callable[[Any], None] | None = None) -> Iterator[Frame]:
        """The frames in the order in which they are shown, one for each that the file holds.

        One that does not decode, or only with errors, comes as a frame without pixels, at its own time, and is logged.

        Args:
            pass_on: called with each packet of the other streams (sound, subtitles), in the file's order.
        """
        for number, frame in enumerate(self._frames(pass_on)):
            if frame.pixels is None:
                logger.info(
                    "%s: frame %d, at %.3f s, is damaged",
                    self.path,
                    number,
                    float(frame.pts * self.time_base),
                )
            yield frame

    def _frames(self, pass_on: Callable[[Any], None] | None) -> Iterator[Frame]:
        order, clock = Order(), Clock(self._jumps, self._interval * self.time_base)
        met, last, position = 0, None, 0
        for packet in self._packets():
            shift = clock.shift(packet)
            position = max(position, (packet.pos or 0) + packet.size)
            if packet.stream.index != self.stream.index:
                if pass_on is not None:
                    pass_on(_moved(packet, shift))
                continue
            expected = self._expected(packet, met, round(shift / self.time_base), last)
            if expected is not None:
                last = expected.time
                if not packet.is_discard and self._shows(packet):
                    order.expect(expected)
            packet.pts = met  # a decoder gives a frame the time of its packet: here its number, which no other has
            met += 1
            for frame in self._decoded(packet):
                order.arrive(frame.pts, frame)
            yield from map(self._frame, order.ready())
        for frame in self._decoded(None):
            order.arrive(frame.pts, frame)
        yield from map(self._frame, order.ready(finished=True))
        if met < self.stream.frames and not self._lasts_to_the_end(met, last):
            logger.warning(
                "%s is cut short: it ends after %d of %d frames", self.path, met, self.stream.frames
            )
        if self._goes_on(position):
            logger.warning(
                "%s holds a further video, which is left out; join them by ffmpeg or mkvmerge, not as files",
                self.path,
            )

    def _expected(self, packet: Any, number: int, shift: int, last: int | None) -> Expected | None:
        """What is known of a packet's frame; None if there is no time to be had."""
        times = (packet.dts, None) if self._counts else (packet.pts, packet.dts)
        time = next((time for time in times if time is not None), None)
        duration = (packet.duration or 0) * self._finer
        if time is not None:
            return Expected(
                time * self._finer + shift, number, duration, self._counts or time == packet.pts
            )
        return (
            None if last is None else Expected(last + self._interval, number, duration, own=False)
        )

    def _decoded(self, packet: Any) -> list[av.VideoFrame]:
        """The frames that come out of the decoder after a packet, or with None the last ones."""
        try:
            return self.stream.decode(packet)
        except self._av.error.FFmpegError as error:
            logger.debug("%s: %s", self.path, error)
            return []

    def _frame(self, shown: Shown) -> Frame:
        damaged = shown.frame is None or shown.frame.is_corrupt
        return Frame(None if damaged else self._pixels(shown.frame), shown.time, shown.duration)

    def _goes_on(self, position: int) -> bool:
        """Whether another file begins after the last packet: of files that were joined, FFmpeg may read the first alone."""
        beginning = next(
            (
                BEGINNINGS[name]
                for name in self.container.format.name.split(",")
                if name in BEGINNINGS
            ),
            None,
        )
        if beginning is None:
            return False
        with self.path.open("rb") as file:
            file.seek(position)
            before = b""
            while block := file.read(2**20):
                if beginning in before + block:
                    return True
                before = block[-len(beginning) :]
        return False

    def _lasts_to_the_end(self, met: int, last: int | None) -> bool:
        """Whether the last frame is where a file ends that counts empty places, too: AVI's are for frames that stay longer."""
        if not self._counts or last is None or self.stream.duration is None:
            return False
        return last + 2 * (last // max(met - 1, 1)) >= self.stream.duration * self._finer

    def _shows(self, packet: Any) -> bool:
        """Whether there is a picture to be shown in it. VP8 has packets of their own for pictures that others are only predicted from."""
        return self.stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & VP8_SHOW_FRAME)

    def _packets(self) -> Iterator[Any]:
        try:
            yield from (packet for packet in self.container.demux() if packet.size)
        except self._av.error.FFmpegError as error:
            logger.warning("%s cannot be read to its end (%s)", self.path, error.strerror)

    def _pixels(self, frame: av.VideoFrame) -> Pixels:
        width, height = (
            self._stored
        )  # a picture that changes its size midway is brought back to the first one
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
            reason = (
                "is a folder"
                if self.path.is_dir()
                else f"is no video, or is damaged ({error.strerror})"
            )
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


def _moved(packet: Any, shift: Fraction) -> Any:
    """A packet with its times moved by so many seconds."""
    ticks = round(shift / packet.time_base)
    if ticks:
        packet.pts, packet.dts = (
            None if time is None else time + ticks for time in (packet.pts, packet.dts)
        )
    return packet
