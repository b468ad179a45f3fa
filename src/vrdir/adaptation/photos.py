"""The clean photos of an adaptation: for training, for the choice of a share, for the proof."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrdir.data.image_cache import photos_in, readable
from vrdir.data.items import Item, split, spread
from vrdir.errors import DataError
from vrdir.training.settings import Recipe
from vrdir.training.sources import Sources

LEAST = 16
"""The smallest number of photos in a folder."""
LEAST_HELD_OUT, MOST_HELD_OUT = 9, 96


@dataclass(frozen=True)
class Photos(Sources):
    """Clean photos, of which some are held out from training.

    Attributes:
        training: the photos to train on.
        held_out: the photos for the choice of a share and for the proof.
    """

    training: Sequence[Item] = ()
    held_out: Sequence[Item] = ()

    @classmethod
    def of_folder(cls, folder: Path, held_out: int | None = None) -> Photos:
        """Divide the photos of a folder.

        Args:
            folder: the folder.
            held_out: the number of photos to hold out; by default a fifth, 9 to 96.

        Raises:
            MissingFileError: the folder does not exist, or contains no photos.
            DataError: it contains too few photos.
        """
        items = [Item(path) for path in readable(photos_in(folder))]
        if len(items) < LEAST:
            raise DataError(
                f"{folder} contains {len(items)} photos; adaptation needs at least {LEAST}, and a "
                "few hundred for a useful result"
            )
        count = held_out or min(max(len(items) // 5, LEAST_HELD_OUT), MOST_HELD_OUT)
        training, kept = split(items, count)
        return cls(folder, training=training, held_out=kept)

    def items(self, recipe: Recipe) -> tuple[list[Item], list[Item]]:
        """Return the photos to train on, and a few held-out ones on which PSNR is monitored."""
        count = min(recipe.validation.photos or 1, len(self.held_out))
        return list(self.training), [self.held_out[i] for i in spread(len(self.held_out), count)]

    def divided(self) -> tuple[list[Item], list[Item]]:
        """Return the held-out photos for choosing a share (a third), and those for the proof."""
        return list(self.held_out[::3]), [o for i, o in enumerate(self.held_out) if i % 3]
