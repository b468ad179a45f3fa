"""PSNR and SSIM before and after restoring, on whole images, in RGB.

    python benchmarks/restoration.py synthetic CLEAN_DIR           # clean photos; degraded with fixed seeds, rounded to 8 bits
    python benchmarks/restoration.py pairs DEGRADED_DIR CLEAN_DIR  # degraded and clean photos of the same names

Prints a table and, with --json FILE, writes the means.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from vrdir.data.loaders import photos_in
from vrdir.degradations.degrade import apply_degradation
from vrdir.evaluation.restoration_metrics import psnr_rgb, ssim_rgb
from vrdir.images import open_image
from vrdir.inference.restorer import Restorer

SYNTHETIC: dict[str, tuple[tuple[str, dict[str, float]], ...]] = {
    "clean": (),
    "noise, sigma 15": (("noise", {"sigma": 15}),),
    "noise, sigma 25": (("noise", {"sigma": 25}),),
    "noise, sigma 50": (("noise", {"sigma": 50}),),
    "haze, beta 0.8": (("haze", {"beta": 0.8}),),
    "haze, beta 2": (("haze", {"beta": 2.0}),),
    "rain, coverage 0.1": (("rain", {"coverage": 0.1}),),
    "rain, coverage 0.3": (("rain", {"coverage": 0.3}),),
    "all three": (("haze", {"beta": 0.8}), ("rain", {"coverage": 0.1}), ("noise", {"sigma": 15})),
}


def synthetic(folder: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(kind, degraded, clean) for every photo; a photo's draws depend on its name and the kind alone."""
    for path in track(photos_in(folder), console=Console(stderr=True)):
        clean = open_image(path).tensor
        for kind, steps in SYNTHETIC.items():
            generator = torch.Generator().manual_seed(zlib.crc32(f"{path.stem}|{kind}".encode()))
            degraded = clean
            for name, parameters in steps:
                degraded = apply_degradation(degraded, name, generator, **parameters).image
            yield kind, (degraded.clamp(0, 1) * 255).round() / 255, clean


def pairs(degraded: Path, clean: Path) -> Iterator[tuple[str, Tensor, Tensor]]:
    """(folder, degraded, clean) for every photo of `degraded` and the one in `clean` of the same stem."""
    targets = {path.stem: path for path in photos_in(clean)}
    for path in track(photos_in(degraded), console=Console(stderr=True)):
        if path.stem not in targets:
            raise SystemExit(f"error: {path} has no clean twin in {clean}")
        yield degraded.parent.name, open_image(path).tensor, open_image(targets[path.stem]).tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("synthetic", "pairs"))
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--weights", default="small")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if len(arguments.folders) != (1 if arguments.kind == "synthetic" else 2):
        parser.error("synthetic takes one folder, pairs two")
    source = synthetic(*arguments.folders) if arguments.kind == "synthetic" else pairs(*arguments.folders)
    restorer = Restorer(arguments.weights)
    scores: dict[str, list[tuple[float, ...]]] = {}
    for kind, degraded, clean in source:
        restored = (restorer(degraded) * 255).round() / 255  # as a file would hold it
        row = (psnr_rgb(degraded, clean), psnr_rgb(restored, clean), ssim_rgb(degraded, clean), ssim_rgb(restored, clean))
        scores.setdefault(kind, []).append(tuple(value[0] for value in row))
    table = Table("input", "images", "PSNR in", "PSNR out", "SSIM in", "SSIM out", "worst PSNR out")
    means = {}
    for kind, rows in scores.items():
        mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        means[kind] = {"images": len(rows), "psnr_in": mean[0], "psnr_out": mean[1], "ssim_in": mean[2], "ssim_out": mean[3]}
        figures = (f"{mean[0]:.2f}", f"{mean[1]:.2f}", f"{mean[2]:.4f}", f"{mean[3]:.4f}", f"{min(row[1] for row in rows):.2f}")
        table.add_row(kind, str(len(rows)), *figures)
    Console().print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(means, indent=1) + "\n")


if __name__ == "__main__":
    main()
