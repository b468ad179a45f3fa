"""Measure how much weights change real photos that have no ground truth, at several sizes.

    python benchmarks/real_photos.py DIR [--weights small ...] [--sheet OUT.png] [--json FILE]

DIR is a folder of photos. For each photo the script prints the mean absolute change, in 8-bit
levels, of a copy of 640 pixels (longer side), and the diagnosis. It also measures copies of 400 and
1600 pixels: a restorer that looks at the scene and not at its pixels changes them alike. Smaller
photos are enlarged, so that all are measured alike. `--sheet` writes each photo before and after.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track

from vrdir.images.folders import files_below
from vrdir.restoring.restorer import Restorer

SIDES = (400, 640, 1600)
CHANGED = 4.0  # 8-bit levels: a photo that is changed by this much counts as changed
CELL = (300, 210)


def resized(photo: Image.Image, side: int) -> Image.Image:
    """Return a copy with this many pixels on its longer side."""
    scale = side / max(photo.size)
    width, height = (max(1, round(length * scale)) for length in photo.size)
    return photo.resize((width, height), Image.Resampling.LANCZOS)


def measured(restorer: Restorer, path: Path) -> tuple[dict[str, Any], Image.Image]:
    """Return the figures of one photo, and a picture of it before and after."""
    photo = Image.open(path).convert("RGB")
    figures: dict[str, Any] = {}
    for side in SIDES:
        before = resized(photo, side)
        result = restorer.restore(before)
        figures[str(side)] = round(result.diagnosis[0].changed, 2)
        if side == 640:
            figures["diagnosis"] = str(result.diagnosis[0])
            pair = [np.asarray(part.resize(CELL)) for part in (before, result.image)]
            cell = Image.fromarray(np.concatenate(pair, 1))
    return figures, cell


def summary(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return how many photos are changed, and by how much the change differs between sizes."""
    changed = [f for f in figures.values() if f["640"] >= CHANGED]
    ratios = [max(f["400"], f["1600"]) / max(min(f["400"], f["1600"]), 0.1) for f in changed]
    return {
        "photos": len(figures),
        "changed": len(changed),
        "ratio_median": round(float(np.median(ratios)), 2) if ratios else None,
        "ratio_most": round(max(ratios), 2) if ratios else None,
        "within_25_percent": sum(ratio <= 1.25 for ratio in ratios),
    }


def main() -> None:
    """Restore the photos, and print how much they are changed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path, metavar="DIR")
    parser.add_argument("--weights", action="append")
    parser.add_argument("--sheet", type=Path, help="picture to write, of the last weights")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = sorted(files_below(arguments.photos))
    if not paths:
        parser.error(f"no photos in {arguments.photos}")
    results: dict[str, Any] = {}
    for name in arguments.weights or ["small"]:
        restorer, figures, cells = Restorer(name, "cpu"), {}, []
        for path in track(paths, name, console=Console(stderr=True)):
            figures[path.name], cell = measured(restorer, path)
            cells.append(np.asarray(cell))
        results[name] = summary(figures) | {"of_each": figures}
        print(name, json.dumps(summary(figures)))
        for photo, found in figures.items():
            print(f"  {photo}: {found['640']} levels; {found['diagnosis']}")
    if arguments.sheet:
        cells += [np.zeros_like(cells[0])] * (-len(cells) % 3)
        rows = [np.concatenate(cells[i : i + 3], 1) for i in range(0, len(cells), 3)]
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
