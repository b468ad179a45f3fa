"""Labelled data sets as they lie on disk. What does not fit together is excluded by name, never silently."""

from __future__ import annotations

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from vrdir.evaluation.recognition import Exclusion, Item, images_below, nothing_left
from vrdir.image_files.reading import IMAGE_SUFFIXES, open_header
from vrdir.image_files.whole_files import first_line

Array = np.ndarray[Any, np.dtype[Any]]

FILE_COLUMNS = ("file", "filename", "image", "path")
LABEL_COLUMNS = ("label", "index", "class", "target", "name")  # in this order: an index is clearer than a name
MARKET = re.compile(r"(?P<person>-1|\d+)_c(?P<camera>\d+)")
GALLERIES = ("gallery", "bounding_box_test")
BEYOND_PX = 2  # that a box may reach out of its image: labels are rounded, and some count pixels from 1
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


class Truth(NamedTuple):
    """The objects of an image.

    Attributes:
        boxes: (N, 4), x0, y0, x1, y1 in pixels.
        labels: the class of each, by name or number as the data set has it.
        ignored: (N,), neither to be found nor missed: crowds, and what VOC calls difficult.
    """

    boxes: Array
    labels: Sequence[str]
    ignored: Array


@dataclass(frozen=True)
class DetectionData:
    """Images and the objects in each."""

    items: Sequence[Item]
    truths: Sequence[Truth]
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


