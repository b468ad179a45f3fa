"""Views of clean photos that weights take for hazy, to be trained on as what they are.

    python tools/hard_views.py DIR OUT --weights small --without HELD_OUT

Of each photo of DIR (but those whose names are in the folder HELD_OUT) random squares, from close-ups to most of the photo, are brought
to one size and restored; those without dark pixels alone, for others are hardly ever taken for hazy. Where a view that needs nothing comes
out below `--below` dB it is kept, `--most` of a photo, as OUT/views/*.png: pale, smooth, near things mostly. HELD_OUT is to hold the photos
that training validates on (a run's data.txt names them): `vrdir train` cannot tell that a view is of one of these. OUT/hard.txt is a pair
list with a line for each view and each of the syntheses below: bare, noisy and in rain without a veil, as what they are; and behind haze
and in misty rain, else a network learns from the list that such things never have a veil (docs/experiments.md, 48).
`vrdir train refine --pairs OUT/hard.txt --data-pairs-share 0.2 --augmentation close` then shows them beside the usual photos. Those have to
be magnified, too: else it learns that what is soft needs nothing (46).
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

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

SIDE_PX = 192
LEAST, MOST = 64, 320  # sides in the photo: magnified to three times the size, or reduced
DARK = 0.08  # views with pixels darker than this in a channel are hardly ever taken for hazy: they are passed over
SYNTHESES = (
    CLEAN,
    "sensor_noise",
    "noise:sigma=2..40",
    "rain:coverage=0.03..0.5,width_px=0.3..1.3,opacity=0.15..0.9,veil=0,blur_px=0..0.7,unevenness=0..0.4",
    "haze:airlight=0.6..1,warmth=-0.3..0.3,unevenness=0..0.4",
    "rain:coverage=0.03..0.5,width_px=0.3..1.3,opacity=0.15..0.9,veil=0..0.18,blur_px=0..0.7,unevenness=0..0.4,mist=0..0.8",
)


def view_of(photo: Tensor, draws: random.Random) -> Tensor:
    """A random square of a (1, 3, H, W) photo, as (3, SIDE_PX, SIDE_PX) of 8 bits."""
    height, width = photo.shape[-2:]
    side = min(height, width, round(LEAST * (MOST / LEAST) ** draws.random()))
    top, left = draws.randint(0, height - side), draws.randint(0, width - side)
    part = photo[..., top : top + side, left : left + side]
    part = functional.interpolate(
        part, (SIDE_PX, SIDE_PX), mode="bicubic", antialias=True, align_corners=False
    )
    return (part[0].clamp(0, 1) * 255).round() / 255


def darkest(view: Tensor) -> float:
    """What a fiftieth of the pixels lies below in their darkest channel: the dark channel (He et al., CVPR 2009), of single pixels."""
    return float(view.amin(0).flatten().quantile(0.02))


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """In dB, of each image of two batches."""
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)).clamp_min(1e-10))


def main() -> None:
    """Draw, restore, keep."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clean", type=Path, metavar="DIR", help="folder of clean photos")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to be made")
    parser.add_argument("--weights", default="small", help="a name or a folder")
    parser.add_argument(
        "--without",
        type=Path,
        help="folder of the photos held out of training: those of the same names are left out",
    )
    parser.add_argument("--views", type=int, default=100, help="drawn of each photo")
    parser.add_argument(
        "--below",
        type=float,
        default=35.0,
        metavar="DB",
        help="what the output is against the view, to be kept",
    )
    parser.add_argument("--most", type=int, default=12, help="kept of each photo, the worst")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already; name a folder to be made, or remove it")
    held_out = {path.stem for path in photos_in(arguments.without)} if arguments.without else set()
    restorer = Restorer(arguments.weights, arguments.device, precision="bf16")
    unfinished = arguments.out.with_name(arguments.out.name + ".partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "views").mkdir(parents=True)
    pairs: list[Pair] = []
    paths = readable([path for path in photos_in(arguments.clean) if path.stem not in held_out])
    for path, name in track(list(zip(paths, distinct_stems(paths), strict=True)), "Photos"):
        try:
            draws, photo = random.Random(name), open_image(path).tensor
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        views = [
            view
            for view in (view_of(photo, draws) for _ in range(arguments.views))
            if darkest(view) > DARK
        ]
        if not views:
            continue
        batch = torch.stack(views)
        restored = torch.cat(
            [restorer(part) for part in batch.split(4)]
        )  # more at once are slower on a CPU
        worst = sorted(
            (value, i)
            for i, value in enumerate(psnr(restored, batch).tolist())
            if value < arguments.below
        )
        for _, i in worst[: arguments.most]:
            file = unfinished / "views" / f"{name}_{i:03d}.png"
            Image.fromarray(
                (views[i] * 255).round().byte().movedim(0, 2).numpy().astype(np.uint8)
            ).save(file)
            pairs += [Pair(file, None, synthesis, len(pairs) + 1) for synthesis in SYNTHESES]
    if not pairs:
        shutil.rmtree(unfinished)
        parser.error(f"no view came out below {arguments.below:g} dB: there is nothing to train on")
    write_pairs(pairs, unfinished / "hard.txt")
    unfinished.rename(arguments.out)
    print(
        f"{len(pairs) // len(SYNTHESES)} views, {len(pairs)} lines in {arguments.out / 'hard.txt'}"
    )


if __name__ == "__main__":
    main()
