"""How time and memory grow with the size of an image, from 1 to 64 megapixels, and how far large images are from those in one piece.

    python benchmarks/scaling.py [--weights small] [--threads 2] [--megapixels 1 2 4 8 16 33 64] [--exact 2048]

A photo (scikit-image's, in an environment with the extra `demo`) is enlarged and put behind synthetic haze and noise. Each size runs in a
process of its own, whose peak memory above what it held before the image was read is printed; the slope of the logarithms of time
over pixels is fitted. With `--exact`, an image of so many pixels squared is restored both ways, and PSNR between the two printed.
With `--seams FILE` nothing else is done: a sky behind synthetic haze as it is, restored in bands, and in four tiles each by itself, as
a picture; and the PSNR of both against one piece.
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
from vrdir.images.convert import open_image
from vrdir.images.reading import allow_megapixels
from vrdir.restoring.strips import restore_in_strips


def picture(width: int, height: int) -> Image.Image:
    import skimage.data

    photo = (
        Image.open(Path(skimage.data.__file__).parent / "coffee.png")
        .convert("RGB")
        .resize((width, height), Image.Resampling.BICUBIC)
    )
    return behind_haze(photo, sigma=15)


def behind_haze(photo: Image.Image, sigma: float) -> Image.Image:
    pixels = np.asarray(photo, np.float32)
    transmission = np.exp(-1.5 * np.linspace(1, 0.15, photo.height, dtype=np.float32))[
        :, None, None
    ]
    pixels = pixels * transmission + 230 * (1 - transmission)
    noise = np.random.default_rng(0).standard_normal(pixels.shape, np.float32)
    return Image.fromarray((pixels + sigma * noise).clip(0, 255).astype(np.uint8))


def one_size(arguments: argparse.Namespace) -> None:
    """In a process of its own: restores a file's image of this size, and prints what it took."""
    allow_megapixels(1000)
    torch.set_num_threads(arguments.threads)
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    restorer(picture(256, 256))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    restorer(Path(arguments.file))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"seconds": seconds, "mebibytes": peak / 1024}))


def exactness(arguments: argparse.Namespace) -> str:
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    image = open_image(picture(arguments.exact, arguments.exact)).tensor.contiguous(
        memory_format=torch.channels_last
    )
    with torch.no_grad():
        whole = restorer.model.restore(image).image
        bands = restore_in_strips(restorer.model, image).image  # type: ignore[arg-type]
    largest = float((whole - bands).abs().max())
    size = f"{arguments.exact} x {arguments.exact}"
    return f"{size}: PSNR {psnr(whole, bands):.1f} dB between bands and one piece, largest difference {largest:.1e}"


def seams(arguments: argparse.Namespace) -> str:
    import skimage.data

    photo = (
        Image.open(Path(skimage.data.__file__).parent / "rocket.jpg")
        .convert("RGB")
        .crop((0, 0, 427, 300))
    )
    restorer = vrdir.Restorer(arguments.weights, "cpu")
    image = open_image(
        behind_haze(photo.resize((1600, 1120), Image.Resampling.BICUBIC), sigma=6)
    ).tensor
    image = image.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        whole = restorer.model.restore(image).image
        bands = restore_in_strips(restorer.model, image, strip_pixels=2**17).image  # type: ignore[arg-type]
        tiles = torch.cat(
            [restorer.model.restore(tile).image for tile in image.split(280, dim=2)], 2
        )
    side_by_side = (
        (torch.cat([image, bands, tiles], 3)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    )
    sheet = Image.fromarray(side_by_side)
    sheet.resize((sheet.width // 4, sheet.height // 4), Image.Resampling.BOX).save(arguments.seams)
    return f"PSNR against one piece: {psnr(whole, bands):.1f} dB in bands, {psnr(whole, tiles):.1f} dB in tiles"


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return -10 * math.log10(max(float((a - b).double().square().mean()), 1e-20))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--weights", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 2, 4, 8, 16, 33.2, 64])
    parser.add_argument("--exact", type=int, metavar="PIXELS", default=2048)
    parser.add_argument("--seams", type=Path, metavar="FILE")
    parser.add_argument("--file", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
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
        file = Path(f"scaling-{width}x{height}.jpg")
        try:
            picture(width, height).save(file, quality=95)
            again = [
                sys.executable,
                __file__,
                "--file",
                str(file),
                "--weights",
                arguments.weights,
                "--threads",
                str(arguments.threads),
            ]
            found = json.loads(
                subprocess.run(again, check=True, capture_output=True, text=True).stdout
            )
        finally:
            file.unlink(missing_ok=True)
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
        console.print(
            f"time grows with pixels to the power of {np.polyfit(*zip(*logarithms, strict=True), 1)[0]:.2f}"
        )
    if arguments.exact:
        console.print(exactness(arguments))
    console.print(
        f"{arguments.weights}, {arguments.threads} threads, float32, torch {torch.__version__}; the image is synthetic"
    )


if __name__ == "__main__":
    main()
