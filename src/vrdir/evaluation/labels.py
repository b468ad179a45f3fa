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

from vrdir.evaluation.recognition import nothing_left
from vrdir.evaluation.variants import Exclusion, Item, images_below
from vrdir.image_files.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.image_files.regular_files import read_text
from vrdir.image_files.whole_files import first_line

Array = np.ndarray[Any, np.dtype[Any]]
FILE_COLUMNS = ("file", "filename", "image", "path")
LABEL_COLUMNS = ("label", "index", "class", "target", "name")  # in this order: an index is clearer than a name
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
    gallery = next((path / name for name in GALLERIES if (path / name).is_dir()), path / GALLERIES[0])
    items, persons, cameras, queries, excluded = [], [], [], [], []
    junk: list[str] = []
    for folder, is_query in ((path / "query", True), (gallery, False)):
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}; re-identification needs query/ and gallery/ (or bounding_box_test/)")
        for file in images_below(folder):
            item = item_of(file, path)
            match = MARKET.match(file.name)
            if match is None:
                excluded.append(Exclusion(item.name, "its name tells no person and camera; 0002_c1... is person 2 seen by camera 1"))
                continue
            person = int(match["person"])
            if person == -1 and not is_query:
                junk.append(item.name)
            elif person < 1 and is_query:
                excluded.append(Exclusion(item.name, "a query without a person: -1 is junk, 0 a distractor"))
            else:
                items.append(item)
                persons.append(person)
                cameras.append(int(match["camera"]))
                queries.append(is_query)
    if junk:
        excluded.append(Exclusion(f"{gallery.name}/-1_* ({len(junk)} images)", "junk by the Market-1501 protocol: neither right nor wrong"))
    if not any(queries) or all(queries):
        raise ValueError(f"{path} holds no {'gallery' if any(queries) else 'query'}: {nothing_left(excluded)}")
    check_distinct(items)
    return ReidData(items, persons, cameras, queries, excluded, junk)


WORDNET_ID = re.compile(r"n\d{8}")


def class_numbers(labels: Iterable[str], classes: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
    """What the labels of a data set are among a recogniser's classes.

    A label is a class's name (case, underscores and Darknet's spellings do not matter), or its number from 0. If the labels are
    WordNet ids, as many as there are classes, and the classes are called otherwise, they are these in ascending order, as ImageNet has it.

    Returns:
        Label -> number, and label -> what is wrong with it.
    """
    labels = sorted(set(labels))
    if len(labels) == len(classes) and all(map(WORDNET_ID.fullmatch, labels)) and not any(map(WORDNET_ID.fullmatch, classes)):
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
            problems[label] = f"label {label!r} is the name of the classes {' and '.join(map(str, found))}; use the number"
        elif label.isdecimal() and int(label) < len(classes):
            numbers[label] = int(label)
        else:
            shown = ", ".join(classes[:3])
            problems[label] = (
                f"label {label!r} is none of the recogniser's {len(classes)} classes ({shown}, ..., or 0 to {len(classes) - 1})"
            )
    return numbers, problems


def _plain(name: str) -> str:
    plain = re.sub(r"[_\s]+", " ", name.strip().lower())
    return ALIASES.get(plain, plain)


def _by_folders(path: Path) -> ClassificationData:
    items, labels, excluded = [], [], []
    for entry in sorted(path.iterdir()):
        if entry.name.startswith("."):  # left out everywhere, as by `vrdir restore`
            continue
        if entry.is_dir():
            files = images_below(entry)
            if not files:
                excluded.append(Exclusion(f"{entry.name}/", "an empty class: no image in its folder"))
            items += [item_of(file, path) for file in files]
            labels += [entry.name] * len(files)
        elif plain_suffix(entry) in IMAGE_SUFFIXES:
            excluded.append(Exclusion(entry.name, "an image without label: it lies in no class's folder"))
    check_distinct(items)
    return ClassificationData(items, labels, excluded)


def _by_csv(path: Path, images: Path) -> ClassificationData:
    try:
        rows = list(csv.DictReader(read_text(path, "utf-8-sig").splitlines()))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no folder or CSV file {path}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV file in UTF-8 ({first_line(error)})") from None
    head = list(rows[0]) if rows else []
    file_column = next((name for name in FILE_COLUMNS if name in head), None)
    label_column = next((name for name in LABEL_COLUMNS if name in head), None)
    if file_column is None or label_column is None:
        known = f"one of {', '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        raise ValueError(f"{path} has the columns {', '.join(map(str, head)) or 'none'}; it needs {known}")
    there = FilesByName(images)
    items, labels, excluded = [], [], []
    for row in rows:
        name, label = row[file_column] or "", (row[label_column] or "").strip()
        file = there.take(name)
        if file is None:
            excluded.append(Exclusion(name, f"a label without image: not found in {images}"))
        elif not label:
            excluded.append(Exclusion(name, f"an image without label: {label_column} is empty in {path.name}"))
        else:
            items.append(item_of(file, images))
            labels.append(label)
    excluded += [Exclusion(name, f"an image without label: not in {path.name}") for name in there.left()]
    check_distinct(items)
    return ClassificationData(items, labels, excluded)


class FilesByName:
    """The images below a folder, found by name; with another suffix if need be."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder of images {folder}")
        self.files = {file.relative_to(folder).as_posix(): file for file in images_below(folder)}
        self.stems: dict[str, str] = {}
        for name in self.files:
            self.stems.setdefault(PurePosixPath(name).with_suffix("").as_posix(), name)
        self.taken: set[str] = set()

    def take(self, name: str) -> Path | None:
        """The file of that name, or None."""
        plain = PurePosixPath(name.replace("\\", "/"))
        found = (
            plain.as_posix() if plain.as_posix() in self.files else self.stems.get(plain.with_suffix("").as_posix() if plain.name else "")
        )
        if found is None:
            return None
        self.taken.add(found)
        return self.files[found]

    def left(self) -> list[str]:
        """The names that were not taken."""
        return [name for name in self.files if name not in self.taken]


def item_of(file: Path, root: Path) -> Item:
    return Item(file.relative_to(root).with_suffix("").as_posix(), file)


def check_distinct(items: Sequence[Item]) -> None:
    """Degraded and restored images are found by name without suffix, so two of one name would be mixed up."""
    name, count = next(iter(Counter(item.name for item in items).most_common(1)), ("", 0))
    if count > 1:
        raise ValueError(f"{count} images are called {name}.*, or one is labelled twice; names must differ in more than the suffix")
