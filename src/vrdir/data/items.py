"""The images to train or validate on: clean photos, and the pairs of pair lists."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from vrdir.data.image_cache import photos_in, readable
from vrdir.data.pairs import Pair, checked_pairs
from vrdir.degradations.registry import CLEAN, MIXED, SYNONYMS
from vrdir.degradations.steps import parse_degradations
from vrdir.errors import DataError
from vrdir.spelling import did_you_mean


class Item(NamedTuple):
    """An image to train or validate on.

    Attributes:
        clean: the clean photo.
        degraded: its degraded twin; None where it is synthesised.
        synthesis: how it is synthesised ("noise:sigma=25"); "" for the stage's mixture.
        degradations: what is in the degraded image, by the pair list; None where that is unknown.
        kind: its name in validation: the name of the pair list, or a different name if another list
            or kind of photo already has it ("haze_ots"); "" for the stage's mixture.
        several: whether it has several unknown degradations.
    """

    clean: Path
    degraded: Path | None = None
    synthesis: str = ""
    degradations: tuple[str, ...] | None = None
    kind: str = ""
    several: bool = False

    @property
    def drawn(self) -> bool:
        """Whether its degradation is drawn from the stage's mixture."""
        return self.degraded is None and not self.synthesis

    @property
    def name(self) -> str:
        """Its name in messages and records."""
        return (
            str(self.degraded)
            if self.degraded is not None
            else f"{self.clean}" + (f" @{self.synthesis}" if self.synthesis else "")
        )


def items_of(
    clean: Path | None, pairs: Sequence[str], known: Sequence[str], flag: str = "--pairs"
) -> list[Item]:
    """Return the items of a folder of clean photos and of pair lists.

    Args:
        clean: a folder of clean photos, each to be degraded by the stage's mixture.
        pairs: "[NAME=]FILE" each: a pair list, and the degradation in its images, "clean", or
            "mixed" for several.
        known: the degradations that NAME may be.
        flag: the option that gave the lists, for errors.

    Raises:
        FileNotFoundError, DataError: a folder or list is missing or wrong, or a name is unknown.
    """
    items = [Item(path) for path in readable(photos_in(clean))] if clean is not None else []
    # Names that are already used: first those of the photos' mixture.
    taken = {*known, CLEAN, MIXED} if clean is not None else set()
    for text in pairs:
        name, equals, file = (
            text.partition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        )
        if equals and name not in (*known, CLEAN, MIXED):
            names = ", ".join((*known, CLEAN, MIXED))
            hint = did_you_mean(name, known, SYNONYMS)
            raise DataError(
                f"{flag} {text}: {name!r} is not a known degradation; use one of {names}{hint}"
            )
        of_list = {"": None, CLEAN: (), MIXED: None}.get(name, (name,))
        stem = Path(file).stem.encode("utf-8", "backslashreplace").decode()  # logs need UTF-8
        tries = chain(
            [name or stem],
            [f"{name}_{stem}"] if name else [],
            (f"{name or stem}_{number}" for number in count(2)),
        )
        kind = next(kind for kind in tries if kind not in taken)
        taken.add(kind)
        for pair in checked_pairs(Path(file)):
            items.append(
                Item(
                    pair.clean,
                    pair.degraded,
                    pair.synthesis,
                    _degradations(pair, of_list),
                    kind,
                    several=name == MIXED,
                )
            )
    return items


def _degradations(pair: Pair, of_list: tuple[str, ...] | None) -> tuple[str, ...] | None:
    return (
        tuple(step.name for step in parse_degradations(pair.synthesis))
        if pair.synthesis
        else of_list
    )


def distinct_stems(paths: Sequence[Path]) -> list[str]:
    """Return a name for each file's twin in one flat folder: its own without suffix.

    If two files have the same name (a/1.png, b/1.png), a number is added.
    """
    names: dict[str, None] = {}
    for path in paths:
        tries = (path.stem if number == 1 else f"{path.stem}_{number}" for number in count(1))
        names[next(name for name in tries if name not in names)] = None
    return list(names)


def split(items: Sequence[Item], validation: int) -> tuple[list[Item], list[Item]]:
    """Divide items: `validation` of them, evenly spread over the list, are held out.

    Returns:
        The items to train on, and those held out.

    Raises:
        DataError: no item would be left to train on.
    """
    if not 0 < validation < len(items):
        raise DataError(
            f"cannot hold out {validation} of {len(items)} photos for validation; set "
            "validation.photos"
        )
    held_out = set(spread(len(items), validation))
    kept = [item for i, item in enumerate(items) if i not in held_out]
    return kept, [items[i] for i in sorted(held_out)]


def spread(length: int, count: int) -> list[int]:
    """Return `count` positions, evenly spread over a list."""
    return [round((i + 0.5) * length / count) for i in range(count)]


def files_of(items: Sequence[Item]) -> list[Path]:
    """Return the files of items, each once."""
    return list(
        dict.fromkeys(
            path for item in items for path in (item.clean, item.degraded) if path is not None
        )
    )
