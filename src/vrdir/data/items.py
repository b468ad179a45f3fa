"""What there is to train or validate on: clean photos, and the pairs of pair lists."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from vrdir.data.image_cache import photos_in, readable
from vrdir.data.pairs import Pair, checked_pairs
from vrdir.degradations.registry import CLEAN, MIXED, SYNONYMS
from vrdir.degradations.steps import parse_degradations
from vrdir.errors import DataError
from vrdir.images.folders import composed
from vrdir.spelling import did_you_mean


class Item(NamedTuple):
    """An image to train or validate on.

    Attributes:
        clean: the clean photo.
        degraded: its degraded twin; None where that is synthesised.
        synthesis: how ("noise:sigma=25"); "" for a stage's own mixture.
        degradations: what is in the degraded image, as far as the pair list says; None where it does not.
        kind: what validation calls it: the name of the pair list, or one of its own where another list or the photos' own kinds have
            that ("haze_ots"); "" for a stage's own mixture.
        several: degraded in several ways at once, whichever they are.
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
        """What to call it in a message or a record."""
        return (
            str(self.degraded)
            if self.degraded is not None
            else f"{self.clean}" + (f" @{self.synthesis}" if self.synthesis else "")
        )


def items_of(
    clean: Path | None, pairs: Sequence[str], known: Sequence[str], flag: str = "--pairs"
) -> list[Item]:
    """The items of a folder of clean photos and of pair lists.

    Args:
        clean: a folder of clean photos, each to be degraded as the stage's mixture has it.
        pairs: "[NAME=]FILE" each: a pair list, and the degradation that is in its images, "clean", or "mixed" for several.
        known: the degradations that NAME may be.
        flag: what to call the lists in an error.

    Raises:
        FileNotFoundError, DataError: a folder or list is not there or wrong, or a name is unknown.
    """
    items = [Item(path) for path in readable(photos_in(clean))] if clean is not None else []
    taken = (
        {*known, CLEAN, MIXED} if clean is not None else set()
    )  # what the photos' own kinds are called
    for text in pairs:
        name, equals, file = (
            text.partition("=") if "=" in text and not Path(text).exists() else ("", "", text)
        )
        if equals and name not in (*known, CLEAN, MIXED):
            names = ", ".join((*known, CLEAN, MIXED))
            hint = did_you_mean(name, known, SYNONYMS)
            raise DataError(
                f"{flag} {text}: {name!r} is no degradation here; give one of {names}{hint}"
            )
        of_list = {"": None, CLEAN: (), MIXED: None}.get(name, (name,))
        stem = Path(file).stem.encode("utf-8", "backslashreplace").decode()  # logs take UTF-8 only
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
    """A name for each file's twin in one flat folder: its own without suffix; where that is taken (a/1.png, b/1.png) with a number."""
    names: dict[str, None] = {}
    for path in paths:
        tries = (path.stem if number == 1 else f"{path.stem}_{number}" for number in count(1))
        names[next(name for name in tries if name not in names)] = None
    return list(names)


def split(items: Sequence[Item], validation: int) -> tuple[list[Item], list[Item]]:
    """Training and validation items: `validation` of them, evenly spread over the list, are held out.

    Raises:
        DataError: nothing would be left to train on.
    """
    if not 0 < validation < len(items):
        raise DataError(
            f"cannot hold {validation} of {len(items)} photos out for validation; set validation.photos"
        )
    held_out = set(spread(len(items), validation))
    return [item for i, item in enumerate(items) if i not in held_out], [
        items[i] for i in sorted(held_out)
    ]


def spread(length: int, count: int) -> list[int]:
    """`count` places, evenly spread over a list."""
    return [round((i + 0.5) * length / count) for i in range(count)]


def files_of(items: Sequence[Item]) -> list[Path]:
    """The files of some items, each once."""
    return list(
        dict.fromkeys(
            path for item in items for path in (item.clean, item.degraded) if path is not None
        )
    )


def seed_of(*parts: object) -> int:
    """A seed that depends on what is given and on nothing else, on every machine; a file's name may be of any bytes."""
    return zlib.crc32(composed("|".join(map(str, parts))).encode("utf-8", "surrogateescape"))
