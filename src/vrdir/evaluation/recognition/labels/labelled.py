"""Labelled images, and finding the image files that labels name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from vrdir.errors import DataError, MissingFileError
from vrdir.evaluation.recognition.image_files import (
    Exclusion,
    ImageFile,
    images_below,
    nothing_left,
    unread_files,
)
from vrdir.images.folders import Names, folded

Label = TypeVar("Label")


@dataclass(frozen=True)
class LabelledImages(Generic[Label]):
    """Images and their labels.

    Attributes:
        images: the images.
        labels: the label of each; what it is depends on the task.
        excluded: what cannot be used, and why.
        set_aside: names of images that are not evaluated, such as junk or those beyond a limit.
            Degraded versions of them may be in the folders of degraded images.
    """

    images: Sequence[ImageFile]
    labels: Sequence[Label]
    excluded: Sequence[Exclusion] = ()
    set_aside: Sequence[str] = ()

    def first(
        self, count: int, key: Callable[[ImageFile, Label], Any]
    ) -> tuple[LabelledImages[Label], int]:
        """Return the images of the first keys, and how many different keys there are.

        Args:
            count: how many keys to keep, in sorted order.
            key: what is counted, such as an image's name or the person in it; None for images that
                do not count and are set aside, too.
        """
        keys = [key(image, label) for image, label in zip(self.images, self.labels, strict=True)]
        different = sorted(set(keys) - {None})
        if len(different) <= count:
            return self, len(different)
        wanted = set(different[:count])
        kept = [i for i, one in enumerate(keys) if one in wanted]
        beyond = [
            image.name for image, one in zip(self.images, keys, strict=True) if one not in wanted
        ]
        shortened = replace(
            self,
            images=[self.images[i] for i in kept],
            labels=[self.labels[i] for i in kept],
            set_aside=[*self.set_aside, *beyond],
        )
        return shortened, len(different)

    def checked(self, path: Path) -> LabelledImages[Label]:
        """Return the images themselves.

        Raises:
            DataError: there is no image, or two have the same name.
        """
        check_distinct(self.images)
        if not self.images:
            raise DataError(f"{path}: {nothing_left(self.excluded)}")
        return self


class FilesByName:
    r"""The images below a folder, found by the names that labels give; the suffix may differ.

    Args:
        folder: contains the images.
        wanted: all names that will be looked up. A name with another machine's folders, or with
            none, means the only file whose path ends like it, if no other name does, too:
            C:\data\train\1.jpg means train/1.jpg, or train/1.png.

    Raises:
        MissingFileError: there is no such folder.
    """

    def __init__(self, folder: Path, wanted: Iterable[str] = ()) -> None:
        if not folder.is_dir():
            raise MissingFileError(f"the image folder {folder} does not exist")
        self.folder = folder
        self.files = {file.relative_to(folder).as_posix(): file for file in images_below(folder)}
        self.stems: dict[str, str] = {}
        for name in self.files:
            self.stems.setdefault(PurePosixPath(name).with_suffix("").as_posix(), name)
        self.unique_endings = self._unique_endings(wanted)
        self.names, self.stem_names = Names(self.files), Names(self.stems)
        self.unread = {excluded.name for excluded in unread_files(folder)}
        self.taken: set[str] = set()

    def _unique_endings(self, wanted: Iterable[str]) -> dict[str, str]:
        """Return the endings of paths that one file has and one wanted name has -> the file."""
        files: dict[str, list[str]] = {}
        for name in self.files:
            for ending in _endings(name):
                files.setdefault(ending, []).append(name)
        asked = Counter(ending for name in set(wanted) for ending in _endings(name))
        return {
            ending: names[0]
            for ending, names in files.items()
            if len(names) == 1 and asked[ending] == 1
        }

    def take(self, name: str) -> Path | None:
        """Return the file of a name, or None if there is none."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if not plain.name:
            return None
        found = self.names.find(plain.as_posix())
        if found not in self.files:
            stem = self.stem_names.find(plain.with_suffix("").as_posix())
            found = self.stems.get(stem) or self._by_ending(plain)
        if found:
            self.taken.add(found)
        return self.files.get(found)

    def _by_ending(self, name: PurePosixPath) -> str:
        foreign = (
            name.is_absolute() or ".." in name.parts or not (self.folder / name.parent).is_dir()
        )
        # If the name's folder exists here, a file that is missing in it is not elsewhere.
        if not foreign and name.parent != PurePosixPath():
            return ""
        endings = (ending for ending in _endings(name.as_posix()) if ending in self.unique_endings)
        return self.unique_endings.get(next(endings, ""), "")

    def missing(self, name: str) -> Exclusion:
        """Return the exclusion of a label whose image is not there."""
        plain = PurePosixPath(name.replace("\\", "/")).as_posix()
        if plain in self.unread:
            self.unread.remove(plain)
            suffix = PurePosixPath(plain).suffix
            reason = f"a file of a type that is not read: {suffix}; save images as PNG"
        else:
            reason = f"a label without image: not found in {self.folder}"
        return Exclusion(name, reason)

    def not_taken(self, labels: str) -> list[Exclusion]:
        """Return the exclusions of the images without a label, once all labels are read.

        Args:
            labels: the name of the file of labels.
        """
        images = [
            Exclusion(name, f"an image without label: not in {labels}")
            for name in self.files
            if name not in self.taken
        ]
        unread = [one for one in unread_files(self.folder) if one.name in self.unread]
        return images + unread


def _endings(path: str) -> list[str]:
    """Return the ends of a path, longest first: a/b.png is a/b.png, a/b, b.png and b.

    Letters are `folded`.
    """
    whole = PurePosixPath(folded(path.replace("\\", "/")))
    ends = [PurePosixPath(*whole.parts[start:]) for start in range(len(whole.parts))]
    texts = (
        text
        for end in ends
        if end.name
        for text in (end.as_posix(), end.with_suffix("").as_posix())
    )
    return list(dict.fromkeys(texts))


def image_of(file: Path, root: Path) -> ImageFile:
    """Return a file as an image of a data set in a folder."""
    return ImageFile(file.relative_to(root).with_suffix("").as_posix(), file)


def check_distinct(images: Sequence[ImageFile]) -> None:
    """Check that no two images have the same name, as degraded images are found by these names.

    Raises:
        DataError: two have the same name.
    """
    names = Counter(image.name for image in images)
    name, count = next(iter(names.most_common(1)), ("", 0))
    if count > 1:
        raise DataError(
            f"{count} images have the name {name}.*, or one is labelled twice; "
            "names must differ in more than the suffix"
        )
