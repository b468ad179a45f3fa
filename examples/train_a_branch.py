"""Train a branch for a new degradation, and see what it restores.

    python examples/train_a_branch.py                  # a few minutes on one core
    python examples/train_a_branch.py --steps 6        # to see that it runs

The degradation is declared below: pixels that a broken sensor leaves black. The script trains a
small network on photos from scikit-image: the decoder, a branch for the new degradation, the
fusion, and all together. Then it degrades photos that were held out, restores them and prints the
PSNR of both.
docs/extending/branch.md explains each step.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from torch import Tensor

from vrdir import Restorer
from vrdir.data import ValidationSet
from vrdir.degradations import Draws, Parameter, Place, apply_degradation, degradation
from vrdir.training import Recipe, Sources, all_stages, train

PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png")
CROP = 160


@degradation(
    "dead_pixels",
    Place.NOISE,
    formula="`I = J (1 - m)`",
    source="example",
    share=Parameter(
        0.01,
        0.1,
        bounds=(0, 1),
        about="share of the pixels that are black",
        severities=(0.01, 0.02, 0.04, 0.07, 0.1),
        milder=(0.01, 0.04),
    ),
)
def dead_pixels(image: Tensor, draws: Draws) -> Tensor:
    """Leave pixels black: `I = J (1 - m)`, m drawn for each pixel."""
    dead = draws.unit(1, *image.shape[-2:]) < draws.parameter("share")
    return image * ~dead


def write_photos(folder: Path) -> None:
    """Write crops of the photos in scikit-image's wheel; nothing is downloaded."""
    folder.mkdir(parents=True)
    for name in PHOTOS:
        photo = Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        photo = photo.resize((2 * CROP, 2 * CROP))
        for left in (0, CROP):
            for top in (0, CROP):
                crop = photo.crop((left, top, left + CROP, top + CROP))
                crop.save(folder / f"{Path(name).stem}_{left}_{top}.png")


def recipe(steps: int) -> Recipe:
    """Return the recipe `smoke` for a network with branches for noise and dead pixels."""
    plain = Recipe.read(
        "smoke",
        **{
            "shares": {"clean": 1, "noise": 1, "mixed": 1},
            "decoder.steps": steps,
            "branch.steps": steps // 2,
            "fusion.steps": steps // 2,
            "refine.steps": 2 * steps,
            "validation.every": steps,
        },
    )
    return plain.with_branches(["noise", "dead_pixels"])


def psnr(image: Tensor, clean: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of images in [0, 1]."""
    return float(-10 * (image - clean).square().mean().log10())


def gain(weights: Path, sources: Sources, settings: Recipe) -> tuple[float, float]:
    """Return the mean PSNR in dB of held-out photos with dead pixels, and after restoring."""
    _, items = sources.items(settings)
    held_out = ValidationSet(items, settings.model.branches, settings.validation.crop_px)
    restorer = Restorer(weights)
    before, after = [], []
    for _, _, clean in held_out.pairs({"clean": 1.0}, lambda item: True):
        generator = torch.Generator().manual_seed(1)
        degraded = apply_degradation(clean, "dead_pixels", generator, share=0.05).image
        before.append(psnr(degraded, clean))
        after.append(psnr(restorer(degraded), clean))
    return float(np.mean(before)), float(np.mean(after))


def main() -> None:
    """Train, restore and print the PSNR."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=150, help="length of the decoder's stage")
    parser.add_argument("--output", type=Path, help="folder for the run; default: a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary) / "run"
        photos = Path(temporary) / "photos"
        write_photos(photos)
        settings, sources = recipe(arguments.steps), Sources(clean=photos)
        weights = train(settings, all_stages(settings), sources, output)
        before, after = gain(weights, sources, settings)
    print(f"dead pixels: {before:.1f} dB as degraded, {after:.1f} dB restored")


if __name__ == "__main__":
    main()
