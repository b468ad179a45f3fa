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


class Found(NamedTuple):
    """A detected object: its box in the photo's pixels, its score and its class."""

    box: tuple[float, float, float, float]
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
    return [
        Found(tuple(float(corner) / scale for corner in box), float(score), int(label))
        for box, score, label in zip(boxes, scores, labels, strict=True)
        if score >= threshold
    ]


def draw(photo: Image.Image, found: list[Found], names: list[str]) -> Image.Image:
    """Return the photo with boxes, class names and scores on it."""
    picture = photo.copy()
    pen = ImageDraw.Draw(picture)
    line = max(2, photo.width // 300)
    for one in found:
        name = names[one.label] if one.label < len(names) else str(one.label)
        pen.rectangle(one.box, outline="red", width=line)
        left, top = one.box[0] + line, max(0.0, one.box[1] - 6 * line)
        pen.text((left, top), f"{name} {one.score:.0%}", fill="red", font_size=5 * line)
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
