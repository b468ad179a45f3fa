"""Write a contact sheet of every degradation at every severity, on sample photos.

    python examples/degradations.py                     # writes demo/degradations.png
    python examples/degradations.py snow raindrops      # only these

The photos are those inside scikit-image's wheel.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from vrdir.degradations.degrade import apply_degradation
from vrdir.degradations.registry import DEGRADATIONS
from vrdir.evaluation.restoration.metrics import psnr_rgb
from vrdir.images.contact_sheet import draw_contact_sheet, save_picture

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")


def sample_photo(name: str, side_px: int) -> Tensor:
    """Return a square sample photo, (1, 3, side_px, side_px) in [0, 1], of scikit-image."""
    photo = Image.open(next(Path(skimage.data.__file__).parent.glob(f"{name}.*"))).convert("RGB")
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    photo = photo.crop((left, top, left + side, top + side)).resize(
        (side_px, side_px), Image.Resampling.LANCZOS
    )
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 255


def main() -> None:
    """Write the contact sheet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(DEGRADATIONS)}; all if none is given",
    )
    parser.add_argument("--output", type=Path, default=Path("demo/degradations.png"))
    parser.add_argument("--side-px", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - DEGRADATIONS.keys():
        parser.error(
            f"unknown degradation {', '.join(sorted(unknown))}; choose from "
            f"{', '.join(DEGRADATIONS)}"
        )

    rows, captions = [], []
    for number, name in enumerate(arguments.names or DEGRADATIONS):
        clean = sample_photo(PHOTOS[number % len(PHOTOS)], arguments.side_px)
        row, caption = [clean[0]], ["clean"]
        for severity in range(1, 6):
            generator = torch.Generator().manual_seed(arguments.seed + number)
            degraded = apply_degradation(clean, name, generator, severity=severity).image
            row.append(degraded[0])
            caption.append(f"{name} {severity}: {psnr_rgb(degraded, clean)[0]:.1f} dB")
        rows.append(row)
        captions.append(caption)
    columns = ("photo", *(f"severity {severity}" for severity in range(1, 6)))
    save_picture(draw_contact_sheet(rows, columns, captions), arguments.output)
    print(f"{len(rows)} degradations: {arguments.output}")


if __name__ == "__main__":
    main()
