"""Labelled images and persons as they lie on disk. What does not fit together is excluded by name, never silently."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vrdir.errors import first_line
from vrdir.evaluation.recognition.protocol import nothing_left
from vrdir.evaluation.recognition.variants import Exclusion, Item, images_below, not_taken
from vrdir.images.folders import Names, composed, is_litter
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.text_files import read_text

Array = np.ndarray[Any, np.dtype[Any]]
FILE_COLUMNS = ("file", "filename", "image", "path")
LABEL_COLUMNS = (
    "label",
    "index",
    "class",
    "target",
    "name",
)  # in this order: an index is clearer than a name
MARKET = re.compile(r"(?P<person>-1|\d+)_c(?P<camera>\d+)")
GALLERIES = ("gallery", "bounding_box_test")
# Darknet's and VOC's names of COCO's classes
ALIASES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}


@dataclass(frozen=True)
class ClassificationData:
    """Images and the class of each, by name or number as the data set has it.

    `set_aside`, here and below, names images that are not asked for, such as junk or those beyond a limit: degraded versions of
    them may lie beside the others.
    """

    items: Sequence[Item]
    labels: Sequence[str]
    excluded: Sequence[Exclusion]
    set_aside: Sequence[str] = ()


@dataclass(frozen=True)
class ReidData:
    """Images of persons: who, seen by which camera, and whether it is a query; the others are the gallery."""

    items: Sequence[Item]
    persons: Sequence[int]
    cameras: Sequence[int]
    queries: Sequence[bool]
    excluded: Sequence[Exclusion]
    set_aside: Sequence[str] = ()


def read_classification(path: Path, images: Path | None = None) -> ClassificationData:
    """Read labelled images.

    Args:
        path: a folder with a folder per class; or a CSV file with a head, a column for the file (file, filename, image, path)
            and one for the label (label, index, class, target, name).
        images: what the CSV's files are relative to, its own folder by default; a file of another suffix will do.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is no such data set, or nothing in it can be used.
    """
    data = _by_folders(path) if path.is_dir() else _by_csv(path, images or path.parent)
    if not data.items:
        raise ValueError(f"{path}: {nothing_left(data.excluded)}")
    return data


def read_reid(path: Path) -> ReidData:
    """Read persons named as in Market-1501: 0002_c1s1_000451_03.jpg is person 2 seen by camera 1.

    Args:
        path: a folder with query/ and gallery/ (or bounding_box_test/).

    Returns:
        The images of both. By the Market-1501 protocol, gallery images of person -1 are junk and left out, and those of
        person 0 are distractors, which match nobody. A query of either is excluded.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: nothing can be used.
    """
    gallery = next(
        (path / name for name in GALLERIES if (path / name).is_dir()), path / GALLERIES[0]
    )
    items, persons, cameras, queries, excluded = [], [], [], [], []
    junk: list[str] = []
    for folder, is_query in ((path / "query", True), (gallery, False)):
        if not folder.is_dir():
            raise FileNotFoundError(
                f"there is no folder {folder}; re-identification needs query/ and gallery/ (or bounding_box_test/)"
            )
        for file in images_below(folder):
            item = item_of(file, path)
            match = MARKET.match(file.name)
            if match is None:
                excluded.append(
                    Exclusion(
                        item.name,
                        "its name tells no person and camera; 0002_c1... is person 2 seen by camera 1",
                    )
                )
                continue
            person = int(match["person"])
            if person == -1 and not is_query:
                junk.append(item.name)
            elif person < 1 and is_query:
                excluded.append(
                    Exclusion(item.name, "a query without a person: -1 is junk, 0 a distractor")
                )
            else:
                items.append(item)
                persons.append(person)
                cameras.append(int(match["camera"]))
                queries.append(is_query)
        excluded += [
            Exclusion(f"{folder.name}/{one.name}", one.reason) for one in not_taken(folder)
        ]
    if junk:
        excluded.append(
            Exclusion(
                f"{gallery.name}/-1_* ({len(junk)} images)",
                "junk by the Market-1501 protocol: neither right nor wrong",
            )
        )
    if not any(queries) or all(queries):
        raise ValueError(
            f"{path} holds no {'gallery' if any(queries) else 'query'}: {nothing_left(excluded)}"
        )
    check_distinct(items)
    return ReidData(items, persons, cameras, queries, excluded, junk)


WORDNET_ID = re.compile(r"n\d{8}")


def class_numbers(
    labels: Iterable[str], classes: Sequence[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """What the labels of a data set are among a recogniser's classes.

    A label is a class's name (case, underscores and Darknet's spellings do not matter), or its number from 0. If the labels are
    WordNet ids, as many as there are classes, and the classes are called otherwise, they are these in ascending order, as ImageNet has it.

    Returns:
        Label -> number, and label -> what is wrong with it.
    """
    labels = sorted(set(labels))
    if (
        len(labels) == len(classes)
        and all(map(WORDNET_ID.fullmatch, labels))
        and not any(map(WORDNET_ID.fullmatch, classes))
    ):
        return {label: number for number, label in enumerate(labels)}, {}
    places: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        places.setdefault(_plain(name), []).append(number)
    numbers, problems = {}, {}
    for label in labels:
        found = places.get(_plain(label), [])
        if len(found) == 1:
            numbers[label] = found[0]
        elif found:
            problems[label] = (
                f"label {label!r} is the name of the classes {' and '.join(map(str, found))}; use the number"
            )
        elif label.isdecimal() and len(label) < 10 and int(label) < len(classes):
            numbers[label] = int(label)
        else:
            shown = ", ".join(classes[:3])
            problems[label] = (
                f"label {label!r} is none of the recogniser's {len(classes)} classes ({shown}, ..., or 0 to {len(classes) - 1})"
            )
    return numbers, problems


def _plain(name: str) -> str:
    plain = re.sub(r"[_\s]+", " ", composed(name).strip().lower())
    return ALIASES.get(plain, plain)


def _by_folders(path: Path) -> ClassificationData:
    items, labels, excluded = [], [], []
    for entry in sorted(path.iterdir()):
        if is_litter(entry.name):  # left out everywhere, as by `vrdir restore`
            continue
        if entry.is_dir():
            files = images_below(entry)
            if not files and not not_taken(entry):
                excluded.append(
                    Exclusion(f"{entry.name}/", "an empty class: no image in its folder")
                )
            items += [item_of(file, path) for file in files]
            labels += [entry.name] * len(files)
        elif plain_suffix(entry) in IMAGE_SUFFIXES:
            excluded.append(
                Exclusion(entry.name, "an image without label: it lies in no class's folder")
            )
    excluded += not_taken(path)
    check_distinct(items)
    return ClassificationData(items, labels, excluded)


def _by_csv(path: Path, images: Path) -> ClassificationData:
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no folder or CSV file {path}") from None
    except csv.Error as error:
        raise ValueError(f"{path} is no CSV file ({first_line(error)})") from None
    head = list(rows[0]) if rows else []
    file_column = next((name for name in FILE_COLUMNS if name in head), None)
    label_column = next((name for name in LABEL_COLUMNS if name in head), None)
    if file_column is None or label_column is None:
        known = f"one of {', '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        raise ValueError(
            f"{path} has the columns {', '.join(map(str, head)) or 'none'}; it needs {known}"
        )
    there = FilesByName(images, (row[file_column] or "" for row in rows))
    items, labels, excluded = [], [], []
    for row in rows:
        name, label = row[file_column] or "", (row[label_column] or "").strip()
        file = there.take(name)
        if file is None:
            excluded.append(there.missing(name))
        elif not label:
            excluded.append(
                Exclusion(name, f"an image without label: {label_column} is empty in {path.name}")
            )
        else:
            items.append(item_of(file, images))
            labels.append(label)
    excluded += there.left(path.name)
    check_distinct(items)
    return ClassificationData(items, labels, excluded)


class FilesByName:
    """The images below a folder, found by name; with another suffix if need be.

    Args:
        folder: where they lie.
        wanted: all names that will be asked for. One with another machine's folders, or with none, means the only file whose path
            ends like it, if no other name does: C:\\data\\train\\1.jpg means train/1.jpg, or 1.png.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, folder: Path, wanted: Iterable[str] = ()) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images {folder}")
        self.folder = folder
        self.files = {file.relative_to(folder).as_posix(): file for file in images_below(folder)}
        self.stems: dict[str, str] = {}
        by_ending: dict[str, list[str]] = {}
        for name in self.files:
            self.stems.setdefault(PurePosixPath(name).with_suffix("").as_posix(), name)
            for ending in _endings(name):
                by_ending.setdefault(ending, []).append(name)
        asked = Counter(ending for name in set(wanted) for ending in _endings(name))
        self.alone = {
            ending: names[0]
            for ending, names in by_ending.items()
            if len(names) == 1 and asked[ending] == 1
        }
        self.names, self.stem_names = Names(self.files), Names(self.stems)
        self.others = {excluded.name for excluded in not_taken(folder)}
        self.taken: set[str] = set()

    def take(self, name: str) -> Path | None:
        """The file of that name, or None."""
        plain = PurePosixPath(name.replace("\\", "/"))
        if not plain.name:
            return None
        found = self.names.find(plain.as_posix())
        if found not in self.files:
            stem = self.stem_names.find(plain.with_suffix("").as_posix())
            found = self.stems.get(stem) or self._alone(plain)
        if found:
            self.taken.add(found)
        return self.files.get(found)

    def _alone(self, name: PurePosixPath) -> str:
        foreign = (
            name.is_absolute() or ".." in name.parts or not (self.folder / name.parent).is_dir()
        )
        if (
            not foreign and name.parent != PurePosixPath()
        ):  # its folder is here: what is missing there does not lie elsewhere
            return ""
        return next(
            (self.alone[ending] for ending in _endings(name.as_posix()) if ending in self.alone), ""
        )

    def missing(self, name: str) -> Exclusion:
        """Why there is no file of that name."""
        plain = PurePosixPath(name.replace("\\", "/")).as_posix()
        if plain in self.others:
            self.others.remove(plain)
            return Exclusion(
                name,
                f"a file of a type that is not read: {PurePosixPath(plain).suffix}; save images as PNG",
            )
        return Exclusion(name, f"a label without image: not found in {self.folder}")

    def left(self, listed_in: str) -> list[Exclusion]:
        """What was not taken, once all names were asked for."""
        images = [
            Exclusion(name, f"an image without label: not in {listed_in}")
            for name in self.files
            if name not in self.taken
        ]
        return images + [
            excluded for excluded in not_taken(self.folder) if excluded.name in self.others
        ]


def _endings(path: str) -> list[str]:
    """The ends of a path, the longest first: a/b.png is a/b.png, a/b, b.png and b. Letters are composed."""
    whole = PurePosixPath(composed(path.replace("\\", "/")))
    ends = [PurePosixPath(*whole.parts[start:]) for start in range(len(whole.parts))]
    return list(
        dict.fromkeys(
            text
            for end in ends
            if end.name
            for text in (end.as_posix(), end.with_suffix("").as_posix())
        )
    )


def item_of(file: Path, root: Path) -> Item:
    return Item(file.relative_to(root).with_suffix("").as_posix(), file)


def check_distinct(items: Sequence[Item]) -> None:
    """Degraded and restored images are found by name without suffix, so two of one name would be mixed up."""
    name, count = next(iter(Counter(item.name for item in items).most_common(1)), ("", 0))
    if count > 1:
        raise ValueError(
            f"{count} images are called {name}.*, or one is labelled twice; names must differ in more than the suffix"
        )
