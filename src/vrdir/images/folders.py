"""The files below a folder, and names and paths that were written on another system."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from vrdir.errors import InputError, MissingFileError
from vrdir.images.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, plain_suffix

logger = logging.getLogger(__name__)
# What `files_below` counts that cannot be counted by a suffix.
NO_SUFFIX, NO_FILE = "without a suffix", "pipe or device"
NAMED_TYPES = 6  # how many types of skipped files are named


def is_litter(name: str) -> bool:
    """Return whether a file or folder is hidden, or left by an archive program of a Mac.

    Such as ._0001.png and __MACOSX.
    """
    return name.startswith(".") or name == "__MACOSX"


def files_below(
    folder: Path,
    suffixes: Container[str] = IMAGE_SUFFIXES,
    *,
    without: Path | None = None,
    hidden: Callable[[str], bool] | None = is_litter,
    links: bool = True,
    others: Counter[str] | None = None,
    unreadable: Callable[[OSError], None] | None = None,
) -> Iterator[Path]:
    """Yield the files below a folder that have one of these suffixes.

    A folder's own files come first, sorted, then those of its sub-folders. Each folder is listed
    once, and its list is kept only while its files are yielded. A folder that several names lead
    to, such as a link to a folder above itself, is entered once.

    Args:
        folder: the folder.
        suffixes: in lower case.
        without: a folder to leave out, with everything below it.
        hidden: returns whether to leave out a file or folder of this name; None leaves out none.
        links: enter folders that are links. Files that are links are always yielded.
        others: counts the files that are left out for their suffix, by suffix; hidden ones do not
            count. See `skipped`.
        unreadable: called with the error of a folder that cannot be listed, which is then left out;
            None raises the error.
    """
    seen: set[tuple[int, int]] = set()
    if without is not None and without.is_dir() and not same_folder(folder, without):
        seen.add(_identity(without))
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            identity = _identity(here)
            if identity in seen:
                continue
            entries = _listed(here, hidden)
        except OSError as error:
            if unreadable is None:
                raise
            unreadable(error)
            continue
        seen.add(identity)
        folders = []
        for entry in entries:
            if is_folder(entry):
                if links or not entry.is_symlink():
                    folders.append(entry.path)
                continue
            kind = plain_suffix(entry.name) if is_file(entry) else NO_FILE
            if kind in suffixes:
                yield Path(entry.path)
            elif others is not None:
                others[kind or NO_SUFFIX] += 1
        waiting += reversed(folders)


def _listed(folder: str, hidden: Callable[[str], bool] | None) -> list[os.DirEntry[str]]:
    """Return the entries of a folder that are not hidden, sorted by name."""
    with os.scandir(folder) as listing:
        entries = [entry for entry in listing if hidden is None or not hidden(entry.name)]
    return sorted(entries, key=lambda entry: entry.name)


def images_in(
    folder: Path, unreadable: Callable[[OSError], None], without: Path | None = None
) -> list[Path]:
    """Return the image files below a folder, without hidden files; log how many are skipped.

    Args:
        folder: the folder.
        unreadable: called with the error of a folder that cannot be listed.
        without: a folder to leave out.

    Raises:
        MissingFileError: there is no image.
    """
    others = Counter[str]()
    found = list(files_below(folder, without=without, others=others, unreadable=unreadable))
    if not found:
        raise MissingFileError(
            f"no images in {folder}{f' but {skipped(others)}' if others else ''}; looked for the "
            "formats that Pillow reads"
        )
    if others:
        logger.warning("skipped in %s: %s", folder, skipped(others))
    return found


def skipped(others: Mapping[str, int]) -> str:
    """Return the files that `files_below` left out, in words.

    Such as "6 files of other types (3 .pdf, 2 .txt, 1 .dng)"; "" if there are none.
    """
    number = sum(others.values())
    if not number:
        return ""
    by_number = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count} {kind}" for kind, count in by_number[:NAMED_TYPES]]
    more = len(by_number) - len(named)
    types = ", ".join([*named, f"{more} more types"] if more else named)
    advice = ""
    if RAW_SUFFIXES & others.keys():
        advice = "; develop a camera's RAW files first (rawpy, darktable)"
    return f"{number} {'file' if number == 1 else 'files'} of other types ({types}){advice}"


def composed(name: str) -> str:
    """Return a name with its letters composed (Unicode NFC).

    Macs, and archives made on them, split "\u00e9" into "e" and its accent (NFD).
    """
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Return a name without what Windows and Macs do not distinguish: `composed`, small letters."""
    return composed(name).casefold()


