"""Clean photos in memory, and random or fixed crops of them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Generator, Tensor

from vrdir.images import IMAGE_SUFFIXES, ImageError, open_image

logger = logging.getLogger(__name__)


class CleanPhotos:
    """A folder of clean photos, decoded once and kept in memory as 8 bit.

    Args:
        paths: the files. One that cannot be read is logged and left out.

    Raises:
        ValueError: none of them can be read.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths: list[Path] = []
        self.images: list[Tensor] = []  # uint8 (3, H, W)
        for path in paths:
            try:
                photo = open_image(path).tensor[0]
            except ImageError as error:
                logger.warning("left out: %s", error)
                continue
            self.paths.append(path)
            self.images.append((photo * 255).round().byte())
        if not self.images:
            raise ValueError(f"none of the {len(paths)} photos can be read; the log names each")

    def __len__(self) -> int:
        return len(self.images)

    def random_crops(self, count: int, size_px: int, generator: Generator) -> Tensor:
        """`count` crops (count, 3, size_px, size_px) in [0, 1], flipped and turned at random, of photos drawn at random.

        A third of them are taken at twice the size and averaged down, where the photo is large enough: sharper texture,
        free of the JPEG blocks of the original, and objects at another scale.
        """
        crops = []
        for _ in range(count):
            index, shrink, turns, flip = (int(torch.randint(n, (), generator=generator)) for n in (len(self), 3, 4, 2))
            image = self.images[index]
            side = 2 * size_px if shrink == 0 and min(image.shape[1:]) >= 2 * size_px else size_px
            image = extend(image, side)
            top, left = (int(torch.randint(extent - side + 1, (), generator=generator)) for extent in image.shape[1:])
            crop = image[:, top : top + side, left : left + side].float() / 255
            if side != size_px:
                crop = torch.nn.functional.avg_pool2d(crop, 2)
            crop = torch.rot90(crop, turns if turns % 2 == 0 or flip else 0, (1, 2))
            crops.append(crop.flip(2) if flip else crop)
        return torch.stack(crops)

    def centre_crops(self, size_px: int) -> Tensor:
        """The centre of every photo, (N, 3, size_px, size_px) in [0, 1]: the same at every validation."""
        crops = []
        for image in self.images:
            image = extend(image, size_px)
            top, left = ((extent - size_px) // 2 for extent in image.shape[1:])
            crops.append(image[:, top : top + size_px, left : left + size_px].float() / 255)
        return torch.stack(crops)


def extend(image: Tensor, size_px: int) -> Tensor:
    """A photo smaller than the crop, extended by mirroring, as often as it takes."""
    while min(image.shape[1:]) < size_px:
        if image.shape[1] < size_px:
            image = torch.cat([image, image.flip(1)], 1)
        if image.shape[2] < size_px:
            image = torch.cat([image, image.flip(2)], 2)
    return image


def photos_in(folder: Path) -> list[Path]:
    """The image files below a folder, sorted. Raises FileNotFoundError if there is no such folder or no image in it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder of clean photos at {folder}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"no photos in {folder}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def split(paths: Sequence[Path], validation: int) -> tuple[list[Path], list[Path]]:
    """Training and validation files: `validation` of them, evenly spread over the sorted list, are held out.

    Raises:
        ValueError: nothing would be left to train on.
    """
    if not 0 < validation < len(paths):
        raise ValueError(f"cannot hold {validation} of {len(paths)} photos out for validation; set validation.photos")
    held_out = {round((i + 0.5) * len(paths) / validation) for i in range(validation)}
    return [p for i, p in enumerate(paths) if i not in held_out], [p for i, p in enumerate(paths) if i in held_out]
