"""Decoded images in memory, shared with the processes of a loader."""

from __future__ import annotations

import logging
import mmap
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from vrdir.errors import DataError, ImageError, MissingFileError
from vrdir.images.convert import open_image
from vrdir.images.folders import images_in
from vrdir.images.headers import image_size

logger = logging.getLogger(__name__)


class ImageCache:
    """Images as 8-bit tensors, decoded at first use and kept while the budget lasts.

    Images beyond the budget are decoded each time. The memory is shared with processes that are
    forked later (the workers of a loader): an image that one process decoded is available to all.
    The position of each image is computed beforehand from the files' headers, so no lock is needed:
    two processes that decode the same image write the same bytes.

    Args:
        paths: the files.
        budget_bytes: how much to keep; memory is used when images are decoded, not before.
        device: a GPU on which all images are kept, decoded immediately, regardless of the budget;
            "cpu" for none.
        resident: whether to keep them on the GPU; None does so if they take less than a quarter of
            its free memory.

    Raises:
        ImageError: a file's header cannot be read.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        budget_bytes: int = 8 * 2**30,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
    ) -> None:
        self.paths = list(paths)
        self.positions = {path: i for i, path in enumerate(self.paths)}
        self.starts = torch.cumsum(
            torch.tensor([0, *(3 * prod(image_size(path)) for path in self.paths)]), 0
        )
        self.resident: list[Tensor | None] = []
        device, total = torch.device(device), int(self.starts[-1])
        if device.type != "cpu" and (
            resident or (resident is None and total < torch.cuda.mem_get_info(device)[0] / 4)
        ):
            with ThreadPoolExecutor() as pool:
                self.resident = [
                    image.to(device) if image is not None else None
                    for image in pool.map(decoded, self.paths)
                ]
            return
        self.pixels = _shared(min(total, budget_bytes))
        # Height, width, and 1 when the image is in memory.
        self.shapes = _shared(len(self.paths) * 3 * 8).view(torch.int64).view(-1, 3)

    def image(self, path: Path) -> Tensor:
        """Return a file's image, (3, H, W) uint8, on the cache's device.

        Raises:
            ImageError: it cannot be decoded.
            KeyError: it is not a file of the cache.
        """
        index = self.positions[path]
        if self.resident:
            kept = self.resident[index]
            return kept if kept is not None else decode(path)  # whose error gives the reason
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        height, width, there = self.shapes[index].tolist()
        if there:
            return self.pixels[start:end].view(3, height, width)
        image = decode(self.paths[index])
        if end <= len(self.pixels) and image.numel() == end - start:
            self.pixels[start:end] = image.flatten()
            self.shapes[index, :2] = torch.tensor(image.shape[1:])
            self.shapes[index, 2] = 1  # last, when the pixels are written
        return image

    @property
    def kept(self) -> int:
        """The number of images in memory."""
        return len(self.resident) or int(self.shapes[:, 2].sum())


def _shared(size: int) -> Tensor:
    """Return `size` bytes that forked processes share.

    They are not in /dev/shm, which is small in containers, and end with the last process.
    """
    return torch.frombuffer(mmap.mmap(-1, max(size, 1)), dtype=torch.uint8)[:size]


def decode(path: Path) -> Tensor:
    """Return an image, (3, H, W) uint8, RGB, upright. Raises ImageError, naming the file."""
    try:
        return (open_image(path).tensor[0] * 255).round().byte()
    except ImageError as error:
        raise ImageError(str(error) if str(path) in str(error) else f"{path}: {error}") from None


def decoded(path: Path) -> Tensor | None:
    """Return an image as `decode` does, or None if it cannot be decoded."""
    try:
        return decode(path)
    except ImageError:
        return None


def photos_in(folder: Path) -> list[Path]:
    """Return the image files below a folder, sorted, without hidden files.

    A sub-folder that cannot be listed is logged and left out.

    Raises:
        MissingFileError: there is no such folder or no image in it.
        NotPermittedError: it cannot be listed.
    """
    if not folder.is_dir():
        raise MissingFileError(f"the folder of clean photos does not exist: {folder}")

    def unreadable(error: OSError) -> None:
        if Path(error.filename) == folder:
            raise error
        logger.warning(
            "skipped: the folder %s cannot be listed (%s)", error.filename, error.strerror
        )

    return sorted(images_in(folder, unreadable))


def readable(paths: Iterable[Path]) -> list[Path]:
    """Return the files with the header of an image; the others are logged and left out.

    Raises:
        DataError: no file is left.
    """
    kept, given = [], list(paths)
    for path in given:
        try:
            image_size(path)
            kept.append(path)
        except ImageError as error:
            logger.warning("skipped: %s", error)
    if not kept:
        raise DataError(f"none of the {len(given)} photos can be read; the log names each")
    return kept
