"""Measure the memory that it takes to open an image file and to write it again, for each format.

    python benchmarks/image_memory.py [--megapixels 24] [--restore]

Each measurement runs in its own process. Printed are bytes per pixel above the idle process:

- decoded: after `read_file`, which decodes the whole image;
- open: the peak of `open_image`, which also converts to float32 (3 channels x 4 bytes = 12);
- write: the peak of converting back and encoding, in the same format;
- restore: the peak of restoring with the weights `small`, with --restore.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vrdir.images.convert import open_image
from vrdir.images.formats import format_of_suffix
from vrdir.images.reading import read_file
from vrdir.images.writing import encode

SUFFIXES = (".jpg", ".png", ".tif", ".ppm", ".webp", ".jp2")


def status(what: str) -> int:
    """Return a figure of /proc/self/status in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(f"{what}:"))
    return int(line.split()[1]) * 1024


def peak_of(work: Callable[[], Any]) -> tuple[int, Any]:
    """Return how many bytes a piece of work needs at its peak, beyond now, and its result."""
    Path("/proc/self/clear_refs").write_text("5")
    before = status("VmRSS")
    result = work()
    return status("VmHWM") - before, result


def measure(path: Path, restore: bool) -> list[float]:
    """Return the figures of a file, in bytes per pixel."""
    small = path.with_name(f"small{path.suffix}")  # so that imports and tables do not count
    opened = open_image(small)
    encode(opened.close(opened.tensor), Image.open(small).format or "")
    before = status("VmRSS")
    picture = read_file(path)
    decoded = status("VmRSS") - before
    pixels = picture.size[0] * picture.size[1]
    file_format = str(picture.format)
    del picture
    figures = [decoded]
    peak, opened = peak_of(lambda: open_image(path))
    figures.append(peak)
    peak, _ = peak_of(lambda: encode(opened.close(opened.tensor), file_format))
    figures.append(peak)
    if restore:
        from vrdir import Restorer

        restorer = Restorer(device="cpu")
        restorer(small)
        del opened
        figures.append(peak_of(lambda: restorer(path))[0])
    return [figure / pixels for figure in figures]


def main() -> None:
    """Parse the arguments, measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megapixels", type=float, default=24)
    parser.add_argument("--restore", action="store_true")
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.file:
        print(" | ".join(f"{figure:.1f}" for figure in measure(given.file, given.restore)))
        return
    width = round((given.megapixels * 1e6 * 3 / 2) ** 0.5)
    height = round(width * 2 / 3)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x // 16, y // 16, (x + y) // 16], -1).astype(np.uint8)
    print("| format | decoded | open | write |" + (" restore |" if given.restore else ""))
    print("|---|---|---|---|" + ("---|" if given.restore else ""))
    for suffix in SUFFIXES:
        with tempfile.TemporaryDirectory() as folder:
            entry = format_of_suffix(suffix)
            path = Path(folder) / f"image{suffix}"
            Image.fromarray(pixels).save(path, entry.name if entry else None)
            Image.fromarray(pixels[:64, :64]).save(path.with_name(f"small{suffix}"))
            command = [sys.executable, __file__, "--file", str(path)]
            command += ["--restore"] if given.restore else []
            line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            print(f"| {suffix} | {line.strip()} |", flush=True)


if __name__ == "__main__":
    main()
