"""Image files of a data set: their names, and the files that belong to them in other folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from vrdir.errors import DataError, ImageError, MissingFileError
from vrdir.images.folders import Names, files_below
from vrdir.images.formats import IMAGE_SUFFIXES

COMPANIONS = {
    "", ".bak", ".cache", ".cfg", ".csv", ".data", ".db", ".doc", ".docx", ".h5", ".html",
    ".ini", ".ipynb", ".json", ".jsonl", ".license", ".lock", ".log", ".mat", ".md", ".md5",
    ".names", ".npy", ".npz", ".onnx", ".parquet", ".pkl", ".pt", ".pth", ".py", ".rst",
    ".safetensors", ".sh", ".sha256", ".toml", ".tsv", ".txt", ".url", ".weights", ".xls",
    ".xlsx", ".xml", ".yaml", ".yml",
}  # fmt: skip
"""Suffixes of files that are often kept next to images and contain none."""


class Exclusion(NamedTuple):
    """Something that is excluded from all figures, and the reason.

    Attributes:
        name: an image, file or class.
        reason: why it is left out.
        by_protocol: the task's protocol leaves it out; it is valid.
    """

    name: str
    reason: str
    by_protocol: bool = False


class ImageFile(NamedTuple):
    """An image of a data set: its name (the path in the data set, without suffix) and its file."""

    name: str
    path: Path


class MatchedFolder:
    """A folder whose images belong to those of a data set, by their names.

    The file of an image is <folder>/<name of the image>.*, with the data set's sub-folders, or
    <folder>/<last part of the name>.*.

    Args:
        path: the folder.

    Raises:
        MissingFileError: there is no such folder, or no image in it.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise MissingFileError(f"folder {path} does not exist")
        self.path = path
        self.files: dict[str, list[Path]] = {}
        for file in images_below(path):
            name = file.relative_to(path).with_suffix("").as_posix()
            self.files.setdefault(name, []).append(file)
        self.names = Names(self.files)
        self.owners: dict[str, str] = {}  # of files that are found by the last part of the name
        if not self.files:
            raise MissingFileError(f"no images in {path}")

    def find(self, image: ImageFile) -> Path:
        """Return the file that belongs to an image of the data set.

        Raises:
            ImageError: there is no such file, or more than one.
        """
        found = self.files.get(self.names.find(image.name), [])
        if not found:
            last = _last_part(image.name)
            found = self.files.get(self.names.find(last), [])
            owner = self.owners.setdefault(last, image.name)
            if found and owner != image.name:
                raise ImageError(
                    f"{found[0]} matches both {owner} and {image.name}; keep the sub-folders of "
                    "the data set"
                )
        if len(found) != 1:
            holds = " and ".join(path.name for path in found) if found else f"no {image.name}.*"
            raise ImageError(
                f"{self.path} contains {holds}; one image for each clean one is needed"
            )
        return found[0]

    def unmatched(self, images: Sequence[ImageFile], known: Iterable[str]) -> list[Exclusion]:
        """Return the files in the folder that belong to no image, or have a type that is not read.

        Args:
            images: the data set's.
            known: names of images that are already excluded or set aside.

        Raises:
            DataError: no file belongs to any image, or one file to several images.
        """
        self._check_common_names(images)
        names = {
            self.names.find(name)
            for image in images
            for name in (image.name, _last_part(image.name))
        }
        for name in known:
            last = _last_part(name)
            # Names of what is excluded may end in a suffix.
            names |= {self.names.find(one) for one in (name, last, last.rpartition(".")[0])}
        others = [file for name, files in self.files.items() if name not in names for file in files]
        return [
            *(Exclusion(str(file), "there is no clean image of this name") for file in others),
            *(Exclusion(str(self.path / one.name), one.reason) for one in unread_files(self.path)),
        ]

    def _check_common_names(self, images: Sequence[ImageFile]) -> None:
        last_parts = Counter(_last_part(image.name) for image in images)
        names = {self.names.find(name) for name in {*last_parts, *(one.name for one in images)}}
        if names.isdisjoint(self.files):
            here = next(iter(self.files.values()))[0].name
            there = images[0].path.name if images else "none"
            raise DataError(
                f"no file in {self.path} has the name of a clean image: it contains {here}, the "
                f"data set {there}; use the same names (suffixes may differ)"
            )
        for image in images:
            last = _last_part(image.name)
            found_whole = self.names.find(image.name) in self.files
            if not found_whole and last_parts[last] > 1 and self.names.find(last) in self.files:
                raise DataError(
                    f"{self.path} contains one {last}.*, but the data set has several; keep the "
                    f"sub-folders, as in {image.name}.*"
                )


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder and its sub-folders, sorted.

    Hidden folders are left out. Linked folders are entered: data sets are often made of links.
    """
    return sorted(files_below(folder, unreadable=lambda error: None))


class _UnreadSuffixes:
    """The suffixes of files that may contain images but are not read."""

    def __contains__(self, suffix: object) -> bool:
        return suffix not in IMAGE_SUFFIXES and suffix not in COMPANIONS


def unread_files(folder: Path) -> list[Exclusion]:
    """Return the files below a folder that may contain images, but whose type is not read."""
    files = sorted(files_below(folder, _UnreadSuffixes(), unreadable=lambda error: None))
    return [
        Exclusion(
            file.relative_to(folder).as_posix(),
            f"a file of a type that is not read: {file.suffix or 'no suffix'}; save images as PNG",
        )
        for file in files
    ]


def nothing_left(excluded: Sequence[Exclusion]) -> str:
    """Return the message for the case that no image can be measured."""
    if not excluded:
        return "there is no image to measure"
    last = excluded[-1]
    return (
        f"nothing is left to measure: {len(excluded)} exclusions, "
        f"such as {last.name}: {last.reason}"
    )


def _last_part(name: str) -> str:
    return name.rpartition("/")[2]
