"""Run the network on a batch: whole images, groups of small ones, or large ones in strips."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from vrdir.export.exported_model import ExportedModel
from vrdir.images.formats import open_header
from vrdir.images.memory import check_memory, opening_bytes
from vrdir.model.control import ALL, Control
from vrdir.model.global_statistics import GlobalStatistics
from vrdir.model.vrdir import VRDIR, Restoration
from vrdir.regular_files import open_regular
from vrdir.restoring.borders import joined, restore_inside
from vrdir.restoring.large_images import follow_copy
from vrdir.restoring.strips import CPU_PIXELS, WHOLE_PIXELS, no_check, restore_in_strips

Precision = Literal["float32", "bf16"]

WIDE_ROWS = 64  # of a strip at least, with the rows that its convolutions see around it
# Bytes a pixel, as measured with weights `small`: for an image that is processed as a whole; beside
# the strips of a larger one; and in this machine's memory, when the network is on a GPU.
WHOLE_BYTES, STRIP_BYTES, GPU_BYTES = 700, 60, 24


class Network(NamedTuple):
    """A network with the settings of a `Restorer`. It keeps nothing about an image.

    Attributes:
        model: in PyTorch, or exported.
        skip_clean: see `VRDIR.restore`.
        control: how strongly it restores, and which degradations it removes.
        borders: remove borders of one colour, and put them back.
        precision: "float32", or "bf16" for convolutions in bfloat16.
    """

    model: VRDIR | ExportedModel
    skip_clean: bool | float = False
    control: Control = ALL
    borders: bool = True
    precision: Precision = "float32"

    @property
    def device(self) -> torch.device:
        """Return the device that the network is on."""
        if isinstance(self.model, ExportedModel):
            return torch.device("cpu")
        return next(self.model.parameters()).device

    def restore(
        self,
        pixels: Tensor,
        statistics: GlobalStatistics | None = None,
        check: Callable[[], None] = no_check,
    ) -> Restoration:
        """Restore a batch.

        Args:
            pixels: (B, 3, H, W) in [0, 1], on the network's device.
            statistics: as for `VRDIR.restore`.
            check: called between steps of the work; it may raise an error to stop it.
        """

        def restore(part: Tensor) -> Restoration:
            return self._follow_copy(
                part, self._restore_pieces(part, statistics, check), statistics
            )

        if not self.borders:
            return restore(pixels)
        return restore_inside(pixels, restore, self.model.config.multiple)

    def _follow_copy(
        self, pixels: Tensor, restoration: Restoration, statistics: GlobalStatistics | None
    ) -> Restoration:
        """Return a restoration of large images that changes them as a reduced copy is changed."""
        model = self.model
        if not isinstance(model, ExportedModel):
            of_copy = statistics.of_copy() if statistics is not None else None
            restore = partial(model.restore, statistics=of_copy, control=self.control)
            return follow_copy(pixels, restoration, restore)
        if model.facts.size is not None:  # it takes no copies
            return restoration
        return follow_copy(pixels, restoration, model.restore)

    def _restore_pieces(
        self, pixels: Tensor, statistics: GlobalStatistics | None, check: Callable[[], None]
    ) -> Restoration:
        """Restore a batch without borders, in pieces that fit into caches and memory."""
        model, skip_clean, control = self.model, self.skip_clean, self.control
        check()
        if isinstance(model, ExportedModel):
            return model.restore(pixels, skip_clean)
        size = self.padded_pixels(pixels.shape[-1], pixels.shape[-2])
        if size > WHOLE_PIXELS:
            return joined(
                [
                    restore_in_strips(
                        model, image, skip_clean, statistics, control=control, check=check
                    )
                    for image in pixels.split(1)
                ]
            )
        grouped = pixels.is_cpu and statistics is None
        at_once = max(1, CPU_PIXELS // size) if grouped else len(pixels)
        parts = []
        for piece in pixels.split(at_once):
            check()
            parts.append(model.restore(piece, skip_clean, statistics, control))
        return parts[0] if len(parts) == 1 else joined(parts)

    def padded_pixels(self, width: int, height: int) -> int:
        """Return the pixels of an image after padding: 1 x 1000 become 16 times as many."""
        multiple = self.model.config.multiple
        return (width + -width % multiple) * (height + -height % multiple)

    def memory_bytes(self, width: int, height: int) -> int:
        """Return roughly the memory that the network needs for an image, in bytes."""
        padded = self.padded_pixels(width, height)
        if self.device.type != "cpu":
            return GPU_BYTES * padded
        if padded <= WHOLE_PIXELS or isinstance(self.model, ExportedModel):
            return WHOLE_BYTES * padded
        # A very wide image has strips of the least number of rows, and still many pixels in each.
        strip = max(WHOLE_PIXELS // 2, min(padded, self.padded_pixels(width, WIDE_ROWS)))
        return WHOLE_BYTES * strip + STRIP_BYTES * padded

    def file_bytes(self, path: Path) -> int:
        """Return roughly the memory that restoring an image file needs at its peak, in bytes.

        Returns 0 for a file that cannot be read: opening it gives the reason.

        Raises:
            ImageError: it needs more memory than this machine has.
        """
        try:
            with open_regular(path) as file:
                header, opening = _header(file, os.fstat(file.fileno()).st_size, str(path))
        except Exception:
            return 0
        return self._checked_bytes(header, opening, str(path))

    def content_bytes(self, content: bytes, name: str) -> int:
        """Return roughly the memory that restoring an encoded image needs at its peak, in bytes.

        Returns 0 for content that cannot be read: opening it gives the reason.

        Args:
            content: an encoded image, whose own memory counts, too.
            name: for the error message.

        Raises:
            ImageError: it needs more memory than this machine has.
        """
        try:
            header, opening = _header(io.BytesIO(content), len(content), name)
        except Exception:
            return 0
        return self._checked_bytes(header, opening, name)

    def _checked_bytes(self, header: Image.Image, opening: int, name: str) -> int:
        needed = opening + self.memory_bytes(*header.size)
        check_memory(needed, header.size, name)
        return needed


def _header(file: BinaryIO, size: int, name: str) -> tuple[Image.Image, int]:
    """Return a picture whose header alone is read, and the bytes that opening it needs."""
    with open_header(file, name) as picture:
        return picture, opening_bytes(picture, size)
