"""Images labelled with boxes: COCO, YOLO or VOC. Inconsistent entries are excluded by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vrdir.errors import DataError, MissingFileError, first_line
from vrdir.evaluation.recognition.image_files import ImageFile, images_below, unread_files
from vrdir.evaluation.recognition.labels.boxes import (
    BoxCollector,
    LabelledBox,
    Truth,
)
from vrdir.evaluation.recognition.labels.coco import read_coco
from vrdir.evaluation.recognition.labels.labelled import LabelledImages, image_of
from vrdir.evaluation.recognition.labels.voc import read_voc_boxes
from vrdir.evaluation.recognition.labels.yolo import read_yolo_boxes, read_yolo_names
from vrdir.images.folders import Names, files_below, folded
from vrdir.images.headers import image_size

IMAGE_FOLDERS = ("images", "JPEGImages")
LABEL_FOLDERS = ("labels", "Annotations")
NO_LABELS = ("classes", "readme")
"""Stems of text files that contain no labels."""

ReadBoxes = Callable[[Path, Path], tuple[Sequence[LabelledBox], tuple[int, int]]]
"""Reads a label file of an image: the boxes, and the width and height that they are for or 0."""


def read_detection(path: Path, images: Path | None = None) -> LabelledImages[Truth]:
    """Read images labelled with boxes.

    Args:
        path: a COCO JSON file; or a folder with YOLO text files or VOC XML files, one per image,
            beside the images, or under labels/ (Annotations/) as the images are under images/
            (JPEGImages/). The names of YOLO's classes are in classes.txt or a YAML file of the
            folder, or in a YAML file beside it that names it; otherwise the numbers are the
            recogniser's.
        images: the folder of the images, if they are elsewhere; the suffix of an image may differ.

    Raises:
        MissingFileError: there is no such folder or file.
        DataError: it is not such a data set, or nothing in it can be used.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist")
    data = _read_folder(path, images) if path.is_dir() else read_coco(path, images or path.parent)
    return data.checked(path)


def _read_folder(path: Path, images: Path | None) -> LabelledImages[Truth]:
    """Read a folder of YOLO or VOC files."""
    images = images or _sub_folder(path, IMAGE_FOLDERS)
    labels = _sub_folder(path, LABEL_FOLDERS)
    suffix, files = _label_files(labels)
    read_boxes = _reader(suffix, path)
    collector = BoxCollector()
    paired = _pair(images_below(images), images, files)
    for image, file in paired:
        if file is None:
            wanted = f"{image.path.stem}{suffix} (an empty file means: no object)"
            collector.exclude(image.name, f"an image without label: no {wanted}")
            continue
        try:
            boxes, size = read_boxes(file, image.path)
        except Exception as error:  # text and XML can be wrong in many ways
            collector.exclude(image.name, f"{file.name} cannot be read: {first_line(error)}")
        else:
            collector.add(image, boxes, size)
    for file in sorted(set(files.values()) - {file for _, file in paired}):
        collector.exclude(file.name, f"a label without image: no {file.stem}.* in {images}")
    collector.excluded += unread_files(images)
    return collector.data()


def _sub_folder(path: Path, names: Sequence[str]) -> Path:
    return next((path / name for name in names if (path / name).is_dir()), path)


def _label_files(folder: Path) -> tuple[str, dict[str, Path]]:
    """Return the suffix of the label files, and the files by path below the folder, unsuffixed."""
    for suffix in (".xml", ".txt"):
        found = sorted(files_below(folder, {suffix}, unreadable=lambda error: None))
        files = {
            file.relative_to(folder).with_suffix("").as_posix(): file
            for file in found
            if file.stem.lower() not in NO_LABELS
        }
        if files:
            return suffix, files
    raise DataError(f"{folder} contains no labels: no .txt (YOLO) and no .xml (VOC) files")


def _reader(suffix: str, path: Path) -> ReadBoxes:
    if suffix == ".xml":
        return lambda file, image: read_voc_boxes(file)
    names = read_yolo_names(path)
    return lambda file, image: (read_yolo_boxes(file, names, image_size(image)), (0, 0))


def _pair(
    listed: Sequence[Path], root: Path, files: Mapping[str, Path]
) -> list[tuple[ImageFile, Path | None]]:
    """Return each image with its label file, or None.

    A label file is found by the path below the folder. One in another folder counts only if no
    other image and no other label file has its name: train/1 and val/1 are two images.
    """
    names = Names(files)
    by_stem = {folded(file.stem): file for file in files.values()}
    label_stems = Counter(folded(file.stem) for file in files.values())
    image_stems = Counter(folded(image.stem) for image in listed)
    pairs = []
    for path in listed:
        image, stem = image_of(path, root), folded(path.stem)
        unique = image_stems[stem] == label_stems[stem] == 1
        file = files.get(names.find(image.name)) or (by_stem[stem] if unique else None)
        pairs.append((image, file))
    return pairs
