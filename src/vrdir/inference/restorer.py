"""Restorer: one image, a batch, or files, through the one door and the model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vrdir.images import encode, first_line, format_of, open_image, read_file, write_file
from vrdir.inference.files import FileJob, FileResult, Processed, process_files
from vrdir.inference.manifest import Manifest
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
            which is moved to the device and put into evaluation mode.
        device: "cpu", "cuda", "cuda:1", ...; "auto" takes a GPU where there is one.
        skip_clean: leave images that the network calls clean as they are, in less time (see `VRDIR.restore`).

    Raises:
        FileNotFoundError, ValueError: there are no such weights, they are damaged, or have no clean branch to skip by.
    """

    def __init__(self, weights: str | Path | VRDIR = "small", device: str = "auto", skip_clean: bool | float = False) -> None:
        self.device = choose_device(device)
        model = weights if isinstance(weights, VRDIR) else VRDIR.from_pretrained(weights)
        clean_threshold(skip_clean, model.config)  # now, not at the first image
        self.skip_clean = skip_clean
        self.model = placed(model, self.device).eval()

    def __call__(self, image: Any) -> Any:
        """Restore an image: path, bytes, PIL image, NumPy array or torch tensor (see `vrdir.images.open_image`).

        Returns:
            The same kind as came in; for a path, a PIL image, or a `vrdir.sixteen_bits.DeepPicture` for one of 16 bits a channel.

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
        """Restore a file into another, whose suffix decides its format. EXIF, XMP and colour profile are kept.

        Returns:
            The share of each degradation.

        Raises:
            ImageError: `source` cannot be read or `target` cannot be written; then `target` is as it was.
        """
        content, shares = self._restored(FileJob(Path(source), Path(target)))
        write_file(content, Path(target))
        return shares

    def _restored(self, job: FileJob) -> Processed:
        picture, file_format = read_file(job.source), format_of(job.target)
        restored = self.restore(picture)
        return Processed(encode(restored.image, file_format), restored.shares[0])

    def restore_files(self, jobs: Sequence[FileJob], overwrite: bool = False, manifest: Manifest | None = None) -> Iterator[FileResult]:
        """Restore one file after another, from `vrdir.inference.files.plan_files`; see `process_files` beside it."""
        return process_files(jobs, self._restored, overwrite, manifest)

    def fingerprint(self) -> str:
        """SHA-256 of configuration and weights, by which a run that is taken up again knows that it has the same ones."""
        digest = hashlib.sha256(self.model.config.model_dump_json().encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


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
