"""Images with boxes as they lie on disk: COCO, YOLO, VOC. What does not fit together is excluded by name, never silently."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from vrdir.evaluation.labels import Array, FilesByName, check_distinct, item_of
from vrdir.evaluation.recognition import nothing_left
from vrdir.evaluation.variants import Exclusion, Item, images_below
from vrdir.image_files.formats import open_header
from vrdir.image_files.regular_files import open_regular, read_regular, read_text
from vrdir.image_files.whole_files import first_line
from vrdir.yaml_files import read_yaml

BEYOND_PX = 2  # that a box may reach out of its image: labels are rounded, and some count pixels from 1


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
    try:
        content = json.loads(read_text(path))
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
    there = FilesByName(images)
    found = _Boxes()
    if astray:
        found.excluded.append(Exclusion(f"{astray} boxes", f"their image is not listed in {path.name}"))
    for number, name, size in listed:
        file = there.take(name)
        if file is None:
            found.excluded.append(Exclusion(name, f"a label without image: not found in {images}"))
        else:
            found.add(item_of(file, images), objects[number], size if None not in size else None)
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
        item = item_of(image, images)
        # In another folder a name decides only where it is the only one: train/1 and val/1 are two images.
        alone = stems[image.stem] == label_stems[image.stem] == 1
        file = files.get(item.name) or (by_stem[image.stem] if alone else None)
        if file is None:
            found.excluded.append(Exclusion(item.name, f"an image without label: no {image.stem}{suffix} (an empty file says: no object)"))
            continue
        taken.add(file)
        try:
            objects, size = _voc_objects(file) if suffix == ".xml" else (_yolo_objects(file, names, _size_of(image)), None)
        except Exception as error:  # text and XML go wrong in many ways
            found.excluded.append(Exclusion(item.name, f"{file.name} cannot be read: {first_line(error)}"))
        else:
            found.add(item, objects, size)
    without = sorted(set(files.values()) - taken)
    found.excluded += [Exclusion(file.name, f"a label without image: no {file.stem}.* in {images}") for file in without]
    return found.data()


def _yolo_objects(file: Path, names: Mapping[int, str] | None, size: tuple[int, int]) -> list[tuple[list[float], str, bool]]:
    """Lines of class, centre x and y, width and height, as shares of the image."""
    width, height = size
    objects = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
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
    """The class names of a folder, or None if it does not say: its own, else those of a YAML file beside it that speaks of it."""
    if (path / "classes.txt").is_file():
        return dict(enumerate(read_text(path / "classes.txt").splitlines()))
    for folder in (path, path.parent):
        named: dict[Path, dict[int, str]] = {}
        for file in sorted(folder.glob("*.y*ml")):
            content = _yaml(file, others=folder != path)
            names = content.get("names")
            if isinstance(names, list):
                names = dict(enumerate(names))
            if isinstance(names, dict) and (folder == path or _speaks_of(content, path)):
                named[file] = {int(number): str(name) for number, name in names.items()}
        if any(names != next(iter(named.values())) for names in named.values()):
            raise ValueError(
                f"{' and '.join(map(str, named))} name the classes of {path} differently; keep one, or write a classes.txt in it"
            )
        if named:
            return next(iter(named.values()))
    return None


def _yaml(file: Path, others: bool) -> dict[str, Any]:
    """What a YAML file says, nothing if that is no mapping. Raises ValueError for one that is none, unless it is `others`'."""
    try:
        content = read_yaml(file)
    except ModuleNotFoundError:
        raise ValueError(f"{file} names the classes in YAML: pip install 'vrdir[evaluate]', or write a classes.txt") from None
    except ValueError as error:
        if others:  # anything may lie beside a data set
            return {}
        raise ValueError(f"{file} cannot be read as YAML ({error}); mend it, or write a classes.txt") from None
    return content if isinstance(content, dict) else {}


def _speaks_of(content: Mapping[str, Any], folder: Path) -> bool:
    """Whether a data set's YAML names a folder: as its path, or in that of its images for training, validation or test."""
    paths = [str(part) for key in ("path", "train", "val", "test") for part in _listed(content.get(key))]
    return any(folder.resolve().name in PurePosixPath(text.replace("\\", "/")).parts for text in paths)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _voc_objects(file: Path) -> tuple[list[tuple[list[float], str, bool]], tuple[int, int] | None]:
    """Objects of an annotation, and for which width and height, if it says; VOC counts pixels from 1, and both corners are inside."""
    objects = []
    root = ElementTree.fromstring(read_regular(file))
    width, height = (int(float(root.findtext(f"size/{side}") or 0)) for side in ("width", "height"))
    for entry in root.iter("object"):
        box = [float(entry.findtext(f"bndbox/{edge}") or "nan") for edge in ("xmin", "ymin", "xmax", "ymax")]
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        objects.append(([box[0] - 1, box[1] - 1, box[2], box[3]], (entry.findtext("name") or "").strip(), difficult))
    return objects, (width, height) if width > 0 and height > 0 else None


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
        check_distinct(self.items)
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
    with open_regular(path) as file, open_header(file, str(path)) as picture:
        sideways = picture.format != "TIFF" and picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # Pillow turns a TIFF itself
        return (picture.height, picture.width) if sideways else picture.size
