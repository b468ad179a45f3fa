"""The clean photos of an adaptation: to train on, to choose by, and for the proof."""

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
"""Photos that a folder must hold."""
LEAST_HELD_OUT, MOST_HELD_OUT = 9, 96


@dataclass(frozen=True)
class Photos(Sources):
    """Clean photos, of which some are held out.

    Attributes:
        training: to train on.
        held_out: to choose by and to prove on.
    """

    training: Sequence[Item] = ()
    held_out: Sequence[Item] = ()

    @classmethod
    def of_folder(cls, folder: Path, held_out: int | None = None) -> Photos:
        """Divide the photos of a folder.

        Raises:
            MissingFileError: there are none.
            DataError: there are too few, or more are to be held out than there are.
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
        """Return the photos to train on, and a few of the held-out ones to watch PSNR by."""
        count = min(recipe.validation.photos or 1, len(self.held_out))
        return list(self.training), [self.held_out[i] for i in spread(len(self.held_out), count)]

    def divided(self) -> tuple[list[Item], list[Item]]:
        """Return a third of the held-out photos to choose by, and the others for the proof."""
        return list(self.held_out[::3]), [o for i, o in enumerate(self.held_out) if i % 3]
