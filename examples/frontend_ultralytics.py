"""Ultralytics: `model(source)` as before; boxes are in the pixels of the original photo.

pip install ultralytics                       # AGPL-3.0
python examples/frontend_ultralytics.py PHOTO [--model yolov8n.pt]
"""

from __future__ import annotations

import argparse

from ultralytics import YOLO

import vrdir

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("photo")
parser.add_argument("--model", default="yolov8n.pt")
arguments = parser.parse_args()
model = vrdir.restore_before(YOLO(arguments.model))
for result in model(arguments.photo, verbose=False):
    print(result.path, result.orig_shape, [model.names[int(label)] for label in result.boxes.cls])
