"""How often `skip_clean` takes clean and degraded photos for clean, at several thresholds.

    python benchmarks/frontend_skip_clean.py PHOTOS [--every 1]

The degradations are synthetic, drawn by this package, rounded to 8 bits. The default threshold was
chosen with this on the training photos; on other photos it only measures. It also prints how many
of the clean photos that restoring harms are skipped.
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
from vrdir.model.clean_images import CLEAN_SHARE
from vrdir.model.vrdir import VRDIR

THRESHOLDS = (0.2, 0.25, CLEAN_SHARE, 0.35, 0.4, 0.5)
KINDS = (
    *(f"noise:sigma={sigma}" for sigma in (5, 10, 15, 25, 50)),
    *(f"{name}:severity={severity}" for name in ("haze", "rain") for severity in (1, 2, 3, 4)),
    "haze:severity=2+noise:sigma=15",
)
HARMED_DB = 40.0  # a clean photo counts as harmed if restoring takes its PSNR below this


def measure(network: VRDIR, paths: list[Path]) -> tuple[dict[str, list[float]], list[float]]:
    """Return the clean branch's share by kind and photo, and the PSNR of clean photos in dB."""
    shares: dict[str, list[float]] = {kind: [] for kind in ("clean", *KINDS)}
    psnr: list[float] = []
    with torch.no_grad():
        for path in paths:
            photo = Image.open(path).convert("RGB")
            clean = open_image(photo).tensor
            restoration = network.restore(clean)
            shares["clean"].append(float(restoration.shares[0, -1]))
            error = (restoration.image - clean).square().mean()
            psnr.append(float(-10 * torch.log10(error + 1e-12)))
            for kind in KINDS:
                seed = zlib.crc32(f"{path.name}{kind}".encode())
                degraded = open_image(vrdir.degrade(photo, kind, seed=seed)).tensor
                # With a threshold that every image reaches, only the guidance is computed.
                share = network.restore(degraded, skip_clean=1e-9).shares[0, -1]
                shares[kind].append(float(share))
    return shares, psnr


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--every", type=int, default=1, help="use each n-th photo only")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = sorted(p for p in arguments.photos.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    paths = found[:: arguments.every]
    shares, psnr = measure(VRDIR.from_pretrained("small"), paths)
    table = Table(
        "photos",
        *(f">= {threshold:g}" for threshold in THRESHOLDS),
        title=f"share called clean, {len(paths)} photos",
    )
    for kind, values in shares.items():
        rates = (sum(v >= threshold for v in values) / len(values) for threshold in THRESHOLDS)
        table.add_row(kind, *(f"{rate:.1%}" for rate in rates))
    console = Console()
    console.print(table)
    pairs = zip(shares["clean"], psnr, strict=True)
    harmed = [share >= CLEAN_SHARE for share, db in pairs if db < HARMED_DB]
    console.print(
        f"clean photos that restoring takes below {HARMED_DB:g} dB: {len(harmed)}, "
        f"skipped: {sum(harmed)}"
    )


if __name__ == "__main__":
    main()
