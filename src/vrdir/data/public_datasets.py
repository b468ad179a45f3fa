"""Public data sets, as people download them: by which rule a degraded file's name leads to its clean twin.

docs/datasets.md says where each comes from and what it should hold.
"""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.data.pairs import Pair, check_synthesis
from vrdir.errors import DataError, MissingFileError, NotPermittedError
from vrdir.images.folders import Names, composed, files_below, skipped

logger = logging.getLogger(__name__)
CLEAN_ONLY = "clean-only"
SHOWN = 2  # names of a folder that an error shows

_NUMBER = re.compile(r"(.+)_\d+(?:\.\d+)?")
_RAINY = re.compile(r"rain-(\d+)|norain-(\d+)x\d+")


class Rule(NamedTuple):
    """How names lead from a degraded file to its clean twin.

    Attributes:
        help: one line for those who choose.
        examples: (degraded, clean) as they are named; degraded "" where it is synthesised.
        twins: the names that the clean twin of a degraded file may have, both without suffix; none if no degraded file of
            this data set is so called.
    """

    help: str
    examples: tuple[tuple[str, str], ...]
    twins: Callable[[str], list[str]]


class Matching(NamedTuple):
    """What matched, and what did not.

    Attributes:
        pairs: in the order of the degraded files; their lines are those of the list they make.
        without_clean: files in the degraded folder whose clean twin is not there.
        without_degraded: clean files that are no degraded file's twin.
    """

    pairs: list[Pair]
    without_clean: list[Path]
    without_degraded: list[Path]


def _hazy_twins(stem: str) -> list[str]:
    """Without its last number and without its last two: 1_1_0.90179 and 0005_0.8_0.04 have two, 1400_1 has one."""
    twins: list[str] = []
    while len(twins) < 2 and (match := _NUMBER.fullmatch(stem)):
        stem = match[1]
        twins.append(stem)
    return twins


def _rainy_twins(stem: str) -> list[str]:
    """rain-001 in the old naming, norain-001x2 in the new; the clean one is norain-001 in both."""
    match = _RAINY.fullmatch(stem)
    return [f"norain-{match[1] or match[2]}"] if match else []


RULES: dict[str, Rule] = {
    "same-name": Rule(
        "the two have one name; their suffixes may differ",
        (("input/1.png", "target/1.png"), ("noisy25/0000.png", "original_png/0000.png")),
        lambda stem: [stem],
    ),
    "reside": Rule(
        "RESIDE (ITS, OTS, SOTS indoor and outdoor), Haze4K, Rain1400: many of one clean image, with numbers behind its name",
        (
            ("hazy/1_1_0.90179.png", "clear/1.png"),
            ("part1/0025_0.8_0.04.jpg", "clear/0025.jpg"),
            ("hazy/1400_1.png", "gt/1400.png"),
            ("hazy/0001_0.8_0.2.jpg", "gt/0001.png"),
        ),
        _hazy_twins,
    ),
    "rain100": Rule(
        "Rain100L and Rain100H (also as Rain200L, Rain200H), old and new naming; where both files are 1.png, same-name",
        (
            ("rain-001.png", "norain-001.png"),
            ("rainy/rain-1.png", "gt/norain-1.png"),
            ("rain/X2/norain-1x2.png", "norain/norain-1.png"),
        ),
        _rainy_twins,
    ),
    CLEAN_ONLY: Rule(
        "BSD400, CBSD68, WED, any folder of clean images: the degraded ones are synthesised as --with says",
        (("", "original_png/0000.png"), ("", "00001.bmp")),
        lambda stem: [],
    ),
}


def match(rule: str, degraded: Path | None, clean: Path, synthesis: str = "") -> Matching:
    """Find the pairs of two folders, searched with all below them.

    Where both folders have a sub-folder of one name, what is in the one is matched with what is in the other; sub-folders that
    only one side has (OTS keeps its hazy images in parts) make no difference. The two folders may be one, or one in the other.

    Args:
        rule: a name of `RULES`.
        degraded: folder of the degraded images; None for the rule "clean-only".
        clean: folder of the clean images.
        synthesis: what the rule "clean-only" makes of them, such as "noise:sigma=25"; "" for the others.

    Raises:
        MissingFileError: a folder is not there or holds no images.
        NotPermittedError: a folder cannot be read.
        DataError: the rule is unknown, or lacks or does not take a folder or a synthesis; nothing matches (the message shows
            names of both sides and the rules that would match); a degraded file has two clean twins.
    """
    if rule not in RULES:
        raise DataError(f"unknown rule {rule!r}; there are {', '.join(RULES)}")
    if rule == CLEAN_ONLY:
        if degraded is not None or not synthesis:
            raise DataError(
                f"the rule {CLEAN_ONLY} takes no degraded images but what to synthesise, such as noise:sigma=25"
            )
        check_synthesis(synthesis)
        photos = images_below(clean)
        return Matching(
            [Pair(photo, None, synthesis, line) for line, photo in enumerate(photos, 1)], [], []
        )
    if degraded is None:
        raise DataError(
            f"the rule {rule} needs the folder of the degraded images; for clean ones alone there is {CLEAN_ONLY}"
        )
    if synthesis:
        raise DataError(
            f"the rule {rule} finds degraded images and synthesises none; for that there is {CLEAN_ONLY}"
        )
    sides = _Sides(degraded, clean)
    matching = sides.matching(RULES[rule])
    if not matching.pairs:
        raise DataError(sides.nothing(rule))
    return matching


