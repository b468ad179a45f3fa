"""Public data sets: the rules that find the clean twin of a degraded file by its name.

docs/datasets.md has the source and the content of each data set.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.data.pairs import Pair, check_synthesis
from vrdir.errors import DataError, MissingFileError, NotPermittedError
from vrdir.images.folders import Names, composed, images_in

logger = logging.getLogger(__name__)
CLEAN_ONLY = "clean-only"
SHOWN = 2  # file names of a folder that an error shows

_NUMBER = re.compile(r"(.+)_\d+(?:\.\d+)?")
_RAINY = re.compile(r"rain-(\d+)|norain-(\d+)x\d+")


class Rule(NamedTuple):
    """How the clean twin of a degraded file is found by its name.

    Attributes:
        help: one line of help.
        examples: names of a degraded and a clean file; degraded is "" where it is synthesised.
        twins: of the name of a degraded file, the names that its clean twin may have, both without
            suffix; empty if no degraded file of this data set has such a name.
    """

    help: str
    examples: tuple[tuple[str, str], ...]
    twins: Callable[[str], list[str]]


class Matching(NamedTuple):
    """The pairs of two folders, and the files without a twin.

    Attributes:
        pairs: in the order of the degraded files; their lines are those of the list to be written.
        without_clean: files in the degraded folder without a clean twin.
        without_degraded: clean files that are not the twin of any degraded file.
    """

    pairs: list[Pair]
    without_clean: list[Path]
    without_degraded: list[Path]


def _hazy_twins(stem: str) -> list[str]:
    """Return the name without its last number, and without its last two.

    1_1_0.90179 and 0005_0.8_0.04 have two such names, 1400_1 has one.
    """
    twins: list[str] = []
    while len(twins) < 2 and (match := _NUMBER.fullmatch(stem)):
        stem = match[1]
        twins.append(stem)
    return twins


def _rainy_twins(stem: str) -> list[str]:
    """Return norain-001, for rain-001 (old names) and norain-001x2 (new names)."""
    match = _RAINY.fullmatch(stem)
    return [f"norain-{match[1] or match[2]}"] if match else []


RULES: dict[str, Rule] = {
    "same-name": Rule(
        "both files have the same name; their suffixes may differ",
        (("input/1.png", "target/1.png"), ("noisy25/0000.png", "original_png/0000.png")),
        lambda stem: [stem],
    ),
    "reside": Rule(
        "RESIDE (ITS, OTS, SOTS indoor and outdoor), Haze4K, Rain1400: many degraded images of one "
        "clean image, with numbers after its name",
        (
            ("hazy/1_1_0.90179.png", "clear/1.png"),
            ("part1/0025_0.8_0.04.jpg", "clear/0025.jpg"),
            ("hazy/1400_1.png", "gt/1400.png"),
            ("hazy/0001_0.8_0.2.jpg", "gt/0001.png"),
        ),
        _hazy_twins,
    ),
    "rain100": Rule(
        "Rain100L and Rain100H (also Rain200L, Rain200H), old and new names; use same-name where "
        "both files are 1.png",
        (
            ("rain-001.png", "norain-001.png"),
            ("rainy/rain-1.png", "gt/norain-1.png"),
            ("rain/X2/norain-1x2.png", "norain/norain-1.png"),
        ),
        _rainy_twins,
    ),
    CLEAN_ONLY: Rule(
        "BSD400, CBSD68, WED, any folder of clean images: the degraded images are synthesised by "
        "--with",
        (("", "original_png/0000.png"), ("", "00001.bmp")),
        lambda stem: [],
    ),
}


def match(rule: str, degraded: Path | None, clean: Path, synthesis: str = "") -> Matching:
    """Find the pairs of two folders and their sub-folders.

    If both folders have a sub-folder of the same name, the files of one are matched with the files
    of the other. Sub-folders that exist on one side only (OTS has its hazy images in parts) make no
    difference. The two folders may be the same, or one may be inside the other.

    Args:
        rule: a name of `RULES`.
        degraded: folder of the degraded images; None for the rule "clean-only".
        clean: folder of the clean images.
        synthesis: the degradations of the rule "clean-only", such as "noise:sigma=25"; "" for other
            rules.

    Raises:
        MissingFileError: a folder does not exist or has no images.
        NotPermittedError: a folder cannot be read.
        DataError: the rule is unknown, or a folder or a synthesis is missing or not allowed;
            nothing matches (the message shows names of both sides and the rules that would match);
            or a degraded file has two clean twins.
    """
    if rule not in RULES:
        raise DataError(f"unknown rule {rule!r}; choose one of {', '.join(RULES)}")
    if rule == CLEAN_ONLY:
        if degraded is not None or not synthesis:
            raise DataError(
                f"the rule {CLEAN_ONLY} needs degradations to synthesise, such as noise:sigma=25, "
                "instead of degraded images"
            )
        check_synthesis(synthesis)
        photos = images_below(clean)
        return Matching(
            [Pair(photo, None, synthesis, line) for line, photo in enumerate(photos, 1)], [], []
        )
    if degraded is None:
        raise DataError(
            f"the rule {rule} needs the folder of the degraded images; for clean images alone use "
            f"{CLEAN_ONLY}"
        )
    if synthesis:
        raise DataError(
            f"the rule {rule} finds degraded images and does not synthesise them; to synthesise "
            f"use {CLEAN_ONLY}"
        )
    sides = _Sides(degraded, clean)
    matching = sides.matching(RULES[rule])
    if not matching.pairs:
        raise DataError(sides.nothing(rule))
    return matching


def images_below(folder: Path, without: Path | None = None) -> list[Path]:
    """Return the image files below a folder; links are followed, hidden files left out.

    Args:
        folder: the folder.
        without: a folder inside it that is left out.

    Returns:
        The files, sorted in each folder, before those of its sub-folders.

    Raises:
        MissingFileError: there is no such folder, or no image in it.
        NotPermittedError: it, or a folder in it, cannot be read.
    """
    if not folder.is_dir():
        raise MissingFileError(f"folder {folder} does not exist")

    def unreadable(error: OSError) -> None:
        raise NotPermittedError(
            f"{error.filename} cannot be read ({error.strerror}); check its permissions"
        )

    return images_in(folder, unreadable, without)


class _Sides:
    """The files of both folders, each with its sub-folder."""

    def __init__(self, degraded: Path, clean: Path) -> None:
        self.degraded, self.clean = degraded, clean
        self.one_folder = degraded.resolve() == clean.resolve()
        self.degraded_files = images_below(degraded, without=clean)
        self.clean_files = images_below(clean, without=degraded)

    def matching(self, rule: Rule) -> Matching:
        """Match the files by a rule. Raises DataError where a file has two clean twins."""
        degraded, clean = self.degraded_files, self.clean_files
        twins = {path: rule.twins(path.stem) for path in degraded}
        if self.one_folder:  # the names show which file is which
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
                    f"{path} has two clean twins, {found[0]} and {found[1]}; move the wrong one "
                    "elsewhere"
                )
            if found:
                pairs.append(Pair(found[0], path, "", len(pairs) + 1))
            else:
                without_clean.append(path)
        used = {pair.clean for pair in pairs}
        return Matching(pairs, without_clean, [path for path in clean if path not in used])

    def nothing(self, rule: str) -> str:
        """Return the message for no match at all."""
        fits = [
            f"--rule {name} would match {count:,} of {len(self.degraded_files):,}"
            for name in RULES
            if (count := self.count(name))
        ]
        swapped = _Sides(self.clean, self.degraded).count(rule)
        if swapped:
            fits.append(
                f"with --degraded and --clean exchanged it would match {swapped:,} of "
                f"{len(self.clean_files):,}"
            )
        advice = " and ".join(fits) or "no other rule matches (`vrdir pairs rules` shows them)"
        return (
            f"no pairs by the rule {rule}: {self.degraded} contains {_shown(self.degraded_files)}, "
            f"{self.clean} contains {_shown(self.clean_files)}; {advice}"
        )

    def count(self, rule: str) -> int:
        try:
            return len(self.matching(RULES[rule]).pairs)
        except DataError:  # two twins: it does not match
            return 0


class _Folders:
    """The sub-folders of files, relative to their root."""

    def __init__(self, root: Path, files: Collection[Path]) -> None:
        self.relative = {
            folder: Path(composed(str(folder.relative_to(root))))
            for folder in {path.parent for path in files}
        }
        self.names = set(self.relative.values())


def _correspond(
    degraded: Path, clean: Path, degraded_folders: _Folders, clean_folders: _Folders
) -> bool:
    """Return whether the twin of a degraded file may be in the sub-folder of a clean file.

    If the clean side has a sub-folder of the same name, only there; otherwise in any sub-folder
    whose name no other degraded sub-folder has.
    """
    here, there = degraded_folders.relative[degraded.parent], clean_folders.relative[clean.parent]
    if here in clean_folders.names:
        return here == there
    return there not in degraded_folders.names or there in here.parents


def _shown(files: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in files[:SHOWN])
    return names if len(files) <= SHOWN else f"{names}, ... ({len(files):,} images)"
