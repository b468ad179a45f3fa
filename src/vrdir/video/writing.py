"""Writing of video files, frame by frame, with sound, subtitles and tags copied from the source.

with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
    for frame in reader.frames(writer.copy):
        writer.write(frame.pixels, frame)
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from vrdir.atomic import HOPELESS, result_file
from vrdir.errors import DiskError, ImageError, VideoError, first_line
from vrdir.video.formats import SCALER, Frame, FramePixels, format_of_video, import_av
from vrdir.video.reading import VideoReader

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

# Tags about the old file, not about its content.
CONTAINER_TAGS = {
    "major_brand",
    "minor_version",
    "compatible_brands",
    "encoder",
    "duration",
    "handler_name",
    "vendor_id",
    "alpha_mode",
}
CONTAINER_TAG_PREFIXES = ("bps", "number_of_bytes", "number_of_frames", "_statistics")

BT709, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 1, 5, 6, 7, 9  # FFmpeg's AVColorSpace
# The same in the numbers of FFmpeg's scaler.
MATRICES = {BT709: 1, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020: 9}


class VideoWriter:
    """A video file with new pixels; everything else is copied from the source.

    This is: size, times, tags, sound, subtitles and chapters.

    It is written under a temporary name; the target appears when the `with` block ends without an
    error, whole or not at all. H.264 of odd width or height is written as 4:4:4, because 4:2:0 has
    only even sizes; everything else as 4:2:0.

    Args:
        path: the target, whose suffix decides container and codec (see
            `vrdir.video.formats.FORMATS`).
        like: the reader of the source.
        partial: the temporary name, if the caller renames the file itself; None to have it done
            here.

    Raises:
        VideoError: the container cannot store the sound.
        DiskError: the disk is full or read-only.
        ImageError: it cannot be written for another reason.
    """

    def __init__(self, path: Path | str, like: VideoReader, partial: Path | None = None) -> None:
        self.path = Path(path)
        self._av = import_av()
        self._like, self._partial = like, partial
        self._format = format_of_video(self.path)
        self._copies: dict[int, Any] = {}
        self._earliest: dict[int, int] = {}  # of each copied stream: the earliest next time
        self._ends: dict[int, int] = {}
        self._durations: dict[int, int] = {}

    def __enter__(self) -> VideoWriter:
        if self._format.encoder not in self._av.codecs_available:
            raise VideoError(
                f"{self.path} cannot be written: this build of FFmpeg has no encoder "
                f"{self._format.encoder}; choose another container"
            )
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._errors_in_words())
            partial = self._partial or stack.enter_context(result_file(self.path))
            # With the source's clock, every time stays exactly what it was.
            clock = {"video_track_timescale": str(self._like.time_base.denominator)}
            file = stack.enter_context(_TargetFile(partial, "w"))
            self._container = self._av.open(
                file,
                "w",
                format=self._format.container,
                container_options=clock if self._format.own_clock else {},
            )
            stack.push(self._close)
            self._stream = self._picture_stream()
            self._copy_streams()
            self._describe()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._stack.__exit__(*raised)

    def write(self, pixels: FramePixels, at: Frame) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, with the time and duration of `at`."""
        frame = self._av.VideoFrame.from_ndarray(pixels, format="rgb24")
        context = self._stream.codec_context
        frame = frame.reformat(
            format=context.pix_fmt,
            interpolation=SCALER,
            dst_colorspace=MATRICES.get(context.colorspace, 5),
            dst_color_range=context.color_range or None,
        )
        frame.pts, frame.time_base = at.pts, self._like.time_base
        self._durations[at.pts] = at.duration
        self._mux(frame)

    def copy(self, packet: Any) -> None:
        """Add a packet of another stream unchanged; it is dropped if the target has no such stream.

        Its times are kept, unless they go backwards, which containers do not allow: then it follows
            the packet before it.
        """
        stream = self._copies.get(packet.stream.index)
        if stream is None:
            return
        self._container.start_encoding()  # sets the target's unit of time
        unit = packet.time_base / stream.time_base
        pts, dts, duration = (
            None if time is None else round(time * unit)
            for time in (packet.pts, packet.dts, packet.duration)
        )
        dts = next(
            (time for time in (dts, pts, self._ends.get(stream.index)) if time is not None), 0
        )
        dts = max(dts, self._earliest.get(stream.index, dts))
        self._earliest[stream.index] = dts + (
            stream.type == "audio" and not self._format.equal_times
        )
        self._ends[stream.index] = dts + (duration or 0)
        packet.stream, packet.time_base = stream, stream.time_base
        packet.dts, packet.pts, packet.duration = (
            dts,
            max(dts, dts if pts is None else pts),
            duration,
        )
        self._container.mux(packet)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts, 0)
            self._container.mux(packet)

    def _picture_stream(self) -> Any:
        like, source = self._like, self._like.stream.codec_context
        stream = self._container.add_stream(
            self._format.encoder,
            rate=like.stream.average_rate or 25,
            options=dict(self._format.options),
        )
        context = stream.codec_context
        context.width, context.height, context.time_base = like.width, like.height, like.time_base
        odd = like.width % 2 or like.height % 2
        context.pix_fmt = self._format.odd_sizes if odd else "yuv420p"
        for tag in ("color_range", "color_primaries", "color_trc"):
            setattr(context, tag, getattr(source, tag))
        # RGB was made with the source's matrix and is converted back with it. A source in RGB has
        # no such matrix and becomes BT.709.
        context.colorspace = source.colorspace if source.colorspace != 0 else BT709
        aspect = like.stream.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = aspect if like.rotation % 180 == 0 else 1 / aspect
        stream.metadata.update(_kept_tags(like.stream.metadata))
        stream.disposition = like.stream.disposition
        return stream

    def _copy_streams(self) -> None:
        """Add a stream to the target for each of the source's that it can store."""
        for stream in self._like.container.streams:
            if stream.index == self._like.stream.index:
                continue
            if stream.type not in ("audio", "subtitle"):
                self._leave_out(stream)
                continue
            try:
                copy = self._container.add_stream_from_template(stream)
            except (ValueError, self._av.error.FFmpegError):
                self._leave_out(stream)
                continue
            copy.metadata.update(_kept_tags(stream.metadata))
            copy.disposition = stream.disposition
            self._copies[stream.index] = copy

    def _leave_out(self, stream: Any) -> None:
        """Log that the target cannot store a stream. Raises VideoError for sound."""
        codec = stream.codec_context.name if stream.codec_context else "unknown"
        if stream.type == "audio":
            raise VideoError(
                f"{self.path.suffix} cannot store the sound of {self._like.path} ({codec}); "
                "choose another container, such as .mkv"
            ) from None
        # Data streams are mostly the container's own: chapters, time codes.
        level = logging.WARNING if stream.type in ("video", "subtitle") else logging.INFO
        message = "%s: a stream of %s (%s) is not copied"
        logger.log(level, message, self.path, stream.type, codec)

    def _describe(self) -> None:
        self._container.metadata.update(_kept_tags(self._like.container.metadata))
        chapters = self._like.container.chapters()
        if chapters:
            self._container.set_chapters(chapters)

    def _close(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what the encoder still keeps, and the container's end.

        After an error, only close the file.
        """
        if kind is None:
            self._mux(None)
            self._container.close()
        else:
            with contextlib.suppress(Exception):
                self._container.close()

    @contextlib.contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except ImageError:
            raise
        except (self._av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            advice = HOPELESS.get(getattr(error, "errno", None) or 0)
            if advice:
                raise DiskError(f"{self.path} cannot be written ({reason}); {advice}") from None
            rest = "check the folder, its permissions and the free space"
            if isinstance(error, ValueError):  # FFmpeg's error for an unsuitable container
                rest = "choose another container, such as .mkv"
            raise VideoError(f"{self.path} cannot be written ({reason}); {rest}") from None


class _TargetFile(io.FileIO):
    """A file that raises its first error only, and drops everything written after that.

    FFmpeg continues to write after an error, and PyAV prints each further one. If FFmpeg opened the
    file itself, it would report no error at all, and never close the file if even the container's
    header cannot be written.
    """

    _failed = False

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        try:
            while rest and not self._failed:
                rest = rest[super().write(rest) :]  # a nearly full disk accepts a part
        except OSError:
            self._failed = True
            raise
        return len(content)


def _kept_tags(metadata: dict[str, str]) -> dict[str, str]:
    """Return the tags about the content, without those about the old file."""
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in CONTAINER_TAGS
        and not name.lower().startswith(CONTAINER_TAG_PREFIXES)
    }
