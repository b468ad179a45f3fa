"""Restorer: one image, a batch, or files, through the one door and the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import torch

from vrdir.images import encode, first_line, format_of, open_image, read_file, write_file
from vrdir.inference.export import cached_export
from vrdir.inference.exported_model import SUFFIXES, Backend, ExportedModel
from vrdir.inference.files import FileJob, FileResult, process_files
from vrdir.model.blocks import placed
from vrdir.model.vrdir import VRDIR, clean_threshold


class Restored(NamedTuple):
    """A restored image, of the type that came in, and the share of each degradation, one dictionary per image of a batch."""

    image: Any
    shares: list[dict[str, float]]


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

    Raises:
        FileNotFoundError, ValueError: there are no such weights, they are damaged, or have no clean branch to skip by; or a
            backend is not installed, or does not run on the device.
        ArithmeticError: what was exported does not compute what the network does (see `vrdir.inference.export.export`).
    """

    def __init__(
        self,
        weights: str | Path | VRDIR = "small",
        device: str = "auto",
        skip_clean: bool | float = False,
        backend: Backend = "torch",
    ) -> None:
        if backend not in get_args(Backend):
            raise ValueError(f"backend is {' or '.join(get_args(Backend))}, not {backend!r}")
        self.model: VRDIR | ExportedModel
        if backend == "torch":
            self.device = choose_device(device)
            self.model = placed(network_of(weights), self.device).eval()
        else:
            if device not in ("auto", "cpu"):
                raise ValueError(f"backend {backend} runs on the CPU, not on {device!r}; choose device cpu, or backend torch")
            self.device = torch.device("cpu")
            self.model = ExportedModel(_exported_file(weights) or cached_export(network_of(weights), backend), backend)
        clean_threshold(skip_clean, self.model.config)  # now, not at the first image
        self.skip_clean = skip_clean

    @classmethod
    def from_onnx(cls, path: str | Path, skip_clean: bool | float = False, backend: Backend = "onnx") -> Restorer:
        """A restorer from a file that `vrdir export onnx` wrote, which needs nothing beside it; arguments as for the class."""
        return cls(Path(path), "cpu", skip_clean, backend)

    def __call__(self, image: Any) -> Any:
        """Restore an image: path, bytes, PIL image, NumPy array or torch tensor (see `vrdir.images.open_image`).

        Returns:
            The same kind as came in; for a path, a PIL image.

        Raises:
            ImageError: it is no image, is damaged, or holds values out of range.
        """
        return self.restore(image).image

    def restore(self, image: Any) -> Restored:
        """Restore and explain: the image and how much of each degradation the network sees in it."""
        opened = open_image(image)
        with torch.no_grad():  # not inference mode, whose tensors a recogniser behind could not use in training
            pixels = opened.tensor.to(self.device).contiguous(memory_format=torch.channels_last)
            result = self.model.restore(pixels, self.skip_clean)
        names = self.model.config.guidance_names
        shares = [dict(zip(names, row, strict=True)) for row in result.shares.tolist()]
        return Restored(opened.close(result.image), shares)

    def restore_file(self, source: Path | str, target: Path | str) -> dict[str, float]:
        """Restore a file into another, whose suffix decides its format. EXIF and colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        picture, target = read_file(Path(source)), Path(target)
        file_format = format_of(target)
        restored = self.restore(picture)
        write_file(encode(restored.image, file_format), target)
        return restored.shares[0]

    def restore_files(self, jobs: Iterable[FileJob], overwrite: bool = False) -> Iterator[FileResult]:
        """Restore one file after another, from `vrdir.inference.files.plan_files`; see `process_files` beside it."""
        return process_files(jobs, lambda job: self.restore_file(job.source, job.target), overwrite)


def network_of(weights: str | Path | VRDIR) -> VRDIR:
    """The network itself, or by name, folder or repository id; see `VRDIR.from_pretrained`."""
    if isinstance(weights, VRDIR):
        return weights
    if _exported_file(weights) is not None:
        raise ValueError(f"{weights} is the name of an exported network; those run with backend onnx or openvino, not torch")
    return VRDIR.from_pretrained(weights)


def _exported_file(weights: str | Path | VRDIR) -> Path | None:
    """The file, if an exported network is meant."""
    return Path(weights) if not isinstance(weights, VRDIR) and Path(weights).suffix in SUFFIXES else None


def choose_device(device: str) -> torch.device:
    """A torch device by name, "auto" for the best there is. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here ({first_line(error)}); choose cpu, cuda or auto") from None
    return chosen
