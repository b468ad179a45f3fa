"""Find views of clean photos that weights take for hazy, to train on them as clean.

    python tools/hard_views.py DIR OUT --weights small --without HELD_OUT

Random squares of each photo in DIR, from close-ups to most of the photo, are resized to one size
and restored. Squares with dark pixels are left out, since they are hardly ever mistaken for hazy
ones. A square whose output differs from it by less than `--below` dB of PSNR is written to
OUT/views, at most `--most` a photo: mostly pale, smooth, near things.

Photos with the names of those in HELD_OUT are left out. Put the photos there that training
validates on (a run's data.txt names them): `vrdir train` cannot see that a view was cut from one.

OUT/hard.txt is a pair list with a line for each view and each synthesis in `SYNTHESES`: clean,
noisy, and in rain without a veil, which are not hazy; and behind haze and in misty rain, or else a
network learns that such things are never hazy (research/experiments.md, 48). Train with it together
with the usual photos, which have to be magnified too, or else the network learns that soft images
need no restoring (46):

    vrdir train refine --pairs OUT/hard.txt --data-pairs-share 0.2 --augmentation close
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor
from torch.nn import functional

from vrdir.data.image_cache import photos_in, readable
from vrdir.data.items import distinct_stems
from vrdir.data.pairs import Pair, write_pairs
from vrdir.degradations.registry import CLEAN
from vrdir.errors import ImageError
from vrdir.images.convert import open_image
from vrdir.restoring.restorer import Restorer

Views = Iterator[tuple[int, Tensor]]

SIDE_PX = 192
# Sides in the photo, in pixels: magnified to three times the size, or reduced.
LEAST, MOST = 64, 320
# Views with pixels darker than this in a channel are hardly ever mistaken for hazy ones.
DARK = 0.08
RAIN = (
    "rain:coverage=0.03..0.5,width_px=0.3..1.3,opacity=0.15..0.9,blur_px=0..0.7,unevenness=0..0.4"
)
SYNTHESES = (
    CLEAN,
    "sensor_noise",
    "noise:sigma=2..40",
    f"{RAIN},veil=0",
    "haze:airlight=0.6..1,warmth=-0.3..0.3,unevenness=0..0.4",
    f"{RAIN},veil=0..0.18,mist=0..0.8",
)


def view_of(photo: Tensor, draws: random.Random) -> Tensor:
    """Return a random square of a (1, 3, H, W) photo as (3, SIDE_PX, SIDE_PX), in 8-bit steps."""
    height, width = photo.shape[-2:]
    side = min(height, width, round(LEAST * (MOST / LEAST) ** draws.random()))
    top, left = draws.randint(0, height - side), draws.randint(0, width - side)
    part = photo[..., top : top + side, left : left + side]
    part = functional.interpolate(
        part, (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True, align_corners=False
    )
    return (part[0].clamp(0, 1) * 255).round() / 255


def darkest(view: Tensor) -> float:
    """Return the 2 % quantile of the pixels' darkest channels, after He et al., CVPR 2009."""
    return float(view.amin(0).flatten().quantile(0.02))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the PSNR in dB of each pair of images of two (B, 3, H, W) batches."""
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)).clamp_min(1e-10))


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("clean", type=Path, metavar="DIR", help="folder of clean photos")
    add("out", type=Path, metavar="OUT", help="new folder for the views")
    add("--weights", default="small", help="a name or a folder")
    add("--without", type=Path, help="leave out the photos with the names of those in this folder")
    add("--views", type=int, default=100, help="views drawn of each photo")
    add("--below", type=float, default=35.0, metavar="DB", help="keep views of a lower PSNR")
    add("--most", type=int, default=12, help="views kept of each photo, those of lowest PSNR")
    add("--device", default="auto")
    return parser


def hard_views(photo: Tensor, restorer: Restorer, draws: random.Random, given: Any) -> Views:
    """Yield the number and pixels of the views of one photo that restoring changes too much."""
    views = [
        view for view in (view_of(photo, draws) for _ in range(given.views)) if darkest(view) > DARK
    ]
    if not views:
        return
    batch = torch.stack(views)
    # More than four images at once are slower on a CPU.
    restored = torch.cat([restorer(part) for part in batch.split(4)])
    figures = enumerate(psnr(restored, batch).tolist())
    worst = sorted((value, i) for i, value in figures if value < given.below)
    for _, i in worst[: given.most]:
        yield i, views[i]


def main() -> None:
    """Find the views, and write them with their pair list."""
    given = parser().parse_args()
    if given.out.exists():
        parser().error(f"{given.out} already exists; choose a new folder, or delete it")
    held_out = {path.stem for path in photos_in(given.without)} if given.without else set()
    restorer = Restorer(given.weights, given.device, precision="bf16")
    unfinished = given.out.with_name(given.out.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "views").mkdir(parents=True)
    pairs: list[Pair] = []
    paths = readable([path for path in photos_in(given.clean) if path.stem not in held_out])
    for path, name in track(list(zip(paths, distinct_stems(paths), strict=True)), "Photos"):
        try:
            draws, photo = random.Random(name), open_image(path).tensor
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        for number, view in hard_views(photo, restorer, draws, given):
            file = unfinished / "views" / f"{name}_{number:03d}.png"
            pixels = (view * 255).round().byte().movedim(0, 2).numpy()
            Image.fromarray(pixels.astype(np.uint8)).save(file)
            pairs += [Pair(file, None, synthesis, len(pairs) + 1) for synthesis in SYNTHESES]
    if not pairs:
        shutil.rmtree(unfinished)
        parser().error(f"no view has a PSNR below {given.below:g} dB: there is nothing to train on")
    write_pairs(pairs, unfinished / "hard.txt")
    unfinished.rename(given.out)
    print(f"{len(pairs) // len(SYNTHESES)} views, {len(pairs)} lines in {given.out / 'hard.txt'}")


if __name__ == "__main__":
    main()
