"""Pair lists: degraded images and their clean twins, checked before they are used.

A line is `degraded|clean`. Relative paths are relative to the list's folder; blank lines and lines
that begin with `#` are skipped; a list from Windows may separate folders by backslashes. The line
`@noise:sigma=25|clean` is a pair whose degraded image is synthesised from the clean one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from vrdir.atomic import write_whole
from vrdir.degradations.degrade import apply_steps, with_one_grain
from vrdir.degradations.draws import seed_of
from vrdir.degradations.steps import check_steps, parse_degradations
from vrdir.errors import DataError, ImageError, InputError, MissingFileError, first_line
from vrdir.images.convert import open_image
from vrdir.images.folders import ForeignPaths, composed
from vrdir.images.formats import open_header
from vrdir.images.headers import upright_size
from vrdir.images.open_pictures import MODES
from vrdir.images.reading import frames_of
from vrdir.regular_files import open_regular
from vrdir.text_files import read_text

NAMED = 3  # most problems of a list that an error names


class Pair(NamedTuple):
    """A degraded image and the clean image that belongs to it.

    Attributes:
        clean: the clean file.
        degraded: the degraded file; None where it is synthesised from the clean one.
        synthesis: how, such as "noise:sigma=25"; "" for a degraded file.
        line: the line in its list, from 1.
    """

    clean: Path
    degraded: Path | None
    synthesis: str
    line: int


class Survey(NamedTuple):
    """A summary of the files of a list.

    Attributes:
        problems: each with its list and line.
        pairs: number of pairs.
        synthesised: number of pairs without a degraded file.
        clean: number of different clean files.
        widths, heights: least and greatest, in pixels, of the clean images that could be read;
            (0, 0) if none could.
        fingerprint: SHA-256 over the file names (with composed letters) and their lengths in bytes.
            It depends neither on the folder nor on the order of the lines.
    """

    problems: list[str]
    pairs: int
    synthesised: int
    clean: int
    widths: tuple[int, int]
    heights: tuple[int, int]
    fingerprint: str


class _Header(NamedTuple):
    """The facts of an image file that need no decoding."""

    size: tuple[int, int]  # width, height, upright
    length: int
    identity: tuple[int, int]  # the same for two names of one file
    problem: str


def read_pairs(path: Path) -> list[Pair]:
    """Read a pair list, without looking at its files.

    Raises:
        MissingFileError: there is no such list.
        DataError: it is a folder, not text, without pairs, or has wrong lines, which are named as
            list:line.
    """
    pairs, problems = scan(path)
    if problems:
        raise DataError(_together(problems, path))
    return pairs


def pair_problems(pairs: Sequence[Pair], source: Path) -> list[str]:
    """Return the problems of the files of a list, each named as list:line.

    Problems are: a missing file; a file that is not an image; more than one frame; colours that
    cannot be opened; two sizes that differ (upright, by the EXIF orientation); a degraded file that
    is the clean one.
    Only headers are read: a truncated photo is not found.
    """
    return survey(pairs, source).problems


def checked_pairs(path: Path) -> list[Pair]:
    """Read a pair list and check its files.

    Raises:
        MissingFileError: there is no such list.
        DataError: the list or its files have problems; the first few are named, with their number
            and the remedy.
    """
    pairs = read_pairs(path)
    problems = pair_problems(pairs, path)
    if problems:
        raise DataError(_together(problems, path))
    return pairs


def write_pairs(pairs: Sequence[Pair], path: Path) -> None:
    """Write a pair list, whole or not at all.

    A path below the list's folder, or below the parent of that folder, is written relative to the
    list, so that list and data can move together. Any other path is absolute.

    Raises:
        DataError: there are no pairs, or a name that a list cannot contain (a bar, a line break,
            not UTF-8).
        OSError: the list cannot be written.
    """
    if not pairs:
        raise DataError(f"there are no pairs to write to {path}")
    names = _Names(path)
    lines = []
    for pair in pairs:
        file = pair.degraded
        degraded = f"@{pair.synthesis}" if file is None else names.written(file)
        lines.append(f"{degraded}|{names.written(pair.clean)}\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole("".join(lines).encode(), path)


def open_pair(pair: Pair, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the degraded and the clean image, (1, 3, H, W) each, whole, in [0, 1].

    A synthesised image depends on the seed, the text of its degradations and the clean file's name
    alone. So it is the same at every validation, on every machine and in every folder. It is
    rounded to 8 bits, as a file would store it.

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
            f"{pair.degraded} is {_size(degraded)}, {pair.clean} is {_size(clean)}; the images of "
            "a pair must have the same size"
        )
    return degraded, clean


def synthesised(clean: Tensor, synthesis: str, file: Path, seed: int = 0) -> Tensor:
    """Return the degraded image of a clean one (1, 3, H, W), the same each time."""
    generator = torch.Generator().manual_seed(seed_of(seed, synthesis, composed(file.stem)))
    degraded = apply_steps(clean, parse_degradations(synthesis), generator)
    return (with_one_grain(clean, degraded) * 255).round() / 255


def check_synthesis(text: str) -> None:
    """Raise InputError if no degradations can be synthesised by a text such as "noise:sigma=25"."""
    check_steps(parse_degradations(text))


def scan(path: Path) -> tuple[list[Pair], list[str]]:
    """Return the pairs of a list, and the problems of its lines, each named as list:line.

    Raises:
        MissingFileError: there is no such list.
        DataError: it is a folder, not text, or has no lines.
    """
    folder, files = path.parent, ForeignPaths()
    pairs, problems = [], []
    # Many lines have the same clean file and the same synthesis.
    cleans: dict[str, Path] = {}
    wrong: dict[str, str] = {}
    # Not splitlines: a name may contain a character that splitlines treats as a line end.
    for number, line in enumerate(_text(path).split("\n"), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        degraded, _, clean = (side.strip() for side in line.partition("|"))
        if not degraded or not clean or "|" in clean:
            problems.append(
                f"{path}:{number}: a line must be degraded|clean, two paths with one bar between "
                f"them, not {line[:200]!r}"
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
            f"{path} contains no pairs; a line must be degraded|clean (`vrdir pairs build` writes "
            "them)"
        )
    return pairs, problems


def survey(pairs: Iterable[Pair], source: Path) -> Survey:
    """Read the header of every file of a list, once."""
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
                    f"{pair.degraded} is both the degraded and the clean image; write @clean for "
                    "one that must stay unchanged"
                )
            elif not clean.problem and degraded.size != clean.size:
                sizes = (f"{width} x {height}" for width, height in (degraded.size, clean.size))
                found.append(
                    f"{pair.degraded} is {next(sizes)} pixels, {pair.clean} is {next(sizes)}; crop "
                    "or resize one of them first"
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
    """Return the facts of a file. Its problem is "" if its header is that of an image."""
    size, length, identity = (0, 0), 0, (0, 0)
    try:
        with open_regular(path) as file:
            facts = os.fstat(file.fileno())
            length, identity = facts.st_size, (facts.st_dev, facts.st_ino)
            with open_header(file, str(path)) as picture:
                size, problem = upright_size(picture), _cannot_be_used(picture)
                problem = problem and f"{path} {problem}"
    except FileNotFoundError:
        problem = f"{path} does not exist"
    except IsADirectoryError:
        problem = f"{path} is a folder, not an image"
    except ImageError as error:
        problem = str(error)
    except UnidentifiedImageError:
        problem = (
            f"{path} is not an image, or has a file format that Pillow does not support"
            if length
            else f"{path} is empty (0 bytes)"
        )
    except Exception as error:  # decoders raise any error on damaged files
        problem = f"{path} cannot be read ({first_line(error)})"
    return _Header(size, length, identity, problem)


def _cannot_be_used(picture: Image.Image) -> str:
    frames = frames_of(picture, "it")
    if frames > 1:
        return f"contains {frames} frames or pages; save each as a separate file first"
    if picture.mode not in MODES and picture.mode not in ("P", "PA"):
        return f"is a {picture.mode} picture; convert it to RGB first"
    return ""


class _Names:
    """Writes paths as a list contains them, relative where possible."""

    def __init__(self, path: Path) -> None:
        real = path.parent.resolve()
        # The list's folder both as given and resolved: data may be named in either way.
        self.relative = {f"{base}{os.sep}": "" for base in (path.parent.absolute(), real)}
        if real.parent != real.parent.parent:  # "../" has no effect if it is the root folder
            self.relative[f"{real.parent}{os.sep}"] = "../"
        self.folders: dict[Path, str] = {}

    def written(self, path: Path) -> str:
        if path.parent not in self.folders:
            folder = path.parent.absolute()
            # The parent of a linked folder is not the parent of its name.
            self.folders[path.parent] = f"{folder.resolve() if '..' in folder.parts else folder}"
        # A million Path objects would be slow.
        absolute = os.path.join(self.folders[path.parent], path.name)  # noqa: PTH118
        base = next((base for base in self.relative if absolute.startswith(base)), None)
        text = absolute if base is None else self.relative[base] + absolute[len(base) :]
        text = text.replace(os.sep, "/")
        if "|" in text or "\n" in text or text != text.rstrip() or not _is_utf8(text):
            raise DataError(
                f"{text!r} cannot be in a pair list: rename it without bars, line breaks, trailing "
                "spaces or invalid characters"
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
            f"pair list {path} does not exist; `vrdir pairs build` writes one"
        ) from None
    except ValueError as error:
        raise DataError(f"{error}; a pair list is a text file of lines degraded|clean") from None


def _together(problems: Sequence[str], path: Path) -> str:
    named = "; ".join(problems[:NAMED])
    if len(problems) <= NAMED:
        return named
    more = f"{len(problems) - NAMED:,} more problems"
    return f"{named}; and {more} (`vrdir pairs check {path}` names them all)"


def _size(image: Tensor) -> str:
    return f"{image.shape[3]} x {image.shape[2]} pixels"
