"""Restorers of an evaluation: networks, functions of the user, and folders of restored images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from vrdir.evaluation.recognition.conditions import AS_TAKEN, CLEAN, Condition
from vrdir.evaluation.recognition.image_files import ImageFile, MatchedFolder
from vrdir.evaluation.user_functions import Pixels, load_function, to_pixels
from vrdir.images.convert import open_image
from vrdir.images.folders import ForeignPaths
from vrdir.restoring.restorer import Restorer

RestoreImage = Callable[[ImageFile, str, Pixels], Pixels]
"""Restores one image, given the file of the clean one, the condition's name, and the pixels."""


def network_for_images(restorer: Restorer) -> RestoreImage:
    """Return a restorer that runs a network."""
    return lambda image, condition, pixels: _keep_grey(pixels, restorer)


def _keep_grey(pixels: Pixels, restore: Callable[[Pixels], Pixels]) -> Pixels:
    """Restore an image; a grey one as one channel, as its file would be restored."""
    is_grey = bool((pixels == pixels[..., :1]).all())
    return np.repeat(restore(pixels[..., :1]), 3, axis=2) if is_grey else restore(pixels)


def function_for_images(function: Callable[[Pixels], Any]) -> RestoreImage:
    """Return a restorer that calls a function of an image.

    Args:
        function: takes an image (H, W, 3), uint8, RGB, and returns one of the same type and size.
    """
    return lambda image, condition, pixels: function(pixels)


class RestoredFolders:
    """A restorer whose results are files: a folder per condition, and one named "clean".

    For photos as taken the results are in the folder itself. Files are found by the names of the
    clean images (see `MatchedFolder`).

    Args:
        folder: contains the results.
        conditions: the conditions of the evaluation.

    Raises:
        MissingFileError: a folder is missing or contains no images.
    """

    def __init__(self, folder: Path, conditions: Iterable[Condition]) -> None:
        names = [condition.name for condition in conditions]
        paths = ForeignPaths()
        places = {name: paths.find(folder, name) for name in (CLEAN, *names)}
        if AS_TAKEN in names:
            places = {AS_TAKEN: folder}
        self.folders = {name: MatchedFolder(path) for name, path in places.items()}

    def __call__(self, image: ImageFile, condition: str, pixels: Pixels) -> Pixels:
        """Return the restored image. Raises ImageError if there is none."""
        return to_pixels(open_image(self.folders[condition].find(image)).tensor)


def load_restorer(spec: str, conditions: Iterable[Condition]) -> RestoreImage:
    """Return the restorer that a text names.

    Args:
        spec: a folder of results (see `RestoredFolders`) or `module:function` (see
            `function_for_images`).
        conditions: the conditions of the evaluation.

    Raises:
        MissingFileError: there is no such folder, or it lacks a condition.
        InputError: there is no such module or function.
    """
    if Path(spec).is_dir() or ":" not in spec:
        return RestoredFolders(Path(spec), conditions)
    return function_for_images(load_function(spec))
