"""Images with boxes as they lie on disk: COCO, YOLO, VOC. What does not fit together is excluded by name, never silently."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from vrdir.errors import first_line
from vrdir.evaluation.recognition.labels.classification import (
    Array,
    FilesByName,
    check_distinct,
    item_of,
)
from vrdir.evaluation.recognition.protocol import nothing_left
from vrdir.evaluation.recognition.variants import Exclusion, Item, images_below, not_taken
from vrdir.images.folders import Names, composed, files_below
from vrdir.images.formats import open_header
from vrdir.regular_files import open_regular, read_regular
from vrdir.text_files import read_json, read_names, read_text
from vrdir.yaml_files import read_yaml

BEYOND_PX = (
    2  # that a box may reach out of its image: labels are rounded, and some count pixels from 1
)


Object = tuple[
    list[float], str, bool
]  # box as x0, y0, x1, y1 in pixels, class, whether it is ignored


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


def read_detection(path: Path, images: Path | None = None) -> DetectionData:
    """Read images with boxes.

    Args:
        path: a COCO JSON file; or a folder with YOLO text files or VOC XML files, one for each image, beside it or under
            labels/ (Annotations/) as the images are under images/ (JPEGImages/). YOLO's class names stand in
            classes.txt or a YAML file of the folder, or in a YAML file beside it that names it; else they are the recogniser's numbers.
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


def _by_coco(path: Path, images: Path) -> DetectionData:
    """An odd entry is excluded by name, with the image that it is of: what a detector rightly finds there would count as false."""
    content = read_json(path)
    parts = [
        content.get(part) if isinstance(content, dict) else None
        for part in ("images", "annotations", "categories")
    ]
    if not all(isinstance(part, list) for part in parts):
        raise ValueError(
            f"{path} is no COCO file of images, annotations and categories: it needs these three lists"
        )
    listed, annotations, categories = (
        [entry if isinstance(entry, dict) else {} for entry in part or ()] for part in parts
    )
    names = {
        _key(entry.get("id")): str(entry["name"])
        for entry in categories
        if isinstance(entry.get("name"), (str, int))
    }
    doubtful = _several(_key(entry.get("id")) for entry in categories)
    found = _Boxes()
    objects: dict[str, list[Object]] = {
        number: [] for entry in listed if (number := _key(entry.get("id")))
    }
    problems: dict[str, str] = {}
    astray = 0
    for entry in annotations:
        image, category = _key(entry.get("image_id")), _key(entry.get("category_id"))
        if image not in objects:
            astray += 1
            continue
        box = _coco_box(entry.get("bbox"))
        called = f"annotation {_shown(entry.get('id'))}"
        if box is None:
            problems.setdefault(image, f"{called} has no box: bbox {_shown(entry.get('bbox'))}")
        elif category not in names or category in doubtful:
            known = "two categories" if category in doubtful else "no category"
            problems.setdefault(
                image,
                f"{called} is of category {_shown(entry.get('category_id'))}, and {known} of {path.name} has that id",
            )
        else:
            objects[image].append((box, names[category], entry.get("iscrowd") in (1, "1")))
    there = FilesByName(images, (_file_name(entry) for entry in listed))
    if astray:
        found.excluded.append(
            Exclusion(f"{astray} boxes", f"their image is not listed in {path.name}")
        )
    names_twice, ids_twice = (
        _several(part(entry) for entry in listed)
        for part in (_file_name, lambda entry: _key(entry.get("id")))
    )
    for entry in listed:
        name, number = _file_name(entry), _key(entry.get("id"))
        file = there.take(name)
        if not name or not number:
            what = "file_name" if number else "id"
            found.excluded.append(
                Exclusion(
                    name or f"image {number or '?'}", f"an image without {what} in {path.name}"
                )
            )
            continue
        if name in names_twice:
            found.excluded.append(Exclusion(name, f"{path.name} lists it twice"))
        elif number in ids_twice:
            found.excluded.append(Exclusion(name, f"two of one image id, {number}, in {path.name}"))
        elif file is None:
            found.excluded.append(there.missing(name))
        elif number in problems:
            found.excluded.append(Exclusion(item_of(file, images).name, problems[number]))
        else:
            found.add(
                item_of(file, images),
                objects[number],
                (_side(entry.get("width")), _side(entry.get("height"))),
            )
    found.excluded += there.left(path.name)
    return found.data()


