"""Boxes in VOC XML files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from vrdir.evaluation.recognition.labels.boxes import LabelledBox, side_length
from vrdir.regular_files import read_regular


def read_voc_boxes(file: Path) -> tuple[list[LabelledBox], tuple[int, int]]:
    """Read a VOC annotation.

    VOC counts pixels from 1, and the pixels of both corners belong to the box.

    Returns:
        The boxes, and the width and height that they are for, 0 if the file does not say.

    Raises:
        xml.etree.ElementTree.ParseError, ValueError: it is not such a file.
    """
    root = ElementTree.fromstring(read_regular(file))
    boxes = []
    for entry in root.iter("object"):
        x0, y0, x1, y1 = (
            float(entry.findtext(f"bndbox/{edge}") or "nan")
            for edge in ("xmin", "ymin", "xmax", "ymax")
        )
        label = (entry.findtext("name") or "").strip()
        difficult = (entry.findtext("difficult") or "0").strip() == "1"
        boxes.append(LabelledBox((x0 - 1, y0 - 1, x1, y1), label, difficult))
    width, height = (side_length(root.findtext(f"size/{side}")) for side in ("width", "height"))
    return boxes, (width, height)
