"""The classes of a data set as numbers of a recogniser's classes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vrdir.images.folders import composed

WORDNET_ID = re.compile(r"n\d{8}")
ALIASES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
}
"""Names of COCO's classes in Darknet and VOC -> in COCO."""


def class_numbers(
    labels: Iterable[str], classes: Sequence[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Return the numbers of a data set's labels among a recogniser's classes.

    A label is a class's name (case, underscores and Darknet's spellings do not matter), or its
    number from 0. If there are as many WordNet ids among the labels as classes, and the classes
    have other names, the ids in ascending order are the classes, as in ImageNet.

    Returns:
        Label -> number, and label -> its problem.
    """
    labels = sorted(set(labels))
    if _are_wordnet_ids(labels, classes):
        return {label: number for number, label in enumerate(labels)}, {}
    by_name: dict[str, list[int]] = {}
    for number, name in enumerate(classes):
        by_name.setdefault(_plain(name), []).append(number)
    numbers, problems = {}, {}
    for label in labels:
        found = by_name.get(_plain(label), [])
        if len(found) == 1:
            numbers[label] = found[0]
        elif found:
            several = " and ".join(map(str, found))
            problems[label] = (
                f"label {label!r} is the name of the classes {several}; use the number"
            )
        elif label.isdecimal() and len(label) < 10 and int(label) < len(classes):
            numbers[label] = int(label)
        else:
            shown = ", ".join(classes[:3])
            problems[label] = (
                f"label {label!r} is not one of the recogniser's {len(classes)} classes "
                f"({shown}, ..., or 0 to {len(classes) - 1})"
            )
    return numbers, problems


def _are_wordnet_ids(labels: Sequence[str], classes: Sequence[str]) -> bool:
    return (
        len(labels) == len(classes)
        and all(map(WORDNET_ID.fullmatch, labels))
        and not any(map(WORDNET_ID.fullmatch, classes))
    )


def _plain(name: str) -> str:
    plain = re.sub(r"[_\s]+", " ", composed(name).strip().lower())
    return ALIASES.get(plain, plain)