def read_detection(path: Path, images: Path | None = None) -> DetectionData:
    """Read images with boxes.

    Args:
        path: a COCO JSON file; or a folder with YOLO text files or VOC XML files, one for each image, beside it or under
            labels/ (Annotations/) as the images are under images/ (JPEGImages/). YOLO's class names stand in a YAML file
            or classes.txt of the folder; without one they are the recogniser's numbers.
        images: where the images lie, if elsewhere; a file of another suffix will do.

    Raises:
        FileNotFoundError: there is no such folder or file.
        ValueError: it is no such data set, or nothing in it can be used.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}")
    data = _by_label_files(path, images) if path.is_dir() else _by_coco(path, images or path.parent)
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
            item = _item(file, path)
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
    _check_distinct(items)
    return ReidData(items, persons, cameras, queries, excluded, junk)


def class_numbers(labels: Iterable[str], classes: Sequence[str]) -> tuple[dict[str, int], dict[str, str]]:
    """What the labels of a data set are among a recogniser's classes.

    A label is a class's name (case, underscores and Darknet's spellings do not matter), or its number from 0. If the labels are
    WordNet ids, as many as there are classes, they are the classes in ascending order, as ImageNet has it.

    Returns:
        Label -> number, and label -> what is wrong with it.
    """
    labels = sorted(set(labels))
    if len(labels) == len(classes) and all(re.fullmatch(r"n\d{8}", label) for label in labels):
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
        if entry.is_dir():
            files = images_below(entry)
            if not files:
                excluded.append(Exclusion(f"{entry.name}/", "an empty class: no image in its folder"))
            items += [_item(file, path) for file in files]
            labels += [entry.name] * len(files)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            excluded.append(Exclusion(entry.name, "an image without label: it lies in no class's folder"))
    _check_distinct(items)
    return ClassificationData(items, labels, excluded)


def _by_csv(path: Path, images: Path) -> ClassificationData:
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
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
    there = _Files(images)
    items, labels, excluded = [], [], []
    for row in rows:
        name, label = row[file_column] or "", (row[label_column] or "").strip()
        file = there.take(name)
        if file is None:
            excluded.append(Exclusion(name, f"a label without image: not found in {images}"))
        elif not label:
            excluded.append(Exclusion(name, f"an image without label: {label_column} is empty in {path.name}"))
        else:
            items.append(_item(file, images))
            labels.append(label)
    excluded += [Exclusion(name, f"an image without label: not in {path.name}") for name in there.left()]
    _check_distinct(items)
    return ClassificationData(items, labels, excluded)


def _by_coco(path: Path, images: Path) -> DetectionData:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        categories = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        listed = [(entry["id"], str(entry["file_name"]), (entry.get("width"), entry.get("height"))) for entry in content["images"]]
        for what, numbers in (("category", [e["id"] for e in content["categories"]]), ("image", [number for number, _, _ in listed])):
            if len(set(numbers)) < len(numbers):
                raise ValueError(f"two of one {what} id")
        objects: dict[Any, list[tuple[list[float], str, bool]]] = {number: [] for number, _, _ in listed}
        astray = 0
        for entry in content["annotations"]:
            x, y, width, height = map(float, entry["bbox"])
            one = ([x, y, x + width, y + height], categories[entry["category_id"]], bool(entry.get("iscrowd", 0)))
            if entry["image_id"] in objects:
                objects[entry["image_id"]].append(one)
            else:
                astray += 1
    except (ValueError, KeyError, TypeError) as error:
        problem = f"no {error}" if isinstance(error, KeyError) else first_line(error)
        raise ValueError(f"{path} is no COCO file of images, annotations and categories ({problem})") from None
    there = _Files(images)
    found = _Boxes()
    if astray:
        found.excluded.append(Exclusion(f"{astray} boxes", f"their image is not listed in {path.name}"))
    for number, name, size in listed:
        file = there.take(name)
        if file is None:
            found.excluded.append(Exclusion(name, f"a label without image: not found in {images}"))
        else:
            found.add(_item(file, images), objects[number], size if None not in size else None)
    found.excluded += [Exclusion(name, f"an image without label: not in {path.name}") for name in there.left()]
    return found.data()


def _by_label_files(path: Path, images: Path | None) -> DetectionData:
    """YOLO or VOC, whichever the folder holds."""
    images = images or next((path / name for name in ("images", "JPEGImages") if (path / name).is_dir()), path)
    labels = next((path / name for name in ("labels", "Annotations") if (path / name).is_dir()), path)
    files: dict[str, Path] = {}  # by their place below the folder, without suffix
    for suffix in (".xml", ".txt"):
        of_kind = [file for file in sorted(labels.rglob(f"*{suffix}")) if file.stem.lower() not in ("classes", "readme")]
        files = {file.relative_to(labels).with_suffix("").as_posix(): file for file in of_kind}
        if files:
            break
    if not files:
        raise ValueError(f"{labels} holds no labels: no .txt (YOLO) and no .xml (VOC) files")
    names = _yolo_names(path) if suffix == ".txt" else None
    found, taken = _Boxes(), set[Path]()
    listed = images_below(images)
    stems, label_stems = Counter(image.stem for image in listed), Counter(file.stem for file in files.values())
    by_stem = {file.stem: file for file in files.values()}
    for image in listed:
        item = _item(image, images)
        # In another folder a name decides only where it is the only one: train/1 and val/1 are two images.
        alone = stems[image.stem] == label_stems[image.stem] == 1
        file = files.get(item.name) or (by_stem[image.stem] if alone else None)
        if file is None:
            found.excluded.append(Exclusion(item.name, f"an image without label: no {image.stem}{suffix} (an empty file says: no object)"))
            continue
        taken.add(file)
        try:
            objects = _voc_objects(file) if suffix == ".xml" else _yolo_objects(file, names, _size_of(image))
        except Exception as error:  # text and XML go wrong in many ways
            found.excluded.append(Exclusion(item.name, f"{file.name} cannot be read: {first_line(error)}"))
        else:
            found.add(item, objects, None)
    without = sorted(set(files.values()) - taken)
    found.excluded += [Exclusion(file.name, f"a label without image: no {file.stem}.* in {images}") for file in without]
    return found.data()


def _yolo_objects(file: Path, names: Mapping[int, str] | None, size: tuple[int, int]) -> list[tuple[list[float], str, bool]]:
    """Lines of class, centre x and y, width and height, as shares of the image."""
    width, height = size
    objects = []
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) > 5:  # polygons and turned boxes have x and y of each corner
            raise ValueError(f"line {number} has {len(parts)} numbers: a polygon or a turned box, not class, centre x and y, width, height")
        try:
            kind, x, y, w, h = (float(part) for part in parts)
        except ValueError:
            raise ValueError(f"line {number} is not: class, centre x, centre y, width, height") from None
        if kind != int(kind):
            raise ValueError(f"line {number}: a class is a whole number, not {parts[0]}")
        if names is not None and int(kind) not in names:
            raise ValueError(f"line {number}: class {int(kind)} is none of the {len(names)} that are named")
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        objects.append((box, names[int(kind)] if names is not None else str(int(kind)), False))
    return objects


def _yolo_names(path: Path) -> dict[int, str] | None:
    """The class names of a folder, or None if it does not say."""
    for file in (path / "classes.txt", path.parent / "classes.txt"):
        if file.is_file():
            return dict(enumerate(file.read_text(encoding="utf-8").splitlines()))
    for file in sorted([*path.glob("*.y*ml"), *path.parent.glob("*.y*ml")]):
        try:
            import yaml
        except ModuleNotFoundError:
            raise ValueError(f"{file} names the classes in YAML: pip install 'vrdir[evaluate]', or write a classes.txt") from None
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, list):
            return {number: str(name) for number, name in enumerate(names)}
        if isinstance(names, dict):
            return {int(number): str(name) for number, name in names.items()}
    return None


def _voc_objects(file: Path) -> list[tuple[list[float], str, bool]]:
    """Objects of an annotation; VOC counts pixels from 1, and both corners are inside."""
    objects = []
    for entry in ElementTree.parse(file).getroot().iter("object"):
        box = [float(entry.findtext(f"bndbox/{edge}") or "nan") for edge in ("xmin", "ymin", "xmax", "ymax")]
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append(([box[0] - 1, box[1] - 1, box[2], box[3]], (entry.findtext("name") or "").strip(), difficult))
    return objects


class _Boxes:
    """Images with boxes, as they are read."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.truths: list[Truth] = []
        self.excluded: list[Exclusion] = []

    def add(self, item: Item, objects: Sequence[tuple[list[float], str, bool]], size: tuple[int, int] | None) -> None:
        """Take an image in, or exclude it: with one wrong box, what a detector rightly finds there would count as false."""
        try:
            there = _size_of(item.path)
        except Exception as error:  # decoders of damaged files raise all sorts
            self.excluded.append(Exclusion(item.name, f"{item.path} cannot be read ({first_line(error)})"))
            return
        problem = next((text for box, _, _ in objects if (text := _what_is_wrong_with(box, there))), "")
        if size is not None and tuple(size) != there:
            problem = f"the labels are for {size[0]} x {size[1]} pixels, the image has {there[0]} x {there[1]}"
        if problem:
            self.excluded.append(Exclusion(item.name, problem))
            return
        self.items.append(item)
        boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 4)
        self.truths.append(Truth(boxes, [label for _, label, _ in objects], np.array([ignored for *_, ignored in objects], bool)))

    def data(self) -> DetectionData:
        """All that was taken in."""
        _check_distinct(self.items)
        ignored = sum(int(truth.ignored.sum()) for truth in self.truths)
        if ignored:
            self.excluded.append(Exclusion(f"{ignored} boxes", "crowds or difficult: neither to be found nor missed"))
        return DetectionData(self.items, self.truths, self.excluded)


