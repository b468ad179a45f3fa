"""Restorer: one image, a batch, files, videos or a camera's frames, through the one door and the model."""

from __future__ import annotations

import io
import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from vrdir.atomic import result_file
from vrdir.batch.manifest import Manifest
from vrdir.batch.memory_budget import Room
from vrdir.batch.process import process_files
from vrdir.batch.results import (
    PLAIN,
    Diagnosis,
    FileJob,
    FileResult,
    Finish,
    ImageOptions,
    Outcome,
    StreamReport,
    writing,
)
from vrdir.errors import ImageError, VideoError, first_line
from vrdir.export.export import cached_export, state_sha256
from vrdir.export.runtimes import SUFFIXES, Backend, ExportedModel
from vrdir.images.changes import beside, preview
from vrdir.images.convert import Channels, OpenImage, checked_channels, open_image
from vrdir.images.formats import open_header
from vrdir.images.memory import check_memory, opening_bytes
from vrdir.images.reading import read_file
from vrdir.images.reducing import reduced
from vrdir.images.writing import encode, format_of
from vrdir.model.blocks import placed
from vrdir.model.control import ALL, checked_control
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.loading import check_finite
from vrdir.model.vrdir import VRDIR, Restoration, check_result, clean_threshold
from vrdir.regular_files import open_regular
from vrdir.restoring.bands import CPU_PIXELS, WHOLE_PIXELS, restore_in_bands
from vrdir.restoring.borders import joined_veils, restore_inside
from vrdir.restoring.diagnosis import diagnose
from vrdir.restoring.stream import SMOOTHING, Camera, Damaged, FrameStream, is_camera
from vrdir.spelling import did_you_mean
from vrdir.video.formats import Frame, FramePixels, format_of_video, is_video
from vrdir.video.reading import VideoReader
from vrdir.video.writing import VideoWriter

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bf16"]
WIDE_ROWS = 64  # of a band, at least, with what its convolutions see around it


class Restored(NamedTuple):
    """A restored image and what was wrong with it.

    Attributes:
        image: of the type that came in.
        shares: the share of each degradation by the guidance maps, for each image of a batch.
        diagnosis: the same in physical terms, for each image of a batch.
    """

    image: Any
    shares: list[dict[str, float]]
    diagnosis: list[Diagnosis]