def _key(value: Any) -> str:
    """An id as text: 1, "1" and 1.0 are one; "" for what is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""


def _several(keys: Iterable[str]) -> set[str]:
    return {key for key, count in Counter(keys).items() if count > 1 and key}


def _file_name(entry: Mapping[str, Any]) -> str:
    name = entry.get("file_name")
    return name if isinstance(name, str) else ""


def _coco_box(value: Any) -> list[float] | None:
    """x, y, width, height -> x0, y0, x1, y1; None for anything else."""
    try:
        x, y, width, height = map(float, value if isinstance(value, list) else ())
    except (
        ValueError,
        TypeError,
        OverflowError,
    ):  # of the wrong number, no numbers, of hundreds of digits
        return None
    return [x, y, x + width, y + height]


def _side(value: Any) -> int:
    """An image's width or height, as a number or text; 0 where it is unknown."""
    try:
        return max(0, round(float(value)))
    except (ValueError, TypeError, OverflowError):
        return 0


def _shown(value: Any) -> str:
    """A value as an error shows it, not all of a long one."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _by_label_files(path: Path, images: Path | None) -> DetectionData:
    """YOLO or VOC, whichever the folder holds."""
    images = images or next(
        (path / name for name in ("images", "JPEGImages") if (path / name).is_dir()), path
    )
    labels = next(
        (path / name for name in ("labels", "Annotations") if (path / name).is_dir()), path
    )
    files: dict[str, Path] = {}  # by their place below the folder, without suffix
    for suffix in (".xml", ".txt"):
        listing = sorted(files_below(labels, {suffix}, unreadable=lambda error: None))
        of_kind = [file for file in listing if file.stem.lower() not in ("classes", "readme")]
        files = {file.relative_to(labels).with_suffix("").as_posix(): file for file in of_kind}
        if files:
            break
    if not files:
        raise ValueError(f"{labels} holds no labels: no .txt (YOLO) and no .xml (VOC) files")
    names = _yolo_names(path) if suffix == ".txt" else None
    found, taken = _Boxes(), set[Path]()
    listed = images_below(images)
    label_names, by_stem = Names(files), {composed(file.stem): file for file in files.values()}
    stems = Counter(composed(image.stem) for image in listed)
    label_stems = Counter(composed(file.stem) for file in files.values())
    for image in listed:
        item = item_of(image, images)
        # In another folder a name decides only where it is the only one: train/1 and val/1 are two images.
        stem = composed(image.stem)
        alone = stems[stem] == label_stems[stem] == 1
        file = files.get(label_names.find(item.name)) or (by_stem[stem] if alone else None)
        if file is None:
            found.excluded.append(
                Exclusion(
                    item.name,
                    f"an image without label: no {image.stem}{suffix} (an empty file says: no object)",
                )
            )
            continue
        taken.add(file)
        try:
            objects, size = (
                _voc_objects(file)
                if suffix == ".xml"
                else (_yolo_objects(file, names, _size_of(image)), (0, 0))
            )
        except Exception as error:  # text and XML go wrong in many ways
            found.excluded.append(
                Exclusion(item.name, f"{file.name} cannot be read: {first_line(error)}")
            )
        else:
            found.add(item, objects, size)
    without = sorted(set(files.values()) - taken)
    found.excluded += [
        Exclusion(file.name, f"a label without image: no {file.stem}.* in {images}")
        for file in without
    ]
    found.excluded += not_taken(images)
    return found.data()


def _yolo_objects(
    file: Path, names: Mapping[int, str] | None, size: tuple[int, int]
) -> list[Object]:
    """Lines of class, centre x and y, width and height, as shares of the image."""
    width, height = size
    objects = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        parts = line.split()
        if len(parts) > 5:  # polygons and turned boxes have x and y of each corner
            raise ValueError(
                f"line {number} has {len(parts)} numbers: a polygon or a turned box, not class, centre x and y, width, height"
            )
        try:
            kind, x, y, w, h = (float(part) for part in parts)
        except ValueError:
            raise ValueError(
                f"line {number} is not: class, centre x, centre y, width, height"
            ) from None
        if not kind.is_integer():
            raise ValueError(f"line {number}: a class is a whole number, not {parts[0][:40]}")
        if names is not None and int(kind) not in names:
            raise ValueError(
                f"line {number}: class {int(kind)} is none of the {len(names)} that are named"
            )
        box = [(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height]
        objects.append((box, names[int(kind)] if names is not None else str(int(kind)), False))
    return objects


def _yolo_names(path: Path) -> dict[int, str] | None:
    """The class names of a folder, or None if it does not say: its own, else those of a YAML file beside it that speaks of it."""
    if (path / "classes.txt").is_file():
        return dict(enumerate(read_names(path / "classes.txt")))
    for folder in (path, path.parent):
        named: dict[Path, dict[int, str]] = {}
        for file in sorted(folder.glob("*.y*ml")):
            content = _yaml(file, others=folder != path)
            names = content.get("names")
            if isinstance(names, list):
                names = dict(enumerate(names))
            if isinstance(names, dict) and (folder == path or _speaks_of(content, path)):
                named[file] = _numbered(names, file)
        if any(names != next(iter(named.values())) for names in named.values()):
            raise ValueError(
                f"{' and '.join(map(str, named))} name the classes of {path} differently; keep one, or write a classes.txt in it"
            )
        if named:
            return next(iter(named.values()))
    return None


def _numbered(names: Mapping[Any, Any], file: Path) -> dict[int, str]:
    try:
        return {int(number): str(name) for number, name in names.items()}
    except (ValueError, TypeError, OverflowError):
        raise ValueError(
            f"{file}: `names` are a list, or numbers from 0 with a name each"
        ) from None


def _yaml(file: Path, others: bool) -> dict[str, Any]:
    """What a YAML file says, nothing if that is no mapping. Raises ValueError for one that is none, unless it is `others`'."""
    try:
        content = read_yaml(file)
    except ModuleNotFoundError:
        raise ValueError(
            f"{file} names the classes in YAML: pip install 'vrdir[evaluate]', or write a classes.txt"
        ) from None
    except ValueError as error:
        if others:  # anything may lie beside a data set
            return {}
        raise ValueError(
            f"{file} cannot be read as YAML ({error}); mend it, or write a classes.txt"
        ) from None
    return content if isinstance(content, dict) else {}