def _what_is_wrong_with(box: Sequence[float], size: tuple[int, int]) -> str:
    x0, y0, x1, y1 = box
    shown = ", ".join(f"{edge:.4g}" for edge in box)
    if not all(math.isfinite(edge) for edge in box) or x1 <= x0 or y1 <= y0:
        return f"the box {shown} (x0, y0, x1, y1) has no area"
    if min(x0, y0) < -BEYOND_PX or x1 > size[0] + BEYOND_PX or y1 > size[1] + BEYOND_PX:
        return f"the box {shown} (x0, y0, x1, y1) reaches out of its image of {size[0]} x {size[1]} pixels"
    return ""


def _size_of(path: Path) -> tuple[int, int]:
    """Width and height, upright, from the header."""
    with path.open("rb") as file, open_header(file, str(path)) as picture:
        sideways = picture.format != "TIFF" and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # Pillow turns a TIFF itself
        return (picture.height, picture.width) if sideways else picture.size


class _Files:
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


def _item(file: Path, root: Path) -> Item:
    return Item(file.relative_to(root).with_suffix("").as_posix(), file)


def _check_distinct(items: Sequence[Item]) -> None:
    """Degraded and restored images are found by name without suffix, so two of one name would be mixed up."""
    name, count = next(iter(Counter(item.name for item in items).most_common(1)), ("", 0))
    if count > 1:
        raise ValueError(f"{count} images are called {name}.*, or one is labelled twice; names must differ in more than the suffix")
