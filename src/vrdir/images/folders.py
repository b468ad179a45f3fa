"""The files below a folder: the one walk that restoring, training, pairing and measuring share."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from vrdir.images.formats import IMAGE_SUFFIXES, RAW_SUFFIXES, plain_suffix

NO_SUFFIX, NO_FILE = (
    "without a suffix",
    "pipe or device",
)  # what `files_below` counts that has no suffix to be counted by
NAMED_TYPES = 6  # of the types that were skipped, how many are named


def is_litter(name: str) -> bool:
    """Whether a file or folder is hidden, or what archives made on a Mac leave behind: ._0001.png, __MACOSX."""
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
    """The files below a folder that have one of these suffixes, as they are found: a folder's own, sorted, then its sub-folders'.

    Each folder is listed once and held only while its files are given out. A folder that several names lead to, such as a link to
    a folder above itself, is entered under the first of them only.

    Args:
        without: a folder to leave out, with all below it.
        hidden: names of files and folders to leave out, by default `is_litter`; None leaves out none.
        links: enter folders that are links. Files that are links are always taken.
        others: counts the files that are left out for their suffix, by suffix; hidden ones do not
            count. See `skipped`.
        unreadable: called with the error of a folder that cannot be listed, which is then passed over; None raises it.
    """
    seen = (
        {_identity(without)}
        if without is not None and without.is_dir() and not same_folder(folder, without)
        else set()
    )
    waiting = [str(folder)]
    while waiting:
        here = waiting.pop()
        try:
            identity = _identity(here)
            if identity in seen:
                continue
            with os.scandir(here) as listing:
                entries = sorted(
                    (entry for entry in listing if hidden is None or not hidden(entry.name)),
                    key=lambda entry: entry.name,
                )
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


def skipped(others: Mapping[str, int]) -> str:
    """What `files_below` left out, in words: "6 files of other types (3 .pdf, 2 .txt, 1 .dng)"; ""
    for nothing."""
    number = sum(others.values())
    if not number:
        return ""
    by_number = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    named = [f"{count} {kind}" for kind, count in by_number[:NAMED_TYPES]]
    more = len(by_number) - len(named)
    types = ", ".join([*named, f"{more} more types"] if more else named)
    advice = (
        "; develop a camera's RAW files first (rawpy, darktable)"
        if RAW_SUFFIXES & others.keys()
        else ""
    )
    return f"{number} {'file' if number == 1 else 'files'} of other types ({types}){advice}"


def composed(name: str) -> str:
    """A name with its letters composed (NFC). Macs, and archives made on them, part "\u00e9" into "e" and its accent (NFD)."""
    return unicodedata.normalize("NFC", name)


class Names:
    """Names that are found whether letters are composed or not: first as they are, then by what is the same when composed."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = set(names)
        self.composed: dict[str, list[str]] = {}
        for name in self.names:
            if not name.isascii():
                self.composed.setdefault(composed(name), []).append(name)

    def find(self, name: str) -> str:
        """The one among them that is this name; the name itself if there is none, or several."""
        found = [name] if name in self.names else self.composed.get(composed(name), [])
        return found[0] if len(found) == 1 else name


class ForeignPaths:
    """Files by paths that another system wrote: letters composed otherwise, folders parted by backslashes. Folders are listed once."""

    def __init__(self) -> None:
        self.listings: dict[Path, Names] = {}

    def find(self, folder: Path, text: str) -> Path:
        """The file that a path below a folder (or an absolute one) means; that path itself, if there is no such file."""
        path = folder / text
        if (text.isascii() and "\\" not in text) or _exists(path):
            return path
        tries = (
            self._walked(folder, parts) for parts in dict.fromkeys((text, text.replace("\\", "/")))
        )
        return next((found for found in tries if _exists(found)), path)

    def _walked(self, folder: Path, text: str) -> Path:
        here = folder
        for part in PurePosixPath(text).parts:
            here = here / part if _exists(here / part) else here / self._listed(here).find(part)
        return here

    def _listed(self, folder: Path) -> Names:
        if folder not in self.listings:
            try:
                self.listings[folder] = Names(os.listdir(folder))  # noqa: PTH208 - names, not a hundred thousand Paths
            except OSError:
                self.listings[folder] = Names(())
        return self.listings[folder]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, say
        return False


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link that leads nowhere, or to itself, is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link that may lead to one: who reads it will say so if it does not. A pipe would never end."""
    return entry.is_symlink() or entry.is_file()


def same_folder(one: Path, other: Path) -> bool:
    """Whether two names lead to one folder."""
    return _identity(one) == _identity(other)


def check_writable(path: Path, folder: Path) -> None:
    """Raise ValueError if `path` cannot be written into a folder: that, or the nearest above it, is a file or has no permission."""
    parent = next(
        above for above in (folder.absolute(), *folder.absolute().parents) if above.exists()
    )
    if not parent.is_dir():
        raise ValueError(f"{path} cannot be written: {parent} is no folder; choose another output")
    if not os.access(parent, os.W_OK):
        reason = "its permissions forbid it, or its disk can only be read"
        raise ValueError(
            f"{path} cannot be written: {parent} takes no files ({reason}); choose another output"
        )


class Places:
    """Where files really are, whatever links lead there. Folders are resolved once each, not with every file in them."""

    def __init__(self) -> None:
        self.folders: dict[str, str] = {}

    def of(self, path: Path) -> str:
        folder, name = os.path.split(path)
        if folder not in self.folders:
            self.folders[folder] = os.path.realpath(folder)
        return os.path.join(self.folders[folder], name)  # noqa: PTH118 - a hundred thousand of them


def _identity(folder: Path | str) -> tuple[int, int]:
    facts = Path(folder).stat()
    return facts.st_dev, facts.st_ino
