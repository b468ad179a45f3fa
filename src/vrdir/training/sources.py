"""What a run trains and validates on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vrdir.data.items import Item, items_of, split, spread
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.errors import DataError, SettingsError
from vrdir.training.settings import Recipe

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """The folders and pair lists of a run.

    Attributes:
        clean: a folder of clean photos, which are degraded during training. Some are held out for
            validation, unless there is another source for it.
        pairs: pair lists, "[NAME=]FILE" each; see `vrdir.data.items.items_of`.
        val_clean, val_pairs: the same, for validation.
    """

    clean: Path | None = None
    pairs: Sequence[str] = ()
    val_clean: Path | None = None
    val_pairs: Sequence[str] = ()

    def items(self, recipe: Recipe) -> tuple[list[Item], list[Item]]:
        """Return the items to train on and those to validate on.

        Raises:
            MissingFileError, DataError: naming the folder or list.
            SettingsError: the recipe does not say how many photos to hold out.
        """
        if self.clean is None and not self.pairs:
            raise DataError("no training data: use --clean FOLDER or --pairs LIST")
        names = tuple(dict.fromkeys((*recipe.model.branches, *DEGRADATIONS)))
        training = items_of(self.clean, self.pairs, names)
        count = recipe.validation.photos
        if self.val_clean is None and not self.val_pairs:
            return _held_out(training, count)
        validation = items_of(self.val_clean, self.val_pairs, names, "--val-pairs")
        seen = {item.clean.resolve() for item in training} & {
            item.clean.resolve() for item in validation
        }
        if seen:
            logger.warning(
                "%d photos are in both the training and the validation data, such as %s",
                len(seen),
                min(seen),
            )
        return training, _at_most(validation, count)


def _held_out(training: Sequence[Item], count: int | None) -> tuple[list[Item], list[Item]]:
    """Hold some of the clean photos out, and leave their pairs out of training."""
    drawn = [item for item in training if item.drawn]
    if not drawn:
        raise DataError("no validation data: use --val-pairs LIST or --val-clean FOLDER")
    if count is None:
        raise SettingsError(
            "set validation.photos to the number of photos of --clean to hold out; or use "
            "--val-clean or --val-pairs"
        )
    kept, held_out = split(drawn, count)
    photos = {item.clean.resolve() for item in held_out}
    pairs = [item for item in training if not item.drawn]
    others = [item for item in pairs if item.clean.resolve() not in photos]
    if len(others) < len(pairs):
        logger.warning(
            "%d pairs are not used for training: their photos are held out for validation",
            len(pairs) - len(others),
        )
    return kept + others, held_out


def _at_most(items: Sequence[Item], count: int | None) -> list[Item]:
    """Return at most `count` items of each kind, evenly spread; all for None."""
    by_kind: dict[str, list[Item]] = {}
    for item in items:
        by_kind.setdefault(item.kind, []).append(item)
    for kind, of_kind in by_kind.items():
        if count is not None and len(of_kind) > count:
            by_kind[kind] = [of_kind[i] for i in spread(len(of_kind), count)]
    return [item for of_kind in by_kind.values() for item in of_kind]
