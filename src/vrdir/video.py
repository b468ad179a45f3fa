"""Video files: frames in and out one at a time, and everything else in the file carried over.

    with VideoReader(source) as reader, VideoWriter(target, reader) as writer:
        for frame in reader.frames(writer.copy):
            writer.write(frame.pixels, frame)

Only one frame at a time is held here; decoder and encoder hold a few dozen, whatever the length of the clip.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import logging
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vrdir.image_files.whole_files import HOPELESS, DiskError, ImageError, first_line, result_file

if TYPE_CHECKING:
    import av

logger = logging.getLogger(__name__)

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

H264 = {"crf": "16", "preset": "medium"}  # visually lossless: what was restored is not to be lost again
VP9 = {"crf": "20", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"}
FORMATS = {  # by suffix: FFmpeg's name of the container, the encoder, its options
    ".mp4": ("mp4", "libx264", H264),
    ".m4v": ("mp4", "libx264", H264),
    ".mov": ("mov", "libx264", H264),
    ".mkv": ("matroska", "libx264", H264),
    ".webm": ("webm", "libvpx-vp9", VP9),
}
VIDEO_SUFFIXES = set(FORMATS)

# What the old file said about itself, not about what it shows.
CONTAINER_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration", "handler_name", "vendor_id", "alpha_mode"}
CONTAINER_TAG_PREFIXES = ("bps", "number_of_bytes", "number_of_frames", "_statistics")

BT709, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 1, 5, 6, 7, 9  # FFmpeg's AVColorSpace
MATRICES = {BT709: 1, BT470BG: 5, SMPTE170M: 5, SMPTE240M: 7, BT2020: 9}  # and what its scaler calls them
SCALER = 4 | 0x2000 | 0x40000  # bicubic, full chroma for RGB, accurate rounding: there and back moves no level


class VideoError(ImageError):
    """A video that cannot be read or written. The message names it and says what to do."""


class Frame(NamedTuple):
    """A frame of a video file.

    Attributes:
        pixels: (H, W, 3) uint8, RGB, upright; None where the file is damaged.
        pts: when it is shown, in units of the reader's `time_base`.
        duration: for how long, in the same units, as the file has it; 0 where it does not say.
    """

    pixels: Pixels | None
    pts: int
    duration: int


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
            if packet.size and packet.pts is not None and not packet.is_discard:
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
            return self._av.open(str(self.path))
        except self._av.error.FFmpegError as error:
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


class VideoWriter:
    """A video file with new pixels in an old one's place: the same size, times, tags, sound, subtitles and chapters.

    Written under a temporary name; the target appears when the `with` block ends without an error, whole or not at all. Odd sizes
    are written in H.264 as 4:4:4, since 4:2:0 has none; everything else as 4:2:0.

    Args:
        path: the target, whose suffix decides container and codec (see `FORMATS`).
        like: where the frames come from.
        partial: the temporary name, if whoever asks gives the target its name.

    Raises:
        VideoError: the container cannot hold the sound.
        DiskError: the disk is full or can only be read.
        ImageError: it cannot be written.
    """

    def __init__(self, path: Path | str, like: VideoReader, partial: Path | None = None) -> None:
        self.path = Path(path)
        self._av = import_av()
        self._like, self._partial = like, partial
        self._copies: dict[int, Any] = {}

    def __enter__(self) -> VideoWriter:
        container_format, codec, options = format_of_video(self.path)
        if codec not in self._av.codecs_available:
            raise VideoError(f"{self.path} cannot be written: this build of FFmpeg has no encoder {codec}; choose another container")
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._errors_in_words())
            partial = self._partial or stack.enter_context(result_file(self.path))
            # A track of MP4 counts in whole fractions of a second: the source's, so that every time stays what it was.
            timescale = {"video_track_timescale": str(self._like.time_base.denominator)} if container_format in ("mp4", "mov") else {}
            file = stack.enter_context(_TargetFile(partial, "w"))
            self._container = self._av.open(file, "w", format=container_format, container_options=timescale)
            stack.push(self._closed)
            self._stream = self._picture_stream(codec, options)
            self._copy_streams()
            self._describe()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, pixels: Pixels, at: Frame) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, at the time and for the duration of `at`."""
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
        """Add a packet of another stream as it is; one that the target has no place for is left out."""
        stream = self._copies.get(packet.stream.index)
        if stream is not None:
            packet.stream = stream
            self._container.mux(packet)

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            packet.duration = self._durations.pop(packet.pts, 0)
            self._container.mux(packet)

    def _picture_stream(self, codec: str, options: dict[str, str]) -> Any:
        like, source = self._like, self._like.stream.codec_context
        stream = self._container.add_stream(codec, rate=like.stream.average_rate or 25, options=options)
        context = stream.codec_context
        context.width, context.height, context.time_base = like.width, like.height, like.time_base
        odd = like.width % 2 or like.height % 2
        context.pix_fmt = "yuv444p" if odd and codec == "libx264" else "yuv420p"
        for tag in ("color_range", "color_primaries", "color_trc"):
            setattr(context, tag, getattr(source, tag))
        # RGB was made with the source's matrix and goes back by it. What is no YUV matrix (a source in RGB) becomes BT.709.
        context.colorspace = source.colorspace if source.colorspace != 0 else BT709
        aspect = like.stream.sample_aspect_ratio
        if aspect:
            context.sample_aspect_ratio = aspect if like.rotation % 180 == 0 else 1 / aspect
        stream.metadata.update(_kept_tags(like.stream.metadata))
        stream.disposition = like.stream.disposition
        self._durations: dict[int, int] = {}
        return stream

    def _copy_streams(self) -> None:
        for stream in self._like.container.streams:
            if stream.index == self._like.stream.index:
                continue
            try:
                if stream.type not in ("audio", "subtitle"):
                    raise ValueError
                copy = self._container.add_stream_from_template(stream)
            except (ValueError, self._av.error.FFmpegError):
                codec = stream.codec_context.name if stream.codec_context else "unknown"
                if stream.type == "audio":
                    raise VideoError(
                        f"{self.path.suffix} cannot hold the sound of {self._like.path} ({codec}); choose another container, such as .mkv"
                    ) from None
                missed = stream.type in ("video", "subtitle")  # data are mostly the container's own: chapters, time codes
                logger.log(
                    logging.WARNING if missed else logging.INFO, "%s: a stream of %s (%s) is left out", self.path, stream.type, codec
                )
                continue
            copy.metadata.update(_kept_tags(stream.metadata))
            copy.disposition = stream.disposition
            self._copies[stream.index] = copy

    def _describe(self) -> None:
        self._container.metadata.update(_kept_tags(self._like.container.metadata))
        chapters = self._like.container.chapters()
        if chapters:
            self._container.set_chapters(chapters)

    def _closed(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """What the encoder still holds, and the container's end; after an error only that nothing stays open."""
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
            raise VideoError(f"{self.path} cannot be written ({reason}); check the folder, its permissions and the free space") from None


class _TargetFile(io.FileIO):
    """A file that says once that it cannot be written, and takes and drops what comes after that.

    FFmpeg goes on writing after an error, and PyAV prints each further one. Of a file that FFmpeg opens itself, it would say
    nothing, but leave it open for good when not even the container's header can be written.
    """

    _failed = False

    def write(self, content: Any) -> int:
        rest = memoryview(content)
        try:
            while rest and not self._failed:
                rest = rest[super().write(rest) :]  # a disk that is nearly full takes a part
        except OSError:
            self._failed = True
            raise
        return len(content)


def import_av() -> ModuleType:
    """PyAV. Raises VideoError if it is not installed."""
    try:
        import av
        import av.error
        import av.stream
    except ImportError:
        raise VideoError("videos need PyAV: pip install 'vrdir[video]'") from None
    return av


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def format_of_video(path: Path) -> tuple[str, str, dict[str, str]]:
    """FFmpeg's name of the container, the encoder and its options, by suffix. Raises VideoError if it cannot be written."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        known = ", ".join(sorted(VIDEO_SUFFIXES))
        raise VideoError(f"cannot write {path}: no video format for the suffix {path.suffix or '(none)'!r}; use {known}") from None


def _kept_tags(metadata: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in metadata.items()
        if name.lower() not in CONTAINER_TAGS and not name.lower().startswith(CONTAINER_TAG_PREFIXES)
    }
