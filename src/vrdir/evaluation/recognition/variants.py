"""Variants of an image: clean or under a condition, and restored or not.

An image is degraded and restored at its own size, and rounded to 8 bits as a file would store it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vrdir.errors import InputError
from vrdir.evaluation.recognition.conditions import AS_TAKEN, CLEAN, Condition
from vrdir.evaluation.recognition.image_files import ImageFile, MatchedFolder
from vrdir.evaluation.recognition.restorers import (
    RestoredFolders,
    RestoreImage,
    network_for_images,
)
from vrdir.evaluation.user_functions import Pixels, check_restored, to_pixels
from vrdir.images.convert import open_image
from vrdir.restoring.restorer import Restorer


class Variant(NamedTuple):
    """A variant: a condition's name or "clean", and a restorer's name or "" for not restored."""

    condition: str
    restorer: str


class Variants:
    """All variants of every image, computed when they are needed.

    Args:
        conditions: conditions of different names, or `AsTaken` alone.
        restorers: by name; a `Restorer` runs its network.
        seed: the seed of the synthesis.

    Raises:
        InputError: two conditions have the same name, `AsTaken` is not alone, or a restorer has no
            name.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        restorers: Mapping[str, RestoreImage | Restorer],
        seed: int,
    ) -> None:
        names = [condition.name for condition in conditions]
        if len(set(names)) < len(names):
            raise InputError(
                "conditions must have different names; these are used twice: "
                f"{', '.join(sorted(names))}"
            )
        if AS_TAKEN in names and len(names) > 1:
            raise InputError(
                "photos as taken have no clean versions, "
                "so no other condition can be measured with them"
            )
        if "" in restorers:
            raise InputError("a restorer needs a name")
        self.conditions = {condition.name: condition for condition in conditions}
        self.restorers = {
            name: network_for_images(given) if isinstance(given, Restorer) else given
            for name, given in restorers.items()
        }
        self.seed = seed

    @property
    def has_clean(self) -> bool:
        """Whether there are clean images: always except for photos as taken."""
        return AS_TAKEN not in self.conditions

    @property
    def condition_names(self) -> list[str]:
        """The names of all conditions, "clean" first if there are clean images."""
        return [*([CLEAN] if self.has_clean else []), *self.conditions]

    @property
    def all(self) -> list[Variant]:
        """All variants: clean first, and under each condition the one that is not restored."""
        return [
            Variant(condition, restorer)
            for condition in self.condition_names
            for restorer in ("", *self.restorers)
        ]

    @property
    def folders(self) -> list[MatchedFolder]:
        """The folders that contain degraded or restored images."""
        degraded = [one.folder for one in self.conditions.values() if one.folder is not None]
        restored = [
            folder
            for given in self.restorers.values()
            if isinstance(given, RestoredFolders)
            for folder in given.folders.values()
        ]
        return [*degraded, *restored]

    def images(self, image: ImageFile) -> Iterator[tuple[Variant, Pixels]]:
        """Yield the variants of an image, in the order of `all`.

        Raises:
            Exception: any exception of opening or restoring the image.
        """
        clean = open_image(image.path).tensor
        for condition in self.condition_names:
            pixels = to_pixels(self._degraded(image, condition, clean))
            # A copy, as a recogniser may change its input.
            yield Variant(condition, ""), pixels.copy()
            for name in self.restorers:
                yield Variant(condition, name), self._restored(name, image, condition, pixels)

    def picture(self, image: ImageFile, variant: Variant) -> Tensor:
        """Return one variant of an image, (3, H, W) in [0, 1]."""
        degraded = self._degraded(image, variant.condition, open_image(image.path).tensor)
        if not variant.restorer:
            return degraded[0]
        pixels = self._restored(variant.restorer, image, variant.condition, to_pixels(degraded))
        return torch.from_numpy(pixels.copy()).movedim(-1, 0) / 255

    def _degraded(self, image: ImageFile, condition: str, clean: Tensor) -> Tensor:
        if condition == CLEAN:
            return clean
        return self.conditions[condition].degraded(image, clean, self.seed)

    def _restored(self, name: str, image: ImageFile, condition: str, pixels: Pixels) -> Pixels:
        # A copy, as a function of the user may change its input.
        restored = self.restorers[name](image, condition, pixels.copy())
        return check_restored(restored, pixels, name, condition)
