"""Boxes in a COCO JSON file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vrdir.errors import DataError
from vrdir.evaluation.recognition.labels.boxes import (
    BoxCollector,
    LabelledBox,
    Truth,
    side_length,
)
from vrdir.evaluation.recognition.labels.labelled import FilesByName, LabelledImages, image_of
from vrdir.text_files import read_json

PARTS = ("images", "annotations", "categories")
SHOWN = 40  # characters of a value that an error shows
Entry = Mapping[str, Any]


def read_coco(path: Path, folder: Path) -> LabelledImages[Truth]:
    """Read a COCO JSON file.

    A wrong entry is excluded by name, together with its image: a correct detection there would
    count as false.

    Args:
        path: the JSON file.
        folder: contains the images.

    Raises:
        DataError: it is not such a file.
        MissingFileError: there is no such file or folder.
    """
    listed, annotations, categories = _parts(path)
    collector = BoxCollector()
    boxes, problems = _boxes_by_image(path, listed, annotations, categories, collector)
    files = FilesByName(folder, (_file_name(entry) for entry in listed))
    repeated_names = _repeated(_file_name(entry) for entry in listed)
    repeated_ids = _repeated(_key(entry.get("id")) for entry in listed)
    for entry in listed:
        name, number = _file_name(entry), _key(entry.get("id"))
        file = files.take(name)
        if not name or not number:
            missing = "file_name" if number else "id"
            shown = name or f"image {number or '?'}"
            collector.exclude(shown, f"an image without {missing} in {path.name}")
        elif name in repeated_names:
            collector.exclude(name, f"{path.name} lists it twice")
        elif number in repeated_ids:
            collector.exclude(name, f"two with the same image id, {number}, in {path.name}")
        elif file is None:
            collector.excluded.append(files.missing(name))
        elif number in problems:
            collector.exclude(image_of(file, folder).name, problems[number])
        else:
            size = side_length(entry.get("width")), side_length(entry.get("height"))
            collector.add(image_of(file, folder), boxes[number], size)
    collector.excluded += files.not_taken(path.name)
    return collector.data()


def _parts(path: Path) -> list[list[Entry]]:
    content = read_json(path)
    parts = [content.get(part) if isinstance(content, dict) else None for part in PARTS]
    if not all(isinstance(part, list) for part in parts):
        raise DataError(
            f"{path} is not a COCO file: it must contain the lists images, annotations and "
            "categories"
        )
    return [[entry if isinstance(entry, dict) else {} for entry in part or ()] for part in parts]


def _boxes_by_image(
    path: Path,
    listed: Sequence[Entry],
    annotations: Sequence[Entry],
    categories: Sequence[Entry],
    collector: BoxCollector,
) -> tuple[dict[str, list[LabelledBox]], dict[str, str]]:
    """Return the boxes of each image, by its id, and the first problem of those that have one."""
    names = {
        _key(entry.get("id")): str(entry["name"])
        for entry in categories
        if isinstance(entry.get("name"), (str, int))
    }
    ambiguous = _repeated(_key(entry.get("id")) for entry in categories)
    boxes: dict[str, list[LabelledBox]] = {
        number: [] for entry in listed if (number := _key(entry.get("id")))
    }
    problems: dict[str, str] = {}
    without_image = 0
    for entry in annotations:
        image, category = _key(entry.get("image_id")), _key(entry.get("category_id"))
        if image not in boxes:
            without_image += 1
            continue
        edges = _edges(entry.get("bbox"))
        shown = f"annotation {_shown(entry.get('id'))}"
        if edges is None:
            problems.setdefault(image, f"{shown} has no box: bbox {_shown(entry.get('bbox'))}")
        elif category not in names or category in ambiguous:
            found = "two categories" if category in ambiguous else "no category"
            problem = (
                f"{shown} is of category {_shown(entry.get('category_id'))}, "
                f"and {found} of {path.name} has that id"
            )
            problems.setdefault(image, problem)
        else:
            crowd = entry.get("iscrowd") in (1, "1")
            boxes[image].append(LabelledBox(edges, names[category], crowd))
    if without_image:
        collector.exclude(f"{without_image} boxes", f"their image is not listed in {path.name}")
    return boxes, problems


def _key(value: Any) -> str:
    """Return an id as text: 1, "1" and 1.0 are the same; "" for anything that is not an id."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""


def _repeated(keys: Iterable[str]) -> set[str]:
    return {key for key, count in Counter(keys).items() if count > 1 and key}


def _file_name(entry: Entry) -> str:
    name = entry.get("file_name")
    return name if isinstance(name, str) else ""


def _edges(value: Any) -> tuple[float, float, float, float] | None:
    """Return x, y, width, height as x0, y0, x1, y1; None for anything else."""
    try:
        x, y, width, height = map(float, value if isinstance(value, list) else ())
    # The wrong number of values, values that are not numbers, or numbers with hundreds of digits.
    except (ValueError, TypeError, OverflowError):
        return None
    return x, y, x + width, y + height


def _shown(value: Any) -> str:
    """Return a value as an error shows it, shortened."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
