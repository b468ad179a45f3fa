"""Restorer: restores one image, a batch, files, videos or the frames of a camera."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from vrdir.atomic import result_file
from vrdir.batch.manifest import Manifest
from vrdir.batch.memory_budget import MemoryBudget
from vrdir.batch.process import process_files
from vrdir.batch.results import (
    PLAIN,
    FileJob,
    FileResult,
    ImageOptions,
    Outcome,
    ResultWriter,
    StreamReport,
)
from vrdir.errors import InputError
from vrdir.export.backends import BACKEND_NAMES, TORCH
from vrdir.export.exported_model import ExportedModel
from vrdir.export.exporting import state_sha256
from vrdir.images.convert import Channels, checked_channels, open_image
from vrdir.model.clean_images import clean_threshold
from vrdir.model.control import ALL, Control, checked_control
from vrdir.model.vrdir import VRDIR
from vrdir.restoring.files import restore_image, restore_video
from vrdir.restoring.loading import load_model
from vrdir.restoring.network import Network, Precision
from vrdir.restoring.restored import Restored, restore_opened
from vrdir.restoring.stream import SMOOTHING, Camera, Damaged, FrameStream, open_stream
from vrdir.video.formats import FramePixels, is_video


class Restorer:
    """Restores images of any kind. It keeps nothing about an image, so several threads may use it.

    >>> restorer = vrdir.Restorer()
    >>> clear = restorer(foggy)

    Args:
        weights: the name of bundled weights ("small"), a model folder, or a Hugging Face repository
            id. Or a `VRDIR`, which is moved to the device and put into evaluation mode. Or, for a
            `backend` other than "torch", a file that `vrdir export` wrote.
        device: "cpu", "cuda", "cuda:1", ...; "auto" is a GPU if there is one, else the CPU.
        skip_clean: leave images unchanged that the network considers clean; with "torch" this saves
            time (see `VRDIR.restore`).
        backend: the runtime of the network: "torch", "onnx" for ONNX Runtime, or "openvino". All
            but "torch" run on the CPU, and export weights once, into the user's cache folder.
        precision: "float32"; or "bf16" for convolutions in bfloat16, only with "torch". It is
            faster only on processors with bfloat16; docs/performance.md has the differences.
        strength: 0 leaves images unchanged, 1 restores as trained, 2 is the most.
        only: the degradations to remove, such as {"haze"}; None removes all.
        borders: remove borders of one colour, such as black bars, and put them back.
        channels: the order of the colours in arrays and tensors, of inputs and results: "rgb", or
            "bgr" as in OpenCV. Pictures and files name their own order.

    Attributes:
        network: the network with its settings.
        channels: as given.

    Raises:
        MissingFileError: there are no such weights.
        InputError: an argument is not valid; the weights are damaged or have no clean branch to
            skip by; a backend is not installed, or does not run on the device.
        ResultError: the exported network does not give the results of PyTorch (see
            `vrdir.export.exporting.export`).
    """

    def __init__(
        self,
        weights: str | Path | VRDIR = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        backend: str = TORCH,
        precision: Precision = "float32",
        strength: float = 1.0,
        only: Iterable[str] | str | None = None,
        borders: bool = True,
        channels: Channels = "rgb",
    ) -> None:
        _check_precision(backend, precision)
        self.channels: Channels = checked_channels(channels)
        model = load_model(weights, device, backend)
        clean_threshold(skip_clean, model.config)  # fails now, not at the first image
        control = checked_control(strength, only, model.config.branches)
        if control != ALL and backend != TORCH:
            raise InputError(f"strength and only need backend torch, not {backend}")
        self.network = Network(model, skip_clean, control, borders, precision)

    @property
    def model(self) -> VRDIR | ExportedModel:
        """Return the network itself."""
        return self.network.model

    @property
    def device(self) -> torch.device:
        """Return the device that the network is on now."""
        return self.network.device

    @property
    def skip_clean(self) -> bool | float:
        """Return whether clean images are left unchanged, or the share from which on they are."""
        return self.network.skip_clean

    @property
    def control(self) -> Control:
        """Return how strongly it restores, and which degradations it removes."""
        return self.network.control

    @property
    def borders(self) -> bool:
        """Return whether borders are removed and put back."""
        return self.network.borders

    @property
    def precision(self) -> Precision:
        """Return the type that convolutions compute in."""
        return self.network.precision

    @classmethod
    def from_onnx(
        cls,
        path: str | Path,
        skip_clean: bool | float = False,
        backend: str = "onnx",
        channels: Channels = "rgb",
    ) -> Restorer:
        """Return a restorer from a file that `vrdir export onnx` wrote; it needs no other file.

        The arguments and errors are those of the class.
        """
        return cls(Path(path), "cpu", skip_clean, backend, channels=channels)

    def __call__(self, image: Any) -> Any:
        """Restore an image: path, bytes, PIL image, NumPy array or torch tensor.

        `vrdir.images.convert.open_image` lists the types. Arrays and tensors are RGB, unless the
        restorer was made with `channels="bgr"`.

        Returns:
            An image of the type of the input. For a path it is a PIL image, or a `DeepPicture`
            (`vrdir.images.sixteen_bits`) if the file has 16 bits per channel.

        Raises:
            ImageError: it is not an image, is damaged, or has values out of range.
            ResultError: the result is not finite.
        """
        return self.restore(image).image

    def restore(self, image: Any) -> Restored:
        """Restore an image, and measure how much of each degradation was in it.

        Raises:
            ImageError: it is not an image, is damaged, or has values out of range.
            ResultError: the result is not finite.
        """
        return restore_opened(self.network, open_image(image, self.channels))

    def restore_file(self, source: Path | str, target: Path | str) -> dict[str, float]:
        """Restore an image file into another. The target's suffix decides its format.

        EXIF, XMP and the colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read, or `target` cannot be written; then an existing
                target is unchanged.
            ResultError: the result is not finite.
        """
        job = FileJob(Path(source), Path(target))
        return _write(job, restore_image(self.network, job, MemoryBudget())).shares

    def stream(
        self,
        frames: Iterable[Any] | Camera,
        smoothing: float = SMOOTHING,
        damaged: Damaged = "repeat",
        channels: Channels | None = None,
    ) -> FrameStream:
        """Restore frames as they arrive: one result for each frame, of the type of the frame.

        >>> stream = restorer.stream(camera)
        >>> for frame in stream:
        ...     show(frame)
        >>> print(stream.report)

        Args:
            frames: images of any type, in the order in which they were taken, read one at a time.
                Or a camera such as `cv2.VideoCapture(0)`, which is read until it has no further
                frame; the caller releases it.
            smoothing: temporal smoothing against flicker, from 0 (off) to below 1: the share of
                the past in how strongly the network acts on a frame as a whole (see
                `SmoothedLevels`). It starts again where the scene changes.
            damaged: the result for a frame that is not an image (None, a wrong shape, NaN): a copy
                of the last good result ("repeat"), or the frame itself ("pass"). Before the first
                good frame it is always the frame itself.
            channels: the order of the colours in arrays and tensors, of frames and results. None:
                the restorer's, but "bgr" for a camera.

        Raises:
            InputError: an argument is not valid, or the camera is not open.
        """
        return open_stream(self.network, frames, smoothing, damaged, channels, self.channels)

    def restore_video(
        self,
        source: Path | str,
        target: Path | str,
        smoothing: float = SMOOTHING,
        on_frame: Callable[[int, int | None], None] | None = None,
    ) -> StreamReport:
        """Restore a video file into another.

        The number and times of the frames, sound, subtitles and metadata stay. A damaged frame is
        replaced by the last good frame before it, or at the beginning by the first one after it.

        Args:
            source: a video file.
            target: a video file; its suffix decides the container (`vrdir.video.formats.FORMATS`).
            smoothing: as for `stream`.
            on_frame: called after each frame with the number of finished frames, and of all frames
                if the file names it.

        Raises:
            VideoError: `source` cannot be read, or `target` cannot be written; then an existing
                target is unchanged.
        """
        job = FileJob(Path(source), Path(target))
        report = _write(job, self._restore_video(job, smoothing, on_frame)).video
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
        """Restore files, images and videos; see `vrdir.batch.process.process_files`.

        Several images are restored at the same time, one for each of torch's threads. This takes
        less time than all threads for one image after the other. There are fewer at the same time
        if they would need more than a quarter of the memory. A video is restored alone.

        Closing the generator waits for running images, which stop at their next strip; a video
        stops at its next frame, and no target of it is left.

        Args:
            jobs: from `vrdir.batch.plan.plan_files`.
            overwrite: as for `process_files`.
            manifest: as for `process_files`.
            smoothing: of videos, as for `restore_video`.
            on_frame: of videos, as for `restore_video`; called with the job as well.
            options: of images.

        Yields:
            A result per job, in order.
        """
        budget = MemoryBudget()

        def process(job: FileJob) -> ResultWriter:
            if not is_video(job.target):
                return restore_image(self.network, job, budget, options)

            def frame_done(number: int, expected: int | None) -> None:
                budget.check()
                if on_frame is not None:
                    on_frame(job, number, expected)

            write = self._restore_video(job, smoothing, frame_done)

            def write_alone(path: Path) -> Outcome:
                with budget.reserve(None):
                    return write(path)

            return write_alone

        workers = min(len(jobs), torch.get_num_threads())
        return process_files(jobs, process, overwrite, manifest, workers, budget.close)

    def _restore_video(
        self, job: FileJob, smoothing: float, on_frame: Callable[[int, int | None], None] | None
    ) -> ResultWriter:
        start: Callable[[Iterator[FramePixels | None]], FrameStream] = partial(
            self.stream, smoothing=smoothing
        )
        return restore_video(job, start, on_frame)

    def fingerprint(self) -> str:
        """Return what identifies the network, so that a run can be resumed with the same.

        These are the SHA-256 of its values, its config, the precision and the control.
        """
        facts = f"{self.model.config.model_dump_json()} {self.precision} {self.control}"
        if isinstance(self.model, ExportedModel):
            return f"{self.model.facts.weights_sha256} {facts}"
        return f"{state_sha256(self.model)} {facts}"


def _check_precision(backend: str, precision: str) -> None:
    if backend not in BACKEND_NAMES:
        raise InputError(f"backend must be {' or '.join(BACKEND_NAMES)}, not {backend!r}")
    if precision not in get_args(Precision):
        raise InputError(f"precision must be {' or '.join(get_args(Precision))}, not {precision!r}")
    if precision != "float32" and backend != TORCH:
        raise InputError(
            f"backend {backend} computes in float32; for precision {precision} choose backend torch"
        )


def _write(job: FileJob, write: ResultWriter) -> Outcome:
    with result_file(job.target) as path:
        return write(path)