class Names:
    """Names that are found as Windows and Macs find them.

    Their letters may be composed or not (see `composed`), and small or capital.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.composed: dict[str, list[str]] = {}
        self.folded: dict[str, list[str]] = {}
        for name in self.names:
            self.composed.setdefault(composed(name), []).append(name)
            self.folded.setdefault(folded(name), []).append(name)

    def find(self, name: str) -> str:
        """Return the known name that equals this one.

        Otherwise the one that is the same when composed, or else the one that differs only in
        capitals. The name itself is returned if there is no such name, or several.
        """
        if name in self.names:
            return name
        found = self.composed.get(composed(name)) or self.folded.get(folded(name), [])
        return found[0] if len(found) == 1 else name


class ForeignPaths:
    """Finds files by paths from another system.

    Letters may be composed differently, and folders separated by backslashes. Folders are listed
    once each.
    """

    def __init__(self) -> None:
        self.listings: dict[Path, Names] = {}

    def find(self, folder: Path, text: str) -> Path:
        """Return the file that a path below a folder, or an absolute one, means.

        The path itself is returned if there is no such file.
        """
        path = folder / text
        if (text.isascii() and "\\" not in text) or _exists(path):
            return path
        # A name that ends with a backslash does not mean a folder.
        other = text if text.endswith("\\") else text.replace("\\", "/")
        tries = (self._follow(folder, parts) for parts in dict.fromkeys((text, other)))
        return next((found for found in tries if _exists(found)), path)

    def _follow(self, folder: Path, text: str) -> Path:
        here = folder
        for part in PurePosixPath(text).parts:
            here = here / part if _exists(here / part) else here / self._listing(here).find(part)
        return here

    def _listing(self, folder: Path) -> Names:
        if folder not in self.listings:
            try:
                # As names: a hundred thousand Path objects would be slow.
                self.listings[folder] = Names(os.listdir(folder))  # noqa: PTH208
            except OSError:
                self.listings[folder] = Names(())
        return self.listings[folder]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as too long a name
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one; False for a broken link."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a regular file, or a link, which may lead to one.

    A broken link counts, so that reading it gives an error. A pipe does not: reading it may never
    end.
    """
    return entry.is_symlink() or entry.is_file()


def same_folder(one: Path, other: Path) -> bool:
    """Return whether two names lead to one folder."""
    return _identity(one) == _identity(other)


def check_writable(path: Path, folder: Path) -> None:
    """Check that a file can be written into a folder, which need not exist yet.

    Args:
        path: the file, as errors name it.
        folder: the folder.

    Raises:
        InputError: the folder, or the nearest above it, is a file or has no permission to write.
    """
    parent = next(
        above for above in (folder.absolute(), *folder.absolute().parents) if above.exists()
    )
    if not parent.is_dir():
        raise InputError(
            f"{path} cannot be written: {parent} is not a folder; choose another output"
        )
    if not os.access(parent, os.W_OK):
        raise InputError(
            f"{path} cannot be written: {parent} cannot be written to "
            "(its permissions forbid it, or its disk is read-only); choose another output"
        )


class RealPaths:
    """Finds the real paths of files, all links resolved. Folders are resolved once each."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def find(self, path: Path) -> str:
        """Return the real path of a file in its real folder; if the file is a link, it is kept."""
        folder, name = os.path.split(path)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        # As text: a hundred thousand Path objects would be slow.
        return os.path.join(self.folders[folder], name)  # noqa: PTH118


def _identity(folder: Path | str) -> tuple[int, int]:
    facts = Path(folder).stat()
    return facts.st_dev, facts.st_ino
