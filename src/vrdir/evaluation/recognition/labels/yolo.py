"""Boxes in YOLO text files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from vrdir.errors import DataError
from vrdir.evaluation.recognition.labels.boxes import LabelledBox
from vrdir.images.folders import folded
from vrdir.text_files import read_names, read_text
from vrdir.yaml_files import read_yaml

SHOWN = 40  # characters of a value that an error shows


def read_yolo_boxes(
    file: Path, names: Mapping[int, str] | None, size: tuple[int, int]
) -> list[LabelledBox]:
    """Read a text file with lines of class, centre x and y, width and height.

    Args:
        file: the text file. The four numbers are shares of the image's sides.
        names: class number -> name; None if the data set names no classes.
        size: the image's width and height in pixels.

    Raises:
        DataError: a line is not like that, or its class has no name.
    """
    lines = enumerate(read_text(file).splitlines(), 1)
    return [_box(line, number, names, size) for number, line in lines if line.strip()]


def _box(
    line: str, number: int, names: Mapping[int, str] | None, size: tuple[int, int]
) -> LabelledBox:
    parts = line.split()
    if len(parts) > 5:  # polygons and rotated boxes have x and y of each corner
        raise DataError(
            f"line {number} has {len(parts)} numbers, as for a polygon or a rotated box; expected "
            "class, centre x, centre y, width, height"
        )
    try:
        kind, x, y, w, h = (float(part) for part in parts)
    except ValueError:
        raise DataError(
            f"line {number} must be: class, centre x, centre y, width, height"
        ) from None
    if not kind.is_integer():
        raise DataError(f"line {number}: a class must be a whole number, not {parts[0][:SHOWN]}")
    if names is not None and int(kind) not in names:
        raise DataError(
            f"line {number}: class {int(kind)} is not one of the {len(names)} named classes"
        )
    width, height = size
    edges = (
        (x - w / 2) * width,
        (y - h / 2) * height,
        (x + w / 2) * width,
        (y + h / 2) * height,
    )
    return LabelledBox(edges, names[int(kind)] if names is not None else str(int(kind)), False)


def read_yolo_names(folder: Path) -> dict[int, str] | None:
    """Return the class names of a YOLO folder, or None if there are none.

    They are in classes.txt or a YAML file of the folder, or in a YAML file beside the folder that
    names it.

    Raises:
        DataError: two YAML files name the classes differently, or the folder's own cannot be read.
    """
    if (folder / "classes.txt").is_file():
        return dict(enumerate(read_names(folder / "classes.txt")))
    for place in (folder, folder.parent):
        named: dict[Path, dict[int, str]] = {}
        for file in sorted(place.glob("*.y*ml")):
            content = _read_mapping(file, ignore_errors=place != folder)
            names = content.get("names")
            if isinstance(names, list):
                names = dict(enumerate(names))
            if isinstance(names, dict) and (place == folder or _mentions(content, folder)):
                named[file] = _numbered(names, file)
        if any(names != next(iter(named.values())) for names in named.values()):
            raise DataError(
                f"{' and '.join(map(str, named))} name the classes of {folder} differently; "
                "keep one, or write a classes.txt in it"
            )
        if named:
            return next(iter(named.values()))
    return None


def _numbered(names: Mapping[Any, Any], file: Path) -> dict[int, str]:
    try:
        return {int(number): str(name) for number, name in names.items()}
    except (ValueError, TypeError, OverflowError):
        raise DataError(
            f"{file}: `names` must be a list, or a mapping of the numbers 0, 1, 2, ... to names"
        ) from None


def _read_mapping(file: Path, ignore_errors: bool) -> dict[str, Any]:
    """Return the content of a YAML file; nothing if it is not a mapping.

    Raises:
        DataError: it cannot be read, and errors are not ignored, as they are for files beside a
            data set, which may be anything.
    """
    try:
        content = read_yaml(file)
    except ImportError:
        raise DataError(
            f"{file} names the classes in YAML: pip install 'vrdir[evaluate]', "
            "or write a classes.txt"
        ) from None
    except ValueError as error:
        if ignore_errors:
            return {}
        raise DataError(
            f"{file} cannot be read as YAML ({error}); correct it, or write a classes.txt"
        ) from None
    return content if isinstance(content, dict) else {}


def _mentions(content: Mapping[str, Any], folder: Path) -> bool:
    """Return whether the YAML of a data set names a folder as its path or that of its images."""
    values = [content.get(key) for key in ("path", "train", "val", "test")]
    paths = [
        PurePosixPath(folded(str(path)).replace("\\", "/"))
        for value in values
        for path in (value if isinstance(value, list) else [] if value is None else [value])
    ]
    return any(folded(folder.resolve().name) in path.parts for path in paths)
