"""Compare the command line over a folder of photos with the bare network, and show where time goes.

    python benchmarks/folder.py [--photos 200] [--side 512] [--format jpg] [--threads 2]

The photos are cut from those of scikit-image (extra `demo`) and get synthetic noise. "Bare network"
is one image after the other on all threads, without reading and writing. The command line's time is
that of the whole process with its start.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import vrdir
from vrdir.images.convert import open_image
from vrdir.images.reading import read_file
from vrdir.images.writing import encode, format_of


def write_photos(folder: Path, count: int, side: int, suffix: str) -> list[Path]:
    """Write noisy photos into a folder and return their paths."""
    sources = [
        Image.open(Path(skimage.data.__file__).parent / name).convert("RGB")
        for name in ("astronaut.png", "coffee.png", "chelsea.png")
    ]
    generator = np.random.default_rng(0)
    paths = []
    for number in range(count):
        source = sources[number % len(sources)]
        left, top = (int(generator.integers(0, room // 3)) for room in source.size)
        part = source.crop(
            (left, top, left + source.width * 2 // 3, top + source.height * 2 // 3)
        ).resize((side, side), Image.Resampling.BICUBIC)
        noisy = np.asarray(part) + 15 * generator.standard_normal((side, side, 3))
        paths.append(folder / f"{number:04d}.{suffix}")
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=92)
    return paths


STEPS = ("read and decode", "convert to RGB in [0, 1]", "network", "convert back", "encode, write")
WARM_UP = 5  # photos that are not measured


def seconds_a_step(restorer: vrdir.Restorer, paths: list[Path]) -> dict[str, float]:
    """Restore photos one after the other and return the mean seconds of each step."""
    seconds = dict.fromkeys(STEPS, 0.0)
    for number, path in enumerate(paths):
        clock = [time.perf_counter()]
        picture = read_file(path)
        clock.append(time.perf_counter())
        opened = open_image(picture)
        clock.append(time.perf_counter())
        with torch.no_grad():
            restored = restorer.restore(opened.tensor).image
        clock.append(time.perf_counter())
        closed = opened.close(restored)
        clock.append(time.perf_counter())
        path.with_suffix(".out").write_bytes(encode(closed, format_of(path)))
        clock.append(time.perf_counter())
        if number >= WARM_UP:
            for key, start, stop in zip(seconds, clock, clock[1:], strict=False):
                seconds[key] += (stop - start) / (len(paths) - WARM_UP)
    return seconds


def command_seconds(source: Path, target: Path, threads: int, precision: str) -> float:
    """Return the seconds of `vrdir restore`, the whole process."""
    command = [sys.executable, "-m", "vrdir", "restore", str(source), "-o", str(target)]
    command += ["--device", "cpu", "--precision", precision]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--side", type=int, default=512, metavar="PIXELS")
    parser.add_argument("--format", default="jpg")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    restorer = vrdir.Restorer("small", "cpu", precision=arguments.precision)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "photos"
        folder.mkdir()
        paths = write_photos(folder, arguments.photos, arguments.side, arguments.format)
        seconds = seconds_a_step(restorer, paths)
        how = (arguments.threads, arguments.precision)
        whole = command_seconds(folder, Path(name) / "out", *how)
        one = command_seconds(paths[0], Path(name) / "one.png", *how)
    table = Table("one after the other", "ms a photo", "share")
    for key, value in seconds.items():
        table.add_row(key, f"{1000 * value:.1f}", f"{value / sum(seconds.values()):.0%}")
    console = Console()
    console.print(table)
    bare = seconds["network"] * len(paths)
    console.print(
        f"bare network: {bare:.1f} s for {len(paths)} photos; "
        f"command line: {whole:.1f} s, {whole / bare:.2f} of it"
    )
    console.print(f"the command line with one photo: {one:.1f} s")
    console.print(
        f"{arguments.side} x {arguments.side} {arguments.format}, {arguments.threads} threads, "
        f"{arguments.precision}"
    )


if __name__ == "__main__":
    main()
