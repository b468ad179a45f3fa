"""Restorer: one image, a batch, or files, through the one door and the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from vrdir.images import ImageError, encode, open_image, read_file, write_file
from vrdir.inference.files import FileJob
from vrdir.model.blocks import placed
from vrdir.model.vrdir import VRDIR


class Restored(NamedTuple):
    """A restored image, of the type that came in, and the share of each degradation, one dictionary per image of a batch."""

    image: Any
    shares: list[dict[str, float]]


class FileResult(NamedTuple):
    """What became of a file: its shares, or the error that stopped it."""

    job: FileJob
    shares: dict[str, float]
    error: str | None


class Restorer:
    """Restores images of any kind. It keeps nothing about an image, so threads may share one.

    >>> restorer = vrdir.Restorer()
    >>> clear = restorer(foggy)

    Args:
        weights: the name of bundled weights ("small"), a model folder, a Hugging Face repository id, or a `VRDIR`.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.

    Raises:
        FileNotFoundError, ValueError: there are no such weights, or they are damaged.
    """

    def __init__(self, weights: str | Path | VRDIR = "small", device: str = "auto") -> None:
        self.device = choose_device(device)
        model = weights if isinstance(weights, VRDIR) else VRDIR.from_pretrained(weights)
        self.model = placed(model, self.device).eval()

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
        with torch.inference_mode():
            pixels = opened.tensor.to(self.device).contiguous(memory_format=torch.channels_last)
            result = self.model.restore(pixels)
        names = self.model.config.guidance_names
        shares = [dict(zip(names, row, strict=True)) for row in result.shares.tolist()]
        return Restored(opened.close(result.image.cpu()), shares)

    def restore_file(self, source: Path | str, target: Path | str) -> dict[str, float]:
        """Restore a file into another, whose suffix decides its format. EXIF and colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        target = Path(target)
        file_format = format_of(target)
        picture = read_file(Path(source))
        restored = self.restore(picture)
        content = encode(restored.image, file_format)
        write_file(content, target)
        return restored.shares[0]

    def restore_files(self, jobs: Iterable[FileJob], overwrite: bool = False) -> Iterator[FileResult]:
        """Restore one file after another; a file that fails is reported and the others still get done.

        Args:
            jobs: from `vrdir.inference.files.plan_files`.
            overwrite: replace targets that exist; without it they are reported as errors.

        Yields:
            A result per job, in order.
        """
        for job in jobs:
            try:
                if job.target.exists() and not overwrite:
                    raise ImageError(f"{job.target} exists; replace it by --overwrite, or choose another output")
                yield FileResult(job, self.restore_file(job.source, job.target), None)
            except ImageError as error:
                yield FileResult(job, {}, str(error))
            except (RuntimeError, MemoryError) as error:  # too large for the memory, above all
                yield FileResult(job, {}, f"{job.source} could not be restored: {str(error).splitlines()[0]}")


def choose_device(device: str) -> torch.device:
    """A torch device by name, "auto" for the best there is. Raises ValueError for one that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {device!r} here ({str(error).splitlines()[0]}); choose cpu, cuda or auto") from None
    return chosen


def format_of(path: Path) -> str:
    """Pillow's name for the file format that a suffix stands for. Raises ImageError if it cannot be written."""
    file_format = Image.registered_extensions().get(path.suffix.lower())
    if file_format is None or file_format not in Image.SAVE:
        raise ImageError(f"cannot write {path}: no image format for the suffix {path.suffix or '(none)'!r}; use .png, .jpg, .webp or .tiff")
    return file_format
