"""A detector on a foggy photo, as it is and with the restorer in front: a picture of both.

    pip install vrdir onnxruntime
    python examples/frontend_detector.py DETECTOR.onnx PHOTO [--classes NAMES.txt] [-o boxes.png]

The detector is an ONNX file that takes `image` (1, 3, H, W), RGB in [0, 1], and returns `boxes`
(N, 4) as x0 y0 x1 y1 in input pixels, `scores` and `labels`; `vrdir evaluate detection` reads the
same files (docs/recognition.md). The photo is placed at the top left of its input, the rest is
grey. The picture shows the photo with the detector's boxes, and the restored photo with the boxes
that the same detector finds in it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw

import vrdir

GREY = 114  # of 255, around the photo
SAME_PLACE = 0.7  # intersection over union from which on two boxes show one object


class Found(NamedTuple):
    """A detected object: its box x0 y0 x1 y1 in the photo's pixels, its score and its class."""

    box: tuple[float, ...]
    score: float
    label: int


def detect(session: Any, photo: Image.Image, threshold: float) -> list[Found]:
    """Return the objects in a photo whose score reaches the threshold."""
    height, width = session.get_inputs()[0].shape[2:]
    scale = min(width / photo.width, height / photo.height)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    canvas = Image.new("RGB", (width, height), (GREY, GREY, GREY))
    canvas.paste(photo.resize(size, Image.Resampling.BILINEAR))
    image = np.asarray(canvas, np.float32).transpose(2, 0, 1)[None] / 255
    boxes, scores, labels = session.run(["boxes", "scores", "labels"], {"image": image})
    found = [
        Found(tuple((box / scale).tolist()), float(score), int(label))
        for box, score, label in zip(boxes, scores, labels, strict=True)
        if score >= threshold
    ]
    return without_duplicates(found)


def without_duplicates(found: list[Found]) -> list[Found]:
    """Return one object for each place: the detector may give one box several classes."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: -one.score):
        if all(overlap(one.box, other.box) < SAME_PLACE for other in kept):
            kept.append(one)
    return kept


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return intersection over union of two boxes x0 y0 x1 y1."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def draw(photo: Image.Image, found: list[Found], names: list[str]) -> Image.Image:
    """Return the photo with boxes, class names and scores on it."""
    picture = photo.copy()
    pen = ImageDraw.Draw(picture)
    line = max(2, photo.width // 300)
    for one in found:
        name = names[one.label] if one.label < len(names) else str(one.label)
        pen.rectangle(one.box, outline="red", width=line)
        corner, text = (one.box[0], max(0.0, one.box[1] - 5 * line)), f"{name} {one.score:.0%}"
        pen.rectangle(pen.textbbox(corner, text, font_size=5 * line), fill="red")
        pen.text(corner, text, fill="white", font_size=5 * line)
    return picture


def main() -> None:
    """Detect in the photo and in the restored photo, and save both with their boxes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("detector", help="an ONNX file as described above")
    parser.add_argument("photo", type=Path)
    parser.add_argument("--classes", type=Path, help="a text file with one class name a line")
    parser.add_argument("--threshold", type=float, default=0.3, help="the lowest score to show")
    parser.add_argument("-o", "--output", type=Path, default=Path("boxes.png"))
    arguments = parser.parse_args()
    names = arguments.classes.read_text().splitlines() if arguments.classes else []
    photo = Image.open(arguments.photo).convert("RGB")
    session = onnxruntime.InferenceSession(arguments.detector, providers=["CPUExecutionProvider"])

    # Before resizing, with the restorer as the first step of preprocessing: best for detection.
    restored = vrdir.Restore()(photo)
    # At the detector's input, if you cannot change the preprocessing: the session stays a session.
    fronted = vrdir.restore_before(session, range=1)

    columns = {"as it is": detect(session, photo, arguments.threshold)}
    columns["restored before resizing"] = detect(session, restored, arguments.threshold)
    columns["restored at the input"] = detect(fronted, photo, arguments.threshold)
    for title, found in columns.items():
        print(f"{title}: {len(found)} objects, scores add up to {sum(f.score for f in found):.2f}")
    both = Image.new("RGB", (2 * photo.width, photo.height))
    both.paste(draw(photo, columns["as it is"], names))
    both.paste(draw(restored, columns["restored before resizing"], names), (photo.width, 0))
    both.save(arguments.output)
    print(f"{arguments.output}: as it is | restored before resizing")


if __name__ == "__main__":
    main()
