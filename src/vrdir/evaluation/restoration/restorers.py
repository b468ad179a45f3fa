"""Restorers of image pairs: networks, functions of the user, folders of restored images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vrdir.data.pairs import Pair
from vrdir.errors import DataError, ImageError, MissingFileError
from vrdir.evaluation.user_functions import Pixels, check_restored, to_pixels
from vrdir.images.convert import open_image
from vrdir.images.folders import Names
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.restoring.restorer import Restorer

RestorePair = Callable[[Pair, Tensor], Tensor]
"""Restores the degraded image of a pair, given the pair and the image, (1, 3, H, W) in [0, 1]."""


def network_for_pairs(restorer: Restorer) -> RestorePair:
    """Return a restorer that runs a network.

    Its results are rounded to 8 bits, as a file would store them, and grey where the degraded image
    is grey.
    """

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        is_grey = bool((degraded == degraded[:, :1]).all())
        restored = restorer(degraded[:, :1] if is_grey else degraded).expand(degraded.shape)
        return (restored.clamp(0, 1) * 255).round() / 255

    return restore


def function_for_pairs(function: Callable[[Pixels], Any]) -> RestorePair:
    """Return a restorer that calls a function of an image.

    For a pair it raises ImageError if the function returns another type or size.

    Args:
        function: takes an image (H, W, 3), uint8, RGB, and returns one of the same type and size.
    """

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        image = to_pixels(degraded)
        # A copy, as the function may change its input.
        restored = check_restored(function(image.copy()), image, "the restorer")
        return torch.from_numpy(restored.copy()).movedim(-1, 0)[None] / 255

    return restore


def folder_for_pairs(folder: Path) -> RestorePair:
    """Return a restorer whose results are files in a folder.

    The file of a pair is `folder`/<name of the degraded file without suffix>.<any image suffix>.
    For a pair it raises ImageError if there is no such file or more than one, or if the file cannot
    be read or has another size.

    Raises:
        MissingFileError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise MissingFileError(f"the folder of restored images does not exist: {folder}")
    files: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if plain_suffix(path) in IMAGE_SUFFIXES:
            files.setdefault(path.stem, []).append(path)
    names = Names(files)
    if not files:
        raise MissingFileError(
            f"no images in {folder}; restored images must have the names of the degraded ones"
        )

    def restore(pair: Pair, degraded: Tensor) -> Tensor:
        if pair.degraded is None:
            raise ImageError(
                f"{pair_name(pair)} is synthesised: it has no degraded file by whose name a "
                f"restored file could be found in {folder}"
            )
        found = files.get(names.find(pair.degraded.stem), [])
        if len(found) != 1:
            several = " and ".join(path.name for path in found)
            raise ImageError(
                f"{folder} contains {several or f'no {pair.degraded.stem}.*'}; "
                "one restored image for each degraded one is needed"
            )
        restored = open_image(found[0]).tensor
        if restored.shape != degraded.shape:
            sizes = " and ".join(f"{one.shape[3]} x {one.shape[2]}" for one in (restored, degraded))
            raise ImageError(f"{found[0]} and {pair.degraded} have different sizes, {sizes} pixels")
        return restored

    return restore


def check_restored_names(pairs: Iterable[Pair]) -> None:
    """Check that a folder of restored images can contain one for each pair.

    Raises:
        DataError: a degraded image is synthesised, or two of them would have the same restored one.
    """
    taken: dict[str, Path] = {}
    for pair in pairs:
        if pair.degraded is None:
            raise DataError(
                f"{pair_name(pair)} has no degraded file, so no other program can have restored "
                "it; write files with `vrdir degrade` first"
            )
        other = taken.setdefault(pair.degraded.stem, pair.degraded)
        if other != pair.degraded:
            raise DataError(
                f"{other} and {pair.degraded} would have the same restored file {other.stem}.*; "
                "evaluate one set at a time"
            )


def pair_name(pair: Pair) -> str:
    """Return a pair's name in reports: the degraded file's, or "clean.png (noise:sigma=25)"."""
    if pair.degraded is not None:
        return pair.degraded.name
    return f"{pair.clean.name} ({pair.synthesis})"
