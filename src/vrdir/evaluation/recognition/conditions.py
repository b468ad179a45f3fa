"""Conditions: the ways in which the images of a data set are degraded."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from vrdir.data.pairs import check_synthesis, synthesised
from vrdir.errors import ImageError, InputError
from vrdir.evaluation.recognition.image_files import ImageFile, MatchedFolder
from vrdir.images.convert import open_image

CLEAN = "clean"
"""The name of the condition of images that are not degraded."""
AS_TAKEN = "as taken"
"""The name of the condition of photos of real bad weather, which have no clean versions."""


class Condition:
    """One way in which images are degraded.

    >>> Condition("haze:severity=3")
    >>> Condition("foggy", folder=Path("photos/foggy"))

    Args:
        name: its name. Without a folder it is also how images are degraded, as
            `vrdir degrade --with` takes it.
        folder: contains the degraded images, under the names of the clean ones (see
            `MatchedFolder`).

    Raises:
        InputError: the name is "clean" or "as taken", or not that of a degradation.
        MissingFileError: there is no such folder.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        if name in (CLEAN, AS_TAKEN):
            raise InputError(
                f"the condition names {CLEAN!r} and {AS_TAKEN!r} are reserved; choose another name"
            )
        self.name = name
        self.folder = MatchedFolder(folder) if folder is not None else None
        if self.folder is None:
            check_synthesis(name)

    @property
    def synthetic(self) -> bool:
        """Whether the degraded images are synthesised."""
        return self.folder is None

    def degraded(self, image: ImageFile, clean: Tensor, seed: int) -> Tensor:
        """Return the degraded version of a clean image, (1, 3, H, W) in [0, 1], of 8 bits.

        Args:
            image: the file of the clean image.
            clean: its pixels, (1, 3, H, W) in [0, 1].
            seed: the seed of the synthesis.

        Raises:
            ImageError: the folder contains no such image, or one of another size.
        """
        if self.folder is None:
            return synthesised(clean, self.name, image.path, seed)
        path = self.folder.find(image)
        degraded = open_image(path).tensor
        if degraded.shape != clean.shape:
            raise ImageError(
                f"{path} is {_size(degraded)}, {image.path} is {_size(clean)}; "
                "a degraded image must have the size of the clean one"
            )
        return degraded


class AsTaken(Condition):
    """The only condition of photos of real bad weather: the photos unchanged."""

    def __init__(self) -> None:
        self.name = AS_TAKEN
        self.folder = None

    @property
    def synthetic(self) -> bool:
        """Whether the degraded images are synthesised: never."""
        return False

    def degraded(self, image: ImageFile, clean: Tensor, seed: int) -> Tensor:
        """Return the image itself."""
        return clean


def _size(image: Tensor) -> str:
    return f"{image.shape[3]} x {image.shape[2]} pixels"
