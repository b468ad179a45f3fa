"""Pair lists: which degraded image belongs to which clean one, checked before any time is spent on them.

A line is `degraded|clean`. Relative paths are relative to the list's own folder; blank lines and lines that begin with `#`
are skipped; a list from Windows may part folders by backslashes. `@noise:sigma=25|clean` stands for a degraded image that is
synthesised from the clean one.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.degradations.degrade import apply_steps, with_one_grain
from vrdir.degradations.steps import check_steps, parse_degradations
from vrdir.errors import DataError, ImageError, InputError, MissingFileError, first_line
from vrdir.images.convert import MODES, open_image
from vrdir.images.folders import ForeignPaths, composed
from vrdir.images.formats import open_header
from vrdir.images.reading import frames_of
from vrdir.regular_files import open_regular
from vrdir.text_files import read_text

NAMED = 3  # of a list's problems, how many an error names
ORIENTATION = 0x0112  # the EXIF tag; 5 to 8 stand for a picture that lies on its side


class Pair(NamedTuple):
    """A degraded image and the clean one it should become.

    Attributes:
        clean: the clean file.
        degraded: the degraded file; None where it is synthesised from the clean one.
        synthesis: how, such as "noise:sigma=25"; "" where there is a degraded file.
        line: the line in its list, from 1.
    """

    clean: Path
    degraded: Path | None
    synthesis: str
    line: int


class Survey(NamedTuple):
    """What looking at the files of a list tells.

    Attributes:
        problems: each naming its list and line.
        pairs: how many, of them `synthesised` without a degraded file.
        clean: how many different clean files.
        widths, heights: least and greatest, in pixels, of the clean images that could be read; (0, 0) if none could.
        fingerprint: SHA-256 over the file names, letters composed, and their lengths in bytes, whatever the folder and the order
            of the lines.
    """

    problems: list[str]
    pairs: int
    synthesised: int
    clean: int
    widths: tuple[int, int]
    heights: tuple[int, int]
    fingerprint: str


class _Header(NamedTuple):
    """What can be told of an image file without decoding it."""

    size: tuple[int, int]  # width, height, upright
    length: int
    identity: tuple[int, int]  # the same for two names of one file
    problem: str


def read_pairs(path: Path) -> list[Pair]:
    """Read a pair list; the files themselves are not looked at.

    Raises:
        MissingFileError: there is no such list.
        DataError: it is a folder, no text, holds no pairs, or lines that are none; each is named as list:line.
    """
    pairs, problems = scan(path)
    if problems:
        raise DataError(_together(problems, path))
    return pairs


def pair_problems(pairs: Sequence[Pair], source: Path) -> list[str]:
    """What is wrong with the files of a list, a line each, named as list:line; empty if all is well.

    A file missing, or no image; more than one frame; colours that nobody can open; two sizes that differ (upright, as the
    EXIF orientation has it); a degraded file that is the clean one. Only the headers are read: a photo cut short is not seen.
    """
    return survey(pairs, source).problems


def checked_pairs(path: Path) -> list[Pair]:
    """Read a pair list and look at its files.

    Raises:
        MissingFileError: there is no such list.
        DataError: anything in it, or with its files, is wrong: the first few problems, how many there are, and the remedy.
    """
    pairs = read_pairs(path)
    problems = pair_problems(pairs, path)
    if problems:
        raise DataError(_together(problems, path))
    return pairs


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Write a pair list, whole or not at all.

    A path below the list's folder, or below the folder that holds that one, is written relative to the list, so that list and
    data can move together; any other is written absolute.

    Raises:
        DataError: there are no pairs, or a name that no list can hold (a bar, a line break, no UTF-8).
        OSError: the list cannot be written.
    """
    if not pairs:
        raise DataError(f"there are no pairs to write to {path}")
    names = _Names(path)
    lines = [
        f"{names.of(pair.degraded) if pair.degraded is not None else '@' + pair.synthesis}|{names.of(pair.clean)}\n"
        for pair in pairs
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole("".join(lines).encode(), path)


def open_pair(pair: Pair, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The degraded and the clean image, (1, 3, H, W) each, whole, in [0, 1].

    A synthesised one is drawn by the seed, the text of its degradations and the clean file's name, so it is the same at every
    validation, on every machine and in every folder, and is rounded to 8 bits, as a file would hold it.

    Raises:
        ImageError: one cannot be read, or their sizes differ.
        DataError: the text of a synthesis is wrong.
    """
    clean = open_image(pair.clean).tensor
    if pair.degraded is None:
        return synthesised(clean, pair.synthesis, pair.clean, seed), clean
    degraded = open_image(pair.degraded).tensor
    if degraded.shape != clean.shape:
        raise ImageError(
            f"{pair.degraded} is {_size(degraded)}, {pair.clean} is {_size(clean)}; a pair has one size"
        )
    return degraded, clean


def synthesised(clean: Tensor, synthesis: str, file: Path, seed: int = 0) -> Tensor:
    """The degraded image of a clean one (1, 3, H, W), the same every time: see `open_pair`."""
    draws = zlib.crc32(f"{seed}|{synthesis}|".encode() + os.fsencode(composed(file.stem)))
    degraded = apply_steps(
        clean, parse_degradations(synthesis), torch.Generator().manual_seed(draws)
    )
    return (with_one_grain(clean, degraded) * 255).round() / 255


def check_synthesis(text: str) -> None:
    """Raise InputError if no degradations can be synthesised by a text such as "noise:sigma=25"."""
    check_steps(parse_degradations(text))


def scan(path: Path) -> tuple[list[Pair], list[str]]:
    """The pairs of a list and what is wrong with its lines, each named as list:line.

    Raises:
        MissingFileError: there is no such list.
        DataError: it is a folder, no text, or holds no lines.
    """
    folder, files = path.parent, ForeignPaths()
    pairs, problems = [], []
    cleans: dict[str, Path] = {}  # many lines have one clean file,
    wrong: dict[str, str] = {}  # and one synthesis
    for number, line in enumerate(
        _text(path).split("\n"), 1
    ):  # not splitlines: a name may hold what it takes for line ends
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        degraded, _, clean = (side.strip() for side in line.partition("|"))
        if not degraded or not clean or "|" in clean:
            problems.append(
                f"{path}:{number}: a line is degraded|clean, two paths with one bar between, not {line[:200]!r}"
            )
            continue
        if clean not in cleans:
            cleans[clean] = files.find(folder, clean)
        if not degraded.startswith("@"):
            pairs.append(Pair(cleans[clean], files.find(folder, degraded), "", number))
            continue
        synthesis = degraded[1:].strip()
        if synthesis not in wrong:
            wrong[synthesis] = _what_is_wrong_with(synthesis)
        if wrong[synthesis]:
            problems.append(f"{path}:{number}: {wrong[synthesis]}")
        else:
            pairs.append(Pair(cleans[clean], None, synthesis, number))
    if not pairs and not problems:
        raise DataError(
            f"{path} holds no pairs; a line is degraded|clean (`vrdir pairs build` writes them)"
        )
    return pairs, problems


def survey(pairs: Iterable[Pair], source: Path) -> Survey:
    """Look at the header of every file of a list, once."""
    seen: dict[Path, _Header] = {}

    def header(path: Path) -> _Header:
        if path not in seen:
            seen[path] = _header(path)
        return seen[path]

    problems, entries, cleans, synthesised = [], [], set[Path](), 0
    for pair in pairs:
        clean = header(pair.clean)
        cleans.add(pair.clean)
        found = [clean.problem] if clean.problem else []
        if pair.degraded is None:
            synthesised += 1
            entries.append(f"@{pair.synthesis}|{pair.clean.name}|{clean.length}")
        else:
            degraded = header(pair.degraded)
            entries.append(
                f"{pair.degraded.name}|{degraded.length}|{pair.clean.name}|{clean.length}"
            )
            if degraded.problem:
                found.insert(0, degraded.problem)
            elif not clean.problem and degraded.identity == clean.identity:
                found.append(
                    f"{pair.degraded} is both the degraded and the clean image; write @clean for one that is to stay as it is"
                )
            elif not clean.problem and degraded.size != clean.size:
                sizes = (f"{width} x {height}" for width, height in (degraded.size, clean.size))
                found.append(
                    f"{pair.degraded} is {next(sizes)} pixels, {pair.clean} is {next(sizes)}; crop or resize one of them first"
                )
        problems += [f"{source}:{pair.line}: {problem}" for problem in found]
    known = [seen[path].size for path in cleans if not seen[path].problem]
    widths, heights = (
        (min(extents), max(extents)) for extents in zip(*known or [(0, 0)], strict=True)
    )
    entries = sorted(map(composed, entries))
    fingerprint = hashlib.sha256("\n".join(entries).encode("utf-8", "surrogateescape")).hexdigest()
    return Survey(problems, len(entries), synthesised, len(cleans), widths, heights, fingerprint)


def _what_is_wrong_with(synthesis: str) -> str:
    try:
        check_synthesis(synthesis)
    except InputError as error:
        return first_line(error)
    return ""


def _header(path: Path) -> _Header:
    """Of a file; its problem is "" if it can be opened as an image by `images.open_image`, as far as the header tells."""
    size, length, identity = (0, 0), 0, (0, 0)
    try:
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            length, identity = facts.st_size, (facts.st_dev, facts.st_ino)
            with open_header(file, str(path)) as picture:
                size, problem = _upright_size(picture), _cannot_be_used(picture)
                problem = problem and f"{path} {problem}"
    except FileNotFoundError:
        problem = f"{path} does not exist"
    except IsADirectoryError:
        problem = f"{path} is a folder, not an image"
    except ImageError as error:
        problem = str(error)
    except UnidentifiedImageError:
        problem = (
            f"{path} is no image, or of a file format that Pillow does not know"
            if length
            else f"{path} is empty (0 bytes)"
        )
    except Exception as error:  # decoders of damaged files raise all sorts
        problem = f"{path} cannot be read ({first_line(error)})"
    return _Header(size, length, identity, problem)


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    if picture.format == "TIFF":  # Pillow has turned it already
        return picture.size
    # The getexif of a PNG decodes the whole of it if there is none; that of its base does not.
    sideways = Image.Image.getexif(picture).get(ORIENTATION, 1) in (5, 6, 7, 8)
    return picture.size[::-1] if sideways else picture.size


def _cannot_be_used(picture: Image.Image) -> str:
    frames = frames_of(picture, "it")
    if frames > 1:
        return f"holds {frames} frames or pages; save each as a file of its own first"
    if picture.mode not in MODES and picture.mode not in ("P", "PA"):
        return f"is a {picture.mode} picture; convert it to RGB first"
    return ""


class _Names:
    """How paths are written in a list."""

    def __init__(self, path: Path) -> None:
        real = path.parent.resolve()
        # Both what the caller calls the list's folder and what it is: data may be named by either.
        self.relative = {f"{base}{os.sep}": "" for base in (path.parent.absolute(), real)}
        if real.parent != real.parent.parent:  # where that holds the whole disk, "../" says nothing
            self.relative[f"{real.parent}{os.sep}"] = "../"
        self.folders: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        if path.parent not in self.folders:
            folder = path.parent.absolute()
            # Up from a linked folder is not up from its name.
            self.folders[path.parent] = f"{folder.resolve() if '..' in folder.parts else folder}"
        absolute = os.path.join(self.folders[path.parent], path.name)  # noqa: PTH118 - a million Paths take their time
        base = next((base for base in self.relative if absolute.startswith(base)), None)
        text = absolute if base is None else self.relative[base] + absolute[len(base) :]
        text = text.replace(os.sep, "/")
        if "|" in text or "\n" in text or text != text.rstrip() or not _is_utf8(text):
            raise DataError(
                f"{text!r} cannot stand in a pair list: rename it without bars, line breaks, spaces at its end or broken letters"
            )
        return f"./{text}" if text[0] in "#@\ufeff" or text[0].isspace() else text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(path: Path) -> str:
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a pair list; `vrdir pairs build` writes one")
    try:
        return read_text(path)
    except FileNotFoundError:
        raise MissingFileError(
            f"there is no pair list {path}; `vrdir pairs build` writes one"
        ) from None
    except ValueError as error:
        raise DataError(f"{error}; a pair list is a text file of lines degraded|clean") from None


def _together(problems: Sequence[str], path: Path) -> str:
    named = "; ".join(problems[:NAMED])
    if len(problems) <= NAMED:
        return named
    return f"{named}; and {len(problems) - NAMED:,} more problems (`vrdir pairs check {path}` names them all)"


def _size(image: Tensor) -> str:
    return f"{image.shape[3]} x {image.shape[2]} pixels"
