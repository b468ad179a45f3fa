"""Images of persons, named as in Market-1501."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from vrdir.errors import DataError, MissingFileError
from vrdir.evaluation.recognition.image_files import (
    Exclusion,
    ImageFile,
    images_below,
    nothing_left,
    unread_files,
)
from vrdir.evaluation.recognition.labels.labelled import LabelledImages, image_of

FILE_NAME = re.compile(r"(?P<person>-1|\d+)_c(?P<camera>\d+)")
GALLERIES = ("gallery", "bounding_box_test")
JUNK, DISTRACTOR = -1, 0
"""Numbers that are not persons: junk counts neither as right nor as wrong, distractors match
nobody."""


class Sighting(NamedTuple):
    """An image of a person: the person, the camera, and whether it is a query or the gallery."""

    person: int
    camera: int
    is_query: bool


def read_reid(path: Path) -> LabelledImages[Sighting]:
    """Read persons named as in Market-1501: 0002_c1s1_000451_03.jpg is person 2, seen by camera 1.

    Args:
        path: a folder with query/ and gallery/ (or bounding_box_test/).

    Returns:
        The images of both. By the Market-1501 protocol, gallery images of person -1 are junk and
        left out, and those of person 0 are distractors, which match nobody. A query of either is
        excluded.

    Raises:
        MissingFileError: a folder is missing.
        DataError: there is no query or no gallery that can be used.
    """
    folders = (path / name for name in GALLERIES)
    gallery = next((folder for folder in folders if folder.is_dir()), path / GALLERIES[0])
    images: list[ImageFile] = []
    labels: list[Sighting] = []
    excluded: list[Exclusion] = []
    junk: list[str] = []
    for folder, is_query in ((path / "query", True), (gallery, False)):
        if not folder.is_dir():
            raise MissingFileError(
                f"folder {folder} does not exist; re-identification needs query/ and gallery/ "
                "(or bounding_box_test/)"
            )
        for file in images_below(folder):
            image = image_of(file, path)
            sighting = _sighting(file.name, is_query)
            if isinstance(sighting, str):
                excluded.append(Exclusion(image.name, sighting))
            elif sighting.person == JUNK:
                junk.append(image.name)
            else:
                images.append(image)
                labels.append(sighting)
        for unread in unread_files(folder):
            excluded.append(Exclusion(f"{folder.name}/{unread.name}", unread.reason))
    if junk:
        name = f"{gallery.name}/-1_* ({len(junk)} images)"
        reason = "junk by the Market-1501 protocol: neither right nor wrong"
        excluded.append(Exclusion(name, reason, by_protocol=True))
    for part, wanted in (("query", True), ("gallery", False)):
        if not any(sighting.is_query is wanted for sighting in labels):
            raise DataError(f"{path} contains no {part}: {nothing_left(excluded)}")
    return LabelledImages(images, labels, excluded, junk).checked(path)


def _sighting(name: str, is_query: bool) -> Sighting | str:
    """Return what a file name says, or why the file cannot be used."""
    match = FILE_NAME.match(name)
    if match is None:
        return "its name contains no person and camera; 0002_c1... is person 2 seen by camera 1"
    person = int(match["person"])
    if is_query and person in (JUNK, DISTRACTOR):
        return "a query without a person: -1 is junk, 0 a distractor"
    return Sighting(person, int(match["camera"]), is_query)
