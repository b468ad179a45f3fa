"""Images labelled with a class: a folder per class, or a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from vrdir.errors import DataError, MissingFileError, first_line
from vrdir.evaluation.recognition.image_files import (
    Exclusion,
    ImageFile,
    images_below,
    unread_files,
)
from vrdir.evaluation.recognition.labels.labelled import FilesByName, LabelledImages, image_of
from vrdir.images.folders import is_litter
from vrdir.images.formats import IMAGE_SUFFIXES, plain_suffix
from vrdir.text_files import read_text

FILE_COLUMNS = ("file", "filename", "image", "path")
LABEL_COLUMNS = ("label", "index", "class", "target", "name")
"""The first one that the file has is used: an index is clearer than a name."""


def read_classification(path: Path, images: Path | None = None) -> LabelledImages[str]:
    """Read images labelled with a class.

    Args:
        path: a folder with a folder per class; or a CSV file with a header, a column for the file
            (file, filename, image, path) and one for the label (label, index, class, target, name).
        images: the folder that the CSV's files are relative to, by default its own; the suffix of
            an image may differ.

    Returns:
        The images; a label is a class's name or number as the data set gives it.

    Raises:
        MissingFileError: there is no such folder or file.
        DataError: it is not such a data set, or nothing in it can be used.
    """
    data = _read_folders(path) if path.is_dir() else _read_csv(path, images or path.parent)
    return data.checked(path)


def _read_folders(path: Path) -> LabelledImages[str]:
    images: list[ImageFile] = []
    labels: list[str] = []
    excluded: list[Exclusion] = []
    for entry in sorted(path.iterdir()):
        if is_litter(entry.name):
            continue
        if entry.is_dir():
            files = images_below(entry)
            if not files and not unread_files(entry):
                empty = "an empty class: no image in its folder"
                excluded.append(Exclusion(f"{entry.name}/", empty))
            images += [image_of(file, path) for file in files]
            labels += [entry.name] * len(files)
        elif plain_suffix(entry) in IMAGE_SUFFIXES:
            reason = "an image without label: it is in no class's folder"
            excluded.append(Exclusion(entry.name, reason))
    return LabelledImages(images, labels, excluded + unread_files(path))


def _read_csv(path: Path, folder: Path) -> LabelledImages[str]:
    rows, file_column, label_column = _csv_rows(path)
    files = FilesByName(folder, (row[file_column] or "" for row in rows))
    images, labels, excluded = [], [], []
    for row in rows:
        name, label = row[file_column] or "", (row[label_column] or "").strip()
        file = files.take(name)
        if file is None:
            excluded.append(files.missing(name))
        elif not label:
            reason = f"an image without label: {label_column} is empty in {path.name}"
            excluded.append(Exclusion(name, reason))
        else:
            images.append(image_of(file, folder))
            labels.append(label)
    return LabelledImages(images, labels, excluded + files.not_taken(path.name))


def _csv_rows(path: Path) -> tuple[Sequence[Mapping[str, str | None]], str, str]:
    """Return the rows of a CSV file, and the names of the columns for the file and the label."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path).lstrip("\r\n"), newline=None)))
    except FileNotFoundError:
        raise MissingFileError(f"{path} is neither a folder nor a CSV file") from None
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({first_line(error)})") from None
    columns = list(rows[0]) if rows else []
    file_column = next((name for name in FILE_COLUMNS if name in columns), None)
    label_column = next((name for name in LABEL_COLUMNS if name in columns), None)
    if file_column is None or label_column is None:
        needed = f"one of {', '.join(FILE_COLUMNS)} and one of {', '.join(LABEL_COLUMNS)}"
        raise DataError(
            f"{path} has the columns {', '.join(map(str, columns)) or 'none'}; it needs {needed}"
        )
    return rows, file_column, label_column