def images_below(folder: Path, without: Path | None = None) -> list[Path]:
    """The image files below a folder, links followed; hidden files are left out, and so is a folder `without` inside it.

    Returns:
        Sorted in each folder; a folder's own files come before those of its sub-folders.

    Raises:
        MissingFileError: there is no such folder, or no image in it.
        NotPermittedError: it, or a folder in it, cannot be read.
    """
    if not folder.is_dir():
        raise MissingFileError(f"there is no folder {folder}")

    def unreadable(error: OSError) -> None:
        raise NotPermittedError(
            f"{error.filename} cannot be read ({error.strerror}); check its permissions"
        )

    others = Counter[str]()
    found = list(files_below(folder, without=without, others=others, unreadable=unreadable))
    if not found:
        raise MissingFileError(
            f"no images in {folder}{f' but {skipped(others)}' if others else ''}; looked for what Pillow reads"
        )
    if others:
        logger.warning("skipped in %s: %s", folder, skipped(others))
    return found


class _Sides:
    """The files of both folders, each with its sub-folder."""

    def __init__(self, degraded: Path, clean: Path) -> None:
        self.degraded, self.clean = degraded, clean
        self.one_folder = degraded.resolve() == clean.resolve()
        self.degraded_files = images_below(degraded, without=clean)
        self.clean_files = images_below(clean, without=degraded)

    def matching(self, rule: Rule) -> Matching:
        """Raises DataError where two clean files would do."""
        degraded, clean = self.degraded_files, self.clean_files
        twins = {path: rule.twins(path.stem) for path in degraded}
        if self.one_folder:  # the names tell which are which
            degraded, clean = (
                [path for path in degraded if twins[path]],
                [path for path in degraded if not twins[path]],
            )
        by_name: defaultdict[str, list[Path]] = defaultdict(list)
        for path in clean:
            by_name[path.stem].append(path)
        names = Names(by_name)
        below = (
            _Folders(self.degraded, degraded),
            _Folders(self.degraded if self.one_folder else self.clean, clean),
        )
        pairs: list[Pair] = []
        without_clean = []
        for path in degraded:
            found = [
                twin
                for name in twins[path]
                for twin in by_name.get(names.find(name), ())
                if _correspond(path, twin, *below)
            ]
            if len(found) > 1:
                raise DataError(
                    f"{path} has two clean twins, {found[0]} and {found[1]}; move the wrong one elsewhere"
                )
            if found:
                pairs.append(Pair(found[0], path, "", len(pairs) + 1))
            else:
                without_clean.append(path)
        used = {pair.clean for pair in pairs}
        return Matching(pairs, without_clean, [path for path in clean if path not in used])

    def nothing(self, rule: str) -> str:
        """What to say when nothing matched."""
        fits = [
            f"--rule {name} would match {count:,} of {len(self.degraded_files):,}"
            for name in RULES
            if (count := self.count(name))
        ]
        swapped = _Sides(self.clean, self.degraded).count(rule)
        if swapped:
            fits.append(
                f"with --degraded and --clean exchanged it would match {swapped:,} of {len(self.clean_files):,}"
            )
        return (
            f"no pairs by the rule {rule}: {self.degraded} holds {_shown(self.degraded_files)}, {self.clean} holds "
            f"{_shown(self.clean_files)}; {' and '.join(fits) or 'no other rule matches either (`vrdir pairs rules` shows them)'}"
        )

    def count(self, rule: str) -> int:
        try:
            return len(self.matching(RULES[rule]).pairs)
        except DataError:  # two twins: it does not match
            return 0


class _Folders:
    """The sub-folders that files lie in, relative to their root."""

    def __init__(self, root: Path, files: Collection[Path]) -> None:
        self.relative = {
            folder: Path(composed(str(folder.relative_to(root))))
            for folder in {path.parent for path in files}
        }
        self.names = set(self.relative.values())


def _correspond(
    degraded: Path, clean: Path, degraded_folders: _Folders, clean_folders: _Folders
) -> bool:
    """Whether the sub-folder of a clean file is one where a degraded file's twin may lie.

    That of the same name, where there is one; else any, but not one that is the twin of another degraded sub-folder.
    """
    here, there = degraded_folders.relative[degraded.parent], clean_folders.relative[clean.parent]
    if here in clean_folders.names:
        return here == there
    return there not in degraded_folders.names or there in here.parents


def _shown(files: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in files[:SHOWN])
    return names if len(files) <= SHOWN else f"{names}, ... ({len(files):,} images)"