class Restorer:
    """Restores images of any kind. It keeps nothing about an image, so threads may share one.

    >>> restorer = vrdir.Restorer()
    >>> clear = restorer(foggy)

    Args:
        weights: the name of bundled weights ("small"), a model folder, a Hugging Face repository id; or a `VRDIR`,
            which is moved to the device and put into evaluation mode; or, for a `backend` other than "torch", a file that
            `vrdir export` wrote.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        skip_clean: leave images that the network calls clean as they are, with "torch" in less time (see `VRDIR.restore`).
        backend: what runs the network: "torch", "onnx" for ONNX Runtime, or "openvino". The latter two run on the CPU, and
            export weights first, once, into the user's cache folder.
        precision: "float32"; or "bf16", in which convolutions run in bfloat16: with "torch" alone, and faster only where the
            processor computes in it. docs/performance.md says what it changes.
        strength: 0 leaves images unchanged, 1 restores as trained; up to 2 (`vrdir.model.control`).
        only: what to remove, such as {"haze"}; None removes everything.
        borders: set borders of one colour aside, such as black bars, and put them back.
        channels: the order of the colours in arrays and tensors, both ways: "rgb"; or "bgr", as OpenCV has them. Pictures and
            files know their own.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, they are damaged, or have no clean branch to skip by; or a
            backend is not installed, or does not run on the device.
        ArithmeticError: what was exported does not compute what the network does (see `vrdir.export.export.export`).
    """

    def __init__(
        self,
        weights: str | Path | VRDIR = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        backend: Backend = "torch",
        precision: Precision = "float32",
        strength: float = 1.0,
        only: Iterable[str] | str | None = None,
        borders: bool = True,
        channels: Channels = "rgb",
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError(f"backend is {' or '.join(get_args(Backend))}, not {backend!r}")
        if precision not in get_args(Precision):
            raise ValueError(f"precision is {' or '.join(get_args(Precision))}, not {precision!r}")
        if precision != "float32" and backend != "torch":
            raise ValueError(
                f"backend {backend} computes in float32; for precision {precision} choose backend torch"
            )
        self.precision, self.channels = precision, checked_channels(channels)
        self.model: VRDIR | ExportedModel
        if backend == "torch":
            self.model = placed(network_of(weights), choose_device(device)).eval()
        else:
            if str(device) not in ("auto", "cpu"):
                raise ValueError(
                    f"backend {backend} runs on the CPU, not on {device!r}; choose device cpu, or backend torch"
                )
            self.model = ExportedModel(
                _exported_file(weights) or cached_export(network_of(weights), backend), backend
            )
        clean_threshold(skip_clean, self.model.config)  # now, not at the first image
        self.skip_clean, self.borders = skip_clean, borders
        self.control = checked_control(strength, only, self.model.config.branches)
        if self.control != ALL and backend != "torch":
            raise ValueError(f"strength and only need backend torch, not {backend}")

    @property
    def device(self) -> torch.device:
        """Where the network is, whoever has moved it."""
        return (
            next(self.model.parameters()).device
            if isinstance(self.model, VRDIR)
            else torch.device("cpu")
        )

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        skip_clean: bool | float = False,
        backend: Backend = "onnx",
        channels: Channels = "rgb",
    ) -> Restorer:
        """A restorer from a file that `vrdir export onnx` wrote, which needs nothing beside it; arguments as for the class."""
        return cls(Path(path), "cpu", skip_clean, backend, channels=channels)

    def __call__(self, image: Any) -> Any:
        """Restore an image: path, bytes, PIL image, NumPy array or torch tensor (see `vrdir.images.convert.open_image`).

        Arrays and tensors are RGB, unless the restorer was made with `channels="bgr"`.

        Returns:
            The same kind as came in; for a path, a PIL image, or a `DeepPicture` (`vrdir.images.sixteen_bits`) for 16 bits per channel.

        Raises:
            ImageError: it is no image, is damaged, or holds values out of range.
            ArithmeticError: what the network makes of it is not finite.
        """
        return self.restore(image).image

    def restore(self, image: Any) -> Restored:
        """Restore and explain: the image and how much of each degradation the network sees in it."""
        return self._restore_opened(open_image(image, self.channels))

    def _restore_opened(
        self, opened: OpenImage, statistics: GlobalStatistics | None = None
    ) -> Restored:
        # Not inference mode, whose tensors a recogniser behind could not use in training.
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with torch.no_grad(), half, _turn_on(str(self.device)):
            pixels = opened.tensor.to(self.device).contiguous(memory_format=torch.channels_last)
            if self.borders:
                result = restore_inside(pixels, lambda part: self._network(part, statistics))
            else:
                result = self._network(pixels, statistics)
            check_result(result.image, result.shares)
            found = diagnose(pixels, result)
        names = self.model.config.guidance_names
        shares = [dict(zip(names, row, strict=True)) for row in result.shares.tolist()]
        return Restored(opened.close(result.image), shares, found)

    def _network(self, pixels: Tensor, statistics: GlobalStatistics | None) -> Restoration:
        if isinstance(self.model, ExportedModel):
            return self.model.restore(pixels, self.skip_clean)
        size = self._padded(pixels.shape[-1], pixels.shape[-2])
        if size <= WHOLE_PIXELS:
            at_once = (
                max(1, CPU_PIXELS // size) if pixels.is_cpu and statistics is None else len(pixels)
            )
            if len(pixels) <= at_once:
                return self.model.restore(pixels, self.skip_clean, statistics, self.control)
            parts = [
                self.model.restore(piece, self.skip_clean, control=self.control)
                for piece in pixels.split(at_once)
            ]
        else:
            parts = [
                restore_in_bands(
                    self.model, image, self.skip_clean, statistics, control=self.control
                )
                for image in pixels.split(1)
            ]
        shares = torch.cat([part.shares for part in parts])
        veil = joined_veils([part.veil for part in parts])
        return Restoration(torch.cat([part.image for part in parts]), [], shares, veil)

    def restore_file(self, source: Path | str, target: Path | str) -> dict[str, float]:
        """Restore a file into another, whose suffix decides its format. EXIF, XMP and colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        return self._restore_into(
            FileJob(Path(source), Path(target)), lambda job: self._image(job, Room())
        ).shares

    def stream(
        self,
        frames: Iterable[Any] | Camera,
        smoothing: float = SMOOTHING,
        damaged: Damaged = "repeat",
        channels: Channels | None = None,
    ) -> FrameStream:
        """Restore frames as they come, one out for each one in, as images of the kind that came.

        >>> stream = restorer.stream(camera)
        >>> for frame in stream:
        ...     show(frame)
        >>> print(stream.report)

        Args:
            frames: images of any kind, in the order in which they were taken. They are drawn one at a time, when asked for.
                Or a camera such as `cv2.VideoCapture(0)`: it is read until it has no further frame; the caller releases it.
            smoothing: against flicker: the share of the past in how strongly the network acts on a frame as a whole (see
                `SmoothedLevels`); it starts anew where the scene changes. 0 looks at each frame alone.
            damaged: what comes in the place of a frame that is no image (None, of a wrong shape, NaN): a copy of the last good
                one ("repeat"), or what came in ("pass"). Before the first good one it is always what came in.
            channels: the order of the colours in arrays and tensors, both ways. None: as the restorer's, of a camera "bgr".

        Raises:
            ValueError: one of these is something else, or a camera that is not open.
        """
        if smoothing and isinstance(self.model, ExportedModel):
            logger.warning(
                "backend %s looks at each frame alone: smoothing over time needs backend torch",
                self.model.backend,
            )
            smoothing = 0.0
        if channels is None:
            channels = "bgr" if is_camera(frames) else self.channels
        return FrameStream(
            self._restore_opened, frames, smoothing, damaged, checked_channels(channels)
        )

    def restore_video(
        self,
        source: Path | str,
        target: Path | str,
        smoothing: float = SMOOTHING,
        on_frame: Callable[[int, int | None], None] | None = None,
    ) -> StreamReport:
        """Restore a video file into another: the frames' number and times, sound, subtitles and metadata stay.

        In the place of a damaged frame stands the nearest good one before it (at the beginning, after it).

        Args:
            source, target: video files; the target's suffix decides the container (`vrdir.video.formats.FORMATS`).
            smoothing: as for `stream`.
            on_frame: called after each frame with the number of those done, and of all, where the file says it.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        job = FileJob(Path(source), Path(target))
        report = self._restore_into(job, lambda job: self._video(job, smoothing, on_frame)).video
        assert report is not None
        return report

    def restore_files(
        self,
        jobs: Sequence[FileJob],
        overwrite: bool = False,
        manifest: Manifest | None = None,
        smoothing: float = SMOOTHING,
        on_frame: Callable[[FileJob, int, int | None], None] | None = None,
        options: ImageOptions = PLAIN,
    ) -> Generator[FileResult, None, None]:
        """Restore files, images and videos, from `vrdir.batch.plan.plan_files`; see `process_files` beside it.

        Images are restored side by side, one for each of torch's threads, which takes less time than all threads on one image after
        the other, and reads and writes meanwhile; fewer where they would need more than a quarter of the memory. A video has all to itself.
        Who closes the generator waits for the images at work; a video is left at its next frame, and no target of it appears.

        `smoothing` and `on_frame` are for videos, as for `restore_video`; `on_frame` is told the job first. `options` are for images.
        """

        room = Room()

        def process(job: FileJob) -> Finish:
            if not is_video(job.target):
                return self._image(job, room, options)

            def frame_done(number: int, expected: int | None) -> None:
                room.check()
                if on_frame is not None:
                    on_frame(job, number, expected)

            finish = self._video(job, smoothing, frame_done)

            def alone(path: Path) -> Outcome:
                with room.taken(None):
                    return finish(path)

            return alone

        return process_files(
            jobs, process, overwrite, manifest, min(len(jobs), torch.get_num_threads()), room.close
        )

    def _restore_into(self, job: FileJob, process: Callable[[FileJob], Finish]) -> Outcome:
        finish = process(job)
        with result_file(job.target) as path:
            return finish(path)

    def _image(self, job: FileJob, room: Room, options: ImageOptions = PLAIN) -> Finish:
        with room.taken(self._bytes_for(job.source)):
            opened, file_format = _opened(job.source, options.max_side), format_of(job.target)
            previews = None

            def close(after: Tensor) -> Any:
                nonlocal previews
                if options.preview_px:
                    previews = (
                        preview(opened.tensor, options.preview_px),
                        preview(after, options.preview_px),
                    )
                picture = opened.close(after)
                return (
                    beside(opened.tensor, after, picture.info) if options.side_by_side else picture
                )

            restored = self._restore_opened(opened._replace(close=close))
            content = encode(restored.image, file_format, str(job.target), options.quality)
            return writing(content, restored.shares[0], previews, restored.diagnosis[0])

    def _bytes_for(self, path: Path) -> int:
        """About what an image file needs at its peak, with weights `small`; 0 for one that cannot
        be read: `open_image` will say why.

        Raises ImageError for one that needs more memory than there is.
        """
        try:
            with open_regular(path) as file, open_header(file, str(path)) as picture:
                size, opening = (
                    picture.size,
                    opening_bytes(picture, os.fstat(file.fileno()).st_size),
                )
        except Exception:
            return 0
        needed = opening + self._network_bytes(*size)
        check_memory(needed, picture, str(path))
        return needed

    def bytes_needed(self, content: bytes, name: str) -> int:
        """Return about how many bytes of memory an encoded image needs at its peak, itself included.

        Returns 0 for one that cannot be read.

        Raises:
            ImageError: it needs more memory than there is; the message names it `name`.
        """
        try:
            with open_header(io.BytesIO(content), name) as picture:
                size, opening = picture.size, opening_bytes(picture, len(content))
        except Exception:
            return 0
        needed = opening + self._network_bytes(*size)
        check_memory(needed, picture, name)
        return needed

    def _network_bytes(self, width: int, height: int) -> int:
        """About what the network takes beside the image that is given to it."""
        padded = self._padded(width, height)
        if (
            self.device.type != "cpu"
        ):  # whose memory is another: here are only the image and its result
            return 24 * padded
        if padded <= WHOLE_PIXELS or isinstance(self.model, ExportedModel):
            return 700 * padded
        # A very wide image has bands of the fewest rows that can be, and still many pixels.
        return (
            700 * max(WHOLE_PIXELS // 2, min(padded, self._padded(width, WIDE_ROWS))) + 60 * padded
        )

    def _padded(self, width: int, height: int) -> int:
        """The pixels of an image as the network sees it: one of 1 x 1000 is sixteen times as large
        to it."""
        multiple = self.model.config.multiple
        return (width + -width % multiple) * (height + -height % multiple)

    def _video(
        self, job: FileJob, smoothing: float, on_frame: Callable[[int, int | None], None] | None
    ) -> Finish:
        format_of_video(job.target)
        reader = VideoReader(job.source)

        def finish(path: Path) -> Outcome:
            times: deque[Frame] = deque()
            waiting: list[Frame] = []  # damaged frames at the beginning
            written = False
            with reader, VideoWriter(job.target, reader, path) as writer:

                def pixels() -> Iterator[FramePixels | None]:
                    for frame in reader.frames(writer.copy):
                        times.append(frame)
                        yield frame.pixels

                stream = self.stream(pixels(), smoothing)
                for number, restored in enumerate(stream, 1):
                    waiting.append(times.popleft())
                    if restored is not None:
                        for frame in waiting:
                            writer.write(restored, frame)
                        waiting.clear()
                        written = True
                    if on_frame is not None:
                        on_frame(number, reader.frames_expected)
                if not written:  # here, so that no target without a picture is left
                    if waiting:
                        raise VideoError(
                            f"none of the frames of {job.source} can be decoded undamaged; get it again"
                        )
                    raise VideoError(
                        f"the frames of {job.source} have no times; put it into a container first, such as .mkv"
                    )
            return Outcome(stream.report.shares, stream.report)

        return finish

    def fingerprint(self) -> str:
        """By which a run that is taken up again knows that it has the same network: its values' SHA-256, config and precision."""
        weights = (
            state_sha256(self.model)
            if isinstance(self.model, VRDIR)
            else self.model.facts.weights_sha256
        )
        return f"{weights} {self.model.config.model_dump_json()} {self.precision} {self.control}"


def _opened(path: Path, max_side: int | None) -> OpenImage:
    """A file, reduced if it is larger than `max_side`. Raises ImageError."""
    if max_side is None:
        return open_image(path)
    try:
        return open_image(reduced(read_file(path), max_side))
    except ImageError as error:
        raise ImageError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


@cache
def _turn_on(device: str) -> AbstractContextManager[Any]:
    """On a GPU one image after the other, whatever threads they come from: its memory is not the machine's, and it has one queue anyway."""
    return nullcontext() if device == "cpu" else Lock()


def network_of(weights: str | Path | VRDIR) -> VRDIR:
    """The network itself, or by name, folder or repository id; see `VRDIR.from_pretrained`.

    Raises ValueError for one that is not float32 or not finite.
    """
    if isinstance(weights, VRDIR):
        others = {
            str(parameter.dtype).removeprefix("torch.") for parameter in weights.parameters()
        } - {"float32"}
        if others:
            raise ValueError(
                f"the network holds {' and '.join(sorted(others))}; give it in float32: network.float()"
            )
        check_finite(weights.state_dict(), "the network")
        return weights
    if _exported_file(weights) is not None:
        raise ValueError(
            f"{weights} is the name of an exported network; those run with backend onnx or openvino, not torch"
        )
    return VRDIR.from_pretrained(weights)


def _exported_file(weights: str | Path | VRDIR) -> Path | None:
    """The file, if an exported network is meant."""
    return (
        Path(weights)
        if not isinstance(weights, VRDIR) and Path(weights).suffix in SUFFIXES
        else None
    )


def choose_device(device: str) -> torch.device:
    """A torch device by name, "auto" for the best there is. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        hint = did_you_mean(
            str(device),
            ("cpu", "cuda", "auto", "mps"),
            {"gpu": "cuda", "nvidia": "cuda", "metal": "mps"},
        )
        raise ValueError(
            f"no device {device!r} here ({first_line(error)}); choose cpu, cuda or auto{hint}"
        ) from None
    return chosen
