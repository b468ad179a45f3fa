"""Measure how time and memory grow with the size of an image, from 1 to 64 megapixels.

    python benchmarks/scaling.py [--weights small] [--threads 2] [--megapixels 1 2 4 8 16 33 64]
        [--exact 2048] [--without-copy]

A photo of scikit-image (extra `demo`) is enlarged and gets synthetic haze and noise. Each size runs
in its own process; printed are the time and the peak memory above that before the image was read,
and the slope of log(time) over log(pixels). `--exact SIDE` restores an image of that side in strips
and as a whole, and prints the PSNR between the results. `--seams FILE` only writes a picture of a
hazy sky, restored in strips and in four separate tiles, and prints the PSNR of both against the
whole image.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vrdir
import vrdir.restoring.network as network
from vrdir.images.convert import open_image
from vrdir.images.reading import allow_megapixels
from vrdir.restoring import restore_in_strips
from vrdir.restoring.strips import STRIP_PIXELS


def picture(width: int, height: int) -> Image.Image:
    """Return a photo of this size behind synthetic haze and noise."""
    import skimage.data

    photo = Image.open(Path(skimage.data.__file__).parent / "coffee.png").convert("RGB")
    return behind_haze(photo.resize((width, height), Image.Resampling.BICUBIC), sigma=15)


def behind_haze(photo: Image.Image, sigma: float) -> Image.Image:
    """Return a photo with haze that is densest at the top, and noise of `sigma` 8-bit levels."""
    pixels = np.asarray(photo, np.float32)
    depth = np.linspace(1, 0.15, photo.height, dtype=np.float32)[:, None, None]
    transmission = np.exp(-1.5 * depth)
    pixels = pixels * transmission + 230 * (1 - transmission)
    noise = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
    return Image.fromarray((pixels + sigma * noise).clip(0, 255).astype(np.uint8))


def one_size(arguments: argparse.Namespace) -> None:
    """Restore a file, in its own process, and print time and memory."""
    allow_megapixels(1000)
    torch.set_num_threads(arguments.threads)
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    if arguments.without_copy:
        vars(network)["follow_copy"] = lambda image, restoration, restore: restoration
    restorer(picture(256, 256))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    restorer(Path(arguments.file))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "mebibytes": peak / 1024}))


def restored_whole(restorer: vrdir.Restorer, image: torch.Tensor) -> torch.Tensor:
    """Return an image that is restored as a whole, however large."""
    with torch.no_grad():
        return restorer.model.restore(image).image


def restored_in_strips(
    restorer: vrdir.Restorer, image: torch.Tensor, strip_pixels: int = STRIP_PIXELS
) -> torch.Tensor:
    """Return an image that is restored in strips."""
    assert isinstance(restorer.model, vrdir.VRDIR)
    return restore_in_strips(restorer.model, image, strip_pixels=strip_pixels).image


def exactness(arguments: argparse.Namespace) -> str:
    """Compare strips with the whole image."""
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    image = open_image(picture(arguments.exact, arguments.exact)).tensor
    image = image.contiguous(memory_format=torch.channels_last)
    whole, strips = restored_whole(restorer, image), restored_in_strips(restorer, image)
    largest = float((whole - strips).abs().max())
    return (
        f"{arguments.exact} x {arguments.exact}: PSNR {psnr(whole, strips):.1f} dB between strips "
        f"and the whole image, largest difference {largest:.1e}"
    )


def seams(arguments: argparse.Namespace) -> str:
    """Write a picture of a sky: hazy, restored in strips, restored in separate tiles."""
    import skimage.data

    photo = Image.open(Path(skimage.data.__file__).parent / "rocket.jpg").convert("RGB")
    photo = photo.crop((0, 0, 427, 300)).resize((1600, 1120), Image.Resampling.BICUBIC)
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    image = open_image(behind_haze(photo, sigma=6)).tensor
    image = image.contiguous(memory_format=torch.channels_last)
    whole, strips = restored_whole(restorer, image), restored_in_strips(restorer, image, 2**17)
    tiles = torch.cat([restored_whole(restorer, tile) for tile in image.split(280, dim=2)], 2)
    side_by_side = torch.cat([image, strips, tiles], 3)[0].permute(1, 2, 0) * 255
    sheet = Image.fromarray(side_by_side.round().byte().numpy())
    sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.BOX).save(arguments.seams)
    return (
        f"PSNR against the whole image: {psnr(whole, strips):.1f} dB in strips, "
        f"{psnr(whole, tiles):.1f} dB in tiles"
    )


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the PSNR of two images in [0, 1], in dB."""
    return -10 * math.log10(max(float((a - b).double().square().mean()), 1e-20))


def parsed() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 2, 4, 8, 16, 33.2, 64])
    parser.add_argument("--exact", type=int, metavar="PIXELS", default=2048)
    parser.add_argument("--seams", type=Path, metavar="FILE")
    parser.add_argument(
        "--without-copy",
        action="store_true",
        help="do not restore a reduced copy of a large image, too",
    )
    parser.add_argument("--file", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(width: int, height: int, arguments: argparse.Namespace) -> dict[str, float]:
    """Restore an image of this size in its own process, and return time and memory."""
    file = Path(f"scaling-{width}x{height}.jpg")
    try:
        picture(width, height).save(file, quality=95)
        again = [sys.executable, __file__, "--file", str(file), "--weights", arguments.weights]
        again += ["--threads", str(arguments.threads)]
        again += ["--without-copy"] * arguments.without_copy
        output = subprocess.run(again, check=True, capture_output=True, text=True).stdout
        found: dict[str, float] = json.loads(output)
        return found
    finally:
        file.unlink(missing_ok=True)


def main() -> None:
    """Measure all sizes and print a table."""
    arguments = parsed()
    if arguments.file:
        one_size(arguments)
        return
    torch.set_num_threads(arguments.threads)
    if arguments.seams:
        print(seams(arguments))
        return
    console = Console(width=120)
    table = Table(
        "megapixels", "size", "seconds", "seconds a megapixel", "peak memory above idle, MiB"
    )
    logarithms = []
    for megapixels in arguments.megapixels:
        height = round(math.sqrt(megapixels * 1e6 * 9 / 16) / 8) * 8
        width = round(height * 16 / 9)
        found = measured(width, height, arguments)
        pixels = width * height / 1e6
        logarithms.append((math.log(pixels), math.log(found["seconds"])))
        table.add_row(
            f"{pixels:.1f}",
            f"{width} x {height}",
            f"{found['seconds']:.2f}",
            f"{found['seconds'] / pixels:.2f}",
            f"{found['mebibytes']:.0f}",
        )
    console.print(table)
    if len(logarithms) > 1:
        sizes, times = np.array(logarithms).T
        power = np.polyfit(sizes, times, 1)[0]
        console.print(f"time grows with pixels to the power of {power:.2f}")
    if arguments.exact:
        console.print(exactness(arguments))
    console.print(
        f"{arguments.weights}, {arguments.threads} threads, float32, torch {torch.__version__}; "
        "the image is synthetic"
    )


if __name__ == "__main__":
    main()
