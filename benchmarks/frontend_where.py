"""Where to restore: at the detector's input, or at the photo's own size before resizing.

    python benchmarks/frontend_where.py MODEL.onnx IMAGES LABELS    # onnxruntime, pycocotools

Prints mAP@[.5:.95] in % of a COCO detector. Its input is `image` (1, 3, S, S), RGB in [0, 1],
letterboxed at the top left on grey 114; its outputs are `boxes`, `scores` and `labels`. LABELS has
YOLO text files. The degradations are synthetic, drawn by this package at the photo's size.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from rich.console import Console
from rich.table import Table

import vrdir

KINDS = ("clean", "noise:sigma=25", "haze:severity=4", "rain:severity=4")


def detect(session: Any, photo: Image.Image) -> tuple[np.ndarray[Any, Any], ...]:
    """Return boxes in the photo's pixels, scores, and labels."""
    side = session.get_inputs()[0].shape[2]
    factor = side / max(photo.size)
    width, height = (max(1, round(s * factor)) for s in photo.size)
    canvas = np.full((side, side, 3), 114, np.uint8)
    canvas[:height, :width] = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR))
    boxes, scores, labels = session.run(
        ["boxes", "scores", "labels"],
        {"image": canvas.transpose(2, 0, 1)[None].astype(np.float32) / 255},
    )
    return boxes / factor, scores, labels


def ground_truth(paths: list[Path], labels: Path) -> COCO:
    """Return the labels as pycocotools takes them."""
    images, annotations = [], []
    for number, path in enumerate(paths):
        with Image.open(path) as photo:
            width, height = photo.size
        images.append({"id": number, "width": width, "height": height})
        text = labels / f"{path.stem}.txt"
        for line in text.read_text().splitlines() if text.exists() else []:
            category, x, y, w, h = map(float, line.split())
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "image_id": number,
                    "category_id": int(category),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    truth = COCO()
    annotations = [{"id": i + 1, **a} for i, a in enumerate(annotations)]
    truth.dataset = {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i} for i in range(80)],
    }
    truth.createIndex()
    return truth


def mean_average_precision(truth: COCO, found: list[dict[str, Any]]) -> float:
    """Return mAP@[.5:.95] in %."""
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return 100 * float(evaluation.stats[0])


def as_entries(image_id: int, detections: tuple[np.ndarray[Any, Any], ...]) -> list[dict[str, Any]]:
    """Return detections as pycocotools takes them."""
    return [
        {
            "image_id": image_id,
            "category_id": int(label),
            "bbox": box[:2].tolist() + (box[2:] - box[:2]).tolist(),
            "score": float(score),
        }
        for box, score, label in zip(*detections, strict=True)
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("images", type=Path)
    parser.add_argument("labels", type=Path)
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(arguments.model, providers=["CPUExecutionProvider"])
    fronted, restore = vrdir.restore_before(session, range=1), vrdir.Restore()
    paths = sorted(arguments.images.glob("*.jpg"))
    columns = ("not restored", "at the input", "at the photo's size")
    table = Table("photos", *columns, title=f"mAP, {len(paths)} photos")
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        truth = ground_truth(paths, arguments.labels)
        for kind in KINDS:
            found: list[list[dict[str, Any]]] = [[], [], []]
            for number, path in enumerate(paths):
                photo = Image.open(path).convert("RGB")
                if kind != "clean":
                    seed = zlib.crc32(f"{path.name}{kind}".encode())
                    photo = vrdir.degrade(photo, kind, seed=seed)
                found[0] += as_entries(number, detect(session, photo))
                found[1] += as_entries(number, detect(fronted, photo))
                found[2] += as_entries(number, detect(session, restore(photo)))
            table.add_row(kind, *(f"{mean_average_precision(truth, one):.1f}" for one in found))
    Console().print(table)


if __name__ == "__main__":
    main()
