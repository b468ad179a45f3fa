"""How often `skip_clean` takes clean photos for clean, and degraded ones too, at several thresholds.

    python benchmarks/frontend_skip_clean.py PHOTOS [--every 1]

The degradations are synthetic, drawn by this package, rounded to 8 bits. The default threshold was chosen on the training photos
with this; on other photos it only measures. Also: how many of the clean photos that restoring harms are spared it.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vrdir
from vrdir.images.convert import open_image
from vrdir.images.formats import IMAGE_SUFFIXES
from vrdir.model.vrdir import CLEAN_SHARE

THRESHOLDS = (0.2, 0.25, CLEAN_SHARE, 0.35, 0.4, 0.5)
KINDS = (
    *(f"noise:sigma={sigma}" for sigma in (5, 10, 15, 25, 50)),
    *(f"{name}:severity={severity}" for name in ("haze", "rain") for severity in (1, 2, 3, 4)),
    "haze:severity=2+noise:sigma=15",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="take each n-th photo only")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = vrdir.Restorer("small", device="cpu").model
    paths = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)[
        :: arguments.every
    ]
    shares: dict[str, list[float]] = {kind: [] for kind in ("clean", *KINDS)}
    loss: list[float] = []  # dB, of restoring clean photos
    with torch.no_grad():
        for path in paths:
            photo = Image.open(path).convert("RGB")
            clean = open_image(photo).tensor
            restoration = network.restore(clean)
            shares["clean"].append(float(restoration.shares[0, -1]))
            loss.append(
                float(-10 * torch.log10((restoration.image - clean).square().mean() + 1e-12))
            )
            for kind in KINDS:
                degraded = open_image(
                    vrdir.degrade(photo, kind, seed=zlib.crc32(f"{path.name}{kind}".encode()))
                ).tensor
                # A threshold that all pass: the guidance alone, without the decoder.
                shares[kind].append(float(network.restore(degraded, skip_clean=1e-9).shares[0, -1]))

    table = Table(
        "photos",
        *(f">= {threshold:g}" for threshold in THRESHOLDS),
        title=f"share called clean, {len(paths)} photos",
    )
    for kind, values in shares.items():
        table.add_row(
            kind, *(f"{sum(v >= t for v in values) / len(values):.1%}" for t in THRESHOLDS)
        )
    console = Console()
    console.print(table)
    harmed = [
        share >= CLEAN_SHARE for share, db in zip(shares["clean"], loss, strict=True) if db < 40
    ]
    console.print(
        f"clean photos that restoring takes below 40 dB: {len(harmed)}, of which skipped: {sum(harmed)}"
    )


if __name__ == "__main__":
    main()