def _speaks_of(content: Mapping[str, Any], folder: Path) -> bool:
    """Whether a data set's YAML names a folder: as its path, or in that of its images for training, validation or test."""
    paths = [
        str(part) for key in ("path", "train", "val", "test") for part in _listed(content.get(key))
    ]
    return any(
        composed(folder.resolve().name) in PurePosixPath(composed(text).replace("\\", "/")).parts
        for text in paths
    )


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _voc_objects(file: Path) -> tuple[list[Object], tuple[int, int]]:
    """Objects of an annotation, and for which width and height, 0 if it does not say.

    VOC counts pixels from 1, and both corners are inside.
    """
    objects = []
    root = ElementTree.fromstring(read_regular(file))
    width, height = (_side(root.findtext(f"size/{side}")) for side in ("width", "height"))
    for entry in root.iter("object"):
        box = [
            float(entry.findtext(f"bndbox/{edge}") or "nan")
            for edge in ("xmin", "ymin", "xmax", "ymax")
        ]
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append(
            (
                [box[0] - 1, box[1] - 1, box[2], box[3]],
                (entry.findtext("name") or "").strip(),
                difficult,
            )
        )
    return objects, (width, height)


class _Boxes:
    """Images with boxes, as they are read."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.truths: list[Truth] = []
        self.excluded: list[Exclusion] = []
        self.twice = 0

    def add(self, item: Item, objects: Sequence[Object], size: tuple[int, int]) -> None:
        """Take an image in, or exclude it: with one wrong box, what a detector rightly finds there would count as false.

        An object given twice counts once. `size` is that which the labels are for, 0 where they do not say.
        """
        try:
            there = _size_of(item.path)
        except Exception as error:  # decoders of damaged files raise all sorts
            self.excluded.append(
                Exclusion(item.name, f"{item.path} cannot be read ({first_line(error)})")
            )
            return
        problem = next(
            (text for box, _, _ in objects if (text := _what_is_wrong_with(box, there))), ""
        )
        if any(said and said != side for said, side in zip(size, there, strict=True)):
            problem = f"the labels are for {size[0]} x {size[1]} pixels, the image has {there[0]} x {there[1]}"
        if problem:
            self.excluded.append(Exclusion(item.name, problem))
            return
        given = len(objects)
        objects = list(
            {
                (*box, label, ignored): (box, label, ignored) for box, label, ignored in objects
            }.values()
        )
        self.twice += given - len(objects)
        self.items.append(item)
        boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 4)
        self.truths.append(
            Truth(
                boxes,
                [label for _, label, _ in objects],
                np.array([ignored for *_, ignored in objects], bool),
            )
        )

    def data(self) -> DetectionData:
        """All that was taken in."""
        check_distinct(self.items)
        if self.twice:
            self.excluded.append(Exclusion(f"{self.twice} boxes", "given twice: each counts once"))
        ignored = sum(int(truth.ignored.sum()) for truth in self.truths)
        if ignored:
            self.excluded.append(
                Exclusion(f"{ignored} boxes", "crowds or difficult: neither to be found nor missed")
            )
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
    with open_regular(path) as file, open_header(file, str(path)) as picture:
        sideways = picture.format != "TIFF" and picture.getexif().get(0x0112, 1) in (
            5,
            6,
            7,
            8,
        )  # Pillow turns a TIFF itself
        return (picture.height, picture.width) if sideways else picture.size
