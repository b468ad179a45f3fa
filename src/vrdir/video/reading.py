"""Reading of video files, frame by frame.

One frame at a time is kept here; the decoder keeps a few dozen, whatever the length of the video.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vrdir.errors import ImageError, VideoError
from vrdir.images.memory import check_memory
from vrdir.regular_files import check_regular
from vrdir.video.formats import SCALER, Frame, FramePixels, import_av
from vrdir.video.timing import Clock, Expected, FrameOrder, TimedFrame

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

FINER = 100  # how many parts a coarse clock's unit is divided into
STARTS = {"matroska": b"\x1a\x45\xdf\xa3", "mp4": b"ftyp"}  # the first bytes of files
TS_DISCONT = 0x200  # FFmpeg's AVFMT_TS_DISCONT: clocks may jump, as in MPEG-TS
VP8_SHOW_FRAME = 0x10  # in a packet's first byte (RFC 6386, 9.1)
# FFmpeg's names of formats that are not videos but scripts: they name other files, addresses or
# commands, which would be opened (a pipe would be read forever).
SCRIPTS = {
    "avisynth", "applehttp", "concat", "concatf", "dash", "ffmetadata", "hls", "image2",
    "image2pipe", "imf", "lavfi", "rtp", "rtsp", "sap", "sdp", "vapoursynth",
}  # fmt: skip
# Of a decoder's frames, the frame as RGB and float32, and the strips of a network.
PIXEL_BYTES = 100


class VideoReader:
    """The first video stream of a file.

    Frames are upright (the rotation that the file asks for is applied) and 8-bit RGB: deeper ones
    are reduced, and alpha is dropped, each with a warning.

    Attributes:
        path: the file.
        height, width: of a frame, in pixels.
        time_base: seconds per unit of time: the stream's, or a hundredth of it if that is a
            millisecond or more.
        frames_expected: the number of frames by the file's header, an estimate where it has only a
            duration; None if unknown.

    Raises:
        VideoError: the file does not exist, is not a video, none of its frames can be decoded, or
            PyAV is not installed.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._av = import_av()
        with self._open() as container:
            first = self._first_frame(container)
        self.rotation = self._quarter_turns(first.rotation % 360)
        self._stored = first.width, first.height
        self.width, self.height = self._stored if self.rotation % 180 == 0 else self._stored[::-1]
        self.container = self._open()
        self.stream: av.VideoStream = self._picture_stream(self.container)
        self._warn_of_losses(first)
        tick = self.stream.time_base or Fraction(1, 1000)
        # Matroska's clock counts milliseconds, and several frames may be shown in one.
        self._finer = FINER if tick >= Fraction(1, 1000) else 1
        self.time_base: Fraction = tick / self._finer
        self._interval = max(round(1 / (self.stream.average_rate or 25) / self.time_base), 1)
        # AVI has no times: it numbers its frames in the order of decoding.
        self._counts = self.container.format.name == "avi"
        self._jumps = bool(self.container.format.flags & TS_DISCONT)
        self.frames_expected = self._frames_expected()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def frames(self, pass_on: Callable[[Any], None] | None = None) -> Iterator[Frame]:
        """Yield the frames in the order in which they are shown.

        A frame that is not decoded, or only with errors, is yielded without pixels, at its own
        time, and logged.

        Args:
            pass_on: called with each packet of the other streams (sound, subtitles), in the file's
                order.
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
        order, clock = FrameOrder(), Clock(self._jumps, self._interval * self.time_base)
        packets, last, position = 0, None, 0
        for packet in self._packets():
            shift = clock.shift(packet)
            position = max(position, (packet.pos or 0) + packet.size)
            if packet.stream.index != self.stream.index:
                if pass_on is not None:
                    pass_on(_shifted(packet, shift))
                continue
            expected = self._expected(packet, packets, round(shift / self.time_base), last)
            if expected is not None:
                last = expected.time
                if not packet.is_discard and self._shows(packet):
                    order.expect(expected)
            # Decoders give a frame the time of its packet: here the packet's number, which is
            # unique.
            packet.pts = packets
            packets += 1
            for frame in self._decoded(packet):
                order.add(frame.pts, frame)
            yield from map(self._frame, order.ready())
        for frame in self._decoded(None):
            order.add(frame.pts, frame)
        yield from map(self._frame, order.ready(finished=True))
        self._warn_of_the_end(packets, last, position)

    def _warn_of_the_end(self, packets: int, last: int | None, position: int) -> None:
        """Warn if the file ends early, or if another file follows.

        Args:
            packets: the number of the stream's packets.
            last: the time of the last one.
            position: where in the file the last packet ends.
        """
        if packets < self.stream.frames and not self._reaches_the_end(packets, last):
            logger.warning(
                "%s is truncated: it ends after %d of %d frames",
                self.path,
                packets,
                self.stream.frames,
            )
        if self._is_followed(position):
            logger.warning(
                "%s contains a second video, which is ignored; join videos with ffmpeg or "
                "mkvmerge, not by joining files",
                self.path,
            )

    def _quarter_turns(self, rotation: int) -> int:
        """Return a rotation in degrees if it is a multiple of 90, else 0 with a warning."""
        if rotation % 90:
            logger.warning(
                "%s has a rotation of %d degrees; only multiples of 90 are applied",
                self.path,
                rotation,
            )
            return 0
        return rotation

    def _warn_of_losses(self, first: av.VideoFrame) -> None:
        """Warn if the file has more than 8 bits per channel, or alpha."""
        if any(component.bits > 8 for component in first.format.components):
            logger.warning(
                "%s has more than 8 bits per channel; it is restored and written with 8", self.path
            )
        transparent = any(component.is_alpha for component in first.format.components)
        # WebM keeps alpha in a second picture, which FFmpeg's own decoders ignore.
        if transparent or self.stream.metadata.get("alpha_mode") == "1":
            logger.warning(
                "%s can be transparent (it has an alpha channel); "
                "it is restored and written without",
                self.path,
            )

    def _expected(self, packet: Any, number: int, shift: int, last: int | None) -> Expected | None:
        """Return what is known of a packet's frame; None if it cannot be given a time."""
        times = (packet.dts, None) if self._counts else (packet.pts, packet.dts)
        time = next((time for time in times if time is not None), None)
        duration = (packet.duration or 0) * self._finer
        if time is not None:
            own = self._counts or time == packet.pts
            return Expected(time * self._finer + shift, number, duration, own)
        if last is None:
            return None
        return Expected(last + self._interval, number, duration, own=False)

    def _decoded(self, packet: Any) -> list[av.VideoFrame]:
        """Return the frames that the decoder returns after a packet; the last ones for None."""
        try:
            return self.stream.decode(packet)
        except self._av.error.FFmpegError as error:
            logger.debug("%s: %s", self.path, error)
            return []

    def _frame(self, timed: TimedFrame) -> Frame:
        damaged = timed.frame is None or timed.frame.is_corrupt
        return Frame(None if damaged else self._pixels(timed.frame), timed.time, timed.duration)

    def _is_followed(self, position: int) -> bool:
        """Return whether another file begins after the last packet.

        Of files that were joined, FFmpeg may read only the first.
        """
        names = self.container.format.name.split(",")
        start = next((STARTS[name] for name in names if name in STARTS), None)
        if start is None:
            return False
        with self.path.open("rb") as file:
            file.seek(position)
            before = b""
            while block := file.read(2**20):
                if start in before + block:
                    return True
                before = block[-len(start) :]
        return False

    def _reaches_the_end(self, packets: int, last: int | None) -> bool:
        """Return whether the last frame is at the end of a file that also counts empty frames.

        AVI does: an empty frame repeats the frame before it.
        """
        if not self._counts or last is None or self.stream.duration is None:
            return False
        return last + 2 * (last // max(packets - 1, 1)) >= self.stream.duration * self._finer

    def _shows(self, packet: Any) -> bool:
        """Return whether a packet contains a picture that is shown.

        VP8 has packets for pictures that are only used to predict others.
        """
        return self.stream.codec_context.name != "vp8" or bool(bytes(packet)[0] & VP8_SHOW_FRAME)

    def _packets(self) -> Iterator[Any]:
        try:
            yield from (packet for packet in self.container.demux() if packet.size)
        except self._av.error.FFmpegError as error:
            logger.warning("%s cannot be read to its end (%s)", self.path, error.strerror)

    def _pixels(self, frame: av.VideoFrame) -> FramePixels:
        # A video that changes its size midway is brought back to the first size.
        width, height = self._stored
        rgb = frame.reformat(width, height, "rgb24", interpolation=SCALER).to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, self.rotation // 90))

    def _open(self) -> Any:
        try:
            check_regular(self.path)
            return self._av.open(
                # Absolute, or FFmpeg treats the name 12:30.mp4 as the address of a server.
                os.path.abspath(self.path),  # noqa: PTH100 - `resolve` would follow links
                options={
                    "format_whitelist": ",".join(sorted(self._av.formats_available - SCRIPTS))
                },
                # Tags need not be UTF-8: old cameras write them in the encoding of their country.
                metadata_errors="replace",
            )
        except ImageError as error:
            raise VideoError(str(error)) from None
        except (self._av.error.FFmpegError, OSError) as error:
            if not self.path.exists():
                raise VideoError(f"{self.path} does not exist") from None
            if self.path.is_dir():
                raise VideoError(f"{self.path} is a folder") from None
            raise VideoError(
                f"{self.path} is not a video, or is damaged ({error.strerror})"
            ) from None

    def _picture_stream(self, container: Any) -> av.VideoStream:
        cover = self._av.stream.Disposition.attached_pic
        moving = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not moving:
            raise VideoError(f"{self.path} has no video stream")
        stream: av.VideoStream = moving[0]
        if stream.codec_context is None:
            raise VideoError(f"{self.path} has a codec that the installed FFmpeg cannot decode")
        size = stream.width, stream.height
        check_memory(PIXEL_BYTES * size[0] * size[1], size, str(self.path), VideoError)
        # With threads, FFmpeg's H.264 decoder reports no damage within a frame, and loses good
        # frames around a damaged one.
        stream.thread_type = "NONE"
        stream.thread_count = 1
        return stream

    def _first_frame(self, container: Any) -> av.VideoFrame:
        """Return the first frame that can be decoded."""
        stream = self._picture_stream(container)
        with contextlib.suppress(self._av.error.FFmpegError):  # if it cannot be read further
            for packet in container.demux(stream):
                with contextlib.suppress(self._av.error.FFmpegError):
                    for frame in packet.decode():
                        return frame
        raise VideoError(
            f"none of the frames of {self.path} can be decoded; download or copy it again"
        )

    def _frames_expected(self) -> int | None:
        if self.stream.frames:
            return self.stream.frames
        rate = self.stream.average_rate
        if self.container.duration is None or not rate:
            return None
        return max(round(self.container.duration / self._av.time_base * rate), 1)


def _shifted(packet: Any, shift: Fraction) -> Any:
    """Return a packet with its times moved by this many seconds."""
    ticks = round(shift / packet.time_base)
    if ticks:
        packet.pts, packet.dts = (
            None if time is None else time + ticks for time in (packet.pts, packet.dts)
        )
    return packet
